//! What goes out on links: deliveries in frames, as the peer's credit, its session window and the output have room, and the
//! outcomes that the peer gives them.
//!
//! ```text
//!   send, send_later --> queue of the link --> ring of links that are ready --> a frame of each in turn --> output
//!                        bounded by bytes      out of it: no credit, no window, nothing to send
//! ```
//!
//! Links take turns by the frame, so that a large delivery on one holds up no other. A link that has no room leaves the ring
//! until a flow lets it in again.

use bytes::Bytes;

use super::{Connection, Event, SendError, State};
use crate::link::{Link, LinkEnd, LinkId, LinkState, Outgoing, Sender, Token};
use crate::performative::{DeliveryState, DeliveryTag, Disposition, Role, SenderSettleMode, Transfer};

/// What a delivery counts in a queue beside its bytes, so that empty ones are bounded too.
const DELIVERY_COST: usize = 128;

/// The largest delivery, whatever the peer takes: lengths have four bytes on the wire.
const LARGEST: u64 = u32::MAX as u64;

/// A delivery to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// What it is called; unique among those of its link that wait for their outcome.
    pub tag: DeliveryTag,
    /// What its bytes are: 0 for a [`Message`](crate::Message), or
    /// [`BATCH_FORMAT`](crate::message::BATCH_FORMAT).
    pub format: u32,
    /// Its bytes.
    pub payload: Bytes,
    /// Whether no outcome is wanted. The link's mode comes first unless it is
    /// [`SenderSettleMode::Mixed`](crate::performative::SenderSettleMode::Mixed).
    pub settled: bool,
}

impl Connection {
    /// Sends a delivery: gives the token that [`Event::Settled`] will name, or none when no outcome is wanted.
    ///
    /// # Errors
    /// A [`SendError`]; nothing was sent, and the delivery is still the caller's.
    pub fn send(&mut self, link: LinkId, delivery: &Outbound) -> Result<Option<Token>, SendError> {
        self.check_send(link, true)?;
        self.queue(link, delivery)
    }

    /// Sends a delivery as soon as the peer gives credit for it: for answers, whose askers may give credit only after they
    /// asked, as most SDKs do at `$cbs`. What waits is bounded as that of [`send`](Self::send), and needs no looking after.
    ///
    /// # Errors
    /// A [`SendError`], never [`SendError::NoCredit`]; nothing was sent, and the delivery is still the caller's.
    pub fn send_later(&mut self, link: LinkId, delivery: &Outbound) -> Result<Option<Token>, SendError> {
        self.check_send(link, false)?;
        self.queue(link, delivery)
    }

    fn queue(&mut self, link: LinkId, delivery: &Outbound) -> Result<Option<Token>, SendError> {
        let bytes = delivery.payload.len();
        let session = self.sessions.live(link.session).ok_or(SendError::NotAttached)?;
        let known = session.known(link).ok_or(SendError::NotAttached)?;
        let settled = match known.snd_settle_mode {
            SenderSettleMode::Mixed => delivery.settled,
            mode => mode == SenderSettleMode::Settled,
        };
        let sender = known.sender().ok_or(SendError::NotAttached)?;
        let limit = match sender.max_message_size {
            0 => LARGEST,
            limit => limit.min(LARGEST),
        };
        if u64::try_from(bytes).unwrap_or(u64::MAX) > limit {
            return Err(SendError::TooLarge { bytes, limit });
        }
        sender.unsettled += usize::from(!settled);
        let number = session.outbound.name();
        if let Some(sender) = session.link(link.handle).and_then(|known| known.sender()) {
            sender.queued_bytes += bytes + DELIVERY_COST;
            sender.queue.push_back(Outgoing {
                number,
                tag: delivery.tag.clone(),
                format: delivery.format,
                settled,
                rest: delivery.payload.clone(),
                begun: false,
            });
        }
        self.queued_bytes += bytes + DELIVERY_COST;
        self.wake_sender(link.session.channel, link.handle);
        self.pump();
        Ok((!settled).then_some(Token { link, number }))
    }

    /// Whether a delivery of usual size would be taken now.
    #[must_use]
    pub fn can_send(&self, link: LinkId) -> bool {
        self.check_send(link, true).is_ok()
    }

