//! The report as a page for people. Every number of a peer stands beside its ratio to the Holm edge under the same load.

use std::fmt::Write as _;

use super::{Figure, Idle, Latency, Mode, Report, Row, Start};

/// The row that the others are compared with.
pub const REFERENCE: &str = "Holm edge";

/// The page.
#[must_use]
pub fn document(report: &Report) -> String {
    let parts = [
        head(report),
        brokers(report),
        figures(
            "Figures of the edge",
            "Loads are of 256 bytes with 100 publishers over TLS.",
            &report.figures,
        ),
        figures(
            "Figures of the hub",
            "Events are acknowledged when they are on disk.",
            &report.hub,
        ),
        throughput(report),
        latency(report),
        idle(&report.idle),
        starts(&report.starts),
    ];
    parts.join("\n")
}

fn head(report: &Report) -> String {
    let machine = &report.machine;
    let short = if report.quick {
        "\n**This was the short run** (`--quick`): loads too short to quote.\n"
    } else {
        ""
    };
    format!(
        "# Benchmarks\n\n\
         Made by `{}`, {}; written by the program, not by hand.\n{short}\n\
         Machine: {} × {}, {} MiB of memory, Linux {}. Generator and brokers share it, over the loopback.\n\n\
         Each load ran for {} s against a fresh broker. Publishers send at QoS 1 with at most {} unacknowledged messages each, on \
         a topic (an output) each; one client receives everything at QoS 1. The generator has one thread. *Syncs* is how often a \
         second the same payload can be written and `fdatasync`ed, one after the other, measured for a second before the brokers \
         of that row took turns; *load* is the load average of one minute when the row began. A ratio (×) is the figure divided by \
         that of {REFERENCE} under the same load: above 1 is better for messages a second, worse for everything else. A loss is a \
         message that was acknowledged and not delivered. A hub gives one device at most 50 modules: loads of more clients than \
         that are there to compare brokers.\n",
        report.command,
        report.date,
        machine.cores,
        machine.processor,
        machine.memory_mib,
        machine.kernel,
        report.seconds,
        report.window
    )
}

fn brokers(report: &Report) -> String {
    let mut text = String::from(
        "## Who was measured\n\n| broker | version | when PUBACK comes, the message is | set up |\n| --- | --- | --- | --- |\n",
    );
    for broker in &report.brokers {
        line(
            &mut text,
            &[&broker.name, &broker.version, &broker.promise, &broker.settings],
        );
    }
    text
}

fn figures(title: &str, what: &str, figures: &[Figure]) -> String {
    let mut text = format!(
        "## {title}\n\nEach beside the limit that was set for it. {what}\n\n\
         | figure | measured | limit | how |\n| --- | ---: | ---: | --- |\n",
    );
    for figure in figures {
        line(&mut text, &[&figure.name, &figure.value, &figure.limit, &figure.how]);
    }
    text
}

fn throughput(report: &Report) -> String {
    let mut text = String::from(
        "## Throughput\n\n\
         As fast as the window allows. Messages a second count to the last delivery.\n\n\
         | bytes | clients | broker | link | messages/s | × | broker CPU µs/message | × | generator CPU µs/message | lost | syncs/s | load |\n\
         | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for row in rows(report, Mode::Closed) {
        let holm = reference(report, row);
        let rate = Row::throughput;
        line(
            &mut text,
            &[
                &row.payload_bytes.to_string(),
                &row.clients.to_string(),
                &row.broker,
                &row.link,
                &thousands(rate(row)),
                &ratio(rate(row), holm.map(rate)),
                &format!("{:.1}", row.server_us_per_message),
                &ratio(row.server_us_per_message, holm.map(|it| it.server_us_per_message)),
                &format!("{:.1}", row.generator_us_per_message),
                &row.outcome.lost.to_string(),
                &thousands(row.sync.per_second),
                one_minute(row),
            ],
        );
    }
    text
}

fn latency(report: &Report) -> String {
    let mut text = String::from(
        "## Latency at 1,000 messages a second\n\n\
         By schedule: time counts from when a message was due, whatever held it up. Milliseconds. *late* is how late the \
         generator itself sent, 99th percentile: part of every figure of its row. A message that comes alone is synced alone: *CPU µs/sync* is what that costs a program \
         that does nothing else, and a broker that does not sync does not pay it.\n\n\
         | bytes | clients | broker | link | PUBACK p50 | × | PUBACK p99 | × | delivery p50 | × | delivery p99 | × | late | broker CPU µs/message | × | unsent | lost | syncs/s | CPU µs/sync | load |\n\
         | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for row in rows(report, Mode::Open) {
        let holm = reference(report, row);
        let mut cells = vec![
            row.payload_bytes.to_string(),
            row.clients.to_string(),
            row.broker.clone(),
            row.link.clone(),
        ];
        let figures: [fn(&Row) -> f64; 4] = [
            |row| row.puback.p50_ms,
            |row| row.puback.p99_ms,
            |row| row.end_to_end.p50_ms,
            |row| row.end_to_end.p99_ms,
        ];
        for figure in figures {
            cells.push(milliseconds(figure(row)));
            cells.push(ratio(figure(row), holm.map(figure)));
        }
        cells.extend([
            milliseconds(row.lateness.p99_ms),
            format!("{:.1}", row.server_us_per_message),
            ratio(row.server_us_per_message, holm.map(|it| it.server_us_per_message)),
            row.outcome.unsent.to_string(),
            row.outcome.lost.to_string(),
            thousands(row.sync.per_second),
            format!("{:.0}", row.sync.cpu_us),
            one_minute(row).to_owned(),
        ]);
        line(&mut text, &cells);
    }
    text
}

