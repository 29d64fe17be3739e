//! Clients that come all at once, send too much, too slowly, or never read: the polite ones keep their latency.
//!
//! What is compared is the median of a message's way between two modules, with and without the others, in the same run.
#![allow(clippy::print_stderr, reason = "a test tells what it measured")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use holm_e2e::hub::{AMQP_PORT, HTTPS_PORT, MQTT_PORT};
use holm_e2e::wire::mqtt::{Client, Packet};
use holm_e2e::wire::tls::{self, Place};
use holm_e2e::{Device, Hub, Need, Setup, edge, patience};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use crate::scene::{self, DEVICE, Pair, Scene, assert_kept};

/// Clients of the storm.
const MANY: usize = 2000;
/// Of them at a time: the test has to do half of each handshake.
const AT_ONCE: usize = 32;
/// Of each kind of slow client.
const SLOW: usize = 40;

#[test]
fn two_thousand_clients_that_come_at_once_are_all_let_in_and_others_keep_their_latency() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    allow_files(8192);
    let mut scene = Scene::start(Setup {
        under: ["sh", "-c", "ulimit -n 8192; exec \"$@\"", "sh"]
            .map(str::to_owned)
            .to_vec(),
        ..Setup::default()
    });
    let children = create_children(&scene.hub);
    // Everybody knows them, and nobody asks the hub: the storm comes after a restart, with the link down.
    let call = json!({"methodName": "RefreshDeviceScopeIdentityCache", "responseTimeoutInSeconds": 60});
    let path = format!("/twins/{DEVICE}/modules/$edgeHub/methods");
    scene.hub.service().call("POST", &path, Some(&call));
    patience::wait(
        "the children",
        patience::long(),
        || match scene.edge.status()["children"].as_u64() {
            Some(known) if known >= MANY as u64 => Ok(()),
            other => Err(format!("{other:?} are known")),
        },
    );
    scene.link.cut();
    scene.edge.crash();
    scene.edge.restart();
    let ca = scene.edge.ca();
    let mut pair = Pair::open(&scene)?;
    let before = pair.latency(100)?;

    let ip = IpAddr::V4(scene.edge.ip());
    let place = Place { ip, name: ip };
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    let (clients, during) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE)
            .map(|_| scope.spawn(|| connect_some(place, &scene.hub, &ca, &children, &next)))
            .collect();
        let mut during = Vec::new();
        while next.load(Ordering::SeqCst) < MANY {
            during.push(pair.latency(10));
        }
        let clients: Vec<Client> = threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("a thread of the storm"))
            .collect();
        (clients, during)
    });
    let took = began.elapsed();

    let mut during = during.into_iter().collect::<Result<Vec<_>>>()?;
    during.sort_unstable();
    let during = during[during.len() / 2];
    eprintln!("{MANY} clients in {took:?}; a local message took {before:?} before and {during:?} meanwhile");
    assert_eq!(clients.len(), MANY);
    assert_eq!(scene.edge.status()["clientsConnected"], MANY + 2);
    assert_kept("a local message", before, during);
    Ok(())
}

/// Connects children until all are, each as often as it takes.
fn connect_some(place: Place, hub: &Hub, ca: &Path, children: &[Device], next: &AtomicUsize) -> Vec<Client> {
    let mut connected = Vec::new();
    while let Some(child) = children.get(next.fetch_add(1, Ordering::SeqCst)) {
        let mut hello = hub.connect_packet(child);
        hello.keep_alive = 0;
        connected.push(patience::wait("a child let in", patience::long(), || {
            let stream = tls::connect(place, MQTT_PORT, ca, None).map_err(|error| format!("{error:#}"))?;
            let mut client = Client::new(stream);
            client.open(&hello).map_err(|error| format!("{error:#}"))?;
            Ok(client)
        }));
    }
    connected
}

fn create_children(hub: &Hub) -> Vec<Device> {
    let scope = hub.service().call("GET", &format!("/devices/{DEVICE}"), None)["deviceScope"].clone();
    let next = AtomicUsize::new(0);
    let create = || {
        let mut made = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::SeqCst);
            if number >= MANY {
                return made;
            }
            let id = format!("leaf-{number}");
            made.push(hub.create_device_with(&id, &json!({"deviceId": id, "deviceScope": scope})));
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
        let made = threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("a thread that creates"));
        made.collect()
    })
}