    /// Whether so many bytes wait on all links together that none of them takes more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.queued_bytes > self.config.max_queued
    }

    fn check_send(&self, link: LinkId, needs_credit: bool) -> Result<(), SendError> {
        if self.state != State::Open || self.ended() {
            return Err(SendError::NotAttached);
        }
        let known = self.sessions.look(link.session).and_then(|session| session.look(link));
        let Some(Link {
            state: LinkState::Attached,
            end: LinkEnd::Sender(sender),
            ..
        }) = known
        else {
            return Err(SendError::NotAttached);
        };
        if needs_credit && sender.free_credit() == 0 {
            return Err(SendError::NoCredit);
        }
        if sender.unsettled >= self.config.max_unsettled {
            return Err(SendError::WindowFull);
        }
        if self.is_full() || sender.queued_bytes > self.config.max_link_queue {
            return Err(SendError::QueueFull);
        }
        Ok(())
    }

    /// Lets a link into the ring if it has something to send.
    pub(super) fn wake_sender(&mut self, channel: u16, handle: u32) {
        let Some(session) = self.sessions.get(channel) else {
            return;
        };
        let id = session.id;
        let Some(link) = session.link(handle) else {
            return;
        };
        let serial = link.serial;
        let sender = link.sender().filter(|sender| !sender.ready && !sender.queue.is_empty());
        if let Some(sender) = sender {
            sender.ready = true;
            self.ready.push_back(LinkId {
                session: id,
                handle,
                serial,
            });
        }
    }

    /// Lets all links of a session into the ring that have something to send.
    pub(super) fn wake_senders(&mut self, channel: u16) {
        let handles: Vec<u32> = match self.sessions.get(channel) {
            Some(session) => session.handles().collect(),
            None => return,
        };
        for handle in handles {
            self.wake_sender(channel, handle);
        }
    }

    /// Writes frames of deliveries while there is room for them.
    pub(super) fn pump(&mut self) {
        while self.state == State::Open && !self.output_is_full() {
            let Some(link) = self.ready.pop_front() else {
                return;
            };
            if self.send_frame(link) {
                self.ready.push_back(link);
            }
        }
    }

    /// Writes one frame of a link; whether it may write another one.
    fn send_frame(&mut self, id: LinkId) -> bool {
        let channel = id.session.channel;
        let Some(session) = self.sessions.live(id.session) else {
            return false;
        };
        let room = session.window.free();
        let Some(sender) = session.known(id).and_then(|link| link.sender()) else {
            return false;
        };
        sender.ready = false;
        let Some(delivery) = sender.queue.front_mut() else {
            return false;
        };
        if room == 0 || (!delivery.begun && sender.credit.left() == 0) {
            return false;
        }
        let first = !delivery.begun;
        let waits = (!delivery.settled).then_some((delivery.number, id.handle));
        if first {
            delivery.begun = true;
            sender.credit.begin();
        }
        let number = first.then(|| session.outbound.begin(waits));
        let Some(sender) = session.known(id).and_then(|link| link.sender()) else {
            return false;
        };
        let Some(delivery) = sender.queue.front_mut() else {
            return false;
        };
        let mut transfer = transfer_of(id.handle, delivery, number);
        let sent = self.wire.send_part(channel, &mut transfer, &delivery.rest);
        let mut freed = sent;
        if transfer.more {
            delivery.rest = delivery.rest.slice(sent..);
        } else {
            freed += DELIVERY_COST;
            sender.queue.pop_front();
            if sender.queue.is_empty() {
                sender.queue = std::collections::VecDeque::new();
            }
        }
        sender.queued_bytes = sender.queued_bytes.saturating_sub(freed);
        sender.ready = !sender.queue.is_empty();
        let more = sender.ready;
        session.window.sent();
        self.queued_bytes = self.queued_bytes.saturating_sub(freed);
        more
    }

    /// Takes what the peer says of our deliveries.
    pub(super) fn handle_receiver_disposition(&mut self, channel: u16, disposition: Disposition) {
        let Disposition {
            first,
            last,
            settled,
            state,
            ..
        } = disposition;
        let outcome = match state {
            Some(DeliveryState::Outcome(outcome)) => Some(outcome),
            _ if settled => None,
            // On its way; nothing here wants to know how far.
            _ => return,
        };
        let last = last.unwrap_or(first);
        let Some(session) = self.sessions.get(channel) else {
            return;
        };
        let found = session.outbound.take(first, last);
        for (name, handle) in &found {
            let id = session.id;
            let Some(link) = session.link(*handle) else {
                continue;
            };
            let serial = link.serial;
            if let Some(sender) = link.sender() {
                sender.unsettled = sender.unsettled.saturating_sub(1);
            }
            let token = Token {
                link: LinkId {
                    session: id,
                    handle: *handle,
                    serial,
                },
                number: *name,
            };
            let outcome = outcome.clone();
            self.events.push(Event::Settled { token, outcome });
        }
        // A receiver that settles second waits for this.
        if !settled && !found.is_empty() {
            let settled = Disposition {
                role: Role::Sender,
                first,
                last: Some(last),
                settled: true,
                state: outcome.map(DeliveryState::Outcome),
                batchable: false,
            };
            self.wire.send(channel, &settled);
        }
    }
}

impl Sender {
    /// How many more deliveries may be queued.
    pub(super) fn free_credit(&self) -> u32 {
        let begun = self.queue.front().is_some_and(|delivery| delivery.begun);
        let waiting = self.queue.len() - usize::from(begun);
        self.credit
            .left()
            .saturating_sub(u32::try_from(waiting).unwrap_or(u32::MAX))
    }
}

/// A frame of a delivery: the first, which has its number, or a later one.
fn transfer_of(handle: u32, delivery: &Outgoing, number: Option<u32>) -> Transfer {
    let first = number.is_some();
    Transfer {
        handle,
        delivery_id: number,
        delivery_tag: first.then(|| delivery.tag.clone()),
        message_format: first.then_some(delivery.format),
        settled: Some(delivery.settled),
        more: false,
        rcv_settle_mode: None,
        state: None,
        resume: false,
        aborted: false,
        batchable: false,
    }
}
