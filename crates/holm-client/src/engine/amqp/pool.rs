//! Connections that clients share.
//!
//! A client takes a seat on a connection that stands, or one makes a connection while the others wait for how that ends:
//! thousands that lost one link ask the node above once.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use holm_net::Scope;
use rustls::ClientConfig;

use super::shared::{Seat, Shared};
use crate::engine::dial::dial;
use crate::options::{Endpoint, Options, Transport};

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

    /// A seat for a client, on a new connection if need be. Cancel-safe.
    pub(super) async fn seat(&self, options: &Options) -> Result<Seat, String> {
        if let Some(seat) = self.try_sit(options) {
            return Ok(seat);
        }
        let failed_before = self.failed();
        let mut last_failure = self.0.making.lock().await;
        if let Some(seat) = self.try_sit(options) {
            return Ok(seat);
        }
        if self.failed() != failed_before {
            return Err(last_failure.clone());
        }
        match Box::pin(self.make(options)).await {
            Ok(seat) => Ok(seat),
            Err(reason) => {
                last_failure.clone_from(&reason);
                self.0.failed.fetch_add(1, Ordering::Relaxed);
                Err(reason)
            }
        }
    }

    async fn make(&self, options: &Options) -> Result<Seat, String> {
        let stream = dial(options).await.map_err(|error| holm_net::error_chain(&error))?;
        let opening = Shared::open(options, stream, &self.0.scope).await?;
        let shared = &opening.0;
        let seat = shared.try_sit(options).ok_or_else(|| shared.reason())?;
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|open| open.shared.strong_count() > 0);
        open.push(Open {
            endpoint: options.endpoint.clone(),
            transport: options.transport,
            tls: Arc::clone(&options.tls),
            shared: Arc::downgrade(shared),
        });
        Ok(seat)
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
