use std::sync::Arc;

use holm_gateway::AuthKind;
use holm_identity::sas::resource_uri;
use holm_identity::{CertificateAuthority, SasToken, SymmetricKey};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_800_000_000;

fn identity(text: &str) -> Identity {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_unix_seconds(NOW)
}

fn hosts() -> Vec<String> {
    vec!["hub.test".to_owned(), "edge.test".to_owned()]
}

fn key(fill: u8) -> SymmetricKey {
    SymmetricKey::from_bytes(vec![fill; 32]).unwrap()
}

fn with_keys(primary: u8, secondary: u8) -> Child {
    let (primary, secondary) = (key(primary).to_base64(), key(secondary).to_base64());
    read(json!({"type": "sas", "symmetricKey": {"primaryKey": primary.expose(), "secondaryKey": secondary.expose()}}))
}

fn read(authentication: Value) -> Child {
    Child::read(&json!({"generationId": "1", "status": "enabled", "authentication": authentication})).unwrap()
}

fn disabled(mut child: Child) -> Child {
    child.enabled = false;
    child
}

fn token(of: &str, host: &str, fill: u8, expires: i64) -> Credential {
    let token = SasToken::sign(&resource_uri(host, &identity(of)), expires, None, &key(fill));
    Credential::Token(token.to_text().expose().to_owned())
}

