//! Who may connect: the rows of `hub-device-protocols.md` §8 that are about CONNECT, by their numbers there.

use anyhow::Result;
use holm_e2e::sas::{Token, encode, spoiled};
use holm_e2e::wire::mqtt::{self, Connect};
use holm_e2e::{Certificate, Device, Hub, Need, patience};
use serde_json::json;

/// Not authorised.
const REFUSED: Option<u8> = Some(5);
const WELCOME: Option<u8> = Some(0);

/// The code that a CONNECT gets on a connection of its own.
#[track_caller]
fn answer(hub: &Hub, connect: &Connect) -> Option<u8> {
    let mut client = hub.mqtt(None).unwrap_or_else(|error| panic!("{error:#}"));
    client.connect(connect).unwrap_or_else(|error| panic!("{error:#}"))
}

/// CONNECT of a device with this password.
fn with(hub: &Hub, device: &Device, password: String) -> Connect {
    Connect::new(&hub.host(), &device.identity(), Some(password))
}

#[test]
fn tokens_of_every_sdks_shape_are_welcome() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("dev1");
    let edge = hub.create_edge_device("edge1");
    let module = hub.create_module("dev1", "$m");
    let host = hub.host();
    let raw = format!("{host}/devices/dev1");
    let lower = encode(&raw).replace("%2F", "%2f");
    let primary = |resource: &str| Token::sign(&device.primary_key, resource, 3600);

    // Rows 1 and 2: either key.
    assert_eq!(answer(&hub, &hub.connect_packet(&device)), WELCOME);
    let secondary = Token::sign(&device.secondary_key, &encode(&raw), 3600);
    assert_eq!(answer(&hub, &with(&hub, &device, secondary.text())), WELCOME);
    // Row 3: nothing encoded; and lower-case hex.
    assert_eq!(answer(&hub, &with(&hub, &device, primary(&raw).text())), WELCOME);
    assert_eq!(answer(&hub, &with(&hub, &device, primary(&lower).text())), WELCOME);
    // Row 4: a module id encoded twice.
    let twice = encode(&format!("{host}/devices/dev1/modules/{}", encode("$m")));
    let token = Token::sign(&module.primary_key, &twice, 3600);
    assert_eq!(answer(&hub, &with(&hub, &module, token.text())), WELCOME);
    // Row 5: another order, an empty policy.
    let token = primary(&encode(&raw));
    let signature = encode(&token.signature);
    let text = format!(
        "SharedAccessSignature sig={signature}&se={}&sr={}&skn=",
        token.expiry, token.resource
    );
    assert_eq!(answer(&hub, &with(&hub, &device, text)), WELCOME);
    // Row 9: within the skew of the clocks.
    let token = Token::sign(&device.primary_key, &encode(&raw), -200);
    assert_eq!(answer(&hub, &with(&hub, &device, token.text())), WELCOME);
    // Row 6: a policy that may connect devices.
    assert_eq!(answer(&hub, &with(&hub, &edge, hub.service().token())), WELCOME);
}

#[test]
fn tokens_that_prove_nothing_are_refused() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("dev1");
    let longer = hub.create_device("dev10");
    let module = hub.create_module("dev1", "m1");
    let sign = |key: &str, resource: &str, seconds| Token::sign(key, resource, seconds).text();

    // Row 8: signed with another key.
    let wrong = sign(&spoiled(&device.primary_key), &hub.resource(&device), 3600);
    assert_eq!(answer(&hub, &with(&hub, &device, wrong)), REFUSED);
    // Row 10: ended beyond the skew.
    let old = sign(&device.primary_key, &hub.resource(&device), -400);
    assert_eq!(answer(&hub, &with(&hub, &device, old)), REFUSED);
    // Row 11: a token of another device, and that device's key for this one's resource.
    let foreign = sign(&device.primary_key, &hub.resource(&device), 3600);
    assert_eq!(answer(&hub, &with(&hub, &longer, foreign)), REFUSED);
    let foreign = sign(&device.primary_key, &hub.resource(&longer), 3600);
    assert_eq!(answer(&hub, &with(&hub, &longer, foreign)), REFUSED);
    // Row 12: `dev1` is the beginning of `dev10`, and no more.
    let shorter = sign(&longer.primary_key, &hub.resource(&device), 3600);
    assert_eq!(answer(&hub, &with(&hub, &longer, shorter)), REFUSED);
    // A device's token does not open its module.
    let own = sign(&device.primary_key, &hub.resource(&device), 3600);
    assert_eq!(answer(&hub, &with(&hub, &module, own)), REFUSED);
    // No credential, no device, no sense.
    assert_eq!(answer(&hub, &Connect::new(&hub.host(), "dev1", None)), REFUSED);
    assert_eq!(answer(&hub, &with(&hub, &device, "let me in".into())), REFUSED);
    let mut nobody = hub.connect_packet(&device);
    nobody.client_id = "nobody".into();
    nobody.user = nobody.user.replace("/dev1/", "/nobody/");
    assert_eq!(answer(&hub, &nobody), REFUSED);
}

#[test]
fn client_id_and_user_name_must_name_one_identity() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("dev1");

    // Row 22.
    let mut connect = hub.connect_packet(&device);
    connect.client_id = "dev2".into();

    assert_eq!(answer(&hub, &connect), REFUSED);
}

