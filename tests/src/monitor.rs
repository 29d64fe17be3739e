//! The events in a hub's log, read through `holm monitor`.
//!
//! The names of an event's members are read here and nowhere else in the tests.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::hub::Hub;
use crate::patience;

/// Events that wait to be looked at; at more the command waits.
const AHEAD: usize = 4096;

/// An event of the hub's log.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The device that sent it, as the hub stamped it.
    pub device: String,
    /// The module that sent it, if it was one.
    pub module: Option<String>,
    /// The body: JSON where it is JSON, else text.
    pub body: Value,
    /// Application properties.
    pub properties: Value,
    /// System properties, by their names in routes.
    pub system: Value,
    /// The line as it came.
    pub line: String,
}

impl Event {
    pub(crate) fn parse(line: String) -> Self {
        let value: Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("`holm monitor` printed `{line}`: {error}"));
        let system = |name: &str| value["systemProperties"][name].as_str().map(str::to_owned);
        Self {
            device: system("connectionDeviceId").unwrap_or_default(),
            module: system("connectionModuleId"),
            body: value["body"].clone(),
            properties: value["properties"].clone(),
            system: value["systemProperties"].clone(),
            line,
        }
    }
}

/// Reads everything that a hub's log holds by now, an event at a time: for logs of millions.
///
/// # Panics
/// When the command fails.
#[track_caller]
pub fn read_log(hub: &Hub, mut take: impl FnMut(Event)) {
    let mut command = hub.command(&["monitor", "--from", "start", "--json"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = child.expect("the binary can be started");
    let output = child.stdout.take().expect("the output is a pipe");
    for line in BufReader::new(output).lines() {
        take(Event::parse(line.expect("`holm monitor` prints text")));
    }
    let status = child.wait().expect("a child can be waited for");
    assert!(status.success(), "`holm monitor` ended with {status}");
}

/// A running `holm monitor` that began at the first event. What was read is kept, so that waits may come in any order.
#[derive(Debug)]
pub struct Monitor {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<Event>,
}

impl Monitor {
    #[track_caller]
    pub(crate) fn start(hub: &Hub) -> Self {
        let mut command = hub.command(&["monitor", "--from", "start", "--follow", "--json"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("the binary can be started");
        let output = child.stdout.take().expect("the output is a pipe");
        let (sender, lines) = sync_channel(AHEAD);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// Everything seen so far.
    #[must_use]
    pub fn seen(&self) -> &[Event] {
        &self.seen
    }

    /// Waits for an event, which may have come before.
    ///
    /// # Panics
    /// When it does not come; with the last events that did.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, accept: impl Fn(&Event) -> bool) -> Event {
        if let Some(event) = self.seen.iter().find(|event| accept(event)) {
            return event.clone();
        }
        let deadline = Instant::now() + patience::short();
        loop {
            match self.next(deadline.saturating_duration_since(Instant::now())) {
                Some(event) if accept(&event) => return event,
                Some(_) => {}
                None => panic!("{what}: no such event; the last were {:#?}", self.last()),
            }
        }
    }

    /// Waits until what was seen fulfils a condition.
    ///
    /// # Panics
    /// When it does not; with the last events.
    #[track_caller]
    pub fn wait_until(&mut self, what: &str, enough: impl Fn(&[Event]) -> bool) {
        let deadline = Instant::now() + patience::long();
        while !enough(&self.seen) {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.next(left).is_none() {
                panic!(
                    "{what}: not after {} events; the last were {:#?}",
                    self.seen.len(),
                    self.last()
                );
            }
        }
    }

    /// Takes the next event without keeping it, for runs of millions; `None` when none comes in time.
    pub fn take(&mut self, patience: Duration) -> Option<Event> {
        self.lines.recv_timeout(patience).ok().map(Event::parse)
    }

    fn next(&mut self, patience: Duration) -> Option<Event> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => {
                let event = Event::parse(line);
                self.seen.push(event.clone());
                Some(event)
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }

    fn last(&self) -> Vec<&str> {
        self.seen
            .iter()
            .rev()
            .take(5)
            .rev()
            .map(|event| event.line.as_str())
            .collect()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
