//! What a hub tells back ends once: feedback on the messages they sent, and which files have come. One queue for each kind,
//! shared by all who read it.
//!
//! ```text
//! put, or write (in a change) + announce      receive ---> Notice { lease, body, … } --settle--> Complete, Reject: gone
//!        |                                       ^                                              Abandon: again, counted
//!        v                                       |                                              Release: again
//!   notices (database) ----------------------> Queue: who gets what, until when (memory)
//! ```
//!
//! - A notice is in the database from the change that caused it until a reader has settled it, it was abandoned too often,
//!   or its time to live is over: a restart loses none. Leases are in memory; after a restart nothing is leased.
//! - Each goes to one reader at a time: whoever asks first. A lease ends with its settlement, with its reader
//!   ([`Notices::release`]) or when its lock is over, and only being abandoned counts as a delivery.
//! - Feedback is given out in batches, a JSON array of up to 64 records; other notices one by one, as they were put.
//! - Who only looks ([`Notices::follow`]) takes nothing.
//! - Time is the hub's [`Clock`]. Who waits looks at it at least every second, so a clock that is set is no surprise.
//!
//! Source: `hub-service-api.md` §5.3.

mod follow;
mod kind;
mod queue;
mod token;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use holm_gateway::Settlement;
use holm_model::{ErrorCode, ServiceError, Timestamp};
use holm_net::Scope;
use serde::de::IgnoredAny;
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinHandle;

use crate::Clock;
use crate::config::QueueBounds;
use crate::storage::{NoticeHead, Repository, Transaction};

use follow::Arrival;
pub use follow::Follower;
pub use kind::NoticeKind;
use queue::{Batch, Fate, Look, Queue};
pub use token::{LockToken, NoToken};

/// The largest body of a notice, in bytes: far more than a record of either kind has.
pub const MAX_BODY: usize = 64 * 1024;
/// Notices that are removed in one change.
const SWEEP: usize = 500;
/// How long a reader waits before it looks at the clock again.
const LOOK: Duration = Duration::from_secs(1);

/// Names a reader: a link, say, or all that ask over HTTP. Never used twice while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReaderId(u64);

impl ReaderId {
    /// A new name.
    #[must_use]
    pub fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a reader gets: a message with one notice, or with a batch of feedback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Names the lease in [`Notices::settle`]; its sixteen bytes may be the tag of a delivery.
    pub lease: LockToken,
    /// When the lease ends by itself.
    pub locked_until: Timestamp,
    /// A number that grows with time; that of the first notice in a batch.
    pub sequence: u64,
    /// When it was put; the first of a batch.
    pub enqueued: Timestamp,
    /// How often a delivery of it was abandoned.
    pub deliveries: u32,
    /// [`NoticeKind::content_type`].
    pub content_type: &'static str,
    /// JSON: an array of records for feedback, else the notice as it was put.
    pub body: Bytes,
}

/// A notice that a change has written, to be announced once the change is on disk.
#[derive(Clone, Debug)]
#[must_use = "readers learn of it by `Notices::announce`"]
pub struct Written {
    kind: NoticeKind,
    head: NoticeHead,
    body: Bytes,
}

/// The notices of a hub. Clones are the same.
#[derive(Clone, Debug)]
pub struct Notices {
    repository: Repository,
    clock: Clock,
    scope: Scope,
    feedback: Arc<Desk>,
    file_notifications: Arc<Desk>,
}

/// One kind: what is where, and who waits.
#[derive(Debug)]
struct Desk {
    queue: Mutex<Queue>,
    bell: Notify,
    /// For those who only look.
    arrivals: broadcast::Sender<Arrival>,
    damaged: AtomicU64,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Held for map operations only, never across an await.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, token: LockToken) {
        if self.lock().give_back(token) {
            self.bell.notify_waiters();
        }
    }
}

