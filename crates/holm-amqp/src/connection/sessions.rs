//! The sessions of a connection, by both their channels; begin and end.

use std::collections::BTreeMap;

use super::{Connection, Event, OpenError, Side, State};
use crate::condition::AmqpError;
use crate::link::SessionId;
use crate::map::Fields;
use crate::performative::{Begin, End};
use crate::session::{Session, SessionState};
use crate::violation::{SessionFault, Violation};

/// Sessions by the channel of our frames, and from the channel of the peer's to it.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    slots: Vec<Option<Box<Session>>>,
    by_remote: BTreeMap<u16, u16>,
    count: usize,
}

impl Sessions {
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.slots.iter().flatten().map(|session| &**session)
    }

    /// The session that an id means, to look at.
    pub(crate) fn look(&self, id: SessionId) -> Option<&Session> {
        let session = self.slots.get(usize::from(id.channel))?.as_deref()?;
        (session.id == id && session.state != SessionState::Ending).then_some(session)
    }

    pub(crate) fn get(&mut self, channel: u16) -> Option<&mut Session> {
        self.slots.get_mut(usize::from(channel))?.as_deref_mut()
    }

    /// The session that an id means, unless it is gone or ending.
    pub(crate) fn live(&mut self, id: SessionId) -> Option<&mut Session> {
        self.get(id.channel)
            .filter(|session| session.id == id && session.state != SessionState::Ending)
    }

    /// Our channel of the session that the peer's frames on that channel mean.
    pub(crate) fn by_remote(&self, remote_channel: u16) -> Option<u16> {
        self.by_remote.get(&remote_channel).copied()
    }

    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// The lowest free channel up to the highest.
    fn free_channel(&self, channel_max: u16) -> Option<u16> {
        let free = self.slots.iter().position(Option::is_none);
        let channel = u16::try_from(free.unwrap_or(self.slots.len())).ok()?;
        (channel <= channel_max).then_some(channel)
    }

    fn insert(&mut self, session: Session) {
        let index = usize::from(session.id.channel);
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        if let Some(remote_channel) = session.remote_channel {
            self.by_remote.insert(remote_channel, session.id.channel);
        }
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Some(Box::new(session));
            self.count += 1;
        }
    }

    fn remove(&mut self, channel: u16) -> Option<Box<Session>> {
        let session = self.slots.get_mut(usize::from(channel))?.take()?;
        if let Some(remote_channel) = session.remote_channel {
            self.by_remote.remove(&remote_channel);
        }
        self.count -= 1;
        while matches!(self.slots.last(), Some(None)) {
            self.slots.pop();
        }
        Some(session)
    }
}

impl Connection {
    /// Begins a session. Links may be attached at once; [`Event::Begun`] tells the peer's answer.
    ///
    /// # Errors
    /// An [`OpenError`]; nothing was sent.
    pub fn begin(&mut self) -> Result<SessionId, OpenError> {
        if self.state != State::Open || self.ended() {
            return Err(OpenError::NotOpen);
        }
        let channel_max = self.config.channel_max.min(self.remote_channel_max);
        let channel = self.sessions.free_channel(channel_max).ok_or(OpenError::TooMany)?;
        if self.sessions.count() >= self.allowance.sessions {
            return Err(OpenError::TooMany);
        }
        let id = self.new_session_id(channel);
        let mut session = Session::new(id, SessionState::Beginning, self.config.incoming_window);
        // Links may be attached before the peer says how many it takes: as many as we take is a fair guess.
        session.remote_handle_max = self.config.handle_max;
        self.wire
            .send(channel, &begin_of(&mut session, None, self.config.handle_max));
        self.sessions.insert(session);
        Ok(id)
    }

    /// Ends a session with all its links; what [`settle`](Self::settle) said before is told before. False, without effect, when
    /// it is gone or ending.
    pub fn end(&mut self, session: SessionId, error: Option<AmqpError>) -> bool {
        if self.sessions.live(session).is_none() {
            return false;
        }
        self.flush();
        self.end_session(session.channel, error.map(Box::new));
        true
    }

    /// Ends all sessions, with the reason.
    pub fn end_all(&mut self, error: &AmqpError) {
        let live = self.sessions.slots.iter().flatten();
        let live: Vec<SessionId> = live.map(|session| session.id).collect();
        for session in live {
            self.end(session, Some(error.clone()));
        }
    }

    fn new_session_id(&mut self, channel: u16) -> SessionId {
        SessionId {
            channel,
            serial: self.next_serial(),
        }
    }

