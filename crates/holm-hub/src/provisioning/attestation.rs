//! How devices prove themselves, as enrollments say it: read and written.
//!
//! ```text
//! {"type": "symmetricKey", "symmetricKey": {"primaryKey": …, "secondaryKey": …}}
//! {"type": "x509", "x509": {"clientCertificates" | "signingCertificates": {"primary": {"certificate": …, "info": {…}}, "secondary": {…}}}}
//! {"type": "x509", "x509": {"caReferences": {"primary": NAME, "secondary": NAME}}}
//! {"type": "tpm", "tpm": {"endorsementKey": …, "storageRootKey": …}}
//! ```
//!
//! Source: `hub-service-api.md` §7.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holm_identity::certificate::certificates_from_pem;
use holm_identity::{CertificateDetails, SymmetricKey};
use holm_model::ProvisioningError;
use rustls::pki_types::CertificateDer;
use serde_json::{Map, Value, json};

use super::document::Shown;
use super::enrollment::{Attestation, Certificate, Kind, Signer, Tpm};
use super::fields::Fields;
use crate::registry::Keys;
use crate::tpm::PublicArea;

/// Reads how a device proves itself; keys and certificates that are missing stay those of `current`.
pub(super) fn attestation(
    kind: Kind,
    fields: Fields<'_>,
    current: Option<&Attestation>,
) -> Result<Attestation, ProvisioningError> {
    let Some(attestation) = fields.object("attestation")? else {
        return current
            .cloned()
            .ok_or_else(|| ProvisioningError::argument_invalid("`attestation` is missing"));
    };
    let attestation = Fields::new(attestation, "attestation.");
    let said = attestation.text("type")?;
    let known = |name: &str| said.is_some_and(|said| said.eq_ignore_ascii_case(name));
    if known("symmetricKey") || (said.is_none() && attestation.get("symmetricKey").is_some()) {
        return symmetric_key(attestation, current);
    }
    if known("x509") || (said.is_none() && attestation.get("x509").is_some()) {
        return x509(kind, attestation, current);
    }
    if known("tpm") || (said.is_none() && attestation.get("tpm").is_some()) {
        return tpm(kind, attestation, current);
    }
    Err(attestation.wrong("type", "`symmetricKey`, `x509` or `tpm`"))
}

fn tpm(kind: Kind, attestation: Fields<'_>, current: Option<&Attestation>) -> Result<Attestation, ProvisioningError> {
    if kind == Kind::Group {
        return Err(ProvisioningError::argument_invalid(
            "`attestation.type` is `tpm`, which is for one device; enroll each by its endorsement key",
        ));
    }
    let Some(tpm) = attestation.object("tpm")? else {
        return match current {
            Some(current @ Attestation::Tpm(_)) => Ok(current.clone()),
            _ => Err(attestation.wrong("tpm", "given, with `type` `tpm`")),
        };
    };
    let tpm = Fields::new(tpm, "attestation.tpm.");
    let key = |name| {
        tpm.text(name)?
            .map(|text| public_area(text, &format!("attestation.tpm.{name}")))
            .transpose()
    };
    let endorsement_key = key("endorsementKey")?;
    let endorsement_key =
        endorsement_key.ok_or_else(|| tpm.wrong("endorsementKey", "given: base64 of a `TPM2B_PUBLIC`"))?;
    Ok(Attestation::Tpm(Tpm {
        endorsement_key,
        storage_root_key: key("storageRootKey")?,
    }))
}

/// Reads the public area of a TPM's key, which stands at `path`: base64 of a `TPM2B_PUBLIC`.
pub(super) fn public_area(text: &str, path: &str) -> Result<PublicArea, ProvisioningError> {
    let wrong = |why: String| ProvisioningError::argument_invalid(format!("`{path}` can't be used: {why}"));
    let bytes = STANDARD
        .decode(text.trim())
        .map_err(|_| wrong("it is not base64".to_owned()))?;
    PublicArea::read(&bytes).map_err(|error| wrong(error.to_string()))
}

