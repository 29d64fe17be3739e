//! A module that keeps its session comes, goes and takes its own place, in any order, under messages and restarts of the edge.
//! As SDKs do, it subscribes until that was answered once, and never again.
//!
//! ```text
//!   connect ─┬─ gone before CONNACK, or before SUBACK       restart: with connections open, and with a SUBSCRIBE on its way
//!            ├─ takes some, acknowledges fewer ─┬─ gone
//!            │                                  └─ stays, and the next takes its place
//!            └─ takes all that there is: nothing may be stuck
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holm_client::Endpoint;
use holm_gateway::{Gateway, Profile};
use holm_model::wire::UserName;
use holm_mqtt::packet::{Connect, Credentials, Granted, Version};
use holm_mqtt::{Config, Event, Outcome, Qos, Session, Text};
use holm_net::{Connection, Dialer, tls};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};

use super::edge::Edge;
use super::hub::{Hub, listen};
use super::keys::Keys;
use super::{EDGE_HOST, HUB_HOST, identity, module, soon};

const ROUTE: &str = r#"FROM /messages/modules/sensor/outputs/raw INTO BrokeredEndpoint("/modules/watcher/inputs/in")"#;
const FILTER: &str = "devices/box/modules/watcher/inputs/#";
/// Visits of one run.
const VISITS: u64 = 120;
/// Connections that stay open, at most, when the next one comes.
const MOST_KEPT: usize = 3;
/// A moment at which no test runs any more, in seconds since 1970.
const FAR: i64 = 9_000_000_000;

/// Numbers that follow from a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}
type Link = Connection<Session, Box<dyn Stream>>;

async fn front(hub: &Hub, edge: &Edge) -> Endpoint {
    let scope = edge.scope.child();
    let (backend, directory) = (Arc::clone(&edge.broker), Arc::clone(edge.broker.directory()));
    let gateway = Gateway::new(backend, directory, Profile::edge(), scope.clone());
    let listener = listen("127.0.0.1:0".parse().unwrap()).await;
    let address = listener.local_address().unwrap();
    scope.spawn(gateway.serve_mqtt(listener, hub.server()));
    Endpoint {
        host: address.ip().to_string(),
        port: address.port(),
    }
}

/// The module, and what it knows whatever becomes of its connections.
#[derive(Default)]
struct Watcher {
    /// Its SUBSCRIBE was answered.
    is_subscribed: bool,
    got: BTreeSet<String>,
    kept: Vec<Link>,
}

impl Watcher {
    async fn connect(hub: &Hub, endpoint: &Endpoint) -> Link {
        let token = Keys::token(
            &identity("watcher"),
            EDGE_HOST,
            FAR,
            &Keys::key(&module("watcher"), "primary"),
        );
        let user_name = UserName::new(HUB_HOST, identity("watcher"), "test").to_string();
        let connect = Connect {
            version: Version::V311,
            client_id: Text::try_from(identity("watcher").to_string()).unwrap(),
            clean_session: false,
            keep_alive_seconds: 60,
            will: None,
            credentials: Some(Credentials {
                user_name: Text::try_from(user_name).unwrap(),
                password: Some(Bytes::from(token)),
            }),
        };
        let session = Session::client(Instant::now(), Config::default(), connect).unwrap();
        let stream = soon(tls::connect(
            hub.tls(),
            &Dialer::default(),
            &endpoint.host,
            endpoint.port,
        ))
        .await
        .unwrap();
        Connection::new(session, Box::new(stream))
    }

    /// Waits for CONNACK; what was subscribed before must be there.
    async fn welcome(&self, link: &mut Link) {
        match soon(link.next_event()).await {
            Event::Connected { session_present } => {
                assert!(session_present || !self.is_subscribed, "the session was forgotten");
            }
            other => panic!("{other:?}"),
        }
    }

    fn ask(link: &mut Link) {
        let filter = holm_mqtt::Subscription {
            filter: Text::try_from(FILTER).unwrap(),
            qos: Qos::AtLeastOnce,
        };
        link.session_mut().subscribe(Instant::now(), vec![filter]).unwrap();
    }

