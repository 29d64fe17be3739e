//! Certificates for devices that are connected: a node that issues them implements [`Credentials`], and a front asks it.
//!
//! ```text
//! request of a client --> may it? --> told that it is accepted --> issued, on disk --> told the chain
//! ```
//!
//! Source: `hub-device-protocols.md` §5.7, hub renewal.

use std::future::Future;

use holm_identity::ca::request::SigningRequest;
use holm_model::error::{ErrorCode, ServiceError};
use rustls::pki_types::CertificateDer;

use crate::backend::Admission;

/// Issues certificates by which devices prove themselves from their next connection on.
pub trait Credentials: Send + Sync + 'static {
    /// Whether this node issues any. Where it never does, what would answer is not even in the program.
    const ISSUES: bool = false;

    /// Whether a client may have a certificate issued; asked before it is told that its request is accepted.
    ///
    /// # Errors
    /// [`ServiceError`], told to the client.
    fn may_have_certificate(&self, _of: &Admission) -> impl Future<Output = Result<(), ServiceError>> + Send {
        std::future::ready(Err(not_here()))
    }

    /// Issues a certificate; gives it and those above it, leaf first. When the future is ready its owner is let in by it, and by the
    /// one that it showed for this session. What was begun is carried out also when the future is dropped.
    ///
    /// # Errors
    /// [`ServiceError`], told to the client.
    fn issue_certificate(
        &self,
        _of: &Admission,
        _request: SigningRequest,
    ) -> impl Future<Output = Result<Vec<CertificateDer<'static>>, ServiceError>> + Send {
        std::future::ready(Err(not_here()))
    }
}

/// What a node answers that issues none.
pub(crate) fn not_here() -> ServiceError {
    let text = "certificates are not issued here; connect to the hub itself, without a gateway, to have one renewed";
    ServiceError::new(ErrorCode::InvalidOperation, text)
}
