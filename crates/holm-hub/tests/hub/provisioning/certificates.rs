//! Devices that register by certificates: of their own, or signed by a group's.

use holm_gateway::Credential;
use holm_identity::{CertificateAuthority, TlsIdentity};
use holm_model::Timestamp;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use super::{Device, assert_refused};
use crate::support::TestHub;

fn authority(name: &str) -> CertificateAuthority {
    CertificateAuthority::create(name, 3650, Timestamp::from_unix_millis(crate::support::START)).unwrap()
}

fn leaf(authority: &CertificateAuthority, id: &str) -> TlsIdentity {
    let now = Timestamp::from_unix_millis(crate::support::START);
    authority.issue_client(id, &[""; 0], 365, now).unwrap()
}

fn pem(identity: &TlsIdentity) -> Value {
    json!({ "certificate": holm_identity::certificate::certificates_to_pem(&identity.chain()[..1]) })
}

#[tokio::test]
async fn a_device_registers_by_one_of_two_certificates_and_rolls_over_to_the_second() {
    let hub = TestHub::start().await;
    let maker = authority("somebody");
    let (first, second, third) = (leaf(&maker, "r"), leaf(&maker, "r"), leaf(&maker, "r"));
    let named_otherwise = leaf(&maker, "s");
    let pair = json!({ "primary": pem(&first), "secondary": pem(&second) });
    let document = json!({ "attestation": { "type": "x509", "x509": { "clientCertificates": pair } } });
    let made = hub.put("/enrollments/r", document).await.ok();

    let by_first = Device::with_certificate(&hub, "r", &first).register().await.unwrap();
    let by_second = Device::with_certificate(&hub, "R", &second).register().await.unwrap();
    let by_third = Device::with_certificate(&hub, "r", &third).register().await;
    let by_other = Device::with_certificate(&hub, "r", &named_otherwise).register().await;
    // The second becomes the first, and a new one comes behind it; what is not sent again stays.
    let mut rolled = made.clone();
    let pair = &mut rolled["attestation"]["x509"]["clientCertificates"];
    (pair["primary"], pair["secondary"]) = (pem(&second), pem(&third));
    hub.update("/enrollments/r", made["etag"].as_str().unwrap(), rolled)
        .await
        .ok();
    let after = Device::with_certificate(&hub, "r", &third).register().await.unwrap();
    let gone = Device::with_certificate(&hub, "r", &first).register().await;
    let device = hub.get("/devices/r").await.ok();

    let info = first.info().unwrap();
    let shown = &made["attestation"]["x509"]["clientCertificates"]["primary"];
    assert_eq!(shown["info"]["sha1Thumbprint"], info.sha1.to_ascii_uppercase());
    assert_eq!(
        (&shown["certificate"], &shown["info"]["version"]),
        (&Value::Null, &json!(3))
    );
    assert_eq!(by_first["x509"]["certificateInfo"]["subjectName"], "CN=r");
    for state in [by_first, by_second, after] {
        assert_eq!(state["status"], "assigned");
    }
    for refused in [by_third, by_other, gone] {
        assert_eq!(Device::refused(refused), 401_002);
    }
    let prints = &device["authentication"]["x509Thumbprint"];
    assert_eq!(prints["primaryThumbprint"], second.info().unwrap().sha256);
    assert_eq!(prints["secondaryThumbprint"], third.info().unwrap().sha256);
}

