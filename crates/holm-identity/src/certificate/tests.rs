//! PEM, pairs, dates.

use std::process::Command;

use super::*;
use crate::ca::CertificateAuthority;

const DAY_MILLIS: i64 = 86_400_000;

fn start() -> Timestamp {
    Timestamp::from_unix_seconds(1_800_000_000)
}

fn identity() -> TlsIdentity {
    let authority = CertificateAuthority::create("a", 365, start()).unwrap();
    authority.issue_server(&["a.test"], 100, start()).unwrap()
}

#[test]
fn a_chain_reads_back_from_its_pem_with_comments_around_it() {
    let identity = identity();
    let pem = format!("# leaf and authority\n{}\ntrailing text\n", identity.chain_pem());

    let read = certificates_from_pem(pem.as_bytes()).unwrap();

    assert_eq!(read, identity.chain());
    assert_eq!(read.len(), 2);
    assert!(pem.lines().all(|line| line.len() <= 64));
}

#[test]
fn what_is_wrong_with_a_pem_is_told_apart() {
    use InvalidCertificate as E;
    let (one, other) = (identity(), identity());
    let chain = one.chain_pem();
    let pair = |chain: &str, key: &str| TlsIdentity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err();
    let key = one.key_pem().expose();

    assert!(matches!(pair("", key), E::NoCertificate));
    assert!(matches!(pair(&chain.replace("-----END", "-----ENT"), key), E::Pem(_)));
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(pair(garbage, key), E::Der));
    assert!(matches!(pair(&chain, ""), E::NoKey));
    assert!(matches!(pair(&chain, &chain), E::NoKey));
    let garbage = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(matches!(pair(&chain, garbage), E::Key(_)));
    assert!(matches!(pair(&chain, other.key_pem().expose()), E::Mismatch));
}

#[test]
fn thumbprints_are_those_that_openssl_shows() {
    let directory = tempfile::tempdir().unwrap();
    let identity = identity();
    let path = directory.path().join("cert.pem");
    identity.store(&path, &directory.path().join("key.pem")).unwrap();
    let openssl = |hash: &str| {
        let output = Command::new("openssl")
            .args(["x509", "-noout", "-fingerprint", hash, "-in"])
            .arg(&path)
            .output()
            .expect("this test needs the `openssl` command");
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_once('=').unwrap().1.trim().replace(':', "").to_lowercase()
    };

    let info = identity.info().unwrap();

    assert_eq!((info.sha1, info.sha256), (openssl("-sha1"), openssl("-sha256")));
}

#[test]
fn renewal_is_due_at_80_percent_of_life_and_the_end_is_included() {
    let info = identity().info().unwrap();
    let at = |days: i64| start().plus_millis(days * DAY_MILLIS);

    assert!(!info.should_renew(100, at(0)) && !info.should_renew(100, at(79)));
    assert!(info.should_renew(100, at(80)) && info.should_renew(100, at(200)));
    assert!(info.is_valid_at(at(0)) && info.is_valid_at(at(100).plus_millis(999)));
    assert!(!info.is_valid_at(at(100).plus_millis(1000)));
}

#[test]
fn what_is_not_valid_yet_is_renewed() {
    let info = identity().info().unwrap();
    let early = info.not_before.plus_millis(-1);

    assert!(!info.is_valid_at(early) && info.should_renew(100, early));
    assert!(!info.should_renew(100, info.not_before));
}

#[test]
fn a_pair_is_stored_and_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let (chain, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    let identity = identity();

    identity.store(&chain, &key).unwrap();
    let loaded = TlsIdentity::load(&chain, &key).unwrap();

    assert_eq!(loaded.chain(), identity.chain());
    assert_eq!(loaded.key_pem().expose(), identity.key_pem().expose());
}
