//! One device of the fleet: it numbers its messages and sends each until it is acknowledged.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::lock;
use super::program::{Program, Trouble};
use crate::edge::Edge;
use crate::hub::{Device, Hub};
use crate::sas::Token;
use crate::{Language, Sdk, Transport, patience};

/// How often a device sends.
const PERIOD: Duration = Duration::from_millis(100);
/// How long it waits after a refusal.
const AFTER_REFUSAL: Duration = Duration::from_millis(200);
/// How long one message may take: hub and edge are away for seconds, and SDKs wait long between attempts.
const PATIENCE: Duration = Duration::from_secs(300);
/// It reports with one message in so many.
const REPORTS: u64 = 20;

/// A device.
pub(super) struct Member {
    name: String,
    transport: Transport,
    way: Way,
}

enum Way {
    Sdk(Box<Program>),
    Https(Box<OverHttps>),
}

/// A device over HTTPS without an SDK.
struct OverHttps {
    device: Device,
    host: String,
    edge: Arc<Mutex<Edge>>,
}

/// What a device did.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) name: String,
    /// Messages that were acknowledged, numbered from 0.
    pub(super) messages: u64,
    /// What it reported last and was told that it stands.
    pub(super) reported: Option<u64>,
    /// The messages from the cloud that reached it, by their text.
    pub(super) received: BTreeSet<String>,
    /// Attempts that were refused or broke off.
    pub(super) refused: u64,
    /// How often its program ended, and another one took its place.
    pub(super) replaced: u64,
}

impl Sent {
    /// Takes the messages from the cloud among events.
    fn note(&mut self, events: Vec<Value>) {
        let messages = events.iter().filter(|event| event["event"] == "message");
        self.received
            .extend(messages.filter_map(|event| event["body"].as_str().map(str::to_owned)));
    }
}

impl Member {
    #[track_caller]
    pub(super) fn at_hub(language: Language, transport: Transport, hub: &Hub) -> Self {
        let name = format!("{language:?}-{}", transport.name()).to_lowercase();
        let device = hub.create_device(&name);
        let program = Program::start(|| Sdk::device(language, transport, hub, &device));
        Self::connected(name, transport, program)
    }

    #[track_caller]
    pub(super) fn at_edge(language: Language, transport: Transport, hub: &Hub, edge: &Edge, parent: &str) -> Self {
        let name = format!("edge-{language:?}-{}", transport.name()).to_lowercase();
        let device = hub.create_child(&name, parent);
        let program = Program::start(|| Sdk::device(language, transport, hub, &device).through(edge, &device));
        Self::connected(name, transport, program)
    }

    #[track_caller]
    pub(super) fn by_https(hub: &Hub, edge: Arc<Mutex<Edge>>, parent: &str) -> Self {
        let name = "edge-https".to_owned();
        let device = hub.create_child(&name, parent);
        let host = hub.host();
        Self {
            name,
            transport: Transport::Http,
            way: Way::Https(Box::new(OverHttps { device, host, edge })),
        }
    }

    #[track_caller]
    fn connected(name: String, transport: Transport, program: Program) -> Self {
        let mut member = Self {
            name,
            transport,
            way: Way::Sdk(Box::new(program)),
        };
        member.connect();
        member
    }

    /// Connects and listens, with another program if this one ends meanwhile; gives the events that went with it.
    #[track_caller]
    fn connect(&mut self) -> Vec<Value> {
        let listens = self.listens();
        let Way::Sdk(program) = &mut self.way else {
            return Vec::new();
        };
        let mut left = Vec::new();
        patience::wait(&format!("`{}` connects", self.name), PATIENCE, || {
            if program.is_gone() {
                left.extend(program.replace());
            }
            program.ask("connect", json!({})).map_err(Trouble::text)?;
            let wanted: &[&str] = if listens {
                &["messages", "methods", "desired"]
            } else {
                &[]
            };
            for what in wanted {
                program.ask("listen", json!({"what": what})).map_err(Trouble::text)?;
            }
            Ok(())
        });
        left
    }

    /// Whether it takes messages, methods and changes; over HTTPS a device only asks.
    pub(super) fn listens(&self) -> bool {
        self.transport != Transport::Http
    }

    pub(super) fn name(&self) -> String {
        self.name.clone()
    }

    /// Sends until it is told to stop.
    pub(super) fn work(mut self, stop: &AtomicBool) -> Sent {
        let mut sent = Sent {
            name: self.name.clone(),
            messages: 0,
            reported: None,
            received: BTreeSet::new(),
            refused: 0,
            replaced: 0,
        };
        while !stop.load(Ordering::Acquire) {
            let next = Instant::now() + PERIOD;
            self.send(&mut sent);
            sent.messages += 1;
            if self.listens() && sent.messages.is_multiple_of(REPORTS) && self.report(sent.messages) {
                sent.reported = Some(sent.messages);
            }
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        if self.listens() {
            // What stands in the end is compared with the hub's twin.
            let last = sent.messages + 1;
            patience::wait(&format!("the last report of `{}`", self.name), PATIENCE, || {
                if self.report(last) {
                    return Ok(());
                }
                if matches!(&self.way, Way::Sdk(program) if program.is_gone()) {
                    sent.note(self.connect());
                }
                Err("refused".to_owned())
            });
            sent.reported = Some(last);
        }
        if let Way::Sdk(program) = self.way {
            sent.replaced = program.replaced;
            sent.note(program.end());
        }
        sent
    }

    /// Sends a message until it is acknowledged.
    fn send(&mut self, sent: &mut Sent) {
        let began = Instant::now();
        let body = json!({"n": sent.messages}).to_string();
        loop {
            let outcome = match &mut self.way {
                Way::Sdk(program) => program.ask("send", json!({"body": body})).map(drop),
                Way::Https(https) => https.send(&body).map_err(Trouble::Refused),
            };
            let trouble = match outcome {
                Ok(()) => return,
                Err(Trouble::Gone) => {
                    sent.note(self.connect());
                    "its program ended".to_owned()
                }
                Err(refused) => refused.text(),
            };
            assert!(
                began.elapsed() < PATIENCE,
                "`{}` can't send message {} for {} s: {trouble}",
                self.name,
                sent.messages,
                PATIENCE.as_secs()
            );
            sent.refused += 1;
            std::thread::sleep(AFTER_REFUSAL);
        }
    }

    fn report(&mut self, number: u64) -> bool {
        match &mut self.way {
            Way::Sdk(program) => program.ask("report", json!({"patch": {"n": number}})).is_ok(),
            Way::Https(_) => false,
        }
    }
}

impl OverHttps {
    fn send(&self, body: &str) -> Result<(), String> {
        let resource = format!("{}/devices/{}", self.host, self.device.id);
        let token = Token::sign(&self.device.primary_key, &resource, 3600).text();
        let target = format!("/devices/{}/messages/events?api-version=2021-04-12", self.device.id);
        let headers = [("Authorization", token.as_str()), ("Content-Type", "application/json")];
        let answer = lock(&self.edge)
            .ask("POST", &target, &headers, body.as_bytes())
            .map_err(|error| format!("{error:#}"))?;
        match answer.status {
            204 => Ok(()),
            status => Err(format!("{status} {}", String::from_utf8_lossy(&answer.body))),
        }
    }
}

/// The text of a message from the cloud.
pub(super) fn text_of(number: u64) -> String {
    format!("c2d-{number}")
}

/// What a device was asked by a method, and answers.
pub(super) fn question(number: u64) -> Value {
    json!({"n": number})
}
