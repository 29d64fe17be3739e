//! Cloud-to-device messages: they wait in the database, are handed out on lease, and go when their device has settled them.
//!
//! ```text
//! send -> Waiting --receive--> Held(session) --complete, reject--> Settling -> gone (outcome kept if asked for)
//!            ^                      |  '------abandon (counted)--> Settling --.
//!            '----------------------'--session closes (not counted)-----------'  or gone after the last delivery
//! ```
//!
//! - Leases live in memory: a hub that restarts has no sessions, so nothing is leased. What is settled is on disk before
//!   its lease ends, so a settled message is never handed out again.
//! - A lease is named by a token of its own, given out once while the hub runs: a late word about one delivery says nothing
//!   about the next delivery of the same message.
//! - A record that can't be read back harms no other: it is logged, counted and removed by whoever meets it.
//! - A device has at most [`MAX_WAITING`] messages, whose time to live is at most [`MAX_TIME_TO_LIVE_MS`].
//!
//! Source: `hub-service-api.md` §5.2, `hub-device-protocols.md` §2.5, §7.

mod leases;
mod stored;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use holm_gateway::{Delivery, SessionId, Settlement};
use holm_model::{DeviceId, ErrorCode, Identity, Message, ServiceError, SystemProperty, Timestamp};
use holm_net::Scope;

use crate::registry::existing;
use crate::storage::{Outcome, Repository, Transaction, Waiting};
use crate::{Clock, Signals};

use leases::{Leases, Taken};
use stored::{decoded, delivery, prepare};

/// The most messages that wait for one device. Source: `hub-service-api.md` §5.2.
pub const MAX_WAITING: usize = 50;
/// How long a message waits when its sender does not say: an hour.
pub const DEFAULT_TIME_TO_LIVE_MS: i64 = 3_600_000;
/// The longest that a message waits: two days.
pub const MAX_TIME_TO_LIVE_MS: i64 = 48 * 3_600_000;
/// How often a message is handed out and abandoned before it is given up.
pub const MAX_DELIVERIES: u32 = 10;
/// Expired messages that one sweep removes at a time.
const SWEEP: u32 = 500;

/// The mailboxes of a hub. Clones are the same.
#[derive(Clone, Debug)]
pub struct Mailboxes {
    repository: Repository,
    signals: Signals,
    clock: Clock,
    scope: Scope,
    leases: Arc<Mutex<Leases>>,
    damage: Damage,
}

impl Mailboxes {
    /// Mailboxes over a repository; what is settled is written by tasks of `scope`.
    #[must_use]
    pub fn new(repository: Repository, signals: Signals, clock: Clock, scope: Scope) -> Self {
        Self {
            repository,
            signals,
            clock,
            scope,
            leases: Arc::default(),
            damage: Damage::default(),
        }
    }

