//! A device has its certificate renewed by its hub, with a client of MQTT that no SDK is in: the SDKs that are released know nothing of
//! it yet.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holm_e2e::Language::Python;
use holm_e2e::Transport::Mqtt;
use holm_e2e::{Certificate, Device, Hub, Need, Sdk, need};
use serde_json::{Value, json};

/// Sends requests over one connection by a certificate; gives the answers in their order.
fn renew(hub: &Hub, by: &Certificate, requests: &[&[u8]]) -> Vec<Value> {
    let requests = requests.iter().map(|request| STANDARD.encode(request));
    let done = Command::new(need::python())
        .arg(need::folder("python").join("renewal.py"))
        .arg(hub.host())
        .args([&hub.ca(), &by.certificate, &by.key])
        .arg("r1")
        .args(requests)
        .output()
        .expect("Python can be started");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let said = String::from_utf8(done.stdout).expect("JSON is text");
    said.lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect()
}

#[test]
fn a_client_of_mqtt_renews_its_certificate_at_the_hub_and_goes_by_the_new_one() {
    if !Need::all(&[Need::Python, Need::Openssl, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    hub.holm(&["dps", "enrollment", "create", "r1", "--issue-certificates"]);
    let shown = hub.service().call("POST", "/enrollments/r1/attestationmechanism", None);
    let shared_key = shown["symmetricKey"]["primaryKey"].as_str().expect("there is a key");
    let (key, request) = Certificate::request(hub.scratch(), "first", "r1");
    let state = hub.register_with_request("r1", shared_key, &request);
    let first = Certificate::issued(hub.scratch(), "first", &state["issuedCertificateChain"], key);
    let (key, request) = Certificate::request(hub.scratch(), "second", "r1");
    let (_, foreign) = Certificate::request(hub.scratch(), "foreign", "r2");

    let told = renew(&hub, &first, &[&foreign, &request]);
    let topics: Vec<_> = told.iter().map(|answer| answer["topic"].clone()).collect();
    assert_eq!(
        topics,
        [
            "$iothub/credentials/res/400/?$rid=r-00",
            "$iothub/credentials/res/202/?$rid=r-01",
            "$iothub/credentials/res/200/?$rid=r-01"
        ]
    );
    assert_eq!(told[0]["body"]["errorCode"], 400_037, "{}", told[0]);
    let second = Certificate::issued(hub.scratch(), "second", &told[2]["body"]["certificates"], key);
    let device = Device {
        id: "r1".to_owned(),
        module: None,
        primary_key: String::new(),
        secondary_key: String::new(),
        connection_string: format!("HostName={};DeviceId=r1;x509=true", hub.host()),
    };
    // The new one and the one that was shown open the hub.
    for (certificate, body) in [(&second, "by the second"), (&first, "by the first")] {
        let mut sdk = Sdk::device(Python, Mqtt, &hub, &device)
            .with_certificate(certificate)
            .start();
        sdk.call("connect", json!({}));
        sdk.call("send", json!({ "body": body }));
        hub.monitor().wait_for(body, |event| event.body == body);
    }
    let audit = hub.holm(&["audit", "--json"]);
    assert!(
        audit.contains("device.certificate") && audit.contains("device:r1"),
        "{audit}"
    );
}
