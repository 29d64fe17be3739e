//! What a move comes to, written in one transaction with the registration that says so.

use holm_model::{ProvisioningCode, ServiceError, Timestamp};

use super::record::{Move, Spot};
use super::settling::Settled;
use crate::provisioning::ownership;
use crate::provisioning::registration::{Registration, Status, new_etag};
use crate::storage::{Leftover, Transaction};

/// The device is at its hub: the registration says so, if it is still to be so.
pub(super) fn finish(
    transaction: &Transaction<'_>,
    moving: &Move,
    revision: i64,
    settled: &Settled,
    hub_key: &str,
    now: Timestamp,
) -> Result<Option<Registration>, ServiceError> {
    let is_made_here = settled.is_made_here;
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
    let (kind, enrollment_id) = moving.enrollment()?;
    let enrollment = transaction.enrollment(kind, &enrollment_id)?;
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
    if let Some(to) = &registration.assignment {
        let at = (hub_key, &to.device);
        ownership::keep(transaction, at, (kind, &enrollment_id), settled.generation.clone())?;
    }
    if settled.is_taken {
        let place = if hub_key.is_empty() {
            String::new()
        } else {
            format!("{hub_key}/")
        };
        transaction.record("device.takeover", format!("{place}{}", moving.to.device), None, now)?;
        tracing::warn!(
            device = moving.to.device,
            hub = moving.to.hub,
            enrollment = moving.enrollment,
            "a device that another enrollment or somebody by hand has made goes by the proof of this enrollment now"
        );
    }
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
    (code, text): (ProvisioningCode, String),
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
    if let Some(before) = before.filter(|before| before.assignment.is_some()) {
        // It stays whose it is.
        (registration.assignment, registration.group) = (before.assignment, before.group);
    } else {
        registration.assignment = None;
    }
    registration.error = Some((code.number(), text));
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
