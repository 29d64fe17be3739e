//! A client that listens, acknowledges at once, and keeps account of every publisher.

use std::time::Duration;

use anyhow::Result;
use holm_mqtt::{DeliveryId, Event, Message, Outcome};
use tokio::sync::watch;

use crate::client::Link;
use crate::clock::now_ns;
use crate::histogram::Histogram;
use crate::ledger::{Ledger, Seen};
use crate::load::Run;
use crate::stamp::Stamp;

/// A subscriber at work.
#[derive(Debug)]
pub(crate) struct Subscriber {
    link: Link,
    run: Run,
    done: Received,
    /// Different messages that arrived.
    distinct: u64,
}

/// What a subscriber got.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// One for each publisher.
    pub(crate) ledgers: Vec<Ledger>,
    pub(crate) duplicates: u64,
    pub(crate) out_of_order: u64,
    pub(crate) end_to_end: Histogram,
    /// When the last new message came.
    pub(crate) last_ns: u64,
}

impl Received {
    /// For so many publishers.
    pub(crate) fn new(publishers: usize, start_ns: u64) -> Self {
        Self {
            ledgers: vec![Ledger::default(); publishers],
            last_ns: start_ns,
            ..Self::default()
        }
    }

    /// Notes a payload that arrived; true when it is a new message of this run.
    pub(crate) fn note(&mut self, run: &Run, payload: &[u8]) -> bool {
        let now = now_ns();
        let Some(stamp) = Stamp::read(payload).filter(|stamp| stamp.run == run.number) else {
            return false;
        };
        let publisher = usize::try_from(stamp.publisher).unwrap_or(usize::MAX);
        let Some(ledger) = self.ledgers.get_mut(publisher) else {
            return false;
        };
        match ledger.note(stamp.sequence) {
            Seen::Repeat => {
                self.duplicates += 1;
                return false;
            }
            Seen::Late => self.out_of_order += 1,
            Seen::InOrder => {}
        }
        self.last_ns = now;
        if stamp.due_ns >= run.count_from_ns {
            self.end_to_end.record(now.saturating_sub(stamp.due_ns));
        }
        true
    }
}

impl Subscriber {
    pub(crate) fn new(link: Link, run: Run, publishers: usize) -> Self {
        let done = Received::new(publishers, run.start_ns);
        Self {
            link,
            run,
            done,
            distinct: 0,
        }
    }

    /// Listens until as many messages came as `goal` says, once it says so, or none came for the run's patience.
    pub(crate) async fn listen(mut self, mut goal: watch::Receiver<Option<u64>>) -> Result<Received> {
        while goal.borrow_and_update().is_none() {
            tokio::select! {
                biased;
                event = self.link.next_event() => self.handle(event)?,
                changed = goal.changed() => changed?,
            }
        }
        let goal = goal.borrow().unwrap_or(0);
        while self.distinct < goal {
            match tokio::time::timeout(self.quiet_left(), self.link.next_event()).await {
                Ok(event) => self.handle(event)?,
                Err(_) => break,
            }
        }
        self.link.session_mut().close();
        self.link.finish().await;
        Ok(self.done)
    }

    /// How much longer nothing new may come. What is not of this run does not count as new.
    fn quiet_left(&self) -> Duration {
        let since_last = Duration::from_nanos(now_ns().saturating_sub(self.done.last_ns.max(self.run.end_ns)));
        self.run.patience.saturating_sub(since_last)
    }

    fn handle(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Publish { message, delivery } => self.receive(&message, delivery),
            Event::Closed(reason) => {
                let what = format!("a subscriber lost its connection after {} messages", self.distinct);
                return Err(anyhow::Error::new(reason).context(what));
            }
            _ => {}
        }
        Ok(())
    }

    fn receive(&mut self, message: &Message, delivery: Option<DeliveryId>) {
        if self.done.note(&self.run, &message.payload) {
            self.distinct += 1;
        }
        if let Some(delivery) = delivery {
            self.link.session_mut().acknowledge(delivery, Outcome::Accept);
        }
    }
}
