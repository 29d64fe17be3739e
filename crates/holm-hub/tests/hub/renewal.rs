//! Devices that have their certificate renewed by their hub: `hub-device-protocols.md` §5.7, hub renewal.

use std::sync::Arc;

use holm_gateway::{Admission, Credential, Credentials};
use holm_identity::ca::request::SigningRequest;
use holm_identity::{CertificateAuthority, CertificateDetails};
use holm_model::{ErrorCode, Timestamp};
use rustls::pki_types::CertificateDer;
use serde_json::json;

use crate::issuance::{chain, is_let_in, issuing, register, request};
use crate::provisioning::{Device, keys, symmetric, with};
use crate::support::{START, TestHub};

type Chain = Vec<CertificateDer<'static>>;

/// A device `r1` that has registered with a request, and its certificate.
async fn registered(hub: &TestHub) -> Chain {
    hub.put("/enrollments/r1", issuing()).await.ok();
    let device = Device::with_key(hub, "r1", &keys(hub, "/enrollments/r1").await.0);
    chain(&register(&device, json!({ "csr": request("r1") })).await)
}

async fn session(hub: &TestHub, device: &str, chain: &[CertificateDer<'static>]) -> Admission {
    let credential = Credential::Certificate(Arc::from(chain));
    hub.authenticate(device, credential).await.unwrap()
}

async fn renew(hub: &TestHub, of: &Admission) -> Result<Chain, ErrorCode> {
    let backend = hub.hub.backend();
    backend.may_have_certificate(of).await.map_err(|error| error.code)?;
    let asked = SigningRequest::from_text(&request("r1")).unwrap();
    backend.issue_certificate(of, asked).await.map_err(|error| error.code)
}

#[tokio::test]
async fn a_renewed_certificate_opens_the_hub_beside_the_one_that_was_shown() {
    let hub = TestHub::start_with(|config| config.issued_certificate_days = 30).await;
    let first = registered(&hub).await;
    hub.turn_clock(86_400);

    let second = renew(&hub, &session(&hub, "r1", &first).await).await.unwrap();
    let after_second = (
        is_let_in(&hub, "r1", &first).await,
        is_let_in(&hub, "r1", &second).await,
    );
    // The answer with the third is lost: the device goes on by the second, and asks again.
    let lost = renew(&hub, &session(&hub, "r1", &second).await).await.unwrap();
    let third = renew(&hub, &session(&hub, "r1", &second).await).await.unwrap();

    let details = CertificateDetails::read(&second[0]).unwrap();
    assert_eq!(details.info.subject_common_name.as_deref(), Some("r1"));
    assert_eq!(details.info.not_after.unix_seconds() - hub.now_seconds(), 30 * 86_400);
    assert_eq!((second.len(), &second[1..]), (2, &first[1..]));
    assert_eq!(after_second, (true, true));
    assert!(!is_let_in(&hub, "r1", &first).await && !is_let_in(&hub, "r1", &lost).await);
    let audit = hub.get("/holm/v1/audit?target=r1").await.ok();
    let renewals = audit.as_array().unwrap().iter();
    let renewals =
        renewals.filter(|record| record["operation"] == "device.certificate" && record["actor"] == "device:r1");
    assert_eq!(renewals.count(), 3);
    let restarted = hub.restart().await;
    assert!(is_let_in(&restarted, "r1", &second).await && is_let_in(&restarted, "r1", &third).await);
}

#[tokio::test]
async fn a_session_whose_certificate_is_known_no_more_gets_no_other() {
    let hub = TestHub::start().await;
    let first = registered(&hub).await;
    let stale = session(&hub, "r1", &first).await;
    let second = renew(&hub, &stale).await.unwrap();
    renew(&hub, &session(&hub, "r1", &second).await).await.unwrap();

    let refused = renew(&hub, &stale).await;

    assert_eq!(refused, Err(ErrorCode::CertificateNotIssued));
}

#[tokio::test]
async fn who_has_no_enrollment_that_issues_certificates_gets_none() {
    let hub = TestHub::start().await;
    let first = registered(&hub).await;
    let of = session(&hub, "r1", &first).await;
    let backend = hub.hub.backend();
    let may = async |of: &Admission| backend.may_have_certificate(of).await.map_err(|error| error.code);
    let authority = CertificateAuthority::create("Plant", 30, Timestamp::from_unix_millis(START)).unwrap();
    let own = authority
        .issue_client("own", &[""; 0], 30, Timestamp::from_unix_millis(START))
        .unwrap();
    let thumbprint = json!({ "primaryThumbprint": own.info().unwrap().sha256 });
    let authentication = json!({ "type": "selfSigned", "x509Thumbprint": thumbprint });
    hub.put(
        "/devices/own",
        json!({ "deviceId": "own", "authentication": authentication }),
    )
    .await
    .ok();
    hub.device("plain").await;
    let token = hub.device_token("plain").await;

    let of_own = session(&hub, "own", own.chain()).await;
    let of_plain = hub.authenticate("plain", Credential::Token(token)).await.unwrap();
    let before = [may(&of).await, may(&of_own).await, may(&of_plain).await];
    let mut after = Vec::new();
    for enrollment in [
        with(issuing(), &json!({ "provisioningStatus": "disabled" })),
        symmetric(),
        issuing(),
    ] {
        hub.update("/enrollments/r1", "*", enrollment).await.ok();
        after.push(may(&of).await);
    }
    hub.update("/devices/r1", "*", json!({ "status": "disabled" }))
        .await
        .ok();
    after.push(may(&of).await);

    let refused = Err(ErrorCode::CertificateNotIssued);
    assert_eq!(before, [Ok(()), refused, refused]);
    assert_eq!(after, [refused, refused, Ok(()), refused]);
}

#[tokio::test]
async fn a_device_that_was_made_anew_by_hand_gets_none_by_what_was_registered_before() {
    let hub = TestHub::start().await;
    let first = registered(&hub).await;
    let made = hub.get("/devices/r1").await.ok();
    hub.delete("/devices/r1").await;
    let document = json!({ "deviceId": "r1", "authentication": made["authentication"] });
    hub.put("/devices/r1", document).await.ok();

    let by_hand = renew(&hub, &session(&hub, "r1", &first).await).await;

    assert_eq!(by_hand, Err(ErrorCode::CertificateNotIssued));
}

#[tokio::test]
async fn a_device_that_asks_for_certificates_in_a_loop_is_told_when_to_come_again() {
    let hub = TestHub::start().await;
    let first = registered(&hub).await;
    let of = session(&hub, "r1", &first).await;
    let backend = hub.hub.backend();

    let mut granted = 0;
    let refused = loop {
        match backend.may_have_certificate(&of).await {
            Ok(()) => granted += 1,
            Err(refused) => break refused,
        }
        assert!(granted < 1000, "there is no end of it");
    };

    assert!(granted >= 10, "only {granted}");
    assert_eq!(
        (refused.code, refused.code.number()),
        (ErrorCode::ThrottleBacklogLimitExceeded, Some(429_002))
    );
    assert!(
        refused.message.contains("`r1`") && refused.message.contains("again in"),
        "{refused}"
    );
}
