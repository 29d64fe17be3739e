//! Cloud-to-device messages: they wait in the database, are handed out on lease, and go when their device has settled them.
//!
//! ```text
//! send -> Waiting --receive--> Held(session) --complete, reject--> Settling -> gone (feedback if asked for)
//!            ^  '---take-----> Held(lock) -----'   |
//!            |                      |  '------abandon (counted)--> Settling --.
//!            '----------------------'--------------------------------------'   or gone after the last delivery
//!               session closes, lock is over, released, a newer session of the device receives (none counted)
//! ```
//!
//! - Leases live in memory: a hub that restarts has no sessions, so nothing is leased. What is settled is on disk before
//!   its lease ends, so a settled message is never handed out again.
//! - A lease is named by a token of its own, given out once, also over restarts: a late word about one delivery says nothing
//!   about the next delivery of the same message.
//! - A session holds what it has received until it closes, without a time. A caller without one holds under a lock.
//! - Only being abandoned counts as a delivery. Older documents also count a lock that is over; those of 2026 don't, and a
//!   device that loses its connection ten times has not refused a message.
//! - What is held does not expire before it is back.
//! - A record that can't be read back harms no other: it is logged, counted and removed by whoever meets it.
//! - A device has at most [`MAX_WAITING`] messages, whose time to live is at most [`MAX_TIME_TO_LIVE_MS`].
//!
//! Source: `hub-service-api.md` §5.2, `hub-device-protocols.md` §2.5, §4.2, §7.

mod endings;
mod leases;
mod stored;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use holm_gateway::{Delivery, SessionId, Settlement};
use holm_model::{DeviceId, ErrorCode, Identity, Message, ServiceError, Timestamp};
use holm_net::Scope;

use crate::config::QueueBounds;
use crate::feedback::Outcome;
use crate::notices::Notices;
use crate::registry::existing;
use crate::storage::{Repository, Waiting};
use crate::{Clock, Signals};

use endings::{Damage, Ended, Endings};
use leases::{Asked, Hold, Leases, Taken};
use stored::{delivery, prepare};

/// The most messages that wait for one device. Source: `hub-service-api.md` §5.2.
pub const MAX_WAITING: usize = 50;
/// The longest that a message waits: two days.
pub const MAX_TIME_TO_LIVE_MS: i64 = 48 * 3_600_000;
/// How long a receiver waits before it looks again whether a lock is over.
const LOOK: Duration = Duration::from_secs(1);

/// The mailboxes of a hub. Clones are the same.
#[derive(Clone, Debug)]
pub struct Mailboxes {
    repository: Repository,
    signals: Signals,
    clock: Clock,
    scope: Scope,
    notices: Notices,
    bounds: QueueBounds,
    leases: Arc<Mutex<Leases>>,
    damage: Damage,
}

/// What was leased, and when a lock of the mailbox is over next.
struct Leased {
    deliveries: Vec<Delivery>,
    next_end: Option<Timestamp>,
}

impl Mailboxes {
    /// Mailboxes over a repository; feedback goes to `notices`, and what is settled is written by tasks of `scope`.
    ///
    /// # Errors
    /// `ServerError` when the operating system gives no random bytes.
    pub fn open(
        repository: Repository,
        signals: Signals,
        clock: Clock,
        scope: Scope,
        notices: Notices,
        bounds: QueueBounds,
    ) -> Result<Self, ServiceError> {
        let leases = Leases::numbered_after(u64::from(u32::from_le_bytes(crate::random::bytes()?)) << 31);
        Ok(Self {
            repository,
            signals,
            clock,
            scope,
            notices,
            bounds,
            leases: Arc::new(Mutex::new(leases)),
            damage: Damage::default(),
        })
    }

