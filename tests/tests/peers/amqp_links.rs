//! How devices get in over AMQP, and what their links are for: what the SDKs of every language do, said by a client that can
//! do all of it. Source: `hub-device-protocols.md` §3.1 to §3.3, §8 rows 13 and 57 to 62 and 68.

use holm_e2e::amqp::{address, token};
use holm_e2e::{Amqp, Certificate, Device, Hub, Need};
use serde_json::{Value, json};

const NEEDS: &[Need] = &[Need::Node, Need::Openssl, Need::LowPorts];
/// How many devices the pool of a gateway has on one connection.
const MANY: usize = 200;

fn events(device: &Device) -> String {
    address(device, "messages/events")
}

#[test]
fn each_way_to_log_in_over_amqp_opens_the_connection_and_a_token_the_links() {
    if !Need::all(NEEDS) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("dev1");
    let mut client = Amqp::start(&hub);
    let user = json!({"mechanism": "PLAIN", "user": format!("dev1@sas.{}", hub.host()), "password": token(&hub, &device, 3600)});

    for (index, how) in [
        json!({}),
        json!({"mechanism": "ANONYMOUS"}),
        json!({"mechanism": "MSSBCBS"}),
        user,
    ]
    .iter()
    .enumerate()
    {
        let connection = format!("c{index}");
        client.try_open(&connection, how).expect("the connection opens");
        if how["mechanism"] != "PLAIN" {
            client.prove(&connection, &hub, &device);
        }
        let link = format!("events {index}");
        client.sender(&connection, &link, &events(&device));

        client.send(&link, &json!({"body": "{}", "properties": {"message_id": connection}}));
    }

    let mut monitor = hub.monitor();
    for index in 0..4 {
        monitor.wait_for("a message of each", |event| {
            event.system["messageId"] == format!("c{index}")
        });
    }
}

#[test]
fn a_certificate_opens_the_links_of_its_device_with_external_and_without_sasl() {
    if !Need::all(NEEDS) {
        return;
    }
    let hub = Hub::start();
    let certificate = Certificate::self_signed(hub.scratch(), "dev1");
    let device = hub.create_x509_device("dev1", &certificate.sha256, "");
    let other = hub.create_device("other");
    let mut client = Amqp::start(&hub);
    let shown = |mechanism: Option<&str>| json!({"mechanism": mechanism, "certificate": certificate.certificate, "key": certificate.key});

    for (connection, mechanism) in [("a", Some("EXTERNAL")), ("b", None)] {
        client
            .try_open(connection, &shown(mechanism))
            .expect("the connection opens");
        client.sender(connection, connection, &events(&device));
        client.send(connection, &json!({"body": "{}"}));
    }
    let refused = client.try_attach("b", "foreign", "sender", &events(&other), &json!({}));
    let without = client.try_open("c", &json!({"mechanism": "EXTERNAL"}));

    assert_eq!(refused.expect_err("it is another's").kind, "amqp:unauthorized-access");
    assert_eq!(
        without.expect_err("no certificate was shown").kind,
        "amqp:unauthorized-access"
    );
    client.send("b", &json!({"body": "{}"}));
}

#[test]
fn a_wrong_password_in_plain_ends_the_login() {
    if !Need::all(NEEDS) {
        return;
    }
    let hub = Hub::start();
    let [device, other] = ["dev1", "other"].map(|id| hub.create_device(id));
    let mut client = Amqp::start(&hub);
    let host = hub.host();
    let mut log_in = |user: String, password: &str| {
        let how = json!({"mechanism": "PLAIN", "user": user, "password": password});
        client.try_open("c", &how).expect_err("it is refused")
    };

    let foreign = log_in(format!("dev1@sas.{host}"), &token(&hub, &other, 3600));
    let ended = log_in(format!("dev1@sas.{host}"), &token(&hub, &device, -3600));
    let nonsense = log_in("dev1".to_owned(), "secret");
    let unknown = log_in(format!("nobody@sas.{host}"), &token(&hub, &device, 3600));

    for refused in [foreign, ended, nonsense, unknown] {
        assert_eq!(refused.kind, "amqp:unauthorized-access", "{refused:?}");
        assert!(refused.message.ends_with(": 1"), "{refused:?}");
    }
}

