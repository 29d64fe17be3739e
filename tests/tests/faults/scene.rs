//! A hub, a link, an edge, and two of its modules that the test speaks for.
//!
//! ```text
//! probe ──up──► hub          probe ──local──► sink
//! ```

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use holm_e2e::wire::mqtt::{Client, Packet};
use holm_e2e::wire::tls::{self, Place};
use holm_e2e::{Device, Edge, Hub, Link, Setup, edge, patience};
use serde_json::{Value, json};

pub(crate) const DEVICE: &str = "pump-7";
/// Messages that a sender has on their way: no SDK has more.
const WINDOW: usize = 16;

/// Everything; it ends in this order.
pub(crate) struct Scene {
    pub(crate) edge: Edge,
    pub(crate) hub: Hub,
    pub(crate) link: Link,
    pub(crate) device: Device,
}

/// A module that runs somewhere else, or nowhere.
pub(crate) fn idle() -> Value {
    json!({
        "type": "process", "version": "1.0", "status": "stopped", "restartPolicy": "always",
        "settings": {"image": "holm/sensor", "createOptions": "{}"},
    })
}

pub(crate) fn routes() -> Value {
    json!({
        "up": "FROM /messages/modules/probe/outputs/up INTO $upstream",
        "local": "FROM /messages/modules/probe/outputs/local INTO BrokeredEndpoint(\"/modules/sink/inputs/in\")",
    })
}

impl Scene {
    pub(crate) fn start(setup: Setup) -> Self {
        let (hub, link) = Hub::start_behind_link();
        let device = hub.create_edge_device(DEVICE);
        let edge = Edge::start_with(&hub, &device, setup);
        deploy(&hub, &device, &edge, &json!({"probe": idle(), "sink": idle()}));
        Self {
            edge,
            hub,
            link,
            device,
        }
    }

    pub(crate) fn sender(&self) -> Sender {
        Sender::new(self.edge.connected(&self.hub, &self.device, "probe"))
    }

    /// A connection of a module over a link to the edge.
    pub(crate) fn over(&self, link: &Link, module: &str, keep_alive: u16) -> Result<Client> {
        let ca = self.edge.ca();
        let place = Place {
            ip: IpAddr::V4(link.ip()),
            name: IpAddr::V4(self.edge.ip()),
        };
        let mut client = Client::new(tls::connect(place, holm_e2e::hub::MQTT_PORT, &ca, None)?);
        let module = self.hub.find_module(DEVICE, module).map_err(anyhow::Error::msg)?;
        let mut connect = self.hub.connect_packet(&module);
        connect.keep_alive = keep_alive;
        client.open(&connect)?;
        Ok(client)
    }

    /// Waits until everything that was acknowledged is at the hub, in order.
    #[track_caller]
    pub(crate) fn assert_delivered(&self, sender: &Sender) {
        assert_delivered(&self.hub, &sender.acknowledged);
    }

    /// How many messages wait for the hub.
    #[track_caller]
    pub(crate) fn waiting(&self) -> u64 {
        let status = self.edge.status();
        status["upstream"]["depth"]
            .as_u64()
            .unwrap_or_else(|| panic!("{status}"))
    }

    /// Waits until nothing waits for the hub.
    #[track_caller]
    pub(crate) fn wait_until_drained(&self) {
        patience::wait("everything at the hub", patience::long(), || match self.waiting() {
            0 => Ok(()),
            waiting => Err(format!("{waiting} wait")),
        });
    }
}

/// Deploys modules, and waits until the routes are in force.
#[track_caller]
pub(crate) fn deploy(hub: &Hub, device: &Device, edge: &Edge, modules: &Value) {
    let before = edge.status()["configuration"]["version"].as_u64();
    edge::deploy(hub, device, &edge::manifest(modules, &routes()));
    patience::wait("routes in force", patience::long(), || {
        let status = edge.status();
        let version = status["configuration"]["version"].as_u64();
        if version > before.or(Some(0)) {
            Ok(())
        } else {
            Err(status["configuration"].to_string())
        }
    });
}

/// Waits until these numbers have come to the hub; repeats are allowed, other orders and gaps are not.
#[track_caller]
pub(crate) fn assert_delivered(hub: &Hub, acknowledged: &[u64]) {
    let mut monitor = hub.monitor();
    let Some(last) = acknowledged.last() else {
        panic!("nothing was acknowledged")
    };
    monitor.wait_until("the last acknowledged one", |seen| {
        seen.iter().rev().any(|event| number(&event.body) == Some(*last))
    });
    let mut expected: BTreeSet<u64> = acknowledged.iter().copied().collect();
    let numbers = monitor.seen().iter().filter_map(|event| number(&event.body));
    let first: Vec<u64> = numbers.filter(|number| expected.remove(number)).collect();
    assert!(expected.is_empty(), "lost: {expected:?}");
    assert_eq!(first, acknowledged, "in the order of their first arrival");
}

