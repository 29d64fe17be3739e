//! Queries over the fleet, as the original service SDKs ask them, and on the command line.

use holm_e2e::Language::{Node, Python};
use holm_e2e::{Hub, Language, Need, Sdk};
use serde_json::{Value, json};

fn ids(items: &Value, name: &str) -> Vec<String> {
    let items = items.as_array().into_iter().flatten();
    items
        .filter_map(|item| item[name].as_str().map(str::to_owned))
        .collect()
}

#[test]
fn python_service_queries_twins_page_by_page() {
    if Need::all(&[Need::Python, Need::LowPorts]) {
        queries(Python, "device_id");
    }
}

#[test]
fn node_service_queries_twins_page_by_page() {
    if Need::all(&[Need::Node, Need::LowPorts]) {
        queries(Node, "deviceId");
    }
}

fn queries(language: Language, id: &str) {
    let hub = Hub::start();
    let mut service = Sdk::service(language, &hub).start();
    for n in 0..5 {
        let device = format!("d{n}");
        service.call("create_device", json!({"device": device, "edge": n == 0}));
        let patch = json!({"tags": {"site": if n < 3 { "north" } else { "south" }, "n": n}, "desired": {}});
        service.call("update_twin", json!({"device": device, "patch": patch}));
    }
    let mut ask = |text: &str| service.call("query", json!({"text": text, "most": 2}));

    let all = ask("SELECT * FROM devices");
    let north = ask("SELECT * FROM devices WHERE tags.site = 'north' AND tags.n >= 1");
    let shown = ask("SELECT deviceId, tags.n FROM devices WHERE STARTSWITH(deviceId, 'd') AND tags.n IN [0, 4]");
    let agents = ask("SELECT * FROM devices.modules WHERE moduleId = '$edgeAgent'");
    let nothing = ask("SELECT * FROM devices WHERE tags.site = 'west'");

    let pages: Vec<Vec<String>> = all
        .as_array()
        .into_iter()
        .flatten()
        .map(|page| ids(&page["items"], id))
        .collect();
    assert_eq!(pages, [vec!["d0", "d1"], vec!["d2", "d3"], vec!["d4"]]);
    assert_eq!(all[0]["type"], "Twin");
    assert_eq!(all[0]["items"][1]["tags"], json!({"site": "north", "n": 1}));
    assert_eq!(ids(&north[0]["items"], id), ["d1", "d2"]);
    assert_eq!(
        (&shown[0]["type"], ids(&shown[0]["items"], id)),
        (&json!("Raw"), vec!["d0".to_owned(), "d4".to_owned()])
    );
    assert_eq!(ids(&agents[0]["items"], id), ["d0"]);
    assert_eq!(nothing.as_array().map(Vec::len), Some(1), "{nothing}");
    assert_eq!(nothing[0]["items"], json!([]));

    let refused = service
        .try_call("query", json!({"text": "SELECT * FROM devices WHERE"}))
        .expect_err("half a query");
    assert!(refused.message.contains("line 1, column 28"), "{}", refused.message);
}

#[test]
fn the_command_line_shows_a_result_as_a_table_and_as_json() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    for n in 0..3 {
        hub.holm(&["device", "create", &format!("d{n}")]);
        let tags = json!({"n": n}).to_string();
        hub.holm(&["twin", "update", "--device", &format!("d{n}"), "--tags", &tags]);
    }

    let table = hub.holm(&[
        "query",
        "SELECT tags.n AS number, deviceId, tags.none FROM devices WHERE tags.n > 0",
    ]);
    let first = hub
        .command(&["query", "SELECT * FROM devices", "--limit", "1"])
        .output();
    let first = first.expect("the binary can be started");
    let whole = hub.holm(&["query", "SELECT * FROM devices", "--limit", "2", "--json"]);
    let count = hub.holm(&["query", "SELECT COUNT() AS n FROM devices", "--json"]);

    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        lines,
        [["number", "deviceId", "none"], ["1", "d1", "-"], ["2", "d2", "-"]]
    );
    let noted = String::from_utf8_lossy(&first.stderr);
    assert!(noted.contains("only the first result is shown"), "{noted}");
    assert!(first.stdout.starts_with(b"deviceId  status"), "{:?}", first.stdout);
    let whole: Value = serde_json::from_str(&whole).expect("JSON");
    assert_eq!(ids(&whole, "deviceId"), ["d0", "d1"]);
    assert_eq!(serde_json::from_str::<Value>(&count).expect("JSON"), json!([{"n": 3}]));
}