#[tokio::test]
async fn a_new_certificate_is_known_at_the_hub_also_where_nothing_else_may_change() {
    let hub = TestHub::start().await;
    let maker = authority("somebody");
    let (first, second) = (leaf(&maker, "r"), leaf(&maker, "r"));
    let pair = json!({ "primary": pem(&first), "secondary": pem(&second) });
    let document = json!({ "attestation": { "type": "x509", "x509": { "clientCertificates": pair } },
        "reprovisionPolicy": { "updateHubAssignment": false, "migrateDeviceData": false },
        "initialTwin": { "tags": { "from": "enrollment" } } });
    let made = hub.put("/enrollments/r", document).await.ok();
    let by_first = Device::with_certificate(&hub, "r", &first).register().await.unwrap();
    hub.patch("/twins/r", json!({ "tags": { "from": "operator" } }))
        .await
        .ok();
    let mut rolled = made.clone();
    rolled["attestation"]["x509"]["clientCertificates"] = json!({ "primary": pem(&second) });
    hub.update("/enrollments/r", made["etag"].as_str().unwrap(), rolled)
        .await
        .ok();

    let by_second = Device::with_certificate(&hub, "r", &second).register().await.unwrap();
    let known = hub.get("/devices/r").await.ok();
    hub.delete("/devices/r").await;
    let without = Device::with_certificate(&hub, "r", &second).register().await.unwrap();

    assert_eq!(
        (&by_first["status"], &by_second["status"]),
        (&json!("assigned"), &json!("assigned"))
    );
    assert_eq!(by_second["substatus"], by_first["substatus"]);
    let prints = &known["authentication"]["x509Thumbprint"];
    assert_eq!(prints["primaryThumbprint"], second.info().unwrap().sha256);
    // A device that the operator has deleted does not come back by this.
    assert_eq!(without["status"], "assigned");
    assert_eq!(hub.get("/devices/r").await.status, 404);
}

#[tokio::test]
async fn devices_of_a_group_register_by_certificates_that_its_authority_signed() {
    let hub = TestHub::start().await;
    let (ours, next, theirs) = (authority("Plant A"), authority("Plant A"), authority("Plant B"));
    let signing = |authority: &CertificateAuthority| json!({ "certificate": authority.certificate_pem() });
    let group = |pair: Value| json!({ "attestation": { "type": "x509", "x509": { "signingCertificates": pair } } });
    let pair = json!({ "primary": signing(&ours), "secondary": signing(&next) });
    hub.put("/enrollmentGroups/a", group(pair)).await.ok();

    let by_ours = Device::with_certificate(&hub, "d1", &leaf(&ours, "d1"))
        .register()
        .await
        .unwrap();
    let by_next = Device::with_certificate(&hub, "d2", &leaf(&next, "d2"))
        .register()
        .await
        .unwrap();
    let by_theirs = Device::with_certificate(&hub, "d3", &leaf(&theirs, "d3"))
        .register()
        .await;
    let other_name = Device::with_certificate(&hub, "d4", &leaf(&ours, "d5"))
        .register()
        .await;
    hub.put("/enrollmentGroups/b", group(json!({ "primary": signing(&theirs) })))
        .await
        .ok();
    let now_known = Device::with_certificate(&hub, "d3", &leaf(&theirs, "d3"))
        .register()
        .await
        .unwrap();
    let leaf_as_signer = hub
        .put(
            "/enrollmentGroups/c",
            group(json!({ "primary": pem(&leaf(&ours, "x")) })),
        )
        .await;
    hub.turn_clock(366 * 24 * 3600);
    let ended = Device::with_certificate(&hub, "d1", &leaf(&ours, "d1"))
        .register()
        .await;

    assert_eq!(
        (&by_ours["x509"]["enrollmentGroupId"], &by_next["deviceId"]),
        (&json!("a"), &json!("d2"))
    );
    assert_eq!(now_known["x509"]["enrollmentGroupId"], "b");
    for refused in [by_theirs, other_name, ended] {
        assert_eq!(Device::refused(refused), 401_002);
    }
    assert_refused(&leaf_as_signer, 400_004);
}