fn idle(rows: &[Idle]) -> String {
    let mut text = String::from(
        "## Memory of an idle broker\n\nResident set, and proportional set (PSS), a second after the last client connected. Of the Holm edge it is the broker \
         alone, with no hub in reach; *whole* is `holm edge run` with agent, security and runtimes, connected to a hub, with three \
         modules of type `process` that are connected and have nothing to do (they and their supervisors are not in the figure).\n\n\
         | broker | link | clients | MiB resident | MiB PSS |\n| --- | --- | ---: | ---: | ---: |\n",
    );
    for row in rows {
        let mib = |kib: u64| format!("{}.{}", kib / 1024, kib % 1024 * 10 / 1024);
        let clients = row.clients.to_string();
        line(
            &mut text,
            &[
                row.broker.as_str(),
                &row.link,
                &clients,
                &mib(row.resident_kib),
                &mib(row.proportional_kib),
            ],
        );
    }
    text
}

fn starts(rows: &[Start]) -> String {
    let mut text = String::from(
        "## Start\n\nFrom the start of the process, on an empty directory, to the first message delivered: the listener is let in, a \
         publisher connects, one message goes through. Milliseconds.\n\n\
         | broker | link | median | all |\n| --- | --- | ---: | --- |\n",
    );
    for row in rows {
        let all: Vec<String> = row.milliseconds.iter().map(|ms| format!("{ms:.0}")).collect();
        let median = format!("{:.0}", row.median_ms());
        line(&mut text, &[row.broker.as_str(), &row.link, &median, &all.join(" ")]);
    }
    text
}

fn rows(report: &Report, mode: Mode) -> impl Iterator<Item = &Row> {
    report.rows.iter().filter(move |row| row.mode == mode)
}

/// The row of the Holm edge under the same load, unless it is this one.
fn reference<'r>(report: &'r Report, row: &Row) -> Option<&'r Row> {
    report.rows.iter().find(|other| {
        other.broker == REFERENCE
            && row.broker != REFERENCE
            && (other.mode, other.payload_bytes, other.clients) == (row.mode, row.payload_bytes, row.clients)
    })
}

fn ratio(figure: f64, of: Option<f64>) -> String {
    match of {
        Some(of) if of > 0.0 => format!("{:.2}", figure / of),
        _ => "–".to_owned(),
    }
}

fn milliseconds(ms: f64) -> String {
    if ms < 10.0 {
        format!("{ms:.2}")
    } else {
        format!("{ms:.0}")
    }
}

/// A number without its fraction, with a comma between thousands.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn one_minute(row: &Row) -> &str {
    row.load_average.split(' ').next().unwrap_or_default()
}

fn line(text: &mut String, cells: &[impl AsRef<str>]) {
    let cells: Vec<&str> = cells.iter().map(AsRef::as_ref).collect();
    writeln!(text, "| {} |", cells.join(" | ")).expect("a string takes every text");
}

/// One line for the terminal while a run goes on.
#[must_use]
pub fn progress(row: &Row) -> String {
    let Latency { p50_ms, p99_ms, .. } = row.end_to_end;
    format!(
        "{:14} {} {:5} B {:3} clients  {:>9}/s  PUBACK {:6.2} {:7.2} ms  delivery {:6.2} {:7.2} ms  CPU {:5.1} µs  lost {}",
        row.broker,
        row.link,
        row.payload_bytes,
        row.clients,
        thousands(row.throughput()),
        row.puback.p50_ms,
        row.puback.p99_ms,
        p50_ms,
        p99_ms,
        row.server_us_per_message,
        row.outcome.lost
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SyncRate;
    use crate::load::Outcome;
    use crate::machine::Machine;

    fn row(broker: &str, clients: usize, rate: f64) -> Row {
        Row {
            broker: broker.into(),
            link: "TLS".into(),
            payload_bytes: 256,
            clients,
            mode: Mode::Closed,
            sync: SyncRate {
                per_second: 9000.0,
                cpu_us: 50.0,
                p99_ms: 0.2,
            },
            load_average: "1.50 1.00 0.50".into(),
            acknowledged_per_second: rate,
            received_per_second: rate,
            puback: Latency::default(),
            end_to_end: Latency::default(),
            lateness: Latency::default(),
            server_us_per_message: 10.0,
            generator_us_per_message: 5.0,
            outcome: Outcome::default(),
        }
    }

    fn report(rows: Vec<Row>) -> Report {
        Report {
            command: "cargo xtask bench".into(),
            date: "2026-01-01".into(),
            quick: false,
            machine: Machine::here(),
            brokers: Vec::new(),
            window: 16,
            seconds: 5.0,
            rows,
            idle: Vec::new(),
            starts: Vec::new(),
            figures: Vec::new(),
            hub: Vec::new(),
        }
    }

    #[test]
    fn a_peer_stands_beside_holm_under_the_same_load_and_no_other() {
        let rows = vec![
            row(REFERENCE, 1, 2000.0),
            row(REFERENCE, 10, 50_000.0),
            row("mosquitto", 1, 3000.0),
        ];

        let page = document(&report(rows));

        assert!(
            page.contains("| 256 | 1 | mosquitto | TLS | 3,000 | 1.50 | 10.0 | 1.00 |"),
            "{page}"
        );
        assert!(page.contains("| 256 | 10 | Holm edge | TLS | 50,000 | – |"), "{page}");
        assert!(page.contains("| 0 | 9,000 | 1.50 |"), "{page}");
    }

    #[test]
    fn thousands_are_set_apart() {
        let numbers = [0.4, 999.0, 1000.0, 1_234_567.0].map(thousands);

        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567"]);
    }
}
