//! The record of a registration: as it begins, what it is shown, and as it ends where nothing of the device changes.

use holm_model::{ProvisioningCode, ServiceError, Timestamp};
use serde_json::{Map, Value, json};

use super::Assigned;
use crate::provisioning::attest::Attested;
use crate::provisioning::attestation::certificate_info;
use crate::provisioning::enrollment::Enrollment;
use crate::provisioning::ownership::not_its_own;
use crate::provisioning::registration::{Assignment, Registration, Status, Substatus};
use crate::storage::Transaction;

/// The record as it begins: what it was, by what it is proved now.
pub(super) fn begun(
    attested: &Attested,
    enrollment: &Enrollment,
    before: Option<&Registration>,
    now: Timestamp,
) -> Registration {
    let group = enrollment.group();
    let mut proof = match &attested.certificate {
        Some(certificate) => json!({ "x509": { "certificateInfo": certificate_info(certificate) } }),
        None if attested.sealed.is_some() => json!({ "tpm": { "authenticationKey": attested.sealed } }),
        None => json!({ "symmetricKey": {} }),
    };
    if let (Some(group), Some(Value::Object(of_kind))) =
        (group, proof.as_object_mut().and_then(|proof| proof.values_mut().next()))
    {
        of_kind.insert("enrollmentGroupId".to_owned(), json!(group.as_str()));
    }
    Registration {
        id: before.map_or_else(|| attested.id.clone(), |before| before.id.clone()),
        group: group.map(|group| group.key().to_owned()),
        status: Status::Assigned,
        substatus: before.map_or(Substatus::Initial, |before| before.substatus),
        assignment: before.and_then(|before| before.assignment.clone()),
        error: None,
        payload: None,
        proof,
        etag: before.map_or(0, |before| before.etag),
        created: before.map_or(now, |before| before.created),
        updated: now,
    }
}

/// Shows a device the certificate that was made for it.
pub(super) fn show_issued(registration: &mut Registration, issued: Option<Map<String, Value>>) {
    if let (Value::Object(proof), Some(issued)) = (&mut registration.proof, issued) {
        proof.extend(issued);
    }
}

/// Writes a registration that has come to its end without a change of the device; a move that was under way is over.
pub(super) fn ended(
    transaction: &Transaction<'_>,
    mut registration: Registration,
    status: Status,
    error: Option<(ProvisioningCode, String)>,
) -> Result<Assigned, ServiceError> {
    registration.status = status;
    registration.error = error.map(|(code, text)| (code.number(), text));
    transaction.remove_move(&registration.id)?;
    transaction.put_registration(&registration)?;
    Ok(Assigned::as_it_was(registration))
}

/// A device that is not the enrollment's stays what it is; so does the group of whose device this is.
pub(super) fn refused(
    transaction: &Transaction<'_>,
    mut registration: Registration,
    to: &Assignment,
    enrollment: &Enrollment,
) -> Result<Assigned, ServiceError> {
    if let Some(before) = transaction.registration(&registration.id)?
        && before.assignment.is_some()
    {
        registration.group = before.group;
    }
    let text = not_its_own(&to.device, &to.hub, enrollment.id.as_str());
    tracing::info!(registration = %registration.id, reason = text, "a device was not taken over");
    let error = Some((ProvisioningCode::Conflict, text));
    ended(transaction, registration, Status::Failed, error)
}