    /// Subscribes, if that was not answered yet.
    async fn subscribe(&mut self, link: &mut Link) {
        if self.is_subscribed {
            return;
        }
        Self::ask(link);
        loop {
            match soon(link.next_event()).await {
                Event::Subscribed { granted, .. } => {
                    assert_eq!(granted, [Granted::Qos(Qos::AtLeastOnce)]);
                    break;
                }
                // Of a session that was kept although nobody was told.
                Event::Publish { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        self.is_subscribed = true;
    }

    /// Takes a message, and acknowledges it or not.
    async fn take(&mut self, link: &mut Link, acknowledges: bool) {
        match link.next_event().await {
            Event::Publish { message, delivery } => {
                self.got.insert(String::from_utf8(message.payload.to_vec()).unwrap());
                if acknowledges {
                    link.session_mut().acknowledge(delivery.unwrap(), Outcome::Accept);
                }
            }
            other => panic!("{other:?}"),
        }
    }

    /// Connects, and goes at any moment.
    async fn look_in(&mut self, hub: &Hub, endpoint: &Endpoint, chance: &mut Chance) {
        let mut link = Self::connect(hub, endpoint).await;
        let pause = Duration::from_micros(chance.below(4000));
        let what = chance.below(5);
        if what == 0 {
            let _gone_too_early = tokio::time::timeout(pause, link.next_event()).await;
            return;
        }
        self.welcome(&mut link).await;
        if what == 1 && !self.is_subscribed {
            Self::ask(&mut link);
            let _gone_too_early = tokio::time::timeout(pause, link.next_event()).await;
            return;
        }
        self.subscribe(&mut link).await;
        let (most, acknowledged) = (chance.below(20), chance.below(20));
        let some = async {
            for number in 0..most {
                self.take(&mut link, number < acknowledged).await;
            }
        };
        // There may be less than that.
        let _enough = tokio::time::timeout(pause, some).await;
        if chance.below(2) == 0 {
            self.kept.push(link);
        }
        if self.kept.len() > MOST_KEPT {
            self.kept
                .remove(usize::try_from(chance.below(MOST_KEPT as u64)).unwrap());
        }
    }

    /// Takes everything up to a number of messages.
    async fn take_all(&mut self, hub: &Hub, endpoint: &Endpoint, sent: usize) {
        let mut link = Self::connect(hub, endpoint).await;
        self.welcome(&mut link).await;
        self.subscribe(&mut link).await;
        while self.got.len() < sent {
            let had = self.got.len();
            let more = tokio::time::timeout(super::PATIENCE, self.take(&mut link, true)).await;
            assert!(more.is_ok(), "stuck: {had} of {sent} have arrived");
        }
        self.kept.push(link);
    }
}

/// Sends messages numbered from `sent` on.
async fn burst(edge: &Edge, sent: &mut usize, count: u64) {
    for _ in 0..count {
        edge.send("sensor", "raw", &sent.to_string()).await;
        *sent += 1;
    }
}

async fn come_and_go(seed: u64) {
    let hub = Hub::unreachable().await;
    let keys = Arc::new(Keys::of(&["sensor", "watcher"]));
    let mut edge = Edge::with_routes(&hub, &keys, json!({"r": ROUTE})).await;
    let mut endpoint = front(&hub, &edge).await;
    let (mut chance, mut watcher, mut sent) = (Chance(seed), Watcher::default(), 0);

    for _ in 0..VISITS {
        let count = chance.below(12);
        match chance.below(12) {
            0 => {
                let mut link = Watcher::connect(&hub, &endpoint).await;
                watcher.welcome(&mut link).await;
                if !watcher.is_subscribed {
                    Watcher::ask(&mut link);
                }
                let pause = Duration::from_micros(chance.below(2000));
                let _answer_is_lost = tokio::time::timeout(pause, link.next_event()).await;
                edge = edge.crash(&hub, &keys).await;
                endpoint = front(&hub, &edge).await;
            }
            1..4 => {
                let all = sent + usize::try_from(count).unwrap();
                tokio::join!(burst(&edge, &mut sent, count), watcher.take_all(&hub, &endpoint, all));
            }
            _ => {
                tokio::join!(
                    burst(&edge, &mut sent, count),
                    watcher.look_in(&hub, &endpoint, &mut chance)
                );
            }
        }
    }

    watcher.take_all(&hub, &endpoint, sent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn nothing_is_stuck_however_a_module_comes_and_goes() {
    for seed in 0..3 {
        come_and_go(seed).await;
    }
}
