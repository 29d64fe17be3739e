//! What this side sent and waits to hear about: publishes of QoS 1, and a client's requests. It gives out packet ids.
//!
//! ```text
//!   publish --> [ id 1, token 0 | id 2, token 1 | … ]  at most `window`, in the order sent
//!   PUBACK 1 -> token 0                                 the caller learns of it by token
//!   lost -----> messages in the order sent, DUP set     to be sent again on the next session
//! ```
//!
//! Invariants: an id is not given out while anything waits under it; tokens and requests are numbered without reuse; what
//! waits is bounded by `window` and `max_requests`.

use std::collections::VecDeque;

use crate::packet::PacketId;
use crate::session::Message;

/// An outbound message of QoS 1; unique within its session, in the order of publishing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

/// A SUBSCRIBE or UNSUBSCRIBE, sent or received; unique within its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(crate) u64);

/// The largest window: far below the 65,535 ids, so that a free one is always near.
const MAX_WINDOW: usize = 8192;

/// What a request asked for, with the number of its filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Subscribe(usize),
    Unsubscribe,
}

/// A SUBSCRIBE or UNSUBSCRIBE that waits for its answer: from the peer in a client, from the application in a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) request: RequestId,
    pub(crate) id: PacketId,
    pub(crate) asked: Asked,
}

/// Outbound messages that wait for their PUBACK, and the packet ids of this side.
#[derive(Debug)]
pub(crate) struct Flow {
    window: usize,
    next_id: u16,
    /// How many ids from `next_id` on are known to be free.
    known_free: u16,
    next_token: u64,
    in_flight: VecDeque<(PacketId, Token, Message)>,
}

impl Flow {
    pub(crate) fn new(window: u16) -> Self {
        Self {
            window: usize::from(window).clamp(1, MAX_WINDOW),
            next_id: 1,
            known_free: u16::MAX,
            next_token: 0,
            in_flight: VecDeque::new(),
        }
    }

    /// Gives back the room of messages that were acknowledged, if none waits.
    pub(crate) fn give_back(&mut self) {
        if self.in_flight.is_empty() {
            self.in_flight = VecDeque::new();
        }
    }

    /// How many more messages of QoS 1 may be sent now.
    pub(crate) fn free(&self) -> usize {
        self.window.saturating_sub(self.in_flight.len())
    }

    /// A packet id that no outbound message and no request uses.
    pub(crate) fn allocate(&mut self, requests: &Requests) -> PacketId {
        loop {
            if self.known_free == 0 {
                self.known_free = self.free_run(requests);
            }
            let number = self.next_id;
            self.next_id = number.checked_add(1).unwrap_or(1);
            if let Some(left) = self.known_free.checked_sub(1) {
                self.known_free = left;
                if let Some(id) = PacketId::new(number) {
                    return id;
                }
            }
        }
    }

    /// The distance from `next_id` to the nearest id in use, going up and around.
    fn free_run(&self, requests: &Requests) -> u16 {
        let sent = self.in_flight.iter().map(|(id, ..)| *id);
        let asked = requests.waiting.iter().map(|request| request.id);
        sent.chain(asked)
            .map(|id| match id.get().checked_sub(self.next_id) {
                Some(distance) => distance,
                None => u16::MAX - self.next_id + id.get(),
            })
            .min()
            .unwrap_or(u16::MAX)
    }

    /// Notes a message that was sent.
    pub(crate) fn sent(&mut self, id: PacketId, message: Message) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.in_flight.push_back((id, token, message));
        token
    }

    /// The bytes of the message that should be acknowledged next; 0 when none waits.
    pub(crate) fn next_bytes(&self) -> usize {
        let bytes = |(_, _, message): &(PacketId, Token, Message)| message.topic.len() + message.payload.len();
        self.in_flight.front().map_or(0, bytes)
    }

    /// Takes the message that a PUBACK names; none when nothing waits under that id. Peers acknowledge in order, so the
    /// first one is nearly always it.
    pub(crate) fn acknowledged(&mut self, id: PacketId) -> Option<Token> {
        let index = self.in_flight.iter().position(|(sent, ..)| *sent == id)?;
        let (_, token, _) = self.in_flight.remove(index)?;
        Some(token)
    }

    /// What was not acknowledged, in the order sent, marked as sent before.
    pub(crate) fn into_unacknowledged(self) -> Vec<(Token, Message)> {
        self.in_flight
            .into_iter()
            .map(|(_, token, message)| (token, Message { dup: true, ..message }))
            .collect()
    }

    #[cfg(test)]
    pub(crate) fn starting_at(window: u16, next_id: u16) -> Self {
        Self {
            next_id,
            ..Self::new(window)
        }
    }
}

/// Requests that wait for their answer.
#[derive(Debug)]
pub(crate) struct Requests {
    limit: usize,
    next: u64,
    waiting: VecDeque<Request>,
}

impl Requests {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            next: 0,
            waiting: VecDeque::new(),
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= self.limit
    }

    /// Whether a request waits under that packet id.
    pub(crate) fn uses(&self, id: PacketId) -> bool {
        self.waiting.iter().any(|request| request.id == id)
    }

    pub(crate) fn add(&mut self, id: PacketId, asked: Asked) -> RequestId {
        let request = RequestId(self.next);
        self.next += 1;
        self.waiting.push_back(Request { request, id, asked });
        request
    }

    pub(crate) fn get(&self, request: RequestId) -> Option<Request> {
        self.waiting.iter().find(|known| known.request == request).copied()
    }

    pub(crate) fn get_by_id(&self, id: PacketId) -> Option<Request> {
        self.waiting.iter().find(|known| known.id == id).copied()
    }

    pub(crate) fn remove(&mut self, request: RequestId) {
        self.waiting.retain(|known| known.request != request);
    }
}
