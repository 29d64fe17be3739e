//! Devices and modules: who exists, how each proves who it is, and the rules for changing that.
//!
//! ```text
//! PUT without If-Match   create    there: 409
//! PUT with If-Match      update    not there: 404, other etag: 412
//! DELETE                 remove    with the twin, the modules and what waits
//! ```
//!
//! - A device, its twin and, on an edge device, `$edgeAgent` and `$edgeHub` with their twins appear and go in one
//!   transaction.
//! - A change of proof or parent, a disabling and a removal end the sessions of the identity; where an edge device can't act any
//!   more, also those of the devices below it.
//!
//! Source: `hub-service-api.md` §2.1, §2.3.

mod bulk;
mod change;
mod document;
mod entry;
mod family;
mod keys;
mod provisioned;
mod rules;

pub use bulk::{BulkError, BulkItem, BulkOutcome, MAX_BULK};
pub(crate) use bulk::{Manner, items as bulk_items};
pub(crate) use change::{Context, Effects};
pub(crate) use document::authentication_json;
pub use document::{Wish, to_json};
pub use entry::{Authentication, Entry, Keys, Thumbprints};
pub(crate) use family::is_below;
pub use family::{MAX_CHILDREN, MAX_LEVELS, ScopePage};
pub use keys::{PolicyKey, Rotated};
pub(crate) use provisioned::{ProvisionedDevice, provision};

use holm_model::{DeviceId, ErrorCode, Identity, ModuleId, ServiceError, Twin, etag};

use crate::events::notice;
use crate::presence::Presence;
use crate::storage::{Activity, Repository, Transaction, View};
use crate::{Clock, Signals};

/// The most modules of a device, not counting the runtime's own. Source: `hub-service-api.md` §2.3.
pub const MAX_MODULES: usize = 50;

/// Who asks: rights differ for what belongs to the runtime of an edge device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A back end or operator, by a policy.
    Service,
    /// The device itself, for its own modules.
    Device,
}

/// A registry entry with what is known of its connection.
#[derive(Clone, Debug)]
pub struct Described {
    /// The entry.
    pub entry: Entry,
    /// What is known of its connection.
    pub activity: Activity,
    /// How many cloud-to-device messages wait for it.
    pub waiting: u32,
}

impl Described {
    /// The published form.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        to_json(&self.entry, &self.activity, self.waiting)
    }
}

/// The registry of a hub. Clones are the same.
#[derive(Clone, Debug)]
pub struct Registry {
    repository: Repository,
    presence: Presence,
    signals: Signals,
    clock: Clock,
    hub_name: String,
}

impl Registry {
    /// A registry over a repository.
    #[must_use]
    pub fn new(repository: Repository, presence: Presence, signals: Signals, clock: Clock, hub_name: String) -> Self {
        Self {
            repository,
            presence,
            signals,
            clock,
            hub_name,
        }
    }

    /// An identity.
    ///
    /// # Errors
    /// `DeviceNotFound`, `ModuleNotFound`.
    pub async fn get(&self, identity: Identity) -> Result<Described, ServiceError> {
        let found = self
            .repository
            .read(move |view| describe(view, existing(view, &identity)?))
            .await?;
        Ok(self.with_presence(found))
    }

    /// The devices after `after`, in order of their ids, at most `most`.
    ///
    /// # Errors
    /// When the registry can't be read.
    pub async fn devices(&self, after: String, most: u32) -> Result<Vec<Described>, ServiceError> {
        let found = self
            .repository
            .read_list(move |view| {
                let devices = view.devices(&after, most)?;
                describe_all(view, devices)
            })
            .await?;
        Ok(self.with_presence_of_all(found))
    }

    /// The modules of a device.
    ///
    /// # Errors
    /// `DeviceNotFound`.
    pub async fn modules(&self, device: DeviceId) -> Result<Vec<Described>, ServiceError> {
        let found = self
            .repository
            .read(move |view| {
                existing(view, &Identity::of_device(device.clone()))?;
                let modules = view.modules(&device)?;
                describe_all(view, modules)
            })
            .await?;
        Ok(self.with_presence_of_all(found))
    }

