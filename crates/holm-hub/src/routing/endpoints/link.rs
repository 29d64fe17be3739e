//! An endpoint to which messages are published, and which acknowledges them one by one: what MQTT and NATS have in common.
//!
//! ```text
//! send:  connect, if there is no connection --> publish while the window has room <--> acknowledgements --> all: keep the connection
//! kept:  a task answers what the protocol asks (pings), until the next send takes the connection back, or it ends
//! ```
//!
//! - A connection that failed is never used again: the next attempt makes another. What was on its way is sent anew.
//! - A batch whose `send` is dropped drops the connection with it.
//! - What the other side acknowledged counts up to the first that it did not; order is that of the batch.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::time::Duration;

use futures_util::future::BoxFuture;
use holm_net::{Connection, Protocol, Stream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::routing::{Endpoint, Limits, Routed, SendError};

/// A connection of a protocol.
pub(super) type Link<P> = Connection<<P as Publishes>::Session, Box<dyn Stream>>;

/// A protocol that publishes messages.
pub(super) trait Publishes: fmt::Debug + Send + Sync + 'static {
    /// Its session.
    type Session: Protocol<Event: Send> + Send + 'static;
    /// What names a message that is on its way.
    type Ticket: Copy + Eq + Hash + Send;

    /// Connects and logs in; the session may publish then. The caller sets the deadline.
    fn connect(&self) -> BoxFuture<'_, Result<Link<Self>, String>>;

    /// Puts a message on its way.
    ///
    /// # Errors
    /// [`NotNow`].
    fn publish(&self, session: &mut Self::Session, routed: &Routed) -> Result<Self::Ticket, NotNow>;

    /// What an event means.
    fn read(event: <Self::Session as Protocol>::Event) -> Heard<Self::Ticket>;

    /// Says good-bye: what the session has to send is sent then.
    fn leave(&self, session: &mut Self::Session);
}

/// Why a message was not put on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotNow {
    /// When something is acknowledged, there is room again.
    Full,
    /// The session is over; an event tells why.
    Over,
    /// It has no form in this protocol.
    Never(String),
}

/// What the other side said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard<T> {
    /// It has the message.
    Taken(T),
    /// It does not take the message now.
    Refused(T, String),
    /// It never takes that message.
    RefusedForEver(T, String),
    /// The connection is over.
    Over(String),
    /// Nothing about messages.
    Nothing,
}

/// Publishes batches over one connection, which it keeps from one to the next.
#[derive(Debug)]
pub(super) struct Publisher<P: Publishes> {
    protocol: P,
    /// Where messages go, for operators.
    description: String,
    /// How long connecting may take, and then each acknowledgement.
    timeout: Duration,
    kept: Option<Kept<P>>,
}

impl<P: Publishes> Publisher<P> {
    pub(super) const fn new(protocol: P, description: String, timeout: Duration) -> Self {
        Self {
            protocol,
            description,
            timeout,
            kept: None,
        }
    }

    /// Publishes a batch; resolves when all of it was acknowledged.
    async fn deliver(&mut self, batch: &[Routed]) -> Result<(), SendError> {
        let kept = match self.kept.take() {
            Some(kept) => kept.give_back().await,
            None => None,
        };
        let mut link = match kept {
            Some(link) => link,
            None => self.connect().await.map_err(SendError::later)?,
        };
        let mut progress = Progress::new(batch.len());
        match self.publish(&mut link, batch, &mut progress).await {
            Ok(()) => {
                self.kept = Some(Kept::new(link));
                progress.outcome()
            }
            Err(why) => Err(SendError::Later {
                delivered: progress.delivered(),
                after: None,
                why,
            }),
        }
    }

    async fn connect(&self) -> Result<Link<P>, String> {
        match tokio::time::timeout(self.timeout, self.protocol.connect()).await {
            Ok(connected) => connected,
            Err(_) => Err(format!("no connection within {} s", self.timeout.as_secs())),
        }
    }

    /// Publishes until all is answered.
    ///
    /// # Errors
    /// Why the connection can't be used any more.
    async fn publish(&self, link: &mut Link<P>, batch: &[Routed], progress: &mut Progress) -> Result<(), String> {
        let mut on_their_way: HashMap<P::Ticket, usize> = HashMap::new();
        let mut next = 0;
        loop {
            // After a refusal nothing more is sent: it would overtake what was refused.
            while let Some(routed) = batch.get(next).filter(|_| progress.is_good()) {
                match self.protocol.publish(link.session_mut(), routed) {
                    Ok(ticket) => {
                        on_their_way.insert(ticket, next);
                        next += 1;
                    }
                    Err(NotNow::Full | NotNow::Over) => break,
                    Err(NotNow::Never(why)) => progress.refuse(next, true, why),
                }
            }
            if on_their_way.is_empty() && (next == batch.len() || !progress.is_good()) {
                return Ok(());
            }
            self.hear(link, &mut on_their_way, progress).await?;
        }
    }

