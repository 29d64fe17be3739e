//! What happens to one client: the node wants something of it, it gives credit, messages for it come, a moment has come.
//!
//! ```text
//!   crowd --News--> hear --> command: call, tell, expel      stored, answered, entered: outcomes and answers
//!                        '-> received: deliver               due: expel, detach, or give credit back
//! ```

use holm_amqp::LinkId;
use holm_net::clock::instant;
use tokio::io::{AsyncRead, AsyncWrite};

use super::client::News;
use super::crowd::Name;
use super::front::{Front, Use};
use super::refusals;
use crate::backend::{Backend, Mailbox, Refusal};
use crate::metrics::End;
use crate::session::{CloseReason, Command};

impl<B: Backend, S: AsyncRead + AsyncWrite + Unpin + Send> Front<'_, B, S> {
    /// Something happened to a client.
    pub(super) fn hear(&mut self, name: Name, news: News<B::Receipt>) {
        match news {
            News::Command(command) => self.obey(name, command),
            News::Stored(count, outcome) => self.stored_all(name, count, outcome),
            News::Twin(answer) => self.answer_twin(name, answer),
            News::Received(mailbox, received) => self.received(name, mailbox, received),
            News::Entered(delivery, outcome) => self.entered(name, delivery, outcome),
            News::Due => self.due(name),
        }
    }

    fn received(&mut self, name: Name, mailbox: Mailbox, received: Result<Vec<crate::Delivery>, Refusal>) {
        let Some(client) = self.clients.get(name) else { return };
        match received {
            Ok(deliveries) => {
                client
                    .deliveries
                    .received(mailbox, deliveries, self.connection.session_mut());
                if client.is_blocked() {
                    self.blocked.insert(name);
                }
            }
            Err(refusal) => {
                tracing::warn!(identity = %client.admission.identity, reason = %refusal, "messages can't be read");
                let error = refusals::of_refusal(&refusal, &client.admission.identity);
                if let Some(link) = client.deliveries.close(mailbox) {
                    self.detach(link, error);
                }
            }
        }
    }

    pub(super) fn credit(&mut self, link: LinkId, credit: u32, drain: bool) {
        if self.service.holds(link) {
            return self.service.credit(self.connection.session_mut(), link, credit, drain);
        }
        let known = self.links.get(&link).copied();
        match known.and_then(|known| known.client) {
            Some(name) if matches!(known.map(|known| known.purpose), Some(Use::Mailbox(_))) => {
                if let Some(client) = self.clients.get(name) {
                    client
                        .deliveries
                        .credit(link, credit, drain, self.connection.session_mut());
                    if client.is_blocked() {
                        self.blocked.insert(name);
                    }
                }
            }
            // What is sent there is sent when there is something to say.
            _ if drain => {
                self.connection.session_mut().give_credit_back(link);
            }
            _ => {}
        }
    }

    /// The proof of a client has ended, it left a delivery unsettled for too long, or what it drains is empty.
    fn due(&mut self, name: Name) {
        let now = instant();
        let Some(client) = self.clients.get(name) else { return };
        let identity = client.admission.identity.clone();
        if client.has_ended(now) {
            tracing::debug!(%identity, "the token has ended; its links are detached");
            self.gateway.metrics.ended.of(End::TokenEnded).increment();
            self.expel(name, &refusals::token_ended(&identity));
        } else if let Some(link) = client.overdue(now) {
            tracing::warn!(%identity, "a message was not settled in time; its link is detached");
            let text = "a delivery was not settled in time; it goes to the next receiver";
            self.detach(link, refusals::error(holm_amqp::condition::DETACH_FORCED, text));
        } else if let Some(client) = self.clients.get(name) {
            client.deliveries.give_credit_back(now, self.connection.session_mut());
        }
    }

    pub(super) fn obey(&mut self, name: Name, command: Command) {
        match command {
            Command::Invoke(request, caller) => self.call(name, &request, caller),
            Command::DesiredChanged(patch) => self.tell_desired(name, &patch),
            Command::Close(CloseReason::ShuttingDown) => {
                if self.last_acknowledgements.is_none() && self.end.is_none() {
                    self.stop();
                }
            }
            Command::Close(reason) => {
                let Some(client) = self.clients.look(name) else { return };
                let identity = client.admission.identity.clone();
                tracing::debug!(%identity, ?reason, "its links are detached");
                let end = match reason {
                    CloseReason::Replaced => End::Replaced,
                    CloseReason::Revoked => End::Revoked,
                    CloseReason::ShuttingDown => End::ShuttingDown,
                    CloseReason::TooSlow => End::TooSlow,
                };
                self.gateway.metrics.ended.of(end).increment();
                self.expel(name, &refusals::of_close(reason, &identity));
            }
        }
    }
}
