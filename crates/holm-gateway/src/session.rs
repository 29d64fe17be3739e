//! Sessions as a node sees them: who is connected here, what each can receive, and how to reach it.
//!
//! A [`SessionHandle`] sends commands to the task that owns the connection. The [`Directory`] holds the one live session of
//! each identity on this node: the newest wins, and the older is told to close (400027). The newest is the one whose greeting came
//! last, however long it took to let each in: one that the client has given up already must not end the one that it uses.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use holm_model::Identity;
use holm_model::error::{ErrorCode, ServiceError};
use holm_model::method::{MethodRequest, MethodResponse};
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// Commands that may wait for one session. Method calls beyond it are refused as throttled; desired-property changes
/// beyond it close the session, whose client then reads its twin anew.
pub const MAX_WAITING_COMMANDS: usize = 64;

/// Names a session on this node; never used twice while the process lives. A later session has a greater one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u64);

impl SessionId {
    /// A new name.
    #[must_use]
    pub fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a session wants to receive: a small set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subscriptions(u8);

impl Subscriptions {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Cloud-to-device messages.
    pub const CLOUD_TO_DEVICE: Self = Self(1);
    /// Messages to the inputs of a module.
    pub const INPUTS: Self = Self(2);
    /// Method calls.
    pub const METHODS: Self = Self(4);
    /// Answers to twin requests.
    pub const TWIN_RESPONSES: Self = Self(8);
    /// Changes of desired properties.
    pub const DESIRED_PROPERTIES: Self = Self(16);
    /// Answers to requests for certificates.
    pub const CERTIFICATE_RESPONSES: Self = Self(32);

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of the other set is in this one.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Why a session is closed by the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The same identity has connected anew (400027).
    Replaced,
    /// The identity was removed, disabled, or its key changed; or the policy that let it in does so no more.
    Revoked,
    /// The node is shutting down.
    ShuttingDown,
    /// The client did not take what was sent to it.
    TooSlow,
}

/// What a node tells the owner of a connection.
#[derive(Debug)]
pub enum Command {
    /// Call a method and answer through the channel.
    Invoke(MethodRequest, oneshot::Sender<Result<MethodResponse, InvokeError>>),
    /// Tell the client of changed desired properties: the changed keys and `$version`.
    DesiredChanged(Value),
    /// End the connection.
    Close(CloseReason),
}

/// Why a method call brought no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvokeError {
    /// Nobody is connected who listens to methods (404103).
    #[error("timed out waiting for the device to connect")]
    NotOnline,
    /// The client did not answer in time (504101).
    #[error("timed out waiting for the response from the device")]
    NoAnswer,
    /// The client's answer is not JSON (502).
    #[error("the response of the device is not JSON")]
    BadAnswer,
    /// Too many calls are waiting for this client already (429).
    #[error("{MAX_WAITING_COMMANDS} calls are waiting for this device already")]
    TooManyCalls,
}

impl From<InvokeError> for ServiceError {
    fn from(error: InvokeError) -> Self {
        match error {
            InvokeError::NotOnline => Self::not_online(),
            InvokeError::NoAnswer => Self::no_answer(),
            InvokeError::BadAnswer => Self::new(ErrorCode::BadDeviceResponse, error.to_string()),
            InvokeError::TooManyCalls => Self::new(ErrorCode::ThrottlingException, error.to_string()),
        }
    }
}

/// Reaches one session. Clones are the same session.
#[derive(Clone, Debug)]
pub struct SessionHandle(Arc<Shared>);

/// The owner's end of a [`SessionHandle`]. Dropped, it ends what waits in it.
#[derive(Debug)]
pub struct SessionInbox(Arc<Shared>);

/// What both ends share: small, as a node has thousands. A channel of the runtime has a kilobyte for what seldom comes.
#[derive(Debug)]
struct Shared {
    id: SessionId,
    identity: Identity,
    subscriptions: AtomicU8,
    /// Whether there is something among what waits: the owner asks whenever anything happens on its connection.
    has_news: AtomicBool,
    owner: AtomicWaker,
    /// Held for a few steps, never across an await.
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    commands: VecDeque<Box<Command>>,
    close: Option<CloseReason>,
    /// The owner is gone.
    ended: bool,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_owner(&self) {
        self.has_news.store(true, Ordering::Release);
        self.owner.wake();
    }

    fn poll_next(&self, cx: &mut Context<'_>, is_busy: bool) -> Poll<Command> {
        // First the waker, then the look: who brings something does both the other way around.
        self.owner.register(cx.waker());
        if !self.has_news.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        let mut waiting = self.waiting();
        if let Some(reason) = waiting.close {
            return Poll::Ready(Command::Close(reason));
        }
        if is_busy {
            return Poll::Pending;
        }
        let next = waiting.commands.pop_front();
        if waiting.commands.is_empty() {
            waiting.commands = VecDeque::new();
            self.has_news.store(false, Ordering::Release);
        }
        next.map_or(Poll::Pending, |command| Poll::Ready(*command))
    }
}

