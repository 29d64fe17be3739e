//! The certificate authority of the edge: given by the operator, or made at the first start and replaced in time.

use std::path::PathBuf;

use holm_identity::certificate::{CertificateInfo, MAX_PEM_BYTES, certificates_from_pem};
use holm_identity::{CertificateAuthority, private_file};
use holm_model::Timestamp;

use super::{SecurityError, SecurityOptions};
use crate::config::EdgeCa;

fn file(options: &SecurityOptions, name: &str) -> PathBuf {
    options.data.join("certificates").join(name)
}

/// The published name: `aziot-edge CA <device>`, cut to what a common name may hold.
fn common_name(options: &SecurityOptions) -> String {
    format!("aziot-edge CA {}", options.device).chars().take(64).collect()
}

/// The authority in use: the given one, or the edge's own, which is made if it is not there and replaced when it is due.
pub(super) fn open(options: &SecurityOptions, now: Timestamp) -> Result<CertificateAuthority, SecurityError> {
    let days = match &options.edge_ca {
        EdgeCa::Files { cert, pk } => return CertificateAuthority::load(cert, pk).map_err(SecurityError::Authority),
        EdgeCa::QuickStart { days } => *days,
    };
    let authority = CertificateAuthority::load_or_create(
        &file(options, "edge-ca.pem"),
        &file(options, "edge-ca.key.pem"),
        &common_name(options),
        days,
        now,
    )
    .map_err(SecurityError::Authority)?;
    if authority.info().should_renew(days, now) {
        return replace(options, &authority, now);
    }
    Ok(authority)
}

/// Makes a new authority of the edge's own; the certificate of the old one is kept for the trust bundle.
pub(super) fn replace(
    options: &SecurityOptions,
    old: &CertificateAuthority,
    now: Timestamp,
) -> Result<CertificateAuthority, SecurityError> {
    let EdgeCa::QuickStart { days } = options.edge_ca else {
        return open(options, now);
    };
    let new = CertificateAuthority::create(&common_name(options), days, now).map_err(SecurityError::Authority)?;
    private_file::write_public(&file(options, "edge-ca-previous.pem"), old.certificate_pem().as_bytes())
        .map_err(SecurityError::Directory)?;
    new.store(&file(options, "edge-ca.pem"), &file(options, "edge-ca.key.pem"))
        .map_err(SecurityError::Authority)?;
    tracing::warn!(
        ended = %old.info().not_after,
        "the edge's certificate authority was replaced; give downstream devices the new one (`holm edge ca`) before the old one ends"
    );
    Ok(new)
}

/// The certificate of the authority before this one, as long as it is valid; else empty.
pub(super) fn previous_pem(options: &SecurityOptions, now: Timestamp) -> String {
    let read = private_file::read_public(&file(options, "edge-ca-previous.pem"), MAX_PEM_BYTES);
    let pem = match read {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => return String::new(),
    };
    let is_valid = certificates_from_pem(pem.as_bytes()).is_ok_and(|certificates| {
        let info = certificates.first().and_then(|first| CertificateInfo::read(first).ok());
        info.is_some_and(|info| info.is_valid_at(now))
    });
    if is_valid { pem } else { String::new() }
}
