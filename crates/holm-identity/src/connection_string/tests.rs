//! What is read, what is refused by name, and that nothing secret shows.

use super::*;

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

fn device(text: &str) -> Result<DeviceConnectionString, InvalidConnectionString> {
    DeviceConnectionString::parse(&text.replace("KEY", KEY))
}

fn service(text: &str) -> Result<ServiceConnectionString, InvalidConnectionString> {
    ServiceConnectionString::parse(&text.replace("KEY", KEY))
}

#[test]
fn strings_of_devices_and_modules_read_back() {
    for text in [
        "HostName=hub.test;DeviceId=dev1;SharedAccessKey=KEY",
        "HostName=hub.test;DeviceId=d=1;ModuleId=$edgeHub;SharedAccessKey=KEY;GatewayHostName=edge",
        "HostName=127.0.0.2;DeviceId=dev1;x509=true",
        "HostName=hub.test;DeviceId=dev1;SharedAccessKeyName=device;SharedAccessKey=KEY",
        "HostName=hub.test;DeviceId=dev1;SharedAccessSignature=SharedAccessSignature sr=a&sig=b%3D&se=1",
    ] {
        let read = device(text).unwrap();

        assert_eq!(read.to_text().expose(), text.replace("KEY", KEY));
    }
}

#[test]
fn a_module_string_names_its_parts() {
    let read =
        device("HostName=hub.test;DeviceId=dev1;ModuleId=modA;SharedAccessKey=KEY;GatewayHostName=edge").unwrap();

    assert_eq!(read.identity.to_string(), "dev1/modA");
    assert_eq!((read.host_name.as_str(), read.connect_to()), ("hub.test", "edge"));
    let Credential::Key { key, policy: None } = read.credential else {
        panic!("no key of its own");
    };
    assert_eq!(key.to_base64().expose(), KEY);
}

#[test]
fn names_are_read_in_any_case_and_order_and_a_last_separator_is_allowed() {
    let read = device("sharedaccesskey=KEY;deviceid=Dev1;HOSTNAME=Hub.Test;\n").unwrap();

    assert_eq!(read.identity.to_string(), "Dev1");
    assert_eq!(read.host_name, "Hub.Test");
}

#[test]
fn strings_of_policies_read_back() {
    let text = "HostName=hub.test;SharedAccessKeyName=iothubowner;SharedAccessKey=KEY";

    let read = service(text).unwrap();

    assert_eq!(read.to_text().expose(), text.replace("KEY", KEY));
    assert!(matches!(read.credential, Credential::Key { policy: Some(policy), .. } if policy == "iothubowner"));
}

#[test]
fn what_is_wrong_with_a_device_string_is_named() {
    use InvalidConnectionString as E;
    let one = E::OneCredential("`SharedAccessKey`, `SharedAccessSignature` and `x509=true`");
    for (text, error) in [
        ("", E::Missing("DeviceId")),
        ("HostName=h;DeviceId=d", one.clone()),
        ("HostName=h;DeviceId=d;SharedAccessKey=KEY;x509=true", one.clone()),
        ("HostName=h;DeviceId=d;x509=false", one),
        ("HostName=h;DeviceId=d;x509=yes", E::X509),
        ("DeviceId=d;SharedAccessKey=KEY", E::Missing("HostName")),
        ("HostName=h;DeviceId=;SharedAccessKey=KEY", E::Missing("DeviceId")),
        (
            "HostName=h;DeviceId=d;hostname=h;SharedAccessKey=KEY",
            E::Repeated("HostName"),
        ),
        ("HostName=h;DeviceId=d;SharedAccessKey", E::NotAPair(3)),
        ("HostName=h:port;DeviceId=d;SharedAccessKey=KEY", E::Host("HostName")),
        (
            "HostName=h;DeviceId=d;x509=true;GatewayHostName=a/b",
            E::Host("GatewayHostName"),
        ),
        (
            "HostName=h;DeviceId=d;SharedAccessKey=AAAA",
            E::Key(InvalidKey::Length(3)),
        ),
        ("HostName=h;DeviceId=d;SharedAccessKey=!", E::Key(InvalidKey::Base64)),
    ] {
        assert_eq!(device(text).unwrap_err(), error, "{text}");
    }
    let id = device("HostName=h;DeviceId=a b;x509=true").unwrap_err();
    assert!(matches!(id, E::Id { name: "DeviceId", .. }), "{id}");
    let unknown = device("HostName=h;DeviceId=d;SharedAcessKey=KEY")
        .unwrap_err()
        .to_string();
    assert!(
        unknown.contains("`SharedAcessKey`") && unknown.contains("SharedAccessKey,"),
        "{unknown}"
    );
}

#[test]
fn a_device_string_is_no_service_string() {
    let refused = service("HostName=h;DeviceId=d;SharedAccessKey=KEY").unwrap_err();
    let nameless = service("HostName=h;SharedAccessKey=KEY").unwrap_err();

    assert!(refused.to_string().contains("`DeviceId`"), "{refused}");
    assert_eq!(nameless, InvalidConnectionString::Missing("SharedAccessKeyName"));
}

#[test]
fn no_credential_prints_in_a_string_or_an_error() {
    let shown = [
        format!("{:?}", device("HostName=h;DeviceId=d;SharedAccessKey=KEY").unwrap()),
        format!(
            "{:?}",
            device("HostName=h;DeviceId=d;SharedAccessSignature=KEY").unwrap()
        ),
        format!(
            "{:?}",
            service("HostName=h;SharedAccessKeyName=p;SharedAccessKey=KEY").unwrap()
        ),
        format!(
            "{:?}",
            device("HostName=h;DeviceId=d;SharedAccessKey=KEY;SharedAccessKey=KEY").unwrap_err()
        ),
        format!(
            "{:?}",
            device("HostName=h;DeviceId=d;SharedAccessKey=!KEY").unwrap_err()
        ),
    ];

    for text in shown {
        assert!(!text.contains("MDEy"), "{text}");
    }
}

#[test]
fn a_hub_on_another_port_is_named_with_it() {
    let text = "HostName=127.0.0.1:8443;SharedAccessKeyName=iothubowner;SharedAccessKey=MDEyMzQ1Njc4OWFiY2RlZg==";

    let service = ServiceConnectionString::parse(text).unwrap();

    assert_eq!(service.host_name, "127.0.0.1:8443");
    assert_eq!(service.to_text().expose(), text);
}
