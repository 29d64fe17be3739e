//! Devices that ask for a certificate when they register: `hub-device-protocols.md` §5.7.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holm_gateway::Credential;
use holm_identity::CertificateDetails;
use holm_identity::certificate::certificates_from_pem;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use crate::provisioning::{Device, keys, symmetric, with};
use crate::support::TestHub;

pub(crate) fn request(name: &str) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    STANDARD.encode(params.serialize_request(&key).unwrap().der())
}

pub(crate) fn issuing() -> Value {
    let policy = json!({ "clientCertificateIssuancePolicy": { "certificateAuthorityName": "hub" } });
    with(symmetric(), &policy)
}

pub(crate) async fn register(device: &Device<'_>, body: Value) -> Value {
    let begun = device.begin_with(&body).await.unwrap();
    let ended = device.state(begun.body["operationId"].as_str().unwrap()).await.unwrap();
    assert_eq!(ended.status, 200);
    ended.body["registrationState"].clone()
}

pub(crate) fn chain(state: &Value) -> Vec<CertificateDer<'static>> {
    let texts = state["issuedCertificateChain"].as_array().unwrap().iter();
    texts
        .map(|text| CertificateDer::from(STANDARD.decode(text.as_str().unwrap()).unwrap()))
        .collect()
}

pub(crate) async fn is_let_in(hub: &TestHub, device: &str, chain: &[CertificateDer<'static>]) -> bool {
    let credential = Credential::Certificate(Arc::from(chain));
    hub.authenticate(device, credential).await.is_ok()
}

#[tokio::test]
async fn a_device_that_sends_a_request_gets_a_certificate_and_goes_by_it_at_its_hub() {
    let hub = TestHub::start_with(|config| config.issued_certificate_days = 30).await;
    let made = hub.put("/enrollments/r1", issuing()).await.ok();
    let device = Device::with_key(&hub, "R1", &keys(&hub, "/enrollments/r1").await.0);

    let state = register(&device, json!({ "csr": request("r1") })).await;
    let first = chain(&state);
    let by_first = is_let_in(&hub, "r1", &first).await;
    let identity = hub.get("/devices/r1").await;
    let again = register(&device, json!({ "csr": request("r1") })).await;
    let second = chain(&again);

    assert_eq!(
        made["clientCertificateIssuancePolicy"]["certificateAuthorityName"],
        "hub"
    );
    assert_eq!((&state["status"], first.len()), (&json!("assigned"), 2));
    let details = CertificateDetails::read(&first[0]).unwrap();
    assert_eq!(details.info.subject_common_name.as_deref(), Some("r1"));
    let life = details.info.not_after.unix_seconds() - hub.now_seconds();
    assert_eq!(life, 30 * 86_400);
    assert_eq!(
        first[1..],
        certificates_from_pem(hub.hub.ca_pem().unwrap().as_bytes()).unwrap()[..]
    );
    assert!(by_first, "{:?}", identity.body);
    assert!(is_let_in(&hub, "r1", &second).await && !is_let_in(&hub, "r1", &first).await);
    let restarted = hub.restart().await;
    assert!(is_let_in(&restarted, "r1", &second).await);
    let kept = restarted.get("/enrollments/r1").await.ok();
    assert_eq!(
        kept["clientCertificateIssuancePolicy"],
        made["clientCertificateIssuancePolicy"]
    );
}

#[tokio::test]
async fn the_older_words_get_pem_and_a_trust_bundle() {
    let hub = TestHub::start().await;
    hub.put("/enrollmentGroups/g", issuing()).await.ok();
    let key = keys(&hub, "/enrollmentGroups/g").await.0;
    let device = Device::with_key(&hub, "d1", &key.derive_for_registration("d1"));

    let state = register(
        &device,
        json!({ "clientCertificateCsr": request("d1"), "payload": { "a": 1 } }),
    )
    .await;
    let without = register(&device, json!({})).await;

    let issued = certificates_from_pem(state["issuedClientCertificate"].as_str().unwrap().as_bytes()).unwrap();
    let trusted = state["trustBundle"]["certificates"][0]["certificate"].as_str().unwrap();
    assert_eq!((issued.len(), trusted), (2, hub.hub.ca_pem().unwrap().as_str()));
    assert_eq!(state["symmetricKey"]["enrollmentGroupId"], "g");
    // Who asks for none goes by what it has proved itself by.
    assert_eq!(without["issuedClientCertificate"], Value::Null);
    assert!(!is_let_in(&hub, "d1", &issued).await);
}

#[tokio::test]
async fn a_request_that_can_not_be_met_makes_no_device() {
    let hub = TestHub::start().await;
    hub.put("/enrollments/r", issuing()).await.ok();
    hub.put("/enrollments/plain", symmetric()).await.ok();
    let device = Device::with_key(&hub, "r", &keys(&hub, "/enrollments/r").await.0);
    let plain = Device::with_key(&hub, "plain", &keys(&hub, "/enrollments/plain").await.0);

    for (device, body, why) in [
        (&device, json!({ "csr": request("s") }), "common name"),
        (&device, json!({ "csr": "nonsense!" }), "base64"),
        (&device, json!({ "csr": STANDARD.encode("nonsense") }), "PKCS #10"),
        (&device, json!({ "csr": 7 }), "`csr`"),
        (
            &device,
            json!({ "clientCertificateCsr": STANDARD.encode([0x30; 9000]) }),
            "8192",
        ),
        (
            &plain,
            json!({ "csr": request("plain") }),
            "clientCertificateIssuancePolicy",
        ),
    ] {
        let refused = device.begin_with(&body).await.unwrap_err();
        assert_eq!(refused.code.number(), 400_004);
        assert!(refused.message.contains(why), "{why}: {}", refused.message);
    }
    let policy = json!({ "clientCertificateIssuancePolicy": {} });
    let refused = hub.put("/enrollments/x", with(symmetric(), &policy)).await;

    assert_eq!(hub.get("/statistics/devices").await.ok()["totalDeviceCount"], 0);
    crate::provisioning::assert_refused(&refused, 400_004);
}
