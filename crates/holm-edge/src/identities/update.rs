//! Makes the hub's registry and what is known of it as the deployment wants.

use std::collections::{BTreeMap, BTreeSet};

use holm_model::{ModuleId, Timestamp};

use super::hub_api::{HubApi, ModuleSecrets, Registered};
use super::known::{Entry, Known};
use super::{IdentitiesError, IdentitiesOptions, MayGo};
use crate::security::Security;

/// A module that is in no deployment yet, and was not when it was first seen: for so long its deployment may be on its way.
const NEWCOMER_SECONDS: i64 = 60;

/// Brings `known` up to date step by step, so that what an error interrupts is still known.
pub(super) async fn update(
    security: &Security,
    options: &IdentitiesOptions,
    known: &mut Known,
    wanted: Option<&BTreeSet<ModuleId>>,
    may_go: MayGo<'_>,
) -> Result<Vec<ModuleId>, IdentitiesError> {
    let api = HubApi {
        security,
        options,
        now: options.clock.now().into(),
    };
    let listed = api.list().await?;
    let mut registered: BTreeMap<ModuleId, Registered> =
        listed.into_iter().map(|module| (module.id.clone(), module)).collect();
    known.modules.retain(|id, _| registered.contains_key(id));
    for module in registered.values() {
        note(known, module, false, api.now);
    }
    let runtime = [ModuleId::edge_agent(), ModuleId::edge_hub()];
    for id in runtime.iter().chain(wanted.into_iter().flatten()) {
        if !registered.contains_key(id) {
            let module = api.create(id).await?;
            tracing::info!(module = %id, "module identity created");
            note(known, &module, false, api.now);
            registered.insert(id.clone(), module);
        }
    }
    for id in wanted.into_iter().flatten() {
        if let Some(entry) = known.modules.get_mut(id) {
            entry.was_deployed = true;
        }
    }
    for module in registered.values() {
        let is_ours =
            module.id.is_system() || module.is_managed_here() || wanted.is_some_and(|all| all.contains(&module.id));
        if is_ours {
            set_keys(&api, known, module).await?;
        }
    }
    match wanted {
        Some(wanted) => remove(&api, known, &registered, wanted, may_go).await,
        None => Ok(Vec::new()),
    }
}

async fn set_keys(api: &HubApi<'_>, known: &mut Known, module: &Registered) -> Result<(), IdentitiesError> {
    let keys = ModuleSecrets::of(api.security, &module.id, &module.generation).await?;
    let noted = known.modules.get(&module.id).is_some_and(|entry| entry.has_keys);
    if module.has(&keys).unwrap_or(noted) {
        note(known, module, true, api.now);
        return Ok(());
    }
    let set = api.set_keys(module, &keys).await?;
    tracing::info!(module = %module.id, "keys of the module identity set");
    note(known, &set, true, api.now);
    Ok(())
}

async fn remove(
    api: &HubApi<'_>,
    known: &mut Known,
    registered: &BTreeMap<ModuleId, Registered>,
    wanted: &BTreeSet<ModuleId>,
    may_go: MayGo<'_>,
) -> Result<Vec<ModuleId>, IdentitiesError> {
    let mut staying = Vec::new();
    for (id, module) in registered {
        let may_be_deleted = known.modules.get(id).is_some_and(|entry| {
            let age = api.now.unix_seconds().saturating_sub(entry.known_since);
            entry.was_deployed || age > NEWCOMER_SECONDS
        });
        if may_be_deleted && module.is_managed_here() && !id.is_system() && !wanted.contains(id) {
            if !may_go(id) {
                staying.push(id.clone());
                continue;
            }
            api.delete(id).await?;
            tracing::info!(module = %id, "module identity deleted");
            known.modules.remove(id);
        }
    }
    Ok(staying)
}

/// Another generation is another module: nothing that was known of the old one holds for it.
fn note(known: &mut Known, module: &Registered, has_keys: bool, now: Timestamp) {
    let old = known.modules.get(&module.id);
    let same = old.filter(|old| old.generation == module.generation);
    let entry = Entry {
        generation: module.generation.clone(),
        managed_by: module.managed_by.clone(),
        has_keys: has_keys || same.is_some_and(|old| old.has_keys),
        was_deployed: old.is_some_and(|old| old.was_deployed),
        known_since: same.map_or_else(|| now.unix_seconds(), |old| old.known_since),
    };
    known.modules.insert(module.id.clone(), entry);
}
