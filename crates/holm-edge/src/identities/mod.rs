//! The modules of this device as the hub knows them, and their keys.
//!
//! ```text
//! hub registry --list, create, set keys, delete--> Identities --generation--> key store: key = derive(master, m:gen:slot)
//!       (with the device's token, or its certificate)   |  '--- sign, verify for broker, uplink, workload API
//!                                                       '--- DATA/identities.json (0600): enough for a start without hub
//! ```
//!
//! - A module's keys are derived, never stored: from the master key, its id and the generation that the hub gave it. The hub
//!   is told them once; a module that is deleted and made again has others.
//! - Only modules marked as managed by the edge are ever deleted, when they were deployed here or have been there for a minute:
//!   one that a service has just made for a deployment that is still on its way is left alone. And only when nothing that they
//!   sent is on its way: nobody else may send it.
//! - Without the hub, what was known last is in force.
//!
//! Source: `hub-device-protocols.md` §4.5, `edge-agent.md` §2.2 and §6.1.

mod guard;
mod hub_api;
mod known;
mod update;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use futures_util::FutureExt as _;
use holm_identity::key_store::{KeyFuture, KeyStoreError};
use holm_identity::private_file::PrivateFileError;
use holm_identity::{KeyHandle, KeySlot};
use holm_model::{DeviceId, Identity, ModuleId};
use holm_net::http::{Client, ClientError};
use holm_net::{Clock, error_chain};
use hyper::StatusCode;
use tokio::sync::{Mutex, watch};

pub use known::IdentityInfo;
use known::Known;

use crate::keys::ModuleKeys;
use crate::security::Security;
use crate::uplink::Refusals;

