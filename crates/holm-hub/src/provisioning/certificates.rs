//! Certificates of authorities, kept apart from enrollments, which name them (`caReferences`): so one authority stands in one
//! place, and is changed there.
//!
//! ```text
//! given --> not verified: counts for nobody --code, a certificate for that code signed by its key--> verified
//!       '--verified, in the word of who gives it---------------------------------------------------^
//! ```
//!
//! - An enrollment may name verified ones. One that is removed lets nobody in by it any more.
//! - They are in memory as they are on disk: a device that registers shows a chain, and each may be its root.

use std::sync::{Arc, PoisonError, RwLock};

use holm_identity::CertificateDetails;
use holm_model::{ProvisioningCode, ProvisioningError, ServiceError, Timestamp, etag};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use super::Provisioning;
use super::attestation::{certificate_info, read_certificate};
use super::enrollment::{Certificate, Signer};
use super::registration::new_etag;
use crate::random;
use crate::storage::{KeptCertificate, Transaction};

/// The most certificates. Source: `hub-service-api.md` §9.
pub const MAX_CERTIFICATES: usize = 25;
/// The longest name.
const MAX_NAME: usize = 64;

/// What a certificate is to be; what is not said stays.
#[derive(Clone, Debug, Default)]
pub struct CertificateWish {
    /// The certificate: PEM, or DER in base64. Another one has to be verified anew.
    pub certificate: Option<String>,
    /// That its key is its owner's, in the word of who gives it.
    pub is_verified: Option<bool>,
}

/// All certificates. What is read is one state of them.
#[derive(Debug, Default)]
pub(super) struct Certificates(RwLock<Arc<Vec<(KeptCertificate, Signer)>>>);

impl Certificates {
    pub(super) fn new(stored: Vec<KeptCertificate>) -> Self {
        let certificates = Self::default();
        certificates.replace(stored);
        certificates
    }

    /// The verified certificate of this name.
    pub(super) fn signer(&self, name: &str) -> Option<Signer> {
        let all = self.all();
        let mut verified = all.iter().filter(|(kept, _)| kept.is_verified);
        let found = verified.find(|(kept, _)| kept.name.eq_ignore_ascii_case(name));
        found.map(|(_, signer)| signer.clone())
    }

    /// The names, in lower case, of the verified certificates of this subject, in DER.
    pub(super) fn named(&self, subject: &[u8]) -> Vec<String> {
        let all = self.all();
        let verified = all.iter().filter(|(kept, _)| kept.is_verified);
        let found = verified.filter(|(_, signer)| signer.verifier.details().subject_der() == subject);
        found.map(|(kept, _)| kept.name.to_ascii_lowercase()).collect()
    }

    fn all(&self) -> Arc<Vec<(KeptCertificate, Signer)>> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn find(&self, name: &str) -> Option<(KeptCertificate, Signer)> {
        let all = self.all();
        all.iter()
            .find(|(kept, _)| kept.name.eq_ignore_ascii_case(name))
            .cloned()
    }

    fn replace(&self, stored: Vec<KeptCertificate>) {
        let read = |kept: KeptCertificate| match signer(&kept) {
            Ok(signer) => Some((kept, signer)),
            Err(error) => {
                tracing::error!(certificate = kept.name, %error, "a certificate that was kept can't be used");
                None
            }
        };
        let all = stored.into_iter().filter_map(read).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(all);
    }
}

fn signer(kept: &KeptCertificate) -> Result<Signer, ProvisioningError> {
    let der = CertificateDer::from(kept.der.clone());
    let details = CertificateDetails::read(&der)
        .map_err(|error| ProvisioningError::argument_invalid(holm_net::error_chain(&error)))?;
    let details = Arc::new(details);
    Signer::new(Certificate { der, details }, "certificate")
}

impl Provisioning {
    /// The certificates that are kept.
    #[must_use]
    pub fn certificates(&self) -> Vec<Value> {
        self.0
            .certificates
            .all()
            .iter()
            .map(|(kept, signer)| shown(kept, signer))
            .collect()
    }

