//! What a change of a configuration would do, without doing it: the fleet is asked with and without it.
//!
//! Targets that would go from the same to the same are counted together, so the answer is short however large the fleet is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use holm_model::configuration::{Configuration, ConfigurationId, ConfigurationKind, ConfigurationWish, Status};
use holm_model::manifest::ModuleContent;
use holm_model::{ServiceError, Timestamp};
use serde_json::{Map, Value, json};

use super::intent::{Effect, Intent};
use super::lane::Lane;
use super::not_found;
use crate::storage::View;

/// A change that may be made.
#[derive(Clone, Debug)]
pub enum Change {
    /// This configuration is made, or changed if it is there.
    Put(ConfigurationId, Box<ConfigurationWish>),
    /// This configuration is removed.
    Remove(ConfigurationId),
}

/// Targets that are named for example, of all and of each group.
const EXAMPLES: usize = 5;
/// Groups that are told, the largest first.
const MAX_GROUPS: usize = 50;

/// Works out what a change would do.
///
/// ```json
/// {"id": "v2", "content": "modulesContent", "targeted": 40, "applied": 38, "changed": 38, "examples": ["d1"],
///  "groups": [{"count": 38, "examples": ["d1"], "from": ["v1"], "to": ["v2"],
///              "added": ["module b"], "removed": ["module a"], "changed": ["route up"]}], "more": 0}
/// ```
///
/// # Errors
/// What the change itself would be refused with; when the database can't be read.
pub(super) fn preview(view: &View<'_>, change: Change, now: Timestamp) -> Result<Value, ServiceError> {
    let before = view.configurations()?;
    let mut after = before.clone();
    let (id, kind) = match change {
        Change::Put(id, wish) => {
            let kind = put(&mut after, id.clone(), *wish, now)?;
            (id, kind)
        }
        Change::Remove(id) => {
            let at = after
                .iter()
                .position(|it| *it.id() == id)
                .ok_or_else(|| not_found(&id))?;
            (id, after.remove(at).kind())
        }
    };
    let shared = |all: Vec<Configuration>| -> Vec<Arc<Configuration>> {
        all.into_iter().filter(|it| it.kind() == kind).map(Arc::new).collect()
    };
    let (before, after) = (shared(before), shared(after));
    let mut lane = Lane::new(kind);
    // The columns of both, so that the fleet is read once.
    let both: Vec<_> = before.iter().chain(&after).cloned().collect();
    lane.compile(&both);
    lane.load(view)?;
    lane.compile(&before);
    lane.evaluate();
    let now = Side::of(kind, &lane);
    lane.compile(&after);
    lane.evaluate();
    Ok(told(&id, kind, &lane, now, Side::of(kind, &lane)))
}

fn put(
    all: &mut Vec<Configuration>,
    id: ConfigurationId,
    wish: ConfigurationWish,
    now: Timestamp,
) -> Result<ConfigurationKind, ServiceError> {
    let newest = all.iter().map(Configuration::created).max();
    let place = all.iter_mut().find(|it| *it.id() == id);
    let new = match &place {
        Some(current) => current.changed(wish, now, 0)?,
        None => {
            let created = newest.map_or(now, |newest| now.max(newest.plus_millis(1)));
            Configuration::create(id, wish, created, 0)?
        }
    };
    super::matcher::Matcher::new(Arc::new(new.clone()))?;
    let kind = new.kind();
    match place {
        Some(current) => *current = new,
        None => all.push(new),
    }
    Ok(kind)
}

/// The fleet with or without the change.
struct Side {
    kind: ConfigurationKind,
    /// The set of each target.
    wanted: Vec<u32>,
    sets: Vec<Vec<Arc<Configuration>>>,
    intents: HashMap<u32, Arc<Intent>>,
}

impl Side {
    fn of(kind: ConfigurationKind, lane: &Lane) -> Self {
        Self {
            kind,
            wanted: lane.wanted().map(|(_, set)| set).collect(),
            sets: lane.sets(),
            intents: HashMap::new(),
        }
    }

    fn has(&self, set: u32, id: &ConfigurationId) -> bool {
        let members = self.sets.get(set as usize).into_iter().flatten();
        members.into_iter().any(|it| it.id() == id)
    }

    /// What a set comes to; made once.
    fn intent(&mut self, set: u32) -> Arc<Intent> {
        let made = self.intents.entry(set).or_insert_with(|| {
            let members = self.sets.get(set as usize).into_iter().flatten();
            let members: Vec<&Configuration> = members.map(|it| &**it).collect();
            Arc::new(Intent::of(self.kind, &members))
        });
        Arc::clone(made)
    }
}

