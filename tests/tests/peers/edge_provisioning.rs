//! An edge with a certificate, from the provisioning service and by hand, whose certificate is renewed; and one that is provisioned
//! anew because an operator wants it.

use std::path::Path;
use std::process::Command;

use holm_e2e::edge::{self, Runtime, SdkModule};
use holm_e2e::{Certificate, Control, Device, Edge, Hub, Language, Need, Setup, Transport, need, patience};
use serde_json::{Value, json};

const fn module(name: &'static str) -> SdkModule {
    SdkModule {
        name,
        language: Language::Python,
        transport: Transport::Mqtt,
        runtime: Runtime::Process,
    }
}

const SENSOR: SdkModule = module("sensor");
/// A second one: it can send when the edge could set its keys at the hub, with the proof of its device.
const SECOND: SdkModule = module("second");

fn device(id: &str) -> Device {
    Device {
        id: id.to_owned(),
        module: None,
        primary_key: String::new(),
        secondary_key: String::new(),
        connection_string: String::new(),
    }
}

fn upstream() -> Value {
    json!({ "all": "FROM /messages/* INTO $upstream" })
}

/// Lines for `[provisioning]` of an edge that asks the hub's provisioning service.
fn by_service(hub: &Hub, attestation: &str) -> Setup {
    let provisioning = format!(
        "source = \"dps\"\nglobal_endpoint = \"https://{}\"\nid_scope = \"{}\"\n\n[provisioning.attestation]\n{attestation}\n",
        hub.host(),
        hub.id_scope(),
    );
    Setup {
        provisioning: Some(provisioning),
        ..Setup::default()
    }
}

/// Where an edge has its certificate and the key, which who renews it replaces.
fn pair_of(hub: &Hub) -> [std::path::PathBuf; 2] {
    ["device.pem", "device.key.pem"].map(|name| hub.scratch().join(name))
}

/// Puts a certificate where an edge has its own: key first, then certificate, each in one step.
fn put_in_place(hub: &Hub, certificate: &Certificate) {
    let [cert, key] = pair_of(hub);
    for (from, to) in [(&certificate.key, &key), (&certificate.certificate, &cert)] {
        let new = to.with_extension("new");
        std::fs::copy(from, &new).expect("a file can be copied");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&new, private).expect("its mode can be set");
        std::fs::rename(&new, to).expect("a file can be renamed");
    }
}

#[track_caller]
fn sends(hub: &Hub, sensor: &mut Control, body: &str) {
    let mut monitor = hub.monitor();
    sensor.call("send", json!({ "output": "readings", "body": body }));
    monitor.wait_for(body, |event| event.body == body);
}