    /// How many devices there are, and how many of them may connect.
    ///
    /// # Errors
    /// When the registry can't be read.
    pub async fn device_counts(&self) -> Result<(u32, u32), ServiceError> {
        self.repository.read_list(|view| view.device_counts()).await
    }

    /// Creates or (with `if_match`) updates a device or module.
    ///
    /// # Errors
    /// `DeviceAlreadyExists`, `ModuleAlreadyExistsOnDevice`, `DeviceNotFound`, `ModuleNotFound`, `PreconditionFailed`,
    /// `TooManyModulesOnDevice`, `InvalidDeviceScope`, `SystemModuleModifyUnauthorizedAccess`, `ArgumentInvalid`.
    pub async fn put(
        &self,
        identity: Identity,
        wish: Wish,
        if_match: Option<String>,
        caller: Caller,
    ) -> Result<Described, ServiceError> {
        rules::check_ids(&identity, &wish)?;
        let described = self
            .change(caller, move |transaction, context, effects| {
                let entry = match if_match {
                    None => change::create(transaction, identity, wish, context)?,
                    Some(etag) => change::update(transaction, &identity, Some(&etag), wish, context, effects)?,
                };
                describe(transaction, entry)
            })
            .await?;
        Ok(self.with_presence(described))
    }

    /// Removes a device with its modules, or a module.
    ///
    /// # Errors
    /// `DeviceNotFound`, `ModuleNotFound`, `PreconditionFailed`, `SystemModuleModifyUnauthorizedAccess`.
    pub async fn remove(
        &self,
        identity: Identity,
        if_match: Option<String>,
        caller: Caller,
    ) -> Result<(), ServiceError> {
        self.change(caller, move |transaction, context, effects| {
            change::remove(transaction, &identity, if_match.as_deref(), context, effects)
        })
        .await
    }

    /// Makes changes in one transaction, and tells of them.
    async fn change<T: Send + 'static>(
        &self,
        caller: Caller,
        change: impl FnOnce(&Transaction<'_>, &Context<'_>, &mut Effects) -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let (now, hub_name) = (self.clock.now(), self.hub_name.clone());
        let (signals, presence) = (self.signals.clone(), self.presence.clone());
        let changed = self.repository.change_then(
            move |transaction| {
                let mut effects = Effects::default();
                let context = Context {
                    caller,
                    hub_name: &hub_name,
                    now,
                };
                Ok((change(transaction, &context, &mut effects)?, effects))
            },
            move |(_, effects)| effects.tell(&signals, &presence),
        );
        changed.await.map(|(done, _)| done)
    }

    fn with_presence(&self, mut described: Described) -> Described {
        if let Some(live) = self.presence.activity(&described.entry.identity) {
            described.activity = live;
        }
        described
    }

    fn with_presence_of_all(&self, all: Vec<Described>) -> Vec<Described> {
        all.into_iter().map(|described| self.with_presence(described)).collect()
    }
}

/// An identity that must exist.
///
/// # Errors
/// `DeviceNotFound`, `ModuleNotFound`.
pub fn existing(view: &View<'_>, identity: &Identity) -> Result<Entry, ServiceError> {
    match view.entry(identity)? {
        Some(entry) => Ok(entry),
        None => Err(not_found(view, identity)?),
    }
}

fn not_found(view: &View<'_>, identity: &Identity) -> Result<ServiceError, ServiceError> {
    let device = Identity::of_device(identity.device.clone());
    if !identity.is_module() || view.entry(&device)?.is_none() {
        return Ok(ServiceError::device_not_found(&identity.device));
    }
    Ok(ServiceError::module_not_found(identity))
}

