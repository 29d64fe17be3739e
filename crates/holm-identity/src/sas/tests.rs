//! The published vectors, the forms that real SDKs write, and the refusals.

use holm_model::{DeviceId, ModuleId};

use super::*;

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const EXPIRY: i64 = 1_800_000_000;

fn key() -> SymmetricKey {
    SymmetricKey::from_base64(KEY).unwrap()
}

fn other_key() -> SymmetricKey {
    SymmetricKey::from_bytes([9; 32]).unwrap()
}

fn identity(text: &str) -> Identity {
    text.parse().unwrap()
}

/// A token with a scope as some client writes it, signed over exactly that text.
fn token_with_raw_scope(raw: &str) -> SasToken {
    let signature = STANDARD.encode(key().hmac_sha256(format!("{raw}\n{EXPIRY}").as_bytes()));
    let text = format!(
        "SharedAccessSignature sr={raw}&sig={}&se={EXPIRY}",
        percent::encode(&signature)
    );
    SasToken::parse(&text).unwrap()
}

fn at(seconds_after_expiry: i64) -> Timestamp {
    Timestamp::from_unix_seconds(EXPIRY + seconds_after_expiry)
}

#[test]
fn the_published_vectors_verify_in_every_encoding() {
    let vectors = [
        (
            "hub.test%2Fdevices%2Fdev1",
            "+iU2uQm/vPNxOu/8K0Et/5+p3UpY6H3fFIQGUKN/MKA=",
            "dev1",
        ),
        (
            "hub.test/devices/dev1",
            "yquI4TCdncuZXUSUHvLlYGcJ/buTYKhtPXmK55w0Mp0=",
            "dev1",
        ),
        (
            "hub.test%2Fdevices%2Fdev1%2Fmodules%2FmodA",
            "Wzheq/nV4Rf65qRX77F8VzNvLzIB3UyrIW272ATDxfU=",
            "dev1/modA",
        ),
        ("hub.test", "27g7Sxoc+ofpk5R8q41l96pgp2vQLpMDZ2gakzLAZYI=", "anything"),
        (
            "hub.test%2fdevices%2fdev1%2fmodules%2f%2524edgeAgent",
            "/5GS5uzUUMPO8GBi8HBig+1UU37O6UgjSxJc8qDQD2A=",
            "dev1/$edgeAgent",
        ),
    ];

    for (scope, signature, opens) in vectors {
        for sent in [
            percent::encode(signature),
            percent::encode(signature).to_lowercase_hex(),
            signature.replace('+', "%2B"),
            signature.to_owned(),
        ] {
            let token = SasToken::parse(&format!("SharedAccessSignature sr={scope}&sig={sent}&se=1800000000")).unwrap();
            assert!(token.verify(&key()), "{scope} {sent}");
            assert!(!token.verify(&other_key()), "{scope}");
            assert!(token.covers(&["other.test", "HUB.test"], &identity(opens)), "{scope}");
        }
    }
}

trait LowercaseHex {
    fn to_lowercase_hex(&self) -> String;
}

impl LowercaseHex for String {
    fn to_lowercase_hex(&self) -> String {
        self.replace("%2F", "%2f").replace("%2B", "%2b").replace("%3D", "%3d")
    }
}

#[test]
fn fields_stand_in_any_order_with_empty_and_unknown_ones() {
    let sig = "yquI4TCdncuZXUSUHvLlYGcJ%2FbuTYKhtPXmK55w0Mp0%3D";
    for text in [
        format!("SharedAccessSignature sr=hub.test/devices/dev1&sig={sig}&se=1800000000"),
        format!("SharedAccessSignature sig={sig}&se=1800000000&sr=hub.test/devices/dev1&skn="),
        format!("SharedAccessSignature new=1&sr=hub.test/devices/dev1&sig={sig}&skn=&se=1800000000&flag"),
    ] {
        let token = SasToken::parse(&text).unwrap();

        assert!(token.verify(&key()));
        assert_eq!(token.policy(), None);
        assert_eq!(token.expiry_seconds(), EXPIRY);
    }
}

#[test]
fn a_service_token_names_its_policy_and_opens_paths_below_its_scope() {
    let node_style = token_with_raw_scope("hub.test");
    let python_style = SasToken::sign("hub.test", EXPIRY, Some("iothub owner"), &key());
    let sent = python_style.to_text().expose().replace("%2F", "/").replace("%20", "+");

    let received = SasToken::parse(&sent).unwrap();

    assert!(received.verify(&key()));
    assert_eq!(received.policy(), Some("iothub owner"));
    for token in [&node_style, &received] {
        assert_eq!(token.resource().scope, Scope::Host);
        assert!(token.resource().covers_path(&["Hub.Test"], "twins/dev1"));
    }
}