/// Lets this process have so many files open, if it may.
fn allow_files(count: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < count) {
        let wanted = Rlimit {
            current: Some(count.min(limit.maximum.unwrap_or(count))),
            ..limit
        };
        setrlimit(Resource::Nofile, wanted).expect("a soft limit may be raised to the hard one");
    }
}

#[test]
fn a_module_that_sends_fifty_times_its_share_does_not_slow_the_others_down() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let scene = Scene::start(Setup::default());
    let modules = json!({"probe": scene::idle(), "sink": scene::idle(), "flood": scene::idle()});
    let routes = json!({
        "up": "FROM /messages/modules/flood/* INTO $upstream",
        "local": "FROM /messages/modules/probe/outputs/local INTO BrokeredEndpoint(\"/modules/sink/inputs/in\")",
    });
    edge::deploy(&scene.hub, &scene.device, &edge::manifest(&modules, &routes));
    let mut flood = scene.edge.connected(&scene.hub, &scene.device, "flood");
    let mut pair = Pair::open(&scene)?;
    let before = pair.latency(200)?;

    let (is_over, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (during, rounds) = std::thread::scope(|scope| {
        scope.spawn(|| flood_until(&mut flood, &is_over, &sent));
        let mut rounds = 0;
        let mut during = Vec::new();
        // For as long as it takes to have sent fifty times as much as the polite one.
        while rounds < 200 || (sent.load(Ordering::SeqCst) < 50 * rounds && rounds < 2000) {
            during.push(pair.latency(1));
            std::thread::sleep(Duration::from_millis(10));
            rounds += 1;
        }
        is_over.store(true, Ordering::SeqCst);
        (during, rounds)
    });

    let mut during = during.into_iter().collect::<Result<Vec<_>>>()?;
    during.sort_unstable();
    let during = during[during.len() / 2];
    let sent = sent.load(Ordering::SeqCst);
    eprintln!(
        "{sent} messages beside {rounds}: {} times as many; {before:?} before and {during:?} meanwhile",
        sent / rounds
    );
    assert_kept("a local message", before, during);
    Ok(())
}

