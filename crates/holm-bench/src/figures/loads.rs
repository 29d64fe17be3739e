//! Figures that the tables of loads hold: 256 bytes, 100 publishers, TLS.

use super::Figure;
use crate::brokers::Product;
use crate::report::{Mode, Row};

pub(super) fn of_rows(rows: &[Row]) -> Vec<Figure> {
    let find = |product: Product, mode: Mode| {
        rows.iter().find(|row| {
            (row.broker.as_str(), row.link.as_str()) == (product.name(), "TLS")
                && (row.payload_bytes, row.clients, row.mode) == (256, 100, mode)
        })
    };
    let mut figures = Vec::new();
    let mut ratio = |name: &str, of: Product, to: Product, limit: &str| {
        if let (Some(of), Some(to)) = (find(of, Mode::Closed), find(to, Mode::Closed)) {
            let value = format!("{:.1} ×", of.throughput() / to.throughput());
            let how = format!(
                "{:.0} and {:.0} messages a second, one after the other in the same run; load {}",
                of.throughput(),
                to.throughput(),
                of.load_average
            );
            figures.push(Figure::new(name, value, limit, how));
        }
    };
    let memory = Product::HolmEdgeMemory;
    ratio(
        "module to module beside NATS JetStream",
        Product::HolmEdge,
        Product::Nats,
        "≥ 4 ×",
    );
    ratio(
        "module to module beside mosquitto",
        Product::HolmEdge,
        Product::Mosquitto,
        "≥ 2 ×",
    );
    ratio("the same in memory beside rumqttd", memory, Product::Rumqttd, "≥ 1.5 ×");
    if let Some(row) = find(Product::HolmEdge, Mode::Closed) {
        figures.push(Figure::new(
            "processor time of the edge for a message",
            format!("{:.1} µs", row.server_us_per_message),
            "≤ 6 µs",
            "as fast as the windows allow; taken in, on disk, delivered, acknowledged on both sides",
        ));
    }
    if let Some(row) = find(Product::HolmEdge, Mode::Open) {
        let late = format!(
            "1,000 a second; the generator itself was {:.2} ms late",
            row.lateness.p99_ms
        );
        figures.push(Figure::new(
            "delivery, 99th percentile",
            format!("{:.2} ms", row.end_to_end.p99_ms),
            "< 1 ms",
            late.clone(),
        ));
        figures.push(Figure::new(
            "PUBACK, 99th percentile",
            format!("{:.2} ms", row.puback.p99_ms),
            &format!("≤ {:.2} ms", row.sync.p99_ms * 2.0),
            format!(
                "twice the 99th percentile of the disk's own write and sync, {:.2} ms; {late}",
                row.sync.p99_ms
            ),
        ));
    }
    figures
}
