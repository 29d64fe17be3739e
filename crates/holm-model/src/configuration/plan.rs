//! What follows from the configurations that match a device or module: pure, and the same in whatever order they come.
//!
//! ```text
//! edge     base = the best base;  layers = those above the base's priority, from the least to the best
//!          base's sections, then each layer's paths set over them
//! others   each path for itself: the best that sets it, or something above it
//! ```
//!
//! *Best* is the greatest priority, then the newest. No base: layers do nothing, and nothing is written.
//!
//! Each entry of a module in the merged `$edgeAgent` says whose it is: `"configuration": {"id": …}`.
//!
//! Source: `hub-service-api.md` §3.3, `edge-agent.md` §1.1.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{Configuration, ConfigurationContent, ConfigurationId, Setting};
use crate::ModuleId;
use crate::manifest::{DeploymentContent, ModuleContent, remove_path, set_path};

/// What a configuration is to one that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// Outranked, or nothing by itself.
    Targeted,
    /// In force.
    Applied,
}

impl Status {
    /// The published word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Targeted => "Targeted",
            Self::Applied => "Applied",
        }
    }
}

/// What an edge device shall have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EdgePlan {
    /// Whole sections of modules; `None` where no base matches: its twins stay what they are.
    pub content: Option<DeploymentContent>,
    /// What was merged: the base, then the layers.
    pub chain: Vec<ConfigurationId>,
    /// Every configuration that matches.
    pub statuses: BTreeMap<ConfigurationId, Status>,
}

/// What the desired properties of a device or module shall hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SettingsPlan {
    /// In the order in which they are set.
    pub settings: Vec<Setting>,
    /// Every configuration that matches.
    pub statuses: BTreeMap<ConfigurationId, Status>,
}

/// The base in force and the layers over it, from the least to the best.
pub(super) fn chain<'c>(matching: &[&'c Configuration]) -> Option<(&'c Configuration, Vec<&'c Configuration>)> {
    let base = matching.iter().filter(|it| !it.is_layer()).max_by_key(|it| it.rank())?;
    let mut layers: Vec<_> = matching
        .iter()
        .copied()
        .filter(|it| it.is_layer() && it.priority() > base.priority())
        .collect();
    layers.sort_by_key(|it| it.rank());
    Some((base, layers))
}

impl EdgePlan {
    /// Merges the deployments that match an edge device.
    #[must_use]
    pub fn of(matching: &[&Configuration]) -> Self {
        let mut statuses: BTreeMap<_, _> = matching.iter().map(|it| (it.id().clone(), Status::Targeted)).collect();
        let Some((base, layers)) = chain(matching) else {
            let (content, chain) = (None, Vec::new());
            return Self {
                content,
                chain,
                statuses,
            };
        };
        let mut sections: BTreeMap<ModuleId, Map<String, Value>> = BTreeMap::new();
        let mut owners = BTreeMap::new();
        for it in std::iter::once(base).chain(layers.iter().copied()) {
            let Some(content) = edge(it) else { continue };
            for (module, given) in &content.modules {
                // A layer that only says `$edgeAgent: {}` makes no section.
                if matches!(given, ModuleContent::Paths(paths) if paths.is_empty()) {
                    continue;
                }
                let section = sections.entry(module.clone()).or_default();
                *section = given.applied_to(section);
            }
            own(content, it.id(), &mut owners);
            // Published: a layer that sets nothing of `$edgeAgent` is merged, and never said to be applied.
            let is_silent = matches!(
                content.modules.get(&ModuleId::edge_agent()),
                Some(ModuleContent::Paths(paths)) if paths.is_empty()
            );
            if !is_silent {
                statuses.insert(it.id().clone(), Status::Applied);
            }
        }
        if let Some(agent) = sections.get_mut(&ModuleId::edge_agent()) {
            say_whose(agent, &owners);
        }
        let modules = sections
            .into_iter()
            .map(|(module, section)| (module, ModuleContent::Whole(section)))
            .collect();
        let chain = std::iter::once(base).chain(layers).map(|it| it.id().clone()).collect();
        Self {
            content: Some(DeploymentContent { modules }),
            chain,
            statuses,
        }
    }
}

