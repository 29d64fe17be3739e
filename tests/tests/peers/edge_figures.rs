//! The edge's `/metrics`, read by Prometheus' own parser: names, kinds and labels are the published ones, and the values are what
//! happened.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use holm_e2e::edge::{self, IMAGE};
use holm_e2e::{Edge, Hub, Need, need, patience};
use serde_json::{Value, json};

/// The published figures: name, kind, labels beside the common ones (`edge-broker.md` §9,
/// `edge-agent.md` §8).
const PUBLISHED: &[(&str, &str, &[&str])] = &[
    ("edgehub_gettwin_total", "counter", &["source", "id"]),
    ("edgehub_gettwin_duration_seconds", "summary", &["source", "id"]),
    ("edgehub_messages_received_total", "counter", &["route_output", "id"]),
    (
        "edgehub_messages_sent_total",
        "counter",
        &["from", "to", "from_route_output", "to_route_input", "priority"],
    ),
    (
        "edgehub_messages_dropped_total",
        "counter",
        &["reason", "from", "from_route_output"],
    ),
    (
        "edgehub_messages_unack_total",
        "counter",
        &["reason", "from", "from_route_output"],
    ),
    ("edgehub_message_size_bytes", "summary", &["id"]),
    (
        "edgehub_message_send_duration_seconds",
        "summary",
        &["from", "to", "from_route_output", "to_route_input"],
    ),
    (
        "edgehub_message_process_duration_seconds",
        "summary",
        &["from", "to", "priority"],
    ),
    ("edgehub_reported_properties_total", "counter", &["target", "id"]),
    (
        "edgehub_reported_properties_update_duration_seconds",
        "summary",
        &["target", "id"],
    ),
    ("edgehub_direct_methods_total", "counter", &["from", "to"]),
    ("edgehub_direct_method_duration_seconds", "summary", &["from", "to"]),
    ("edgehub_queue_length", "gauge", &["endpoint", "priority"]),
    ("edgehub_offline_count_total", "counter", &["id"]),
    ("edgehub_offline_duration_seconds", "summary", &["id"]),
    ("edgehub_operation_retry_total", "counter", &["id", "operation"]),
    ("edgehub_client_connect_success_total", "counter", &["id"]),
    ("edgehub_client_connect_failed_total", "counter", &["id", "reason"]),
    ("edgehub_client_disconnect_total", "counter", &["id"]),
    ("edgehub_connected_clients", "gauge", &[]),
    (
        "edgeAgent_total_time_running_correctly_seconds",
        "gauge",
        &["module_name"],
    ),
    (
        "edgeAgent_total_time_expected_running_seconds",
        "gauge",
        &["module_name"],
    ),
    (
        "edgeAgent_module_start_total",
        "counter",
        &["module_name", "module_version"],
    ),
    (
        "edgeAgent_module_stop_total",
        "counter",
        &["module_name", "module_version"],
    ),
    (
        "edgeAgent_module_prepare_update_total",
        "counter",
        &["module_name", "module_version"],
    ),
    ("edgeAgent_command_latency_seconds", "summary", &["command"]),
    ("edgeAgent_iothub_syncs_total", "counter", &[]),
    ("edgeAgent_unsuccessful_iothub_syncs_total", "counter", &[]),
    ("edgeAgent_deployment_time_seconds", "summary", &[]),
    ("edgeAgent_host_uptime_seconds", "gauge", &[]),
    ("edgeAgent_iotedged_uptime_seconds", "gauge", &[]),
    (
        "edgeAgent_available_disk_space_bytes",
        "gauge",
        &["disk_name", "disk_filesystem", "disk_filetype"],
    ),
    (
        "edgeAgent_total_disk_space_bytes",
        "gauge",
        &["disk_name", "disk_filesystem", "disk_filetype"],
    ),
    ("edgeAgent_used_memory_bytes", "gauge", &["module_name"]),
    ("edgeAgent_total_memory_bytes", "gauge", &["module_name"]),
    ("edgeAgent_used_cpu_percent", "summary", &["module_name"]),
    ("edgeAgent_created_pids_total", "gauge", &["module_name"]),
    ("edgeAgent_total_network_in_bytes", "gauge", &["module_name"]),
    ("edgeAgent_total_network_out_bytes", "gauge", &["module_name"]),
    ("edgeAgent_total_disk_read_bytes", "gauge", &["module_name"]),
    ("edgeAgent_total_disk_write_bytes", "gauge", &["module_name"]),
    (
        "edgeAgent_metadata",
        "gauge",
        &["edge_agent_version", "experimental_features", "host_information"],
    ),
];

