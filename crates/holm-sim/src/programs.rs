//! The programs of the simulated device: what a module or a device below it does, and the runtime that the edge's agent keeps
//! modules in.
//!
//! ```text
//!   sensor   readings to four outputs, each acknowledged before the next; reports; listens to its desired properties
//!   watcher  takes what sensors send it; answers methods
//!   caller   calls the watcher's method through the edge
//! ```
//!
//! A program is a client of the edge by `holm-client`, over TLS and the network of the simulation, and proves itself by tokens
//! that it signs anew before they end. What it remembers over its restarts is in its [`Memory`].

mod memory;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use holm_client::credential::{Credential, KeyTokens};
use holm_client::{Client, Event, Events, Interests, Options};
use holm_identity::sas::resource_uri;
use holm_identity::tls::{Roots, client_config};
use holm_identity::{SasToken, SymmetricKey};
use holm_model::method::MethodResponse;
use holm_model::twin::patch;
use holm_model::{Identity, Message, SystemProperty};
use holm_net::{Scope, http};
use http_body_util::Full;
use hyper::Request;
use rustls::ClientConfig;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::chance::Chance;
use crate::hub;
use crate::journal::Journal;
use crate::ledger::{Fate, Ledger};
use crate::network::Site;
use crate::time::WallClock;

pub use memory::Memory;
use memory::{take_change, take_twin};

/// The edge's name.
pub const EDGE_HOST: &str = "edge.sim";
/// How long a program may be without its connection, or a method without its answer, while edge and program run.
const PATIENCE: Duration = Duration::from_secs(3600);
/// The pause after something failed.
const AGAIN: Duration = Duration::from_secs(20);

/// What a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sends and reports.
    Sensor,
    /// Takes messages and answers methods.
    Watcher,
    /// Calls methods.
    Caller,
}

/// What all programs of a device share.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The device's clock.
    pub clock: WallClock,
    /// Their way to the edge.
    pub site: Site,
    /// What they sent.
    pub ledger: Ledger,
    /// What happens.
    pub journal: Journal,
    /// The edge's certificate authority.
    pub edge_ca: PathBuf,
    /// How often a sensor sends.
    pub interval: Duration,
    /// Sensors send nothing more.
    pub rests: Arc<AtomicBool>,
    keys: Arc<Mutex<BTreeMap<String, SymmetricKey>>>,
    memories: Arc<Mutex<BTreeMap<String, Memory>>>,
    chance: Arc<Mutex<Chance>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Surroundings {
    /// Those of a device that was never started.
    #[must_use]
    pub fn new(
        clock: &WallClock,
        site: Site,
        journal: &Journal,
        edge_ca: PathBuf,
        interval: Duration,
        chance: Chance,
    ) -> Self {
        Self {
            clock: clock.clone(),
            site,
            ledger: Ledger::default(),
            journal: journal.clone(),
            edge_ca,
            interval,
            rests: Arc::default(),
            keys: Arc::default(),
            memories: Arc::default(),
            chance: Arc::new(Mutex::new(chance)),
        }
    }

    /// Gives the programs of an identity their key.
    pub fn give_key(&self, identity: &str, key: SymmetricKey) {
        lock(&self.keys).insert(identity.to_owned(), key);
    }

    /// Whether an identity has a key.
    #[must_use]
    pub fn has_key(&self, identity: &str) -> bool {
        lock(&self.keys).contains_key(identity)
    }

    /// What a program remembers.
    #[must_use]
    pub fn memory(&self, identity: &str) -> Memory {
        lock(&self.memories).get(identity).cloned().unwrap_or_default()
    }

    fn remember<T>(&self, identity: &str, change: impl FnOnce(&mut Memory) -> T) -> T {
        change(lock(&self.memories).entry(identity.to_owned()).or_default())
    }
}

/// A program that runs; it dies when this is dropped or told to.
#[derive(Debug)]
pub struct Program {
    scope: Scope,
}

impl Program {
    /// Starts a program.
    #[must_use]
    pub fn start(surroundings: &Surroundings, identity: &str, kind: Kind) -> Self {
        let scope = Scope::new();
        let running = Running {
            own: surroundings.clone(),
            name: identity.to_owned(),
            identity: identity.parse().expect("the simulation's ids are ids"),
            kind,
            chance: lock(&surroundings.chance).fork(),
            scope: scope.clone(),
        };
        scope.spawn_until_stopped(running.run());
        Self { scope }
    }

    /// Ends it where it stands.
    pub fn kill(&self) {
        self.scope.stop();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.scope.stop();
    }
}

