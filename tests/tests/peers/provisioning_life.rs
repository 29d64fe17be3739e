//! What operators do to enrollments and to the devices that came by them, and how soon each is felt.

use std::time::{Duration, Instant};

use holm_e2e::Language::{Node, Python};
use holm_e2e::Transport::{Amqp, Mqtt};
use holm_e2e::{Certificate, Device, Hub, Language, Need, Proof, Sdk, Transport};
use serde_json::{Value, json};

/// Within what time a change is to be felt.
const FELT: Duration = Duration::from_secs(1);
/// How often it is tried: a machine that is busy with other tests may be late once.
const ROUNDS: u32 = 5;

#[test]
fn python_device_feels_what_becomes_of_it_within_a_second() {
    if !Need::all(&[Need::Python, Need::Openssl, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    hub.holm(&["dps", "enrollment", "create", "r1"]);
    let key = key_of(&hub, "r1");
    life_story(&hub, "enrollment", "r1", Python, Mqtt, &Proof::Key(&key));
}

#[test]
fn node_device_of_a_group_feels_what_becomes_of_it_within_a_second() {
    if !Need::all(&[Need::Node, Need::Openssl, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let root = Certificate::authority(hub.scratch(), "Root");
    let leaf = root.sign(hub.scratch(), "r1", false);
    let signing = root.certificate.to_str().expect("paths of tests are text");
    hub.holm(&["dps", "group", "create", "plant", "--signing-certificate", signing]);
    let proof = Proof::Certificate(&leaf.certificate, &leaf.key);
    life_story(&hub, "group", "plant", Node, Amqp, &proof);
}

/// One service, two hubs: a device is made at the one, goes to the other with its twin, and comes back.
#[test]
fn python_device_goes_to_the_hub_that_its_enrollment_names_and_takes_its_twin_along() {
    if !Need::all(&[Need::Python, Need::Openssl, Need::LowPorts]) {
        return;
    }
    let (hub, other) = (Hub::start(), Hub::start());
    let link = hub.scratch().join("other-hub");
    std::fs::write(&link, other.service().connection_string()).expect("a file can be written");
    let text = |path: &std::path::Path| path.to_str().expect("paths of tests are text").to_owned();
    hub.holm(&[
        "dps",
        "hub",
        "add",
        "--link-file",
        &text(&link),
        "--link-ca",
        &text(&other.ca()),
    ]);
    let here = hub.host();
    hub.holm(&[
        "dps",
        "enrollment",
        "create",
        "r1",
        "--allocation",
        "static",
        "--iot-hub",
        &here,
    ]);
    let key = key_of(&hub, "r1");
    let proof = Proof::Key(&key);
    let mut device = Sdk::provisioning(Python, Mqtt, &hub, "r1", &proof)
        .trusting_both(&hub, &other)
        .start();
    let stays = |device: &mut holm_e2e::sdk::Running, hub: &Hub| {
        let told = device.call("register", json!({}));
        assert_eq!(
            (&told["status"], &told["hub"]),
            (&json!("assigned"), &json!(hub.host())),
            "{told}"
        );
        device.call("connect", json!({}));
        device.event("connection", |event| event["connected"] == true);
    };

    stays(&mut device, &hub);
    let tags = json!({ "tags": { "from": "operator" }, "properties": { "desired": { "limit": 3 } } });
    hub.service().call("PATCH", "/twins/r1", Some(&tags));
    set_hub(&hub, "r1", &other);
    let moved = device.call("register", json!({}));
    // It is told of its new hub first, and then its connection to the old one ends.
    device.event("connection", |event| event["connected"] == false);
    device.call("leave", json!({}));
    device.call("send", json!({ "body": "hello from there" }));

    assert_eq!(
        (&moved["hub"], &moved["substatus"]),
        (&json!(other.host()), &json!("deviceDataMigrated"))
    );
    other
        .monitor()
        .wait_for("what it says there", |event| event.body == "hello from there");
    let twin = other.service().call("GET", "/twins/r1", None);
    assert_eq!(
        (&twin["tags"]["from"], &twin["properties"]["desired"]["limit"]),
        (&json!("operator"), &json!(3))
    );
    let gone = hub
        .service()
        .try_call("GET", "/devices/r1", &[], None)
        .expect("an answer");
    assert_eq!(gone.status, 404);
    let listed = hub.holm(&["dps", "hub", "list"]);
    assert!(listed.contains(&here) && listed.contains(&other.host()), "{listed}");

    set_hub(&hub, "r1", &hub);
    stays(&mut device, &hub);
}

/// The service is a process of its own, and the device asks it for a certificate by which it goes at a hub of another process.
#[test]
fn python_device_gets_a_certificate_from_a_service_of_its_own_process_and_goes_by_it_at_another_hub() {
    if !Need::all(&[Need::Python, Need::Openssl, Need::LowPorts]) {
        return;
    }
    let (service, hub) = (Hub::start_provisioning_service(), Hub::start());
    let text = |path: &std::path::Path| path.to_str().expect("paths of tests are text").to_owned();
    let link = service.scratch().join("other-hub");
    std::fs::write(&link, hub.service().connection_string()).expect("a file can be written");
    service.holm(&[
        "dps",
        "hub",
        "add",
        "--link-file",
        &text(&link),
        "--link-ca",
        &text(&hub.ca()),
    ]);
    service.holm(&["dps", "enrollment", "create", "r1", "--issue-certificates"]);
    let key = key_of(&service, "r1");
    let (device_key, request) = Certificate::request(service.scratch(), "r1", "r1");

    let state = service.register_with_request("r1", &key, &request);
    let certificate = Certificate::issued(service.scratch(), "r1", &state["issuedCertificateChain"], device_key);

    assert_eq!(
        (&state["assignedHub"], &state["deviceId"]),
        (&json!(hub.host()), &json!("r1"))
    );
    let device = Device {
        id: "r1".to_owned(),
        module: None,
        primary_key: String::new(),
        secondary_key: String::new(),
        connection_string: format!("HostName={};DeviceId=r1;x509=true", hub.host()),
    };
    let mut sdk = Sdk::device(Python, Mqtt, &hub, &device)
        .with_certificate(&certificate)
        .start();
    sdk.call("connect", json!({}));
    sdk.call("send", json!({ "body": "hello by a new certificate" }));
    hub.monitor()
        .wait_for("what it says", |event| event.body == "hello by a new certificate");

    // It is no hub, and what was done is known.
    let answer = service
        .service()
        .try_call("GET", "/devices/r1", &[], None)
        .expect("an answer");
    assert_eq!(answer.status, 404);
    let audit = service.holm(&["audit", "--json"]);
    assert!(
        audit.contains("linkedHub.add") && audit.contains("enrollment.create"),
        "{audit}"
    );
}

fn set_hub(hub: &Hub, id: &str, to: &Hub) {
    let path = format!("/enrollments/{id}");
    let mut document = hub.service().call("GET", &path, None);
    document["iotHubs"] = json!([to.host()]);
    let changed = hub
        .service()
        .try_call("PUT", &path, &[("If-Match", "*")], Some(&document));
    assert_eq!(changed.expect("an answer").status, 200);
}

fn key_of(hub: &Hub, enrollment: &str) -> String {
    let path = format!("/enrollments/{enrollment}/attestationmechanism");
    let shown = hub.service().call("POST", &path, None);
    shown["symmetricKey"]["primaryKey"]
        .as_str()
        .expect("there is a key")
        .to_owned()
}

/// Registers, is disabled at its hub, enabled, made anew, and kept out by its enrollment in every way.
fn life_story(hub: &Hub, kind: &str, enrollment: &str, language: Language, transport: Transport, proof: &Proof<'_>) {
    let mut device = Sdk::provisioning(language, transport, hub, "r1", proof).start();
    let assigned = device.call("register", json!({}));
    assert_eq!(assigned["status"], "assigned", "{assigned}");
    let stays = |device: &mut holm_e2e::sdk::Running| {
        device.call("connect", json!({}));
        device.event("connection", |event| event["connected"] == true);
    };

    within_a_second("the end of the connection of a disabled device", || {
        stays(&mut device);
        let disabling = Instant::now();
        set_status(hub, "disabled");
        device.event("connection", |event| event["connected"] == false);
        let took = disabling.elapsed();
        device.call("leave", json!({}));
        set_status(hub, "enabled");
        took
    });

    // Disabled with its enrollment.
    stays(&mut device);
    let disabled = hub.holm(&["dps", kind, "disable", enrollment, "--with-device", "--json"]);
    device.event("connection", |event| event["connected"] == false);
    device.call("leave", json!({}));
    let refused = device.try_call("connect", json!({}));
    assert!(refused.is_err(), "a disabled device was let in");
    assert_eq!(
        serde_json::from_str::<Value>(&disabled).expect("one document"),
        json!({ "id": enrollment, "disabled": true, "devices": ["r1"] })
    );
    hub.holm(&["dps", kind, "enable", enrollment, "--with-device"]);

    // Registered again: it is what it was.
    hub.service()
        .call("PATCH", "/twins/r1", Some(&json!({ "tags": { "from": "operator" } })));
    let kept = device.call("register", json!({}));
    assert_eq!(kept["status"], "assigned");

    // Made anew, while it is connected as what it was.
    set_policy(
        hub,
        kind,
        enrollment,
        json!({ "updateHubAssignment": true, "migrateDeviceData": false }),
    );
    stays(&mut device);
    let anew = device.call("register", json!({}));
    device.event("connection", |event| event["connected"] == false);
    device.call("leave", json!({}));
    assert_eq!(anew["substatus"], "deviceDataReset", "{anew}");
    device.call("send", json!({ "body": "hello again" }));
    hub.monitor()
        .wait_for("what it says anew", |event| event.body == "hello again");
    let twin = hub.service().call("GET", "/twins/r1", None);
    assert_eq!(twin["tags"]["from"], Value::Null, "{twin}");

    // Deleted at its hub: the connection ends, and the next registration makes it again.
    stays(&mut device);
    hub.service()
        .try_call("DELETE", "/devices/r1", &[("If-Match", "*")], None)
        .expect("an answer");
    device.event("connection", |event| event["connected"] == false);
    device.call("leave", json!({}));
    device.call("register", json!({}));
    device.call("send", json!({ "body": "hello once more" }));

    // Kept out by the enrollment, from the next word.
    let state = |hub: &Hub| hub.service().call("GET", "/registrations/r1", None);
    hub.holm(&["dps", kind, "disable", enrollment]);
    not_assigned(&device.try_call("register", json!({})).unwrap_or_default());
    assert_eq!(state(hub)["status"], "disabled");
    device.call("send", json!({ "body": "its device goes on" }));
    hub.holm(&["dps", kind, "enable", enrollment]);
    assert_eq!(device.call("register", json!({}))["status"], "assigned");
    hub.holm(&["dps", kind, "delete", enrollment]);
    not_assigned(&device.try_call("register", json!({})).unwrap_or_default());

    // Forgotten: a registration is gone with its record, and nothing else is.
    assert_eq!(state(hub)["status"], "assigned");
    hub.holm(&["dps", "registration", "delete", "r1"]);
    let gone = hub
        .service()
        .try_call("GET", "/registrations/r1", &[], None)
        .expect("an answer");
    assert_eq!((gone.status, &gone.json()["errorCode"]), (404, &json!(404_201)));
    assert_eq!(hub.service().call("GET", "/devices/r1", None)["status"], "enabled");
}

/// Python gives a result without a hub, Node an error.
#[track_caller]
fn not_assigned(told: &Value) {
    assert_ne!(told["status"], "assigned", "{told}");
}

#[track_caller]
fn within_a_second(what: &str, mut attempt: impl FnMut() -> Duration) {
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        took.push(attempt());
        if took.last() <= Some(&FELT) {
            return;
        }
    }
    panic!("{what} was never felt within {FELT:?}: {took:?}");
}

fn set_status(hub: &Hub, status: &str) {
    let device = json!({ "deviceId": "r1", "status": status });
    let changed = hub
        .service()
        .try_call("PUT", "/devices/r1", &[("If-Match", "*")], Some(&device));
    assert_eq!(changed.expect("an answer").status, 200);
}

fn set_policy(hub: &Hub, kind: &str, id: &str, policy: Value) {
    let path = match kind {
        "group" => format!("/enrollmentGroups/{id}"),
        _ => format!("/enrollments/{id}"),
    };
    let mut document = hub.service().call("GET", &path, None);
    document["reprovisionPolicy"] = policy;
    let changed = hub
        .service()
        .try_call("PUT", &path, &[("If-Match", "*")], Some(&document));
    assert_eq!(changed.expect("an answer").status, 200);
}
