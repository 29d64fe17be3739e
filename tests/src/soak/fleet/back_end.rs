//! The back ends: messages to devices by both SDKs, their feedback, methods, desired properties.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::member::{Sent, question, text_of};
use super::program::{Program, Trouble};
use crate::hub::Hub;
use crate::{Language, Sdk, Transport, patience};

/// How often each back end does something.
const PERIOD: Duration = Duration::from_millis(500);
/// A restarted device may wait long until it connects again.
const FEEDBACK_PATIENCE: Duration = Duration::from_secs(300);

/// Refusals in a row after which a program is replaced.
const MOST_REFUSALS: u32 = 3;
/// With feedback under way all the time, one that hears none for so long has lost its connection.
const SILENCE: Duration = Duration::from_secs(40);

/// Back ends at work.
pub(super) struct BackEnd {
    senders: Vec<JoinHandle<Did>>,
    operator: JoinHandle<Operated>,
    listener: JoinHandle<BTreeMap<String, String>>,
    wanted: SyncSender<BTreeSet<String>>,
    devices: Vec<String>,
}

/// A program of a back end, which is replaced when it is no use any more.
struct Worker {
    program: Program,
    refusals: u32,
    begin: fn(&mut Program) -> Result<(), Trouble>,
}

impl Worker {
    #[track_caller]
    fn start(make: impl Fn() -> Sdk, begin: fn(&mut Program) -> Result<(), Trouble>) -> Self {
        let mut program = Program::start(make);
        begin(&mut program).expect("a back end begins");
        Self {
            program,
            refusals: 0,
            begin,
        }
    }

    fn call(&mut self, action: &str, arguments: Value) -> Result<Value, Trouble> {
        let outcome = self.program.ask(action, arguments);
        self.refusals = if outcome.is_ok() { 0 } else { self.refusals + 1 };
        if self.refusals >= MOST_REFUSALS || matches!(outcome, Err(Trouble::Gone)) {
            self.replace();
        }
        outcome
    }

    /// Starts another program; gives the events that nobody took.
    fn replace(&mut self) -> Vec<Value> {
        self.refusals = 0;
        let mut left = self.program.replace();
        patience::wait("a back end that begins anew", patience::long(), || {
            if self.program.is_gone() {
                left.extend(self.program.replace());
            }
            (self.begin)(&mut self.program).map_err(Trouble::text)
        });
        left
    }
}

#[expect(clippy::unnecessary_wraps, reason = "others have something to do first")]
fn at_once(_: &mut Program) -> Result<(), Trouble> {
    Ok(())
}

/// Listens for feedback.
fn listen(program: &mut Program) -> Result<(), Trouble> {
    program.ask("listen", json!({"what": "feedback"})).map(drop)
}

/// How much of what an SDK says is shown of a refusal: the rest names times and ids.
const SHOWN: usize = 60;

/// What a sender of messages did.
#[derive(Debug, Default)]
struct Did {
    /// Messages that the hub took, with their device and text.
    taken: BTreeMap<String, (String, String)>,
    /// How often it was refused, by what the SDK said first.
    refused: BTreeMap<String, u64>,
}

/// What the operator did.
#[derive(Debug, Default)]
struct Operated {
    answered: u64,
    unreached: u64,
    /// What was set last for each device.
    desired: BTreeMap<String, u64>,
}

