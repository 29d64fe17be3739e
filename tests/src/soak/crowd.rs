//! Many devices below an edge that behave as those on an SDK do: a session that is kept, messages of QoS 1, what was not
//! acknowledged sent again after a reconnect, a pause between attempts that grows.
//!
//! ```text
//! each client, in a thread:   connect ──► send a message every period, read what comes ──► closed ──► connect again
//!                                         {"of": …, "n": 0}, …                    (at once, then 50 ms, 100 ms, … 1 s)
//! ```

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::edge::Edge;
use crate::hub::{Device, Hub, MQTT_PORT};
use crate::patience;
use crate::wire::mqtt::{Arrival, Client, Connect, Packet};
use crate::wire::tls::{self, Place};

/// Messages of a client that may wait for their acknowledgement, as with the Python SDK.
const IN_FLIGHT: usize = 20;
/// The first and the longest pause between two attempts to connect; the SDKs have longer ones.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The stack of a client's thread: a TLS client and small buffers.
const STACK: usize = 512 * 1024;

/// The clients. They end with this value.
pub(super) struct Crowd {
    clients: Vec<(String, JoinHandle<u64>)>,
    state: Arc<State>,
}

/// What the clients tell while they run.
#[derive(Debug, Default)]
struct State {
    connected: AtomicU64,
    acknowledged: AtomicU64,
    /// Attempts that found nobody listening.
    refused: AtomicU64,
    /// Welcomes after the first that knew nothing of the session.
    forgotten: AtomicU64,
    ends: AtomicBool,
    /// How long each interruption was.
    interruptions: Mutex<Vec<Duration>>,
}

/// What happened to the crowd since it was last asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interruptions {
    pub(super) count: usize,
    pub(super) longest: Duration,
    pub(super) middle: Duration,
    pub(super) refused: u64,
}

/// What a client needs.
struct Member {
    place: Place,
    ca: PathBuf,
    hello: Connect,
    topic: String,
    listens: bool,
    period: Duration,
    state: Arc<State>,
}

impl Crowd {
    /// Lets these devices connect to an edge and send a message each period. Every tenth listens to methods. Those for whom
    /// `property` gives one have it in each message.
    #[track_caller]
    pub(super) fn gather(
        hub: &Hub,
        edge: &Edge,
        devices: &[Device],
        period: Duration,
        property: impl Fn(usize) -> Option<&'static str>,
    ) -> Self {
        let state = Arc::new(State::default());
        let ip = IpAddr::V4(edge.ip());
        let ca = edge.ca();
        let clients = devices.iter().enumerate().map(|(number, device)| {
            let bag = property(number).unwrap_or_default();
            let member = Member {
                place: Place { ip, name: ip },
                ca: ca.clone(),
                hello: hub.connect_packet(device),
                topic: format!("devices/{}/messages/events/{bag}", device.id),
                listens: number % 10 == 0,
                period,
                state: Arc::clone(&state),
            };
            let thread = std::thread::Builder::new().stack_size(STACK).name(device.id.clone());
            let running = thread.spawn(move || member.run()).expect("a thread can be started");
            (device.id.clone(), running)
        });
        Self {
            clients: clients.collect(),
            state,
        }
    }

    /// Waits until every client is connected and some more messages were acknowledged.
    #[track_caller]
    pub(super) fn wait_until_at_work(&self) {
        let all = self.clients.len() as u64;
        let before = self.state.acknowledged.load(Ordering::Relaxed);
        patience::wait("every client at work", 2 * patience::long(), || {
            let (connected, acknowledged) = (
                self.state.connected.load(Ordering::Relaxed),
                self.state.acknowledged.load(Ordering::Relaxed) - before,
            );
            if connected == all && acknowledged >= 2 * all {
                Ok(())
            } else {
                Err(format!(
                    "{connected} of {all} are connected, {acknowledged} messages were acknowledged"
                ))
            }
        });
    }

    /// What happened to the clients since this was last asked.
    pub(super) fn interruptions(&self) -> Interruptions {
        let mut all = std::mem::take(&mut *lock(&self.state.interruptions));
        all.sort();
        Interruptions {
            count: all.len(),
            longest: all.last().copied().unwrap_or_default(),
            middle: all.get(all.len() / 2).copied().unwrap_or_default(),
            refused: self.state.refused.swap(0, Ordering::Relaxed),
        }
    }

    /// Welcomes of clients that had been here that did not go on with their session.
    pub(super) fn forgotten(&self) -> u64 {
        self.state.forgotten.load(Ordering::Relaxed)
    }