#[test]
fn a_path_is_opened_by_whole_segments() {
    let devices = token_with_raw_scope("hub.test%2Fdevices").resource();
    let events = token_with_raw_scope("sb%3A%2F%2Fhub.test%2Feh%2FConsumerGroups%2F").resource();

    assert!(devices.covers_path(&["hub.test"], "devices"));
    assert!(devices.covers_path(&["hub.test"], "devices/dev1"));
    assert!(!devices.covers_path(&["hub.test"], "devicesx"));
    assert!(!devices.covers_path(&["hub.test"], "twins/dev1"));
    assert_eq!(events.scope, Scope::Other("eh/ConsumerGroups".to_owned()));
    assert!(events.covers_path(&["hub.test"], "eh/ConsumerGroups/cg/Partitions/0"));
    assert!(!events.covers_path(&["hub.test"], "eh"));
}

#[test]
fn scopes_are_read_whatever_their_encoding() {
    let device = |id| Scope::Device(DeviceId::new(id).unwrap());
    for (raw, scope) in [
        ("hub.test", Scope::Host),
        ("hub.test%2F", Scope::Host),
        ("hub.test/devices", Scope::AllDevices),
        ("hub.test%2Fdevices%2Fdev1%2Fapi-version%3D2016-11-14", device("dev1")),
        ("hub.test%2Fdevices%2Fdev1%3Fapi-version%3D2016-11-14", device("dev1")),
        ("hub.test/devices/dev1?api-version=2016-11-14", device("dev1")),
        ("hub.test%2fdevices%2fa%252bb", device("a+b")),
        ("hub.test/devices/a+b", device("a+b")),
        ("hub.test%2Fdevices%2Fa%3Fb", device("a?b")),
        (
            "scope1%2Fregistrations%2Freg1",
            Scope::Other("registrations/reg1".to_owned()),
        ),
        (
            "hub.test/devices/dev1/modules",
            Scope::Other("devices/dev1/modules".to_owned()),
        ),
        (
            "hub.test%2Fdevices%2Fgr%C3%B6%C3%9Fe",
            Scope::Other("devices/größe".to_owned()),
        ),
    ] {
        assert_eq!(token_with_raw_scope(raw).resource().scope, scope, "{raw}");
    }
}

#[test]
fn an_id_that_holds_a_percent_sign_is_found_encoded_or_not() {
    let id = identity("a%41b");

    assert!(token_with_raw_scope("hub.test/devices/a%41b").covers(&["hub.test"], &id));
    assert!(token_with_raw_scope("hub.test%2Fdevices%2Fa%2541b").covers(&["hub.test"], &id));
}

#[test]
fn a_token_opens_no_other_identity_and_no_other_host() {
    let device = token_with_raw_scope("hub.test%2Fdevices%2Fdev1");
    let module = token_with_raw_scope("hub.test%2Fdevices%2Fdev1%2Fmodules%2FmodA");

    assert!(device.covers(&["hub.test"], &identity("dev1")));
    for other in ["dev10", "dev", "Dev1", "dev2", "dev1/modA"] {
        assert!(!device.covers(&["hub.test"], &identity(other)), "{other}");
    }
    for other in ["dev1", "dev1/moda", "dev1/modB", "dev2/modA"] {
        assert!(!module.covers(&["hub.test"], &identity(other)), "{other}");
    }
    assert!(!device.covers(&["hub.test.evil", "ub.test"], &identity("dev1")));
    assert!(!device.covers(&[""; 0], &identity("dev1")));
}

#[test]
fn one_changed_character_of_scope_end_or_signature_fails() {
    let text = SasToken::sign("hub.test/devices/dev1", EXPIRY, None, &key())
        .to_text()
        .expose()
        .to_owned();
    assert!(SasToken::parse(&text).unwrap().verify(&key()));

    for changed in [
        text.replace("dev1", "dev2"),
        text.replace("%2F", "%2f"),
        text.replace("1800000000", "1800000001"),
        text.replace("sig=%2B", "sig=%2F"),
    ] {
        assert_ne!(changed, text);
        assert!(
            SasToken::parse(&changed).is_ok_and(|token| !token.verify(&key())),
            "{changed}"
        );
    }
}

#[test]
fn a_token_is_honoured_for_300_seconds_after_its_end() {
    let token = SasToken::sign("hub.test", EXPIRY, None, &key());

    assert!(!token.is_expired(at(-10_000_000)));
    assert!(!token.is_expired(at(200)));
    assert!(!token.is_expired(at(300)));
    assert!(token.is_expired(at(301)));
    assert!(token.is_expired(at(400)));
    assert_eq!(token.honoured_until(), at(300));
}