/// Why the identities could not be brought up to date. What was known stays in force.
#[derive(Debug, thiserror::Error)]
pub enum IdentitiesError {
    /// The hub can't be reached.
    #[error("the hub did not answer the call to {operation}")]
    Unreachable {
        /// What was asked for.
        operation: String,
        /// What went wrong.
        #[source]
        source: ClientError,
    },
    /// The hub refused.
    #[error("the hub refused to {operation} (status {status}): {message}")]
    Refused {
        /// What was asked for.
        operation: String,
        /// Its status.
        status: StatusCode,
        /// Its own words.
        message: String,
    },
    /// The hub answered something else than the published form.
    #[error("the hub's answer to the call to {operation} has another form than the published one: {reason}")]
    Answer {
        /// What was asked for.
        operation: String,
        /// What is wrong.
        reason: String,
    },
    /// The key store refused.
    #[error("the key store refused")]
    KeyStore(#[source] KeyStoreError),
    /// The memory of identities can't be read or written.
    #[error("the memory of identities can't be used")]
    Cache(#[source] PrivateFileError),
    /// The memory of identities is damaged and can't be put aside.
    #[error("`{}` is damaged and can't be renamed; remove it, and the hub is asked again", .path.display())]
    CacheDamaged {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The memory of identities is that of another release.
    #[error("`{}` is not the memory of identities of format {}; remove it, and the hub is asked again", .0.display(), known::FORMAT)]
    CacheContent(PathBuf),
}

impl IdentitiesError {
    /// Whether it is the device that the hub refuses, and not what it asked for.
    fn is_of_proof(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(status))
    }
}

/// Whether the identity of a module that is not wanted any more may be deleted now.
pub type MayGo<'a> = &'a (dyn Fn(&ModuleId) -> bool + Send + Sync);

/// Where things are.
#[derive(Clone, Debug)]
pub struct IdentitiesOptions {
    /// The file of what was known last, such as `DATA/identities.json`.
    pub cache: PathBuf,
    /// The hub's HTTPS side.
    pub hub: Client,
    /// How long one call may take.
    pub timeout: Duration,
    /// Tells the time of day.
    pub clock: Clock,
    /// Where it is noted that the hub does not take the device's proof.
    pub refusals: Refusals,
}

/// The modules of this device.
#[derive(Debug)]
pub struct Identities {
    security: Arc<Security>,
    options: IdentitiesOptions,
    /// Held for a look or an assignment, never over an `.await`.
    known: RwLock<Known>,
    changes: watch::Sender<u64>,
    /// One update at a time.
    updating: Mutex<()>,
}

impl Identities {
    /// Opens what was known last. The hub is not asked yet.
    ///
    /// # Errors
    /// [`IdentitiesError::Cache`], [`IdentitiesError::CacheContent`].
    pub fn open(security: Arc<Security>, options: IdentitiesOptions) -> Result<Self, IdentitiesError> {
        let cached = known::load(&options.cache)?;
        let cached = cached.filter(|known| known.belongs_to(security.hub_host(), security.device()));
        let is_loaded = cached.is_some();
        let known = cached.unwrap_or_else(|| Known::new(security.hub_host(), security.device()));
        Ok(Self {
            security,
            options,
            known: RwLock::new(known),
            changes: watch::Sender::new(u64::from(is_loaded)),
            updating: Mutex::new(()),
        })
    }

    /// Asks the hub and makes it as the deployment wants: modules that lack are made, keys that differ are set, and modules
    /// that were deployed or have been there for a minute, and are not in `wanted`, are deleted as soon as they `may_go`; those that stay for now are the
    /// answer. Without `wanted` (no deployment is known) nothing but the runtime's own modules is made and nothing is deleted.
    ///
    /// # Errors
    /// [`IdentitiesError`]; what was done before it stays done and known.
    pub async fn update(
        &self,
        wanted: Option<&BTreeSet<ModuleId>>,
        may_go: MayGo<'_>,
    ) -> Result<Vec<ModuleId>, IdentitiesError> {
        let _one_at_a_time = self.updating.lock().await;
        let mut next = self.read().clone();
        let outcome = update::update(&self.security, &self.options, &mut next, wanted, may_go).await;
        self.note(&outcome);
        let is_changed = {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            let is_changed = known.generations() != next.generations();
            if *known != next {
                known::store(&self.options.cache, &next)?;
                *known = next;
            }
            is_changed
        };
        let is_first = outcome.is_ok() && *self.changes.borrow() == 0;
        if is_changed || is_first {
            self.changes.send_modify(|count| *count += 1);
        }
        outcome
    }

    /// The hub does not know this device, or not what it proves itself by: waiting alone does not end that.
    fn note<T>(&self, outcome: &Result<T, IdentitiesError>) {
        let device = Identity::of_device(self.security.device().clone());
        match outcome {
            Ok(_) => self.options.refusals.accept(&device),
            Err(error) if error.is_of_proof() => self.options.refusals.refuse(&device, error.to_string()),
            Err(_) => {}
        }
    }

    /// Every module with what the management API tells of it.
    #[must_use]
    pub fn list(&self) -> Vec<IdentityInfo> {
        self.read().list()
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, module: &ModuleId, slot: KeySlot) -> Option<KeyHandle> {
        let generation = self.generation(module)?;
        Some(KeyHandle::of_module(
            self.security.master_key().clone(),
            module,
            &generation,
            slot,
        ))
    }
}

impl ModuleKeys for Identities {
    fn device(&self) -> &DeviceId {
        self.security.device()
    }

    fn hub_host(&self) -> &str {
        self.security.hub_host()
    }

    fn generation(&self, module: &ModuleId) -> Option<String> {
        self.read().generation(module).map(str::to_owned)
    }

    fn modules(&self) -> Vec<ModuleId> {
        self.read().modules()
    }

    fn sign(&self, module: &ModuleId, data: &[u8]) -> Option<[u8; 32]> {
        let key = self.key(module, KeySlot::Primary)?;
        at_once(self.security.keys().sign_hmac_sha256(&key, data))
    }

    fn verify(&self, module: &ModuleId, data: &[u8], signature: &[u8]) -> bool {
        [KeySlot::Primary, KeySlot::Secondary].into_iter().any(|slot| {
            let key = self.key(module, slot);
            key.and_then(|key| at_once(self.security.keys().verify_hmac_sha256(&key, data, signature)))
                .unwrap_or(false)
        })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// The store in files answers without waiting, which this trait relies on: signing is asked in the middle of a handshake.
fn at_once<T>(answer: KeyFuture<'_, T>) -> Option<T> {
    match answer.now_or_never()? {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::error!(error = %error_chain(&error), "the key store refused");
            None
        }
    }
}

#[cfg(test)]
mod tests;
