//! Targets of `holm-identity`.

use holm_identity::{CertificateInfo, DeviceConnectionString, SasToken, ServiceConnectionString};
use rustls::pki_types::CertificateDer;

use super::text;

pub(super) fn token(bytes: &[u8]) {
    if let Some(text) = text(bytes) {
        drop(SasToken::parse(text));
    }
}

pub(super) fn connection_string(bytes: &[u8]) {
    if let Some(text) = text(bytes) {
        drop(DeviceConnectionString::parse(text));
        drop(ServiceConnectionString::parse(text));
    }
}

pub(super) fn certificate(bytes: &[u8]) {
    drop(CertificateInfo::read(&CertificateDer::from(bytes)));
}
