//! A link on which a client receives notices, one lease for each delivery until its outcome is there.
//!
//! ```text
//!   credit --> receive --> send --> outcome: settle
//!                 ^         '-- no room on the connection: the notice waits for it, and nothing more is received
//!                 '---- more credit
//! ```

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use holm_amqp::{AmqpError, Connection, DeliveryTag, LinkId, Outbound, Outcome, SendError, Token};

use super::super::refusals;
use super::notice_message::notice_bytes;
use crate::backend::{Refusal, Settlement};
use crate::service::{Notice, NoticeKind, NoticeReader};

type Receiving = Pin<Box<dyn Future<Output = Result<Option<Notice>, Refusal>> + Send>>;

/// The sending end of a notices' link. Dropped, it gives back what has no outcome.
pub(super) struct NoticeLink<N> {
    kind: NoticeKind,
    reader: Arc<N>,
    /// Waits for the next one, while the client has credit.
    receiving: Option<Receiving>,
    leases: HashMap<Token, [u8; 16]>,
    /// Leased, and there was no room for it on the connection.
    unsent: Option<Notice>,
    credit: u32,
    is_draining: bool,
}

impl<N: NoticeReader> NoticeLink<N> {
    pub(super) fn new(kind: NoticeKind, reader: N) -> Self {
        Self {
            kind,
            reader: Arc::new(reader),
            receiving: None,
            leases: HashMap::new(),
            unsent: None,
            credit: 0,
            is_draining: false,
        }
    }

    /// The client has said how much more it takes.
    pub(super) fn credit(&mut self, credit: u32, drain: bool) {
        self.credit = credit;
        self.is_draining = drain;
        if credit == 0
            && let Some(unsent) = self.unsent.take()
        {
            self.reader.settle(unsent.lease, Settlement::Release);
        }
        // One that waits for what comes is exchanged for one that looks what is there, and the other way.
        self.receiving = None;
        self.receive();
    }

    fn receive(&mut self) {
        if self.credit > 0 && self.receiving.is_none() && self.unsent.is_none() {
            let (reader, waits) = (Arc::clone(&self.reader), !self.is_draining);
            self.receiving = Some(Box::pin(async move { reader.receive(waits).await }));
        }
    }

    /// Ready with the next notice; with none when the client is to have its credit back.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Notice>, Refusal>> {
        let Some(receiving) = &mut self.receiving else {
            return Poll::Pending;
        };
        let received = std::task::ready!(receiving.as_mut().poll(context));
        self.receiving = None;
        Poll::Ready(received)
    }

    /// Whether it waits for room on the connection.
    pub(super) const fn wants_room(&self) -> bool {
        self.unsent.is_some()
    }

    /// The connection may have room again.
    ///
    /// # Errors
    /// What the link is to be detached with.
    pub(super) fn room(&mut self, connection: &mut Connection, link: LinkId, hub: &str) -> Result<(), AmqpError> {
        match self.unsent.take() {
            Some(notice) => self.received(connection, link, Some(notice), hub),
            None => Ok(()),
        }
    }

    /// Sends what [`NoticeLink::poll`] gave.
    ///
    /// # Errors
    /// What the link is to be detached with.
    pub(super) fn received(
        &mut self,
        connection: &mut Connection,
        link: LinkId,
        notice: Option<Notice>,
        hub: &str,
    ) -> Result<(), AmqpError> {
        let Some(notice) = notice else {
            self.credit = 0;
            if self.is_draining {
                self.is_draining = !connection.give_credit_back(link);
            }
            return Ok(());
        };
        let delivery = Outbound {
            tag: DeliveryTag::from(notice.lease),
            format: 0,
            payload: notice_bytes(self.kind, &notice, hub),
            settled: false,
        };
        match connection.send(link, &delivery) {
            Ok(Some(token)) => {
                self.leases.insert(token, notice.lease);
                self.credit = self.credit.saturating_sub(1);
            }
            // The client wanted no say in it.
            Ok(None) => {
                self.reader.settle(notice.lease, Settlement::Complete);
                self.credit = self.credit.saturating_sub(1);
            }
            Err(SendError::NoCredit) => {
                self.credit = 0;
                self.reader.settle(notice.lease, Settlement::Release);
            }
            Err(SendError::QueueFull | SendError::WindowFull) => self.unsent = Some(notice),
            Err(error @ (SendError::NotAttached | SendError::TooLarge { .. })) => {
                self.reader.settle(notice.lease, Settlement::Release);
                let text = format!("a notice can't be sent: {error}");
                return Err(refusals::error(holm_amqp::condition::RESOURCE_LIMIT_EXCEEDED, text));
            }
        }
        self.receive();
        Ok(())
    }

    /// A delivery has its outcome.
    pub(super) fn settled(&mut self, token: Token, outcome: Option<&Outcome>) {
        if let Some(lease) = self.leases.remove(&token) {
            let settlement = match outcome {
                Some(Outcome::Accepted) => Settlement::Complete,
                Some(Outcome::Rejected(_)) => Settlement::Reject,
                Some(Outcome::Released | Outcome::Modified(_)) => Settlement::Abandon,
                None => Settlement::Release,
            };
            self.reader.settle(lease, settlement);
        }
    }
}
