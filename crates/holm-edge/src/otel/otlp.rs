//! Figures as an `ExportMetricsServiceRequest` of OTLP, in the JSON mapping of protocol buffers.
//!
//! | figure | metric |
//! | --- | --- |
//! | counter | `sum`, monotonic, cumulative since the start |
//! | gauge | `gauge` |
//! | summary | `summary`, with the quantiles of the last hour; those that there are none of are left out |
//!
//! Whole numbers of 64 bits are texts, as the mapping has them.

use std::time::{SystemTime, UNIX_EPOCH};

use holm_gateway::metrics::{Figure, Kind, Number, Point, QUANTILES};
use serde_json::{Value, json};

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u8 = 2;

/// The request. `times`: the start of the process, and now.
pub(super) fn report(figures: &[Figure], resource: &[(&str, String)], times: (SystemTime, SystemTime)) -> Value {
    let times = (nanos(times.0), nanos(times.1));
    let metrics: Vec<Value> = figures
        .iter()
        .filter(|figure| !figure.points.is_empty())
        .map(|figure| metric(figure, &times))
        .collect();
    let resource: Vec<Value> = resource.iter().map(|(name, value)| attribute(name, value)).collect();
    json!({
        "resourceMetrics": [{
            "resource": { "attributes": resource },
            "scopeMetrics": [{
                "scope": { "name": "holm-edge", "version": env!("CARGO_PKG_VERSION") },
                "metrics": metrics,
            }],
        }],
    })
}

fn metric(figure: &Figure, times: &(String, String)) -> Value {
    let points: Vec<Value> = figure.points.iter().map(|point| data_point(point, times)).collect();
    let mut metric = json!({ "name": figure.name, "description": figure.help });
    if let Some(unit) = unit(&figure.name) {
        metric["unit"] = json!(unit);
    }
    let (member, data) = match figure.kind {
        Kind::Counter => (
            "sum",
            json!({ "dataPoints": points, "aggregationTemporality": CUMULATIVE, "isMonotonic": true }),
        ),
        Kind::Gauge => ("gauge", json!({ "dataPoints": points })),
        Kind::Summary => ("summary", json!({ "dataPoints": points })),
    };
    metric[member] = data;
    metric
}

fn data_point(point: &Point, (began, now): &(String, String)) -> Value {
    let attributes: Vec<Value> = point
        .labels
        .iter()
        .map(|(name, value)| attribute(name, value))
        .collect();
    let mut data = json!({ "attributes": attributes, "startTimeUnixNano": began, "timeUnixNano": now });
    match point.number {
        // OTLP counts with a sign.
        Number::Whole(number) => data["asInt"] = json!(i64::try_from(number).unwrap_or(i64::MAX).to_string()),
        Number::Real(number) => data["asDouble"] = real(number),
        Number::Summary(view) => {
            data["count"] = json!(view.count.to_string());
            data["sum"] = real(view.sum);
            let quantiles = QUANTILES.into_iter().zip(view.quantiles);
            let measured = quantiles.filter(|(_, value)| value.is_finite());
            data["quantileValues"] = measured
                .map(|(quantile, value)| json!({ "quantile": quantile, "value": value }))
                .collect();
        }
    }
    data
}

fn attribute(name: &str, value: &str) -> Value {
    json!({ "key": name, "value": { "stringValue": value } })
}

/// What JSON has no number for has a word in the mapping.
fn real(number: f64) -> Value {
    if number.is_nan() {
        json!("NaN")
    } else if number.is_infinite() {
        json!(if number > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        json!(number)
    }
}

/// The unit that a name ends with, as UCUM writes it.
fn unit(name: &str) -> Option<&'static str> {
    let name = name.strip_suffix("_total").unwrap_or(name);
    let units = [("_seconds", "s"), ("_bytes", "By"), ("_percent", "%")];
    units
        .into_iter()
        .find(|(end, _)| name.ends_with(end))
        .map(|(_, unit)| unit)
}

fn nanos(time: SystemTime) -> String {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos()
        .to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holm_gateway::metrics::{Exposition, Summary};

    use super::*;

    /// What OpenTelemetry's own messages read, too: `tests/tests/peers/otel_form.rs`.
    const EXAMPLE: &str = include_str!("example.json");

    #[test]
    fn every_kind_of_figure_has_its_form_of_otlp() {
        let (summary, mut out) = (Summary::default(), Exposition::default());
        summary.observe(0.5);
        out.set_common(&[("edge_device", "pump-7")]);
        out.counter("edgehub_messages_received_total", "Messages.", u64::MAX);
        out.gauge("holm_edge_link_up", "The link.", 1);
        out.begin("edgeAgent_host_uptime_seconds", "Uptime.", Kind::Gauge);
        out.point(&[("module_name", "host")], 12.5);
        out.begin("edgehub_message_size_bytes", "Sizes.", Kind::Summary);
        out.point(&[("id", "pump-7/sensor")], summary.read());
        out.point(&[("id", "pump-7/silent")], Summary::default().read());
        out.begin("edgehub_nothing_yet_total", "Without a point.", Kind::Counter);
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);

        let report = report(
            &out.into_figures(),
            &[("service.name", "holm-edge".to_owned())],
            (at(1_767_322_800), at(1_767_326_400)),
        );

        let mut expected: Value = serde_json::from_str(EXAMPLE).unwrap();
        expected["resourceMetrics"][0]["scopeMetrics"][0]["scope"]["version"] = json!(env!("CARGO_PKG_VERSION"));
        assert_eq!(report, expected, "{}", serde_json::to_string_pretty(&report).unwrap());
    }
}
