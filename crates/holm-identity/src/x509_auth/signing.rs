//! A certificate whose holder signs certificates of devices: a root, or an intermediate that is trusted by itself.
//!
//! ```text
//! leaf <- intermediate <- root        chain that the device shows: leaf, intermediate[, root]
//!           ^ distance 0    ^ distance 1
//! ```
//!
//! Several may stand behind the same leaf. The nearest one, whose distance is least, is meant: somebody who enrols an
//! intermediate wants its devices, and not the others below the same root.

use std::sync::Arc;
use std::time::Duration;

use holm_model::Timestamp;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::{CertificateRefused, leaf_valid_at};
use crate::certificate::{CertificateDetails, CertificateInfo};
use crate::tls;

/// A certificate that vouches for others. Clones are the same.
#[derive(Clone, Debug)]
pub struct SigningCertificate {
    details: Arc<CertificateDetails>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl SigningCertificate {
    /// From the certificate itself.
    ///
    /// # Errors
    /// [`CertificateRefused::Unreadable`], also for one that TLS can't take for an authority.
    pub fn new(certificate: &CertificateDer<'static>) -> Result<Self, CertificateRefused> {
        let details = CertificateDetails::read(certificate).map_err(CertificateRefused::Unreadable)?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).map_err(CertificateRefused::Chain)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider());
        Ok(Self {
            details: Arc::new(details),
            verifier: verifier.build().map_err(CertificateRefused::Roots)?,
        })
    }

    /// What it says of itself.
    #[must_use]
    pub fn details(&self) -> &CertificateDetails {
        &self.details
    }

    /// How many certificates of a chain stand between its leaf and this one, by their names; `None` if none names it.
    #[must_use]
    pub fn distance(&self, chain: &[CertificateDetails]) -> Option<usize> {
        chain.iter().position(|shown| shown.is_named_issuer(&self.details))
    }

    /// Checks that a chain (leaf first) leads to this certificate, by signatures and dates.
    ///
    /// # Errors
    /// [`CertificateRefused`].
    pub fn vouches_for(
        &self,
        chain: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<CertificateInfo, CertificateRefused> {
        let leaf_info = leaf_valid_at(chain, now)?;
        if !self.details.info.is_valid_at(now) {
            return Err(CertificateRefused::Dates {
                from: self.details.info.not_before,
                to: self.details.info.not_after,
            });
        }
        let (leaf, above) = chain.split_first().ok_or(CertificateRefused::None)?;
        let seconds = u64::try_from(now.unix_seconds()).unwrap_or(0);
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let verified = self.verifier.verify_client_cert(leaf, above, now);
        verified.map(|_| leaf_info).map_err(CertificateRefused::Chain)
    }
}
