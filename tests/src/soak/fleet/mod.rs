//! A fleet over every protocol, and back ends that read and write, while hub and edge are killed and restarted.
//!
//! ```text
//!   devices on SDKs: MQTT, MQTT-WS, AMQP, AMQP-WS, HTTPS ─────────────► hub ──► two readers of all events, Python and Node
//!   the same fleet again ──► edge (its way up by MQTT or AMQP) ───────►     ◄── messages to devices by both, feedback by Node
//!                                                                          ◄── methods, desired properties by Python
//! ```
//!
//! What must hold: every message that was acknowledged to its device reaches both readers, each sender's first arrivals in order; the
//! offsets of a partition never repeat and never go back, whoever reads and whatever was restarted; both readers see the same; every
//! message that the hub took for a device ends in feedback; twins agree in the end; the memory of hub and edge is flat.

mod back_end;
mod member;
mod memory;
mod program;
mod reader;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Chance, Plan};
use crate::edge::{self, Edge};
use crate::hub::Hub;
use crate::{Language, Setup, Transport, patience};
use back_end::BackEnd;
use member::{Member, Sent};
use memory::Memory;
use reader::{Reader, Seen};

/// The device that the edge is.
const GATEWAY: &str = "gateway-1";
/// The devices at the hub.
const AT_HUB: &[(Language, Transport)] = &[
    (Language::Python, Transport::Mqtt),
    (Language::Python, Transport::MqttWs),
    (Language::Node, Transport::Mqtt),
    (Language::Node, Transport::MqttWs),
    (Language::Node, Transport::Amqp),
    (Language::Node, Transport::AmqpWs),
    (Language::Node, Transport::Http),
];
/// The devices below the edge. The one over HTTPS is ours: the SDK's can't be told of a gateway.
const AT_EDGE: &[(Language, Transport)] = &[
    (Language::Python, Transport::Mqtt),
    (Language::Python, Transport::MqttWs),
    (Language::Node, Transport::Amqp),
    (Language::Node, Transport::AmqpWs),
];
/// From here on a run is long: restarts are rare, and memory has time to show that it grows.
const LONG: Duration = Duration::from_secs(600);

/// What is broken next.
#[derive(Clone, Copy, Debug)]
enum Fault {
    KillHub,
    RestartHub,
    KillEdge,
    RestartEdge,
}

const FAULTS: [Fault; 4] = [Fault::KillHub, Fault::KillEdge, Fault::RestartHub, Fault::RestartEdge];

pub(super) fn run(plan: Plan) -> Vec<String> {
    let mut chance = Chance(plan.seed);
    let mut site = Site::start(plan.seed.is_multiple_of(2));
    let mut memory = Memory::default();
    let until = Instant::now() + plan.time;
    let mut faults = 0;
    while Instant::now() < until {
        let pause = if plan.time >= LONG {
            chance.millis(240_000, 480_000)
        } else {
            // Each fault once.
            plan.time / u32::try_from(FAULTS.len() + 1).unwrap_or(1)
        };
        let pause = pause.min(until.saturating_duration_since(Instant::now()));
        site.watch(pause, &mut memory);
        if Instant::now() < until {
            site.strike(FAULTS[faults % FAULTS.len()], &mut memory);
            faults += 1;
        }
    }
    let mut verdict = vec![format!(
        "{} devices at the hub and {} below an edge whose way up is {}; {faults} times a hub or edge was killed or restarted",
        AT_HUB.len(),
        AT_EDGE.len() + 1,
        site.uplink
    )];
    verdict.extend(site.settle());
    verdict.extend(memory.verdict());
    verdict
}

