//! A connection to a NATS server that publishes and waits for answers, without a socket.
//!
//! ```text
//! LoggingIn --PONG to the PING behind CONNECT--> Open --> Closed                  any state can go to Closed
//!
//! ours    CONNECT {…}␍␊ PING␍␊ SUB {inbox}* 1␍␊ HPUB {subject} {inbox}{ticket} {bytes of headers} {bytes of all}␍␊{headers}{payload}␍␊
//! theirs  PONG␍␊ PING␍␊ +OK␍␊ -ERR '…'␍␊ INFO {…}␍␊ MSG {inbox}{ticket} 1 {bytes}␍␊{payload}␍␊ HMSG … {bytes of headers} {bytes of all}␍␊…
//! ```
//!
//! - What the server says is bounded: a line, an answer, and what waits to be read.
//! - Every end is told once, by [`Event::Closed`]. Every `-ERR` is an end: those that others live with (no right to publish) leave a
//!   message without an answer.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Buf as _, BytesMut};
use holm_identity::Secret;
use holm_model::hex;
use holm_net::Protocol;
use holm_net::clock::instant;

use super::answer::Answer;

/// The longest line: an INFO with the addresses of a large cluster.
pub(super) const MAX_LINE: usize = 64 * 1024;
/// The largest answer; those of a JetStream have a few hundred bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// When so many bytes wait to be sent, nothing more is published.
const MAX_OUTPUT: usize = 1024 * 1024;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The server has let us in.
    Open,
    /// A message was answered.
    Answered {
        /// Which.
        ticket: u64,
        /// What became of it.
        answer: Answer,
    },
    /// The connection is over, and why.
    Closed(String),
}

/// Why a message is not published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PublishError {
    /// Too much is on its way.
    #[error("too much is on its way")]
    Full,
    /// The connection is over, or not yet open.
    #[error("the connection is not open")]
    Closed,
    /// The server takes no message so large.
    #[error("it has {bytes} bytes with its headers, and the server takes {limit} at most (`max_payload`)")]
    TooLarge {
        /// How many it has.
        bytes: usize,
        /// How many it may have.
        limit: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    LoggingIn,
    Open,
    Closed,
}

/// A connection. [`Protocol`] drives it.
#[derive(Debug)]
pub(super) struct Session {
    state: State,
    input: BytesMut,
    output: BytesMut,
    events: VecDeque<Event>,
    inbox: String,
    next: u64,
    /// How many messages were sent and not answered.
    on_their_way: usize,
    window: usize,
    max_payload: usize,
}

impl Session {
    /// A connection on which `hello`, the document of CONNECT, is the first thing to leave.
    pub(super) fn new(hello: &Secret, inbox: &[u8], max_payload: usize, window: usize) -> Self {
        let name = format!("_INBOX.{}.", hex::encode(inbox));
        let mut output = BytesMut::new();
        for piece in ["CONNECT ", hello.expose(), "\r\nPING\r\nSUB ", &name, "* 1\r\n"] {
            output.extend_from_slice(piece.as_bytes());
        }
        Self {
            state: State::LoggingIn,
            input: BytesMut::new(),
            output,
            events: VecDeque::new(),
            inbox: name,
            next: 0,
            on_their_way: 0,
            window,
            max_payload,
        }
    }

    /// Publishes a message; its answer names the ticket that is given.
    ///
    /// # Errors
    /// [`PublishError`]; nothing was sent.
    pub(super) fn publish(&mut self, subject: &str, headers: &[u8], payload: &[u8]) -> Result<u64, PublishError> {
        if self.state != State::Open {
            return Err(PublishError::Closed);
        }
        let bytes = headers.len() + payload.len();
        if self.max_payload > 0 && bytes > self.max_payload {
            let limit = self.max_payload;
            return Err(PublishError::TooLarge { bytes, limit });
        }
        if self.on_their_way >= self.window || self.output.len() > MAX_OUTPUT {
            return Err(PublishError::Full);
        }
        let ticket = self.next;
        let line = format!("HPUB {subject} {}{ticket} {} {bytes}\r\n", self.inbox, headers.len());
        self.output.reserve(line.len() + bytes + 2);
        for piece in [line.as_bytes(), headers, payload, b"\r\n"] {
            self.output.extend_from_slice(piece);
        }
        self.next += 1;
        self.on_their_way += 1;
        Ok(ticket)
    }

    /// Ends the connection from this side.
    pub(super) fn close(&mut self) {
        self.end("closed by this side");
    }

    fn end(&mut self, why: impl Into<String>) {
        if self.state != State::Closed {
            self.state = State::Closed;
            self.input = BytesMut::new();
            self.events.push_back(Event::Closed(why.into()));
        }
    }

    /// Handles what has come, as far as it is whole.
    fn process(&mut self) {
        while self.state != State::Closed {
            match self.next_line() {
                Ok(true) => {}
                Ok(false) => return,
                Err(why) => self.end(why),
            }
        }
    }

