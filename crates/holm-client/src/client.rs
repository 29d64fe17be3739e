//! The application's end of a client.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use holm_model::{Identity, Message};
use holm_net::Scope;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use crate::engine::{self, Command};
use crate::event::{Events, MAX_WAITING_EVENTS};
use crate::options::{Interests, Options};

/// Commands that wait for the engine, apart from messages within the window.
const MAX_WAITING_COMMANDS: usize = 16;

/// Where a client's connection stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is being made.
    Connecting,
    /// It is up.
    Connected,
    /// It is down, with the reason; the next attempt is on its way.
    Disconnected(String),
    /// The hub knows no such identity or does not accept its credential (MQTT: return codes 4 and 5), with the reason. The next
    /// attempt is on its way, with a new token, but somebody may have to do something about it.
    Refused(String),
}

/// Why a message was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The client has stopped; the message may or may not have arrived.
    #[error("the client has stopped")]
    Stopped,
    /// It can never be sent.
    #[error("the message can't be sent: {0}")]
    Invalid(String),
}

/// Why a twin request brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TwinError {
    /// The client has stopped.
    #[error("the client has stopped")]
    Stopped,
    /// There is no connection, or it was lost before the answer.
    #[error("not connected")]
    NotConnected,
    /// No answer came in time.
    #[error("no answer in time")]
    NoAnswer,
    /// The hub refused, with a status (400–599) and its reason.
    #[error("refused with status {status}: {reason}")]
    Refused {
        /// The status of the answer.
        status: u16,
        /// The text of its body.
        reason: String,
    },
}

/// A message on its way: resolves when the hub (or edge) has acknowledged it.
#[derive(Debug)]
pub struct Sent(oneshot::Receiver<Result<(), SendError>>);

impl Future for Sent {
    type Output = Result<(), SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|outcome| outcome.unwrap_or(Err(SendError::Stopped)))
    }
}

/// A device or module at a hub or edge. Clones are the same client.
#[derive(Clone, Debug)]
pub struct Client {
    identity: Identity,
    messages: mpsc::Sender<engine::Outgoing>,
    commands: mpsc::Sender<Box<Command>>,
    interests: watch::Sender<Interests>,
    state: watch::Receiver<State>,
}

impl Client {
    /// Starts a client in a scope: it connects in the background and comes back for ever, until the scope stops or every
    /// clone and the events are dropped.
    #[must_use]
    pub fn start(scope: &Scope, options: Options) -> (Self, Events) {
        let identity = options.identity.clone();
        let (messages, outgoing) = mpsc::channel(options.window.max(1));
        let (commands, requests) = mpsc::channel(MAX_WAITING_COMMANDS);
        let (events, receiver) = mpsc::channel(MAX_WAITING_EVENTS);
        let (interests, wanted) = watch::channel(options.interests);
        let (state, watched) = watch::channel(State::Connecting);
        scope.spawn_until_stopped(engine::run(
            options,
            engine::Ends {
                outgoing,
                requests,
                events,
                wanted,
                state,
            },
            scope.clone(),
        ));
        (
            Self {
                identity,
                messages,
                commands,
                interests,
                state: watched,
            },
            Events(receiver),
        )
    }

    /// Whom it acts for.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where the connection stands, and how that changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Whether the connection is up.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        *self.state.borrow() == State::Connected
    }

    /// Sends a message: waits for room in the window, and gives a future for its acknowledgement. Messages leave in the
    /// order of the calls. Without a connection it waits for one; after a loss it is sent again.
    ///
    /// Cancel-safe: when the future is dropped before it is ready, nothing was sent.
    ///
    /// # Errors
    /// [`SendError::Stopped`].
    pub async fn send(&self, message: Message) -> Result<Sent, SendError> {
        let (acknowledged, outcome) = oneshot::channel();
        let outgoing = engine::Outgoing {
            message: Box::new(message),
            acknowledged,
        };
        self.messages.send(outgoing).await.map_err(|_| SendError::Stopped)?;
        Ok(Sent(outcome))
    }

    /// Reads the twin: `{"desired":{…,"$version":n},"reported":{…,"$version":n}}`.
    ///
    /// # Errors
    /// [`TwinError`].
    pub async fn twin(&self) -> Result<Value, TwinError> {
        let (answer, outcome) = oneshot::channel();
        self.request(Command::Twin(answer), outcome).await
    }

    /// Merges a patch into the reported properties (null removes). Gives their new version, where the node tells it.
    ///
    /// # Errors
    /// [`TwinError`].
    pub async fn patch_reported(&self, patch: Value) -> Result<Option<u64>, TwinError> {
        let (answer, outcome) = oneshot::channel();
        self.request(Command::PatchReported(patch, answer), outcome).await
    }

    /// Changes what the client wants to receive, now and after every reconnect.
    pub fn set_interests(&self, interests: Interests) {
        self.interests
            .send_if_modified(|known| std::mem::replace(known, interests) != interests);
    }

    async fn request<T>(
        &self,
        command: Command,
        outcome: oneshot::Receiver<Result<T, TwinError>>,
    ) -> Result<T, TwinError> {
        self.commands
            .send(Box::new(command))
            .await
            .map_err(|_| TwinError::Stopped)?;
        outcome.await.unwrap_or(Err(TwinError::Stopped))
    }
}
