//! The device's certificate, as the original's file names it: two files below `provisioning.authentication` or
//! `provisioning.attestation`.
//!
//! ```text
//! identity_cert = "file:///…"                       used
//! identity_cert = { method = "est" | "local_ca" | "self_signed", … }    issued by the edge: refused, with what to do instead
//! identity_pk   = "file:///…"                       used; `pkcs11:` is refused
//! ```
//!
//! Source: `edge-agent.md` §5.

use holm_identity::CertificateInfo;
use holm_identity::certificate::{MAX_PEM_BYTES, certificates_from_pem};
use holm_identity::private_file;
use holm_net::error_chain;

use super::CertificateFiles;
use super::read::Reader;

/// Reads the two files that stand below `above`.
pub(super) fn read(reader: &mut Reader<'_>, above: &str) -> Option<CertificateFiles> {
    let (cert, pk) = (format!("{above}.identity_cert"), format!("{above}.identity_pk"));
    let cert = file(
        reader,
        &cert,
        "have it issued by other means (`step`, `openssl`, an EST client)",
    );
    let pk = file(reader, &pk, "keep the key in a file");
    Some(CertificateFiles { cert: cert?, pk: pk? })
}

fn file(reader: &mut Reader<'_>, path: &str, instead: &str) -> Option<std::path::PathBuf> {
    match reader.item(path) {
        None => {
            let text = format!("a value for `{path}` is missing; `method = \"x509\"` needs it: give `file:///path`");
            reader.problem(None, text);
            None
        }
        Some(item) if item.is_table_like() => {
            let text = format!(
                "`{path}` says how it is issued, which is not yet supported; {instead}, and give `file:///path`"
            );
            reader.problem(Some(item), text);
            None
        }
        Some(_) => reader.file(path),
    }
}

/// The common name of the certificate: the registration id, where none is given.
///
/// # Errors
/// In words.
pub(super) fn common_name(files: &CertificateFiles) -> Result<String, String> {
    let shown = files.cert.display();
    let bytes = private_file::read_public(&files.cert, MAX_PEM_BYTES)
        .map_err(|error| format!("`{shown}` can't be read: {}", error_chain(&error)))?;
    let chain = certificates_from_pem(&bytes).map_err(|error| format!("`{shown}`: {}", error_chain(&error)))?;
    let leaf = chain.first().ok_or_else(|| format!("`{shown}` holds no certificate"))?;
    let info = CertificateInfo::read(leaf).map_err(|error| format!("`{shown}`: {}", error_chain(&error)))?;
    info.subject_common_name
        .ok_or_else(|| format!("the certificate in `{shown}` has no common name"))
}