#[test]
fn the_answer_to_a_token_has_the_type_of_the_requests_id() {
    if !Need::all(NEEDS) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("dev1");
    let mut client = Amqp::start(&hub);
    client.open("c");
    let uuid = "123e4567-e89b-12d3-a456-426614174000";

    for id in [
        json!("text"),
        json!({"uuid": uuid}),
        json!({"ulong": 7}),
        json!({"ulong": 0}),
    ] {
        let token = token(&hub, &device, 3600);
        let answer = client.call(
            "put_token",
            json!({"connection": "c", "token": token, "message_id": id}),
        );

        assert_eq!(answer["status"], json!({"int": 200}), "{answer}");
        assert_eq!(answer["correlation_id"], id);
        assert!(answer["description"].is_string(), "{answer}");
        assert_eq!(answer["outcome"], "accepted");
    }
}

#[test]
fn what_cbs_is_asked_wrongly_it_answers_with_the_reason() {
    if !Need::all(NEEDS) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("dev1");
    let mut client = Amqp::start(&hub);
    client.open("c");
    let good = token(&hub, &device, 3600);
    let mut ask = |more: Value| {
        let mut command = json!({"connection": "c", "message_id": "x", "token": good});
        command
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        client.call("put_token", command)["status"]["int"].clone()
    };

    let statuses = [
        ask(json!({"token": token(&hub, &device, -3600)})),
        ask(json!({"token": "nonsense"})),
        ask(json!({"token": good.replace("dev1", "dev2")})),
        ask(json!({"type": "jwt"})),
        ask(json!({"type": "x509"})),
        ask(json!({"operation": "delete-token"})),
        ask(json!({"token": {"ulong": 5}})),
        ask(json!({})),
    ];

    assert_eq!(json!(statuses), json!([401, 401, 401, 401, 400, 400, 400, 200]));
}

#[test]
fn a_link_without_the_right_token_is_refused_and_costs_nothing_else() {
    if !Need::all(NEEDS) {
        return;
    }
    let hub = Hub::start();
    let [device, other] = ["dev1", "other"].map(|id| hub.create_device(id));
    let mut client = Amqp::start(&hub);
    client.open("c");

    let before = client.try_attach("c", "early", "sender", &events(&device), &json!({}));
    client.prove("c", &hub, &device);
    client.sender("c", "events", &events(&device));
    let foreign = client.try_attach("c", "foreign", "sender", &events(&other), &json!({}));
    let unknown = client.try_attach("c", "unknown", "sender", "/devices/dev1/nothing", &json!({}));
    let backwards = client.try_attach(
        "c",
        "backwards",
        "sender",
        &address(&device, "messages/devicebound"),
        &json!({}),
    );

    for (refused, condition) in [
        (before, "amqp:unauthorized-access"),
        (foreign, "amqp:unauthorized-access"),
        (unknown, "amqp:not-found"),
        (backwards, "amqp:not-found"),
    ] {
        assert_eq!(refused.expect_err("it is refused").kind, condition);
    }
    client.send("events", &json!({"body": "{}"}));
}

#[test]
fn a_disabled_device_is_refused_over_amqp() {
    if !Need::all(NEEDS) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device_with("dev1", &json!({"deviceId": "dev1", "status": "disabled"}));
    let mut client = Amqp::start(&hub);
    client.open("c");

    let answer = client.put_token("c", &token(&hub, &device, 3600));
    let link = client.try_attach("c", "events", "sender", &events(&device), &json!({}));
    let user = format!("dev1@sas.{}", hub.host());
    let how = json!({"mechanism": "PLAIN", "user": user, "password": token(&hub, &device, 3600)});
    let plain = client.try_open("d", &how);

    assert_eq!(answer["status"], json!({"int": 401}));
    assert_eq!(link.expect_err("it is refused").kind, "amqp:unauthorized-access");
    assert_eq!(plain.expect_err("it is refused").kind, "amqp:unauthorized-access");
}