struct Site {
    stop: Arc<AtomicBool>,
    members: Vec<JoinHandle<Sent>>,
    readers: Vec<(&'static str, Reader)>,
    back_end: BackEnd,
    edge: Arc<Mutex<Edge>>,
    hub: Hub,
    uplink: &'static str,
}

impl Site {
    #[track_caller]
    fn start(by_amqp: bool) -> Self {
        let hub = Hub::start();
        let device = hub.create_edge_device(GATEWAY);
        let uplink = if by_amqp { "amqp" } else { "mqtt" };
        let setup = Setup {
            holm: vec![if by_amqp {
                "hub_protocol = \"amqp\""
            } else {
                "hub_protocol = \"mqtt\""
            }],
            ..Setup::default()
        };
        let edge = Edge::start_with(&hub, &device, setup);
        let routes = json!({"up": "FROM /messages/* INTO $upstream"});
        edge::deploy(&hub, &device, &edge::manifest(&json!({}), &routes));
        edge.wait_for_link();
        let readers = vec![
            ("Python", Reader::start(Language::Python, "amqp", &hub)),
            ("Node", Reader::start(Language::Node, "amqp-ws", &hub)),
        ];
        let stop = Arc::new(AtomicBool::new(false));
        let mut members: Vec<Member> = AT_HUB
            .iter()
            .map(|(language, transport)| Member::at_hub(*language, *transport, &hub))
            .collect();
        members.extend(
            AT_EDGE
                .iter()
                .map(|(language, transport)| Member::at_edge(*language, *transport, &hub, &edge, GATEWAY)),
        );
        let listening = members
            .iter()
            .filter(|member| member.listens())
            .map(Member::name)
            .collect();
        let edge = Arc::new(Mutex::new(edge));
        members.push(Member::by_https(&hub, Arc::clone(&edge), GATEWAY));
        let back_end = BackEnd::start(&hub, listening, Arc::clone(&stop));
        let members = members
            .into_iter()
            .map(|member| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || member.work(&stop))
            })
            .collect();
        Self {
            stop,
            members,
            readers,
            back_end,
            edge,
            hub,
            uplink,
        }
    }

    /// Lets everybody work for a time; somebody who broke off ends the run.
    #[track_caller]
    fn watch(&self, time: Duration, memory: &mut Memory) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_secs(1).min(end.saturating_duration_since(Instant::now())));
            assert!(!self.members.iter().any(JoinHandle::is_finished), "a device broke off");
            assert!(
                !self.readers.iter().any(|(_, reader)| reader.is_finished()),
                "a reader broke off"
            );
            assert!(!self.back_end.is_finished(), "a back end broke off");
            memory.note("hub", self.hub.daemon().resident_kib());
            memory.note("edge", lock(&self.edge).daemon().resident_kib());
        }
    }

    #[track_caller]
    fn strike(&mut self, fault: Fault, memory: &mut Memory) {
        match fault {
            Fault::KillHub => self.hub.crash_and_restart(),
            Fault::RestartHub => {
                self.hub.stop();
                self.hub.restart();
            }
            Fault::KillEdge => {
                let mut edge = lock(&self.edge);
                edge.crash();
                edge.restart();
            }
            Fault::RestartEdge => {
                let mut edge = lock(&self.edge);
                let status = edge.stop();
                assert!(status.success(), "the edge ended with {status} after SIGTERM");
                edge.restart();
            }
        }
        match fault {
            Fault::KillHub | Fault::RestartHub => memory.restarted("hub"),
            Fault::KillEdge | Fault::RestartEdge => memory.restarted("edge"),
        }
    }

    /// Stops the devices, lets everything arrive, and compares.
    #[track_caller]
    fn settle(self) -> Vec<String> {
        self.stop.store(true, Ordering::Release);
        let joined = self
            .members
            .into_iter()
            .map(|member| member.join().expect("a device works to the end"));
        let sent: BTreeMap<String, Sent> = joined.map(|sent| (sent.name.clone(), sent)).collect();
        let mut verdict = self.back_end.settle(&self.hub, &sent);
        patience::wait("nothing that waits for the hub", 2 * patience::long(), || {
            let waiting = lock(&self.edge).status()["upstream"]["depth"].clone();
            if waiting == 0 { Ok(()) } else { Err(waiting.to_string()) }
        });
        let wanted: BTreeMap<&str, u64> = sent.values().map(|sent| (sent.name.as_str(), sent.messages)).collect();
        let seen: Vec<(&str, Seen)> = self
            .readers
            .into_iter()
            .map(|(name, reader)| (name, reader.finish(&wanted)))
            .collect();
        for (name, seen) in &seen {
            seen.assert_holds(name, &wanted);
        }
        if let [(first, one), (second, other)] = seen.as_slice() {
            // One of them may have stopped when it had what was wanted, with the last events of others still to come.
            for (partition, events) in &one.events {
                let others = other.events.get(partition).map_or(&[][..], Vec::as_slice);
                let both = events.len().min(others.len());
                assert!(
                    events.get(..both) == others.get(..both),
                    "{first} and {second} read other events in partition {partition}"
                );
            }
        }
        let replaced: u64 = sent.values().map(|sent| sent.replaced).sum();
        for (name, seen) in &seen {
            verdict.extend(
                seen.errors
                    .iter()
                    .map(|(error, count)| format!("{name}'s reader was told {count} times: {error}")),
            );
        }
        let all: u64 = wanted.values().sum();
        let slowest = wanted.iter().min_by_key(|(_, count)| **count);
        verdict.insert(
            0,
            format!(
                "messages acknowledged {all}, the fewest of one device {slowest:?}; lost 0, in order, duplicates {}; \
                 two readers saw the same {} events, no offset is missing or stands for two; {} events were read again, {} handed on before their turn by the Python SDK, {} reconnections; \
                 {replaced} programs of devices were ended by their SDK",
                seen.iter().map(|(_, seen)| seen.tally.duplicates()).max().unwrap_or_default(),
                seen.first().map_or(0, |(_, seen)| seen.events.values().map(Vec::len).sum::<usize>()),
                seen.iter().map(|(_, seen)| seen.repeats).sum::<u64>(),
                seen.iter().map(|(_, seen)| seen.shuffled).sum::<u64>(),
                seen.iter().map(|(_, seen)| seen.reconnections).sum::<u64>(),
            ),
        );
        verdict
    }
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