impl BackEnd {
    #[track_caller]
    pub(super) fn start(hub: &Hub, devices: Vec<String>, stop: Arc<AtomicBool>) -> Self {
        let python = || Sdk::service(Language::Python, hub);
        let node = || Sdk::service(Language::Node, hub);
        let listener = Worker::start(node, listen);
        let senders = [
            ("python", Worker::start(python, at_once)),
            ("node", Worker::start(|| node().over(Transport::AmqpWs), at_once)),
        ];
        let senders = senders.into_iter().map(|(name, sdk)| {
            let (devices, stop) = (devices.clone(), Arc::clone(&stop));
            std::thread::spawn(move || send(name, sdk, &devices, &stop))
        });
        let senders = senders.collect();
        let operator = Worker::start(python, at_once);
        let operated = devices.clone();
        let (wanted, to_do) = sync_channel(1);
        Self {
            senders,
            operator: std::thread::spawn(move || operate(operator, &operated, &stop)),
            listener: std::thread::spawn(move || hear(listener, &to_do)),
            wanted,
            devices,
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.operator.is_finished() || self.listener.is_finished() || self.senders.iter().any(JoinHandle::is_finished)
    }

    /// Waits until every message that was taken has its feedback, and compares the twins.
    #[track_caller]
    pub(super) fn settle(self, hub: &Hub, sent: &BTreeMap<String, Sent>) -> Vec<String> {
        let mut taken = BTreeMap::new();
        let mut refused: BTreeMap<String, u64> = BTreeMap::new();
        for sender in self.senders {
            let did = sender.join().expect("a sender of messages works to the end");
            taken.extend(did.taken);
            for (reason, count) in did.refused {
                *refused.entry(reason).or_default() += count;
            }
        }
        let operated = self.operator.join().expect("the operator works to the end");
        self.wanted
            .send(taken.keys().cloned().collect())
            .expect("the listener works");
        let outcomes = self.listener.join().expect("the listener works to the end");
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for outcome in taken.keys().filter_map(|id| outcomes.get(id)) {
            *counts.entry(outcome).or_default() += 1;
        }
        assert!(
            counts.keys().all(|outcome| *outcome == "Success"),
            "messages to devices ended as {counts:?}"
        );
        for device in &self.devices {
            let wanted = sent.get(device).and_then(|sent| sent.reported);
            let twin = patience::wait(
                &format!("what `{device}` reported last at the hub"),
                patience::long(),
                || {
                    let twin = hub.service().call("GET", &format!("/twins/{device}"), None);
                    match twin["properties"]["reported"]["n"].as_u64() {
                        found if found == wanted => Ok(twin),
                        found => Err(format!("{found:?} and not {wanted:?}")),
                    }
                },
            );
            let desired = twin["properties"]["desired"]["n"].as_u64();
            assert_eq!(
                desired,
                operated.desired.get(device).copied(),
                "what was set last for `{device}`"
            );
        }
        let received: usize = sent.values().map(|sent| sent.received.len()).sum();
        let texts: BTreeSet<&str> = taken.values().map(|(_, text)| text.as_str()).collect();
        for (device, text) in taken.values() {
            let has = sent.get(device).is_some_and(|sent| sent.received.contains(text));
            assert!(has, "`{device}` acknowledged `{text}` and its program did not see it");
        }
        assert!(operated.answered > 0, "no method was answered");
        let tries: u64 = sent.values().map(|sent| sent.refused).sum();
        vec![
            format!(
                "messages to devices taken {}, {counts:?}, refused {refused:?}; devices saw {received} of {} texts",
                taken.len(),
                texts.len()
            ),
            format!(
                "methods answered {}, unreached {}; twins agree; {tries} attempts to send were refused and made again",
                operated.answered, operated.unreached
            ),
        ]
    }
}

fn send(name: &str, mut sdk: Worker, devices: &[String], stop: &AtomicBool) -> Did {
    let mut did = Did::default();
    for (number, device) in (0u64..).zip(devices.iter().cycle()) {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let id = format!("{name}-{number}");
        let text = format!("{name}-{}", text_of(number));
        let message = json!({"device": device, "body": text, "properties": {"messageId": id, "ack": "full"}});
        match sdk.call("send", message) {
            Ok(_) => {
                did.taken.insert(id, (device.clone(), text));
            }
            Err(trouble) => {
                let reason: String = trouble.text().chars().take(SHOWN).collect();
                *did.refused.entry(reason).or_default() += 1;
            }
        }
        std::thread::sleep(PERIOD);
    }
    did
}

fn operate(mut sdk: Worker, devices: &[String], stop: &AtomicBool) -> Operated {
    let mut operated = Operated::default();
    for (number, device) in (0u64..).zip(devices.iter().cycle()) {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let call = json!({"device": device, "method": "echo", "payload": question(number), "response_timeout": 10, "connect_timeout": 5});
        match sdk.call("invoke", call) {
            // An edge that is there and its device not: it answers for it.
            Ok(answer) if answer["status"] != 200 => operated.unreached += 1,
            Ok(answer) => {
                assert_eq!(
                    answer["payload"]["payload"],
                    question(number),
                    "`{device}` answered {answer}"
                );
                operated.answered += 1;
            }
            Err(_) => operated.unreached += 1,
        }
        let patch = json!({"device": device, "patch": {"desired": {"n": number}}});
        if sdk.call("update_twin", patch).is_ok() {
            operated.desired.insert(device.clone(), number);
        } else if let Some(last) = operated.desired.get(device) {
            // It may have been set all the same: set back what counts.
            let again = json!({"device": device, "patch": {"desired": {"n": last}}});
            patience::wait("a desired property that is set", patience::long(), || {
                sdk.call("update_twin", again.clone()).map_err(Trouble::text)
            });
        }
        std::thread::sleep(PERIOD);
    }
    operated
}

/// Hears feedback until all that is wanted in the end has come; gives the outcome of each message.
fn hear(mut sdk: Worker, to_do: &Receiver<BTreeSet<String>>) -> BTreeMap<String, String> {
    let mut outcomes = BTreeMap::new();
    let mut wanted: Option<(BTreeSet<String>, Instant)> = None;
    let mut heard = Instant::now();
    loop {
        match sdk.program.next_event(Duration::from_secs(1)) {
            Some(event) => {
                heard = Instant::now();
                note(&event, &mut outcomes);
            }
            None if heard.elapsed() > SILENCE || sdk.program.is_gone() => {
                heard = Instant::now();
                for event in sdk.replace() {
                    note(&event, &mut outcomes);
                }
            }
            None => {}
        }
        if let Ok(all) = to_do.try_recv() {
            wanted = Some((all, Instant::now() + FEEDBACK_PATIENCE));
        }
        if let Some((all, until)) = &wanted {
            let Some(missing) = all.iter().find(|id| !outcomes.contains_key(*id)) else {
                return outcomes;
            };
            assert!(Instant::now() < *until, "the message `{missing}` has no feedback");
        }
    }
}

/// Takes the records of feedback.
fn note(event: &Value, outcomes: &mut BTreeMap<String, String>) {
    let records: Vec<Value> = serde_json::from_value(event["data"].clone()).unwrap_or_default();
    for record in records {
        let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
        outcomes.insert(text("originalMessageId"), text("statusCode"));
    }
}
