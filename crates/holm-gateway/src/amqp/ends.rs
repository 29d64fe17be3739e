//! How a connection ends from this side, and what it waits for until then.
//!
//! ```text
//!   the node stops --> nothing more is taken --> what was is on disk, or LAST_ACKNOWLEDGEMENTS --> close
//!   the peer went  --> what it sent waits for room --> entered, or LAST_ROOM --> the end is told, everybody leaves
//!   nobody proved anything for too long --> close
//! ```
//!
//! Links of back ends end here too, each with its token; and what tokens of policies have opened, when they open it no more.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use holm_amqp::condition::{CONNECTION_FORCED, DETACH_FORCED, UNAUTHORIZED_ACCESS};
use holm_net::clock::instant;
use tokio::io::{AsyncRead, AsyncWrite};

use super::crowd::Name;
use super::front::{Done, Front};
use super::refusals;
use crate::backend::{Backend, Principal};
use crate::intake::LAST_ROOM;
use crate::metrics::End;
use crate::session::{CloseReason, Command};

/// How long a node that stops waits for the disk, so that what clients have sent is acknowledged and need not come again.
const LAST_ACKNOWLEDGEMENTS: Duration = Duration::from_secs(2);
/// How often it is looked whether the connection of a message that waits for room has ended.
const LOOK_FOR_END: Duration = Duration::from_secs(1);

impl<B: Backend, S: AsyncRead + AsyncWrite + Unpin + Send> Front<'_, B, S> {
    /// What waits for room does so not much longer once the connection has ended; the end is behind it, and is not told before.
    pub(super) fn note_end(&mut self) {
        let waits = !self.waiting.is_empty();
        let ended = self.connection.has_ended() || !self.connection.session().is_open();
        if waits && ended {
            self.give_up.get_or_insert_with(|| instant() + LAST_ROOM);
        }
        self.look_at = (waits && !ended).then(|| self.look_at.unwrap_or_else(|| instant() + LOOK_FOR_END));
        if self.last_acknowledgements.is_some() && self.has_acknowledged_all() {
            self.end_now();
        }
    }

    fn has_acknowledged_all(&self) -> bool {
        let names = self.clients.names();
        let mut clients = names.iter().filter_map(|name| self.clients.look(*name));
        clients.all(|client| client.receipts.is_empty())
    }

    pub(super) fn look_at_clock(&mut self) {
        let now = instant();
        let is_due = |moment: Option<Instant>| moment.is_some_and(|moment| moment <= now);
        if is_due(self.look_at) {
            self.look_at = None;
        }
        if is_due(self.give_up) && !self.waiting.is_empty() {
            tracing::warn!(
                count = self.waiting.len(),
                "messages were not taken in: there was no room for them until their connection had ended"
            );
            self.forget_waiting();
        }
        if is_due(self.last_acknowledgements) {
            tracing::warn!("messages were not stored in time for the stop; they are not acknowledged");
            self.end_now();
        }
        let time_of_day = self.gateway.clock.now().into();
        // By the time of day: what stands for it on the other clock moves on with each look.
        if self.service.next_end().is_some_and(|end| end <= time_of_day) {
            let tokens: Vec<&str> = self.proofs.policies().map(|token| &**token).collect();
            let session = self.connection.session_mut();
            self.service.expire(session, time_of_day, &tokens);
        }
        if is_due(self.unproved) {
            self.unproved = None;
            if self.proofs.is_empty() && self.clients.is_empty() && self.registrants.is_empty() {
                tracing::info!(
                    peer = self.peer.address.map(tracing::field::display),
                    "nobody proved anything on a connection; closing"
                );
                let text = "nobody sent a good token in time; attach to `$cbs` and send one";
                self.close(End::Refused, refusals::error(UNAUTHORIZED_ACCESS, text));
            }
        }
    }

    /// When the first link of a back end ends with its token.
    pub(super) fn service_end(&self) -> Option<Instant> {
        let left = self.service.next_end()?.millis_since(self.gateway.clock.now().into());
        Some(instant() + Duration::from_millis(u64::try_from(left).unwrap_or(0)))
    }

    /// Policies have changed: what their tokens have opened here is looked at again.
    pub(super) fn look_at_policies(&mut self) {
        let tokens: Vec<&str> = self.proofs.policies().map(|token| &**token).collect();
        let now = self.gateway.clock.now().into();
        self.service.check_again(self.connection.session_mut(), now, &tokens);
        for name in self.clients.names() {
            self.look_at_policy_of(name);
        }
    }

    /// A client acts here. If it does by a policy, that may have changed while it was let in.
    pub(super) fn watch_policy(&mut self, name: Name) {
        if self.is_by_policy(name) {
            self.policies.listen(&**self.gateway.backend());
            self.look_at_policy_of(name);
        }
    }

    fn look_at_policy_of(&mut self, name: Name) {
        if !self.is_by_policy(name) {
            return;
        }
        let Some(client) = self.clients.look(name) else { return };
        let backend = self.gateway.backend();
        let mut tokens = self.proofs.of_policies_for(&client.admission.identity);
        if !tokens.any(|token| backend.permit_session(token).is_ok()) {
            drop(tokens);
            self.obey(name, Command::Close(CloseReason::Revoked));
        }
    }

    fn is_by_policy(&self, name: Name) -> bool {
        let client = self.clients.look(name);
        client.is_some_and(|client| matches!(client.admission.principal, Principal::Policy(_)))
    }

    fn forget_waiting(&mut self) {
        for name in std::mem::take(&mut self.waiting) {
            if let Some(client) = self.clients.get(name) {
                client.entrance.clear();
            }
        }
    }

    /// The node stops: nothing more is taken, and what was is acknowledged if the disk answers in time.
    pub(super) fn stop(&mut self) {
        self.end.get_or_insert(End::ShuttingDown);
        self.forget_waiting();
        self.last_acknowledgements = Some(instant() + LAST_ACKNOWLEDGEMENTS);
    }

    fn end_now(&mut self) {
        self.last_acknowledgements = None;
        let text = "the node stops; connect again";
        let session = self.connection.session_mut();
        // Node's SDK waits 45 s for the ends of its links if it is only told of the connection's, and does not come back by itself: to it
        // the word for that is an error like any other. Of this one it knows that it passes.
        session.end_all(&refusals::error(DETACH_FORCED, text));
        session.close(instant(), Some(refusals::error(CONNECTION_FORCED, text)));
    }

    pub(super) fn close(&mut self, end: End, error: holm_amqp::AmqpError) {
        self.end.get_or_insert(end);
        self.connection.session_mut().close(instant(), Some(error));
    }

    /// Everybody goes: the backend is told of each, and of those who were still on their way in.
    pub(super) async fn leave_all(&mut self) {
        for name in self.clients.names() {
            self.leave(name);
        }
        while let Some(done) = self.tasks.next().await {
            if let Done::Admitted(_, Ok(arrived)) = done {
                let (handle, _) = &arrived.session;
                self.gateway.backend.closed(handle.id(), &arrived.admission).await;
            }
        }
    }
}
