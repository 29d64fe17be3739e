//! Creating, changing and removing an identity, each within a transaction of the caller's: one for one request, or one for many
//! items of a bulk request. What follows, once it is on disk, is collected in [`Effects`].

use holm_model::configuration::ConfigurationKind;
use holm_model::{Identity, ModuleId, ServiceError, Timestamp};
use serde_json::{Map, Value};

use super::{Caller, Entry, Wish, add_system_modules, check_etag, delete, existing, family, insert, not_found, rules};
use crate::Signals;
use crate::presence::Presence;
use crate::storage::{Transaction, TwinConfigurations, row_identity};

/// By whom, where and when something is changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'h> {
    pub(crate) caller: Caller,
    pub(crate) hub_name: &'h str,
    pub(crate) now: Timestamp,
}

/// What is told of changes once they are on disk.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Whose proofs no longer hold.
    revoked: Vec<Identity>,
    removed: Vec<Identity>,
    /// Whose desired properties changed, and what the device is told.
    desired: Vec<(Identity, Map<String, Value>)>,
}

impl Effects {
    pub(crate) fn add(&mut self, more: Self) {
        self.revoked.extend(more.revoked);
        self.removed.extend(more.removed);
        self.desired.extend(more.desired);
    }

    pub(crate) fn desired_changed(&mut self, identity: &Identity, desired: Option<Map<String, Value>>) {
        self.desired.extend(desired.map(|desired| (identity.clone(), desired)));
    }

    /// Ends sessions, forgets who is gone, and wakes those who follow.
    pub(crate) fn tell(&self, signals: &Signals, presence: &Presence) {
        self.revoked.iter().for_each(|identity| signals.revoked(identity));
        self.removed.iter().for_each(|identity| presence.forget(identity));
        for (identity, desired) in &self.desired {
            signals.desired_changed(identity, desired);
        }
        signals.outbox_filled();
    }
}

/// Makes an identity that is not there.
pub(super) fn create(
    transaction: &Transaction<'_>,
    identity: Identity,
    wish: Wish,
    context: &Context<'_>,
) -> Result<Entry, ServiceError> {
    let current = transaction.entry(&identity)?;
    rules::check_new(transaction, &identity, current.as_ref(), context.caller)?;
    let entry = rules::created(transaction, identity, wish, context.now)?;
    insert(transaction, &entry, context.hub_name, context.now)?;
    add_system_modules(transaction, &entry, context.hub_name, context.now)?;
    Ok(entry)
}

/// Changes an identity that is there, if its etag matches.
pub(super) fn update(
    transaction: &Transaction<'_>,
    identity: &Identity,
    if_match: Option<&str>,
    wish: Wish,
    context: &Context<'_>,
    effects: &mut Effects,
) -> Result<Entry, ServiceError> {
    let Some(current) = transaction.entry(identity)? else {
        return Err(not_found(transaction, identity)?);
    };
    check_etag(&current, if_match)?;
    rules::check_change(&current, context.caller)?;
    let entry = rules::updated(transaction, &current, wish, context.now)?;
    write(transaction, &current, &entry, context, effects)?;
    add_system_modules(transaction, &entry, context.hub_name, context.now)?;
    Ok(entry)
}

/// Writes what `current` has become.
pub(super) fn write(
    transaction: &Transaction<'_>,
    current: &Entry,
    entry: &Entry,
    context: &Context<'_>,
    effects: &mut Effects,
) -> Result<(), ServiceError> {
    effects
        .revoked
        .extend(family::who_loses(transaction, current, Some(entry))?);
    family::free_if_childless(transaction, current, Some(entry))?;
    transaction.put_entry(entry)?;
    if current.edge && !entry.edge {
        forget_deployments(transaction, &entry.identity)?;
    }
    let operation = if entry.identity.is_module() {
        "module.update"
    } else {
        "device.update"
    };
    transaction.record(operation, &entry.identity, Some(&entry.etag_text()), context.now)
}

/// No deployment is for a device that is no edge device any more. What they wrote stays, as when the last one is deleted.
fn forget_deployments(transaction: &Transaction<'_>, device: &Identity) -> Result<(), ServiceError> {
    let row = row_identity(ConfigurationKind::Edge, device);
    let Some(before) = transaction.twin_configurations(&row)? else {
        return Ok(());
    };
    let after = TwinConfigurations {
        written: before.written,
        ..TwinConfigurations::default()
    };
    transaction.put_twin_configurations(&row, &after)
}

/// Removes an identity, if its etag matches.
pub(super) fn remove(
    transaction: &Transaction<'_>,
    identity: &Identity,
    if_match: Option<&str>,
    context: &Context<'_>,
    effects: &mut Effects,
) -> Result<(), ServiceError> {
    let entry = existing(transaction, identity)?;
    check_etag(&entry, if_match)?;
    if entry.identity.module.as_ref().is_some_and(ModuleId::is_system) {
        return Err(rules::system_module(identity));
    }
    rules::check_change(&entry, context.caller)?;
    effects.revoked.extend(family::who_loses(transaction, &entry, None)?);
    effects.removed.push(identity.clone());
    family::free_if_childless(transaction, &entry, None)?;
    delete(transaction, &entry, context.hub_name, context.now)
}
