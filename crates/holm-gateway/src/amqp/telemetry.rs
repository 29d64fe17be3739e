//! What clients send: messages of theirs, tokens, answers to methods, requests to their twins.
//!
//! ```text
//!   telemetry ─> entrance (waits for room) ─> receipt (waits for the disk) ─> accepted
//!                can't be read, too large     ─> rejected, by the field; of a batch all or none
//!                can't be stored now          ─> rejected, and the link is detached: nothing overtakes it
//! ```
//!
//! A batch has one outcome: it is accepted when each of its messages is on disk.

use holm_amqp::{Delivery, DeliveryId, LinkId, Outcome};
use tokio::io::{AsyncRead, AsyncWrite};

use super::crowd::Name;
use super::front::{Front, Link, Use};
use super::{message, refusals};
use crate::backend::{Backend, IngestError};
use crate::metrics::{End, Throttle};

/// A message, as the part of the delivery that brought it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    delivery: DeliveryId,
    /// Behind it the delivery has no other: when it is on disk, all of it is.
    is_last: bool,
}

impl<B: Backend, S: AsyncRead + AsyncWrite + Unpin + Send> Front<'_, B, S> {
    /// A delivery came.
    pub(super) async fn deliver(&mut self, delivery: Delivery) {
        if self.service.holds(delivery.link) {
            return self.service.delivery(self.connection.session_mut(), delivery);
        }
        if self.registrants.holds(delivery.link) {
            return self.registrant_request(&delivery);
        }
        // Of a link that is gone it comes again, if its sender wants.
        let Some(Link { purpose, client }) = self.links.get(&delivery.link).copied() else {
            return;
        };
        match (purpose, client) {
            (Use::CbsRequests, _) => self.put_token(&delivery),
            (Use::Telemetry, Some(name)) => self.telemetry(name, &delivery),
            (Use::MethodAnswers, Some(name)) => self.method_answer(name, &delivery),
            (Use::TwinRequests, Some(name)) => {
                self.enter_touched();
                self.twin_request(name, &delivery).await;
            }
            _ => {}
        }
    }

    fn telemetry(&mut self, name: Name, delivery: &Delivery) {
        let Some(client) = self.clients.get(name) else { return };
        let mut messages = match message::from_client(delivery) {
            Ok(messages) => messages,
            Err(error) => {
                let who = &client.admission.identity;
                self.gateway.complaints.refused(&error, self.peer.address, who);
                let error = refusals::of_unreadable(&error);
                return self.reject(delivery.id, error);
            }
        };
        // Of a batch all are taken or none: there is one outcome for them.
        let backend = self.gateway.backend();
        let is_batch = messages.len() > 1;
        let mut refused = messages
            .iter()
            .filter(|_| is_batch)
            .map(|one| backend.check(&client.admission, one));
        if let Some(error) = refused.find_map(Result::err) {
            let who = &client.admission.identity;
            self.gateway.complaints.refused(&error, self.peer.address, who);
            return self.reject(delivery.id, refusals::of_ingest(&error));
        }
        let Some(last) = messages.pop() else {
            // A batch of none.
            return self.settle(delivery.id, Outcome::Accepted);
        };
        let part = |is_last| delivery.id.map(|delivery| Part { delivery, is_last });
        for message in messages {
            client.entrance.push(message, part(false));
        }
        client.entrance.push(last, part(true));
        if self.touched.last() != Some(&name) {
            self.touched.push(name);
        }
    }

    /// Takes in what came, as far as there is room.
    pub(super) fn enter_touched(&mut self) {
        for name in std::mem::take(&mut self.touched) {
            self.enter(name);
        }
    }

    fn enter(&mut self, name: Name) {
        while let Some(client) = self.clients.get(name) {
            let was_waiting = client.entrance.is_waiting();
            let entered = client.entrance.enter(&mut client.receipts);
            if client.entrance.is_waiting() && !was_waiting {
                self.gateway.metrics.throttled.of(Throttle::Messages).increment();
                self.waiting.insert(name);
            }
            match entered {
                Ok(()) => return,
                Err((part, error)) => self.not_entered(name, part, &error),
            }
        }
    }

    /// The message that waited for room has its place in the order of the node, or none; those behind it follow.
    pub(super) fn entered(&mut self, name: Name, part: Option<Part>, outcome: Result<B::Receipt, IngestError>) {
        self.waiting.remove(&name);
        match outcome {
            Ok(receipt) => {
                if let Some(client) = self.clients.get(name) {
                    client.receipts.push(part.into_iter(), receipt);
                }
            }
            Err(error) => self.not_entered(name, part, &error),
        }
        self.enter(name);
    }

    fn not_entered(&mut self, name: Name, part: Option<Part>, error: &IngestError) {
        let delivery = part.map(|part| part.delivery);
        if let Some(client) = self.clients.look(name) {
            let who = &client.admission.identity;
            self.gateway.complaints.refused(error, self.peer.address, who);
        }
        match error {
            // It never will be, so nothing has to wait for it.
            IngestError::TooLarge { .. } | IngestError::PropertiesTooLong { .. } => {
                self.reject(delivery, refusals::of_ingest(error));
            }
            IngestError::Unavailable(_) => self.not_stored(name, delivery, error),
        }
    }

    /// Nothing behind a message that was not stored is: the order of a sender's messages would suffer. The link goes, and
    /// the client sends what has no outcome again.
    fn not_stored(&mut self, name: Name, delivery: Option<DeliveryId>, error: &IngestError) {
        self.waiting.remove(&name);
        self.gateway.metrics.ended.of(End::NotStored).increment();
        if let Some(client) = self.clients.get(name) {
            client.entrance.clear();
            client.receipts.clear();
        }
        self.reject(delivery, refusals::of_ingest(error));
        let links: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| link.client == Some(name) && link.purpose == Use::Telemetry)
            .map(|(id, _)| *id)
            .collect();
        for link in links {
            self.detach(link, refusals::of_ingest(error));
        }
    }

    /// Messages are on disk, or could not be brought there, and with them those behind them that were in the same commit.
    pub(super) fn stored_all(&mut self, name: Name, count: usize, outcome: Result<(), IngestError>) {
        let mut next = Some((count, outcome));
        while let Some((count, outcome)) = next {
            for _ in 0..count {
                let Some(client) = self.clients.get(name) else { return };
                let part = client.receipts.pop();
                let delivery = part.map(|part| part.delivery);
                match &outcome {
                    Ok(()) if part.is_some_and(|part| !part.is_last) => {}
                    Ok(()) => self.settle(delivery, Outcome::Accepted),
                    Err(error) => {
                        tracing::warn!(identity = %client.admission.identity, %error, "a message was not stored");
                        return self.not_stored(name, delivery, error);
                    }
                }
            }
            next = self.clients.get(name).and_then(|client| client.receipts.try_next());
        }
    }

    pub(super) fn settle(&mut self, delivery: Option<DeliveryId>, outcome: Outcome) {
        if let Some(delivery) = delivery {
            self.connection.session_mut().settle(delivery, outcome);
        }
    }

    pub(super) fn reject(&mut self, delivery: Option<DeliveryId>, error: holm_amqp::AmqpError) {
        self.settle(delivery, Outcome::Rejected(Some(Box::new(error))));
    }
}