    /// Lets everybody have the last messages acknowledged and go; how many each has sent.
    ///
    /// # Panics
    /// When a client has failed.
    #[track_caller]
    pub(super) fn dismiss(mut self) -> Vec<(String, u64)> {
        self.state.ends.store(true, Ordering::Relaxed);
        let clients = std::mem::take(&mut self.clients);
        let ended = clients.into_iter().map(|(name, client)| {
            let sent = client.join().unwrap_or_else(|_| panic!("`{name}` has failed"));
            (name, sent)
        });
        ended.collect()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.state.ends.store(true, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Member {
    /// Connects and sends until told to end; how many messages it has sent, each of them acknowledged.
    fn run(self) -> u64 {
        let mut waiting: VecDeque<(u16, u64)> = VecDeque::new();
        let mut sent = 0;
        let mut lost: Option<Instant> = None;
        loop {
            let Some(mut client) = self.connect(lost.is_some()) else {
                return sent;
            };
            self.state.connected.fetch_add(1, Ordering::Relaxed);
            if let Some(lost) = lost {
                lock(&self.state.interruptions).push(lost.elapsed());
            }
            let ended = self.work(&mut client, &mut waiting, &mut sent);
            self.state.connected.fetch_sub(1, Ordering::Relaxed);
            if ended {
                return sent;
            }
            lost = Some(Instant::now());
        }
    }

    /// A welcomed client; `None` when it is told to end before the first.
    fn connect(&self, again: bool) -> Option<Client> {
        let mut pause = PAUSES.0;
        let began = Instant::now();
        loop {
            match self.attempt() {
                Ok((client, session)) => {
                    if again && !session {
                        self.state.forgotten.fetch_add(1, Ordering::Relaxed);
                    }
                    return Some(client);
                }
                Err(error) => {
                    let refused = error.downcast_ref::<std::io::Error>();
                    if refused.is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
                        self.state.refused.fetch_add(1, Ordering::Relaxed);
                    }
                    assert!(
                        began.elapsed() < 2 * patience::long(),
                        "`{}`: {error:#}",
                        self.hello.client_id
                    );
                }
            }
            if !again && self.state.ends.load(Ordering::Relaxed) {
                return None;
            }
            std::thread::sleep(pause);
            pause = (2 * pause).min(PAUSES.1);
        }
    }

    fn attempt(&self) -> anyhow::Result<(Client, bool)> {
        let mut client = Client::new(tls::connect(self.place, MQTT_PORT, &self.ca, None)?);
        let session = client.open(&self.hello)?;
        if self.listens && !session {
            client.subscribe(&[("$iothub/methods/POST/#", 1)])?;
        }
        Ok((client, session))
    }

    /// Sends and reads until the connection ends (false), or everything is acknowledged after it was told to end (true).
    fn work(&self, client: &mut Client, waiting: &mut VecDeque<(u16, u64)>, sent: &mut u64) -> bool {
        for (id, number) in waiting.iter() {
            if client.publish_again(&self.topic, *id, &self.body(*number)).is_err() {
                return false;
            }
        }
        let mut due = Instant::now();
        loop {
            let ends = self.state.ends.load(Ordering::Relaxed);
            if ends && waiting.is_empty() {
                return true;
            }
            if !ends && Instant::now() >= due && waiting.len() < IN_FLIGHT {
                // It counts as sent from here on: the connection may end with it half-way.
                let published = client.publish(&self.topic, 1, false, &self.body(*sent));
                let id = published.as_ref().copied().unwrap_or_else(|_| client.last_id());
                waiting.push_back((id, *sent));
                *sent += 1;
                due += self.period;
                if published.is_err() {
                    return false;
                }
            }
            let patience = due.saturating_duration_since(Instant::now()).min(self.period);
            match client.arrival(patience.max(Duration::from_millis(1))) {
                Ok(Arrival::Packet(Packet::Puback(id))) => {
                    let first = waiting.pop_front();
                    assert_eq!(
                        first.map(|(id, _)| id),
                        Some(id),
                        "`{}`: acknowledged out of turn",
                        self.topic
                    );
                    self.state.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Arrival::Packet(_) | Arrival::Nothing) => {}
                Ok(Arrival::Closed) | Err(_) => return false,
            }
        }
    }

    fn body(&self, number: u64) -> Vec<u8> {
        format!("{{\"of\":\"{}\",\"n\":{number}}}", self.hello.client_id).into_bytes()
    }
}