#[test]
fn addresses_are_read_in_every_way_that_sdks_write_them() {
    if !Need::all(NEEDS) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("Dev.1");
    let mut client = Amqp::start(&hub);
    client.log_in("c", &hub, &device);
    let host = hub.host();

    for (number, (role, path)) in [
        ("sender", format!("amqps://{host}/devices/Dev.1/messages/events")),
        ("sender", format!("amqps://{host}:5671/devices/Dev.1/messages/events")),
        ("sender", "/devices/Dev%2E1/messages/events".to_owned()),
        ("sender", "/devices/Dev.1/Messages/Events/".to_owned()),
        ("receiver", "/devices/Dev.1/messages/devicebound".to_owned()),
        ("receiver", format!("amqps://{host}/devices/Dev.1/messages/deviceBound")),
        ("receiver", "/devices/Dev.1/twin/".to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        let link = format!("link {number}");
        let session = format!("session {number}");
        let taken = client.try_attach("c", &link, role, &path, &json!({"session": session}));

        let taken = taken.unwrap_or_else(|refused| panic!("{path}: {refused:?}"));
        // What the peer named comes back as it was.
        let named = if role == "sender" { "target" } else { "source" };
        assert_eq!(taken[named], path);
    }
}

#[test]
fn equal_link_names_in_two_sessions_are_two_links_of_two_devices() {
    if !Need::all(NEEDS) {
        return;
    }
    let hub = Hub::start();
    let devices = ["dev1", "dev2"].map(|id| hub.create_device(id));
    let mut client = Amqp::start(&hub);
    client.open("c");
    for device in &devices {
        client.prove("c", &hub, device);
        let how = json!({"session": device.id, "name": "TelemetrySenderLink", "properties": {"com.microsoft:api-version": "2021-04-12"}});
        let taken = client.try_attach("c", &device.id, "sender", &events(device), &how);
        taken.expect("each is taken");
    }

    for device in &devices {
        client.send(
            &device.id,
            &json!({"body": "{}", "properties": {"message_id": format!("of {}", device.id)}}),
        );
    }

    let mut monitor = hub.monitor();
    for device in &devices {
        let event = monitor.wait_for("its message", |event| {
            event.system["messageId"] == format!("of {}", device.id)
        });
        assert_eq!(event.device, device.id);
    }
}

#[test]
fn two_hundred_devices_live_on_one_connection_and_a_bad_one_costs_only_its_links() {
    if !Need::all(NEEDS) {
        return;
    }
    let hub = Hub::start();
    let devices: Vec<Device> = (0..MANY)
        .map(|number| hub.create_device(&format!("d{number}")))
        .collect();
    let mut client = Amqp::start(&hub);
    client.open("c");
    for device in &devices {
        client.prove("c", &hub, device);
        let session = json!({"session": device.id, "name": "TelemetrySenderLink"});
        let taken = client.try_attach("c", &device.id, "sender", &events(device), &session);
        taken.unwrap_or_else(|refused| panic!("{}: {refused:?}", device.id));
    }

    // One is deleted, one sends what nobody can read.
    hub.service().call("DELETE", "/devices/d7", None);
    let gone = client.detached("d7");
    let unreadable = client
        .try_send("d8", &json!({"bytes": "ffffff"}))
        .expect("it is answered");
    for device in devices.iter().filter(|device| device.id != "d7") {
        let message = json!({"body": "{}", "properties": {"message_id": format!("of {}", device.id)}});
        client.send(&device.id, &message);
    }

    assert_eq!(gone["condition"], "amqp:unauthorized-access", "{gone}");
    assert_eq!(unreadable["outcome"], "rejected", "{unreadable}");
    let mut monitor = hub.monitor();
    monitor.wait_for("the last one's message", |event| {
        event.system["messageId"] == format!("of d{}", MANY - 1)
    });
    assert!(
        client
            .left()
            .iter()
            .all(|event| event["event"] != "closed" && event["event"] != "detached")
    );
}

#[test]
fn amqp_in_websocket_is_amqp() {
    if !Need::all(NEEDS) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("dev1");
    let mut client = Amqp::start(&hub).in_websocket();

    for (connection, how) in [("a", json!({})), ("b", json!({"mechanism": "ANONYMOUS"}))] {
        client.try_open(connection, &how).expect("the connection opens");
        client.prove(connection, &hub, &device);
        client.sender(connection, connection, &events(&device));
        // More than a frame holds, in both directions of the wrapping.
        client.send(
            connection,
            &json!({"size": 200_000, "properties": {"message_id": connection}}),
        );
    }

    let mut monitor = hub.monitor();
    let event = monitor.wait_for("the large message", |event| event.system["messageId"] == "b");
    assert_eq!(event.body.as_str().map(str::len), Some(200_000));
}

#[test]
fn a_quiet_connection_is_kept_by_beats_at_half_the_peers_time_out() {
    if !Need::all(NEEDS) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("dev1");
    let mut client = Amqp::start(&hub);
    let opened = client
        .try_open("c", &json!({"idle": 1000}))
        .expect("the connection opens");
    client.prove("c", &hub, &device);
    client.sender("c", "events", &events(&device));

    // rhea ends a connection on which nothing comes for its time-out; this takes several of them.
    for _ in 0..6 {
        std::thread::sleep(std::time::Duration::from_millis(700));
        assert!(client.left().is_empty(), "{:?}", client.left());
    }
    client.send("events", &json!({"body": "{}"}));

    assert!(opened["idle"].as_u64() > Some(30_000), "{opened}");
    assert!(
        client.left().iter().all(|event| event["event"] != "disconnected"),
        "{:?}",
        client.left()
    );
}
