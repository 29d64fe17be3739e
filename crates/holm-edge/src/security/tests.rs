use std::path::Path;
use std::sync::Arc;

use holm_identity::CertificateAuthority;
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
        proof: DeviceProof::Key(SymmetricKey::from_bytes(*b"0123456789abcdef").unwrap()),
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

/// Whether a client that trusts only this authority would take the certificate that is shown.
fn is_trusted(security: &Security, authority: &str, at: Timestamp) -> bool {
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::{ServerName, UnixTime};
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(certificates_from_pem(authority.as_bytes()).unwrap());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap();
    let shown = security.server_certificate().current();
    let (leaf, above) = shown.cert.split_first().unwrap();
    let at = UnixTime::since_unix_epoch(Duration::from_millis(at.unix_millis().try_into().unwrap()));
    let name = ServerName::try_from("edge.test").unwrap();
    verifier.verify_server_cert(leaf, above, &name, &[], at).is_ok()
}

#[tokio::test]
async fn a_client_that_trusts_only_the_first_authority_goes_on_while_the_next_is_told() {
    let data = tempfile::tempdir().unwrap();
    let security = Security::open(options(data.path()), now()).await.unwrap();
    let first = security.edge_ca_pem();

    let told = now().plus_millis(85 * DAY);
    assert!(security.maintain(told).unwrap());
    let both = security.trust_bundle_pem(told).unwrap();
    assert!(is_trusted(&security, &first, told));
    // A restart changes nothing of it.
    let security = Security::open(options(data.path()), told).await.unwrap();
    assert!(is_trusted(&security, &first, told));
    assert_eq!(security.trust_bundle_pem(told).unwrap(), both);
    assert_eq!(security.edge_ca_pem(), both);
    assert_eq!(certificates_from_pem(both.as_bytes()).unwrap().len(), 2);

    let changed = now().plus_millis(96 * DAY);
    assert!(security.maintain(changed).unwrap());
    assert!(!is_trusted(&security, &first, changed));
    assert!(is_trusted(&security, &both, changed), "who was told goes on");
    let second = security.edge_ca_pem();
    assert_eq!(certificates_from_pem(second.as_bytes()).unwrap().len(), 1);
    assert!(security.trust_bundle_pem(changed).unwrap().contains(first.trim()));
}

#[tokio::test]
async fn a_clock_that_was_years_ahead_costs_no_trust_once_it_is_right() {
    let data = tempfile::tempdir().unwrap();
    let first = Security::open(options(data.path()), now()).await.unwrap().edge_ca_pem();

    // It boots with a wrong clock, and a module is started meanwhile.
    let wrong = now().plus_millis(8 * 365 * DAY);
    let security = Security::open(options(data.path()), wrong).await.unwrap();
    let told_meanwhile = security.trust_bundle_pem(wrong).unwrap();
    assert!(is_trusted(&security, &security.edge_ca_pem(), wrong));
    assert!(security.maintain(now()).unwrap());

    assert_eq!(security.edge_ca_pem(), first);
    assert!(is_trusted(&security, &first, now()), "who never saw the error");
    assert!(is_trusted(&security, &told_meanwhile, now()), "who saw nothing else");
    let again = Security::open(options(data.path()), now()).await.unwrap();
    assert_eq!(again.edge_ca_pem(), first);
    assert!(!again.maintain(now()).unwrap());
    // What was made ahead of time follows in its time, and is trusted then.
    let told = now().plus_millis(85 * DAY);
    assert!(again.maintain(told).unwrap());
    let bundle = certificates_from_pem(again.trust_bundle_pem(told).unwrap().as_bytes()).unwrap();
    let each_once: std::collections::HashSet<_> = bundle.iter().collect();
    assert_eq!((each_once.len(), bundle.len()), (2, 2));
    let changed = now().plus_millis(96 * DAY);
    assert!(again.maintain(changed).unwrap());
    assert!(is_trusted(&again, &told_meanwhile, changed));
}

#[tokio::test]
async fn a_clock_that_comes_and_goes_leaves_a_handful_of_authorities_and_the_first_in_use() {
    let data = tempfile::tempdir().unwrap();
    let security = Security::open(options(data.path()), now()).await.unwrap();
    let first = security.edge_ca_pem();

    for year in [3, 8, 3, 1, 20, 8].into_iter().chain(21..30) {
        let wrong = now().plus_millis(year * 365 * DAY);
        security.maintain(wrong).unwrap();
        assert!(is_trusted(&security, &security.edge_ca_pem(), wrong), "{year}");
        assert!(security.maintain(now()).unwrap());

        assert_eq!(security.edge_ca_pem(), first, "{year}");
    }

    let files = std::fs::read_dir(data.path().join("certificates")).unwrap().count();
    assert!(files <= 2 + 2 * 6, "{files}");
}

#[tokio::test]
async fn a_clock_that_is_not_set_at_boot_brings_no_earlier_authority_back() {
    let data = tempfile::tempdir().unwrap();
    let security = Security::open(options(data.path()), now()).await.unwrap();
    assert!(security.maintain(now().plus_millis(85 * DAY)).unwrap());
    let changed = now().plus_millis(96 * DAY);
    assert!(security.maintain(changed).unwrap());
    let second = security.edge_ca_pem();

    let unset = Timestamp::from_unix_seconds(60);
    let booted = Security::open(options(data.path()), unset).await.unwrap();

    assert_eq!(booted.edge_ca_pem(), second);
    assert!(is_trusted(&booted, &second, unset));
    assert!(
        booted.maintain(changed).unwrap(),
        "the certificate that it shows was made for no time"
    );
    assert_eq!(booted.edge_ca_pem(), second);
}

