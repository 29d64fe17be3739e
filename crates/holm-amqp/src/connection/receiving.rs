//! What comes in on links: transfers put together to deliveries, and the outcomes that the application gives them.
//!
//! ```text
//!   transfer --> window? --> link? --> first of a delivery: credit? --> size? --+-- more: kept, as a copy
//!                session ends  ends       link detached                        '-- whole: Event::Delivery
//!   settle --> outcome waits for its neighbours --> poll_transmit: disposition, credit filled up
//! ```

use bytes::{Bytes, BytesMut};

use super::{Connection, Delivery, Event, State};
use crate::link::{DeliveryId, LinkEnd, LinkId, LinkState, Partial, Receiver};
use crate::performative::{Disposition, Outcome, Transfer};
use crate::unsettled::UnsettledIn;
use crate::violation::{LinkFault, SessionFault};

/// What a transfer did to its link.
enum Taken {
    /// A part of a delivery was kept.
    Part,
    /// A delivery was called off.
    Aborted,
    /// A delivery is whole.
    Whole(Partial, Bytes),
}

impl Connection {
    pub(super) fn handle_transfer(
        &mut self,
        channel: u16,
        transfer: Transfer,
        payload: Bytes,
    ) -> Result<(), SessionFault> {
        let room = self.config.max_unfinished.saturating_sub(self.unfinished_bytes);
        let Some(session) = self.sessions.get(channel) else {
            return Ok(());
        };
        if !session.window.arrive() {
            return Err(SessionFault::Window);
        }
        let wants_flow = session.window.wants_flow();
        let (frame, handle) = ("a transfer", transfer.handle);
        let ours = session
            .by_remote(handle)
            .ok_or(SessionFault::UnattachedHandle { frame, handle })?;
        // The inbound map is borrowed beside the link.
        let mut inbound = std::mem::take(&mut session.inbound);
        let session_id = session.id;
        let taken = session.link(ours).map_or(Ok(None), |link| match &mut link.end {
            _ if link.state == LinkState::Detaching => Ok(None),
            LinkEnd::Sender(_) => Err(SessionFault::ErrantLink(handle)),
            LinkEnd::Receiver(receiver) => {
                let before = receiver.unfinished();
                let taken = receiver.take(transfer, payload, room, &inbound);
                Ok(Some((link.serial, before, receiver.unfinished(), taken)))
            }
        });
        let taken = match taken {
            Ok(Some(taken)) => taken,
            other => {
                session.inbound = inbound;
                self.mark_session(channel, wants_flow);
                return other.map(|_| ());
            }
        };
        let (serial, before, after, taken) = taken;
        let link = LinkId {
            session: session_id,
            handle: ours,
            serial,
        };
        if let Ok(Taken::Whole(delivery, _)) = &taken
            && !delivery.settled
        {
            inbound.wait(delivery.number, ours);
        }
        session.inbound = inbound;
        self.unfinished_bytes = self.unfinished_bytes.saturating_sub(before) + after;
        self.mark_session(channel, wants_flow);
        match taken {
            Ok(Taken::Part) => {}
            Ok(Taken::Aborted) => self.finish_delivery(channel, link),
            Ok(Taken::Whole(delivery, payload)) => {
                let number = delivery.number;
                self.events.push(Event::Delivery(Delivery {
                    link,
                    id: (!delivery.settled).then_some(DeliveryId { link, number }),
                    tag: delivery.tag,
                    format: delivery.format,
                    payload,
                }));
                self.finish_delivery(channel, link);
            }
            Err(fault) => self.fail_link(channel, ours, &fault),
        }
        Ok(())
    }

    /// A delivery is whole or called off: the credit may be at its end.
    fn finish_delivery(&mut self, channel: u16, link: LinkId) {
        let receiver = self
            .sessions
            .get(channel)
            .and_then(|session| session.known(link))
            .and_then(|known| known.receiver());
        if receiver.is_some_and(|receiver| receiver.credit.try_end_drain()) {
            self.events.push(Event::Drained(link));
        }
        self.mark_link(channel, link.handle);
    }

