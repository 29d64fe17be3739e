//! What is issued, how it is kept, and what strict checkers say of it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::*;
use crate::private_file::PrivateFileError;
use crate::tls::tests::now;

const DAY: i64 = 86_400;

fn authority() -> CertificateAuthority {
    CertificateAuthority::create("holm test authority", 30, now()).unwrap()
}

#[test]
fn dates_begin_long_before_and_never_pass_the_authoritys_end() {
    let now = Timestamp::from_unix_seconds(1_800_000_000);
    let authority = CertificateAuthority::create("a", 30, now).unwrap();

    let short = authority.issue_server(&["a.test"], 7, now).unwrap().info().unwrap();
    let long = authority.issue_server(&["a.test"], 365, now).unwrap().info().unwrap();

    assert_eq!(short.not_before.unix_seconds(), 1_800_000_000 - 400 * DAY);
    assert_eq!(authority.info().not_before.unix_seconds(), 0);
    assert_eq!(short.not_after.unix_seconds(), 1_800_000_000 + 7 * DAY);
    assert_eq!(long.not_after, authority.info().not_after);
    assert_eq!(short.subject_common_name.as_deref(), Some("a.test"));
    assert!(!short.is_authority && authority.info().is_authority);
}

#[test]
fn what_is_made_before_the_clock_was_set_is_good_when_it_is() {
    let unset = Timestamp::from_unix_seconds(100);
    let authority = CertificateAuthority::create("a", 3650, unset).unwrap();

    let leaf = authority.issue_server(&["a.test"], 30, unset).unwrap().info().unwrap();

    assert!(leaf.is_valid_at(unset) && authority.info().is_valid_at(unset));
    assert_eq!(leaf.not_after, EARLIEST.plus_millis(30 * DAY * 1000));
    assert_eq!(authority.info().not_after, EARLIEST.plus_millis(3650 * DAY * 1000));
}

#[test]
fn an_authority_that_has_ended_issues_nothing() {
    let now = Timestamp::from_unix_seconds(1_800_000_000);
    let authority = CertificateAuthority::create("a", 1, now).unwrap();

    let refused = authority
        .issue_server(&["a.test"], 1, now.plus_millis(2 * DAY * 1000))
        .unwrap_err();

    assert!(matches!(refused, AuthorityError::Ended(_)), "{refused}");
}

#[test]
fn a_stored_authority_is_found_again_and_its_key_is_private() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (directory.path().join("ca.pem"), directory.path().join("ca.key"));
    let open = || CertificateAuthority::load_or_create(&certificate, &key, "a", 30, now());

    let first = open().unwrap();
    let second = open().unwrap();

    assert_eq!(first.chain(), second.chain());
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&key), mode(&certificate)), (0o600, 0o644));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(
        open().unwrap_err(),
        AuthorityError::Certificate(InvalidCertificate::File(PrivateFileError::TooOpen { .. }))
    ));
    fs::remove_file(&key).unwrap();
    assert!(open().is_err(), "a new authority was made over the old one");
}

#[test]
fn another_key_or_a_leaf_make_no_authority() {
    let (one, other) = (authority(), authority());
    let leaf = one.issue_server(&["a.test"], 1, now()).unwrap();

    let mixed = CertificateAuthority::from_pem(
        one.certificate_pem().as_bytes(),
        other.identity.key_pem().expose().as_bytes(),
    );
    let of_leaf = CertificateAuthority::from_pem(leaf.chain_pem().as_bytes(), leaf.key_pem().expose().as_bytes());

    assert!(matches!(
        mixed.unwrap_err(),
        AuthorityError::Certificate(InvalidCertificate::Mismatch)
    ));
    assert!(matches!(of_leaf.unwrap_err(), AuthorityError::NotAnAuthority));
}

#[test]
fn names_that_are_none_are_refused() {
    let authority = authority();

    for bad in ["", "a b", "a/b", "größe", &"x".repeat(254)] {
        let refused = authority.issue_server(&["a.test", bad], 1, now()).unwrap_err();
        assert!(
            matches!(&refused, AuthorityError::Name(name) if name == bad),
            "{refused}"
        );
    }
    assert!(matches!(
        authority.issue_server(&[""; 0], 1, now()).unwrap_err(),
        AuthorityError::NoNames
    ));
}

#[test]
fn strict_checking_finds_no_fault() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let authority = authority();
    authority.store(&path("ca.pem"), &path("ca.key")).unwrap();
    let names = ["edge.test", "localhost", "127.0.0.2", "::1", "edge.test"];
    let server = authority.issue_server(&names, 7, now()).unwrap();
    let client = authority
        .issue_client("dev1", &["azureiot://hub.test/devices/dev1"], 7, now())
        .unwrap();
    server.store(&path("server.pem"), &path("server.key")).unwrap();
    client.store(&path("client.pem"), &path("client.key")).unwrap();
    let verify = |arguments: &[&str]| {
        Command::new("openssl")
            .args(["verify", "-x509_strict", "-CAfile", "ca.pem"])
            .args(arguments)
            .current_dir(directory.path())
            .output()
            .expect("this test needs the `openssl` command")
    };

    for accepted in [
        ["-purpose", "sslserver", "-verify_hostname", "edge.test", "server.pem"],
        ["-purpose", "sslserver", "-verify_hostname", "localhost", "server.pem"],
        ["-purpose", "sslserver", "-verify_ip", "127.0.0.2", "server.pem"],
        ["-purpose", "sslserver", "-verify_ip", "::1", "server.pem"],
        ["-purpose", "sslclient", "-verify_depth", "1", "client.pem"],
    ] {
        let output = verify(&accepted);
        assert!(
            output.status.success(),
            "{accepted:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    assert!(
        !verify(&["-verify_hostname", "other.test", "server.pem"])
            .status
            .success()
    );
    assert!(!verify(&["-purpose", "sslserver", "client.pem"]).status.success());
}

#[test]
fn an_authority_shows_no_key() {
    let authority = authority();
    let leaf = authority.issue_server(&["a.test"], 1, now()).unwrap();
    let secret = |identity: &TlsIdentity| identity.key_pem().expose().lines().nth(1).unwrap().to_owned();

    let shown = format!("{authority:?} {leaf:?} {:?}", authority.identity);

    assert!(!shown.contains(&secret(&leaf)) && !shown.contains(&secret(&authority.identity)));
    assert!(!shown.contains("PRIVATE KEY"), "{shown}");
}
