//! Devices that the provisioning service makes: in its transaction, so that a device and the registration that names it appear
//! together.
//!
//! ```text
//! not there        made, with the initial twin
//! there            gets the proof; all else stays, also that it is disabled
//! there, reset     goes with its modules and all that waits, and is made anew below the same parent
//! ```

use holm_model::{DeviceId, Identity, ServiceError, Timestamp, TwinUpdate};

use super::{Authentication, Entry, add_system_modules, delete, family, insert};
use crate::events::notice::Operation;
use crate::storage::Transaction;
use crate::twins;

/// A device as it is to be.
pub(crate) struct ProvisionedDevice {
    pub(crate) device: DeviceId,
    pub(crate) authentication: Authentication,
    pub(crate) edge: bool,
    pub(crate) initial_twin: Option<TwinUpdate>,
    /// Whether nothing of an earlier one is kept.
    pub(crate) is_reset: bool,
}

/// Makes a device or brings its proof up to date; gives those whose proofs no longer hold.
pub(crate) fn provision(
    transaction: &Transaction<'_>,
    wanted: ProvisionedDevice,
    hub_name: &str,
    now: Timestamp,
) -> Result<Vec<Identity>, ServiceError> {
    let identity = Identity::of_device(wanted.device.clone());
    let mut entry = Entry::new(identity.clone(), now)?;
    entry.authentication = wanted.authentication.clone();
    let mut lost = Vec::new();
    if let Some(current) = transaction.entry(&identity)? {
        if !wanted.is_reset {
            return update(transaction, current, wanted, hub_name, now);
        }
        lost = family::who_loses(transaction, &current, None)?;
        family::free_if_childless(transaction, &current, None)?;
        delete(transaction, &current, hub_name, now)?;
        entry.enabled = current.enabled;
        entry.status_reason = current.status_reason;
        entry.status_updated = current.status_updated;
        if !wanted.edge && !current.edge {
            entry.device_scope = current.device_scope;
        }
        entry.parent_scopes = current.parent_scopes;
    }
    if wanted.edge {
        entry.become_edge();
    }
    insert(transaction, &entry, hub_name, now)?;
    add_system_modules(transaction, &entry, hub_name, now)?;
    if let (Some(update), Some(mut twin)) = (&wanted.initial_twin, transaction.twin(&identity)?) {
        twins::change(transaction, &entry, &mut twin, update, Operation::Update, hub_name, now)?;
    }
    Ok(lost)
}

fn update(
    transaction: &Transaction<'_>,
    current: Entry,
    wanted: ProvisionedDevice,
    hub_name: &str,
    now: Timestamp,
) -> Result<Vec<Identity>, ServiceError> {
    let becomes_edge = wanted.edge && !current.edge;
    if current.authentication == wanted.authentication && !becomes_edge {
        return Ok(Vec::new());
    }
    let mut entry = current.clone();
    entry.authentication = wanted.authentication;
    if becomes_edge {
        entry.become_edge();
    }
    entry.renew_etag()?;
    let lost = family::who_loses(transaction, &current, Some(&entry))?;
    transaction.put_entry(&entry)?;
    transaction.record("device.update", &entry.identity, Some(&entry.etag_text()), now)?;
    add_system_modules(transaction, &entry, hub_name, now)?;
    Ok(lost)
}
