//! Keys and certificates on disk: there, readable, matching, and valid for a while yet.

use std::path::{Path, PathBuf};

use holm_identity::certificate::{CertificateInfo, MAX_PEM_BYTES, certificates_from_pem};
use holm_identity::{CertificateAuthority, private_file};
use holm_model::Timestamp;
use holm_net::error_chain;

use super::{Check, Group, Looking, Subject, Verdict};
use crate::config::{DeviceProof, EdgeCa, EdgeConfig};
use crate::security::read_device_proof;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "key-pairs-read",
        group: Group::Certificates,
        about: "the device's key, or its certificate with its key, can be read",
        look: device_proof,
    },
    Check {
        id: "identity-certificate-expiry",
        group: Group::Certificates,
        about: "the device's certificate is valid for a while yet",
        look: identity_expiry,
    },
    Check {
        id: "certs-match-private-keys",
        group: Group::Certificates,
        about: "the edge's authority and its key belong together",
        look: authority_pair,
    },
    Check {
        id: "local-ca-certificate-expiry",
        group: Group::Certificates,
        about: "the edge's authority is valid for a while yet",
        look: authority_expiry,
    },
    Check {
        id: "certs-read",
        group: Group::Certificates,
        about: "the operator's own roots can be read, and are valid",
        look: trust_bundle,
    },
];

/// The checks that an edge must pass to start and work. Its own authority it replaces itself, and without its hub it works too.
pub(super) fn before_start(subject: &Subject) -> impl Iterator<Item = &'static Check> {
    let is_given = subject
        .config()
        .is_ok_and(|config| matches!(config.edge_ca, EdgeCa::Files { .. }));
    CHECKS
        .iter()
        .filter(move |check| is_given || check.id != "local-ca-certificate-expiry")
        .filter(|check| check.id != "identity-certificate-expiry")
}

/// What is left when somebody should look after it; the published figure.
const WARN_DAYS: i64 = 7;

fn at_once(verdict: Verdict) -> Looking<'static> {
    Box::pin(std::future::ready(verdict))
}

fn device_proof(subject: &Subject) -> Looking<'_> {
    let proof = match subject.config() {
        Ok(config) => &config.proof,
        Err(verdict) => return at_once(verdict),
    };
    at_once(match (read_device_proof(proof), proof) {
        (Ok(_), _) => Verdict::Fine(None),
        (Err(error), DeviceProof::Certificate(files)) => Verdict::error(
            format!(
                "`{}` and `{}`: {}",
                files.cert.display(),
                files.pk.display(),
                error_chain(&error)
            ),
            "give the pair that was made together, as PEM that the edge's user may read, the key with mode 0600, in `identity_cert` and `identity_pk`",
        ),
        (Err(error), _) => Verdict::error(
            error_chain(&error),
            "give a file with the key in base64, with mode 0600, that this user may read, in `provisioning.authentication.device_id_pk.uri`",
        ),
    })
}

fn identity_expiry(subject: &Subject) -> Looking<'_> {
    let files = match subject.config().map(|config| &config.proof) {
        Ok(DeviceProof::Certificate(files)) => files,
        Ok(_) => return at_once(Verdict::Fine(Some("the device has a key".to_owned()))),
        Err(verdict) => return at_once(verdict),
    };
    at_once(match read(&files.cert).as_deref() {
        Ok([info, ..]) => validity(info, subject.now, "renew it: put the new pair in place of both files"),
        Ok([]) => Verdict::Skipped(format!("`{}` holds no certificate", files.cert.display())),
        Err(reason) => Verdict::error(reason.clone(), "see `key-pairs-read`"),
    })
}

/// The files of the authority in use, and whether the operator gave it.
fn authority(config: &EdgeConfig) -> (PathBuf, PathBuf, bool) {
    match &config.edge_ca {
        EdgeCa::Files { cert, pk } => (cert.clone(), pk.clone(), true),
        EdgeCa::QuickStart { .. } => {
            let directory = config.data.join("certificates");
            (directory.join("edge-ca.pem"), directory.join("edge-ca.key.pem"), false)
        }
    }
}