    /// Handles a line and what belongs to it; false when it is not there yet.
    fn next_line(&mut self) -> Result<bool, String> {
        let end = self.input.windows(2).position(|pair| pair == b"\r\n");
        // However the bytes come, a line of this length is an error.
        if end.unwrap_or_else(|| self.input.len().saturating_sub(1)) >= MAX_LINE {
            return Err("the server sends a line without an end".to_owned());
        }
        let Some(length) = end else { return Ok(false) };
        let line = String::from_utf8_lossy(self.input.get(..length).unwrap_or_default()).into_owned();
        let (verb, rest) = line.split_once([' ', '\t']).unwrap_or((&line, ""));
        let is = |name: &str| verb.eq_ignore_ascii_case(name);
        if is("MSG") || is("HMSG") {
            let Some(body) = self.body(length + 2, rest, is("HMSG"))? else {
                return Ok(false);
            };
            self.answered(rest, &body);
            return Ok(true);
        }
        self.input.advance(length + 2);
        if is("PING") {
            self.output.extend_from_slice(b"PONG\r\n");
        } else if is("PONG") {
            if self.state == State::LoggingIn {
                self.state = State::Open;
                self.events.push_back(Event::Open);
            }
        } else if is("-ERR") {
            return Err(refusal(rest.trim().trim_matches('\'')));
        } else if !is("+OK") && !is("INFO") {
            return Err("the server says what is no NATS".to_owned());
        }
        Ok(true)
    }

    /// Takes the line and the bytes behind it, of which the numbers at its end tell how many there are.
    fn body(&mut self, begin: usize, line: &str, has_headers: bool) -> Result<Option<Body>, String> {
        let mut words = line.split_ascii_whitespace().rev();
        let mut number = || {
            let number = words.next().and_then(|word| word.parse::<usize>().ok());
            number.filter(|number| *number <= MAX_ANSWER)
        };
        let sizes = number().and_then(|all| {
            let headers = if has_headers { number()? } else { 0 };
            (headers <= all).then_some((headers, all))
        });
        let Some((headers, all)) = sizes else {
            return Err("the server sends an answer whose length can't be".to_owned());
        };
        if self.input.len() < begin + all + 2 {
            return Ok(None);
        }
        self.input.advance(begin);
        let bytes = self.input.split_to(all);
        if self.input.split_to(2) != b"\r\n"[..] {
            return Err("the server sends an answer of another length than it says".to_owned());
        }
        Ok(Some(Body { headers, bytes }))
    }

    fn answered(&mut self, line: &str, body: &Body) {
        let subject = line.split_ascii_whitespace().next().unwrap_or_default();
        let ticket = subject.strip_prefix(&self.inbox).and_then(|ticket| ticket.parse().ok());
        // What is for no ticket is nothing that we asked for.
        if let Some(ticket) = ticket.filter(|ticket| *ticket < self.next) {
            let (headers, payload) = body.bytes.split_at(body.headers.min(body.bytes.len()));
            self.on_their_way = self.on_their_way.saturating_sub(1);
            let answer = Answer::read(headers, payload);
            self.events.push_back(Event::Answered { ticket, answer });
        }
    }
}

/// Headers and payload of a message.
struct Body {
    headers: usize,
    bytes: BytesMut,
}

/// What the server says at the end of a connection, with what helps.
fn refusal(said: &str) -> String {
    let lower = said.to_ascii_lowercase();
    let way_out = if lower.starts_with("authorization") || lower.contains("authentication") {
        "; check `user`, `password`, `token`, `credentials`, `nkeySeed` and the client certificate"
    } else if lower.starts_with("permissions violation for subscription") {
        "; the user must be allowed to subscribe to `_INBOX.>`, where answers go"
    } else if lower.starts_with("permissions violation") {
        "; the user must be allowed to publish there"
    } else {
        ""
    };
    format!("the server says: {said}{way_out}")
}

impl Protocol for Session {
    type Event = Event;

    fn input_buffer(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    fn handle_input(&mut self, _now: Instant) {
        if self.state == State::Closed {
            self.input.clear();
        }
        self.process();
    }

    fn handle_end(&mut self) {
        self.output.clear();
        self.end("the connection was lost");
    }

    fn wants_input(&self) -> bool {
        // Each answer is of a message on its way, so events are bounded by the window.
        self.state != State::Closed && self.output.len() <= MAX_OUTPUT
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn poll_transmit(&mut self, out: &mut BytesMut) {
        out.extend_from_slice(&self.output);
        self.output.clear();
    }

    fn poll_event(&mut self, wanted: &impl Fn(&Event) -> bool) -> Option<Event> {
        let index = self.events.iter().position(wanted)?;
        self.events.remove(index)
    }
}

/// Hears what a server says, in one piece and byte by byte, on a connection that has a message on its way. Tells whether both ways
/// came to the same; for tests with random input.
pub(super) fn hears_the_same(said: &[u8]) -> bool {
    let hear = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut session = Session::new(&Secret::new("{}"), &[0xab], 1024, 2);
        let (mut events, mut output) = (Vec::new(), BytesMut::new());
        for piece in pieces {
            if !session.wants_input() {
                break;
            }
            session.input_buffer().extend_from_slice(piece);
            session.handle_input(instant());
            while let Some(event) = session.poll_event(&|_| true) {
                let is_open = event == Event::Open;
                events.push(event);
                if is_open && session.publish("s", b"NATS/1.0\r\n\r\n", b"").is_err() {
                    return None;
                }
            }
            session.poll_transmit(&mut output);
        }
        Some((events, output))
    };
    // An answer to the message may stand in the same piece as what opens the connection, before the message was sent.
    let opening = b"PONG\r\n";
    let whole = hear(&mut [&opening[..], said].into_iter());
    let bytes = hear(&mut std::iter::once(&opening[..]).chain(said.chunks(1)));
    whole.is_some() && whole == bytes
}

#[cfg(test)]
mod tests;
