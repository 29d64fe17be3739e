//! Enrollments as back ends make, read, change and delete them.
//!
//! A change is decided within its transaction on the enrollment as it is there, and recorded in it; groups change in memory after
//! the commit.
//!
//! Source: `hub-service-api.md` §7.

use std::sync::Arc;

use holm_model::{ProvisioningCode, ProvisioningError, RegistrationId, ServiceError};
use serde_json::{Map, Value};

use super::attestation;
use super::document::{self, Shown};
use super::enrollment::check_initial_twin;
use super::{Attestation, Enrollment, Kind, MAX_GROUPS, Provisioning, check_etag, is_full, moving, registration};
use crate::storage::Transaction;

/// The most enrollments that one request changes. Source: `hub-service-api.md` §7.
pub const MAX_BULK: usize = 10;

/// What a document is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BulkMode {
    /// Make new ones.
    Create,
    /// Change what is there.
    Update,
    /// Change what is there, if its etag is that of the document.
    UpdateIfMatch,
    /// Delete.
    Delete,
}

impl Provisioning {
    /// Makes or (with `if_match`) changes an enrollment; `id` is that of the path, where there is one.
    ///
    /// # Errors
    /// `Conflict`, `NotFound`, `PreconditionFailed`, `ArgumentInvalid`.
    pub async fn put(
        &self,
        kind: Kind,
        id: Option<RegistrationId>,
        document: Map<String, Value>,
        if_match: Option<String>,
    ) -> Result<Value, ProvisioningError> {
        let id = check_id(kind, id, &document)?;
        let (now, shared) = (self.0.clock.now(), Arc::clone(&self.0));
        let change = move |transaction: &Transaction<'_>| -> Result<Result<_, ProvisioningError>, ServiceError> {
            let current = transaction.enrollment(kind, &id)?;
            if let Err(refused) = check_change(kind, &id, current.as_ref(), if_match.as_deref()) {
                return Ok(Err(refused));
            }
            if current.is_none() && kind == Kind::Group && transaction.enrollment_count(kind)? >= MAX_GROUPS {
                let text = format!("there are {MAX_GROUPS} groups, the most that can be; delete one first");
                return Ok(Err(ProvisioningError::argument_invalid(text)));
            }
            let mut enrollment = match document::read(kind, id, &document, current.as_ref()) {
                Ok(enrollment) => enrollment,
                Err(refused) => return Ok(Err(refused)),
            };
            if let Some(unknown) = enrollment.hubs.iter().find(|hub| shared.hubs.find(hub).is_none()) {
                let hubs = shared.hubs.all();
                let known: Vec<_> = hubs.iter().map(|hub| format!("`{}`", hub.host)).collect();
                let text = format!(
                    "`iotHubs` names `{unknown}`, which is not linked; give some of {}",
                    known.join(", ")
                );
                return Ok(Err(ProvisioningError::argument_invalid(text)));
            }
            if let Attestation::Authorities(primary, secondary) = &enrollment.attestation {
                let mut named = std::iter::once(primary).chain(secondary);
                if let Some(missing) = named.find(|name| shared.certificates.signer(name).is_none()) {
                    let text = format!(
                        "`attestation.x509.caReferences` names `{missing}`, which is no verified certificate; `holm dps certificate list` shows them"
                    );
                    return Ok(Err(ProvisioningError::argument_invalid(text)));
                }
            }
            if let Err(refused) = check_twin(&enrollment, current.as_ref()) {
                return Ok(Err(refused));
            }
            let is_new = current.is_none();
            enrollment.etag = registration::new_etag()?;
            enrollment.created = current.map_or(now, |current| current.created);
            enrollment.updated = now;
            transaction.put_enrollment(&enrollment)?;
            let what = if is_new { "create" } else { "update" };
            record(transaction, &enrollment, what, now)?;
            Ok(Ok((enrollment.clone(), shown(transaction, &enrollment)?)))
        };
        let shared = Arc::clone(&self.0);
        let done = self.0.repository.change_then(change, move |done| {
            if let Ok((enrollment, _)) = done {
                shared.groups.put(enrollment);
                for (member, name) in of_others(enrollment) {
                    tracing::warn!(enrollment = %enrollment.id, member, common_name = name, "a certificate of an enrollment lets nobody register: a device registers under the common name of its certificate");
                }
            }
        });
        done.await?.map(|(_, document)| document)
    }

    /// An enrollment.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get(&self, kind: Kind, id: RegistrationId) -> Result<Value, ProvisioningError> {
        let missing = not_found(kind, &id);
        let found = self.0.repository.read(move |view| match view.enrollment(kind, &id)? {
            Some(enrollment) => Ok(Some(shown(view, &enrollment)?)),
            None => Ok(None),
        });
        found.await?.ok_or(missing)
    }

    /// How the devices of an enrollment prove themselves, with its keys.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn attestation(&self, kind: Kind, id: RegistrationId) -> Result<Value, ProvisioningError> {
        let missing = not_found(kind, &id);
        let found = self.0.repository.read(move |view| view.enrollment(kind, &id)).await?;
        let found = found.ok_or(missing)?;
        Ok(attestation::write_attestation(&found.attestation, Shown::Whole))
    }

    /// Deletes an enrollment; what became of its devices stays known, and they stay devices.
    ///
    /// # Errors
    /// `NotFound`, `PreconditionFailed`.
    pub async fn remove(
        &self,
        kind: Kind,
        id: RegistrationId,
        if_match: Option<String>,
    ) -> Result<(), ProvisioningError> {
        let (now, shared) = (self.0.clock.now(), Arc::clone(&self.0));
        let removed = self.0.repository.change_then(
            move |transaction| {
                let Some(current) = transaction.enrollment(kind, &id)? else {
                    return Ok(Err(not_found(kind, &id)));
                };
                if let Err(refused) = check_etag(&current.etag_text(), if_match.as_deref(), &id) {
                    return Ok(Err(refused));
                }
                transaction.remove_enrollment(kind, &id)?;
                record(transaction, &current, "delete", now)?;
                Ok(Ok(id))
            },
            move |removed: &Result<RegistrationId, ProvisioningError>| {
                if let (Ok(id), Kind::Group) = (removed, kind) {
                    shared.groups.remove(id);
                }
            },
        );
        removed.await?.map(drop)
    }

    /// Carries out one of the changes of a bulk.
    ///
    /// # Errors
    /// As [`Provisioning::put`] and [`Provisioning::remove`].
    pub async fn bulk_item(
        &self,
        kind: Kind,
        mode: BulkMode,
        document: Map<String, Value>,
    ) -> Result<(), ProvisioningError> {
        let etag = document
            .get("etag")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let if_match = match mode {
            BulkMode::Create => None,
            BulkMode::Update => Some("*".to_owned()),
            BulkMode::UpdateIfMatch => Some(etag),
            BulkMode::Delete => {
                let id = document::id_of(kind, &document)?;
                let if_match = Some(etag).filter(|etag| !etag.is_empty());
                return self.remove(kind, id, if_match).await;
            }
        };
        self.put(kind, None, document, if_match).await.map(drop)
    }

    /// The enrollments of a kind behind `after`, at most `most`, and the id behind which others are.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn list(
        &self,
        kind: Kind,
        after: String,
        most: u32,
    ) -> Result<(Vec<Value>, Option<String>), ProvisioningError> {
        let read = self.0.repository.read(move |view| {
            let found = view.enrollments(kind, &after, most)?;
            let next = is_full(found.len(), most).then(|| found.last().map(|last| last.id.key().to_owned()));
            let documents: Result<Vec<_>, _> = found.iter().map(|enrollment| shown(view, enrollment)).collect();
            Ok((documents?, next.flatten()))
        });
        Ok(read.await?)
    }
}

