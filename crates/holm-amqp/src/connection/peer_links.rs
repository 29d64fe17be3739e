//! What the peer does with links: attaches, answers ours, detaches, breaks their rules.

use super::links::{agreed, end_of, link_id};
use super::{Connection, Event, Side};
use crate::link::{Link, LinkEnd, LinkId, LinkState};
use crate::performative::{Attach, Detach};
use crate::violation::{LinkFault, SessionFault};

/// The longest name of a link; those of the SDKs have about a hundred bytes.
const MAX_NAME: usize = 1024;

impl Connection {
    /// Takes a breach of a link's rules: it is detached, the others go on.
    pub(super) fn fail_link(&mut self, channel: u16, handle: u32, fault: &LinkFault) {
        let error = Some(Box::new(fault.error()));
        let Some(session) = self.sessions.get(channel) else {
            return;
        };
        let session_id = session.id;
        let Some(link) = session.link(handle) else {
            return;
        };
        let link = LinkId {
            session: session_id,
            handle,
            serial: link.serial,
        };
        self.detach_link(channel, handle, true, error.clone());
        self.events.push(Event::Detached {
            link,
            by: Side::Here,
            closed: true,
            error,
        });
    }

    pub(super) fn handle_attach(&mut self, channel: u16, attach: Box<Attach>) -> Result<(), SessionFault> {
        let limit = self.config.handle_max;
        let Some(session) = self.sessions.get(channel) else {
            return Ok(());
        };
        let remote_handle = attach.handle;
        if remote_handle > limit {
            return Err(SessionFault::HandleMax {
                handle: remote_handle,
                limit,
            });
        }
        if session.by_remote(remote_handle).is_some() {
            return Err(SessionFault::HandleInUse(remote_handle));
        }
        match session.by_name(attach.name.as_str(), attach.role.other()) {
            Some(handle) => {
                let link = session.link(handle);
                if link.is_some_and(|link| link.state == LinkState::Attaching) {
                    self.handle_attach_answer(channel, handle, attach);
                    return Ok(());
                }
                self.fail_link(channel, handle, &LinkFault::Stolen);
            }
            // The answer to an attach of ours that we detached meanwhile.
            None if self.adopt_detaching(channel, &attach) => return Ok(()),
            None => {}
        }
        self.handle_new_link(channel, attach)
    }

    /// Whether an attach answers one of ours that is detaching before it was answered: its handle is noted for the detach.
    fn adopt_detaching(&mut self, channel: u16, attach: &Attach) -> bool {
        let Some(session) = self.sessions.get(channel) else {
            return false;
        };
        let waiting = session.handles().collect::<Vec<u32>>().into_iter().find(|handle| {
            session.link(*handle).is_some_and(|link| {
                link.state == LinkState::Detaching
                    && link.remote_handle.is_none()
                    && link.name == attach.name
                    && link.role() == attach.role.other()
            })
        });
        if let Some(handle) = waiting {
            session.set_remote(handle, attach.handle);
        }
        waiting.is_some()
    }

    fn handle_attach_answer(&mut self, channel: u16, handle: u32, attach: Box<Attach>) {
        let Some(session) = self.sessions.get(channel) else {
            return;
        };
        session.set_remote(handle, attach.handle);
        let session_id = session.id;
        let Some(link) = session.link(handle) else {
            return;
        };
        let taken = match &mut link.end {
            LinkEnd::Sender(sender) => {
                sender.max_message_size = attach.max_message_size.unwrap_or(0);
                attach.target.is_some()
            }
            LinkEnd::Receiver(receiver) => {
                receiver.credit.attached(attach.initial_delivery_count.unwrap_or(0));
                attach.source.is_some()
            }
        };
        if !taken {
            link.state = LinkState::Refused;
            return;
        }
        link.state = LinkState::Attached;
        link.snd_settle_mode = agreed(link.snd_settle_mode, attach.snd_settle_mode);
        let link = LinkId {
            session: session_id,
            handle,
            serial: link.serial,
        };
        self.events.push(Event::Attached { link, attach });
        self.mark_link(channel, handle);
    }

    fn handle_new_link(&mut self, channel: u16, attach: Box<Attach>) -> Result<(), SessionFault> {
        let serial = self.next_serial();
        let at_limit = self.links >= self.allowance.links;
        let max_message_size = self.config.max_message_size;
        let Some(session) = self.sessions.get(channel) else {
            return Ok(());
        };
        let handle = session
            .free_handle()
            .ok_or(SessionFault::NoHandle(session.remote_handle_max))?;
        let role = attach.role.other();
        let too_long = attach.name.len() > MAX_NAME;
        let mut end = end_of(role, 0, max_message_size);
        match &mut end {
            LinkEnd::Sender(sender) => sender.max_message_size = attach.max_message_size.unwrap_or(0),
            LinkEnd::Receiver(receiver) => receiver.credit.attached(attach.initial_delivery_count.unwrap_or(0)),
        }
        let link = Link {
            serial,
            name: attach.name.to_owned_buffer(),
            state: LinkState::Deciding,
            remote_handle: Some(attach.handle),
            snd_settle_mode: attach.snd_settle_mode,
            rcv_settle_mode: attach.rcv_settle_mode,
            end,
        };
        session.insert(handle, link);
        let id = link_id(session, handle, serial);
        self.links += 1;
        if at_limit {
            let fault = LinkFault::TooManyLinks(self.allowance.links);
            self.detach_link(channel, handle, true, Some(Box::new(fault.error())));
        } else if too_long {
            let (bytes, limit) = (attach.name.len(), MAX_NAME);
            let fault = LinkFault::NameTooLong { bytes, limit };
            self.detach_link(channel, handle, true, Some(Box::new(fault.error())));
        } else {
            self.events.push(Event::Attach { link: id, attach });
        }
        Ok(())
    }

    pub(super) fn handle_detach(&mut self, channel: u16, detach: Detach) -> Result<(), SessionFault> {
        let Some(session) = self.sessions.get(channel) else {
            return Ok(());
        };
        let (frame, handle) = ("a detach", detach.handle);
        let ours = session
            .by_remote(handle)
            .ok_or(SessionFault::UnattachedHandle { frame, handle })?;
        let session_id = session.id;
        let Some(mut link) = session.remove(ours) else {
            return Ok(());
        };
        self.links -= 1;
        let held = link.clear();
        self.release_held(held);
        if link.state == LinkState::Detaching {
            return Ok(());
        }
        if link.state == LinkState::Deciding {
            self.wire
                .send(channel, &Attach::new(link.name.clone(), ours, link.role()));
        }
        let closed = detach.closed;
        self.wire.send(
            channel,
            &Detach {
                handle: ours,
                closed,
                error: None,
            },
        );
        self.events.push(Event::Detached {
            link: LinkId {
                session: session_id,
                handle: ours,
                serial: link.serial,
            },
            by: Side::Peer,
            closed,
            error: detach.error,
        });
        Ok(())
    }
}
