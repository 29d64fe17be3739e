//! Sessions as a node sees them: who is connected here, what each can receive, and how to reach it.
//!
//! A [`SessionHandle`] sends commands to the task that owns the connection. The [`Directory`] holds the one live session of
//! each identity on this node: the newest wins, and the older is told to close (400027).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holm_model::Identity;
use holm_model::error::{ErrorCode, ServiceError};
use holm_model::method::{MethodRequest, MethodResponse};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// Commands that may wait for one session. Method calls beyond it are refused as throttled; desired-property changes
/// beyond it close the session, whose client then reads its twin anew.
pub const MAX_WAITING_COMMANDS: usize = 64;

/// Names a session on this node; never used twice while the process lives.
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
    /// The identity was removed, disabled, or its key changed.
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
pub struct SessionHandle {
    id: SessionId,
    identity: Identity,
    /// In boxes: the channel makes room for 32 at once, and a gateway has thousands of sessions.
    commands: mpsc::Sender<Box<Command>>,
    close: watch::Sender<Option<CloseReason>>,
    subscriptions: Arc<AtomicU8>,
}

/// The owner's end of a [`SessionHandle`].
#[derive(Debug)]
pub struct SessionInbox {
    commands: mpsc::Receiver<Box<Command>>,
    close: watch::Receiver<Option<CloseReason>>,
}

impl SessionInbox {
    /// The next command; a wish to close comes before everything that waits. Cancel-safe.
    pub async fn next(&mut self) -> Command {
        tokio::select! {
            biased;
            reason = wait_for_close(&mut self.close) => Command::Close(reason),
            Some(command) = self.commands.recv() => *command,
            else => std::future::pending().await,
        }
    }
}

async fn wait_for_close(close: &mut watch::Receiver<Option<CloseReason>>) -> CloseReason {
    loop {
        if let Some(reason) = *close.borrow_and_update() {
            return reason;
        }
        if close.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl SessionHandle {
    /// A handle for a new session, and the end for the connection's owner.
    #[must_use]
    pub fn new(identity: Identity) -> (Self, SessionInbox) {
        let (commands, receiver) = mpsc::channel(MAX_WAITING_COMMANDS);
        let (close, closing) = watch::channel(None);
        let subscriptions = Arc::default();
        let handle = Self {
            id: SessionId::next(),
            identity,
            commands,
            close,
            subscriptions,
        };
        (
            handle,
            SessionInbox {
                commands: receiver,
                close: closing,
            },
        )
    }

    /// The session's name.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// Whom the session acts for.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What the client wants to receive now.
    #[must_use]
    pub fn subscriptions(&self) -> Subscriptions {
        Subscriptions(self.subscriptions.load(Ordering::Acquire))
    }

    /// Says what the client wants to receive; for the connection's owner, who also tells the directory
    /// ([`Directory::subscribed`]).
    pub fn set_subscriptions(&self, all: Subscriptions) {
        self.subscriptions.store(all.0, Ordering::Release);
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
        self.commands
            .try_send(Box::new(Command::Invoke(request, answer)))
            .map_err(|refused| match refused {
                mpsc::error::TrySendError::Full(_) => InvokeError::TooManyCalls,
                mpsc::error::TrySendError::Closed(_) => InvokeError::NotOnline,
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
            && let Err(mpsc::error::TrySendError::Full(_)) =
                self.commands.try_send(Box::new(Command::DesiredChanged(patch)))
        {
            self.close(CloseReason::TooSlow);
        }
    }

    /// Ends the connection soon. The first reason given counts.
    pub fn close(&self, reason: CloseReason) {
        self.close.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(reason);
            first
        });
    }
}

/// The live sessions of this node, one an identity.
#[derive(Debug, Default)]
pub struct Directory {
    sessions: Mutex<HashMap<Identity, SessionHandle>>,
    changed: watch::Sender<()>,
}

impl Directory {
    /// Makes a session the live one of its identity, and closes the one before it.
    pub fn enter(&self, session: &SessionHandle) {
        let before = self.lock().insert(session.identity.clone(), session.clone());
        if let Some(before) = before {
            before.close(CloseReason::Replaced);
        }
        self.changed.send_replace(());
    }

    /// Removes a session, if it is still the live one. Says whether it was.
    pub fn leave(&self, session: &SessionHandle) -> bool {
        let mut sessions = self.lock();
        let live = sessions
            .get(&session.identity)
            .is_some_and(|live| live.id == session.id);
        if live {
            sessions.remove(&session.identity);
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

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Identity, SessionHandle>> {
        // Held for a map operation only, never across an await; a panic elsewhere leaves the map whole.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
