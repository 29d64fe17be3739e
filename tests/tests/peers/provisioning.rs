//! Devices that ask the provisioning service where they belong, and its back ends, with the original SDKs.

use std::path::Path;

use holm_e2e::Language::{Node, Python};
use holm_e2e::Transport::{Amqp, AmqpWs, Http, Mqtt, MqttWs};
use holm_e2e::tpm::ENDORSEMENT_KEY;
use holm_e2e::{Certificate, Device, Edge, Hub, Language, Need, Proof, Sdk, Setup, Tpm, Transport, patience};
use serde_json::{Value, json};

#[test]
fn python_device_provisions_itself_over_mqtt() {
    device_story(Python, Mqtt);
}

#[test]
fn python_device_provisions_itself_over_websocket() {
    device_story(Python, MqttWs);
}

#[test]
fn node_device_provisions_itself_over_mqtt() {
    device_story(Node, Mqtt);
}

#[test]
fn node_device_provisions_itself_over_websocket() {
    device_story(Node, MqttWs);
}

#[test]
fn node_device_provisions_itself_over_https() {
    device_story(Node, Http);
}

#[test]
fn node_device_provisions_itself_over_amqp() {
    device_story(Node, Amqp);
}

#[test]
fn node_device_provisions_itself_over_amqp_in_websocket() {
    device_story(Node, AmqpWs);
}

#[test]
fn python_device_provisions_itself_by_certificates() {
    certificate_story(Python, Mqtt);
}

#[test]
fn python_device_provisions_itself_by_certificates_over_websocket() {
    certificate_story(Python, MqttWs);
}

#[test]
fn node_device_provisions_itself_by_certificates_over_mqtt() {
    certificate_story(Node, Mqtt);
}

#[test]
fn node_device_provisions_itself_by_certificates_over_https() {
    certificate_story(Node, Http);
}

#[test]
fn node_device_provisions_itself_by_certificates_over_amqp() {
    certificate_story(Node, Amqp);
}

#[test]
fn node_device_provisions_itself_by_its_tpm_over_https() {
    tpm_story(Http);
}

#[test]
fn node_device_provisions_itself_by_its_tpm_over_amqp() {
    tpm_story(Amqp);
}

#[test]
fn node_device_provisions_itself_by_its_tpm_over_amqp_in_websocket() {
    tpm_story(AmqpWs);
}

#[test]
fn python_back_end_enrols_devices() {
    back_end_story(Python);
}

#[test]
fn node_back_end_enrols_devices() {
    back_end_story(Node);
}

fn key_of(hub: &Hub, enrollment: &str) -> String {
    let shown = hub.holm(&["dps", "enrollment", "show", enrollment, "--keys", "--json"]);
    let shown: Value = serde_json::from_str(&shown).expect("the command prints JSON");
    shown["attestation"]["symmetricKey"]["primaryKey"]
        .as_str()
        .expect("there is a key")
        .to_owned()
}