fn authority_pair(subject: &Subject) -> Looking<'_> {
    let config = match subject.config() {
        Ok(config) => config,
        Err(verdict) => return at_once(verdict),
    };
    let (cert, key, is_given) = authority(config);
    if !is_given && !cert.exists() {
        return at_once(Verdict::Skipped(
            "the edge makes its authority at the first start".to_owned(),
        ));
    }
    at_once(match CertificateAuthority::load(&cert, &key) {
        Ok(_) => Verdict::Fine(None),
        Err(error) => Verdict::error(
            format!("`{}` and `{}`: {}", cert.display(), key.display(), error_chain(&error)),
            if is_given {
                "give the pair that was made together in `edge_ca.cert` and `edge_ca.pk`, readable for the edge's user"
            } else {
                "remove both files and start the edge: it makes others; give downstream devices the new one (`holm edge ca`)"
            },
        ),
    })
}

fn authority_expiry(subject: &Subject) -> Looking<'_> {
    let config = match subject.config() {
        Ok(config) => config,
        Err(verdict) => return at_once(verdict),
    };
    let (cert, _, is_given) = authority(config);
    if !is_given && !cert.exists() {
        return at_once(Verdict::Skipped(
            "the edge makes its authority at the first start".to_owned(),
        ));
    }
    at_once(match read(&cert).as_deref() {
        Ok([]) => Verdict::Skipped(format!("`{}` holds no certificate", cert.display())),
        Ok([info, ..]) if is_given => validity(
            info,
            subject.now,
            "make a new one and give it in `edge_ca.cert` and `edge_ca.pk`",
        ),
        Ok([info, ..]) => validity(
            info,
            subject.now,
            "start the edge, or let it run: it replaces its own authority in time",
        ),
        Err(reason) => Verdict::error(reason.clone(), "see `certs-match-private-keys`"),
    })
}

fn trust_bundle(subject: &Subject) -> Looking<'_> {
    let path = match subject.config().map(|config| config.trust_bundle_cert.as_ref()) {
        Ok(Some(path)) => path,
        Ok(None) => return at_once(Verdict::Fine(Some("`trust_bundle_cert` gives none".to_owned()))),
        Err(verdict) => return at_once(verdict),
    };
    let all = match read(path) {
        Ok(all) => all,
        Err(reason) => {
            return at_once(Verdict::error(
                reason,
                "give a file in PEM that the edge's user may read in `trust_bundle_cert`",
            ));
        }
    };
    let soonest = all.iter().min_by_key(|info| info.not_after.unix_seconds());
    at_once(soonest.map_or(Verdict::Fine(None), |info| {
        validity(
            info,
            subject.now,
            "put its successor into the file of `trust_bundle_cert`",
        )
    }))
}

fn read(path: &Path) -> Result<Vec<CertificateInfo>, String> {
    let told = |error: &(dyn std::error::Error + 'static)| format!("`{}`: {}", path.display(), error_chain(error));
    let bytes = private_file::read_public(path, MAX_PEM_BYTES).map_err(|error| told(&error))?;
    let all = certificates_from_pem(&bytes).map_err(|error| told(&error))?;
    let infos: Result<Vec<_>, _> = all.iter().map(CertificateInfo::read).collect();
    infos.map_err(|error| told(&error))
}

/// Whether a certificate is valid now, and for how long.
pub(super) fn validity(info: &CertificateInfo, now: Timestamp, remedy: &str) -> Verdict {
    let name = info.subject_common_name.as_deref().unwrap_or("without a name");
    let days = (info.not_after.unix_seconds() - now.unix_seconds()) / 86_400;
    if now < info.not_before {
        return Verdict::error(
            format!(
                "certificate `{name}` is valid from {} on, and this device's clock says {now}",
                info.not_before
            ),
            "set the clock",
        );
    }
    if !info.is_valid_at(now) {
        return Verdict::error(format!("certificate `{name}` ended at {}", info.not_after), remedy);
    }
    if days < WARN_DAYS {
        return Verdict::warning(
            format!("certificate `{name}` ends at {}, in {days} days", info.not_after),
            remedy,
        );
    }
    Verdict::Fine(Some(format!("`{name}` is valid for {days} days")))
}