struct Running {
    own: Surroundings,
    name: String,
    identity: Identity,
    kind: Kind,
    chance: Chance,
    scope: Scope,
}

impl Running {
    async fn run(mut self) {
        let key = loop {
            if let Some(key) = lock(&self.own.keys).get(&self.name).cloned() {
                break key;
            }
            tokio::time::sleep(AGAIN).await;
        };
        let tls = self.tls();
        let (client, events) = self.connect(&key, &tls);
        let own = self.own.clone();
        let listening = listen(own, self.name.clone(), self.kind, client.clone(), events);
        self.scope.spawn_until_stopped(listening);
        match self.kind {
            Kind::Sensor => self.sense(&client).await,
            Kind::Caller => self.call_methods(&key, &tls).await,
            Kind::Watcher => std::future::pending().await,
        }
    }

    fn tls(&self) -> Arc<ClientConfig> {
        let roots = Roots::none()
            .with_file(&self.own.edge_ca)
            .expect("the edge has an authority");
        let mut tls = client_config(roots, None).expect("TLS can be set up");
        tls.time_provider = Arc::new(self.own.clock.clock());
        Arc::new(tls)
    }

    fn connect(&self, key: &SymmetricKey, tls: &Arc<ClientConfig>) -> (Client, Events) {
        let tokens = KeyTokens::new(key.clone(), hub::HOST, &self.identity);
        let credential = Credential::Tokens(Arc::new(tokens));
        let mut options = Options::new(self.identity.clone(), hub::HOST, credential, Arc::clone(tls));
        options.endpoint.host = EDGE_HOST.to_owned();
        options.interests = Interests {
            methods: true,
            desired_properties: true,
            cloud_to_device: !self.identity.is_module(),
            inputs: self.identity.is_module(),
        };
        options.keep_alive = Duration::from_secs(600);
        options.clock = self.own.clock.clock();
        options.dialer = self.own.site.dialer();
        Client::start(&self.scope, options)
    }

    /// Sends for ever, one message after the other.
    async fn sense(&mut self, client: &Client) {
        loop {
            tokio::time::sleep(self.chance.between(self.own.interval / 2, self.own.interval * 3 / 2)).await;
            if self.own.rests.load(Ordering::SeqCst) {
                if self.own.memory(&self.name).unsure {
                    self.look_at_twin(client).await;
                }
                continue;
            }
            match self.chance.below(16) {
                0..2 => self.send(client, "urgent", 100).await,
                2..4 => self.send(client, "brief", 100).await,
                4..8 => self.send(client, "bulk", 4000).await,
                8..10 if self.identity.is_module() => self.send(client, "local", 100).await,
                10 => self.report(client).await,
                _ => self.send(client, "normal", 300).await,
            }
        }
    }

    async fn send(&self, client: &Client, output: &str, bytes: usize) {
        let stream = (self.name.clone(), output.to_owned());
        let number = self
            .own
            .ledger
            .make(&stream, self.own.clock.passed(), self.own.clock.ahead() == 0);
        let mut message = Message::new(vec![b'x'; bytes]);
        message.properties.set("from", Some(self.name.clone()));
        message.properties.set("to", Some(output.to_owned()));
        message.properties.set("number", Some(number.to_string()));
        if self.identity.is_module() {
            message.system.set(SystemProperty::OutputName, output);
        }
        let Ok(sent) = client.send(message).await else { return };
        let acknowledged = tokio::time::timeout(4 * PATIENCE, sent).await;
        match acknowledged {
            Ok(Ok(())) => {
                let clock = &self.own.clock;
                self.own
                    .ledger
                    .stored(&stream, number, clock.passed(), clock.ahead() == 0);
            }
            Ok(Err(error)) => panic!("{stream:?}: {number} can't be sent: {error}"),
            Err(_) => panic!("{stream:?}: {number} was not acknowledged for four hours"),
        }
    }

    async fn report(&mut self, client: &Client) {
        let name = &self.name;
        let (changes, unsure) = self.own.remember(name, |memory| {
            memory.reports += 1;
            let key = format!("k{}", self.chance.below(3));
            let value = if self.chance.one_in(3) {
                Value::Null
            } else {
                json!({"n": memory.reports, "deep": {format!("d{}", self.chance.below(2)): self.chance.below(5)}})
            };
            let mut changes = Map::new();
            changes.insert("count".to_owned(), json!(memory.reports));
            changes.insert(key, value);
            (changes, std::mem::replace(&mut memory.unsure, true))
        });
        if unsure {
            // The last one may or may not have arrived: the edge's twin tells.
            self.own.remember(name, |memory| memory.unsure = unsure);
            return self.look_at_twin(client).await;
        }
        match client.patch_reported(Value::Object(changes.clone())).await {
            Ok(_) => self.own.remember(name, |memory| {
                patch::apply(&mut memory.said, &changes);
                memory.unsure = false;
            }),
            Err(error) => self
                .own
                .journal
                .note(format_args!("{name}: a report has no answer: {error}")),
        }
    }