#[test]
fn an_edge_provisions_itself_by_its_certificate_which_is_then_renewed() {
    if !Need::all(&[Need::Python, Need::Openssl, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let scratch = hub.scratch().to_owned();
    let root = Certificate::authority(&scratch, "Root");
    let line = root.sign(&scratch, "Line-4", true);
    let text = |path: &Path| path.to_str().expect("paths of tests are text").to_owned();
    hub.holm(&[
        "dps",
        "group",
        "create",
        "line",
        "--edge",
        "--signing-certificate",
        &text(&line.certificate),
    ]);
    put_in_place(&hub, &line.sign(&scratch, "box-1", false));
    let [cert, key] = pair_of(&hub).map(|path| text(&path));
    // No registration id: the certificate names the device.
    let attestation = format!("method = \"x509\"\nidentity_cert = \"file://{cert}\"\nidentity_pk = \"file://{key}\"");
    let box_1 = device("box-1");

    let edge = Edge::start_with(&hub, &box_1, by_service(&hub, &attestation));
    patience::wait("a registration", patience::long(), || {
        let answer = hub.service().try_call("GET", "/registrations/box-1", &[], None);
        let answer = answer.map_err(|error| format!("{error:#}"))?;
        if answer.json()["status"] == "assigned" {
            Ok(())
        } else {
            Err(answer.json().to_string())
        }
    });
    edge::deploy(&hub, &box_1, &edge.manifest(&[SENSOR], &upstream()));
    let [mut sensor] = edge.accept_all(["sensor"]);
    sensor.call("connect", json!({}));
    sends(&hub, &mut sensor, "before the renewal");
    let shown = hub.service().call("GET", "/devices/box-1", None);
    assert_eq!(shown["authentication"]["type"], "selfSigned", "{shown}");

    // The hub knows the first certificate only: it refuses the second one, so the edge asks with that.
    put_in_place(&hub, &line.sign(&scratch, "box-1", false));
    edge::deploy(&hub, &box_1, &edge.manifest(&[SENSOR, SECOND], &upstream()));

    let mut second = edge.accept();
    second.call("connect", json!({}));
    sends(&hub, &mut second, "after the renewal");
    sends(&hub, &mut sensor, "and so does the first");
    let renewed = hub.service().call("GET", "/devices/box-1", None);
    assert_ne!(
        shown["authentication"]["x509Thumbprint"],
        renewed["authentication"]["x509Thumbprint"]
    );
}

#[test]
fn an_edge_with_two_known_certificates_goes_over_to_the_second() {
    if !Need::all(&[Need::Python, Need::Openssl, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let [first, second] = ["first", "second"].map(|name| Certificate::self_signed(hub.scratch(), name));
    let known = |primary: &str, secondary: &str| {
        json!({ "deviceId": "box-2", "capabilities": { "iotEdge": true }, "authentication": {
            "type": "selfSigned",
            "x509Thumbprint": { "primaryThumbprint": primary, "secondaryThumbprint": secondary } } })
    };
    hub.service()
        .call("PUT", "/devices/box-2", Some(&known(&first.sha256, &second.sha256)));
    put_in_place(&hub, &first);
    let [cert, key] = pair_of(&hub).map(|path| path.display().to_string());
    let setup = Setup {
        provisioning: Some(format!(
            "source = \"manual\"\niothub_hostname = \"{}\"\ndevice_id = \"box-2\"\n\n[provisioning.authentication]\n\
             method = \"x509\"\nidentity_cert = \"file://{cert}\"\nidentity_pk = \"file://{key}\"\n",
            hub.host()
        )),
        ..Setup::default()
    };
    let box_2 = device("box-2");

    let edge = Edge::start_with(&hub, &box_2, setup);
    edge::deploy(&hub, &box_2, &edge.manifest(&[SENSOR], &upstream()));
    let [mut sensor] = edge.accept_all(["sensor"]);
    sensor.call("connect", json!({}));
    sends(&hub, &mut sensor, "by the first");

    put_in_place(&hub, &second);
    let found = hub.service().call("GET", "/devices/box-2", None);
    let mut only_second = known(&second.sha256, &second.sha256);
    only_second["etag"] = found["etag"].clone();
    hub.service()
        .try_call("PUT", "/devices/box-2", &[("If-Match", "*")], Some(&only_second))
        .expect("an answer");
    edge::deploy(&hub, &box_2, &edge.manifest(&[SENSOR, SECOND], &upstream()));

    let mut second = edge.accept();
    second.call("connect", json!({}));
    sends(&hub, &mut second, "by the second");
}

#[test]
fn an_operator_has_an_edge_provisioned_anew() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    hub.holm(&["dps", "enrollment", "create", "reg-3", "--device-id", "box-3", "--edge"]);
    let keys = hub
        .service()
        .call("POST", "/enrollments/reg-3/attestationmechanism", None);
    let key = keys["symmetricKey"]["primaryKey"]
        .as_str()
        .expect("there is a key")
        .to_owned();
    let attestation =
        format!("method = \"symmetric_key\"\nregistration_id = \"reg-3\"\nsymmetric_key = {{ value = \"{key}\" }}");
    let [box_3, box_4] = ["box-3", "box-4"].map(device);
    let edge = Edge::start_with(&hub, &box_3, by_service(&hub, &attestation));
    wait_for_identity_of_agent(&hub, &box_3);
    edge::deploy(&hub, &box_3, &edge.manifest(&[SENSOR], &upstream()));
    let [mut sensor] = edge.accept_all(["sensor"]);
    sensor.call("connect", json!({}));

    // Told the same: nothing happens to the modules.
    edge.holm(&["system", "reprovision"]);
    sends(&hub, &mut sensor, "still here");

    // Told that it is another device: it goes on as that, with what is deployed to it.
    hub.holm(&["device", "create", "box-4", "--edge"]);
    edge::deploy(&hub, &box_4, &edge.manifest(&[SENSOR], &upstream()));
    let mut enrollment = hub.service().call("GET", "/enrollments/reg-3", None);
    enrollment["deviceId"] = json!("box-4");
    let changed = hub
        .service()
        .try_call("PUT", "/enrollments/reg-3", &[("If-Match", "*")], Some(&enrollment));
    assert_eq!(changed.expect("an answer").status, 200);
    edge.holm(&["system", "reprovision"]);

    let [mut sensor] = edge.accept_all(["sensor"]);
    sensor.call("connect", json!({}));
    let mut monitor = hub.monitor();
    sensor.call("send", json!({ "output": "readings", "body": "as another" }));
    let event = monitor.wait_for("as another", |event| event.body == "as another");
    assert_eq!(event.device, "box-4");

    // Nobody tells: the operator hears why, and the edge goes on.
    hub.holm(&["dps", "enrollment", "disable", "reg-3"]);
    let refused = Command::new(need::holm())
        .args(["edge", "system", "reprovision"])
        .env("IOTEDGE_HOST", edge.socket_uri())
        .output()
        .expect("the binary can be started");
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("is disabled"), "{told}");
    sends(&hub, &mut sensor, "all the same");
}

/// Waits until the edge's agent is connected.
#[track_caller]
fn wait_for_identity_of_agent(hub: &Hub, device: &Device) {
    patience::wait("the edge at its hub", patience::long(), || {
        let path = format!("/devices/{}/modules/$edgeAgent", device.id);
        let answer = hub.service().try_call("GET", &path, &[], None);
        let answer = answer.map_err(|error| format!("{error:#}"))?;
        match answer.json()["connectionState"].as_str() {
            Some("Connected") => Ok(()),
            _ => Err(format!("{} {}", answer.status, answer.json())),
        }
    });
}