/// Why a command was not taken.
enum NotTaken {
    Full,
    Ended,
}

impl SessionInbox {
    /// The next command; a wish to close comes before everything that waits, and stays. Cancel-safe.
    pub async fn next(&mut self) -> Command {
        poll_fn(|cx| self.poll_next(cx, false)).await
    }

    /// As [`SessionInbox::next`]; an owner that `is_busy` hears of a wish to close only, and the rest waits.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>, is_busy: bool) -> Poll<Command> {
        self.0.poll_next(cx, is_busy)
    }
}

impl Drop for SessionInbox {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        waiting.ended = true;
        let unanswered = std::mem::take(&mut waiting.commands);
        drop(waiting);
        // Who waits for an answer learns that there is none.
        drop(unanswered);
    }
}

impl SessionHandle {
    /// A handle for a new session, and the end for the connection's owner.
    #[must_use]
    pub fn new(identity: Identity) -> (Self, SessionInbox) {
        Self::named(SessionId::next(), identity)
    }

    /// The same for a session that has its name already.
    #[must_use]
    pub fn named(id: SessionId, identity: Identity) -> (Self, SessionInbox) {
        let shared = Arc::new(Shared {
            id,
            identity,
            subscriptions: AtomicU8::new(0),
            has_news: AtomicBool::new(false),
            owner: AtomicWaker::new(),
            waiting: Mutex::default(),
        });
        (Self(Arc::clone(&shared)), SessionInbox(shared))
    }

    /// The session's name.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.0.id
    }

    /// Whom the session acts for.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// What the client wants to receive now.
    #[must_use]
    pub fn subscriptions(&self) -> Subscriptions {
        Subscriptions(self.0.subscriptions.load(Ordering::Acquire))
    }

    /// Says what the client wants to receive; for the connection's owner, who also tells the directory
    /// ([`Directory::subscribed`]).
    pub fn set_subscriptions(&self, all: Subscriptions) {
        self.0.subscriptions.store(all.0, Ordering::Release);
    }

    /// Calls a method and waits for the answer, at most `patience`.
    ///
    /// # Errors
    /// [`InvokeError`].
    pub async fn invoke(&self, request: MethodRequest, patience: Duration) -> Result<MethodResponse, InvokeError> {
        if !self.subscriptions().contains(Subscriptions::METHODS) {
            return Err(InvokeError::NotOnline);
        }
        let (answer, response) = oneshot::channel();
        self.command(Command::Invoke(request, answer))
            .map_err(|not_taken| match not_taken {
                NotTaken::Full => InvokeError::TooManyCalls,
                NotTaken::Ended => InvokeError::NotOnline,
            })?;
        match tokio::time::timeout(patience, response).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(InvokeError::NoAnswer),
        }
    }

    /// Tells the client of changed desired properties, if it listens. A client that does not take them is closed: it
    /// reads its twin when it comes back.
    pub fn desired_changed(&self, patch: Value) {
        if self.subscriptions().contains(Subscriptions::DESIRED_PROPERTIES)
            && let Err(NotTaken::Full) = self.command(Command::DesiredChanged(patch))
        {
            self.close(CloseReason::TooSlow);
        }
    }

    /// Ends the connection soon. The first reason given counts.
    pub fn close(&self, reason: CloseReason) {
        self.0.waiting().close.get_or_insert(reason);
        self.0.tell_owner();
    }

    fn command(&self, command: Command) -> Result<(), NotTaken> {
        let mut waiting = self.0.waiting();
        if waiting.ended {
            return Err(NotTaken::Ended);
        }
        if waiting.commands.len() >= MAX_WAITING_COMMANDS {
            return Err(NotTaken::Full);
        }
        waiting.commands.push_back(Box::new(command));
        // Under the lock: the owner must not take it for the last one's.
        self.0.tell_owner();
        Ok(())
    }
}

/// The live sessions of this node, one an identity.
#[derive(Debug, Default)]
pub struct Directory {
    sessions: Mutex<HashMap<Identity, SessionHandle>>,
    changed: watch::Sender<()>,
}

impl Directory {
    /// Makes a session the live one of its identity, and closes the one before it. One that is older than the live one is
    /// closed itself.
    pub fn enter(&self, session: &SessionHandle) {
        let mut sessions = self.lock();
        let live = sessions.get(session.identity());
        let replaced = if live.is_some_and(|live| live.id() > session.id()) {
            Some(session.clone())
        } else {
            sessions.insert(session.identity().clone(), session.clone())
        };
        drop(sessions);
        if let Some(replaced) = replaced {
            replaced.close(CloseReason::Replaced);
        }
        self.changed.send_replace(());
    }

    /// Removes a session, if it is still the live one. Says whether it was.
    pub fn leave(&self, session: &SessionHandle) -> bool {
        let mut sessions = self.lock();
        let live = sessions
            .get(session.identity())
            .is_some_and(|live| live.id() == session.id());
        if live {
            sessions.remove(session.identity());
        }
        live
    }