/// A body is a number, or an array of a number and filling.
fn number(body: &Value) -> Option<u64> {
    body.as_u64().or_else(|| body[0].as_u64())
}

/// A module that counts.
pub(crate) struct Sender {
    pub(crate) client: Client,
    next: u64,
    pub(crate) acknowledged: Vec<u64>,
}

impl Sender {
    pub(crate) const fn new(client: Client) -> Self {
        Self {
            client,
            next: 0,
            acknowledged: Vec::new(),
        }
    }

    /// A module that goes on counting on another connection.
    pub(crate) fn after(client: Client, sent: usize) -> Self {
        Self {
            next: sent as u64,
            ..Self::new(client)
        }
    }

    /// Sends so many messages and waits for all acknowledgements.
    pub(crate) fn send(&mut self, count: usize) -> Result<()> {
        self.send_filled(count, 0)
    }

    /// The same with so many bytes of filling each.
    pub(crate) fn send_filled(&mut self, count: usize, filling: usize) -> Result<()> {
        let filling = "x".repeat(filling);
        let mut on_the_way = VecDeque::new();
        for _ in 0..count {
            let body = json!([self.next, filling]).to_string();
            let topic = format!("devices/{DEVICE}/modules/probe/messages/events/%24.on=up");
            on_the_way.push_back((self.client.publish(&topic, 1, false, body.as_bytes())?, self.next));
            self.next += 1;
            if on_the_way.len() >= WINDOW {
                self.take(&mut on_the_way)?;
            }
        }
        while !on_the_way.is_empty() {
            self.take(&mut on_the_way)?;
        }
        Ok(())
    }

    fn take(&mut self, on_the_way: &mut VecDeque<(u16, u64)>) -> Result<()> {
        let Some((id, number)) = on_the_way.pop_front() else {
            return Ok(());
        };
        match self.client.receive(patience::long())? {
            Some(Packet::Puback(of)) if of == id => self.acknowledged.push(number),
            other => bail!("instead of the acknowledgement of {number} came {other:?}"),
        }
        Ok(())
    }
}

/// A module and another that listens to it.
pub(crate) struct Pair {
    probe: Client,
    sink: Client,
}

impl Pair {
    pub(crate) fn open(scene: &Scene) -> Result<Self> {
        let probe = scene.edge.connected(&scene.hub, &scene.device, "probe");
        let mut sink = scene.edge.connected(&scene.hub, &scene.device, "sink");
        listen(&mut sink)?;
        Ok(Self { probe, sink })
    }

    /// The median of so many ways from one to the other and back as an acknowledgement.
    pub(crate) fn latency(&mut self, rounds: usize) -> Result<Duration> {
        let mut times = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let began = Instant::now();
            let topic = format!("devices/{DEVICE}/modules/probe/messages/events/%24.on=local");
            let id = self.probe.publish(&topic, 1, false, b"\"tick\"")?;
            match self.sink.receive(patience::short())? {
                Some(Packet::Publish { id, .. }) => self.sink.acknowledge(id)?,
                other => bail!("instead of the message came {other:?}"),
            }
            match self.probe.receive(patience::short())? {
                Some(Packet::Puback(of)) if of == id => {}
                other => bail!("instead of the acknowledgement came {other:?}"),
            }
            times.push(began.elapsed());
        }
        times.sort_unstable();
        Ok(times.get(rounds / 2).copied().unwrap_or_default())
    }
}

pub(crate) fn listen(client: &mut Client) -> Result<()> {
    let codes = client.subscribe(&[(&format!("devices/{DEVICE}/modules/sink/inputs/#"), 1)])?;
    anyhow::ensure!(codes == [1], "the subscription was answered {codes:?}");
    Ok(())
}

/// Whether a latency is still that of before, on a machine that does other things too: at most ten times it, and what is below
/// 50 ms is noise.
#[track_caller]
pub(crate) fn assert_kept(what: &str, before: Duration, during: Duration) {
    assert!(
        during <= (before * 10).max(Duration::from_millis(50)),
        "{what}: {before:?} before, {during:?} meanwhile"
    );
}
