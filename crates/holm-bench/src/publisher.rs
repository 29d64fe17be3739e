//! A client that publishes by schedule and waits for every acknowledgement.

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use holm_mqtt::{Event, Message, Qos, Text, Token};

use crate::client::Link;
use crate::clock::{Alarm, now_ns};
use crate::histogram::Histogram;
use crate::ledger::Ledger;
use crate::load::Run;
use crate::schedule::Schedule;
use crate::stamp::Stamp;

/// A publisher at work.
#[derive(Debug)]
pub(crate) struct Publisher {
    link: Link,
    run: Run,
    schedule: Schedule,
    topic: Text,
    payload_bytes: usize,
    /// What waits for its acknowledgement, in the order sent; at most the session's window.
    pending: VecDeque<(Token, Stamp)>,
    done: Published,
}

/// What a publisher did.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// Which publisher, from 0.
    pub(crate) number: usize,
    pub(crate) sent: u64,
    pub(crate) unsent: u64,
    pub(crate) acknowledged: Ledger,
    pub(crate) puback: Histogram,
    pub(crate) lateness: Histogram,
    /// When the last acknowledgement came.
    pub(crate) last_ns: u64,
}

impl Publisher {
    pub(crate) fn new(link: Link, run: Run, schedule: Schedule, topic: &str, payload_bytes: usize) -> Result<Self> {
        let done = Published {
            number: usize::try_from(schedule.publisher).context("too many publishers")?,
            last_ns: run.start_ns,
            ..Published::default()
        };
        Ok(Self {
            link,
            run,
            schedule,
            topic: Text::try_from(topic).context("the topic")?,
            payload_bytes,
            pending: VecDeque::new(),
            done,
        })
    }

    /// Publishes to the end of the schedule, then waits for what is not acknowledged, as long as patience lasts.
    pub(crate) async fn publish(mut self) -> Result<Published> {
        let mut alarm = Alarm::new().context("no timer is to be had")?;
        let patience_ns = u64::try_from(self.run.patience.as_nanos()).unwrap_or(u64::MAX);
        let give_up_ns = self.run.end_ns.saturating_add(patience_ns);
        loop {
            let now = now_ns();
            let sending = now < self.run.end_ns;
            if sending {
                self.send_what_is_due(now)?;
            }
            let all_sent = !sending || self.schedule.due_ns(self.done.sent, now).is_none();
            if (all_sent && self.pending.is_empty()) || now >= give_up_ns {
                break;
            }
            let wake_ns = if sending { self.next_wake(now) } else { give_up_ns };
            tokio::select! {
                biased;
                event = self.link.next_event() => self.handle(event)?,
                woken = alarm.wait_until(wake_ns) => woken.context("the timer failed")?,
            }
        }
        self.count_unsent();
        self.link.session_mut().close();
        self.link.finish().await;
        Ok(self.done)
    }

    /// The next message that could be sent, or the end: a full window opens by an event, not by time.
    fn next_wake(&self, now: u64) -> u64 {
        if !self.link.session().can_publish() {
            return self.run.end_ns;
        }
        self.schedule.due_ns(self.done.sent, now).unwrap_or(self.run.end_ns)
    }

    fn send_what_is_due(&mut self, now: u64) -> Result<()> {
        while self.link.session().can_publish() {
            match self.schedule.due_ns(self.done.sent, now) {
                Some(due_ns) if due_ns <= now => self.send(due_ns, now)?,
                _ => break,
            }
        }
        Ok(())
    }

    fn send(&mut self, due_ns: u64, now: u64) -> Result<()> {
        let stamp = Stamp {
            run: self.run.number,
            publisher: self.schedule.publisher,
            sequence: self.done.sent,
            due_ns,
        };
        let message = Message {
            topic: self.topic.clone(),
            payload: stamp.payload(self.payload_bytes),
            qos: Qos::AtLeastOnce,
            ..Message::default()
        };
        let token = self.link.session_mut().publish(Instant::now(), &message)?;
        self.pending.push_back((token.context("QoS 1 has a token")?, stamp));
        self.done.sent += 1;
        if due_ns >= self.run.count_from_ns {
            self.done.lateness.record(now.saturating_sub(due_ns));
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Acknowledged(token) => self.acknowledged(token),
            Event::Closed(reason) => {
                return Err(anyhow::Error::new(reason).context(format!(
                    "publisher {} lost its connection after {} messages",
                    self.done.number, self.done.sent
                )));
            }
            Event::Publish { .. } => bail!("publisher {} was sent a message", self.done.number),
            _ => {}
        }
        Ok(())
    }

    fn acknowledged(&mut self, token: Token) {
        let Some(index) = self.pending.iter().position(|(waiting, _)| *waiting == token) else {
            return;
        };
        let Some((_, stamp)) = self.pending.remove(index) else {
            return;
        };
        let now = now_ns();
        self.done.acknowledged.note(stamp.sequence);
        self.done.last_ns = now;
        if stamp.due_ns >= self.run.count_from_ns {
            self.done.puback.record(now.saturating_sub(stamp.due_ns));
        }
    }

    /// What the schedule still wanted before its end.
    fn count_unsent(&mut self) {
        if matches!(self.schedule.pace, crate::schedule::Pace::Open { .. }) {
            let mut sequence = self.done.sent;
            while self.schedule.due_ns(sequence, 0).is_some() {
                sequence += 1;
            }
            self.done.unsent = sequence - self.done.sent;
        }
    }
}
