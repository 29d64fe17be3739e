//! Direct methods: a call to whoever is connected, and its answer. Nothing is stored.
//!
//! Source: `hub-service-api.md` §2.5.

use holm_model::{Identity, MethodRequest, MethodResponse, ServiceError};

use crate::Signals;
use crate::registry::existing;
use crate::storage::Repository;

/// Calls methods of devices and modules. Clones are the same.
#[derive(Clone, Debug)]
pub struct Methods {
    repository: Repository,
    signals: Signals,
}

impl Methods {
    /// Calls through the sessions that `signals` knows.
    #[must_use]
    pub const fn new(repository: Repository, signals: Signals) -> Self {
        Self { repository, signals }
    }

    /// Calls a method: waits for the client to connect and for its answer, each as long as the request says.
    ///
    /// # Errors
    /// `DeviceNotFound`, `ModuleNotFound`, `DeviceNotOnline`, `GatewayTimeout`, `BadDeviceResponse`, `ThrottlingException`.
    pub async fn call(&self, identity: Identity, request: MethodRequest) -> Result<MethodResponse, ServiceError> {
        let wanted = identity.clone();
        self.repository
            .read(move |view| existing(view, &wanted).map(|_| ()))
            .await?;
        self.signals
            .directory()
            .invoke(&identity, request)
            .await
            .map_err(ServiceError::from)
    }
}
