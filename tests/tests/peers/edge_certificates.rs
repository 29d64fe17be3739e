//! Certificates of an edge that change while devices are connected: who is connected stays, who comes is shown the new ones.

use std::path::Path;

use anyhow::Result;
use holm_e2e::edge;
use holm_e2e::wire::mqtt::{self, Packet};
use holm_e2e::{Certificate, Control, Device, Edge, Hub, Language, Need, Sdk, Transport, patience};
use serde_json::json;

const NEEDS: &[Need] = &[Need::Python, Need::Openssl, Need::LowPorts];

/// Two devices below an edge, connected: one on the SDK, one byte by byte.
struct Connected<S> {
    sdk: S,
    raw: mqtt::Client,
    raw_device: Device,
    sent: u32,
}

fn child(hub: &Hub, id: &str) -> Device {
    let device = hub.create_device(id);
    hub.holm(&["device", "children", "add", "gateway-1", id]);
    device
}

#[track_caller]
fn connect(hub: &Hub, edge: &Edge, device: &Device) -> Connected<holm_e2e::sdk::Running> {
    let routes = json!({"up": "FROM /messages/* INTO $upstream"});
    edge::deploy(hub, device, &edge::manifest(&json!({}), &routes));
    patience::wait("the routes in force", patience::long(), || {
        let configuration = edge.status()["configuration"].clone();
        let version = configuration["version"].as_u64();
        version
            .filter(|version| *version > 0)
            .map(drop)
            .ok_or_else(|| configuration.to_string())
    });
    let (on_sdk, raw_device) = (child(hub, "on-sdk"), child(hub, "raw"));
    let sdk = Sdk::device(Language::Python, Transport::Mqtt, hub, &on_sdk);
    let mut sdk = sdk.through(edge, &on_sdk).start();
    sdk.call("connect", json!({}));
    sdk.event("connection", |event| event["connected"] == true);
    let ca = edge.ca();
    let raw = patience::wait("a welcome", patience::long(), || {
        let mut client = edge.mqtt(&ca).map_err(|error| format!("{error:#}"))?;
        let welcome = client.open(&hub.connect_packet(&raw_device));
        welcome.map(|_| client).map_err(|error| format!("{error:#}"))
    });
    Connected {
        sdk,
        raw,
        raw_device,
        sent: 0,
    }
}

impl<S: std::ops::DerefMut<Target = Control>> Connected<S> {
    /// Both send on the connections that they have had from the beginning.
    #[track_caller]
    fn assert_not_disconnected(&mut self) {
        self.sent += 1;
        self.sdk.call("send", json!({"body": self.sent.to_string()}));
        let lost = |event: &&serde_json::Value| event["event"] == "connection" && event["connected"] == false;
        assert_eq!(self.sdk.left().iter().find(lost), None, "the SDK was disconnected");
        let topic = format!("devices/{}/messages/events/", self.raw_device.id);
        let id = self
            .raw
            .publish(&topic, 1, false, b"1")
            .expect("the connection is open");
        let answer = self.raw.receive(patience::short()).expect("the connection is open");
        assert_eq!(answer, Some(Packet::Puback(id)));
    }
}

/// The certificate that a new connection is shown, if it trusts this authority.
fn shown(edge: &Edge, authority: &Path) -> Result<Vec<u8>> {
    let certificate = edge.mqtt(authority)?.certificate();
    Ok(certificate)
}

#[track_caller]
fn wait_for_another(edge: &Edge, authority: &Path, before: &[u8]) -> Vec<u8> {
    patience::wait("another certificate", patience::short(), || {
        match shown(edge, authority) {
            Ok(now) if now != before => Ok(now),
            Ok(_) => Err("it is the same one".to_owned()),
            Err(error) => Err(format!("{error:#}")),
        }
    })
}

#[test]
fn a_renewed_server_certificate_disconnects_nobody() -> Result<()> {
    if !Need::all(NEEDS) {
        return Ok(());
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("gateway-1");
    let edge = Edge::start(&hub, &device);
    let mut connected = connect(&hub, &edge, &device);
    let ca = edge.ca();

    let mut certificate = shown(&edge, &ca)?;
    for _ in 0..3 {
        edge.daemon().hang_up();
        certificate = wait_for_another(&edge, &ca, &certificate);
        connected.assert_not_disconnected();
    }

    assert_eq!(edge.status()["clientsConnected"], 2);
    Ok(())
}

#[test]
fn another_authority_of_the_edge_disconnects_nobody_and_vouches_for_the_next_connection() -> Result<()> {
    if !Need::all(NEEDS) {
        return Ok(());
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("gateway-1");
    let mut edge = Edge::start(&hub, &device);
    let authorities = ["first", "second", "third"].map(|name| Certificate::authority(hub.scratch(), name));
    let [cert, pk] = ["plant-ca.pem", "plant-ca.key"].map(|name| hub.scratch().join(name));
    let install = |authority: &Certificate| {
        std::fs::copy(&authority.key, &pk).expect("a file of the test can be written");
        std::fs::copy(&authority.certificate, &cert).expect("a file of the test can be written");
    };
    install(&authorities[0]);
    edge.stop();
    let given = format!(
        "\n[edge_ca]\ncert = \"file://{}\"\npk = \"file://{}\"\n",
        cert.display(),
        pk.display()
    );
    let config = std::fs::read_to_string(edge.config())? + &given;
    std::fs::write(edge.config(), config)?;
    edge.restart();
    let mut connected = connect(&hub, &edge, &device);

    for step in authorities.windows(2) {
        let before = shown(&edge, &step[0].certificate)?;
        install(&step[1]);
        edge.daemon().hang_up();
        wait_for_another(&edge, &step[1].certificate, &before);
        assert!(
            shown(&edge, &step[0].certificate).is_err(),
            "the authority before vouches for no new one"
        );
        connected.assert_not_disconnected();
    }

    assert_eq!(edge.status()["clientsConnected"], 2);
    Ok(())
}