/// What the parser makes of the edge's page.
struct Page(Value);

impl Page {
    fn read(edge: &Edge) -> Result<Self, String> {
        let mut stream = TcpStream::connect((edge.ip(), 9600)).map_err(|error| error.to_string())?;
        let request = "GET /metrics HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n";
        stream
            .write_all(request.as_bytes())
            .map_err(|error| error.to_string())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
        let (_, text) = answer.split_once("\r\n\r\n").ok_or("an answer has a head")?;
        let mut parser = Command::new(need::python());
        let parser = parser.arg(need::folder("python").join("figures.py"));
        let mut parser = parser
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut input = parser.stdin.take().ok_or("its input is piped")?;
        input.write_all(text.as_bytes()).map_err(|error| error.to_string())?;
        drop(input);
        let done = parser.wait_with_output().map_err(|error| error.to_string())?;
        assert!(done.status.success(), "the parser refused:\n{text}");
        let page = serde_json::from_slice(&done.stdout).map_err(|error| error.to_string())?;
        Ok(Self(page))
    }

    fn samples(&self, family: &str) -> &[Value] {
        self.0[family]["samples"].as_array().map_or(&[], Vec::as_slice)
    }

    /// The value of the sample with these labels.
    fn value(&self, family: &str, sample: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |found: &&Value| {
            found["name"] == sample && labels.iter().all(|(name, value)| found["labels"][name] == *value)
        };
        self.samples(family).iter().find(fits)?["value"].as_f64()
    }

    /// As [`Page::value`] of a figure without suffix.
    fn gauge(&self, family: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.value(family, family, labels)
    }

    /// As [`Page::gauge`]; 0 before the first.
    fn counter(&self, family: &str, labels: &[(&str, &str)]) -> f64 {
        self.gauge(family, labels).unwrap_or_default()
    }

    /// Every published figure has its kind and its labels, and no other.
    #[track_caller]
    fn assert_published(&self) {
        for (name, kind, labels) in PUBLISHED {
            let family = &self.0[*name];
            assert_eq!(family["type"], *kind, "{name}: {family}");
            let wanted: BTreeSet<&str> = ["iothub", "edge_device", "instance_number"]
                .into_iter()
                .chain(labels.iter().copied())
                .collect();
            for sample in self.samples(name) {
                let found = sample["labels"].as_object().expect("labels are an object").keys();
                let found: BTreeSet<&str> = found
                    .map(String::as_str)
                    .filter(|label| !matches!(*label, "ms_telemetry" | "quantile"))
                    .collect();
                assert_eq!(found, wanted, "{name}: {sample}");
            }
        }
    }
}

fn sensor() -> Value {
    json!({"sensor": {
        "type": "process", "version": "2.7", "status": "running", "restartPolicy": "always",
        "settings": {"image": "holm/sensor", "createOptions": json!({"Env": ["INTERVAL_MS=20"]}).to_string()},
    }})
}