/// Sends with as much on the way as an SDK would have, and more.
fn flood_until(client: &mut Client, is_over: &AtomicBool, sent: &AtomicUsize) {
    let topic = format!("devices/{DEVICE}/modules/flood/messages/events/%24.on=up");
    let mut on_the_way = 0;
    while !is_over.load(Ordering::SeqCst) {
        let acknowledged = client.publish(&topic, 1, false, b"\"flood\"").and_then(|_| {
            on_the_way += 1;
            if on_the_way < 64 {
                return Ok(None);
            }
            on_the_way -= 1;
            client.receive(patience::short())
        });
        // At a full store it is refused, which is what it deserves.
        if acknowledged.is_err() {
            return;
        }
        sent.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn clients_that_send_byte_by_byte_or_never_read_do_not_slow_the_others_down() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let scene = Scene::start(Setup::default());
    let ca = scene.edge.ca();
    let mut pair = Pair::open(&scene)?;
    let before = pair.latency(200)?;

    let handshakes = (0..SLOW).map(|_| Slow::plain(&scene, MQTT_PORT, CLIENT_HELLO));
    let heads = (0..SLOW).map(|_| Slow::tls(&scene, &ca, HTTPS_PORT, HEAD));
    let packets = (0..SLOW).map(|_| Slow::tls(&scene, &ca, MQTT_PORT, CONNECT));
    let frames = (0..SLOW).map(|_| Slow::tls(&scene, &ca, AMQP_PORT, FRAME));
    let slow = handshakes.chain(heads).chain(packets).chain(frames);
    let mut slow = slow.collect::<Result<Vec<_>>>()?;
    let mut deaf = deaf_receivers(&scene)?;
    let mut during = Vec::new();
    for round in 0..100 {
        slow.iter_mut().for_each(|client| client.dribble(round));
        deaf.pour()?;
        during.push(pair.latency(3)?);
    }
    during.sort_unstable();
    let during = during[during.len() / 2];
    let newcomer = scene.edge.connected(&scene.hub, &scene.device, "late");
    let is_served = scene.edge.daemon().health();

    let open = slow
        .iter_mut()
        .filter_map(|client| client.is_open().then_some(()))
        .count();
    eprintln!(
        "{open} of {} slow clients are still there; {before:?} before and {during:?} meanwhile",
        slow.len()
    );
    assert_kept("a local message", before, during);
    assert_eq!(is_served, (200, "ok".to_owned()));
    drop(newcomer);
    Ok(())
}

/// The first bytes of a TLS handshake that announce 500 more.
const CLIENT_HELLO: &[u8] = &[22, 3, 1, 1, 249, 1, 0, 1, 245, 3, 3];
/// Half the head of a request.
const HEAD: &[u8] = b"GET /devices/d1/messages/devicebound HTTP/1.1\r\nHost: edge\r\nX-Filling: ";
/// The header of AMQP, and the beginning of an open of 200 bytes.
const FRAME: &[u8] = b"AMQP\0\x01\0\0\0\0\0\xc8\x02\0\0\0\0\x53\x10\xc0\xbb\x01\xa1\xb8";
/// Half a CONNECT.
const CONNECT: &[u8] = &[0x10, 0xff, 0x7f, 0, 4, b'M', b'Q', b'T', b'T', 4, 0xc2];

/// A client that sends a byte now and then, of something that has no end.
enum Slow {
    Plain(TcpStream, &'static [u8]),
    Tls(Box<tls::Stream>, &'static [u8]),
}

impl Slow {
    fn plain(scene: &Scene, port: u16, text: &'static [u8]) -> Result<Self> {
        Ok(Self::Plain(TcpStream::connect((scene.edge.ip(), port))?, text))
    }

    fn tls(scene: &Scene, ca: &Path, port: u16, text: &'static [u8]) -> Result<Self> {
        let ip = IpAddr::V4(scene.edge.ip());
        let stream = tls::connect(Place { ip, name: ip }, port, ca, None)?;
        Ok(Self::Tls(Box::new(stream), text))
    }

    /// Sends its next byte; who has closed it has closed it.
    fn dribble(&mut self, round: usize) {
        match self {
            Self::Plain(stream, text) => stream.write_all(&[text.get(round).copied().unwrap_or(b'x')]).ok(),
            Self::Tls(stream, text) => stream.write_all(&[text.get(round).copied().unwrap_or(b'x')]).ok(),
        };
    }

    fn is_open(&mut self) -> bool {
        let mut byte = [0];
        let read = match self {
            Self::Plain(stream, _) => {
                stream.set_read_timeout(Some(Duration::from_millis(1))).ok();
                stream.read(&mut byte)
            }
            Self::Tls(stream, _) => {
                stream.sock.set_read_timeout(Some(Duration::from_millis(1))).ok();
                stream.read(&mut byte)
            }
        };
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

/// A module that has subscribed and never reads, and who sends to it.
struct Deaf {
    sender: Client,
    _receiver: Client,
}

impl Deaf {
    /// Sends a burst that nobody reads.
    fn pour(&mut self) -> Result<()> {
        let topic = format!("devices/{DEVICE}/modules/talker/messages/events/%24.on=out");
        let body = format!("\"{}\"", "x".repeat(8000));
        for _ in 0..4 {
            self.sender.publish(&topic, 1, false, body.as_bytes())?;
        }
        for _ in 0..4 {
            match self.sender.receive(patience::short())? {
                Some(Packet::Puback(_)) => {}
                other => anyhow::bail!("instead of an acknowledgement came {other:?}"),
            }
        }
        Ok(())
    }
}

fn deaf_receivers(scene: &Scene) -> Result<Deaf> {
    let mut modules = json!({});
    for name in ["probe", "sink", "talker", "deaf", "late"] {
        modules[name] = scene::idle();
    }
    let mut routes = scene::routes();
    routes["deaf"] = json!("FROM /messages/modules/talker/* INTO BrokeredEndpoint(\"/modules/deaf/inputs/in\")");
    edge::deploy(&scene.hub, &scene.device, &edge::manifest(&modules, &routes));
    let sender = scene.edge.connected(&scene.hub, &scene.device, "talker");
    let mut receiver = scene.edge.connected(&scene.hub, &scene.device, "deaf");
    receiver.subscribe(&[(&format!("devices/{DEVICE}/modules/deaf/inputs/#"), 1)])?;
    Ok(Deaf {
        sender,
        _receiver: receiver,
    })
}
