//! Certificates of authorities that are kept apart from enrollments, which name them (`caReferences`).

use holm_identity::certificate::certificates_to_pem;
use holm_identity::{CertificateAuthority, TlsIdentity};
use holm_model::Timestamp;
use serde_json::{Value, json};

use crate::provisioning::{Device, assert_refused};
use crate::support::{START, TestHub};

const CERTIFICATES: &str = "/holm/v1/provisioning/certificates";

fn authority(name: &str) -> CertificateAuthority {
    CertificateAuthority::create(name, 3650, Timestamp::from_unix_millis(START)).unwrap()
}

fn leaf(authority: &CertificateAuthority, name: &str) -> TlsIdentity {
    let now = Timestamp::from_unix_millis(START);
    authority.issue_client(name, &[""; 0], 365, now).unwrap()
}

fn of(authority: &CertificateAuthority) -> Value {
    json!({ "certificate": authority.certificate_pem() })
}

fn by(names: Value) -> Value {
    json!({ "attestation": { "type": "x509", "x509": { "caReferences": names } } })
}

#[tokio::test]
async fn a_certificate_counts_when_its_key_was_shown_and_devices_by_it_register() {
    let hub = TestHub::start().await;
    let (plant, stranger) = (authority("Plant"), authority("Plant"));
    let path = format!("{CERTIFICATES}/Plant-1");
    let made = hub.put(&path, of(&plant)).await.ok();
    let group = by(json!({ "primary": "plant-1" }));

    let too_early = hub.put("/enrollmentGroups/g", group.clone()).await;
    let without_code = hub.post(&format!("{path}/verify"), of(&plant)).await;
    let code = hub.post(&format!("{path}/code"), json!({})).await.ok();
    let code = code["verificationCode"].as_str().unwrap();
    let proof = |authority: &CertificateAuthority, name: &str| {
        let pem = certificates_to_pem(&leaf(authority, name).chain()[..1]);
        json!({ "certificate": pem })
    };
    let verify = format!("{path}/verify");
    let other_key = hub.post(&verify, proof(&stranger, code)).await;
    let other_name = hub.post(&verify, proof(&plant, "x")).await;
    let verified = hub.post(&verify, proof(&plant, code)).await.ok();
    let enrolled = hub.put("/enrollmentGroups/g", group).await.ok();
    hub.put("/enrollments/own", by(json!({ "primary": "Plant-1" })))
        .await
        .ok();
    let device = Device::with_certificate(&hub, "d1", &leaf(&plant, "d1"))
        .register()
        .await
        .unwrap();
    let single = Device::with_certificate(&hub, "own", &leaf(&plant, "own"))
        .register()
        .await
        .unwrap();
    let refused = Device::with_certificate(&hub, "d2", &leaf(&stranger, "d2"))
        .register()
        .await;

    assert_eq!(
        (&made["isVerified"], &verified["isVerified"]),
        (&json!(false), &json!(true))
    );
    for refused in [too_early, without_code, other_key, other_name] {
        assert_refused(&refused, 400_004);
    }
    assert_eq!(
        enrolled["attestation"]["x509"]["caReferences"],
        json!({ "primary": "plant-1" })
    );
    assert_eq!(device["x509"]["enrollmentGroupId"], "g");
    assert_eq!(
        (&single["status"], Device::refused(refused)),
        (&json!("assigned"), 401_002)
    );

    // It outlives a restart, and counts for nobody when it is gone.
    let hub = hub.restart().await;
    Device::with_certificate(&hub, "d3", &leaf(&plant, "d3"))
        .register()
        .await
        .unwrap();
    assert_eq!(hub.delete(&path).await.status, 204);
    let gone = Device::with_certificate(&hub, "d3", &leaf(&plant, "d3"))
        .register()
        .await;
    assert_eq!(Device::refused(gone), 401_002);
    assert_refused(&hub.get(&path).await, 404_201);
}

#[tokio::test]
async fn devices_roll_over_to_the_second_certificate_and_a_changed_one_is_verified_anew() {
    let hub = TestHub::start().await;
    let (old, new) = (authority("Old"), authority("New"));
    for (name, authority) in [("old", &old), ("new", &new)] {
        let mut document = of(authority);
        document["isVerified"] = json!(true);
        hub.put(&format!("{CERTIFICATES}/{name}"), document).await.ok();
    }
    hub.put(
        "/enrollmentGroups/g",
        by(json!({ "primary": "old", "secondary": "new" })),
    )
    .await
    .ok();

    Device::with_certificate(&hub, "d1", &leaf(&old, "d1"))
        .register()
        .await
        .unwrap();
    Device::with_certificate(&hub, "d1", &leaf(&new, "d1"))
        .register()
        .await
        .unwrap();
    let listed = hub.get(CERTIFICATES).await.ok();
    let again = hub.put(&format!("{CERTIFICATES}/OLD"), of(&new)).await;
    let changed = hub
        .update(&format!("{CERTIFICATES}/old"), "*", of(&authority("Other")))
        .await
        .ok();
    let no_authority = json!({ "certificate": certificates_to_pem(&leaf(&old, "x").chain()[..1]) });
    let no_authority = hub.put(&format!("{CERTIFICATES}/leaf"), no_authority).await;
    let by_old = Device::with_certificate(&hub, "d1", &leaf(&old, "d1")).register().await;

    assert_eq!(listed.as_array().map(Vec::len), Some(2));
    assert_refused(&again, 409_201);
    assert_refused(&no_authority, 400_004);
    assert_refused(&hub.put(&format!("{CERTIFICATES}/a%20b"), of(&old)).await, 400_004);
    assert_eq!(
        (&changed["isVerified"], Device::refused(by_old)),
        (&json!(false), 401_002)
    );
}