fn children(all: impl IntoIterator<Item = (&'static str, Child)>) -> Children {
    let (children, _) = Children::new();
    children.replace(told(all));
    children
}

fn told(all: impl IntoIterator<Item = (&'static str, Child)>) -> HashMap<Identity, Child> {
    all.into_iter().map(|(name, child)| (identity(name), child)).collect()
}

fn judge(children: &Children, of: &str, credential: &Credential) -> Result<Proved, Denied> {
    children.judge(&identity(of), credential, &hosts(), now())
}

#[test]
fn either_key_and_either_name_open_the_device_and_nothing_else() {
    let children = children([
        ("leaf", with_keys(1, 2)),
        ("leaf/m", with_keys(3, 4)),
        ("other", with_keys(5, 6)),
    ]);

    for (of, host, fill) in [
        ("leaf", "hub.test", 1),
        ("leaf", "EDGE.test", 2),
        ("leaf/m", "hub.test", 3),
        ("leaf/m", "hub.test", 1),
    ] {
        let proved = judge(&children, of, &token(of, host, fill, NOW + 60)).unwrap();
        assert_eq!(
            (proved.auth, proved.expires),
            (AuthKind::Sas, Some(Timestamp::from_unix_seconds(NOW + 60)))
        );
    }
    for (of, named, host, fill, life) in [
        ("leaf", "leaf", "hub.test", 3, 60),
        ("leaf", "leaf", "elsewhere.test", 1, 60),
        ("leaf", "other", "hub.test", 1, 60),
        ("leaf", "leaf/m", "hub.test", 1, 60),
        ("leaf", "leaf", "hub.test", 1, -600),
        ("other", "leaf", "hub.test", 1, 60),
        ("absent", "absent", "hub.test", 1, 60),
    ] {
        let denied = judge(&children, of, &token(named, host, fill, NOW + life));
        assert!(denied.is_err(), "{of} {named} {host} {fill} {life}");
    }
    let policy = SasToken::sign("hub.test", NOW + 60, Some("device"), &key(1));
    let policy = Credential::Token(policy.to_text().expose().to_owned());
    assert!(judge(&children, "leaf", &policy).is_err());
}

#[test]
fn what_another_look_at_the_hub_could_mend_is_told_apart() {
    let children = children([("leaf", with_keys(1, 2))]);
    let is_stale = |of, credential: &Credential| judge(&children, of, credential).unwrap_err().may_be_stale;

    assert!(is_stale("absent", &token("absent", "hub.test", 1, NOW + 60)));
    assert!(is_stale("leaf", &token("leaf", "hub.test", 9, NOW + 60)));
    assert!(!is_stale("leaf", &token("leaf", "hub.test", 1, NOW - 600)));
    assert!(!is_stale("leaf", &Credential::Token("nonsense".to_owned())));
    assert!(!is_stale("leaf", &Credential::None));
}

#[test]
fn a_disabled_device_is_refused_and_its_modules_with_it() {
    let disabled = disabled(with_keys(1, 2));
    let children = children([("leaf", disabled), ("leaf/m", with_keys(3, 4))]);

    for (of, fill) in [("leaf", 1), ("leaf/m", 3)] {
        assert!(judge(&children, of, &token(of, "hub.test", fill, NOW + 60)).is_err());
        assert_eq!(children.grant(&identity(of)), None);
        assert!(
            children.contains(&identity(of)),
            "it is there: what it sent may be forwarded once it is enabled"
        );
    }
}

#[test]
fn certificates_open_by_thumbprint_and_by_the_operators_authority() {
    let now = Timestamp::from(std::time::SystemTime::now());
    let operators = CertificateAuthority::create("operator", 1, now).unwrap();
    let strangers = CertificateAuthority::create("stranger", 1, now).unwrap();
    let chain = |authority: &CertificateAuthority, name: &str| {
        let issued = authority.issue_client(name, &["URI:x:y"], 1, now).unwrap();
        let info = issued.info().unwrap();
        let chain: Vec<CertificateDer<'static>> = issued.certified_key().unwrap().cert.clone();
        (Credential::Certificate(Arc::from(chain)), info.sha256)
    };
    let (own, print) = chain(&strangers, "anything");
    let by_print = read(json!({"type": "selfSigned", "x509Thumbprint": {"secondaryThumbprint": print}}));
    let by_authority = read(json!({"type": "certificateAuthority"}));
    let all = [("print", by_print), ("signed", by_authority), ("keys", with_keys(1, 2))];
    let children = children(all);
    children.trust(SigningCertificate::all_of(operators.certificate_pem().as_bytes()).unwrap());
    let judge = |of: &str, credential: &Credential| children.judge(&identity(of), credential, &hosts(), now);

    assert_eq!(judge("print", &own).unwrap().auth, AuthKind::X509);
    assert!(judge("signed", &chain(&operators, "signed").0).is_ok());

    assert!(
        judge("signed", &chain(&operators, "print").0).is_err(),
        "the name of another"
    );
    assert!(
        judge("signed", &chain(&strangers, "signed").0).is_err(),
        "another authority"
    );
    assert!(
        judge("print", &chain(&operators, "print").0).is_err(),
        "another thumbprint"
    );
    assert!(judge("keys", &own).is_err(), "it has keys");
    assert!(
        judge("print", &token("print", "hub.test", 1, now.unix_seconds() + 60)).is_err(),
        "it has no keys"
    );
}

#[test]
fn a_change_of_the_proof_is_another_grant_and_no_change_is_none() {
    let children = children([("leaf", with_keys(1, 2))]);
    let (before, changes) = (children.grant(&identity("leaf")), children.changes());

    let same = children.replace(told([("leaf", with_keys(1, 2))]));
    assert!(same.is_nothing());
    assert!(!changes.has_changed().unwrap());
    assert_eq!(children.grant(&identity("leaf")), before);

    let other = children.replace(told([("leaf", with_keys(1, 3))]));
    assert_eq!(other.put, [(identity("leaf"), with_keys(1, 3))]);
    assert!(changes.has_changed().unwrap());
    assert_ne!(children.grant(&identity("leaf")), before);
}

#[test]
fn who_is_not_told_of_any_more_is_gone() {
    let all = [
        ("a", with_keys(1, 2)),
        ("a/m", with_keys(1, 2)),
        ("b", with_keys(1, 2)),
        ("b/m", with_keys(1, 2)),
    ];
    let children = children(all);

    let whole = children.replace_one(&identity("a"), None);
    let module = children.replace_one(&identity("b/m"), Some(told([("b", with_keys(1, 2))])));
    let kept = children.replace_one(&identity("b"), Some(told([("b", with_keys(1, 2))])));

    let mut removed = whole.removed;
    removed.sort();
    assert_eq!(removed, [identity("a"), identity("a/m")]);
    assert_eq!(module.removed, [identity("b/m")]);
    assert!(kept.is_nothing());
    assert_eq!(children.count(), 1);
}

#[test]
fn what_is_kept_reads_back_as_it_was() {
    let print = "ab".repeat(32);
    for child in [
        with_keys(1, 2),
        read(
            json!({"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": print, "secondaryThumbprint": null}}),
        ),
        read(json!({"type": "certificateAuthority"})),
        read(json!({"type": "none"})),
        disabled(with_keys(3, 4)),
    ] {
        assert_eq!(Child::read(&child.document()), Some(child));
    }
}

#[test]
fn the_hub_has_told_also_when_there_is_nobody() {
    let (children, _) = Children::new();
    assert!(!children.is_loaded());

    children.replace(HashMap::new());

    assert!(children.is_loaded());
}

#[test]
fn nothing_of_a_key_is_printed() {
    let shown = format!("{:?}", with_keys(7, 8));

    assert!(!shown.contains("BwcH") && !shown.contains("7, 7"), "{shown}");
}