    pub(super) fn handle_begin(&mut self, remote_channel: u16, begin: &Begin) -> Result<(), Violation> {
        if remote_channel > self.config.channel_max {
            return Err(Violation::ChannelMax {
                channel: remote_channel,
                limit: self.config.channel_max,
            });
        }
        if self.sessions.by_remote(remote_channel).is_some() {
            return Err(Violation::ChannelInUse(remote_channel));
        }
        match begin.remote_channel {
            Some(channel) => self.handle_begin_answer(remote_channel, channel, begin),
            None => self.handle_new_session(remote_channel, begin),
        }
    }

    fn handle_begin_answer(&mut self, remote_channel: u16, channel: u16, begin: &Begin) -> Result<(), Violation> {
        let session = self
            .sessions
            .get(channel)
            .filter(|session| session.remote_channel.is_none())
            .ok_or(Violation::RemoteChannel(channel))?;
        session.remote_channel = Some(remote_channel);
        session.remote_handle_max = begin.handle_max;
        session.window.begun(begin);
        let told = session.state == SessionState::Beginning;
        let id = session.id;
        if told {
            session.state = SessionState::Mapped;
        }
        self.sessions.by_remote.insert(remote_channel, channel);
        if told {
            self.events.push(Event::Begun(id));
            self.wake_senders(channel);
        }
        Ok(())
    }

    /// Answers a begin; one too many is answered and ended, so that it costs the others nothing.
    fn handle_new_session(&mut self, remote_channel: u16, begin: &Begin) -> Result<(), Violation> {
        let Some(channel) = self.sessions.free_channel(self.remote_channel_max) else {
            return Err(Violation::ChannelInUse(remote_channel));
        };
        let allowed = self.sessions.count() < self.allowance.sessions;
        let id = self.new_session_id(channel);
        let mut session = Session::new(id, SessionState::Mapped, self.config.incoming_window);
        session.remote_channel = Some(remote_channel);
        session.remote_handle_max = begin.handle_max;
        session.window.begun(begin);
        self.wire.send(
            channel,
            &begin_of(&mut session, Some(remote_channel), self.config.handle_max),
        );
        self.sessions.insert(session);
        if allowed {
            self.events.push(Event::Begun(id));
        } else {
            let fault = SessionFault::TooManySessions(self.allowance.sessions);
            self.end_session(channel, Some(Box::new(fault.error())));
        }
        Ok(())
    }

    /// Takes a frame that broke a rule of its session: it ends, the others go on.
    pub(super) fn fail_session(&mut self, channel: u16, fault: &SessionFault) {
        let Some(session) = self.sessions.get(channel) else {
            return;
        };
        let session = session.id;
        let error = Some(Box::new(fault.error()));
        self.end_session(channel, error.clone());
        let by = Side::Here;
        self.events.push(Event::Ended { session, by, error });
    }

    /// Says end, and waits for the peer's.
    fn end_session(&mut self, channel: u16, error: Option<Box<AmqpError>>) {
        self.release(channel);
        let Some(session) = self.sessions.get(channel) else {
            return;
        };
        let mut ending = Session::new(session.id, SessionState::Ending, 0);
        ending.remote_channel = session.remote_channel;
        *session = ending;
        self.wire.send(channel, &End { error });
    }

    pub(super) fn handle_end_frame(&mut self, channel: u16, end: End) {
        self.release(channel);
        let Some(session) = self.sessions.remove(channel) else {
            return;
        };
        if session.state != SessionState::Ending {
            self.wire.send(channel, &End { error: None });
            self.events.push(Event::Ended {
                session: session.id,
                by: Side::Peer,
                error: end.error,
            });
        }
    }

    /// Takes what the links of a session hold out of the bounds of the connection.
    fn release(&mut self, channel: u16) {
        let (links, held) = self
            .sessions
            .get(channel)
            .map_or_else(Default::default, |session| session.held());
        self.links -= links;
        self.release_held(held);
    }
}

/// Our begin, or our answer to one.
fn begin_of(session: &mut Session, remote_channel: Option<u16>, handle_max: u32) -> Begin {
    let window = session.window.announce();
    Begin {
        remote_channel,
        next_outgoing_id: window.next_outgoing_id,
        incoming_window: window.incoming_window,
        outgoing_window: window.outgoing_window,
        handle_max,
        offered_capabilities: Vec::new(),
        desired_capabilities: Vec::new(),
        properties: Fields::new(),
    }
}
