use std::path::Path;
use std::sync::Arc;

use holm_identity::certificate::{CertificateInfo, certificates_from_pem};
use holm_model::ModuleId;

use super::*;

const DAY: i64 = 86_400_000;

fn now() -> Timestamp {
    Timestamp::from_unix_seconds(1_800_000_000)
}

fn options(data: &Path) -> SecurityOptions {
    SecurityOptions {
        data: data.to_owned(),
        device: DeviceId::new("dev1").unwrap(),
        hub_host: "hub.test".to_owned(),
        device_key: DeviceKey::Given(SymmetricKey::from_bytes(*b"0123456789abcdef").unwrap()),
        edge_ca: EdgeCa::QuickStart { days: 100 },
        trust_bundle_cert: None,
        system_roots: None,
        names: vec!["edge.test".to_owned(), "127.0.0.2".to_owned()],
    }
}

fn shown(security: &Security) -> CertificateInfo {
    CertificateInfo::read(&security.server_certificate().current().cert[0]).unwrap()
}

#[tokio::test]
async fn a_restart_keeps_the_authority_and_every_key() {
    let data = tempfile::tempdir().unwrap();
    let first = Security::open(options(data.path()), now()).await.unwrap();
    let module = ModuleId::new("m").unwrap();
    let secret = first.encrypt(&module, "1", b"iv", b"text").await.unwrap();

    let second = Security::open(options(data.path()), now()).await.unwrap();

    assert_eq!(first.edge_ca_pem(), second.edge_ca_pem());
    assert_eq!(*second.decrypt(&module, "1", b"iv", &secret).await.unwrap(), b"text");
    assert!(second.decrypt(&module, "2", b"iv", &secret).await.is_err());
    assert_ne!(shown(&first).sha256, shown(&second).sha256);
}

#[tokio::test]
async fn the_server_certificate_is_replaced_when_its_names_change_or_its_time_comes() {
    let data = tempfile::tempdir().unwrap();
    let security = Security::open(options(data.path()), now()).await.unwrap();
    let first = shown(&security);
    let shared = Arc::clone(security.server_certificate());

    security.set_names(security.names(), now()).unwrap();
    assert_eq!(shown(&security), first);
    security
        .set_names(vec!["edge.test".to_owned(), "172.18.0.1".to_owned()], now())
        .unwrap();
    let second = shown(&security);
    assert_ne!(first, second);

    assert!(!security.maintain(now().plus_millis(20 * DAY)).unwrap());
    assert!(security.maintain(now().plus_millis(25 * DAY)).unwrap());
    assert_ne!(shown(&security), second);
    assert_eq!(
        CertificateInfo::read(&shared.current().cert[0]).unwrap(),
        shown(&security)
    );
}

#[tokio::test]
async fn a_certificate_of_a_time_to_come_is_replaced_when_the_clock_was_set_back() {
    let data = tempfile::tempdir().unwrap();
    let ahead = now().plus_millis(90 * DAY);
    let security = Security::open(options(data.path()), ahead).await.unwrap();
    assert!(!security.maintain(ahead).unwrap());

    let is_replaced = security.maintain(now()).unwrap();

    assert!(is_replaced && shown(&security).not_before <= now());
    assert!(!security.maintain(now()).unwrap(), "once");
}

#[tokio::test]
async fn an_authority_of_our_own_is_replaced_in_time_and_the_old_one_trusted_until_its_end() {
    let data = tempfile::tempdir().unwrap();
    let security = Security::open(options(data.path()), now()).await.unwrap();
    let old = security.edge_ca_pem();

    let later = now().plus_millis(85 * DAY);
    security.maintain(later).unwrap();

    assert_ne!(security.edge_ca_pem(), old);
    let bundle = security.trust_bundle_pem(later).unwrap();
    assert!(bundle.contains(old.trim()));
    assert_eq!(certificates_from_pem(bundle.as_bytes()).unwrap().len(), 2);
    let after_its_end = security.trust_bundle_pem(now().plus_millis(101 * DAY)).unwrap();
    assert!(!after_its_end.contains(old.trim()));
}

#[tokio::test]
async fn the_operators_roots_are_in_the_trust_bundle_and_trusted_above() {
    let data = tempfile::tempdir().unwrap();
    let hub = CertificateAuthority::create("hub CA", 100, now()).unwrap();
    let path = data.path().join("roots.pem");
    std::fs::write(&path, hub.certificate_pem()).unwrap();
    let options = SecurityOptions {
        trust_bundle_cert: Some(path),
        system_roots: Some(data.path().join("none.pem")),
        ..options(data.path())
    };

    let security = Security::open(options, now()).await.unwrap();

    assert!(
        security
            .trust_bundle_pem(now())
            .unwrap()
            .contains(hub.certificate_pem().trim())
    );
    assert!(security.upstream_tls().is_ok());
}

#[tokio::test]
async fn nobody_to_trust_above_is_an_error_that_says_so() {
    let data = tempfile::tempdir().unwrap();
    let options = SecurityOptions {
        system_roots: Some(data.path().join("none.pem")),
        ..options(data.path())
    };

    let error = Security::open(options, now())
        .await
        .unwrap()
        .upstream_tls()
        .unwrap_err();

    assert!(error_chain(&error).contains("none.pem"), "{}", error_chain(&error));
}

#[tokio::test]
async fn a_given_authority_is_used_and_never_replaced() {
    let data = tempfile::tempdir().unwrap();
    let given = CertificateAuthority::create("plant CA", 10, now()).unwrap();
    let (cert, pk) = (data.path().join("ca.pem"), data.path().join("ca.key"));
    given.store(&cert, &pk).unwrap();
    let options = SecurityOptions {
        edge_ca: EdgeCa::Files { cert, pk },
        ..options(data.path())
    };

    let security = Security::open(options, now()).await.unwrap();
    security.maintain(now().plus_millis(9 * DAY)).unwrap();

    assert_eq!(security.edge_ca_pem(), given.certificate_pem());
    assert!(!data.path().join("certificates/edge-ca.pem").exists());
}

#[tokio::test]
async fn the_devices_key_may_be_in_a_private_file() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("device.key");
    private_file::write(&path, b"MDEyMzQ1Njc4OWFiY2RlZg==\n").unwrap();
    let with = |path: &Path| SecurityOptions {
        device_key: DeviceKey::File(path.to_owned()),
        ..options(data.path())
    };

    let security = Security::open(with(&path), now()).await.unwrap();
    let missing = Security::open(with(&data.path().join("none")), now()).await;

    use holm_identity::Signer as _;
    let expected = SymmetricKey::from_bytes(*b"0123456789abcdef")
        .unwrap()
        .hmac_sha256(b"x");
    assert_eq!(security.device_signer().sign(b"x").await.unwrap(), expected);
    assert!(matches!(missing, Err(SecurityError::DeviceKeyFile(_))));
}

#[tokio::test]
async fn certificates_of_modules_come_from_the_edges_authority() {
    let data = tempfile::tempdir().unwrap();
    let security = Security::open(options(data.path()), now()).await.unwrap();
    let module = ModuleId::new("$edgeHub").unwrap();

    let server = security.issue_module_server(&module, "10.0.0.1", now()).unwrap();
    let client = security.issue_module_identity(&module, now()).unwrap();

    assert!(server.chain_pem().contains(security.edge_ca_pem().trim()));
    assert_eq!(client.info().unwrap().subject_common_name.as_deref(), Some("$edgeHub"));
    assert!(security.issue_module_server(&module, "no name", now()).is_err());
}