/// Records who changed an enrollment: `enrollment.create`, `enrollmentGroup.delete`, …
fn record(
    transaction: &Transaction<'_>,
    enrollment: &Enrollment,
    what: &str,
    now: holm_model::Timestamp,
) -> Result<(), ServiceError> {
    let operation = format!("{}.{what}", enrollment.kind.name());
    transaction.record(&operation, &enrollment.id, Some(&enrollment.etag_text()), now)
}

fn check_id(
    kind: Kind,
    id: Option<RegistrationId>,
    document: &Map<String, Value>,
) -> Result<RegistrationId, ProvisioningError> {
    let member = kind.id_member();
    match (id, document.get(member).filter(|value| !value.is_null())) {
        (Some(id), None) => Ok(id),
        (None, _) => document::id_of(kind, document),
        (Some(id), Some(_)) => {
            let said = document::id_of(kind, document)?;
            if said == id {
                // The spelling of the body: SDKs that lower the path keep it there.
                return Ok(said);
            }
            Err(ProvisioningError::argument_invalid(format!(
                "`{member}` in the body is `{said}` and in the path `{id}`; give the same id"
            )))
        }
    }
}

fn check_change(
    kind: Kind,
    id: &RegistrationId,
    current: Option<&Enrollment>,
    if_match: Option<&str>,
) -> Result<(), ProvisioningError> {
    match (current, if_match) {
        (None, None) => Ok(()),
        (Some(_), None) => {
            let text = format!(
                "there is an {} `{id}` already; send `If-Match` to change it",
                noun(kind)
            );
            Err(ProvisioningError::new(ProvisioningCode::Conflict, text))
        }
        (None, Some(_)) => Err(not_found(kind, id)),
        (Some(current), Some(_)) => check_etag(&current.etag_text(), if_match, id),
    }
}