    /// Wakes those who wait for a client to listen.
    pub fn subscribed(&self) {
        self.changed.send_replace(());
    }

    /// The live session of an identity.
    #[must_use]
    pub fn find(&self, identity: &Identity) -> Option<SessionHandle> {
        self.lock().get(identity).cloned()
    }

    /// Every live session.
    #[must_use]
    pub fn all(&self) -> Vec<SessionHandle> {
        self.lock().values().cloned().collect()
    }

    /// How many sessions live here.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Calls a method on the client of an identity: waits for it to connect and listen for the request's connect timeout,
    /// and for its answer for the response timeout.
    ///
    /// # Errors
    /// [`InvokeError`].
    pub async fn invoke(&self, identity: &Identity, request: MethodRequest) -> Result<MethodResponse, InvokeError> {
        let deadline = Instant::now() + request.connect_timeout;
        let mut changed = self.changed.subscribe();
        let session = loop {
            let listening = self
                .find(identity)
                .filter(|s| s.subscriptions().contains(Subscriptions::METHODS));
            if let Some(session) = listening {
                break session;
            }
            if !matches!(tokio::time::timeout_at(deadline, changed.changed()).await, Ok(Ok(()))) {
                return Err(InvokeError::NotOnline);
            }
        };
        let patience = request.response_timeout;
        session.invoke(request, patience).await
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identity, SessionHandle>> {
        // Held for a map operation only, never across an await; a panic elsewhere leaves the map whole.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use serde_json::json;

    use super::*;

    fn session() -> (SessionHandle, SessionInbox) {
        let (handle, inbox) = SessionHandle::new("device/module".parse().unwrap());
        handle.set_subscriptions(Subscriptions::METHODS.with(Subscriptions::DESIRED_PROPERTIES));
        (handle, inbox)
    }

    fn request() -> MethodRequest {
        MethodRequest::new("ping", json!({})).unwrap()
    }

    #[tokio::test]
    async fn commands_come_in_order_and_a_wish_to_close_before_them() {
        let (handle, mut inbox) = session();
        for version in [1, 2, 3] {
            handle.desired_changed(json!({ "$version": version }));
        }

        let first = [inbox.next().await, inbox.next().await];
        handle.close(CloseReason::Revoked);
        handle.close(CloseReason::Replaced);
        let last = inbox.next().await;

        for (command, version) in first.iter().zip([1, 2]) {
            assert!(matches!(command, Command::DesiredChanged(patch) if patch["$version"] == version));
        }
        assert!(matches!(last, Command::Close(CloseReason::Revoked)));
    }

    #[tokio::test]
    async fn an_owner_that_waits_is_woken() {
        let (handle, mut inbox) = session();
        let owner = tokio::spawn(async move { inbox.next().await });
        tokio::task::yield_now().await;

        handle.desired_changed(json!({ "$version": 7 }));

        assert!(matches!(owner.await.unwrap(), Command::DesiredChanged(_)));
    }

    #[tokio::test]
    async fn a_caller_learns_that_the_session_has_ended() {
        let (handle, inbox) = session();
        let mut waiting = Box::pin(handle.invoke(request(), Duration::from_secs(60)));
        assert!((&mut waiting).now_or_never().is_none());

        drop(inbox);

        assert_eq!(waiting.await.unwrap_err(), InvokeError::NoAnswer);
        let late = handle.invoke(request(), Duration::from_secs(60)).await;
        assert_eq!(late.unwrap_err(), InvokeError::NotOnline);
    }

    #[tokio::test]
    async fn more_calls_than_may_wait_are_refused_and_more_changes_end_the_session() {
        let (handle, mut inbox) = session();
        for _ in 0..MAX_WAITING_COMMANDS {
            handle.desired_changed(json!({}));
        }

        let call = handle.invoke(request(), Duration::from_secs(60)).await;
        handle.desired_changed(json!({}));

        assert_eq!(call.unwrap_err(), InvokeError::TooManyCalls);
        assert!(matches!(inbox.next().await, Command::Close(CloseReason::TooSlow)));
    }

    #[tokio::test]
    async fn the_session_that_began_last_lives_in_whatever_order_they_are_let_in() {
        let directory = Directory::default();
        let (older, mut inbox_of_older) = session();
        let (newer, mut inbox_of_newer) = session();

        directory.enter(&newer);
        directory.enter(&older);

        let told = inbox_of_older.next().await;
        assert!(matches!(told, Command::Close(CloseReason::Replaced)), "{told:?}");
        assert!(inbox_of_newer.next().now_or_never().is_none());
        assert!(!directory.leave(&older));
        assert_eq!(directory.find(newer.identity()).unwrap().id(), newer.id());
    }

    #[test]
    fn what_a_session_shares_is_small() {
        assert!(size_of::<Shared>() <= 192, "{} bytes", size_of::<Shared>());
    }
}