fn symmetric_key(attestation: Fields<'_>, current: Option<&Attestation>) -> Result<Attestation, ProvisioningError> {
    let empty = Map::new();
    let path = "attestation.symmetricKey.";
    let keys = Fields::new(attestation.object("symmetricKey")?.unwrap_or(&empty), path);
    let read = |name: &str, text: &str| {
        SymmetricKey::from_base64(text)
            .map_err(|error| ProvisioningError::argument_invalid(format!("`{path}{name}` can't be used: {error}")))
    };
    let keys = match (keys.text("primaryKey")?, keys.text("secondaryKey")?) {
        (Some(primary), Some(secondary)) => Keys {
            primary: read("primaryKey", primary)?,
            secondary: read("secondaryKey", secondary)?,
        },
        (None, None) => match current {
            Some(Attestation::SymmetricKey(keys)) => keys.clone(),
            _ => Keys::generate()?,
        },
        _ => {
            let text = "`attestation.symmetricKey` has one key; give both, or none to have them made";
            return Err(ProvisioningError::argument_invalid(text));
        }
    };
    Ok(Attestation::SymmetricKey(keys))
}

fn x509(kind: Kind, attestation: Fields<'_>, current: Option<&Attestation>) -> Result<Attestation, ProvisioningError> {
    let Some(x509) = attestation.object("x509")? else {
        return match current {
            Some(current) if current.kind() == "x509" => Ok(current.clone()),
            _ => Err(attestation.wrong("x509", "given, with `type` `x509`")),
        };
    };
    let x509 = Fields::new(x509, "attestation.x509.");
    let (clients, signers) = (x509.object("clientCertificates")?, x509.object("signingCertificates")?);
    match (clients, signers, kind) {
        (Some(pair), None, Kind::Individual) => {
            let before = match current {
                Some(Attestation::ClientCertificates(primary, secondary)) => (Some(primary.clone()), secondary.clone()),
                _ => (None, None),
            };
            let pair = pair_of(pair, "attestation.x509.clientCertificates.", before)?;
            Ok(Attestation::ClientCertificates(pair.0, pair.1))
        }
        (Some(_), None, Kind::Group) => Err(ProvisioningError::argument_invalid(
            "`attestation.x509.clientCertificates` is for one device; give a group `signingCertificates`",
        )),
        (None, Some(pair), _) => {
            let path = "attestation.x509.signingCertificates.";
            let before = match current {
                Some(Attestation::SigningCertificates(primary, secondary)) => {
                    let certificate = |signer: &Signer| Certificate {
                        der: signer.der.clone(),
                        details: Arc::new(signer.verifier.details().clone()),
                    };
                    (Some(certificate(primary)), secondary.as_ref().map(certificate))
                }
                _ => (None, None),
            };
            let (primary, secondary) = pair_of(pair, path, before)?;
            let secondary = secondary.map(|secondary| Signer::new(secondary, &format!("{path}secondary")));
            Ok(Attestation::SigningCertificates(
                Signer::new(primary, &format!("{path}primary"))?,
                secondary.transpose()?,
            ))
        }
        (None, None, _) => {
            let Some(pair) = x509.object("caReferences")? else {
                let expected = "`clientCertificates`, `signingCertificates` or `caReferences`";
                return Err(attestation.wrong("x509", expected));
            };
            let pair = Fields::new(pair, "attestation.x509.caReferences.");
            let primary = pair.text("primary")?;
            let primary = primary.ok_or_else(|| pair.wrong("primary", "the name of a certificate that is kept"))?;
            Ok(Attestation::Authorities(
                primary.to_owned(),
                pair.text("secondary")?.map(str::to_owned),
            ))
        }
        _ => Err(attestation.wrong("x509", "one of `clientCertificates` and `signingCertificates`")),
    }
}

type Pair = (Option<Certificate>, Option<Certificate>);

fn pair_of(
    pair: &Map<String, Value>,
    path: &str,
    before: Pair,
) -> Result<(Certificate, Option<Certificate>), ProvisioningError> {
    let fields = Fields::new(pair, path);
    let read = |name: &str, before: Option<Certificate>| match fields.object(name)? {
        None => Ok(None),
        Some(given) => certificate(given, &format!("{path}{name}."), before),
    };
    let (primary, secondary) = (read("primary", before.0)?, read("secondary", before.1)?);
    let primary = primary.ok_or_else(|| fields.wrong("primary", "given; a secondary alone can't be"))?;
    Ok((primary, secondary))
}

/// What is shown without its certificate is the one that is there.
fn certificate(
    given: &Map<String, Value>,
    path: &str,
    before: Option<Certificate>,
) -> Result<Option<Certificate>, ProvisioningError> {
    let fields = Fields::new(given, path);
    let Some(text) = fields.text("certificate")? else {
        return match (fields.get("info"), before) {
            (Some(_), Some(before)) => Ok(Some(before)),
            (Some(_), None) => Err(fields.wrong("certificate", "given: PEM, or DER in base64")),
            (None, _) => Ok(None),
        };
    };
    read_certificate(text, &format!("{path}certificate")).map(Some)
}

