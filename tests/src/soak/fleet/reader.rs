//! A reader of all events on an SDK. It reads on where it was when its connection is gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::tally::Tally;
use super::program::Program;
use crate::hub::Hub;
use crate::{Language, Sdk, patience};

/// How long nothing may come before a reader is asked whether it still reads.
const LOOK: Duration = Duration::from_millis(500);
/// How far an SDK that shuffles is behind at most: what it has room for.
const MOST_EARLY: usize = 300;
/// How long a partition is left alone after its connection broke.
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// What a reader saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) tally: Tally,
    /// Device and body of each event, by partition and sequence number.
    pub(super) events: BTreeMap<String, Vec<(String, String)>>,
    /// Those that came before one that was due.
    early: BTreeMap<String, BTreeMap<usize, (String, String)>>,
    /// Whether its SDK hands on events in another order than they come: the Python one receives in two threads, of which one keeps
    /// the connection alive.
    shuffles: bool,
    /// How often it did.
    pub(super) shuffled: u64,
    /// Events that it was given again.
    pub(super) repeats: u64,
    /// How often it had to connect anew.
    pub(super) reconnections: u64,
    /// What its SDK complained of, and how often.
    pub(super) errors: BTreeMap<String, u64>,
}

/// A reader at work.
pub(super) struct Reader {
    wanted: SyncSender<BTreeMap<String, u64>>,
    thread: JoinHandle<Seen>,
    arrived: Arc<AtomicU64>,
}

impl Reader {
    #[track_caller]
    pub(super) fn start(language: Language, transport: &str, hub: &Hub) -> Self {
        let mut sdk = Program::start(|| Sdk::events(language, transport, hub));
        let found = sdk
            .ask("properties", json!({}))
            .expect("the Event Hub tells its partitions");
        let partitions: Vec<String> =
            serde_json::from_value(found["partitions"].clone()).expect("partitions have names");
        for partition in &partitions {
            let read = json!({"reader": partition, "partition": partition, "offset": "-1"});
            sdk.ask("read", read).expect("a partition is read");
        }
        let (wanted, to_do) = sync_channel(1);
        let arrived = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&arrived);
        let thread = std::thread::spawn(move || {
            let work = Work {
                sdk,
                partitions,
                seen: Seen {
                    shuffles: language == Language::Python,
                    ..Seen::default()
                },
                broken: BTreeMap::new(),
            };
            work.read(&to_do, &count)
        });
        Self {
            wanted,
            thread,
            arrived,
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until it has read what was sent, and gives what it saw.
    #[track_caller]
    pub(super) fn finish(self, wanted: &BTreeMap<&str, u64>) -> Seen {
        let wanted = wanted
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect();
        self.wanted.send(wanted).expect("the reader works");
        let read = self.arrived.load(Ordering::Relaxed);
        self.thread
            .join()
            .unwrap_or_else(|_| panic!("a reader broke off after {read} events"))
    }
}

struct Work {
    sdk: Program,
    partitions: Vec<String>,
    seen: Seen,
    /// Partitions whose connection broke, and when each is read again.
    broken: BTreeMap<String, Instant>,
}

impl Work {
    fn read(mut self, to_do: &Receiver<BTreeMap<String, u64>>, count: &AtomicU64) -> Seen {
        let mut wanted: Option<(BTreeMap<String, u64>, Instant)> = None;
        loop {
            match self.sdk.next_event(LOOK) {
                Some(event) => {
                    self.take(&event);
                    count.fetch_add(1, Ordering::Relaxed);
                }
                None => self.mend(),
            }
            if let Ok(all) = to_do.try_recv() {
                wanted = Some((all, Instant::now() + 2 * patience::long()));
            }
            if let Some((all, until)) = &wanted {
                let missing = all.iter().find(|(name, count)| self.seen.tally.of(name).next < **count);
                match missing {
                    None => return self.seen,
                    Some((name, count)) => assert!(
                        Instant::now() < *until,
                        "`{name}` sent {count} messages, and {:?} were read",
                        self.seen.tally.of(name)
                    ),
                }
            }
        }
    }

