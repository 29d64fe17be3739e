//! Whose a device is: which enrollment has made it at its hub, or has taken it over last.
//!
//! ```text
//! registration --> its device is not there              made, and known as the enrollment's
//!              --> there, and known as the enrollment's  as its reprovision policy says
//!              --> there, made by hand or by another one  `deviceTakeover`: allow   it becomes that device, and the audit log says so
//!                                                                          refuse  the registration fails, nothing is touched
//! ```
//!
//! - A device is told from one of the same id that was made later by its generation.
//! - A device that goes by the very proof which is shown is nobody else's: it needs no taking over.
//! - That is forgotten with the device and its last registration, whichever goes last. Of devices at other hubs it is kept: nobody
//!   tells this service that they go.
//! - Of devices that came to their hubs before this was written down, the last registration tells by which enrollment.
//!
//! The original always takes over: who may enrol a group may so get at any device of the hub.

use holm_model::{DeviceId, RegistrationId, ServiceError};
use serde::{Deserialize, Serialize};

use super::Shared;
use super::enrollment::{Enrollment, Kind};
use super::registration::Assignment;
use crate::storage::{OWN_HUB, Provisioned, Transaction, View};

/// What an enrollment knows of a device at its hub.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Known {
    /// That of this generation is its own.
    Generation(String),
    /// Its own, whichever it is.
    Any,
    /// It has made none there.
    #[default]
    None,
}

impl Known {
    /// Whether the device of this generation is the enrollment's.
    pub(super) fn is(&self, generation: &str) -> bool {
        match self {
            Self::Generation(own) => own == generation,
            Self::Any => true,
            Self::None => false,
        }
    }
}

/// Why a device was not taken over, for the device and its owner.
pub(super) fn not_its_own(device: &DeviceId, hub: &str, enrollment: &str) -> String {
    format!(
        "the device `{device}` is at `{hub}` already, and was not made by the enrollment `{enrollment}`, which takes over none; delete the \
         device there, or allow it (`--takeover allow`)"
    )
}

impl Shared {
    /// Under what a hub is written down: that of this process may change its name.
    pub(super) fn hub_key(&self, hub: &str) -> String {
        if self.hubs.is_own(hub) {
            OWN_HUB.to_owned()
        } else {
            hub.to_ascii_lowercase()
        }
    }

    /// What an enrollment knows of a device, of which somebody has this registration.
    pub(super) fn known(
        &self,
        view: &View<'_>,
        registration: &RegistrationId,
        enrollment: &Enrollment,
        at: &Assignment,
    ) -> Result<Known, ServiceError> {
        if let Some(row) = view.provisioned(&self.hub_key(&at.hub), at.device.as_str())? {
            let is_its = row.kind == enrollment.kind && row.enrollment == enrollment.id.key();
            return Ok(if is_its {
                Known::Generation(row.generation)
            } else {
                Known::None
            });
        }
        let last = view.registration(registration)?;
        let is_its = last.is_some_and(|last| {
            let there = last.assignment.as_ref();
            let same = there
                .is_some_and(|there| there.device == at.device && self.hub_key(&there.hub) == self.hub_key(&at.hub));
            same && last.group.as_deref() == enrollment.group().map(RegistrationId::key)
        });
        Ok(if is_its { Known::Any } else { Known::None })
    }
}

/// Writes down whose a device is from now on.
pub(super) fn keep(
    transaction: &Transaction<'_>,
    (hub, device): (&str, &DeviceId),
    (kind, enrollment): (Kind, &RegistrationId),
    generation: String,
) -> Result<(), ServiceError> {
    transaction.put_provisioned(&Provisioned {
        hub: hub.to_owned(),
        device: device.to_string(),
        generation,
        kind,
        enrollment: enrollment.key().to_owned(),
    })
}
