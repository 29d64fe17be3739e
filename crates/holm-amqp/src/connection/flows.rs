//! Flows: how much more may come, of a session and of a link, in both directions.
//!
//! ```text
//!   settle, a transfer, an acceptance --> link or session is marked --> poll_transmit: outcomes, credit filled up, window
//!   the peer's flow --> session window, link credit --> links that waited go on
//! ```
//!
//! What is told waits for the next transmission, so that a hundred outcomes are one disposition and one flow.

use super::{Connection, Event};
use crate::link::{LinkEnd, LinkId, LinkState, Receiver};
use crate::map::Fields;
use crate::performative::Flow;
use crate::session::Session;
use crate::violation::SessionFault;

impl Connection {
    /// Changes how many deliveries may be on their way or wait on a link that receives here. What the peer may send already, it
    /// keeps. False when the link is gone or sends from here.
    pub fn set_window(&mut self, link: LinkId, window: u32) -> bool {
        self.with_receiver(link, |receiver| receiver.credit.set_window(window))
    }

    /// Lets the peer send more on a link that receives here, beyond its window. False when the link is gone or sends from
    /// here.
    pub fn grant(&mut self, link: LinkId, more: u32) -> bool {
        let granted = self.with_receiver(link, |receiver| receiver.credit.grant(more));
        if granted {
            self.send_link_flow(link.session.channel, link.handle);
        }
        granted
    }

    /// Asks for what the peer has, and for the rest of its credit back; [`Event::Drained`] follows. False when the link is
    /// gone or sends from here.
    pub fn drain(&mut self, link: LinkId) -> bool {
        let mut at_once = false;
        let asked = self.with_receiver(link, |receiver| {
            receiver.credit.drain();
            at_once = receiver.credit.try_end_drain();
        });
        if at_once {
            self.events.push(Event::Drained(link));
        } else if asked {
            self.send_link_flow(link.session.channel, link.handle);
        }
        asked
    }

    fn with_receiver(&mut self, link: LinkId, change: impl FnOnce(&mut Receiver)) -> bool {
        let known = self.sessions.live(link.session).and_then(|session| session.known(link));
        let attached = known.filter(|known| known.state == LinkState::Attached);
        let Some(receiver) = attached.and_then(|known| known.receiver()) else {
            return false;
        };
        change(receiver);
        self.mark_link(link.session.channel, link.handle);
        true
    }

    /// Gives the credit of a link back: there is nothing (more) to send, as an [`Event::Credit`] with `drain` wants to know.
    /// False when the link is gone, has deliveries that wait to be sent by it, or its peer does not drain.
    pub fn give_credit_back(&mut self, link: LinkId) -> bool {
        let known = self.sessions.live(link.session).and_then(|session| session.known(link));
        let Some(sender) = known.and_then(|known| known.sender()) else {
            return false;
        };
        let waits = sender.queue.iter().any(|delivery| !delivery.begun);
        if !sender.credit.drain() || (waits && sender.credit.left() > 0) {
            return false;
        }
        sender.credit.give_back();
        self.send_drained_flow(link);
        true
    }

    /// The flow says `drain` once more, as the standard has it, with the count that the receiver waits for.
    fn send_drained_flow(&mut self, link: LinkId) {
        let Some(session) = self.sessions.live(link.session) else {
            return;
        };
        let Some(sender) = session.known(link).and_then(|known| known.sender()) else {
            return;
        };
        let flow = LinkFlow {
            handle: link.handle,
            delivery_count: sender.credit.count(),
            link_credit: 0,
            available: Some(0),
            drain: true,
        };
        let flow = flow_of(session, Some(flow));
        self.wire.send(link.session.channel, &flow);
    }

    /// Takes a flow: what it says of the session, and perhaps of a link.
    pub(super) fn handle_flow(&mut self, channel: u16, flow: &Flow) -> Result<(), SessionFault> {
        self.handle_session_flow(channel, flow);
        self.handle_link_flow(channel, flow)
    }

    /// Takes the session's part of a flow, and says the same back when it is asked to.
    fn handle_session_flow(&mut self, channel: u16, flow: &Flow) {
        let Some(session) = self.sessions.get(channel) else {
            return;
        };
        session.window.handle_flow(flow);
        if flow.handle.is_none() && flow.echo {
            let flow = flow_of(session, None);
            self.wire.send(channel, &flow);
        }
        self.wake_senders(channel);
    }

