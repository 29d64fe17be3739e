//! Scheduled jobs, as the original service SDKs order them and on the command line.

use holm_e2e::Language::{Node, Python};
use holm_e2e::Transport::Mqtt;
use holm_e2e::{Hub, Language, Need, Sdk, patience};
use serde_json::{Value, json};

#[test]
fn python_service_schedules_jobs() {
    if Need::all(&[Need::Python, Need::LowPorts]) {
        schedules(Python);
    }
}

#[test]
fn node_service_schedules_jobs() {
    if Need::all(&[Need::Node, Need::Python, Need::LowPorts]) {
        schedules(Node);
    }
}

fn schedules(language: Language) {
    let hub = Hub::start();
    let device = hub.create_device("d1");
    let _others = [hub.create_device("d2"), hub.create_device("d3")];
    let mut sdk = Sdk::device(Python, Mqtt, &hub, &device).start();
    sdk.call("connect", json!({}));
    sdk.call("listen", json!({"what": "methods"}));
    sdk.call(
        "answer",
        json!({"method": "reboot", "status": 200, "payload": {"ok": true}}),
    );
    let mut service = Sdk::service(language, &hub).start();
    let mut finish = |order: Value| {
        let id = order["job"].clone();
        let made = service.call("schedule", order);
        assert_eq!(made["id"], id);
        patience::wait("the job has ended", patience::long(), || {
            let job = service.call("scheduled", json!({ "job": id }));
            if job["status"] == "completed" {
                Ok(job)
            } else {
                Err(job.to_string())
            }
        })
    };

    let twins = finish(
        json!({"job": "twins", "condition": "deviceId IN ['d1', 'd2']", "patch": {"tags": {"site": "x"}, "desired": {"fw": 2}}}),
    );
    let methods =
        finish(json!({"job": "methods", "condition": "tags.site = 'x'", "method": "reboot", "payload": {"now": true}}));
    let cancelled = service.call("cancel_scheduled", json!({"job": "twins"}));
    let again = service.try_call(
        "schedule",
        json!({"job": "twins", "condition": "*", "patch": {"tags": {}, "desired": {}}}),
    );

    assert_eq!(
        (&twins["type"], &twins["succeeded"], &twins["devices"]),
        (&json!("scheduleUpdateTwin"), &json!(2), &json!(2))
    );
    // One of the two is not connected.
    assert_eq!((&methods["succeeded"], &methods["failed"]), (&json!(1), &json!(1)));
    assert_eq!(cancelled["status"], "completed");
    assert!(again.is_err());
    let twin = service.call("twin", json!({"device": "d2"}));
    assert_eq!(
        (&twin["tags"], &twin["properties"]["desired"]["fw"]),
        (&json!({"site": "x"}), &json!(2))
    );
    let rows = hub.holm(&["job", "devices", "methods", "--status", "failed", "--json"]);
    let rows: Value = serde_json::from_str(&rows).expect("JSON");
    assert_eq!(
        (&rows[0]["deviceId"], &rows[0]["error"]["code"]),
        (&json!("d2"), &json!("404103"))
    );
    if language == Node {
        let listed = service.call(
            "scheduled_jobs",
            json!({"type": "scheduleUpdateTwin", "status": "completed"}),
        );
        assert_eq!(listed, json!(["twins"]));
    }
}

#[test]
fn the_command_line_orders_a_job_and_tells_how_far_it_is() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let _devices = [hub.create_device("d1"), hub.create_device("d2")];

    hub.holm(&[
        "job",
        "update-twins",
        "winter",
        "--where",
        "*",
        "--desired",
        "{\"heating\": \"on\"}",
    ]);
    hub.holm(&[
        "job",
        "call",
        "later",
        "--where",
        "deviceId = 'd1'",
        "reboot",
        "--start",
        "2999-01-01T00:00:00Z",
    ]);
    let shown = patience::wait("the job has ended", patience::long(), || {
        let shown = hub.holm(&["job", "show", "winter"]);
        if shown.contains("completed") {
            Ok(shown)
        } else {
            Err(shown)
        }
    });
    hub.holm(&["job", "cancel", "later"]);
    let cancelled = ["later", "winter"].map(|id| {
        let done = hub.command(&["job", "cancel", id]).output();
        let done = done.expect("the binary can be started");
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    });
    let listed = hub.holm(&["job", "list"]);
    let devices = hub.holm(&["job", "devices", "winter", "--status", "completed"]);
    let of_no_job = hub.command(&["job", "devices", "nope"]).output();
    let of_no_job = of_no_job.expect("the binary can be started");

    let cells: Vec<&str> = shown.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!(cells[..3], ["winter", "twins", "completed"]);
    assert_eq!(cells[4..], ["2", "2", "0", "0"]);
    assert!(
        listed
            .lines()
            .any(|line| line.starts_with("later") && line.contains("cancelled")),
        "{listed}"
    );
    assert_eq!(devices.lines().count(), 3, "{devices}");
    let [again, too_late] = cancelled;
    assert!(again.0 == Some(0) && again.1.contains("already"), "{again:?}");
    assert!(
        too_late.0 == Some(1) && too_late.1.contains("`winter` has completed already"),
        "{too_late:?}"
    );
    let error = String::from_utf8_lossy(&of_no_job.stderr);
    assert_eq!(of_no_job.status.code(), Some(1), "{error}");
    assert!(error.contains("`nope`") && error.contains("JobNotFound"), "{error}");
    let twin = hub.holm(&["twin", "show", "--device", "d2", "--json"]);
    assert!(twin.contains("\"heating\":\"on\""), "{twin}");
}