pub(super) const fn edge(configuration: &Configuration) -> Option<&DeploymentContent> {
    match configuration.content() {
        ConfigurationContent::Edge(content) => Some(content),
        _ => None,
    }
}

type Owners = BTreeMap<(String, String), ConfigurationId>;

/// Notes who gave the entries of modules in `$edgeAgent` last.
fn own(content: &DeploymentContent, id: &ConfigurationId, owners: &mut Owners) {
    match content.modules.get(&ModuleId::edge_agent()) {
        Some(ModuleContent::Whole(desired)) => {
            for group in ["modules", "systemModules"] {
                let names = desired.get(group).and_then(Value::as_object).into_iter().flatten();
                owners.extend(names.map(|(name, _)| ((group.to_owned(), name.clone()), id.clone())));
            }
        }
        Some(ModuleContent::Paths(paths)) => {
            for (path, value) in paths {
                match path.as_slice() {
                    [group, name, ..] if group == "modules" => {
                        owners.insert((group.clone(), name.clone()), id.clone());
                    }
                    [group] if group == "modules" => {
                        let names = value.as_object().into_iter().flatten();
                        owners.extend(names.map(|(name, _)| ((group.clone(), name.clone()), id.clone())));
                    }
                    _ => {}
                }
            }
        }
        None => {}
    }
}

fn say_whose(agent: &mut Map<String, Value>, owners: &Owners) {
    for ((group, name), id) in owners {
        let entry = agent.get_mut(group).and_then(|group| group.get_mut(name));
        if let Some(Value::Object(entry)) = entry {
            entry.insert("configuration".to_owned(), json!({ "id": id.as_str() }));
        }
    }
}

impl SettingsPlan {
    /// Decides the settings of those that match a device or module.
    #[must_use]
    pub fn of(matching: &[&Configuration]) -> Self {
        let mut best_first = matching.to_vec();
        best_first.sort_by_key(|it| std::cmp::Reverse(it.rank()));
        let mut statuses = BTreeMap::new();
        let mut taken: BTreeSet<&[String]> = BTreeSet::new();
        let mut groups = Vec::new();
        for it in best_first {
            let settings = settings_of(it);
            let is_taken = |setting: &&Setting| (1..=setting.path.len()).any(|n| taken.contains(&setting.path[..n]));
            let in_force: Vec<_> = settings.iter().filter(|setting| !is_taken(setting)).cloned().collect();
            let status = if in_force.is_empty() {
                Status::Targeted
            } else {
                Status::Applied
            };
            statuses.insert(it.id().clone(), status);
            taken.extend(settings.iter().map(|setting| setting.path.as_slice()));
            groups.push(in_force);
        }
        let settings = groups.into_iter().rev().flatten().collect();
        Self { settings, statuses }
    }

    /// The desired section that results, where configurations have written `written` before. What they have written and none sets
    /// any more is removed, with the objects that are empty then.
    #[must_use]
    pub fn applied_to(&self, current: &Map<String, Value>, written: &[Vec<String>]) -> Map<String, Value> {
        let mut desired = current.clone();
        for path in written {
            if !self.settings.iter().any(|setting| setting.path == *path) {
                remove_path(&mut desired, path);
            }
        }
        for setting in &self.settings {
            set_path(&mut desired, &setting.path, &setting.value);
        }
        desired
    }

    /// The paths that are written, to be removed when nobody sets them any more.
    #[must_use]
    pub fn written(&self) -> Vec<Vec<String>> {
        let settings = self.settings.iter().filter(|setting| !setting.value.is_null());
        settings.map(|setting| setting.path.clone()).collect()
    }
}

pub(super) fn settings_of(configuration: &Configuration) -> &[Setting] {
    match configuration.content() {
        ConfigurationContent::Device(settings) | ConfigurationContent::Module(settings) => settings,
        ConfigurationContent::Edge(_) => &[],
    }
}
