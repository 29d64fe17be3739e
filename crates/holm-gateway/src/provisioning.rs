//! What a node must be able to do so that devices can ask it where they belong: the device side of the provisioning service.
//!
//! ```text
//! attest --> may ask at all            (CONNECT, SASL, a link)
//! challenge --> what only its TPM can open   (SASL; over HTTPS `begin` gives it with its refusal)
//! begin  --> 202, an operation         what it came to is known soon
//! state  --> 202 still, or 200: assigned, failed, disabled
//! last   --> 200, the last registration
//! ```
//!
//! Every call names the applicant with its proof, and is proved anew: nothing is remembered of a connection, so an enrollment
//! that is disabled or deleted counts from the next word. Hub and provisioning service share ports; what a client says at its
//! start tells them apart. A node that provisions nobody, as an edge, gives no id scope, and is not asked anything else.
//!
//! Source: `hub-device-protocols.md` §5.

use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use holm_model::ProvisioningError;
use holm_model::wire::provisioning::Registrant;
use serde_json::Value;

use crate::backend::Credential;

/// The largest request and its payload (`hub-device-protocols.md` §5.8).
pub const MAX_REGISTRATION: usize = 96 * 1024;

/// A device that asks where it belongs.
#[derive(Clone, Debug)]
pub struct Applicant {
    /// Who it says it is, and whom it asks.
    pub registrant: Registrant,
    /// Its proof.
    pub credential: Credential,
    /// Where it asks from, where that is known.
    pub source: Option<IpAddr>,
}

/// How far a registration is.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// 202 while it goes on, 200 when it has come to its end.
    pub status: u16,
    /// The published document.
    pub body: Value,
    /// When to ask again, while it goes on.
    pub retry_after: Option<Duration>,
}

impl Standing {
    /// When to ask again, in whole seconds.
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after.map(|wait| wait.as_secs().max(1))
    }
}

/// Tells devices where they belong.
pub trait Provisioning: Send + Sync + 'static {
    /// Whether this node may have an id scope. Where it never has one, what would answer is not even in the program: known when it is
    /// built, so that it costs a device nothing.
    const PROVISIONS: bool = true;

    /// What devices call this service; `None` where there is none, and then nothing else is asked.
    fn id_scope(&self) -> Option<&str> {
        None
    }

    /// Checks a proof.
    ///
    /// # Errors
    /// [`ProvisioningError`]: `Unauthorized`, or that it can't be told now.
    fn attest(&self, _applicant: &Applicant) -> impl Future<Output = Result<(), ProvisioningError>> + Send {
        std::future::ready(Err(none_here()))
    }

    /// Gives a device, which has no proof yet, what only its TPM can open, by the public areas of two of its keys: the endorsement key,
    /// which was enrolled, and the storage root key. It then attests by a token that the key in it has signed.
    ///
    /// # Errors
    /// [`ProvisioningError`]: `Unauthorized` where no such TPM is expected.
    fn challenge(
        &self,
        _applicant: &Applicant,
        _endorsement_key: Bytes,
        _storage_root_key: Bytes,
    ) -> impl Future<Output = Result<Vec<u8>, ProvisioningError>> + Send {
        std::future::ready(Err(none_here()))
    }

    /// Begins a registration. `body` is what the device sent: empty, or the published document.
    ///
    /// # Errors
    /// [`ProvisioningError`].
    fn begin(
        &self,
        _applicant: &Applicant,
        _body: Bytes,
    ) -> impl Future<Output = Result<Standing, ProvisioningError>> + Send {
        std::future::ready(Err(none_here()))
    }

    /// How far an operation is.
    ///
    /// # Errors
    /// [`ProvisioningError`]: `NotFound` for one that was never begun for this applicant.
    fn state(
        &self,
        _applicant: &Applicant,
        _operation: &str,
    ) -> impl Future<Output = Result<Standing, ProvisioningError>> + Send {
        std::future::ready(Err(none_here()))
    }

    /// The last registration of the applicant.
    ///
    /// # Errors
    /// [`ProvisioningError`]: `NotFound` where there is none.
    fn last(&self, _applicant: &Applicant) -> impl Future<Output = Result<Standing, ProvisioningError>> + Send {
        std::future::ready(Err(none_here()))
    }
}

fn none_here() -> ProvisioningError {
    ProvisioningError::not_found("this node provisions no devices; ask the hub's provisioning service")
}