    /// How many records that could not be read back were removed since the hub started.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.damage.0.load(Ordering::Relaxed)
    }

    /// Puts a message into the mailbox of a device; gives its sequence number.
    ///
    /// # Errors
    /// `DeviceNotFound`; `DeviceMaximumQueueDepthExceeded` when 50 wait; `MessageTooLarge`; `ArgumentInvalid` naming the
    /// property that breaks a rule.
    pub async fn send(&self, device: DeviceId, message: Message) -> Result<u64, ServiceError> {
        let now = self.clock.now();
        let waiting = prepare(&device, message, now)?;
        let signals = self.signals.clone();
        let (told, damage) = (device.clone(), self.damage.clone());
        self.repository
            .change_then(
                move |transaction| {
                    let entry = existing(transaction, &Identity::of_device(device.clone()))?;
                    let room = drop_expired(transaction, &damage, &device, &entry.generation, now)?;
                    if room == 0 {
                        return Err(ServiceError::new(
                            ErrorCode::DeviceMaximumQueueDepthExceeded,
                            format!(
                                "{MAX_WAITING} messages wait for device `{device}`, the most allowed; purge them or wait until it has taken some"
                            ),
                        ));
                    }
                    transaction.add_waiting(&device, &waiting)
                },
                move |_| signals.mail_arrived(&told),
            )
            .await
    }

    /// Waits for messages and leases at most `most` of them to a session, in order. Cancel-safe: leases are taken in the
    /// last step, behind which nothing waits.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn receive(
        &self,
        session: SessionId,
        device: &DeviceId,
        most: usize,
    ) -> Result<Vec<Delivery>, ServiceError> {
        let bell = self.signals.mailbox(device);
        loop {
            // Listens before it looks, so that what arrives in between is not missed.
            let mut rings = std::pin::pin!(bell.notified());
            rings.as_mut().enable();
            let state = self.lock().state(device);
            let wanted = device.clone();
            let waiting = self.repository.read(move |view| view.waiting(&wanted)).await?;
            match self.lease(session, device, waiting, state, most) {
                // The list was out of date.
                None => {}
                Some(leased) if leased.is_empty() => rings.await,
                Some(leased) => return Ok(leased),
            }
        }
    }

    /// `None` when messages of the list may have been settled since it was read.
    fn lease(
        &self,
        session: SessionId,
        device: &DeviceId,
        waiting: Vec<Waiting>,
        state: u64,
        most: usize,
    ) -> Option<Vec<Delivery>> {
        let now = self.clock.now();
        let waiting = waiting.into_iter().filter(|message| message.expires > now).collect();
        let mut deliveries = Vec::new();
        let is_current = self
            .lock()
            .hold(session, device, state, most, waiting, |free| match delivery(&free) {
                Ok(delivery) => {
                    deliveries.push(delivery);
                    Taken::Held
                }
                Err(error) => {
                    self.damage.found(device.as_str(), &free.message, &error);
                    self.discard(device.clone(), free.message.sequence);
                    Taken::Settling
                }
            });
        is_current.then_some(deliveries)
    }

    /// Removes a record that can't be read back, soon.
    fn discard(&self, device: DeviceId, sequence: u64) {
        let mailboxes = self.clone();
        self.scope.spawn(async move {
            let gone = mailboxes
                .repository
                .change(move |transaction| transaction.discard_waiting(sequence))
                .await;
            mailboxes.lock().settled(&device, sequence, gone.is_ok());
        });
    }

    /// Ends the lease of this token; what it changes is written soon after. An unknown lease is ignored.
    pub fn settle(&self, session: SessionId, device: &DeviceId, token: u64, settlement: Settlement) {
        let Some(sequence) = self.lock().settle(session, device, token) else {
            return;
        };
        let (mailboxes, device) = (self.clone(), device.clone());
        self.scope.spawn(async move {
            let gone = mailboxes.write_settlement(&device, sequence, settlement).await;
            let is_gone = matches!(gone, Ok(true));
            mailboxes.lock().settled(&device, sequence, is_gone);
            if !is_gone {
                mailboxes.signals.mail_arrived(&device);
            }
        });
    }

    /// Whether the message is gone.
    async fn write_settlement(
        &self,
        device: &DeviceId,
        sequence: u64,
        settlement: Settlement,
    ) -> Result<bool, ServiceError> {
        let (device, now, damage) = (device.clone(), self.clock.now(), self.damage.clone());
        self.repository
            .change(move |transaction| {
                let Some(message) = transaction.waiting_message(&device, sequence)? else {
                    return Ok(true);
                };
                let outcome = match settlement {
                    Settlement::Complete => Outcome::Success,
                    Settlement::Reject => Outcome::Rejected,
                    Settlement::Abandon if message.deliveries + 1 >= MAX_DELIVERIES => Outcome::DeliveryCountExceeded,
                    Settlement::Abandon => {
                        transaction.count_delivery(sequence)?;
                        return Ok(false);
                    }
                };
                let generation = generation(transaction, &device)?;
                finish(transaction, &damage, &device, &generation, &message, outcome, now)?;
                Ok(true)
            })
            .await
    }

    /// A session has ended: what it holds goes back, uncounted.
    pub fn release(&self, session: SessionId, device: &DeviceId) {
        let returned = self.lock().release(session, device);
        if returned {
            self.signals.mail_arrived(device);
        }
    }

    /// Removes all that waits for a device; gives how many there were.
    ///
    /// # Errors
    /// `DeviceNotFound`.
    pub async fn purge(&self, device: DeviceId) -> Result<usize, ServiceError> {
        let (now, damage) = (self.clock.now(), self.damage.clone());
        self.repository
            .change(move |transaction| {
                let entry = existing(transaction, &Identity::of_device(device.clone()))?;
                let waiting = transaction.waiting(&device)?;
                for message in &waiting {
                    finish(
                        transaction,
                        &damage,
                        &device,
                        &entry.generation,
                        message,
                        Outcome::Purged,
                        now,
                    )?;
                }
                Ok(waiting.len())
            })
            .await
    }

    /// Removes messages whose time has ended, of all devices.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub async fn sweep(&self) -> Result<(), ServiceError> {
        let now = self.clock.now();
        if self.repository.read(move |view| view.overdue(now, 1)).await?.is_empty() {
            return Ok(());
        }
        let damage = self.damage.clone();
        self.repository
            .change(move |transaction| {
                for (device, message) in transaction.overdue(now, SWEEP)? {
                    let device = match DeviceId::new(&device) {
                        Ok(device) => device,
                        Err(error) => {
                            damage.found(&device, &message, &error);
                            transaction.discard_waiting(message.sequence)?;
                            continue;
                        }
                    };
                    let generation = generation(transaction, &device)?;
                    finish(
                        transaction,
                        &damage,
                        &device,
                        &generation,
                        &message,
                        Outcome::Expired,
                        now,
                    )?;
                }
                Ok(())
            })
            .await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Leases> {
        // Held for map operations only, never across an await.
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts records that can't be read back. They are removed: nobody could ever take them, and what waits behind them must
/// not wait for them. Clones count together.
#[derive(Clone, Debug, Default)]
struct Damage(Arc<AtomicU64>);

impl Damage {
    fn found(&self, device: &str, record: &Waiting, error: &(dyn std::error::Error + 'static)) {
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

fn generation(transaction: &Transaction<'_>, device: &DeviceId) -> Result<String, ServiceError> {
    let entry = transaction.entry(&Identity::of_device(device.clone()))?;
    Ok(entry.map(|entry| entry.generation).unwrap_or_default())
}

/// Removes a message and keeps what became of it. Of one that can't be read back nothing is kept: its sender could not tell
/// which it was.
fn finish(
    transaction: &Transaction<'_>,
    damage: &Damage,
    device: &DeviceId,
    generation: &str,
    message: &Waiting,
    outcome: Outcome,
    now: Timestamp,
) -> Result<(), ServiceError> {
    match decoded(message) {
        Ok(decoded) => {
            let id = decoded.system.get(SystemProperty::MessageId).unwrap_or_default();
            transaction.finish_waiting(device, generation, message, id, outcome, now)
        }
        Err(error) => {
            damage.found(device.as_str(), message, &error);
            transaction.discard_waiting(message.sequence)
        }
    }
}

/// Removes what has expired; gives how many more may wait.
fn drop_expired(
    transaction: &Transaction<'_>,
    damage: &Damage,
    device: &DeviceId,
    generation: &str,
    now: Timestamp,
) -> Result<usize, ServiceError> {
    let (fresh, expired): (Vec<_>, Vec<_>) = transaction
        .waiting(device)?
        .into_iter()
        .partition(|message| message.expires > now);
    for message in &expired {
        finish(transaction, damage, device, generation, message, Outcome::Expired, now)?;
    }
    Ok(MAX_WAITING.saturating_sub(fresh.len()))
}
