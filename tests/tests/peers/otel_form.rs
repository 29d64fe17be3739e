//! What an edge that was built with the feature `otel` sends to a collector, read by OpenTelemetry's own messages. The example is
//! the one that `crates/holm-edge/src/otel/otlp.rs` is compared with.

use std::io::Write as _;
use std::process::{Command, Stdio};

use holm_e2e::{Need, need};
use serde_json::Value;

#[test]
fn opentelemetrys_own_messages_read_what_an_edge_sends() {
    if !Need::all(&[Need::Python]) {
        return;
    }
    let example = need::root().join("crates/holm-edge/src/otel/example.json");
    let example = std::fs::read(example).expect("the example can be read");

    let mut reader = Command::new(need::python());
    let reader = reader.arg(need::folder("python").join("otlp.py"));
    let mut reader = reader
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python can be started");
    reader
        .stdin
        .take()
        .expect("it is piped")
        .write_all(&example)
        .expect("it reads");
    let done = reader.wait_with_output().expect("it ends");

    assert!(done.status.success(), "the messages do not have this form");
    let metrics: Value = serde_json::from_slice(&done.stdout).expect("it is JSON");
    let kind = |name: &str| metrics[name]["kind"].as_str().unwrap_or_default().to_owned();
    assert_eq!(kind("edgehub_messages_received_total"), "sum");
    assert_eq!(kind("holm_edge_link_up"), "gauge");
    assert_eq!(kind("edgehub_message_size_bytes"), "summary");
    let sum = &metrics["edgehub_messages_received_total"]["metric"]["sum"];
    assert_eq!(sum["aggregationTemporality"], "AGGREGATION_TEMPORALITY_CUMULATIVE");
    assert_eq!(sum["isMonotonic"], true);
}