    /// A certificate that is kept.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn certificate(&self, name: &str) -> Result<Value, ProvisioningError> {
        let (kept, signer) = self.0.certificates.find(name).ok_or_else(|| not_kept(name))?;
        Ok(shown(&kept, &signer))
    }

    /// Keeps a certificate, or (with `if_match`) changes one.
    ///
    /// # Errors
    /// `ArgumentInvalid`, `Conflict`, `NotFound`, `PreconditionFailed`.
    pub async fn put_certificate(
        &self,
        name: &str,
        wish: CertificateWish,
        if_match: Option<String>,
    ) -> Result<Value, ProvisioningError> {
        check_name(name)?;
        let given = match &wish.certificate {
            Some(text) => Some(
                Signer::new(read_certificate(text, "certificate")?, "certificate")?
                    .der
                    .to_vec(),
            ),
            None => None,
        };
        let name = name.to_owned();
        self.change_certificate(name, if_match, move |name, all, current, now| {
            let (before, what) = match current {
                Some(current) => (current, "update"),
                None => {
                    if all.len() >= MAX_CERTIFICATES {
                        let text =
                            format!("{MAX_CERTIFICATES} certificates are kept, the most that can be; remove one first");
                        return Err(ProvisioningError::argument_invalid(text));
                    }
                    let der = given.clone();
                    let der = der.ok_or_else(|| ProvisioningError::argument_invalid("`certificate` is missing"))?;
                    let fresh = KeptCertificate {
                        name: name.to_owned(),
                        der,
                        is_verified: false,
                        code: None,
                        etag: 0,
                        created: now,
                        updated: now,
                    };
                    (fresh, "create")
                }
            };
            let der = given.unwrap_or_else(|| before.der.clone());
            let is_same = der == before.der;
            let next = KeptCertificate {
                is_verified: wish.is_verified.unwrap_or(before.is_verified && is_same),
                code: before.code.clone().filter(|_| is_same),
                der,
                ..before
            };
            Ok((Some(next), what))
        })
        .await
    }

    /// Removes a certificate: who is let in by it alone no longer is.
    ///
    /// # Errors
    /// `NotFound`, `PreconditionFailed`.
    pub async fn remove_certificate(&self, name: &str, if_match: Option<String>) -> Result<(), ProvisioningError> {
        let if_match = if_match.or_else(|| Some("*".to_owned()));
        let removed = self.change_certificate(name.to_owned(), if_match, |_, _, _, _| Ok((None, "delete")));
        removed.await.map(drop)
    }

    /// Makes the code that is to be the common name of a certificate which its key has signed.
    ///
    /// # Errors
    /// `NotFound`, `PreconditionFailed`.
    pub async fn verification_code(&self, name: &str, if_match: Option<String>) -> Result<Value, ProvisioningError> {
        let code: [u8; 16] = random::bytes()?;
        let code = format!("{:032X}", u128::from_be_bytes(code));
        let shown = code.clone();
        let if_match = if_match.or_else(|| Some("*".to_owned()));
        let changed = self.change_certificate(name.to_owned(), if_match, move |name, _, current, _| {
            let current = current.ok_or_else(|| not_kept(name))?;
            let code = Some(code);
            Ok((Some(KeptCertificate { code, ..current }), "code"))
        });
        let mut document = changed.await?;
        document["verificationCode"] = json!(shown);
        Ok(document)
    }

    /// Takes a certificate for the code as proof that the key is its owner's.
    ///
    /// # Errors
    /// `ArgumentInvalid` where it is none; `NotFound`, `PreconditionFailed`.
    pub async fn verify_certificate(
        &self,
        name: &str,
        proof: &str,
        if_match: Option<String>,
    ) -> Result<Value, ProvisioningError> {
        let proof = read_certificate(proof, "certificate")?;
        let (kept, signer) = self.0.certificates.find(name).ok_or_else(|| not_kept(name))?;
        let wrong = |why: String| ProvisioningError::argument_invalid(format!("`{name}` is not verified: {why}"));
        let code = kept
            .code
            .ok_or_else(|| wrong("it has no code; ask for one first".to_owned()))?;
        let named = proof.details.info.subject_common_name.as_deref().unwrap_or_default();
        if named != code {
            return Err(wrong(format!(
                "the common name of the certificate is `{named}` and not the code"
            )));
        }
        let vouched = signer
            .verifier
            .vouches_for(std::slice::from_ref(&proof.der), self.0.clock.now());
        vouched.map_err(|error| wrong(holm_net::error_chain(&error)))?;
        // The code belongs to the certificate: another one that came meanwhile has none.
        let if_match = if_match.or_else(|| Some("*".to_owned()));
        self.change_certificate(name.to_owned(), if_match, move |name, _, current, _| {
            let current = current.filter(|current| current.code.as_ref() == Some(&code));
            let current = current.ok_or_else(|| {
                let text = format!("`{name}` has got another code meanwhile; sign that one");
                ProvisioningError::new(ProvisioningCode::PreconditionFailed, text)
            })?;
            let next = KeptCertificate {
                is_verified: true,
                code: None,
                ..current
            };
            Ok((Some(next), "verify"))
        })
        .await
    }

    /// Changes what is kept under a name: `change` says what it becomes, `None` for nothing, and what that is called in the audit
    /// log.
    async fn change_certificate(
        &self,
        name: String,
        if_match: Option<String>,
        change: impl FnOnce(
            &str,
            &[KeptCertificate],
            Option<KeptCertificate>,
            Timestamp,
        ) -> Result<(Option<KeptCertificate>, &'static str), ProvisioningError>
        + Send
        + 'static,
    ) -> Result<Value, ProvisioningError> {
        let (now, shared) = (self.0.clock.now(), Arc::clone(&self.0));
        let changed = self.0.repository.change_then(
            move |transaction| {
                let done = apply(transaction, &name, if_match.as_deref(), now, change)?;
                Ok((done, transaction.kept_certificates()?))
            },
            move |(_, all)| shared.certificates.replace(all.clone()),
        );
        match changed.await?.0? {
            Some(kept) => Ok(shown(&kept, &signer(&kept)?)),
            None => Ok(Value::Null),
        }
    }
}

