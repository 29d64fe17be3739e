//! Puts what shall be at one target into its twins, in one transaction with the row that says so.
//!
//! A twin that says it already keeps its version; so what is applied twice, after a crash say, is applied once. Sections of modules
//! that deployments wrote before and none gives any more are emptied, as long as one is in force: what an edge has follows from the
//! deployments that it has now, and from nothing before. Identities of modules that are not listed any more are the edge's to
//! delete, as with a deployment to one device.
//!
//! A module of an edge may have both: the section that deployments give, and over it the settings of configurations for modules.
//!
//! ```text
//! deployments write     section, with the settings over it as the module's row names them   then the module is looked at again
//! configurations write  settings                                                            the section below stays trusted
//!        … and set other things than before                                                 then the device is looked at again
//! ```
//!
//! So the end is the same whoever comes last, and each writes at most once more: a configuration that sets what it set before makes
//! no deployment write.

use std::collections::BTreeSet;

use holm_model::configuration::{Configuration, ConfigurationId, ConfigurationKind, SettingsPlan};
use holm_model::manifest::DeploymentContent;
use holm_model::{Identity, ModuleId, ServiceError, Timestamp, TwinUpdate};
use serde_json::Map;

use super::intent::{self, Effect};
use super::lane::Job;
use crate::deployment::{self, Changes, Room};
use crate::events::notice::Operation;
use crate::storage::{Transaction, TwinConfigurations, View, row_identity};
use crate::twins;

/// Applies; gives the desired properties that changed. A target that is gone meanwhile is passed over.
///
/// # Errors
/// The twin's own, when a section would be too large or breaks a rule: then nothing is changed.
pub(super) fn apply(
    transaction: &Transaction<'_>,
    job: &Job,
    hub_name: &str,
    now: Timestamp,
) -> Result<Changes, ServiceError> {
    let Some(entry) = transaction.entry(&job.identity)? else {
        return Ok(Changes::new());
    };
    if job.kind == ConfigurationKind::Edge && !entry.edge {
        return Ok(Changes::new());
    }
    let row = row_identity(job.kind, &job.identity);
    let before = transaction.twin_configurations(&row)?.unwrap_or_default();
    let (changes, written) = match &job.intent.effect {
        Effect::Nothing => (Changes::new(), before.written),
        Effect::Modules(content) => modules(transaction, &job.identity, content, &before.written, hub_name, now)?,
        Effect::Settings(plan) => settings(transaction, &job.identity, plan, &before.written, hub_name, now)?,
    };
    let statuses = job.intent.statuses.iter();
    let statuses = statuses.map(|(id, status)| (id.as_str().to_owned(), status.as_str().to_owned()));
    transaction.put_twin_configurations(
        &row,
        &TwinConfigurations {
            statuses: statuses.collect(),
            fingerprint: job.intent.fingerprint.clone(),
            written,
            trusted: true,
        },
    )?;
    // What was set before may lie over a section of a deployment: only that knows what stands there without it.
    if job.kind == ConfigurationKind::Module
        && !matches!(&before.fingerprint, it if it.is_empty() || *it == job.intent.fingerprint)
    {
        transaction.distrust_deployments(&job.identity.device)?;
    }
    transaction.touch(&job.identity);
    Ok(changes)
}

/// What configurations for modules have set of a module, as its row says; nothing where they are not those any more, since then it is
/// looked at again anyway.
///
/// # Errors
/// When the database can't be read.
pub(crate) fn module_settings(view: &View<'_>, identity: &Identity) -> Result<SettingsPlan, ServiceError> {
    if identity.module.as_ref().is_none_or(ModuleId::is_system) {
        return Ok(SettingsPlan::default());
    }
    let Some(row) = view.twin_configurations(identity)? else {
        return Ok(SettingsPlan::default());
    };
    let mut matching = Vec::with_capacity(row.statuses.len());
    for (id, _) in &row.statuses {
        let found = ConfigurationId::new(id)
            .ok()
            .map(|id| view.configuration(&id))
            .transpose()?;
        matching.extend(found.flatten());
    }
    let matching: Vec<&Configuration> = matching.iter().collect();
    if intent::fingerprint(&matching) != row.fingerprint {
        return Ok(SettingsPlan::default());
    }
    Ok(SettingsPlan::of(&matching))
}

type Written = Vec<Vec<String>>;

fn modules(
    transaction: &Transaction<'_>,
    device: &Identity,
    content: &DeploymentContent,
    before: &Written,
    hub_name: &str,
    now: Timestamp,
) -> Result<(Changes, Written), ServiceError> {
    let device = &device.device;
    let mut changes = deployment::place(transaction, device, content, Room::Unbounded, hub_name, now)?;
    let given: BTreeSet<&str> = content
        .modules
        .keys()
        .filter(|module| !module.is_system())
        .map(ModuleId::as_str)
        .collect();
    for name in before.iter().flatten().filter(|name| !given.contains(name.as_str())) {
        let Ok(module) = ModuleId::new(name) else { continue };
        let identity = Identity::of_module(device.clone(), module);
        if transaction.entry(&identity)?.is_none() {
            continue;
        }
        let settings = module_settings(transaction, &identity)?;
        let nothing = |_: &_| settings.applied_to(&Map::new(), &[]);
        let emptied = deployment::set_desired(transaction, &identity, nothing, hub_name, now)?;
        changes.extend(emptied.map(|desired| (identity, desired)));
    }
    let written = given.into_iter().map(|name| vec![name.to_owned()]).collect();
    Ok((changes, written))
}

fn settings(
    transaction: &Transaction<'_>,
    identity: &Identity,
    plan: &SettingsPlan,
    before: &Written,
    hub_name: &str,
    now: Timestamp,
) -> Result<(Changes, Written), ServiceError> {
    let (entry, mut twin) = twins::with_entry(transaction, identity)?;
    let desired = plan.applied_to(twin.desired().properties(), before);
    let mut changes = Changes::new();
    if desired != *twin.desired().properties() {
        let update = TwinUpdate::of_desired(desired);
        let change = twins::configure(
            transaction,
            &entry,
            &mut twin,
            &update,
            Operation::Replace,
            hub_name,
            now,
        )?;
        changes.extend(change.desired.map(|desired| (identity.clone(), desired)));
    }
    Ok((changes, plan.written()))
}
