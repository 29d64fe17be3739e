//! Why one device or module has what it has, worked out from the database alone.
//!
//! A module of an edge may have a section of deployments below the settings of configurations for modules: so of the device, and of
//! the module itself, it is told which of these lie over which of those.

use std::collections::BTreeMap;
use std::sync::Arc;

use holm_model::configuration::{
    Claim, Configuration, ConfigurationKind, EdgePlan, Item, Status, Verdict, claims_below,
};
use holm_model::{Identity, ModuleId, ServiceError};
use serde_json::{Value, json};

use super::facts;
use super::intent::Intent;
use super::matcher::Matcher;
use crate::registry::existing;
use crate::storage::{View, row_identity};

/// Why what is wanted was refused, by kind: of an edge device and a device, that of the device; of a module, its own.
pub(super) type Refusals = BTreeMap<ConfigurationKind, String>;

/// Explains a device or module.
///
/// ```json
/// {"deviceId": "d", "parts": [{
///   "content": "modulesContent", "inForce": true, "problem": null,
///   "configurations": [{"id": "v2", "priority": 20, "createdTimeUtc": "…", "layer": false, "status": "Applied", "reason": "…"}],
///   "notTargeted": ["v1"],
///   "items": [{"item": "module m", "claims": [{"configuration": "v2", "verdict": "in force", "by": null, "detail": null, "removes": false}]}]
/// }]}
/// ```
///
/// # Errors
/// `DeviceNotFound`, `ModuleNotFound`; when the database can't be read.
pub(super) fn explain(view: &View<'_>, refusals: &Refusals, identity: &Identity) -> Result<Value, ServiceError> {
    let entry = existing(view, identity)?;
    let all: Vec<Arc<Configuration>> = view.configurations()?.into_iter().map(Arc::new).collect();
    let asked = Asked {
        view,
        refusals,
        all: &all,
    };
    let mut parts = Vec::new();
    match &identity.module {
        Some(module) if module.is_system() => {}
        Some(module) => {
            parts.extend(asked.part(identity, ConfigurationKind::Module, None)?);
            let device = Identity::of_device(identity.device.clone());
            if existing(view, &device)?.edge {
                parts.extend(asked.part(&device, ConfigurationKind::Edge, Some(module))?);
            }
        }
        None => {
            if entry.edge {
                parts.extend(asked.part(identity, ConfigurationKind::Edge, None)?);
            }
            parts.extend(asked.part(identity, ConfigurationKind::Device, None)?);
        }
    }
    let module = identity.module.as_ref().map(ModuleId::as_str);
    Ok(json!({ "deviceId": identity.device.as_str(), "moduleId": module, "parts": parts }))
}

/// What is asked, of whatever identity and kind.
struct Asked<'a> {
    view: &'a View<'a>,
    refusals: &'a Refusals,
    all: &'a [Arc<Configuration>],
}