    fn take(&mut self, event: &Value) {
        self.note(event);
        self.mend();
    }

    fn note(&mut self, event: &Value) {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        match event["event"].as_str() {
            Some("read") => self.seen.take(event),
            // The SDK gave up on it: it is read on from where it was.
            Some("error") => {
                *self.seen.errors.entry(text("message")).or_default() += 1;
                self.broken
                    .entry(text("reader"))
                    .or_insert_with(|| Instant::now() + AFTER_ERROR);
            }
            _ => {}
        }
    }

    fn mend(&mut self) {
        let now = Instant::now();
        if self.sdk.is_gone() {
            for event in self.sdk.replace() {
                if event["event"] == "read" {
                    self.seen.take(&event);
                }
            }
            self.broken = self.partitions.iter().map(|name| (name.clone(), now)).collect();
        }
        let due: Vec<String> = self
            .broken
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(name, _)| name.clone())
            .collect();
        for partition in due {
            self.broken.remove(&partition);
            // One that has ended by itself can't be stopped.
            drop(self.sdk.ask("stop", json!({"reader": partition})));
            // What it read until then is seen first.
            while let Some(event) = self.sdk.next_event(Duration::ZERO) {
                self.note(&event);
            }
            let mut command = json!({"reader": partition, "partition": partition, "offset": "-1"});
            if let Some(last) = self
                .seen
                .events
                .get(&partition)
                .and_then(|seen| seen.len().checked_sub(1))
            {
                command = json!({"reader": partition, "partition": partition, "sequence": last, "inclusive": false});
            }
            if self.sdk.ask("read", command).is_err() {
                self.broken.insert(partition, now + AFTER_ERROR);
            }
            self.seen.reconnections += 1;
        }
    }
}

impl Seen {
    fn take(&mut self, event: &Value) {
        let partition = event["partition"].as_str().unwrap_or_default().to_owned();
        let sequence = event["sequence"]
            .as_i64()
            .unwrap_or_else(|| panic!("no sequence number: {event}"));
        let offset = event["offset"].as_str().and_then(|offset| offset.parse().ok());
        let offset: i64 = offset.unwrap_or_else(|| panic!("no offset: {event}"));
        assert_eq!(
            sequence, offset,
            "the offset of an event is its sequence number as text: {event}"
        );
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let what = (
            text(&event["system"]["iothub-connection-device-id"]),
            text(&event["body"]),
        );
        let sequence = usize::try_from(sequence).expect("sequence numbers begin at 0");
        let seen = self.events.entry(partition.clone()).or_default();
        let early = self.early.entry(partition.clone()).or_default();
        // An SDK that connects anew asks again from the last event that it handed on, and hands on what it had as well.
        if let Some(before) = seen.get(sequence).or_else(|| early.get(&sequence)) {
            assert_eq!(
                *before, what,
                "sequence {sequence} of partition {partition} was another event before"
            );
            self.repeats += 1;
            return;
        }
        if sequence != seen.len() {
            let gap = sequence.saturating_sub(seen.len());
            assert!(
                self.shuffles && gap <= MOST_EARLY,
                "{} was due in partition {partition}: {event}",
                seen.len()
            );
            early.insert(sequence, what);
            self.shuffled += 1;
            return;
        }
        let mut next = Some(what);
        while let Some((device, body)) = next {
            if let Some(number) = serde_json::from_str::<Value>(&body).unwrap_or_default()["n"].as_u64() {
                self.tally.add(&device, number);
            }
            seen.push((device, body));
            next = early.remove(&seen.len());
        }
    }

    /// Checks that everything of everybody came, in order.
    #[track_caller]
    pub(super) fn assert_holds(&self, reader: &str, wanted: &BTreeMap<&str, u64>) {
        self.tally.assert_in_order();
        for (name, count) in wanted {
            let seen = self.tally.of(name).next;
            // The last one may have been taken and its acknowledgement lost; it was then sent again, and is counted.
            assert!(
                seen >= *count,
                "{reader} read {seen} of the {count} messages of `{name}`"
            );
        }
    }
}
