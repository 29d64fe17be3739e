//! A certificate whose holder signs certificates of devices: a root, or an intermediate that is trusted by itself.
//!
//! ```text
//! leaf <- intermediate <- root        chain that the device shows: leaf, intermediate[, root]
//!           ^ distance 0    ^ distance 1
//! ```
//!
//! What the authority and intermediates say of themselves holds: basic constraints and dates are looked at by the TLS library, of the
//! intermediates alone. It takes an authority that is trusted for one without limits, and reads no key usage; so dates, path
//! length and mark of the authority, and whether it and those above the leaf may sign certificates, are looked at here.
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
use crate::certificate::{CertificateDetails, CertificateInfo, certificates_from_pem};
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

    /// Every certificate of a PEM text; whether each may sign is asked when it is to vouch for somebody.
    ///
    /// # Errors
    /// As [`SigningCertificate::new`].
    pub fn all_of(pem: &[u8]) -> Result<Vec<Self>, CertificateRefused> {
        let all = certificates_from_pem(pem).map_err(CertificateRefused::Unreadable)?;
        all.iter().map(Self::new).collect()
    }

    /// What it says of itself.
    #[must_use]
    pub fn details(&self) -> &CertificateDetails {
        &self.details
    }

    /// Checks that a chain (leaf first) leads to this certificate, by signatures and dates, and that this one may sign.
    ///
    /// # Errors
    /// [`CertificateRefused`].
    pub fn vouches_for(
        &self,
        chain: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<CertificateInfo, CertificateRefused> {
        let leaf_info = leaf_valid_at(chain, now)?;
        let (leaf, above) = chain.split_first().ok_or(CertificateRefused::None)?;
        let allowed = self.allowed(leaf, above)?;
        let seconds = u64::try_from(now.unix_seconds()).unwrap_or(0);
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let verified = self.verifier.verify_client_cert(leaf, &allowed, at);
        verified.map_err(|error| {
            let would_lead = self.verifier.verify_client_cert(leaf, above, at).is_ok();
            if would_lead {
                CertificateRefused::Constraints(error)
            } else {
                CertificateRefused::Chain(error)
            }
        })?;
        // Asked last: of several authorities only the one that a chain leads to has a say.
        self.check_itself(now)?;
        Ok(leaf_info)
    }

    /// The common name; of one that has none its thumbprint.
    fn name(&self) -> String {
        let info = &self.details.info;
        info.subject_common_name.clone().unwrap_or_else(|| info.sha256.clone())
    }

    /// Whether this certificate may sign others, and its dates hold.
    fn check_itself(&self, now: Timestamp) -> Result<(), CertificateRefused> {
        if !self.details.is_issuer() {
            return Err(CertificateRefused::NoAuthority { name: self.name() });
        }
        if !self.details.info.is_valid_at(now) {
            return Err(CertificateRefused::AuthorityDates {
                name: self.name(),
                from: self.details.info.not_before,
                to: self.details.info.not_after,
            });
        }
        Ok(())
    }

    /// Those above the leaf that may stand between it and this authority: they may sign certificates, and are no further from the leaf
    /// than the path length allows. Steps are counted by names, as the library looks for issuers.
    fn allowed<'c>(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'c>],
    ) -> Result<Vec<CertificateDer<'c>>, CertificateRefused> {
        let read = |der: &CertificateDer<'_>| CertificateDetails::read(der).map_err(CertificateRefused::Unreadable);
        let shown: Vec<_> = above.iter().map(read).collect::<Result<_, _>>()?;
        let mut is_near = vec![self.details.path_length.is_none(); above.len()];
        let mut names = vec![read(leaf)?.issuer_der().to_vec()];
        for _ in 0..self.details.path_length.unwrap_or(0) {
            let mut next = Vec::new();
            for (near, shown) in is_near.iter_mut().zip(&shown) {
                if !*near && names.iter().any(|name| name == shown.subject_der()) {
                    *near = true;
                    next.push(shown.issuer_der().to_vec());
                }
            }
            if next.is_empty() {
                break;
            }
            names = next;
        }
        let allowed = above.iter().zip(shown.iter().zip(is_near));
        let allowed = allowed.filter(|(_, (shown, near))| shown.may_sign && *near);
        Ok(allowed.map(|(der, _)| der.clone()).collect())
    }
}

#[cfg(test)]
mod tests;
