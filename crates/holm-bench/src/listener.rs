//! Someone who listens, takes in everything at once, and keeps account of every publisher.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use holm_mqtt::{Event, Outcome};
use tokio::sync::watch;

use crate::client::{self, Link};
use crate::clock::now_ns;
use crate::histogram::Histogram;
use crate::ledger::{Ledger, Seen};
use crate::load::{ListenerPlan, Run};
use crate::service::HubEvents;
use crate::stamp::Stamp;

/// Where messages come from.
#[derive(Debug)]
pub(crate) enum Source {
    Subscription(Box<Link>),
    HubEvents(HubEvents),
}

impl Source {
    /// A source that gives every message from now on.
    pub(crate) async fn open(plan: &ListenerPlan) -> Result<Self> {
        match plan {
            ListenerPlan::Subscriber { target, login, filter } => {
                let mut link = client::connect(target, login, 1).await?;
                client::subscribe(&mut link, filter).await?;
                Ok(Self::Subscription(Box::new(link)))
            }
            ListenerPlan::HubEvents(service) => Ok(Self::HubEvents(service.follow().await?)),
        }
    }

    /// The next payload; a subscription acknowledges it. Cancel-safe.
    async fn next(&mut self) -> Result<Bytes> {
        let link = match self {
            Self::Subscription(link) => link,
            Self::HubEvents(events) => return events.next().await,
        };
        loop {
            match link.next_event().await {
                Event::Publish { message, delivery } => {
                    if let Some(delivery) = delivery {
                        link.session_mut().acknowledge(delivery, Outcome::Accept);
                    }
                    return Ok(message.payload);
                }
                Event::Closed(reason) => {
                    return Err(anyhow::Error::new(reason).context("a subscriber lost its connection"));
                }
                _ => {}
            }
        }
    }

    async fn close(self) {
        if let Self::Subscription(mut link) = self {
            link.session_mut().close();
            link.finish().await;
        }
    }
}

/// A listener at work.
#[derive(Debug)]
pub(crate) struct Listener {
    source: Source,
    run: Run,
    done: Received,
    /// Different messages that arrived.
    distinct: u64,
}

/// What a listener got.
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
    /// Notes a payload that arrived; true when it is a new message of this run.
    fn note(&mut self, run: &Run, payload: &[u8]) -> bool {
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

impl Listener {
    pub(crate) fn new(source: Source, run: Run, publishers: usize) -> Self {
        let done = Received {
            ledgers: vec![Ledger::default(); publishers],
            last_ns: run.start_ns,
            ..Received::default()
        };
        Self {
            source,
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
                payload = self.source.next() => self.receive(&payload?),
                changed = goal.changed() => changed?,
            }
        }
        let goal = goal.borrow().unwrap_or(0);
        while self.distinct < goal {
            match tokio::time::timeout(self.quiet_left(), self.source.next()).await {
                Ok(payload) => self.receive(&payload?),
                Err(_) => break,
            }
        }
        self.source.close().await;
        Ok(self.done)
    }

    /// How much longer nothing new may come. What is not of this run does not count as new.
    fn quiet_left(&self) -> Duration {
        let since_last = Duration::from_nanos(now_ns().saturating_sub(self.done.last_ns.max(self.run.end_ns)));
        self.run.patience.saturating_sub(since_last)
    }

    fn receive(&mut self, payload: &[u8]) {
        if self.done.note(&self.run, payload) {
            self.distinct += 1;
        }
    }
}