    /// Takes the link's part of a flow.
    fn handle_link_flow(&mut self, channel: u16, flow: &Flow) -> Result<(), SessionFault> {
        let (Some(handle), Some(session)) = (flow.handle, self.sessions.get(channel)) else {
            return Ok(());
        };
        let frame = "a flow";
        let ours = session
            .by_remote(handle)
            .ok_or(SessionFault::UnattachedHandle { frame, handle })?;
        let session_id = session.id;
        let Some(link) = session.link(ours) else {
            return Ok(());
        };
        let id = LinkId {
            session: session_id,
            handle: ours,
            serial: link.serial,
        };
        let attached = link.state == LinkState::Attached;
        match &mut link.end {
            LinkEnd::Sender(sender) => {
                let changed = sender.credit.handle_flow(flow);
                let (credit, drain) = (sender.free_credit(), sender.credit.drain());
                if attached && changed {
                    self.events.push(Event::Credit {
                        link: id,
                        credit,
                        drain,
                    });
                }
            }
            LinkEnd::Receiver(receiver) => {
                if receiver.credit.handle_flow(flow) {
                    self.events.push(Event::Drained(id));
                }
            }
        }
        if flow.echo && attached {
            self.send_link_flow(channel, ours);
        }
        self.mark_link(channel, ours);
        self.wake_sender(channel, ours);
        Ok(())
    }

    /// Tells the peer how a link stands.
    fn send_link_flow(&mut self, channel: u16, handle: u32) {
        let Some(session) = self.sessions.get(channel) else {
            return;
        };
        let Some(link) = session.link(handle) else {
            return;
        };
        let flow = match &link.end {
            LinkEnd::Sender(sender) => LinkFlow {
                handle,
                delivery_count: sender.credit.count(),
                link_credit: sender.credit.left(),
                available: Some(u32::try_from(sender.queue.len()).unwrap_or(u32::MAX)),
                drain: sender.credit.drain(),
            },
            LinkEnd::Receiver(receiver) => LinkFlow {
                handle,
                delivery_count: receiver.credit.count(),
                link_credit: receiver.credit.left(),
                available: None,
                drain: receiver.credit.draining(),
            },
        };
        let flow = flow_of(session, Some(flow));
        self.wire.send(channel, &flow);
    }

    /// Notes that a session has something to tell at the next transmission.
    pub(super) fn mark_session(&mut self, channel: u16, wanted: bool) {
        if let Some(session) = self.sessions.get(channel).filter(|session| wanted && !session.dirty) {
            session.dirty = true;
            self.dirty.push(channel);
        }
    }

    /// Notes that the credit of a link may be filled up at the next transmission.
    pub(super) fn mark_link(&mut self, channel: u16, handle: u32) {
        let Some(session) = self.sessions.get(channel) else {
            return;
        };
        let receiver = session.link(handle).and_then(|link| link.receiver());
        if let Some(receiver) = receiver.filter(|receiver| !receiver.dirty) {
            receiver.dirty = true;
            session.dirty_links.push(handle);
            self.mark_session(channel, true);
        }
    }

    /// Tells outcomes and credit that waited for their neighbours.
    pub(super) fn flush(&mut self) {
        for channel in std::mem::take(&mut self.dirty) {
            let Some(session) = self.sessions.get(channel) else {
                continue;
            };
            session.dirty = false;
            let outcomes = session.settlements.take();
            let links = std::mem::take(&mut session.dirty_links);
            if let Some(disposition) = outcomes {
                self.wire.send(channel, &disposition);
            }
            for handle in links {
                self.fill_up(channel, handle);
            }
            let silent = self.sessions.get(channel).filter(|session| session.window.wants_flow());
            if let Some(session) = silent {
                let flow = flow_of(session, None);
                self.wire.send(channel, &flow);
            }
        }
    }

    fn fill_up(&mut self, channel: u16, handle: u32) {
        let link = self.sessions.get(channel).and_then(|session| session.link(handle));
        let Some(link) = link else {
            return;
        };
        let attached = link.state == LinkState::Attached;
        let Some(receiver) = link.receiver() else {
            return;
        };
        receiver.dirty = false;
        if attached && receiver.credit.fill_up() {
            self.send_link_flow(channel, handle);
        }
    }
}

/// The link's part of a flow.
#[derive(Clone, Copy, Debug)]
struct LinkFlow {
    handle: u32,
    delivery_count: u32,
    link_credit: u32,
    available: Option<u32>,
    drain: bool,
}

/// A flow of a session and perhaps a link.
fn flow_of(session: &mut Session, link: Option<LinkFlow>) -> Flow {
    let window = session.window.announce();
    Flow {
        next_incoming_id: window.next_incoming_id,
        incoming_window: window.incoming_window,
        next_outgoing_id: window.next_outgoing_id,
        outgoing_window: window.outgoing_window,
        handle: link.map(|link| link.handle),
        delivery_count: link.map(|link| link.delivery_count),
        link_credit: link.map(|link| link.link_credit),
        available: link.and_then(|link| link.available),
        drain: link.is_some_and(|link| link.drain),
        echo: false,
        properties: Fields::new(),
    }
}