/// The initial twin that comes to an enrollment must be one that a twin can hold. One that is there stays, whatever is changed
/// beside it: an earlier version took it, and the enrollment must still be one that can be disabled.
fn check_twin(enrollment: &Enrollment, current: Option<&Enrollment>) -> Result<(), ProvisioningError> {
    let before = current.and_then(|current| current.initial_twin.as_ref());
    let given = enrollment.initial_twin.as_ref();
    given
        .filter(|given| before != Some(given))
        .map_or(Ok(()), check_initial_twin)
}

/// The certificates of an enrollment whose common name is not its registration id, by which no device can register. The original takes
/// them, and tools that are written for it make such enrollments; so they are told of and not refused.
fn of_others(enrollment: &Enrollment) -> Vec<(&'static str, &str)> {
    let Attestation::ClientCertificates(primary, secondary) = &enrollment.attestation else {
        return Vec::new();
    };
    [("primary", Some(primary)), ("secondary", secondary.as_ref())]
        .into_iter()
        .filter_map(|(member, certificate)| {
            let name = certificate?
                .details
                .info
                .subject_common_name
                .as_deref()
                .unwrap_or_default();
            (!name.eq_ignore_ascii_case(enrollment.id.as_str())).then_some((member, name))
        })
        .collect()
}

/// An enrollment as back ends read it, with the state of its device if it is of one.
fn shown(view: &crate::storage::View<'_>, enrollment: &Enrollment) -> Result<Value, ServiceError> {
    let registration = match enrollment.kind {
        Kind::Individual => {
            let registration = moving::registration_now(view, &enrollment.id)?;
            registration.map(|registration| registration.to_json())
        }
        Kind::Group => None,
    };
    Ok(document::write(enrollment, Shown::Public, registration))
}

const fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Individual => "enrollment",
        Kind::Group => "enrollment group",
    }
}

pub(super) fn not_found(kind: Kind, id: &RegistrationId) -> ProvisioningError {
    ProvisioningError::not_found(format!("there is no {} `{id}`", noun(kind)))
}

impl Enrollment {
    /// The form in which it is stored: as published, with its secrets.
    pub(crate) fn to_stored(&self) -> Value {
        document::write(self, Shown::Whole, None)
    }

    /// Reads the form in which it is stored; `None` for what is none.
    pub(crate) fn from_stored(kind: Kind, text: &str) -> Option<Self> {
        let Ok(Value::Object(document)) = serde_json::from_str(text) else {
            return None;
        };
        let id = document::id_of(kind, &document).ok()?;
        document::read(kind, id, &document, None).ok()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use holm_identity::CertificateAuthority;
    use holm_model::Timestamp;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_certificate_that_names_another_than_its_device_is_told_of() {
        let start = Timestamp::from_unix_seconds(1_800_000_000);
        let maker = CertificateAuthority::create("somebody", 30, start).unwrap();
        let of = |name: &str| {
            let leaf = maker.issue_client(name, &[""; 0], 10, start).unwrap();
            json!({ "certificate": STANDARD.encode(&leaf.chain()[0]) })
        };
        let document = json!({ "registrationId": "Pump-1", "attestation": { "type": "x509", "x509": {
            "clientCertificates": { "primary": of("pump-1"), "secondary": of("pump-2") } } } });
        let enrollment = Enrollment::from_stored(Kind::Individual, &document.to_string()).unwrap();

        let told = of_others(&enrollment);

        assert_eq!(told, [("secondary", "pump-2")]);
    }

    #[test]
    fn an_initial_twin_that_an_earlier_version_took_stays_while_something_else_changes() {
        let stored = |twin: Value| {
            let document = json!({ "registrationId": "r", "initialTwin": twin,
                "attestation": { "type": "symmetricKey", "symmetricKey": {} } });
            Enrollment::from_stored(Kind::Individual, &document.to_string()).unwrap()
        };
        let (bad, worse) = (json!({ "tags": { "a.b": 1 } }), json!({ "tags": { "a.b": 2 } }));

        let disabled = check_twin(&stored(bad.clone()), Some(&stored(bad.clone())));
        let changed = check_twin(&stored(worse), Some(&stored(bad.clone())));
        let new = check_twin(&stored(bad), None);

        assert!(disabled.is_ok(), "{disabled:?}");
        for refused in [changed, new] {
            assert!(refused.unwrap_err().message.contains("`initialTwin.tags`"));
        }
    }
}