impl<'a> Asked<'a> {
    fn of_kind(&self, kind: ConfigurationKind) -> impl Iterator<Item = &'a Arc<Configuration>> {
        self.all.iter().filter(move |it| it.kind() == kind)
    }

    /// Those of a kind that match, the best first.
    fn matching(&self, identity: &Identity, kind: ConfigurationKind) -> Result<Vec<&'a Configuration>, ServiceError> {
        let document = self
            .view
            .candidate(kind, identity, facts::document_of)?
            .unwrap_or_default();
        let matches = |it: &&Arc<Configuration>| {
            let matcher = Matcher::new(Arc::clone(it));
            matcher.is_ok_and(|matcher| matcher.holds_for(&document))
        };
        let mut matching: Vec<&Configuration> = self.of_kind(kind).filter(matches).map(|it| &**it).collect();
        matching.sort_by_key(|it| std::cmp::Reverse(it.rank()));
        Ok(matching)
    }

    /// Which configurations for modules lie over the sections of the modules of an edge.
    fn over_sections(
        &self,
        device: &Identity,
        deployments: &[&Configuration],
    ) -> Result<BTreeMap<ModuleId, Vec<&'a Configuration>>, ServiceError> {
        let mut over = BTreeMap::new();
        if self.of_kind(ConfigurationKind::Module).next().is_none() {
            return Ok(over);
        }
        let sections = EdgePlan::of(deployments).content.map(|content| content.modules);
        for module in sections
            .unwrap_or_default()
            .into_keys()
            .filter(|module| !module.is_system())
        {
            let identity = Identity::of_module(device.device.clone(), module.clone());
            over.insert(module, self.matching(&identity, ConfigurationKind::Module)?);
        }
        Ok(over)
    }

    /// What configurations of a kind have made of one; `only`: what deployments have made of this module. `None` where there is nothing
    /// to tell.
    fn part(
        &self,
        identity: &Identity,
        kind: ConfigurationKind,
        only: Option<&ModuleId>,
    ) -> Result<Option<Value>, ServiceError> {
        if self.of_kind(kind).next().is_none() {
            return Ok(None);
        }
        let matching = self.matching(identity, kind)?;
        let over = match kind {
            ConfigurationKind::Edge => self.over_sections(identity, &matching)?,
            ConfigurationKind::Device | ConfigurationKind::Module => BTreeMap::new(),
        };
        let is_asked = |item: &Item| match only {
            None => true,
            Some(only) => matches!(item, Item::ModuleSetting(module, _) if module == only),
        };
        let items: Vec<Value> = claims_below(&matching, &over)
            .into_iter()
            .filter(|(item, _)| is_asked(item))
            .map(|(item, claims)| {
                let claims: Vec<Value> = claims.iter().map(claim).collect();
                json!({ "item": item.to_string(), "claims": claims })
            })
            .collect();
        if only.is_some() && items.is_empty() {
            return Ok(None);
        }
        self.told(identity, kind, &matching, items).map(Some)
    }

    fn told(
        &self,
        identity: &Identity,
        kind: ConfigurationKind,
        matching: &[&Configuration],
        items: Vec<Value>,
    ) -> Result<Value, ServiceError> {
        let not_targeted: Vec<_> = self
            .of_kind(kind)
            .filter(|it| !matching.iter().any(|other| other.id() == it.id()))
            .map(|it| it.id().as_str())
            .collect();
        let intent = Intent::of(kind, matching);
        let row = self
            .view
            .twin_configurations(&row_identity(kind, identity))?
            .unwrap_or_default();
        let is_in_force = row.fingerprint == intent.fingerprint && (row.trusted || intent.fingerprint.is_empty());
        // It may have been applied since it was asked for.
        let problem = self.refusals.get(&kind).filter(|_| !is_in_force);
        let base = matching.iter().find(|it| !it.is_layer()).copied();
        let configurations: Vec<Value> = matching
            .iter()
            .map(|it| {
                let status = intent.statuses.get(it.id()).copied().unwrap_or(Status::Targeted);
                json!({
                    "id": it.id().as_str(),
                    "priority": it.priority(),
                    "createdTimeUtc": it.created(),
                    "layer": it.is_layer(),
                    "status": status.as_str(),
                    "reason": reason(it, kind, status, base),
                })
            })
            .collect();
        Ok(json!({
            "content": kind.member(),
            "inForce": is_in_force,
            "problem": problem,
            "configurations": configurations,
            "notTargeted": not_targeted,
            "items": items,
        }))
    }
}

/// Why a configuration that matches is what it is.
fn reason(it: &Configuration, kind: ConfigurationKind, status: Status, base: Option<&Configuration>) -> String {
    if kind != ConfigurationKind::Edge {
        return match status {
            Status::Applied => "it sets what nothing better sets".to_owned(),
            Status::Targeted => "all that it sets is set by better ones".to_owned(),
        };
    }
    let Some(base) = base else {
        return "it is a layer, which changes a base deployment and does nothing alone, and no base deployment is for this device"
            .to_owned();
    };
    if it.id() == base.id() {
        return "it is the base deployment of the highest priority; of those the newest".to_owned();
    }
    let than = format!("the base deployment `{}` ({})", base.id(), base.priority());
    match (it.is_layer(), status) {
        (false, _) if it.priority() == base.priority() => format!("it is older than {than}"),
        (false, _) => format!("its priority is below that of {than}"),
        (true, _) if it.priority() <= base.priority() => {
            format!("it is a layer, and its priority is not above that of {than}")
        }
        (true, Status::Applied) => format!("it is a layer above {than}"),
        (true, Status::Targeted) => format!(
            "it is a layer above {than}, and merged; one that sets nothing of `$edgeAgent` is never said to be applied"
        ),
    }
}

fn claim(claim: &Claim) -> Value {
    let (verdict, by) = match &claim.verdict {
        Verdict::InForce => ("in force", None),
        Verdict::ReplacedBy(by) => ("replaced", Some(by.as_str())),
    };
    json!({
        "configuration": claim.configuration.as_str(),
        "verdict": verdict,
        "by": by,
        "detail": claim.detail,
        "removes": claim.removes,
    })
}
