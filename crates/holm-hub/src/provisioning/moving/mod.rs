//! Devices on their way to a hub that is not this process's own, or away from one.
//!
//! ```text
//! registration --> move (on disk, with all that it needs) --> what is carried is read at the old hub
//!                                                         --> the device is made at the new one, disabled, with twin and modules
//!                                                         --> it is enabled
//!                                    one transaction:     --> the registration says so; the old device is left over
//!                                                         --> the left-over device is removed
//! ```
//!
//! - At every moment the device is whole at one hub at least: it goes from the old one when the registration names the new one,
//!   and what was not finished at the new one is disabled there.
//! - Every step may be done again: a crash begins the move anew and leaves nothing out.
//! - A hub that does not answer is asked again for [`PATIENCE`]; then the registration has failed, and the device may register
//!   again. A left-over device is waited for as long as its hub is linked.
//! - Of one device one thing is done at a time.

mod carried;
mod ending;
mod record;
mod settling;
mod work;

pub(super) use record::{Data, Move, Spot, begin, registration_now};

use std::time::Duration;

use holm_model::{DeviceId, Identity, ProvisioningCode, ServiceError};

use super::Shared;
use super::linked::{LinkedService, Trouble};
use super::ownership::not_its_own;
use super::place::Place;
use crate::actor::Actor;
use crate::storage::{Leftover, MoveRow};

use carried::Carried;
use ending::{fail, finish};
use settling::{Settled, is_unfinished, settle_in};
use work::Job;

/// How long a hub may not answer before a registration has failed: what a device waits that asks for its state.
const PATIENCE: Duration = Duration::from_secs(60);

impl Shared {
    /// Whether that is done, for good or not.
    async fn carry_out(&self, job: Job) -> bool {
        let done = match job {
            Job::Move(row, moving) => {
                let actor = Actor::Enrollment(moving.enrollment.clone());
                actor.does(self.carry_move(&row, *moving)).await
            }
            Job::Clear(leftover) => self.clear(leftover).await,
        };
        done.unwrap_or_else(|error| {
            tracing::warn!(%error, "what a device's way to its hub has come to is not written yet");
            false
        })
    }

    async fn carry_move(&self, row: &MoveRow, moving: Move) -> Result<bool, ServiceError> {
        let hub = moving.to.hub.clone();
        match self.bring(&moving).await {
            Ok(settled) if settled.is_not_its_own => {
                let device = Move::device(&moving.to).map_err(|trouble| ServiceError::server_error(trouble.text))?;
                let text = not_its_own(&device, &hub, &moving.enrollment);
                self.leave(row, moving, (ProvisioningCode::Conflict, text)).await
            }
            Ok(settled) => {
                let (now, revision, key) = (self.clock.now(), row.revision, self.hub_key(&hub));
                let finished = self
                    .repository
                    .change(move |transaction| finish(transaction, &moving, revision, &settled, &key, now));
                if let Some(registration) = finished.await? {
                    tracing::info!(registration = %registration.id, hub, status = registration.status.name(), substatus = registration.substatus.name(), "a device has come to its hub");
                }
                self.moving.notify_one();
                Ok(true)
            }
            Err(trouble) => {
                let now = self.clock.now();
                let waited = Duration::from_millis(u64::try_from(now.millis_since(row.began)).unwrap_or(0));
                if !trouble.is_final && waited < PATIENCE {
                    tracing::info!(
                        registration = moving.id,
                        hub,
                        why = trouble.text,
                        "a device is not at its hub yet"
                    );
                    return Ok(false);
                }
                let text = format!("the hub `{hub}` did not take the device: {}", trouble.text);
                self.leave(row, moving, (ProvisioningCode::HubFailed, text)).await
            }
        }
    }

    /// The device stays where it is.
    async fn leave(&self, row: &MoveRow, moving: Move, why: (ProvisioningCode, String)) -> Result<bool, ServiceError> {
        let (registration, why_text) = (&moving.id, &why.1);
        tracing::warn!(registration, why = why_text, "a device did not come to its hub");
        let (now, revision) = (self.clock.now(), row.revision);
        let failed = self
            .repository
            .change(move |transaction| fail(transaction, &moving, revision, why, now));
        failed.await.map(|()| true)
    }

    fn place(&self, host: &str) -> Result<Place<'_>, Trouble> {
        let hub = self.hubs.find(host);
        let hub = hub.ok_or_else(|| Trouble {
            text: format!("the hub `{host}` is not linked"),
            is_final: true,
        })?;
        if hub.connection_string.is_none() {
            return Ok(Place::Own(&self.own));
        }
        let service = LinkedService::new(&hub, self.clock.clone());
        service.map(Place::Linked).map_err(|error| Trouble {
            text: error.message,
            is_final: true,
        })
    }

    /// Makes the device at its hub.
    async fn bring(&self, moving: &Move) -> Result<Settled, Trouble> {
        let (device, target) = (Move::device(&moving.to)?, self.place(&moving.to.hub)?);
        let (hub, name) = (moving.to.hub.clone(), moving.to.device.clone());
        let kept = self
            .repository
            .change(move |transaction| transaction.remove_leftover(&hub, &name));
        kept.await.map_err(|error| Trouble::passing(error.message))?;
        let carried = match &moving.from {
            Some(from) if moving.data == Data::Goes && !from.is_same(&moving.to) => {
                let source = self.place(&from.hub)?;
                let read = Carried::read(&source, &Move::device(from)?).await;
                read.map_err(|trouble| Trouble {
                    text: format!("its data can't be had from `{}`: {}", from.hub, trouble.text),
                    ..trouble
                })?
            }
            _ => None,
        };
        settle_in(&target, &device, moving, carried).await
    }

    async fn clear(&self, leftover: Leftover) -> Result<bool, ServiceError> {
        let Leftover { hub, device, .. } = &leftover;
        let removed = async {
            let place = self.place(hub)?;
            let device = DeviceId::new(device).map_err(|error| Trouble::passing(error.to_string()))?;
            if leftover.if_unfinished {
                let there = place.identity(&Identity::of_device(device.clone())).await?;
                if !there.as_ref().is_some_and(is_unfinished) {
                    return Ok(());
                }
            }
            place.remove(&device).await
        };
        match removed.await {
            Ok(()) => tracing::info!(device, hub, "a device has gone from the hub where it was before"),
            Err(trouble) if trouble.is_final => {
                tracing::warn!(
                    device,
                    hub,
                    why = trouble.text,
                    "a device stays at the hub where it was before; remove it there"
                );
            }
            Err(trouble) => {
                tracing::info!(
                    device,
                    hub,
                    why = trouble.text,
                    "a device is still at the hub where it was before"
                );
                return Ok(false);
            }
        }
        let (key, hub, device) = (self.hub_key(hub), hub.clone(), device.clone());
        let written = self.repository.change(move |transaction| {
            transaction.remove_provisioned(&key, &device)?;
            transaction.remove_leftover(&hub, &device)
        });
        written.await.map(|()| true)
    }
}