    /// How many records that could not be read back were removed since the hub started.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.damage.count()
    }

    /// Puts a message into the mailbox of a device; gives its sequence number.
    ///
    /// # Errors
    /// `DeviceNotFound`; `DeviceMaximumQueueDepthExceeded` when 50 wait; `MessageTooLarge`; `ArgumentInvalid` naming the
    /// property that breaks a rule.
    pub async fn send(&self, device: DeviceId, message: Message) -> Result<u64, ServiceError> {
        let now = self.clock.now();
        let waiting = prepare(&device, message, now, self.bounds.time_to_live)?;
        let (mailboxes, told) = (self.clone(), device.clone());
        let damage = self.damage.clone();
        let leases = Arc::clone(&self.leases);
        let sent = self.repository.change_then(
            move |transaction| {
                let entry = existing(transaction, &Identity::of_device(device.clone()))?;
                let mut endings = Endings::new(transaction, damage, now);
                let room = endings.drop_expired(&device, &entry.generation, &leases)?;
                if room == 0 {
                    return Err(ServiceError::new(
                        ErrorCode::DeviceMaximumQueueDepthExceeded,
                        format!(
                            "{MAX_WAITING} messages wait for device `{device}`, the most allowed; purge them or wait until it has taken some"
                        ),
                    ));
                }
                let sequence = transaction.add_waiting(&device, &waiting)?;
                Ok((sequence, endings.feedback()))
            },
            move |(_, feedback)| {
                mailboxes.notices.announce(feedback);
                mailboxes.signals.mail_arrived(&told);
            },
        );
        sent.await.map(|(sequence, _)| sequence)
    }

    /// Waits for messages and leases at most `most` of them to a session, in order. What older sessions of the device hold
    /// is taken from them: the newest wins, and the word of an older one about it settles nothing. Cancel-safe: leases are
    /// taken in the last step, behind which nothing waits.
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
            let leased = self.lease(session, device, None, most).await?;
            if !leased.deliveries.is_empty() {
                return Ok(leased.deliveries);
            }
            match leased.next_end {
                None => rings.await,
                Some(end) => {
                    let left = u64::try_from(end.millis_since(self.clock.now())).unwrap_or(0);
                    let step = Duration::from_millis(left.max(1)).min(LOOK);
                    tokio::select! {
                        () = rings => {}
                        () = tokio::time::sleep(step) => {}
                    }
                }
            }
        }
    }

    /// Leases the first message, if one waits, for a time: `lock`, moved to the nearest that is allowed, or the default.
    /// Cancel-safe.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn take(
        &self,
        holder: SessionId,
        device: &DeviceId,
        lock: Option<Duration>,
    ) -> Result<Option<Delivery>, ServiceError> {
        let lock = lock.unwrap_or(self.bounds.lock);
        let lock = lock.clamp(*QueueBounds::LOCK.start(), *QueueBounds::LOCK.end());
        let mut leased = self.lease(holder, device, Some(lock), 1).await?;
        Ok(leased.deliveries.pop())
    }

    async fn lease(
        &self,
        session: SessionId,
        device: &DeviceId,
        lock: Option<Duration>,
        most: usize,
    ) -> Result<Leased, ServiceError> {
        loop {
            let state = self.lock().state(device);
            let wanted = device.clone();
            let waiting = self.repository.read(move |view| view.waiting(&wanted)).await?;
            let asked = Asked {
                session,
                device,
                lock,
                most,
                now: self.clock.now(),
            };
            if let Some(leased) = self.hold(&asked, waiting, state) {
                return Ok(leased);
            }
        }
    }

    /// `None` when messages of the list may have been settled since it was read.
    fn hold(&self, asked: &Asked<'_>, waiting: Vec<Waiting>, state: u64) -> Option<Leased> {
        let waiting = waiting
            .into_iter()
            .filter(|message| message.expires > asked.now)
            .collect();
        let mut deliveries = Vec::new();
        let hold = self.lock().hold(asked, state, waiting, |free| match delivery(&free) {
            Ok(delivery) => {
                deliveries.push(delivery);
                Taken::Held
            }
            Err(error) => {
                self.damage.found(asked.device.as_str(), &free.message, &error);
                self.discard(asked.device.clone(), free.message.sequence);
                Taken::Settling
            }
        });
        match hold {
            Hold::OutOfDate => None,
            Hold::Done { next_end } => Some(Leased { deliveries, next_end }),
        }
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
        if let Some(sequence) = self.begin_settling(session, device, token, settlement) {
            self.scope
                .spawn(self.clone().end_settling(device.clone(), sequence, settlement));
        }
    }

    /// As [`Mailboxes::settle`]; resolves when what it changes is on disk. `false` when there is no such lease or its message
    /// is gone.
    ///
    /// # Errors
    /// When it can't be written; then the message waits again.
    pub async fn settle_durably(
        &self,
        session: SessionId,
        device: &DeviceId,
        token: u64,
        settlement: Settlement,
    ) -> Result<bool, ServiceError> {
        let Some(sequence) = self.begin_settling(session, device, token, settlement) else {
            return Ok(false);
        };
        let ending = self.clone().end_settling(device.clone(), sequence, settlement);
        let ended = self.scope.spawn(ending).await;
        let ended = ended.unwrap_or_else(|_| Err(ServiceError::unavailable("the hub is stopping; try again")))?;
        Ok(ended != Ended::Missing)
    }

    fn begin_settling(&self, session: SessionId, device: &DeviceId, token: u64, settlement: Settlement) -> Option<u64> {
        let sequence = self.lock().settle(session, device, token, self.clock.now());
        if sequence.is_none() {
            tracing::trace!(%device, token, ?settlement, "the lease is unknown or its time is over");
        }
        sequence
    }

    async fn end_settling(
        self,
        device: DeviceId,
        sequence: u64,
        settlement: Settlement,
    ) -> Result<Ended, ServiceError> {
        let ended = self.write_settlement(&device, sequence, settlement).await;
        let is_gone = matches!(ended, Ok(Ended::Gone | Ended::Missing));
        self.lock().settled(&device, sequence, is_gone);
        if !is_gone {
            self.signals.mail_arrived(&device);
        }
        ended
    }

    async fn write_settlement(
        &self,
        device: &DeviceId,
        sequence: u64,
        settlement: Settlement,
    ) -> Result<Ended, ServiceError> {
        let last = match settlement {
            Settlement::Release => return Ok(Ended::Waits),
            Settlement::Complete => Outcome::Success,
            Settlement::Reject => Outcome::Rejected,
            Settlement::Abandon => Outcome::DeliveryCountExceeded,
        };
        let (device, now, damage) = (device.clone(), self.clock.now(), self.damage.clone());
        let max_deliveries = self.bounds.max_deliveries;
        let notices = self.notices.clone();
        let written = self.repository.change_then(
            move |transaction| {
                let Some(message) = transaction.waiting_message(&device, sequence)? else {
                    return Ok((Ended::Missing, Vec::new()));
                };
                if settlement == Settlement::Abandon && message.deliveries + 1 < max_deliveries {
                    transaction.count_delivery(sequence)?;
                    return Ok((Ended::Waits, Vec::new()));
                }
                let mut endings = Endings::new(transaction, damage, now);
                let generation = endings.generation(&device)?;
                endings.end(&device, &generation, &message, last)?;
                Ok((Ended::Gone, endings.feedback()))
            },
            move |(_, feedback)| notices.announce(feedback),
        );
        written.await.map(|(ended, _)| ended)
    }

    /// A session has ended: what it holds goes back, uncounted.
    pub fn release(&self, session: SessionId, device: &DeviceId) {
        let returned = self.lock().release(session, device);
        if returned {
            self.signals.mail_arrived(device);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Leases> {
        endings::lock(&self.leases)
    }
}