    /// Says what became of a delivery. The peer hears it with the next [`poll_transmit`](Self::poll_transmit), together with
    /// its neighbours.
    ///
    /// True when the delivery waited for it; false when it was settled before, or its link, session or connection is gone.
    pub fn settle(&mut self, delivery: DeliveryId, outcome: Outcome) -> bool {
        let DeliveryId { link, number } = delivery;
        let channel = link.session.channel;
        if self.state != State::Open {
            return false;
        }
        let Some(session) = self.sessions.live(link.session) else {
            return false;
        };
        if session.known(link).is_none() || session.inbound.take(number).is_none() {
            return false;
        }
        if let Some(receiver) = session.link(link.handle).and_then(|known| known.receiver()) {
            receiver.credit.decide();
        }
        let told = session.settlements.add(number, outcome);
        for disposition in told.into_iter().flatten() {
            self.wire.send(channel, &disposition);
        }
        self.mark_session(channel, true);
        self.mark_link(channel, link.handle);
        true
    }

    /// Takes what the peer says of its own deliveries: those that it forgot need no outcome.
    pub(super) fn handle_sender_disposition(&mut self, channel: u16, disposition: &Disposition) {
        let Some(session) = self.sessions.get(channel).filter(|_| disposition.settled) else {
            return;
        };
        let last = disposition.last.unwrap_or(disposition.first);
        let forgotten = session.inbound.take_range(disposition.first, last);
        for (_, handle) in &forgotten {
            if let Some(receiver) = session.link(*handle).and_then(|link| link.receiver()) {
                receiver.credit.decide();
            }
        }
        for (_, handle) in forgotten {
            self.mark_link(channel, handle);
        }
    }
}

impl Receiver {
    fn unfinished(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.bytes.len())
    }

    /// Takes a transfer; `room` is what more deliveries that are not whole may hold.
    fn take(
        &mut self,
        transfer: Transfer,
        payload: Bytes,
        room: usize,
        inbound: &UnsettledIn,
    ) -> Result<Taken, LinkFault> {
        let mut partial = match self.partial.take() {
            Some(partial) => {
                let (open, found) = (partial.number, transfer.delivery_id.unwrap_or(partial.number));
                if open != found {
                    return Err(LinkFault::Interleaved { open, found });
                }
                *partial
            }
            None => self.begin(&transfer, inbound)?,
        };
        partial.settled |= transfer.settled.unwrap_or(false);
        if transfer.aborted {
            self.credit.decide();
            return Ok(Taken::Aborted);
        }
        let bytes = partial.bytes.len() + payload.len();
        if self.max_message_size != 0 && u64::try_from(bytes).unwrap_or(u64::MAX) > self.max_message_size {
            return Err(LinkFault::MessageSize(self.max_message_size));
        }
        if transfer.more && payload.len() > room {
            return Err(LinkFault::Unfinished(room + partial.bytes.len()));
        }
        if transfer.more {
            partial.bytes.extend_from_slice(&payload);
            self.partial = Some(Box::new(partial));
            return Ok(Taken::Part);
        }
        if partial.settled {
            self.credit.decide();
        }
        if partial.bytes.is_empty() {
            return Ok(Taken::Whole(partial, payload));
        }
        partial.bytes.extend_from_slice(&payload);
        let whole = std::mem::take(&mut partial.bytes).freeze();
        Ok(Taken::Whole(partial, whole))
    }

    /// The first transfer of a delivery.
    fn begin(&mut self, transfer: &Transfer, inbound: &UnsettledIn) -> Result<Partial, LinkFault> {
        let number = transfer.delivery_id.ok_or(LinkFault::NoDeliveryId)?;
        if inbound.holds(number) {
            return Err(LinkFault::DeliveryIdInUse(number));
        }
        if !self.credit.arrive() {
            return Err(LinkFault::Credit);
        }
        Ok(Partial {
            number,
            tag: transfer.delivery_tag.clone().unwrap_or_default(),
            format: transfer.message_format.unwrap_or(0),
            settled: false,
            bytes: BytesMut::new(),
        })
    }
}
