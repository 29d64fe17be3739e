//! Whom the edge trusts above, and what it tells those below to trust.

use std::path::Path;

use holm_identity::Roots;
use holm_identity::certificate::{InvalidCertificate, MAX_PEM_BYTES, certificates_from_pem};
use holm_identity::private_file;
use holm_identity::tls::{TlsError, client_config};
use holm_net::error_chain;
use rustls::ClientConfig;

use super::SecurityError;

/// The operator's own roots, in PEM; empty when there are none.
pub(super) fn read_operators(path: Option<&Path>) -> Result<String, SecurityError> {
    let Some(path) = path else { return Ok(String::new()) };
    let refused = |error| SecurityError::TrustBundle(TlsError::Certificate(error));
    let bytes = private_file::read_public(path, MAX_PEM_BYTES)
        .map_err(InvalidCertificate::File)
        .map_err(refused)?;
    certificates_from_pem(&bytes).map_err(refused)?;
    let mut pem = String::from_utf8_lossy(&bytes).into_owned();
    if !pem.ends_with('\n') {
        pem.push('\n');
    }
    Ok(pem)
}

/// The most bytes of a TLS record towards the hub. The hub sees a record when it has all of it, and takes a longer silence for
/// the end: of the usual 16 KiB one takes 14 s at 9.6 kbit/s, of this 3.5 s.
const RECORD: usize = 4096;

/// TLS towards the hub. A machine without the system's roots is no fault as long as the operator gave some.
pub(super) fn upstream(system: Option<&Path>, operators: Option<&Path>) -> Result<ClientConfig, SecurityError> {
    let roots = match (Roots::none().with_system(system), operators) {
        (Ok(roots), _) => roots,
        (Err(error), Some(_)) => {
            tracing::info!(error = %error_chain(&error), "the system's roots are not used; only `trust_bundle_cert` is");
            Roots::none()
        }
        (Err(error), None) => return Err(SecurityError::Upstream(error)),
    };
    let roots = match operators {
        Some(path) => roots.with_file(path).map_err(SecurityError::TrustBundle)?,
        None => roots,
    };
    let mut config = client_config(roots, None).map_err(SecurityError::Upstream)?;
    config.max_fragment_size = Some(RECORD);
    Ok(config)
}