#[test]
fn the_end_may_have_a_fraction_or_lie_beyond_all_time_but_must_be_a_number() {
    let with_end = |end: &str| {
        let signature = STANDARD.encode(key().hmac_sha256(format!("hub.test\n{end}").as_bytes()));
        SasToken::parse(&format!("SharedAccessSignature sr=hub.test&sig={signature}&se={end}"))
    };

    let fraction = with_end("1800000000.987").unwrap();
    assert_eq!(fraction.expiry_seconds(), EXPIRY);
    assert!(fraction.verify(&key()));
    let far = with_end("99999999999999999999999").unwrap();
    assert!(!far.is_expired(Timestamp::from_unix_millis(i64::MAX).plus_millis(-1)));
    for bad in ["", "-1", "1e9", "tomorrow", "1.2.3", "+1", "%31", ".5"] {
        assert_eq!(with_end(bad), Err(InvalidToken::Expiry), "{bad}");
    }
}

#[test]
fn what_is_missing_repeated_or_broken_is_named() {
    let sig = percent::encode(&STANDARD.encode([0; 32]));
    let long = format!("SharedAccessSignature sr={}", "x".repeat(MAX_TOKEN_BYTES));
    for (text, error) in [
        ("", InvalidToken::Scheme),
        ("Bearer sr=a", InvalidToken::Scheme),
        ("SharedAccessSignature", InvalidToken::Scheme),
        (
            &format!("SharedAccessSignature sig={sig}&se=1"),
            InvalidToken::Missing("sr"),
        ),
        (
            &format!("SharedAccessSignature sr=&sig={sig}&se=1"),
            InvalidToken::Missing("sr"),
        ),
        ("SharedAccessSignature sr=a&se=1", InvalidToken::Missing("sig")),
        (
            &format!("SharedAccessSignature sr=a&sig={sig}"),
            InvalidToken::Missing("se"),
        ),
        ("SharedAccessSignature sr=a&sr=b", InvalidToken::Repeated("sr")),
        ("SharedAccessSignature sr=a&sig=AAAA&se=1", InvalidToken::Signature),
        ("SharedAccessSignature sr=a&sig=%ff&se=1", InvalidToken::Signature),
        (
            &format!("SharedAccessSignature sr=a&sig={sig}&se=1&skn=%ff"),
            InvalidToken::Policy,
        ),
        (&long, InvalidToken::TooLong(long.len())),
    ] {
        assert_eq!(SasToken::parse(text), Err(error), "{text}");
    }
}

#[test]
fn a_token_shows_neither_signature_nor_key() {
    let token = SasToken::sign("hub.test/devices/dev1", EXPIRY, Some("device"), &key());
    let signature = STANDARD.encode(token.signature());

    let shown = format!("{token:?} {:?}", token.to_text());

    assert!(shown.contains("dev1") && shown.contains("device"), "{shown}");
    assert!(!shown.contains(&signature) && !shown.contains(&percent::encode(&signature)));
    assert!(!shown.contains(&format!("{:?}", token.signature())));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "(SharedAccessSignature )?(sr|sig|se|skn|=|&|%|%25|/|devices|[ -~]|.){0,40}") {
        if let Ok(token) = SasToken::parse(&text) {
            let opens = token.resource().covers(&["h"], &identity("d"));
            proptest::prop_assert!(!opens || token.covers(&["h"], &identity("d")));
        }
    }

    #[test]
    fn a_token_for_an_identity_reads_back_and_opens_it(
        device in "[A-Za-z0-9:.+%_#*?!(),=@;$'-]{1,40}",
        module in proptest::option::of("[A-Za-z0-9:.+%_#*?!(),=@;$'-]{1,40}"),
    ) {
        let identity = Identity {
            device: DeviceId::new(&device).unwrap(),
            module: module.map(|module| ModuleId::new(&module).unwrap()),
        };
        let made = SasToken::sign(&resource_uri("hub.test", &identity), EXPIRY, None, &key());

        let read = SasToken::parse(made.to_text().expose()).unwrap();

        proptest::prop_assert_eq!(&read, &made);
        proptest::prop_assert!(read.verify(&key()) && read.covers(&["hub.test"], &identity));
    }
}

#[test]
fn a_client_of_event_hubs_signs_with_the_text_of_the_key_for_its_scheme_alone() {
    let signed = |raw: &str| {
        let signer = SymmetricKey::from_bytes(KEY.as_bytes()).unwrap();
        let signature = STANDARD.encode(signer.hmac_sha256(format!("{raw}\n{EXPIRY}").as_bytes()));
        let signature = percent::encode(&signature);
        SasToken::parse(&format!(
            "SharedAccessSignature sr={raw}&sig={signature}&se={EXPIRY}&skn=service"
        ))
        .unwrap()
    };

    for (raw, is_taken) in [
        ("sb%3A%2F%2Fhub.test%2Feh", true),
        ("sb%3a%2f%2fhub.test%2feh%2fConsumerGroups", true),
        ("sb://hub.test/eh", true),
        ("hub.test", false),
        ("amqps%3A%2F%2Fhub.test", false),
    ] {
        let token = signed(raw);
        assert_eq!(token.verify_of_event_hubs(&key()), is_taken, "{raw}");
        assert!(!token.verify(&key()) && !token.verify_of_event_hubs(&other_key()));
    }
}