#[tokio::test]
async fn what_an_authority_says_of_itself_holds_for_the_devices_of_its_group() {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
    let made = |name: &str, is_ca: IsCa, usages: &[KeyUsagePurpose], by: Option<(&CertificateParams, &KeyPair)>| {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        (params.is_ca, params.key_usages) = (is_ca, usages.to_vec());
        let key = KeyPair::generate().unwrap();
        let certificate = match by {
            None => params.self_signed(&key).unwrap(),
            Some((above, above_key)) => params.signed_by(&key, &Issuer::from_params(above, above_key)).unwrap(),
        };
        (certificate.der().clone(), params, key)
    };
    let sign = [KeyUsagePurpose::KeyCertSign];
    let narrow = IsCa::Ca(BasicConstraints::Constrained(0));
    let root = made("Narrow", narrow, &sign, None);
    let line = made("Line", narrow, &sign, Some((&root.1, &root.2)));
    let direct = made("d1", IsCa::ExplicitNoCa, &[], Some((&root.1, &root.2)));
    let below = made("d2", IsCa::ExplicitNoCa, &[], Some((&line.1, &line.2)));
    let only_lists = made("Lists", narrow, &[KeyUsagePurpose::CrlSign], None);
    let group = |der: &CertificateDer<'_>| {
        let pem = holm_identity::certificate::certificates_to_pem(std::slice::from_ref(der));
        let pair = json!({ "primary": { "certificate": pem } });
        json!({ "attestation": { "type": "x509", "x509": { "signingCertificates": pair } } })
    };
    let hub = TestHub::start().await;
    hub.put("/enrollmentGroups/g", group(&root.0)).await.ok();
    let register = async |id: &str, chain: Vec<CertificateDer<'static>>| {
        let device = Device::new(&hub, id, Credential::Certificate(chain.into()));
        device.register().await
    };

    let direct = register("d1", vec![direct.0.clone()]).await;
    let below = register("d2", vec![below.0.clone(), line.0.clone()]).await;
    let no_signer = hub.put("/enrollmentGroups/lists", group(&only_lists.0)).await;

    assert_eq!(direct.unwrap()["status"], "assigned");
    assert_eq!(
        Device::refused(below),
        401_002,
        "its path length allows no intermediate"
    );
    assert_refused(&no_signer, 400_004);
    assert!(no_signer.json()["message"].as_str().unwrap().contains("keyCertSign"));
}

#[tokio::test]
async fn the_nearest_group_counts_in_whatever_order_the_certificates_above_are_shown() {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let made = |name: &str, is_ca: IsCa, by: Option<&(CertificateDer<'static>, CertificateParams, KeyPair)>| {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = is_ca;
        let key = KeyPair::generate().unwrap();
        let certificate = match by {
            None => params.self_signed(&key).unwrap(),
            Some((_, above, above_key)) => params.signed_by(&key, &Issuer::from_params(above, above_key)).unwrap(),
        };
        (certificate.der().clone(), params, key)
    };
    let authority = || IsCa::Ca(BasicConstraints::Unconstrained);
    let root = made("Root", authority(), None);
    let plant = made("Plant", authority(), Some(&root));
    let line = made("Line", authority(), Some(&plant));
    let device = made("d1", IsCa::ExplicitNoCa, Some(&line));
    let group = |der: &CertificateDer<'_>, status: &str| {
        let pem = holm_identity::certificate::certificates_to_pem(std::slice::from_ref(der));
        let pair = json!({ "primary": { "certificate": pem } });
        json!({ "attestation": { "type": "x509", "x509": { "signingCertificates": pair } }, "provisioningStatus": status })
    };
    let hub = TestHub::start().await;
    hub.put("/enrollmentGroups/root", group(&root.0, "enabled")).await.ok();
    hub.put("/enrollmentGroups/plant", group(&plant.0, "disabled"))
        .await
        .ok();
    let register = async |above: [&CertificateDer<'static>; 2]| {
        let chain = [&device.0].into_iter().chain(above).cloned().collect();
        let device = Device::new(&hub, "d1", Credential::Certificate(chain));
        device.register().await.unwrap()
    };

    let in_order = register([&line.0, &plant.0]).await;
    let turned = register([&plant.0, &line.0]).await;

    for state in [in_order, turned] {
        assert_eq!(
            (&state["status"], &state["x509"]["enrollmentGroupId"]),
            (&json!("disabled"), &json!("plant"))
        );
    }
}
