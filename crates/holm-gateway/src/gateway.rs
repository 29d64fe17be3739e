//! A node's front: the backend behind it, the sessions in it, and the rules it follows.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use holm_model::Timestamp;
use holm_net::clock::instant;
use holm_net::http::ResponseBody;
use holm_net::{Clock, Listener, Peer, Scope, tls};
use hyper::body::Incoming;
use hyper::{Request, Response};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::amqp;
use crate::backend::{Backend, Refusal};
use crate::complaints::Complaints;
use crate::http::device::locks::LockTokens;
use crate::http::websocket::{self, Subprotocol, UpgradedStream};
use crate::logins::Logins;
use crate::metrics::{ConnectionMetrics, Protocol, Throttle};
use crate::mqtt;
use crate::profile::Profile;
use crate::session::{CloseReason, Directory, SessionId};

/// The device-facing front of a node. Cheap to clone; clones are the same front.
#[derive(Debug)]
pub struct Gateway<B> {
    /// What the node can do.
    pub(crate) backend: Arc<B>,
    /// Who is connected here.
    pub(crate) directory: Arc<Directory>,
    /// How the node answers.
    pub(crate) profile: Arc<Profile>,
    /// What happened here.
    pub(crate) metrics: Arc<ConnectionMetrics>,
    /// What the log was told of peers that break the protocol.
    pub(crate) complaints: Arc<Complaints>,
    /// Holds the leases of those who have no session.
    pub(crate) without_session: SessionId,
    /// Names those leases.
    pub(crate) locks: Arc<LockTokens>,
    /// When proofs end.
    pub(crate) clock: Clock,
    /// How many are let in each second, if there is a limit.
    logins: Option<Arc<Logins>>,
    scope: Scope,
}

impl<B> Clone for Gateway<B> {
    fn clone(&self) -> Self {
        Self {
            backend: Arc::clone(&self.backend),
            directory: Arc::clone(&self.directory),
            profile: Arc::clone(&self.profile),
            metrics: Arc::clone(&self.metrics),
            complaints: Arc::clone(&self.complaints),
            without_session: self.without_session,
            locks: Arc::clone(&self.locks),
            clock: self.clock.clone(),
            logins: self.logins.clone(),
            scope: self.scope.clone(),
        }
    }
}

/// The time of day, for what is told of an error.
pub(crate) fn now() -> Timestamp {
    Timestamp::from(Clock::system().now())
}

impl<B: Backend> Gateway<B> {
    /// A front for a backend. The directory is shared with the backend, which reaches clients through it. Sessions live in
    /// the scope and end with it.
    #[must_use]
    pub fn new(backend: Arc<B>, directory: Arc<Directory>, profile: Profile, scope: Scope) -> Self {
        Self {
            backend,
            directory,
            profile: Arc::new(profile),
            metrics: Arc::default(),
            complaints: Arc::default(),
            without_session: SessionId::next(),
            locks: Arc::new(LockTokens::new()),
            clock: Clock::system(),
            logins: None,
            scope,
        }
    }

    /// The same front, by another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The same front, that lets in so many clients each second: the others wait up to 10 s for their turn, or are told to
    /// come again.
    #[must_use]
    pub fn with_logins_per_second(mut self, limit: Option<NonZeroU32>) -> Self {
        self.logins = limit.map(|limit| Arc::new(Logins::per_second(limit)));
        self
    }

    /// Waits until the next client may be let in.
    ///
    /// # Errors
    /// [`Refusal::Throttled`]: too many are waiting.
    pub(crate) async fn await_turn(&self) -> Result<(), Refusal> {
        let Some(logins) = &self.logins else {
            return Ok(());
        };
        let turn = logins.turn(instant());
        if !matches!(turn, Ok(Duration::ZERO)) {
            self.metrics.throttled.of(Throttle::Logins).increment();
        }
        tokio::time::sleep(turn?).await;
        Ok(())
    }

    /// The backend.
    #[must_use]
    pub const fn backend(&self) -> &Arc<B> {
        &self.backend
    }

    /// The sessions.
    #[must_use]
    pub const fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// What happened here, in figures.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<ConnectionMetrics> {
        &self.metrics
    }

    /// Serves MQTT over TLS on a listener until the scope stops.
    pub async fn serve_mqtt(self, listener: Listener, config: Arc<ServerConfig>) {
        let scope = self.scope.clone();
        tls::serve(&scope, listener, config, move |stream, peer| {
            let front = self.clone();
            async move { front.serve_mqtt_stream(stream, peer).await }
        })
        .await;
    }

    /// Serves AMQP over TLS on a listener until the scope stops.
    pub async fn serve_amqp(self, listener: Listener, config: Arc<ServerConfig>) {
        let scope = self.scope.clone();
        tls::serve(&scope, listener, config, move |stream, peer| {
            let front = self.clone();
            async move { front.serve_amqp_stream(stream, peer).await }
        })
        .await;
    }

    /// Serves the stream of a WebSocket, in the front's scope, as soon as the upgrade is through.
    fn spawn_websocket(
        &self,
        upgrade: impl Future<Output = hyper::Result<UpgradedStream>> + Send + 'static,
        protocol: Subprotocol,
        peer: Peer,
    ) {
        let front = self.clone();
        self.scope.spawn(async move {
            match (upgrade.await, protocol) {
                (Ok(stream), Subprotocol::Mqtt) => {
                    mqtt::serve(&front, &front.scope, stream, peer, Protocol::MqttWebSocket).await;
                }
                (Ok(stream), Subprotocol::Amqp) => {
                    amqp::serve(&front, &front.scope, stream, peer, Protocol::AmqpWebSocket).await;
                }
                (Err(error), _) => tracing::debug!(%error, "a WebSocket ended before it began"),
            }
        });
    }

    /// Answers a request for a WebSocket ([`websocket::is_upgrade`]): MQTT or AMQP, whichever the client asks for first, is
    /// served on it as soon as it stands.
    #[must_use]
    pub fn upgrade(&self, request: Request<Incoming>, peer: Peer) -> Response<ResponseBody> {
        match websocket::accept(request) {
            Ok(accepted) => {
                self.spawn_websocket(accepted.stream, accepted.protocol, peer);
                accepted.response
            }
            Err(refused) => *refused,
        }
    }

    /// Serves MQTT on a stream until it ends or the scope stops.
    pub async fn serve_mqtt_stream<S>(&self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        mqtt::serve(self, &self.scope, stream, peer, Protocol::Mqtt).await;
    }

    /// Serves AMQP on a stream until it ends or the scope stops.
    pub async fn serve_amqp_stream<S>(&self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        amqp::serve(self, &self.scope, stream, peer, Protocol::Amqp).await;
    }

    /// Closes every session, with a reason.
    pub fn close_all(&self, reason: CloseReason) {
        for session in self.directory.all() {
            session.close(reason);
        }
    }
}