/// By a key of its own and by one derived from a group's; then to the hub, until it is disabled and until it is deleted.
fn device_story(language: Language, transport: Transport) {
    if !Need::all(&[need_of(language), Need::Openssl, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let twin = r#"{"tags":{"site":"north"}}"#;
    hub.holm(&[
        "dps",
        "enrollment",
        "create",
        "Reg-1",
        "--device-id",
        "dev1",
        "--initial-twin",
        twin,
    ]);
    hub.holm(&["dps", "group", "create", "plant"]);
    let own_key = key_of(&hub, "reg-1");
    let derived = hub.holm(&["dps", "group", "device-key", "plant", "--registration", "member-7"]);

    let mut own = Sdk::provisioning(language, transport, &hub, "reg-1", &Proof::Key(&own_key)).start();
    let assigned = own.call("register", json!({ "payload": { "serial": 7 } }));
    own.call("send", json!({ "body": "hello from dev1" }));
    let mut member = Sdk::provisioning(language, transport, &hub, "member-7", &Proof::Key(derived.trim())).start();
    let of_group = member.call("register", json!({}));

    assert_eq!(assigned["status"], "assigned", "{assigned}");
    assert_eq!(
        (&assigned["hub"], &assigned["device"]),
        (&json!(hub.host()), &json!("dev1"))
    );
    assert_eq!(
        (&of_group["status"], &of_group["device"]),
        (&json!("assigned"), &json!("member-7"))
    );
    hub.monitor()
        .wait_for("the message of dev1", |event| event.body == "hello from dev1");
    let shown = hub.holm(&["twin", "show", "--device", "dev1", "--json"]);
    assert!(shown.contains("north"), "{shown}");
    let listed = hub.holm(&["dps", "registration", "list", "--group", "plant"]);
    assert!(listed.contains("member-7") && listed.contains("assigned"), "{listed}");

    hub.holm(&["dps", "enrollment", "disable", "reg-1"]);
    let disabled = own.try_call("register", json!({}));
    hub.holm(&["dps", "enrollment", "delete", "reg-1"]);
    let deleted = own.try_call("register", json!({}));
    hub.holm(&["dps", "enrollment", "create", "reg-1"]);
    let wrong_key = own.try_call("register", json!({}));

    for refused in [disabled, deleted, wrong_key] {
        // Python gives its result, or an error; Node always an error.
        assert!(
            refused.as_ref().map_or(true, |told| told["status"] != "assigned"),
            "{refused:?}"
        );
    }
}

/// By its own certificate, by the one to change to, and by those that a root and an intermediate have signed.
fn certificate_story(language: Language, transport: Transport) {
    if !Need::all(&[need_of(language), Need::Openssl, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let scratch = hub.scratch().to_owned();
    let path = |path: &Path| path.to_str().expect("paths of tests are text").to_owned();
    let directory = |name: &str| {
        let made = scratch.join(name);
        std::fs::create_dir(&made).expect("a directory can be made");
        made
    };
    let (first, second) = (directory("first"), directory("second"));
    let (first, second) = (
        Certificate::self_signed(&first, "reg-1"),
        Certificate::self_signed(&second, "reg-1"),
    );
    let root = Certificate::authority(&scratch, "Root");
    let intermediate = root.sign(&scratch, "Line-4", true);
    let (of_root, of_line) = (
        root.sign(&scratch, "member-1", false),
        intermediate.sign(&scratch, "member-2", false),
    );
    let (one, two) = (path(&first.certificate), path(&second.certificate));
    hub.holm(&[
        "dps",
        "enrollment",
        "create",
        "reg-1",
        "--certificate",
        &one,
        "--secondary-certificate",
        &two,
    ]);
    hub.holm(&[
        "dps",
        "group",
        "create",
        "plant",
        "--signing-certificate",
        &path(&root.certificate),
    ]);
    hub.holm(&[
        "dps",
        "group",
        "create",
        "line",
        "--signing-certificate",
        &path(&intermediate.certificate),
    ]);
    let register = |id: &str, certificate: &Certificate| {
        let proof = Proof::Certificate(&certificate.certificate, &certificate.key);
        let mut sdk = Sdk::provisioning(language, transport, &hub, id, &proof).start();
        let assigned = sdk.call("register", json!({}));
        assert_eq!(
            (&assigned["status"], &assigned["device"]),
            (&json!("assigned"), &json!(id)),
            "{assigned}"
        );
        sdk.call("send", json!({ "body": format!("hello from {id}") }));
    };

    register("reg-1", &first);
    register("reg-1", &second);
    register("member-1", &of_root);
    register("member-2", &of_line);

    let mut monitor = hub.monitor();
    for id in ["reg-1", "member-1", "member-2"] {
        monitor.wait_for(id, |event| event.body == format!("hello from {id}").as_str());
    }
    for (group, member) in [("plant", "member-1"), ("line", "member-2")] {
        let listed = hub.holm(&["dps", "registration", "list", "--group", group, "--json"]);
        let listed: Value = serde_json::from_str(&listed).expect("the command prints JSON");
        assert_eq!(
            listed[0]["registrationId"], member,
            "the nearest group counts: {listed}"
        );
        assert_eq!(listed.as_array().map(Vec::len), Some(1));
    }
}

/// By a TPM in software, with the original TPM client of Node; then to the hub, by tokens that the TPM signs. Another TPM, and another
/// storage root key than the enrolled one, are refused: over AMQP this SDK says nothing of that and waits for ever.
fn tpm_story(transport: Transport) {
    if !Need::all(&[Need::Node, Need::Swtpm, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let [tpm, other] = ["own", "other"].map(|name| Tpm::start(hub.scratch(), name));
    let device = |tpm: &Tpm, id: &str| Sdk::provisioning(Node, transport, &hub, id, &Proof::Tpm(tpm)).start();
    let (mut own, mut stranger) = (device(&tpm, "reg-1"), device(&other, "reg-1"));
    let (keys, others) = (own.call("tpm_keys", json!({})), stranger.call("tpm_keys", json!({})));
    let text = |keys: &Value, name: &str| keys[name].as_str().expect("a TPM has keys").to_owned();
    let (endorsement, root) = (text(&keys, "endorsement"), text(&keys, "root"));
    let enroll = |id: &str, root: &str| {
        let mut words = vec!["dps", "enrollment", "create", id, "--device-id", "dev1"];
        words.extend(["--tpm-endorsement-key", &endorsement]);
        if !root.is_empty() {
            words.extend(["--tpm-storage-root-key", root]);
        }
        hub.holm(&words)
    };
    let shown = enroll("reg-1", "");
    assert!(shown.contains("tpm"), "{shown}");

    let assigned = own.call("register", json!({}));
    own.call("send", json!({ "body": "signed in the TPM" }));
    let hears_refusals = matches!(transport, Http);
    let refused = hears_refusals.then(|| stranger.try_call("register", json!({})));

    assert_eq!(
        (&assigned["status"], &assigned["hub"], &assigned["device"]),
        (&json!("assigned"), &json!(hub.host()), &json!("dev1"))
    );
    hub.monitor()
        .wait_for("the message of dev1", |event| event.body == "signed in the TPM");
    assert!(refused.as_ref().is_none_or(Result::is_err), "another TPM: {refused:?}");

    // Again, with a new key; and by an enrollment that names the storage root key, too.
    own.call("register", json!({}));
    own.call("send", json!({ "body": "with another key" }));
    drop((own, stranger));
    enroll("reg-2", &root);
    enroll("reg-3", &text(&others, "root"));
    let mut named = device(&tpm, "reg-2");
    named.call("register", json!({}));
    named.call("send", json!({ "body": "by the named root" }));
    drop(named);
    let refused = hears_refusals.then(|| device(&tpm, "reg-3").try_call("register", json!({})));

    assert!(refused.as_ref().is_none_or(Result::is_err), "another root: {refused:?}");
    let mut monitor = hub.monitor();
    for body in ["with another key", "by the named root"] {
        monitor.wait_for(body, |event| event.body == body);
    }

    hub.holm(&["dps", "enrollment", "disable", "reg-1"]);
    let disabled = device(&tpm, "reg-1").try_call("register", json!({}));
    assert!(disabled.is_err(), "{disabled:?}");
}

fn back_end_story(language: Language) {
    if !Need::all(&[need_of(language), Need::Openssl, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let mut service = Sdk::enrollments(language, &hub).start();
    let certificate = Certificate::authority(hub.scratch(), "Root");
    let certificate = std::fs::read_to_string(certificate.certificate).expect("a certificate can be read");

    let made = service.call("enroll", json!({ "registration": "r1", "device": "d1" }));
    let keys = service.call("keys", json!({ "registration": "r1" }));
    let disabled = service.call("set_status", json!({ "registration": "r1", "status": "disabled" }));
    let enabled = service.call("set_status", json!({ "registration": "r1", "status": "enabled" }));
    let kept = service.call("keys", json!({ "registration": "r1" }));
    let group = service.call("group", json!({ "group": "g1", "certificate": certificate }));
    let by_tpm = service.call(
        "enroll",
        json!({ "registration": "t1", "endorsement_key": ENDORSEMENT_KEY }),
    );
    let tpm_disabled = service.call("set_status", json!({ "registration": "t1", "status": "disabled" }));
    service.call("delete", json!({ "registration": "t1" }));
    let bulk = service.call("bulk", json!({ "mode": "create", "registrations": ["r1", "r2", "r3"] }));
    let listed = service.call("list", json!({}));
    let nobody = (language == Node).then(|| service.call("members", json!({ "group": "g1" })));

    assert_eq!(
        (&made["status"], &made["type"], &made["device"]),
        (&json!("enabled"), &json!("symmetricKey"), &json!("d1"))
    );
    assert_eq!(
        (&disabled["status"], &enabled["status"]),
        (&json!("disabled"), &json!("enabled"))
    );
    assert_eq!(keys, kept, "what was read and written back has its keys");
    assert_eq!(group["type"], "x509");
    assert_eq!(
        (&by_tpm["type"], &by_tpm["endorsement_key"]),
        (&json!("tpm"), &json!(ENDORSEMENT_KEY))
    );
    assert_eq!(
        (&tpm_disabled["status"], &tpm_disabled["endorsement_key"]),
        (&json!("disabled"), &json!(ENDORSEMENT_KEY))
    );
    assert_eq!(
        (&bulk["successful"], &bulk["errors"]),
        (&json!(false), &json!([["r1", 409_201]]))
    );
    assert_eq!(listed, json!(["r1", "r2", "r3"]));
    assert!(nobody.is_none_or(|nobody| nobody == json!([])));

    let key = keys["primary"].as_str().expect("there is a key");
    let mut device = Sdk::provisioning(Python, Mqtt, &hub, "r1", &Proof::Key(key)).start();
    device.call("register", json!({}));
    let state = service.call("state", json!({ "registration": "r1" }));
    let shown = service.call("get", json!({ "registration": "r1" }));
    service.call("delete", json!({ "registration": "r1" }));
    service.call("delete", json!({ "group": "g1" }));
    let gone = service.try_call("get", json!({ "registration": "r1" }));

    assert_eq!(
        state,
        json!({ "status": "assigned", "hub": hub.host(), "device": "d1" })
    );
    assert_eq!(shown["state"], "assigned");
    assert!(gone.is_err(), "{gone:?}");
}

const fn need_of(language: Language) -> Need {
    match language {
        Python => Need::Python,
        Node => Need::Node,
    }
}

/// Waits until the agent of an edge device is connected at the hub.
#[track_caller]
fn wait_for_agent(hub: &Hub, device: &str) {
    patience::wait("the edge at its hub", patience::long(), || {
        let path = format!("/devices/{device}/modules/$edgeAgent");
        let answer = hub.service().try_call("GET", &path, &[], None);
        let answer = answer.map_err(|error| format!("{error:#}"))?;
        match answer.json()["connectionState"].as_str() {
            Some("Connected") => Ok(()),
            _ => Err(format!("{} {}", answer.status, answer.json())),
        }
    });
}

#[test]
fn an_edge_provisions_itself_starts_without_the_service_and_goes_where_it_is_told() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let mut hub = Hub::start();
    hub.holm(&["dps", "group", "create", "boxes", "--edge"]);
    let key = hub.holm(&["dps", "group", "device-key", "boxes", "--registration", "box-1"]);
    let provisioning = format!(
        "source = \"dps\"\nglobal_endpoint = \"https://{}\"\nid_scope = \"{}\"\n\n[provisioning.attestation]\n\
         method = \"symmetric_key\"\nregistration_id = \"box-1\"\nsymmetric_key = {{ value = \"{}\" }}\n",
        hub.host(),
        hub.id_scope(),
        key.trim()
    );
    let setup = Setup {
        provisioning: Some(provisioning),
        ..Setup::default()
    };
    let device = Device {
        id: "box-1".to_owned(),
        module: None,
        primary_key: key.trim().to_owned(),
        secondary_key: String::new(),
        connection_string: String::new(),
    };

    let mut edge = Edge::start_with(&hub, &device, setup);
    wait_for_agent(&hub, "box-1");
    let registered = hub.service().call("GET", "/registrations/box-1", None);
    assert_eq!(
        (&registered["status"], &registered["deviceId"]),
        (&json!("assigned"), &json!("box-1"))
    );

    // Nobody to ask: what was told is remembered.
    hub.crash();
    edge.crash();
    edge.restart();
    hub.restart();
    wait_for_agent(&hub, "box-1");

    // It belongs to another device now. Its hub lets it in no more, so it asks.
    let attestation =
        json!({ "type": "symmetricKey", "symmetricKey": { "primaryKey": key.trim(), "secondaryKey": key.trim() } });
    let own = json!({ "attestation": attestation, "deviceId": "box-2", "capabilities": { "iotEdge": true } });
    hub.service().call("PUT", "/enrollments/box-1", Some(&own));
    hub.holm(&["device", "delete", "box-1"]);
    wait_for_agent(&hub, "box-2");
}