impl Notices {
    /// The notices of a repository, with what an earlier process left; what is settled is written by tasks of `scope`.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn open(
        repository: Repository,
        clock: Clock,
        scope: Scope,
        feedback: QueueBounds,
        file_notifications: QueueBounds,
    ) -> Result<Self, ServiceError> {
        let desk = async |kind, bounds: QueueBounds| {
            let left = repository.read(move |view| view.notice_heads(kind)).await?;
            Ok::<_, ServiceError>(Arc::new(Desk {
                queue: Mutex::new(Queue::new(kind.rules(bounds), left)),
                bell: Notify::new(),
                arrivals: broadcast::Sender::new(follow::MAX_AHEAD),
                damaged: AtomicU64::new(0),
            }))
        };
        Ok(Self {
            feedback: desk(NoticeKind::Feedback, feedback).await?,
            file_notifications: desk(NoticeKind::FileNotification, file_notifications).await?,
            repository,
            clock,
            scope,
        })
    }

    const fn desk(&self, kind: NoticeKind) -> &Arc<Desk> {
        match kind {
            NoticeKind::Feedback => &self.feedback,
            NoticeKind::FileNotification => &self.file_notifications,
        }
    }

    /// Puts a notice, a JSON text; gives its number when it is on disk.
    ///
    /// # Errors
    /// `MessageTooLarge` beyond [`MAX_BODY`]; `ArgumentInvalid` for what is not JSON; when the database can't be written to.
    pub async fn put(&self, kind: NoticeKind, body: Bytes) -> Result<u64, ServiceError> {
        let (notices, now) = (self.clone(), self.clock.now());
        let written = self.repository.change_then(
            move |transaction| Self::write(transaction, kind, now, &body),
            move |written| notices.announce(std::slice::from_ref(written)),
        );
        written.await.map(|written| written.head.id)
    }

    /// Writes a notice as part of a larger change: it is there if and only if that is. Once the change is on disk, and in
    /// the order of the changes, [`Notices::announce`] tells the readers (`Repository::change_then`).
    ///
    /// # Errors
    /// As [`Notices::put`].
    pub fn write(
        transaction: &Transaction<'_>,
        kind: NoticeKind,
        now: Timestamp,
        body: &[u8],
    ) -> Result<Written, ServiceError> {
        if body.len() > MAX_BODY {
            let text = format!("a notice has {} bytes; at most {MAX_BODY} are allowed", body.len());
            return Err(ServiceError::new(ErrorCode::MessageTooLarge, text));
        }
        if !is_json(Some(body)) {
            return Err(ServiceError::argument_invalid(
                "a notice is not JSON; give one JSON value",
            ));
        }
        let id = transaction.add_notice(kind, now, body)?;
        let head = NoticeHead {
            id,
            enqueued: now,
            deliveries: 0,
        };
        let body = Bytes::copy_from_slice(body);
        Ok(Written { kind, head, body })
    }

    /// Tells the readers of notices that are on disk.
    pub fn announce(&self, written: &[Written]) {
        for Written { kind, head, body } in written {
            let desk = self.desk(*kind);
            // An error means that nobody looks.
            drop(desk.arrivals.send((head.id, body.clone())));
            let is_news = desk.lock().arrived(*head);
            if is_news {
                desk.bell.notify_waiters();
            }
        }
    }

    /// Waits for the next notice or batch and leases it to a reader. Cancel-safe: when the future is dropped, nothing stays
    /// leased.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn receive(&self, kind: NoticeKind, reader: ReaderId) -> Result<Notice, ServiceError> {
        let desk = self.desk(kind);
        loop {
            // Listens before it looks, so that what arrives in between is not missed.
            let mut rings = std::pin::pin!(desk.bell.notified());
            rings.as_mut().enable();
            match self.look(kind, reader).await? {
                Found::Notice(notice) => return Ok(notice),
                Found::Nothing(None) => rings.await,
                Found::Nothing(Some(due)) => {
                    let left = u64::try_from(due.millis_since(self.clock.now())).unwrap_or(0);
                    let step = Duration::from_millis(left.max(1)).min(LOOK);
                    tokio::select! {
                        () = rings => {}
                        () = tokio::time::sleep(step) => {}
                    }
                }
            }
        }
    }

    /// As [`Notices::receive`] if there is something to receive now.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn try_receive(&self, kind: NoticeKind, reader: ReaderId) -> Result<Option<Notice>, ServiceError> {
        match self.look(kind, reader).await? {
            Found::Notice(notice) => Ok(Some(notice)),
            Found::Nothing(_) => Ok(None),
        }
    }

    async fn look(&self, kind: NoticeKind, reader: ReaderId) -> Result<Found, ServiceError> {
        let desk = self.desk(kind);
        loop {
            let token = LockToken::random()?;
            let look = desk.lock().take(self.clock.now(), reader, token);
            let batch = match look {
                Look::Wait(due) => return Ok(Found::Nothing(due)),
                Look::Taken(batch) => batch,
            };
            let mut leased = Leased {
                desk,
                token: Some(token),
            };
            if let Some(notice) = self.read(kind, token, batch).await? {
                leased.token = None;
                return Ok(Found::Notice(notice));
            }
            // Nothing of the batch can be read; it is being removed.
            leased.token = None;
        }
    }

    /// Reads what was leased. `None` when there is nothing left to give: then the lease has ended.
    async fn read(&self, kind: NoticeKind, token: LockToken, batch: Batch) -> Result<Option<Notice>, ServiceError> {
        let ids = batch.ids.clone();
        let bodies = self.repository.read(move |view| {
            let body = |id: u64| Ok((id, view.notice_body(id)?));
            ids.into_iter().map(body).collect::<Result<Vec<_>, ServiceError>>()
        });
        let (good, bad): (Vec<_>, Vec<_>) = bodies
            .await?
            .into_iter()
            .partition(|(_, body)| is_json(body.as_deref()));
        for (id, body) in &bad {
            self.desk(kind).damaged.fetch_add(1, Ordering::Relaxed);
            let bytes = body.as_ref().map_or(0, Vec::len);
            tracing::error!(
                kind = kind.name(),
                id,
                bytes,
                "a notice can't be read back and is passed over; nobody ever gets it"
            );
        }
        let bodies: Vec<_> = good.iter().filter_map(|(_, body)| body.as_deref()).collect();
        let Some((sequence, _)) = good.first() else {
            self.settle(kind, token, Settlement::Reject).await?;
            return Ok(None);
        };
        let body = match kind {
            NoticeKind::Feedback => [b"[".as_slice(), &bodies.join(b",".as_slice()), b"]"].concat(),
            NoticeKind::FileNotification => bodies.concat(),
        };
        Ok(Some(Notice {
            lease: token,
            locked_until: batch.until,
            sequence: *sequence,
            enqueued: batch.enqueued,
            deliveries: batch.deliveries,
            content_type: kind.content_type(),
            body: body.into(),
        }))
    }

    /// Ends a lease, at once: a reader that leaves right after it gives back nothing of it. The future resolves when what it
    /// changes is on disk, which is carried out also if it is dropped.
    ///
    /// # Errors
    /// `DeviceMessageLockLost` for a lease that is not there, or whose time is over; when the database can't be written to,
    /// and then the notices are given out again.
    pub fn settle(
        &self,
        kind: NoticeKind,
        lease: LockToken,
        settlement: Settlement,
    ) -> impl Future<Output = Result<(), ServiceError>> + Send + use<> {
        let begun = self.begin_settling(kind, lease, settlement);
        async {
            let stopping = |_| Err(ServiceError::unavailable("the hub is stopping; try again"));
            begun?.await.unwrap_or_else(stopping)
        }
    }

    fn begin_settling(
        &self,
        kind: NoticeKind,
        lease: LockToken,
        settlement: Settlement,
    ) -> Result<JoinHandle<Result<(), ServiceError>>, ServiceError> {
        let desk = Arc::clone(self.desk(kind));
        let Some(settling) = desk.lock().settle(self.clock.now(), lease) else {
            return Err(ServiceError::new(
                ErrorCode::DeviceMessageLockLost,
                format!("the lock `{lease}` is unknown or its time is over; receive again, and settle before it is"),
            ));
        };
        let fate = match settlement {
            Settlement::Release => Fate::Returned,
            Settlement::Abandon if !settling.is_last => Fate::Abandoned,
            Settlement::Complete | Settlement::Reject | Settlement::Abandon => Fate::Gone,
        };
        let repository = self.repository.clone();
        Ok(self.scope.spawn(async move {
            let written = write_fate(&repository, settling.ids.clone(), fate).await;
            let fate = if written.is_ok() { fate } else { Fate::Returned };
            if desk.lock().settled(&settling.ids, fate) {
                desk.bell.notify_waiters();
            }
            written
        }))
    }

    /// A reader has gone: what it holds goes back, uncounted.
    pub fn release(&self, reader: ReaderId) {
        for kind in NoticeKind::ALL {
            let desk = self.desk(kind);
            let is_back = desk.lock().release(reader);
            if is_back {
                desk.bell.notify_waiters();
            }
        }
    }

    /// Removes notices whose time is over.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub async fn sweep(&self) -> Result<(), ServiceError> {
        for kind in NoticeKind::ALL {
            let desk = self.desk(kind);
            loop {
                let ids = desk.lock().overdue(self.clock.now(), SWEEP);
                if ids.is_empty() {
                    break;
                }
                write_fate(&self.repository, ids.clone(), Fate::Gone).await?;
                desk.lock().removed(&ids);
            }
        }
        Ok(())
    }

    /// How many notices of a kind are there, leased or not.
    #[must_use]
    pub fn waiting(&self, kind: NoticeKind) -> usize {
        self.desk(kind).lock().len()
    }

    /// How many were lost since the hub started: given up for want of room, or not to be read back.
    #[must_use]
    pub fn lost(&self, kind: NoticeKind) -> u64 {
        let desk = self.desk(kind);
        let dropped = desk.lock().dropped();
        dropped + desk.damaged.load(Ordering::Relaxed)
    }
}

enum Found {
    Notice(Notice),
    /// Nothing before this time, as far as is known.
    Nothing(Option<Timestamp>),
}

/// Gives back what was leased to one that did not live to get it.
struct Leased<'d> {
    desk: &'d Desk,
    token: Option<LockToken>,
}

impl Drop for Leased<'_> {
    fn drop(&mut self) {
        if let Some(token) = self.token {
            self.desk.give_back(token);
        }
    }
}

async fn write_fate(repository: &Repository, ids: Vec<u64>, fate: Fate) -> Result<(), ServiceError> {
    if fate == Fate::Returned {
        return Ok(());
    }
    let change = move |transaction: &Transaction<'_>| {
        ids.iter().try_for_each(|id| match fate {
            Fate::Abandoned => transaction.count_notice_delivery(*id),
            Fate::Gone | Fate::Returned => transaction.remove_notice(*id),
        })
    };
    repository.change(change).await
}

fn is_json(body: Option<&[u8]>) -> bool {
    body.is_some_and(|body| serde_json::from_slice::<IgnoredAny>(body).is_ok())
}