#[tokio::test]
async fn a_power_cut_while_the_first_authority_comes_back_ends_with_the_first_one() {
    let wrong = now().plus_millis(8 * 365 * DAY);
    let names = ["edge-ca.pem", "edge-ca.key.pem"];
    let cuts: [&[&str]; 3] = [&[], &["edge-ca.key.pem"], &["edge-ca.key.pem", "edge-ca.pem"]];
    for done in cuts {
        let data = tempfile::tempdir().unwrap();
        let file = |name: &str| data.path().join("certificates").join(name);
        let security = Security::open(options(data.path()), now()).await.unwrap();
        let first = security.edge_ca_pem();
        let of_first = names.map(|name| std::fs::read(file(name)).unwrap());
        security.maintain(wrong).unwrap();
        let before = names.map(|name| std::fs::read(file(name)).unwrap());
        security.maintain(now()).unwrap();
        for (name, bytes) in names.iter().zip(&before) {
            if !done.contains(name) {
                private_file::write(&file(name), bytes).unwrap();
            }
        }
        private_file::write(&file("edge-ca-next.pem"), &of_first[0]).unwrap();
        private_file::write(&file("edge-ca-next.key.pem"), &of_first[1]).unwrap();

        let after = Security::open(options(data.path()), now()).await.unwrap();

        assert_eq!(after.edge_ca_pem(), first, "after {done:?}");
    }
}

#[tokio::test]
async fn a_power_cut_while_the_next_authority_takes_the_place_ends_with_the_next_one() {
    let told = now().plus_millis(85 * DAY);
    let changed = now().plus_millis(96 * DAY);
    let names = [
        "edge-ca.pem",
        "edge-ca.key.pem",
        "edge-ca-next.pem",
        "edge-ca-next.key.pem",
    ];
    // The key is replaced before the certificate; then the announcement goes, certificate first.
    let cuts: [&[&str]; 4] = [
        &[],
        &["edge-ca.key.pem"],
        &["edge-ca.key.pem", "edge-ca.pem"],
        &["edge-ca.key.pem", "edge-ca.pem", "edge-ca-next.pem"],
    ];
    for done in cuts {
        let data = tempfile::tempdir().unwrap();
        let security = Security::open(options(data.path()), now()).await.unwrap();
        assert!(security.maintain(told).unwrap());
        let file = |name: &str| data.path().join("certificates").join(name);
        let before = names.map(|name| std::fs::read(file(name)).unwrap());
        assert!(security.maintain(changed).unwrap());
        let second = security.edge_ca_pem();
        for (name, bytes) in names.iter().zip(&before) {
            if !done.contains(name) {
                private_file::write(&file(name), bytes).unwrap();
            }
        }

        let after = Security::open(options(data.path()), changed).await.unwrap();

        assert_eq!(after.edge_ca_pem(), second, "after {done:?}");
        let ends = told.plus_millis(85 * DAY);
        assert!(
            after.maintain(ends).unwrap(),
            "the one after is announced in its time: {done:?}"
        );
        assert_eq!(certificates_from_pem(after.edge_ca_pem().as_bytes()).unwrap().len(), 2);
    }
}

#[tokio::test]
async fn an_edge_that_was_off_for_longer_than_its_authority_lives_makes_another() {
    let data = tempfile::tempdir().unwrap();
    let first = Security::open(options(data.path()), now()).await.unwrap().edge_ca_pem();

    let late = now().plus_millis(300 * DAY);
    let security = Security::open(options(data.path()), late).await.unwrap();

    let second = security.edge_ca_pem();
    assert_ne!(second, first);
    assert!(is_trusted(&security, &second, late));
}

#[tokio::test]
async fn a_given_authority_that_the_operator_replaces_stays_in_the_trust_bundle_and_sessions_need_not_know() {
    let data = tempfile::tempdir().unwrap();
    let (cert, pk) = (data.path().join("ca.pem"), data.path().join("ca.key"));
    let authorities = ["first", "second"].map(|name| CertificateAuthority::create(name, 100, now()).unwrap());
    authorities[0].store(&cert, &pk).unwrap();
    let edge_ca = EdgeCa::Files {
        cert: cert.clone(),
        pk: pk.clone(),
    };
    let given = SecurityOptions {
        edge_ca,
        ..options(data.path())
    };
    let security = Security::open(given, now()).await.unwrap();

    authorities[1].store(&cert, &pk).unwrap();
    security.reload(now()).unwrap();

    let [first, second] = authorities.map(|authority| authority.certificate_pem());
    assert!(is_trusted(&security, &second, now()) && !is_trusted(&security, &first, now()));
    let bundle = security.trust_bundle_pem(now()).unwrap();
    assert!(bundle.contains(first.trim()) && bundle.contains(second.trim()));
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
        proof: DeviceProof::KeyFile(path.to_owned()),
        ..options(data.path())
    };

    let security = Security::open(with(&path), now()).await.unwrap();
    let missing = Security::open(with(&data.path().join("none")), now()).await;

    use holm_identity::Signer as _;
    let expected = SymmetricKey::from_bytes(*b"0123456789abcdef")
        .unwrap()
        .hmac_sha256(b"x");
    assert_eq!(security.device_signer().unwrap().sign(b"x").await.unwrap(), expected);
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