    async fn look_at_twin(&self, client: &Client) {
        if let Ok(twin) = client.twin().await {
            take_twin(&self.own, &self.name, &twin, true);
        }
    }

    /// Calls the watcher's method, each time until it is answered.
    async fn call_methods(&mut self, key: &SymmetricKey, tls: &Arc<ClientConfig>) {
        let client = http::Client::new(Arc::clone(tls), EDGE_HOST, 443).with_dialer(self.own.site.dialer());
        loop {
            tokio::time::sleep(self.chance.between(PATIENCE, 6 * PATIENCE)).await;
            let began = Instant::now();
            while let Err(reason) = self.call(&client, key).await {
                assert!(
                    began.elapsed() < PATIENCE,
                    "{}: no method was answered for an hour: {reason}",
                    self.name
                );
                tokio::time::sleep(AGAIN).await;
            }
            self.own.remember(&self.name, |memory| memory.methods += 1);
        }
    }

    async fn call(&self, client: &http::Client, key: &SymmetricKey) -> Result<(), String> {
        let expiry = self.own.clock.millis() / 1000 + 3600;
        let token = SasToken::sign(&resource_uri(hub::HOST, &self.identity), expiry, None, key);
        let path = format!(
            "/twins/{}/modules/watcher/methods?api-version=2018-06-30",
            self.identity.device
        );
        let body = json!({"methodName": "look", "payload": {"n": 1}, "responseTimeoutInSeconds": 20});
        let request = Request::post(path)
            .header("authorization", token.to_text().expose())
            .header("x-ms-edge-moduleId", self.name.as_str())
            .body(Full::new(Bytes::from(body.to_string())))
            .expect("the path is a path");
        let answer = client.send(request, 10_000, Duration::from_secs(60)).await;
        let (status, _, bytes) = answer.map_err(|error| holm_net::error_chain(&error))?;
        let answer = String::from_utf8_lossy(&bytes).into_owned();
        let is_right = status == 200 && answer.contains("\"seen\":1");
        if is_right {
            Ok(())
        } else {
            Err(format!("{status} {answer}"))
        }
    }
}

/// Takes what comes to a program.
async fn listen(own: Surroundings, name: String, kind: Kind, client: Client, mut events: Events) {
    while let Some(event) = events.next().await {
        match event {
            Event::Connected => {
                let (own, name, client) = (own.clone(), name.clone(), client.clone());
                // Its answer comes behind the events.
                tokio::spawn(async move {
                    if let Ok(twin) = client.twin().await {
                        take_twin(&own, &name, &twin, false);
                    }
                });
            }
            Event::Disconnected(reason) => tracing::trace!(name, reason, "program disconnected"),
            Event::Method(call) => {
                own.remember(&name, |memory| memory.methods += 1);
                let response = MethodResponse {
                    status: 200,
                    payload: json!({"seen": call.payload["n"], "by": format!("{kind:?}")}),
                };
                call.answer(response).await;
            }
            Event::DesiredChanged(Value::Object(changes)) => take_change(&own, &name, &changes),
            Event::DesiredChanged(other) => panic!("{name}: desired properties are {other}"),
            Event::Message(received) => {
                arrived(&own.ledger, &received.message, Fate::Arrives, own.clock.passed());
                received.complete().await;
            }
        }
    }
}

/// Notes the arrival of a message that a program has made.
///
/// # Panics
/// When the message is not whole, or breaks what the ledger checks.
pub fn arrived(ledger: &Ledger, message: &Message, fate: Fate, now: Duration) {
    let property = |name: &str| message.properties.get(name).flatten().map(str::to_owned);
    let (Some(from), Some(to), Some(number)) = (property("from"), property("to"), property("number")) else {
        panic!("a message without its numbers: {message:?}");
    };
    let number = number.parse().expect("a number is a number");
    assert!(
        message.body.iter().all(|byte| *byte == b'x'),
        "{from} {to} {number} is damaged"
    );
    ledger.arrived(&(from, to), number, fate, now);
}