type Applied = Result<Option<KeptCertificate>, ProvisioningError>;

fn apply(
    transaction: &Transaction<'_>,
    name: &str,
    if_match: Option<&str>,
    now: Timestamp,
    change: impl FnOnce(
        &str,
        &[KeptCertificate],
        Option<KeptCertificate>,
        Timestamp,
    ) -> Result<(Option<KeptCertificate>, &'static str), ProvisioningError>,
) -> Result<Applied, ServiceError> {
    let all = transaction.kept_certificates()?;
    let current = all.iter().find(|kept| kept.name.eq_ignore_ascii_case(name)).cloned();
    match (&current, if_match) {
        (None, Some(_)) => return Ok(Err(not_kept(name))),
        (Some(_), None) => {
            let text = format!("there is a certificate `{name}` already; send `If-Match` to change it");
            return Ok(Err(ProvisioningError::new(ProvisioningCode::Conflict, text)));
        }
        (Some(current), Some(wanted)) if !etag::matches(wanted, &etag_text(current)) => {
            let text = format!(
                "`{name}` was changed by somebody else: its etag is `{}`; read it and try again",
                etag_text(current)
            );
            return Ok(Err(ProvisioningError::new(ProvisioningCode::PreconditionFailed, text)));
        }
        _ => {}
    }
    let (next, what) = match change(name, &all, current, now) {
        Ok(changed) => changed,
        Err(refused) => return Ok(Err(refused)),
    };
    let operation = format!("certificate.{what}");
    let Some(mut next) = next else {
        transaction.remove_kept_certificate(name)?;
        transaction.record(&operation, name, None, now)?;
        return Ok(Ok(None));
    };
    (next.etag, next.updated) = (new_etag()?, now);
    transaction.put_kept_certificate(&next)?;
    transaction.record(&operation, &next.name, Some(&etag_text(&next)), now)?;
    Ok(Ok(Some(next)))
}

fn shown(kept: &KeptCertificate, signer: &Signer) -> Value {
    json!({
        "name": kept.name,
        "info": certificate_info(signer.verifier.details()),
        "isVerified": kept.is_verified,
        "etag": etag_text(kept),
        "createdDateTimeUtc": kept.created,
        "lastUpdatedDateTimeUtc": kept.updated,
    })
}

fn etag_text(kept: &KeptCertificate) -> String {
    etag::of_counter(kept.etag.unsigned_abs())
}

fn check_name(name: &str) -> Result<(), ProvisioningError> {
    let is_good = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
    if (1..=MAX_NAME).contains(&name.len()) && name.chars().all(is_good) {
        return Ok(());
    }
    let shown: String = name.chars().take(100).collect();
    Err(ProvisioningError::argument_invalid(format!(
        "`{shown}` can't be the name of a certificate; give 1 to {MAX_NAME} letters, digits, `-`, `_` or `.`"
    )))
}

fn not_kept(name: &str) -> ProvisioningError {
    ProvisioningError::not_found(format!("no certificate is kept as `{name}`"))
}
