//! How messages end other than by their device: purged, expired, or not to be read back; and what is told of any end.
//!
//! A message and its feedback change in one transaction. Only what is in fact removed is told of, so there is one record a
//! message, whoever ends it first.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holm_model::{DeviceId, Identity, ServiceError, SystemProperty, Timestamp};

use super::leases::Leases;
use super::stored::decoded;
use super::{MAX_WAITING, Mailboxes};
use crate::feedback::{Outcome, Record};
use crate::notices::{NoticeKind, Notices, Written};
use crate::registry::existing;
use crate::storage::{Transaction, Waiting};

/// Expired messages that are removed in one change.
const SWEEP: u32 = 500;

/// Where a message is after its settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Gone,
    /// It is to be delivered again.
    Waits,
    /// It was gone before.
    Missing,
}

impl Mailboxes {
    /// Removes all that waits for a device; gives how many there were.
    ///
    /// # Errors
    /// `DeviceNotFound`.
    pub async fn purge(&self, device: DeviceId) -> Result<usize, ServiceError> {
        let (now, damage, notices) = (self.clock.now(), self.damage.clone(), self.notices.clone());
        let purged = self.repository.change_then(
            move |transaction| {
                let entry = existing(transaction, &Identity::of_device(device.clone()))?;
                let waiting = transaction.waiting(&device)?;
                let mut endings = Endings::new(transaction, damage, now);
                for message in &waiting {
                    endings.end(&device, &entry.generation, message, Outcome::Purged)?;
                }
                let feedback = endings.feedback();
                transaction.record("messages.purge", &device, None, now)?;
                Ok((waiting.len(), feedback))
            },
            move |(_, feedback)| notices.announce(feedback),
        );
        purged.await.map(|(count, _)| count)
    }

    /// Removes messages whose time has ended, of all devices, but for those that somebody holds.
    ///
    /// # Errors
    /// When the database can't be read or written to.
    pub async fn sweep(&self) -> Result<(), ServiceError> {
        let now = self.clock.now();
        let mut after = (Timestamp::NEVER, 0);
        loop {
            let page = self
                .repository
                .read(move |view| view.overdue(now, after, SWEEP))
                .await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = *last;
            self.expire(page.into_iter().map(|(_, sequence)| sequence).collect(), now)
                .await?;
        }
    }

    async fn expire(&self, sequences: Vec<u64>, now: Timestamp) -> Result<(), ServiceError> {
        let (damage, leases, notices) = (self.damage.clone(), Arc::clone(&self.leases), self.notices.clone());
        let expired = self.repository.change_then(
            move |transaction| {
                let mut endings = Endings::new(transaction, damage, now);
                for sequence in sequences {
                    if let Some((device, message)) = transaction.waiting_of_any(sequence)? {
                        endings.expire(&device, &message, &leases)?;
                    }
                }
                Ok(endings.feedback())
            },
            move |feedback| notices.announce(feedback),
        );
        expired.await.map(|_| ())
    }
}

/// The ends of messages in one transaction.
pub(super) struct Endings<'t, 'c> {
    transaction: &'t Transaction<'c>,
    damage: Damage,
    now: Timestamp,
    feedback: Vec<Written>,
}

impl<'t, 'c> Endings<'t, 'c> {
    pub(super) const fn new(transaction: &'t Transaction<'c>, damage: Damage, now: Timestamp) -> Self {
        Self {
            transaction,
            damage,
            now,
            feedback: Vec::new(),
        }
    }

    /// The feedback that was written, to be announced when the transaction is on disk.
    pub(super) fn feedback(self) -> Vec<Written> {
        self.feedback
    }

    pub(super) fn generation(&self, device: &DeviceId) -> Result<String, ServiceError> {
        let entry = self.transaction.entry(&Identity::of_device(device.clone()))?;
        Ok(entry.map(|entry| entry.generation).unwrap_or_default())
    }

    /// Removes a message, and tells who asked what became of it. Of one that can't be read back nothing is told: its sender
    /// could not tell which it was.
    pub(super) fn end(
        &mut self,
        device: &DeviceId,
        generation: &str,
        message: &Waiting,
        outcome: Outcome,
    ) -> Result<(), ServiceError> {
        let was_there = self.transaction.discard_waiting(message.sequence)?;
        let decoded = match decoded(message) {
            Ok(decoded) => decoded,
            Err(error) => {
                self.damage.found(device.as_str(), message, &error);
                return Ok(());
            }
        };
        if !was_there || !outcome.is_wanted(&message.ack) {
            return Ok(());
        }
        let record = Record {
            message: decoded.system.get(SystemProperty::MessageId).unwrap_or_default(),
            device,
            generation,
            outcome: outcome.name(),
            at: self.now,
        };
        let written = Notices::write(self.transaction, NoticeKind::Feedback, self.now, &record.to_json())?;
        self.feedback.push(written);
        Ok(())
    }

    /// Removes what has expired and nobody holds; gives how many more may wait.
    pub(super) fn drop_expired(
        &mut self,
        device: &DeviceId,
        generation: &str,
        leases: &Mutex<Leases>,
    ) -> Result<usize, ServiceError> {
        let mut room = MAX_WAITING;
        for message in &self.transaction.waiting(device)? {
            if message.expires > self.now || lock(leases).is_held(device, message.sequence, self.now) {
                room = room.saturating_sub(1);
            } else {
                self.end(device, generation, message, Outcome::Expired)?;
            }
        }
        Ok(room)
    }

    fn expire(&mut self, device: &str, message: &Waiting, leases: &Mutex<Leases>) -> Result<(), ServiceError> {
        let device = match DeviceId::new(device) {
            Ok(device) => device,
            Err(error) => {
                self.damage.found(device, message, &error);
                self.transaction.discard_waiting(message.sequence)?;
                return Ok(());
            }
        };
        if lock(leases).is_held(&device, message.sequence, self.now) {
            return Ok(());
        }
        let generation = self.generation(&device)?;
        self.end(&device, &generation, message, Outcome::Expired)
    }
}

/// Counts records that can't be read back. They are removed: nobody could ever take them, and what waits behind them must
/// not wait for them. Clones count together.
#[derive(Clone, Debug, Default)]
pub(super) struct Damage(Arc<AtomicU64>);

impl Damage {
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn found(&self, device: &str, record: &Waiting, error: &(dyn std::error::Error + 'static)) {
        self.0.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            device,
            sequence = record.sequence,
            enqueued = %record.enqueued,
            bytes = record.message.len(),
            error = %holm_net::error_chain(error),
            "a cloud-to-device message can't be read back and is removed; it never reaches its device"
        );
    }
}

/// Held for map operations only, never across an await.
pub(super) fn lock(leases: &Mutex<Leases>) -> MutexGuard<'_, Leases> {
    leases.lock().unwrap_or_else(PoisonError::into_inner)
}