/// Reads a certificate that stands at `path`: PEM, or DER in base64.
pub(super) fn read_certificate(text: &str, path: &str) -> Result<Certificate, ProvisioningError> {
    let wrong = |why: String| ProvisioningError::argument_invalid(format!("`{path}` can't be used: {why}"));
    let der = if text.contains("-----BEGIN") {
        let all = certificates_from_pem(text.as_bytes()).map_err(|error| wrong(holm_net::error_chain(&error)))?;
        all.into_iter().next().ok_or_else(|| wrong("it is empty".to_owned()))?
    } else {
        let bare: String = text
            .chars()
            .filter(|character| !character.is_ascii_whitespace())
            .collect();
        let bytes = STANDARD
            .decode(bare)
            .map_err(|_| wrong("it is neither PEM nor base64".to_owned()))?;
        // What tools make of a file in PEM: base64 of the text.
        match certificates_from_pem(&bytes) {
            Ok(all) if bytes.starts_with(b"-----BEGIN") => {
                all.into_iter().next().ok_or_else(|| wrong("it is empty".to_owned()))?
            }
            _ => CertificateDer::from(bytes),
        }
    };
    let details = CertificateDetails::read(&der).map_err(|error| wrong(holm_net::error_chain(&error)))?;
    let details = Arc::new(details);
    Ok(Certificate { der, details })
}

/// How a device proves itself, as a document.
pub(super) fn write_attestation(attestation: &Attestation, shown: Shown) -> Value {
    let pair = |name: &str, primary: Value, secondary: Option<Value>| {
        let mut pair = json!({ "primary": primary });
        if let (Value::Object(pair), Some(secondary)) = (&mut pair, secondary) {
            pair.insert("secondary".to_owned(), secondary);
        }
        json!({ "type": "x509", "x509": { name: pair } })
    };
    match attestation {
        Attestation::SymmetricKey(keys) if shown == Shown::Whole => json!({
            "type": "symmetricKey",
            "symmetricKey": {
                "primaryKey": keys.primary.to_base64().expose(),
                "secondaryKey": keys.secondary.to_base64().expose(),
            },
        }),
        Attestation::SymmetricKey(_) => json!({ "type": "symmetricKey", "symmetricKey": {} }),
        Attestation::ClientCertificates(primary, secondary) => {
            let one = |certificate: &Certificate| write_certificate(&certificate.der, &certificate.details, shown);
            pair("clientCertificates", one(primary), secondary.as_ref().map(one))
        }
        Attestation::SigningCertificates(primary, secondary) => {
            let one = |signer: &Signer| write_certificate(&signer.der, signer.verifier.details(), shown);
            pair("signingCertificates", one(primary), secondary.as_ref().map(one))
        }
        Attestation::Authorities(primary, secondary) => pair(
            "caReferences",
            json!(primary),
            secondary.as_ref().map(|name| json!(name)),
        ),
        // What is public of a key may be shown to anybody.
        Attestation::Tpm(tpm) => json!({
            "type": "tpm",
            "tpm": {
                "endorsementKey": STANDARD.encode(tpm.endorsement_key.wire()),
                "storageRootKey": tpm.storage_root_key.as_ref().map(|key| STANDARD.encode(key.wire())),
            },
        }),
    }
}

fn write_certificate(der: &CertificateDer<'_>, details: &CertificateDetails, shown: Shown) -> Value {
    let mut document = json!({ "info": certificate_info(details) });
    if let (Value::Object(members), Shown::Whole) = (&mut document, shown) {
        members.insert("certificate".to_owned(), json!(STANDARD.encode(der)));
    }
    document
}

/// What a certificate says of itself, as published.
pub(super) fn certificate_info(details: &CertificateDetails) -> Value {
    json!({
        "subjectName": details.subject(),
        "sha1Thumbprint": details.info.sha1.to_ascii_uppercase(),
        "sha256Thumbprint": details.info.sha256.to_ascii_uppercase(),
        "issuerName": details.issuer(),
        "notBeforeUtc": details.info.not_before,
        "notAfterUtc": details.info.not_after,
        "serialNumber": details.serial_number,
        "version": details.version,
    })
}
