//! What a move comes to, written in one transaction with the registration that says so.

use holm_model::{ProvisioningCode, RegistrationId, ServiceError, Timestamp};

use super::record::{Move, Spot};
use crate::provisioning::enrollment::Kind;
use crate::provisioning::registration::{Registration, Status, new_etag};
use crate::storage::{Leftover, Transaction};

/// The device is at its hub: the registration says so, if it is still to be so.
pub(super) fn finish(
    transaction: &Transaction<'_>,
    moving: &Move,
    revision: i64,
    is_made_here: bool,
    now: Timestamp,
) -> Result<Option<Registration>, ServiceError> {
    let id = moving.id()?;
    let current = transaction.pending_move(&id)?;
    let goes = |spot: &Spot| {
        transaction.put_leftover(&Leftover {
            hub: spot.hub.clone(),
            device: spot.device.clone(),
            if_unfinished: false,
        })
    };
    if current.as_ref().is_none_or(|current| current.revision != revision) {
        // Something else was decided meanwhile.
        let next = current.as_ref().and_then(Move::read).map(|next| next.to);
        let last = transaction.registration(&id)?.and_then(|last| last.assignment);
        let is_wanted = [next, last.as_ref().map(Spot::of)]
            .iter()
            .flatten()
            .any(|spot| spot.is_same(&moving.to));
        if is_made_here && !is_wanted {
            goes(&moving.to)?;
        }
        return Ok(None);
    }
    transaction.remove_move(&id)?;
    let before = transaction.registration(&id)?;
    let kind = if moving.group.is_some() {
        Kind::Group
    } else {
        Kind::Individual
    };
    let enrollment = RegistrationId::new(&moving.enrollment);
    let enrollment = enrollment.map_err(|error| ServiceError::server_error(error.to_string()))?;
    let enrollment = transaction.enrollment(kind, &enrollment)?;
    if !enrollment.as_ref().is_some_and(|enrollment| enrollment.enabled) {
        if is_made_here {
            goes(&moving.to)?;
        }
        let Some(enrollment) = enrollment else { return Ok(None) };
        let mut registration = before.map_or_else(|| moving.registration(Status::Disabled, 0, now), Ok)?;
        let text = format!("the enrollment `{}` is disabled", enrollment.id);
        registration.status = Status::Disabled;
        registration.assignment = moving.from.as_ref().and(registration.assignment);
        registration.error = Some((ProvisioningCode::Unauthorized.number(), text));
        (registration.etag, registration.updated) = (new_etag()?, now);
        transaction.put_registration(&registration)?;
        return Ok(Some(registration));
    }
    let registration = moving.registration(Status::Assigned, new_etag()?, now)?;
    transaction.put_registration(&registration)?;
    if let Some(from) = moving.from.as_ref().filter(|from| !from.is_same(&moving.to)) {
        goes(from)?;
    }
    Ok(Some(registration))
}

/// The device did not come to its hub: it stays where it is.
pub(super) fn fail(
    transaction: &Transaction<'_>,
    moving: &Move,
    revision: i64,
    text: String,
    now: Timestamp,
) -> Result<(), ServiceError> {
    let id = moving.id()?;
    if transaction
        .pending_move(&id)?
        .is_none_or(|current| current.revision != revision)
    {
        return Ok(());
    }
    transaction.remove_move(&id)?;
    let mut registration = moving.registration(Status::Failed, new_etag()?, now)?;
    let before = transaction.registration(&id)?;
    registration.assignment = before.and_then(|before| before.assignment);
    registration.error = Some((ProvisioningCode::HubFailed.number(), text));
    transaction.put_registration(&registration)?;
    let stays = registration.assignment.as_ref().map(Spot::of);
    if stays.is_none_or(|stays| !stays.is_same(&moving.to)) {
        transaction.put_leftover(&Leftover {
            hub: moving.to.hub.clone(),
            device: moving.to.device.clone(),
            if_unfinished: true,
        })?;
    }
    Ok(())
}