#[test]
fn the_published_figures_tell_what_happened_in_the_form_that_prometheus_reads() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let edge = Edge::start(&hub, &device);
    let routes = json!({"up": "FROM /messages/modules/sensor/outputs/readings INTO $upstream"});
    edge::deploy(&hub, &device, &edge::manifest(&sensor(), &routes));

    let page = patience::wait("figures of the sensor", patience::long(), || {
        let page = Page::read(&edge)?;
        let sent = page.counter(
            "edgehub_messages_sent_total",
            &[("from", "pump-7/sensor"), ("to", "upstream")],
        );
        let memory = page.gauge("edgeAgent_used_memory_bytes", &[("module_name", "sensor")]);
        let deployed = page.value(
            "edgeAgent_deployment_time_seconds",
            "edgeAgent_deployment_time_seconds_count",
            &[],
        );
        if sent > 5.0 && memory.is_some() && deployed >= Some(1.0) {
            Ok(page)
        } else {
            Err(format!("sent {sent}, memory {memory:?}, deployed {deployed:?}"))
        }
    });

    page.assert_published();
    let sensor = ("id", "pump-7/sensor");
    let received = page.counter(
        "edgehub_messages_received_total",
        &[sensor, ("route_output", "readings")],
    );
    assert!(received > 5.0, "{received}");
    let size = page.value(
        "edgehub_message_size_bytes",
        "edgehub_message_size_bytes",
        &[sensor, ("quantile", "0.5")],
    );
    assert!(size.is_some_and(|size| (10.0..10_000.0).contains(&size)), "{size:?}");
    let took = page.value(
        "edgehub_message_send_duration_seconds",
        "edgehub_message_send_duration_seconds",
        &[("from", "pump-7/sensor"), ("to", "upstream"), ("quantile", "0.9")],
    );
    assert!(took.is_some_and(|took| took > 0.0 && took < 60.0), "{took:?}");
    let start = [("module_name", "sensor"), ("module_version", "2.7")];
    assert_eq!(page.counter("edgeAgent_module_start_total", &start), 1.0);
    assert_eq!(page.counter("edgehub_client_connect_success_total", &[sensor]), 1.0);
    assert!(page.counter("edgeAgent_iothub_syncs_total", &[]) >= 1.0);
    let host = page.gauge("edgeAgent_total_memory_bytes", &[("module_name", "host")]);
    let used = page.gauge("edgeAgent_used_memory_bytes", &[("module_name", "sensor")]);
    assert!(host > used && used > Some(100_000.0), "{host:?} {used:?}");
    let network = page.gauge("edgeAgent_total_network_in_bytes", &[("module_name", "sensor")]);
    assert_eq!(network, None, "a process has no network of its own");
    assert_eq!(page.gauge("holm_edge_link_up", &[]), Some(1.0));
}

#[test]
fn every_figure_of_the_edge_stands_in_the_manual() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let manual = std::fs::read_to_string(need::root().join("docs/http-api.md")).expect("the manual can be read");
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let edge = Edge::start(&hub, &device);

    let page = patience::wait("a page", patience::long(), || Page::read(&edge));

    let families = page.0.as_object().expect("families by name");
    assert!(families.len() > 60, "{families:?}");
    for name in families.keys() {
        // The parser gives this end to every counter.
        let names = [name, name.trim_end_matches("_total")];
        let is_there = names.iter().any(|name| manual.contains(&format!("`{name}`")));
        assert!(is_there, "docs/http-api.md lacks `{name}`");
    }
}

#[test]
fn a_container_tells_its_network_and_what_it_uses() {
    if !Need::all(&[Need::Python, Need::Docker, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let edge = Edge::start_for_containers(&hub, &device);
    edge.owns_container("busy");
    let options =
        json!({"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["while :; do :; done"], "HostConfig": {"Memory": 33_554_432}});
    let modules = json!({"busy": {
        "type": "docker", "version": "1.0", "status": "running", "restartPolicy": "always",
        "settings": {"image": IMAGE, "createOptions": options.to_string()},
    }});
    edge::deploy(&hub, &device, &edge::manifest(&modules, &json!({})));
    let busy = [("module_name", "busy")];

    let page = patience::wait("what a container uses", patience::long(), || {
        let page = Page::read(&edge)?;
        let cpu = page.value("edgeAgent_used_cpu_percent", "edgeAgent_used_cpu_percent_count", &busy);
        if cpu >= Some(1.0) {
            Ok(page)
        } else {
            Err(format!("{cpu:?}"))
        }
    });

    let cpu = [busy[0], ("quantile", "0.5")];
    let cpu = page.value("edgeAgent_used_cpu_percent", "edgeAgent_used_cpu_percent", &cpu);
    assert!(cpu.is_some_and(|percent| percent > 1.0 && percent <= 100.0), "{cpu:?}");
    assert!(
        page.gauge("edgeAgent_total_network_in_bytes", &busy).is_some(),
        "{:?}",
        page.samples("edgeAgent_total_network_in_bytes")
    );
    assert_eq!(page.gauge("edgeAgent_total_memory_bytes", &busy), Some(33_554_432.0));
    assert!(page.gauge("edgeAgent_created_pids_total", &busy) >= Some(1.0));
}
