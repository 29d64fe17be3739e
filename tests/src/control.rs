//! How a test steers a program that holds an SDK: commands and answers as JSON lines.
//!
//! ```text
//! test → program   {"id": 7, "do": "send", "body": "…"}
//! program → test   {"id": 7, "ok": …}   or   {"id": 7, "error": {"type": "CredentialError", "message": "…"}}
//! program → test   {"event": "method", "name": "reboot", …}        whenever something happens
//! ```
//!
//! The lines run over the program's standard input and output where the test starts it, and over TCP where an edge does: then
//! the program connects to the address in `HOLM_E2E_CONTROL`. The same programs serve both.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::patience;

/// Lines that wait to be looked at; at more the program waits.
const AHEAD: usize = 4096;

/// What a program says when it refuses or fails a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The name of the SDK's error type.
    pub kind: String,
    /// Its text.
    pub message: String,
}

/// The test's end of the line.
pub struct Control {
    name: String,
    output: Box<dyn Write + Send>,
    lines: Receiver<Value>,
    events: Vec<Value>,
    next_id: u64,
    gone: bool,
}

/// The program has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Control {
    /// A line over two streams.
    #[must_use]
    pub fn new(name: &str, input: impl Read + Send + 'static, output: impl Write + Send + 'static) -> Self {
        let (sender, lines) = sync_channel(AHEAD);
        let whose = name.to_owned();
        std::thread::spawn(move || {
            for line in BufReader::new(input).lines().map_while(Result::ok) {
                match serde_json::from_str(&line) {
                    Ok(value) => {
                        if sender.send(value).is_err() {
                            return;
                        }
                    }
                    // SDKs print warnings; they belong into the log of the test.
                    Err(_) => eprintln!("[{whose}] {line}"),
                }
            }
        });
        Self {
            name: name.to_owned(),
            output: Box::new(output),
            lines,
            events: Vec::new(),
            next_id: 0,
            gone: false,
        }
    }

    /// Gives a command and waits for the answer. `arguments` is an object; the program reads its members.
    ///
    /// # Errors
    /// What the SDK said when it refused or failed.
    ///
    /// # Panics
    /// When the program ends or does not answer.
    #[track_caller]
    pub fn try_call(&mut self, action: &str, arguments: Value) -> Result<Value, Failure> {
        let outcome = self.ask(action, arguments);
        outcome.unwrap_or_else(|Gone| panic!("`{}` ended before it answered `{action}`", self.name))
    }

    /// As [`try_call`](Self::try_call), to a program that may end at any time: some SDKs end theirs when a connection breaks.
    ///
    /// # Errors
    /// The program has ended.
    ///
    /// # Panics
    /// When it does not answer.
    #[track_caller]
    pub fn ask(&mut self, action: &str, mut arguments: Value) -> Result<Result<Value, Failure>, Gone> {
        self.next_id += 1;
        let id = self.next_id;
        arguments["id"] = id.into();
        arguments["do"] = action.into();
        let written = writeln!(self.output, "{arguments}").and_then(|()| self.output.flush());
        if written.is_err() {
            self.gone = true;
            return Err(Gone);
        }
        let deadline = Instant::now() + patience::long();
        loop {
            let Some(line) = self.next(deadline) else {
                assert!(self.gone, "`{}` did not answer `{action}`", self.name);
                return Err(Gone);
            };
            if line["id"] != id {
                self.events.push(line);
            } else if let Some(error) = line.get("error") {
                let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
                return Ok(Err(Failure {
                    kind: text("type"),
                    message: text("message"),
                }));
            } else {
                return Ok(Ok(line["ok"].clone()));
            }
        }
    }

    /// Gives a command that must succeed.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn call(&mut self, action: &str, arguments: Value) -> Value {
        self.try_call(action, arguments).unwrap_or_else(|failure| {
            panic!(
                "`{}` failed `{action}`: {}: {}",
                self.name, failure.kind, failure.message
            )
        })
    }

    /// Waits for an event that fits, which may have come before; it is taken out.
    ///
    /// # Panics
    /// When it does not come; with those that did.
    #[track_caller]
    pub fn event(&mut self, name: &str, accept: impl Fn(&Value) -> bool) -> Value {
        let fits = |event: &Value| event["event"] == name && accept(event);
        if let Some(index) = self.events.iter().position(&fits) {
            return self.events.remove(index);
        }
        let deadline = Instant::now() + patience::long();
        loop {
            match self.next(deadline) {
                Some(event) if fits(&event) => return event,
                Some(event) => self.events.push(event),
                None => panic!("`{}` had no such event `{name}`; it had {:#?}", self.name, self.events),
            }
        }
    }

    /// The next event, one that came before first; none when there is none in this time.
    #[must_use]
    pub fn next_event(&mut self, patience: Duration) -> Option<Value> {
        if self.events.is_empty() {
            return self.next(Instant::now() + patience);
        }
        Some(self.events.remove(0))
    }

    /// Takes the events that came and were not taken, also those that are on the line.
    #[must_use]
    pub fn take_left(&mut self) -> Vec<Value> {
        while let Some(event) = self.next(Instant::now()) {
            self.events.push(event);
        }
        std::mem::take(&mut self.events)
    }

    /// Events that came and were not taken.
    #[must_use]
    pub fn left(&self) -> &[Value] {
        &self.events
    }

    /// Whether the program is known to have ended.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        self.gone
    }

    fn next(&mut self, deadline: Instant) -> Option<Value> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(left) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.gone = true;
                None
            }
        }
    }
}

/// Where programs that somebody else starts call in.
#[derive(Debug)]
pub struct Switchboard {
    listener: TcpListener,
}

impl Switchboard {
    /// Listens on an address, on a free port.
    ///
    /// # Panics
    /// When that is not possible.
    #[must_use]
    pub fn open(ip: IpAddr) -> Self {
        let listener = TcpListener::bind((ip, 0)).unwrap_or_else(|error| panic!("no port on {ip}: {error}"));
        listener.set_nonblocking(true).expect("a listener can be asked");
        Self { listener }
    }

    /// The value for `HOLM_E2E_CONTROL`.
    ///
    /// # Panics
    /// Never: an open listener has an address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("an open listener has an address")
    }

    /// Waits for the next program that calls in. Its first line is `{"event": "hello", "name": …}`.
    ///
    /// # Panics
    /// When none does.
    #[track_caller]
    #[must_use]
    pub fn accept(&self) -> Control {
        let socket = patience::wait("a program that calls in", patience::long(), || {
            self.listener
                .accept()
                .map(|(socket, _)| socket)
                .map_err(|error| error.to_string())
        });
        socket.set_nonblocking(false).expect("a socket can be set");
        socket
            .set_write_timeout(Some(Duration::from_secs(20)))
            .expect("a socket can be set");
        let input = socket.try_clone().expect("a socket can be used twice");
        let mut control = Control::new("a program that called in", input, socket);
        let hello = control.event("hello", |_| true);
        hello["name"].as_str().unwrap_or_default().clone_into(&mut control.name);
        control
    }
}

impl Control {
    /// What the program calls itself: for modules of an edge, the module id.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}
