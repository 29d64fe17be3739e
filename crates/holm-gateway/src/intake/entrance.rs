//! The way of a client's messages into the node, whatever protocol it speaks: those that came together enter together, in order, and one waits beside the
//! connection when there is no room.
//!
//! ```text
//!   message --push--> --enter--> have their place at once
//!                            '--> the first waits --next--> has its place, and the others enter
//!                                     |'------------------> given up: LAST_ROOM after the end of the connection
//!                                     '--clear------------> forgotten: the node closes, its sender was told nothing of it
//! ```
//!
//! While a message waits its connection goes on: a wish to close is heard, and what is to be sent leaves. The messages
//! behind it wait in the protocol's session, whose bounds stop the reading of the socket.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use holm_model::Message;
use tokio::time::Instant;

use super::receipts::Receipts;
use crate::backend::{Admission, Backend, IngestError};

/// How long a message may wait for room once its connection has ended. What a client sent before it said goodbye is taken
/// in; but nobody is there to be told, and the session of somebody who is gone must not stay for ever.
pub(crate) const LAST_ROOM: Duration = Duration::from_secs(5);

/// How often it is looked whether the connection of a message that waits has ended.
const LOOK_FOR_END: Duration = Duration::from_secs(1);

/// The delivery that brought a message, and what became of it.
pub(crate) type Entered<R, D> = (Option<D>, Result<R, IngestError>);

type Entering<R, D> = Pin<Box<dyn Future<Output = Entered<R, D>> + Send>>;

/// The entrance of one client, whose messages come in deliveries `D`.
pub(crate) struct Entrance<B: Backend, D> {
    backend: Arc<B>,
    admission: Arc<Admission>,
    /// What came and has no place yet; what came in one read, at most.
    messages: VecDeque<Message>,
    /// The delivery of each, if its sender waits to hear of it.
    deliveries: VecDeque<Option<D>>,
    /// The one before them, while it waits for room.
    waiting: Option<Entering<B::Receipt, D>>,
    /// When what waits is given up; set when the connection has ended.
    until: Option<Instant>,
    /// When it is looked next whether the connection has ended.
    look_at: Option<std::time::Instant>,
}

impl<B: Backend, D: Send + 'static> Entrance<B, D> {
    pub(crate) const fn new(backend: Arc<B>, admission: Arc<Admission>) -> Self {
        Self {
            backend,
            admission,
            messages: VecDeque::new(),
            deliveries: VecDeque::new(),
            waiting: None,
            until: None,
            look_at: None,
        }
    }

    /// Brings a message.
    pub(crate) fn push(&mut self, message: Message, delivery: Option<D>) {
        self.messages.push_back(message);
        self.deliveries.push_back(delivery);
    }

    /// Takes in what was brought, as far as there is room; what was taken in goes to `receipts`.
    ///
    /// # Errors
    /// The first that was refused, with the delivery that brought it.
    pub(crate) fn enter(&mut self, receipts: &mut Receipts<B::Receipt, D>) -> Result<(), (Option<D>, IngestError)> {
        while self.waiting.is_none() && !self.messages.is_empty() {
            if let Some(receipt) = self.backend.ingest_ready(&self.admission, &mut self.messages) {
                let taken = self.deliveries.len().saturating_sub(self.messages.len());
                receipts.push(self.deliveries.drain(..taken).flatten(), receipt);
            }
            let Some(message) = self.messages.pop_front() else {
                break;
            };
            let delivery = self.deliveries.pop_front().flatten();
            let (backend, admission) = (Arc::clone(&self.backend), Arc::clone(&self.admission));
            let mut entering = async move { (delivery, backend.ingest(&admission, message).await) }.boxed();
            match (&mut entering).now_or_never() {
                Some((delivery, Ok(receipt))) => receipts.push(delivery.into_iter(), receipt),
                Some((delivery, Err(error))) => return Err((delivery, error)),
                None => {
                    self.waiting = Some(entering);
                    self.look_later();
                }
            }
        }
        Ok(())
    }

    pub(crate) const fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// While a message waits: when to look next whether the connection has ended.
    pub(crate) fn look_at(&self) -> Option<std::time::Instant> {
        self.look_at.filter(|_| self.is_waiting())
    }

    /// It was looked.
    pub(crate) fn look_later(&mut self) {
        self.look_at = Some(holm_net::clock::instant() + LOOK_FOR_END);
    }

    /// What became of the message that waits, `None` if it was given up; waits for ever when none does. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Entered<B::Receipt, D>> {
        let Some(waiting) = &mut self.waiting else {
            return std::future::pending().await;
        };
        let entered = tokio::select! {
            entered = waiting => Some(entered),
            () = sleep_until(self.until) => None,
        };
        self.waiting = None;
        entered
    }

    /// The connection has ended: what waits does so not much longer.
    pub(crate) fn ended(&mut self) {
        self.until.get_or_insert_with(|| Instant::now() + LAST_ROOM);
    }

    /// Forgets what has no place yet.
    pub(crate) fn clear(&mut self) {
        self.messages.clear();
        self.deliveries.clear();
        self.waiting = None;
    }
}

/// Waits for a moment; for ever when there is none.
async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