struct Group {
    count: usize,
    examples: Vec<String>,
    from: Arc<Intent>,
    to: Arc<Intent>,
}

fn told(id: &ConfigurationId, kind: ConfigurationKind, lane: &Lane, mut before: Side, mut after: Side) -> Value {
    let (mut targeted, mut applied) = (0_u64, 0_u64);
    let mut groups: HashMap<(String, String), Group> = HashMap::new();
    let sets: Vec<(u32, u32)> = before
        .wanted
        .iter()
        .copied()
        .zip(after.wanted.iter().copied())
        .collect();
    for ((identity, _), (from, to)) in lane.wanted().zip(sets) {
        // Sets without the one that changes come to the same.
        if !before.has(from, id) && !after.has(to, id) {
            continue;
        }
        let (from, to) = (before.intent(from), after.intent(to));
        match to.statuses.get(id) {
            Some(Status::Applied) => (targeted, applied) = (targeted + 1, applied + 1),
            Some(Status::Targeted) => targeted += 1,
            None => {}
        }
        if from.effect == to.effect {
            continue;
        }
        let key = (from.fingerprint.clone(), to.fingerprint.clone());
        let group = groups.entry(key).or_insert_with(|| Group {
            count: 0,
            examples: Vec::new(),
            from: Arc::clone(&from),
            to: Arc::clone(&to),
        });
        group.count += 1;
        if group.examples.len() < EXAMPLES {
            group.examples.push(identity.to_string());
        }
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by_key(|group| (std::cmp::Reverse(group.count), group.examples.first().cloned()));
    let changed: usize = groups.iter().map(|group| group.count).sum();
    let examples: Vec<_> = groups.iter().flat_map(|group| &group.examples).take(EXAMPLES).collect();
    let more: usize = groups.iter().skip(MAX_GROUPS).map(|group| group.count).sum();
    let shown: Vec<Value> = groups.iter().take(MAX_GROUPS).map(group).collect();
    json!({
        "id": id.as_str(),
        "content": kind.member(),
        "targeted": targeted,
        "applied": applied,
        "changed": changed,
        "examples": examples,
        "groups": shown,
        "more": more,
    })
}

fn group(group: &Group) -> Value {
    let names = |intent: &Intent| intent.applied().map(|id| id.as_str().to_owned()).collect::<Vec<_>>();
    let (from, to) = (parts(&group.from.effect), parts(&group.to.effect));
    let all: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    let (mut added, mut removed, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    for name in all {
        match (from.get(name), to.get(name)) {
            (None, Some(_)) => added.push(name),
            (Some(_), None) => removed.push(name),
            (Some(from), Some(to)) if from != to => changed.push(name),
            _ => {}
        }
    }
    // No base any more: what an edge has stays.
    let is_kept = group.to.effect == Effect::Nothing;
    json!({
        "count": group.count,
        "examples": group.examples,
        "from": names(&group.from),
        "to": names(&group.to),
        "added": added,
        "removed": if is_kept { Vec::new() } else { removed },
        "changed": changed,
        "kept": is_kept,
    })
}

/// What an effect sets, by names for people.
fn parts(effect: &Effect) -> BTreeMap<String, Value> {
    let mut parts = BTreeMap::new();
    match effect {
        Effect::Nothing => {}
        Effect::Settings(plan) => {
            for setting in &plan.settings {
                parts.insert(format!("setting {}", setting.path.join(".")), setting.value.clone());
            }
        }
        Effect::Modules(content) => {
            for (module, given) in &content.modules {
                let ModuleContent::Whole(section) = given else { continue };
                for (name, value) in section {
                    let is_group =
                        module.is_system() && matches!(name.as_str(), "modules" | "routes" | "systemModules");
                    match value.as_object().filter(|_| is_group) {
                        None => {
                            parts.insert(format!("setting {module}: {name}"), value.clone());
                        }
                        Some(inner) => {
                            let word = if name == "routes" { "route" } else { "module" };
                            parts.extend(
                                inner
                                    .iter()
                                    .map(|(name, value)| (format!("{word} {name}"), bare(value))),
                            );
                        }
                    }
                }
            }
        }
    }
    parts
}

/// An entry without the note whose it is: the same from another deployment is no change.
fn bare(entry: &Value) -> Value {
    match entry {
        Value::Object(members) => {
            let kept = members.iter().filter(|(name, _)| *name != "configuration");
            Value::Object(
                kept.map(|(name, value)| (name.clone(), value.clone()))
                    .collect::<Map<_, _>>(),
            )
        }
        other => other.clone(),
    }
}