    /// Waits for an answer to any of the messages.
    async fn hear(
        &self,
        link: &mut Link<P>,
        on_their_way: &mut HashMap<P::Ticket, usize>,
        progress: &mut Progress,
    ) -> Result<(), String> {
        let answered = async {
            loop {
                match P::read(link.next_event().await) {
                    Heard::Nothing => {}
                    Heard::Over(why) => return Err(why),
                    Heard::Taken(ticket) => return Ok((ticket, None)),
                    Heard::Refused(ticket, why) => return Ok((ticket, Some((false, why)))),
                    Heard::RefusedForEver(ticket, why) => return Ok((ticket, Some((true, why)))),
                }
            }
        };
        let answered = tokio::time::timeout(self.timeout, answered).await;
        let (ticket, refusal) =
            answered.map_err(|_| format!("no acknowledgement within {} s", self.timeout.as_secs()))??;
        // What nobody waits for is the answer to a message of an earlier batch, which was given up.
        if let Some(index) = on_their_way.remove(&ticket) {
            match refusal {
                None => progress.take(index),
                Some((for_ever, why)) => progress.refuse(index, for_ever, why),
            }
        }
        Ok(())
    }

    /// Ends the connection in good order.
    async fn leave(&mut self) {
        let Some(kept) = self.kept.take() else { return };
        if let Some(mut link) = kept.give_back().await {
            self.protocol.leave(link.session_mut());
            link.finish().await;
        }
    }
}

impl<P: Publishes> Endpoint for Publisher<P> {
    fn send<'a>(&'a mut self, batch: &'a [Routed]) -> BoxFuture<'a, Result<(), SendError>> {
        Box::pin(self.deliver(batch))
    }

    fn limits(&self) -> Limits {
        Limits::USUAL
    }

    fn describe(&self) -> String {
        self.description.clone()
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(self.leave())
    }
}

/// How far a batch is.
#[derive(Debug)]
struct Progress {
    taken: Vec<bool>,
    /// The first message that was refused, whether for ever, and why.
    refusal: Option<(usize, bool, String)>,
}

impl Progress {
    fn new(messages: usize) -> Self {
        Self {
            taken: vec![false; messages],
            refusal: None,
        }
    }

    fn take(&mut self, index: usize) {
        if let Some(taken) = self.taken.get_mut(index) {
            *taken = true;
        }
    }

    fn refuse(&mut self, index: usize, for_ever: bool, why: String) {
        if self.refusal.as_ref().is_none_or(|(first, ..)| index < *first) {
            self.refusal = Some((index, for_ever, why));
        }
    }

    const fn is_good(&self) -> bool {
        self.refusal.is_none()
    }

    /// How many from the start on were taken.
    fn delivered(&self) -> usize {
        self.taken.iter().take_while(|taken| **taken).count()
    }

    /// Once everything that was sent is answered.
    fn outcome(self) -> Result<(), SendError> {
        match self.refusal {
            None => Ok(()),
            Some((index, true, why)) => Err(SendError::Never { index, why }),
            Some((delivered, false, why)) => Err(SendError::Later {
                delivered,
                after: None,
                why,
            }),
        }
    }
}

/// A connection that nobody uses now. Its task ends with it.
struct Kept<P: Publishes> {
    task: JoinHandle<Option<Link<P>>>,
    give_back: Option<oneshot::Sender<()>>,
}

impl<P: Publishes> Kept<P> {
    fn new(link: Link<P>) -> Self {
        let (give_back, wanted) = oneshot::channel();
        Self {
            task: tokio::spawn(keep::<P>(link, wanted)),
            give_back: Some(give_back),
        }
    }

    /// The connection, if it is still one.
    async fn give_back(mut self) -> Option<Link<P>> {
        let wanted = self.give_back.take()?;
        if wanted.send(()).is_err() {
            tracing::trace!("the connection has ended meanwhile");
        }
        (&mut self.task).await.unwrap_or_default()
    }
}

impl<P: Publishes> Drop for Kept<P> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<P: Publishes> fmt::Debug for Kept<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept(..)")
    }
}

/// Moves bytes until the connection is wanted, or over. Other events of this time say nothing that matters.
async fn keep<P: Publishes>(mut link: Link<P>, mut wanted: oneshot::Receiver<()>) -> Option<Link<P>> {
    loop {
        tokio::select! {
            asked = &mut wanted => return asked.is_ok().then_some(link),
            event = link.next_event() => {
                if let Heard::Over(why) = P::read(event) {
                    tracing::debug!(why, "a connection of an endpoint ended while nothing was sent");
                    return None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_behind_a_gap_does_not_count() {
        let mut progress = Progress::new(4);

        progress.take(0);
        progress.take(2);

        assert_eq!(progress.delivered(), 1);
    }

    #[test]
    fn the_first_refusal_of_a_batch_is_told() {
        let mut progress = Progress::new(4);

        progress.refuse(3, true, "late".to_owned());
        progress.refuse(1, false, "full".to_owned());

        let Err(SendError::Later { delivered, why, .. }) = progress.outcome() else {
            panic!("a refusal is an error");
        };
        assert_eq!((delivered, why.as_str()), (1, "full"));
    }
}
