//! Puts a deployment on one edge device (`applyConfigurationContent`), in one transaction: all of it or nothing.
//!
//! ```text
//! content -> modules that need an identity -> made where missing, managedBy iotEdge
//!         -> desired properties of each module's twin -> replaced, only where they differ
//! ```
//!
//! An identity that the content no longer lists stays: its edge deletes it when what the module sent has arrived. Deleted here,
//! at once, it would take the messages of an edge that is offline with it: nobody else may send them.
//!
//! A twin that already says what it should keeps its version, so that a deployment sent twice makes no edge read anew. What
//! configurations for modules set stays over the section that a deployment gives: it is part of what a twin should say.
//!
//! Source: `hub-service-api.md` §2.2, §3.3.

use holm_model::manifest::{AgentDesired, ConfigError, DeploymentContent, ModuleContent};
use holm_model::{DeviceId, ErrorCode, Identity, ModuleId, ServiceError, Timestamp, TwinUpdate};
use serde_json::{Map, Value};

use crate::configurations::module_settings;
use crate::events::notice::Operation;
use crate::registry::{self, Authentication, Entry, Keys, existing};
use crate::storage::{Repository, Transaction};
use crate::{Clock, Signals, twins};

/// What `managedBy` says of modules that deployments make. Compared without case: tools write `IotEdge` too.
pub const MANAGED_BY: &str = "iotEdge";

/// Desired properties that changed, and whose.
pub(crate) type Changes = Vec<(Identity, Map<String, Value>)>;

/// Puts deployments on devices. Clones are the same.
#[derive(Clone, Debug)]
pub struct Deployments {
    repository: Repository,
    signals: Signals,
    clock: Clock,
    hub_name: String,
}

impl Deployments {
    /// Deployments over a repository.
    #[must_use]
    pub fn new(repository: Repository, signals: Signals, clock: Clock, hub_name: String) -> Self {
        Self {
            repository,
            signals,
            clock,
            hub_name,
        }
    }

    /// Applies a content to an edge device.
    ///
    /// # Errors
    /// `DeviceNotFound`; `InvalidOperation` when the device is not an edge device; `TooManyModulesOnDevice`; the twin's own
    /// errors when a section is too large or breaks a rule.
    pub async fn apply(&self, device: DeviceId, content: DeploymentContent) -> Result<(), ServiceError> {
        check(&content)?;
        let (now, hub_name, signals) = (self.clock.now(), self.hub_name.clone(), self.signals.clone());
        self.repository
            .change_then(
                move |transaction| place(transaction, &device, &content, Room::AsPublished, &hub_name, now),
                move |changes| {
                    for (identity, desired) in changes {
                        signals.desired_changed(identity, desired);
                    }
                    signals.outbox_filled();
                },
            )
            .await
            .map(|_| ())
    }
}

/// Refuses a deployment that no edge could read, here where its author is told at once. Schema versions are the edge's to
/// judge: one newer than this hub may know more.
fn check(content: &DeploymentContent) -> Result<(), ServiceError> {
    let invalid = |text: String| Err(ServiceError::new(ErrorCode::InvalidConfigurationContent, text));
    if content.modules.is_empty() {
        return invalid("`modulesContent` names no module; give at least `$edgeAgent`".to_owned());
    }
    let Some(ModuleContent::Whole(agent)) = content.modules.get(&ModuleId::edge_agent()) else {
        return Ok(());
    };
    match AgentDesired::parse(agent) {
        Err(ConfigError::Agent(problems)) => invalid(format!(
            "the deployment of `$edgeAgent` is wrong: {}",
            problems.join("; ")
        )),
        _ => Ok(()),
    }
}

/// How many modules a device may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// As many as the registry allows, as published.
    AsPublished,
    /// As many as its deployments name.
    Unbounded,
}

/// Puts a content on an edge device within a transaction; gives the desired properties that changed.
pub(crate) fn place(
    transaction: &Transaction<'_>,
    device: &DeviceId,
    content: &DeploymentContent,
    room: Room,
    hub_name: &str,
    now: Timestamp,
) -> Result<Changes, ServiceError> {
    let entry = existing(transaction, &Identity::of_device(device.clone()))?;
    if !entry.edge {
        return Err(ServiceError::new(
            ErrorCode::InvalidOperation,
            format!("device `{device}` is not an edge device; set `capabilities.iotEdge` to deploy modules on it"),
        ));
    }
    let named = content.user_modules();
    for module in named {
        let identity = Identity::of_module(device.clone(), module);
        if transaction.entry(&identity)?.is_none() {
            if room == Room::AsPublished {
                registry::check_room(transaction, device)?;
            }
            let mut entry = Entry::new(identity, now)?;
            entry.authentication = Authentication::Sas(Keys::generate()?);
            entry.managed_by = Some(MANAGED_BY.to_owned());
            registry::insert(transaction, &entry, hub_name, now)?;
        }
    }
    transaction.record("deployment.apply", device, None, now)?;
    let mut changes = Changes::new();
    for (module, wanted) in &content.modules {
        let identity = Identity::of_module(device.clone(), module.clone());
        let settings = module_settings(transaction, &identity)?;
        let wanted = |current: &_| settings.applied_to(&wanted.applied_to(current), &[]);
        if let Some(desired) = set_desired(transaction, &identity, wanted, hub_name, now)? {
            changes.push((identity, desired));
        }
    }
    Ok(changes)
}

/// Brings the desired section of one twin to what it shall be, given what it is; `None` where it is that already.
pub(crate) fn set_desired(
    transaction: &Transaction<'_>,
    identity: &Identity,
    wanted: impl FnOnce(&Map<String, Value>) -> Map<String, Value>,
    hub_name: &str,
    now: Timestamp,
) -> Result<Option<Map<String, Value>>, ServiceError> {
    let (entry, mut twin) = twins::with_entry(transaction, identity)?;
    let desired = wanted(twin.desired().properties());
    if desired == *twin.desired().properties() {
        return Ok(None);
    }
    let update = TwinUpdate::of_desired(desired);
    let change = twins::change(
        transaction,
        &entry,
        &mut twin,
        &update,
        Operation::Replace,
        hub_name,
        now,
    )?;
    Ok(change.desired)
}