fn check_etag(entry: &Entry, if_match: Option<&str>) -> Result<(), ServiceError> {
    let current = entry.etag_text();
    match if_match {
        Some(wanted) if !etag::matches(wanted, &current) => Err(ServiceError::precondition_failed(format!(
            "`{}` was changed by somebody else: its etag is `{current}`; read it and try again",
            entry.identity
        ))),
        _ => Ok(()),
    }
}

fn describe_all(view: &View<'_>, entries: Vec<Entry>) -> Result<Vec<Described>, ServiceError> {
    entries.into_iter().map(|entry| describe(view, entry)).collect()
}

fn describe(view: &View<'_>, entry: Entry) -> Result<Described, ServiceError> {
    let waiting = if entry.identity.is_module() {
        0
    } else {
        view.waiting_count(&entry.identity.device)?
    };
    Ok(Described {
        activity: view.activity(&entry.identity)?.unwrap_or_default(),
        waiting,
        entry,
    })
}

/// Writes a new identity with its twin, and tells of it.
pub(crate) fn insert(
    transaction: &Transaction<'_>,
    entry: &Entry,
    hub_name: &str,
    now: holm_model::Timestamp,
) -> Result<(), ServiceError> {
    let twin = Twin::new(entry.identity.clone(), now);
    transaction.put_entry(entry)?;
    transaction.put_twin(&twin)?;
    if entry.identity.is_module() {
        // A deployment may give it a section.
        transaction.distrust_deployments(&entry.identity.device)?;
    }
    let operation = if entry.identity.is_module() {
        "module.create"
    } else {
        "device.create"
    };
    transaction.record(operation, &entry.identity, Some(&entry.etag_text()), now)?;
    transaction.emit(&notice::lifecycle(
        hub_name,
        entry,
        &twin,
        notice::Lifecycle::Created,
        now,
    ))
}

/// Removes an identity with all that belongs to it, and tells of it.
pub(crate) fn delete(
    transaction: &Transaction<'_>,
    entry: &Entry,
    hub_name: &str,
    now: holm_model::Timestamp,
) -> Result<(), ServiceError> {
    if let Some(twin) = transaction.twin(&entry.identity)? {
        transaction.emit(&notice::lifecycle(
            hub_name,
            entry,
            &twin,
            notice::Lifecycle::Deleted,
            now,
        ))?;
    }
    let operation = if entry.identity.is_module() {
        "module.delete"
    } else {
        "device.delete"
    };
    transaction.record(operation, &entry.identity, Some(&entry.etag_text()), now)?;
    transaction.remove_entry(&entry.identity)?;
    if entry.identity.is_module() {
        return Ok(());
    }
    transaction.forget_provisioned(&entry.identity.device)
}

/// Makes `$edgeAgent` and `$edgeHub` of an edge device, where they are missing. The device fills in their keys.
fn add_system_modules(
    transaction: &Transaction<'_>,
    entry: &Entry,
    hub_name: &str,
    now: holm_model::Timestamp,
) -> Result<(), ServiceError> {
    if !entry.edge {
        return Ok(());
    }
    for module in [ModuleId::edge_agent(), ModuleId::edge_hub()] {
        let identity = Identity::of_module(entry.identity.device.clone(), module);
        if transaction.entry(&identity)?.is_none() {
            insert(transaction, &Entry::new(identity, now)?, hub_name, now)?;
        }
    }
    Ok(())
}

/// Refuses one more module on a device that has its fill.
///
/// # Errors
/// `TooManyModulesOnDevice`.
pub(crate) fn check_room(view: &View<'_>, device: &DeviceId) -> Result<(), ServiceError> {
    let modules = view.modules(device)?;
    let count = modules
        .iter()
        .filter(|entry| !entry.identity.module.as_ref().is_some_and(ModuleId::is_system))
        .count();
    if count < MAX_MODULES {
        return Ok(());
    }
    Err(ServiceError::new(
        ErrorCode::TooManyModulesOnDevice,
        format!("device `{device}` has {count} modules, the most allowed; delete one first"),
    ))
}
