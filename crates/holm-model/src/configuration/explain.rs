//! Why a device has what it has: for each module, route and setting, who claims it, from the least to the best, and what became
//! of the claim.
//!
//! ```text
//! item                     claims
//! module `sensor`          base `v1` (10): replaced by `v2` · layer `v2` (20): in force
//! route `up`               base `v1` (10): in force
//! setting `sensor` rate    base `v1` (10): in force · layer `fast` (30): in force, `a.b` of it
//! setting `sensor` level   layer `v2` (20): replaced by `debug` · configuration for modules `debug` (1): in force
//! ```
//!
//! Source: `hub-service-api.md` §3.3.

use std::collections::BTreeMap;
use std::fmt;

use super::plan::{chain, edge, settings_of};
use super::{Configuration, ConfigurationId, ConfigurationKind};
use crate::ModuleId;
use crate::manifest::ModuleContent;

/// What configurations can agree or differ about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// A module that an edge runs.
    Module(String),
    /// A route of an edge.
    Route(String),
    /// Something else that `$edgeAgent` or `$edgeHub` is told, by its path.
    Runtime(ModuleId, String),
    /// A desired property of a module of an edge, by its first name.
    ModuleSetting(ModuleId, String),
    /// A desired property of a device, or of a module that is no edge's matter, by its path.
    Setting(String),
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module(name) => write!(f, "module {name}"),
            Self::Route(name) => write!(f, "route {name}"),
            Self::Runtime(module, path) | Self::ModuleSetting(module, path) => write!(f, "setting {module}: {path}"),
            Self::Setting(path) => write!(f, "setting {path}"),
        }
    }
}

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stands in the twin.
    InForce,
    /// A better one sets the same, or all around it.
    ReplacedBy(ConfigurationId),
}

/// One configuration's word on an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whose.
    pub configuration: ConfigurationId,
    /// The path that it sets, below the desired section, where that is deeper than the item.
    pub detail: Option<String>,
    /// Whether it removes instead of setting.
    pub removes: bool,
    /// What became of it.
    pub verdict: Verdict,
}

/// The claims of those that match, by item; each from the least to the best. Of edge deployments only those count that are merged:
/// the others are outranked as wholes.
#[must_use]
pub fn claims(matching: &[&Configuration]) -> BTreeMap<Item, Vec<Claim>> {
    claims_below(matching, &BTreeMap::new())
}

/// As [`claims`], of edge deployments over whose sections of modules lies what these configurations for modules set, whatever their
/// priority.
#[must_use]
pub fn claims_below(
    matching: &[&Configuration],
    settings: &BTreeMap<ModuleId, Vec<&Configuration>>,
) -> BTreeMap<Item, Vec<Claim>> {
    let is_edge = matching.iter().any(|it| it.kind() == ConfigurationKind::Edge);
    let mut words = if is_edge {
        edge_words(matching)
    } else {
        settings_words(matching, None)
    };
    for (module, over) in settings {
        words.extend(settings_words(over, Some(module)));
    }
    let mut claims: BTreeMap<Item, Vec<Claim>> = BTreeMap::new();
    for (index, word) in words.iter().enumerate() {
        let better = words[index + 1..].iter();
        let replaced = better
            .filter(|other| other.configuration != word.configuration && other.module == word.module)
            .find(|other| word.path.starts_with(&other.path) || (other.is_whole && !word.is_system));
        let verdict = match replaced {
            Some(other) => Verdict::ReplacedBy(other.configuration.clone()),
            None => Verdict::InForce,
        };
        let (item, depth) = item_of(word);
        let detail = word.path.get(depth..).filter(|rest| !rest.is_empty());
        claims.entry(item).or_default().push(Claim {
            configuration: word.configuration.clone(),
            detail: detail.map(|rest| rest.join(".")),
            removes: word.removes,
            verdict,
        });
    }
    claims
}

/// One path that one configuration sets.
struct Word<'c> {
    configuration: &'c ConfigurationId,
    module: Option<&'c ModuleId>,
    is_system: bool,
    /// Part of a section that is given whole, and so replaces all that stood there.
    is_whole: bool,
    path: Vec<String>,
    removes: bool,
}

fn settings_words<'c>(matching: &[&'c Configuration], module: Option<&'c ModuleId>) -> Vec<Word<'c>> {
    let mut sorted = matching.to_vec();
    sorted.sort_by_key(|it| it.rank());
    let all = sorted
        .into_iter()
        .flat_map(|it| settings_of(it).iter().map(move |setting| (it, setting)));
    all.map(|(it, setting)| Word {
        configuration: it.id(),
        module,
        is_system: false,
        is_whole: false,
        path: setting.path.clone(),
        removes: setting.value.is_null(),
    })
    .collect()
}

fn edge_words<'c>(matching: &[&'c Configuration]) -> Vec<Word<'c>> {
    let Some((base, layers)) = chain(matching) else {
        return Vec::new();
    };
    let mut words = Vec::new();
    for it in std::iter::once(base).chain(layers) {
        for (module, given) in edge(it).into_iter().flat_map(|content| &content.modules) {
            let word = |path: Vec<String>, is_whole: bool, removes: bool| Word {
                configuration: it.id(),
                module: Some(module),
                is_system: module.is_system(),
                is_whole,
                path,
                removes,
            };
            match given {
                ModuleContent::Paths(paths) => {
                    words.extend(
                        paths
                            .iter()
                            .map(|(path, value)| word(path.clone(), false, value.is_null())),
                    );
                }
                // Nothing, in the place of all that stood there.
                ModuleContent::Whole(desired) if desired.is_empty() => words.push(word(Vec::new(), true, true)),
                ModuleContent::Whole(desired) => {
                    for (name, value) in desired {
                        let is_group = matches!(name.as_str(), "modules" | "systemModules" | "routes");
                        match value.as_object().filter(|_| module.is_system() && is_group) {
                            None => words.push(word(vec![name.clone()], true, value.is_null())),
                            Some(inner) => {
                                words.extend(inner.iter().map(|(inner, value)| {
                                    word(vec![name.clone(), inner.clone()], true, value.is_null())
                                }))
                            }
                        }
                    }
                }
            }
        }
    }
    words
}

/// The item that a path is about, and how many of its names say so.
fn item_of(word: &Word<'_>) -> (Item, usize) {
    let first = word.path.first().cloned().unwrap_or_else(|| "*".to_owned());
    let Some(module) = word.module else {
        return (Item::Setting(word.path.join(".")), word.path.len());
    };
    match (word.is_system, word.path.as_slice()) {
        (true, [group, name, ..]) if group == "modules" => (Item::Module(name.clone()), 2),
        (true, [group, name, ..]) if group == "routes" => (Item::Route(name.clone()), 2),
        (true, [group, name, ..]) if group == "systemModules" => (Item::Module(format!("${name}")), 2),
        (true, _) => (Item::Runtime(module.clone(), first), 1),
        (false, _) => (Item::ModuleSetting(module.clone(), first), 1),
    }
}
