//! Connections that clients share.
//!
//! A client takes a seat on a connection that stands, or one makes a connection while the others wait for how that ends:
//! thousands that lost one link ask the node above once. A new connection is open to the others when the token of its maker was
//! taken: until then the node above allows a few sessions only, and ends those beyond.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use holm_net::Scope;
use rustls::ClientConfig;

use super::shared::{Seat, Shared};
use super::{End, Link, authenticate, make_token, prove};
use crate::engine::dial::dial;
use crate::options::{Endpoint, Options, Transport};

/// How long the maker of a connection may take for its token while others wait: longer than any source that works.
const MAKE_TOKEN_DEADLINE: Duration = Duration::from_secs(30);

/// AMQP connections that clients share ([`Options::connections`]): up to 995 clients on each, a session and a token for every
/// one. Clients that go to different places don't meet on one. Clones are the same connections.
#[derive(Clone)]
pub struct Connections(Arc<Pool>);

struct Pool {
    scope: Scope,
    /// Held for list operations.
    open: Mutex<Vec<Open>>,
    /// Held by the one that makes a connection; why the last attempt failed.
    making: tokio::sync::Mutex<String>,
    /// How many attempts have failed.
    failed: AtomicU64,
}

struct Open {
    endpoint: Endpoint,
    transport: Transport,
    tls: Arc<ClientConfig>,
    shared: Weak<Shared>,
}

/// How a client came in after it had waited for its turn.
enum Entered {
    /// Its token was taken.
    Made(Link),
    Joined(Seat),
}

/// Why no connection was made.
enum Failure {
    /// Because of who made it: its token, say.
    Own(End),
    /// The others who wait would fare no better.
    OfAll(String),
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("count", &self.count())
            .finish_non_exhaustive()
    }
}

impl Connections {
    /// No connection yet; those to come are driven by tasks of the scope.
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        Self(Arc::new(Pool {
            scope,
            open: Mutex::default(),
            making: tokio::sync::Mutex::default(),
            failed: AtomicU64::new(0),
        }))
    }

    /// How many connections there are.
    #[must_use]
    pub fn count(&self) -> usize {
        let open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().filter(|open| open.shared.strong_count() > 0).count()
    }

    /// A session for a client whose token was taken, on a new connection if need be. Cancel-safe.
    pub(super) async fn enter(&self, options: &Options) -> Result<Link, End> {
        let seat = match self.try_sit(options) {
            Some(seat) => seat,
            None => match self.join_or_make(options).await? {
                Entered::Made(link) => return Ok(link),
                Entered::Joined(seat) => seat,
            },
        };
        let life = authenticate(options, seat.shared()).await?;
        Ok(Link { seat, life })
    }

    async fn join_or_make(&self, options: &Options) -> Result<Entered, End> {
        let failed_before = self.failed();
        let mut last_failure = self.0.making.lock().await;
        if let Some(seat) = self.try_sit(options) {
            return Ok(Entered::Joined(seat));
        }
        if self.failed() != failed_before {
            return Err(End::Lost(last_failure.clone()));
        }
        match Box::pin(self.make(options)).await {
            Ok(link) => Ok(Entered::Made(link)),
            // The next one tries by itself.
            Err(Failure::Own(end)) => Err(end),
            Err(Failure::OfAll(reason)) => {
                last_failure.clone_from(&reason);
                self.0.failed.fetch_add(1, Ordering::Relaxed);
                Err(End::Lost(reason))
            }
        }
    }

    async fn make(&self, options: &Options) -> Result<Link, Failure> {
        let stream = dial(options).await;
        let stream = stream.map_err(|error| Failure::OfAll(holm_net::error_chain(&error)))?;
        let opening = Shared::open(options, stream, &self.0.scope).await;
        let opening = opening.map_err(Failure::OfAll)?;
        let shared = &opening.0;
        let seat = shared.try_sit(options);
        let seat = seat.ok_or_else(|| Failure::OfAll(shared.reason()))?;
        let token = tokio::time::timeout(MAKE_TOKEN_DEADLINE, make_token(options)).await;
        let token = token.unwrap_or_else(|_| Err(End::Lost("no credential in time".to_owned())));
        let proved = prove(options, shared, token.map_err(Failure::Own)?).await;
        let life = proved.map_err(|end| match end {
            End::Lost(reason) => Failure::OfAll(reason),
            end => Failure::Own(end),
        })?;
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|open| open.shared.strong_count() > 0);
        open.push(Open {
            endpoint: options.endpoint.clone(),
            transport: options.transport,
            tls: Arc::clone(&options.tls),
            shared: Arc::downgrade(shared),
        });
        Ok(Link { seat, life })
    }

    fn try_sit(&self, options: &Options) -> Option<Seat> {
        let open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = open.iter().filter(|open| {
            open.endpoint == options.endpoint
                && open.transport == options.transport
                && Arc::ptr_eq(&open.tls, &options.tls)
        });
        fitting
            .filter_map(|open| open.shared.upgrade())
            .find_map(|shared| shared.try_sit(options))
    }

    fn failed(&self) -> u64 {
        self.0.failed.load(Ordering::Relaxed)
    }
}