#[test]
fn user_names_of_every_sdks_shape_are_understood() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("dev1");
    let host = hub.host();
    let users = [
        format!("{host}/dev1/?api-version=2021-04-12&model-id=dtmi:com:ex:T;1&DeviceClientType=node%2F1"),
        format!("{host}/dev1/?api-version=2020-09-30&unknown=1&unknown=2"),
        format!("{host}/dev1/api-version=2020-09-30&DeviceClientType=c%2F1"),
        "a-gateway/dev1/?api-version=2020-09-30&DeviceClientType=net%2F1".to_owned(),
    ];

    // Rows 20 and 21.
    for user in users {
        let mut connect = hub.connect_packet(&device);
        connect.user.clone_from(&user);
        assert_eq!(answer(&hub, &connect), WELCOME, "{user}");
    }
}

#[test]
fn a_disabled_device_is_refused_and_a_live_one_is_dropped_when_it_is_disabled() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();
    let device = hub.create_device("dev1");
    let mut live = hub.connected(&device);

    let body = json!({"deviceId": "dev1", "status": "disabled"});
    let answered = hub
        .service()
        .try_call("PUT", "/devices/dev1", &[("If-Match", "\"*\"")], Some(&body))?;
    assert_eq!(answered.status, 200);

    // Rows 13 and 88.
    live.closed(patience::long())?;
    assert_eq!(answer(&hub, &hub.connect_packet(&device)), REFUSED);
    Ok(())
}

#[test]
fn only_the_certificate_with_the_registered_thumbprint_opens_a_device() -> Result<()> {
    if !Need::all(&[Need::Openssl, Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();
    let right = Certificate::self_signed(hub.scratch(), "dev1");
    let version_1 = Certificate::self_signed_version_1(hub.scratch(), "dev2");
    let other = Certificate::self_signed(hub.scratch(), "other");
    let device = hub.create_x509_device("dev1", &right.sha1.to_lowercase(), &right.sha256);
    let old = hub.create_x509_device("dev2", &version_1.sha1, &version_1.sha1);
    let keyed = hub.create_device("dev3");
    let show = |device: &Device, certificate: &Certificate, password: Option<String>| {
        let connect = Connect::new(&hub.host(), &device.identity(), password);
        hub.mqtt(Some(certificate))?.connect(&connect)
    };

    // Row 15, with and without an empty password; a certificate of version 1; row 17.
    assert_eq!(show(&device, &right, None)?, WELCOME);
    assert_eq!(show(&device, &right, Some(String::new()))?, WELCOME);
    assert_eq!(show(&old, &version_1, None)?, WELCOME);
    assert_eq!(show(&device, &other, None)?, REFUSED);
    assert_eq!(show(&keyed, &right, None)?, REFUSED);
    assert_eq!(answer(&hub, &Connect::new(&hub.host(), "dev1", None)), REFUSED);
    Ok(())
}

#[test]
fn a_certificate_without_its_key_does_not_get_through_the_handshake() {
    if !Need::all(&[Need::Openssl, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let right = Certificate::self_signed(hub.scratch(), "dev1");
    let thief = Certificate::self_signed(hub.scratch(), "thief");
    let device = hub.create_x509_device("dev1", &right.sha256, &right.sha256);
    let certificate = right.certificate.to_string_lossy().into_owned();
    let key = thief.key.to_string_lossy().into_owned();

    // Our own TLS refuses to lie so; `openssl` does not look.
    let target = format!("{}:8883", hub.host());
    let arguments = [
        "s_client",
        "-connect",
        &target,
        "-cert",
        &certificate,
        "-key",
        &key,
        "-quiet",
    ];
    let done = std::process::Command::new("openssl")
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .output();
    let done = done.expect("openssl can be started");

    assert!(!done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let mut honest = hub.mqtt(Some(&right)).expect("the handshake succeeds with the key");
    let connect = Connect::new(&hub.host(), &device.identity(), None);
    assert_eq!(honest.connect(&connect).expect("an answer comes"), WELCOME);
}

#[test]
fn the_newest_connection_of_an_identity_wins() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();
    let device = hub.create_device("dev1");
    let module = hub.create_module("dev1", "m1");

    // Rows 18 and 19.
    let mut first = hub.connected(&device);
    let mut of_module = hub.connected(&module);
    let mut second = hub.connected(&device);

    first.closed(patience::short())?;
    for client in [&mut of_module, &mut second] {
        client.send(&mqtt::packet(0xc0, &[]))?;
        assert_eq!(client.receive(patience::short())?, Some(mqtt::Packet::Pingresp));
    }
    Ok(())
}

#[test]
fn what_is_not_a_connect_of_mqtt_3_1_1_ends_the_connection() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();
    let device = hub.create_device("dev1");

    // Row 23: another level is told so; another packet first, a second CONNECT and nonsense are not answered.
    let mut connect = hub.connect_packet(&device);
    connect.level = 3;
    assert_eq!(answer(&hub, &connect), Some(1));
    for bytes in [
        mqtt::packet(0xc0, &[]),
        vec![0x10, 0xff, 0xff, 0xff, 0xff, 0xff],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ] {
        let mut client = hub.mqtt(None)?;
        client.send(&bytes)?;
        assert_eq!(client.closed(patience::short())?, [], "{bytes:?}");
    }
    let mut twice = hub.connected(&device);
    assert_eq!(twice.connect(&hub.connect_packet(&device))?, None);
    Ok(())
}
