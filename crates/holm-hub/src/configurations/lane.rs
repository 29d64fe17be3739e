//! The targets of one kind of configuration, in memory: what is known of each, who matches, what was applied.
//!
//! ```text
//!              tags.site   tags.ring     matches        applied (from its row)
//! slot 0  d1       3           7         {v1, v2}       v1@…<v2@…
//! slot 1  d2       4           7         {v1}           -              -> pending
//!
//! index   (tags.site, 3) -> [v2]         conditions that need this value; the others are asked of everyone
//! ```
//!
//! - What is known of a target is read from the database, never told: whoever changes something says only who changed.
//! - Whom a configuration is for is known without merging: targets with equal sets of matches have one fingerprint. The merge is made
//!   when something is written, once for all of a set that are written together.
//!
//! A lane exists while there are configurations of its kind, or something is left of the last one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use holm_model::configuration::{Configuration, ConfigurationId, ConfigurationKind};
use holm_model::{DeviceId, Identity, ModuleId, ServiceError};

use super::facts::{self, Column};
use super::intent::{self, Intent};
use super::matcher::Matcher;
use super::outcome::Outcome;
use super::terms::Terms;
use crate::actor::Actor;
use crate::storage::{Candidate, View};

/// A lane learns its fleet anew when it knows more values than this, and more than four for each target: values of reported
/// properties that come once and never again would fill the memory.
const MANY_TERMS: usize = 1 << 20;

/// What sets come to that is kept. A merged deployment has some kilobytes, and each device may have a set of its own.
const MAX_MADE: usize = 1024;

/// Answers of conditions that are remembered, of all together: some 30 MB. Beyond it all are forgotten, and found again.
const MAX_REMEMBERED: usize = if cfg!(test) { 64 } else { 1 << 18 };

/// The targets of one kind.
#[derive(Debug)]
pub(super) struct Lane {
    kind: ConfigurationKind,
    matchers: Vec<Matcher>,
    index: Index,
    columns: Vec<Column>,
    terms: Terms,
    /// `columns.len()` terms for each slot.
    facts: Vec<u32>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_identity: HashMap<Identity, u32>,
    /// Sets of matches. The first is empty.
    sets: Vec<Set>,
    set_ids: HashMap<Vec<u16>, u32>,
    /// What some sets come to, for those who are written to now.
    made: HashMap<u32, Arc<Intent>>,
    /// What rows name as applied; the first is nothing.
    marks: Vec<Mark>,
    mark_ids: HashMap<String, u32>,
    pending: BTreeSet<u32>,
    is_loaded: bool,
    /// How many more answers conditions may remember.
    room: usize,
}

#[derive(Debug)]
struct Slot {
    /// `None`: nobody stands here.
    identity: Option<Identity>,
    wanted: u32,
    applied: u32,
    is_trusted: bool,
    outcome: Outcome,
    /// What could not be applied, by its fingerprint, and why; tried again when another thing is wanted, or the twin changes. Not by
    /// the number of its set: sets are numbered anew whenever a configuration comes or goes.
    refused: Option<Box<(String, ServiceError)>>,
}

#[derive(Debug)]
struct Set {
    members: Vec<u16>,
    fingerprint: String,
}

#[derive(Debug)]
struct Mark {
    fingerprint: String,
    applied: Vec<ConfigurationId>,
}

/// Which conditions must be asked of whom.
#[derive(Debug, Default)]
struct Index {
    by_term: HashMap<(usize, u32), Vec<u16>>,
    others: Vec<u16>,
}

/// Something to be applied.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) kind: ConfigurationKind,
    pub(super) identity: Identity,
    pub(super) intent: Arc<Intent>,
}

impl Job {
    /// Who does it: the configurations that are in force, or the hub where none is any more.
    pub(super) fn actor(&self) -> Actor {
        let names: Vec<&str> = self.intent.applied().map(ConfigurationId::as_str).collect();
        if names.is_empty() {
            Actor::Hub
        } else {
            Actor::Deployment(names.join(","))
        }
    }
}

/// The figures of one configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) targeted: u64,
    pub(super) applied: u64,
    pub(super) successful: u64,
    pub(super) failed: u64,
}

impl Lane {
    /// A lane that knows nobody.
    pub(super) fn new(kind: ConfigurationKind) -> Self {
        let mut lane = Self {
            kind,
            matchers: Vec::new(),
            index: Index::default(),
            columns: Vec::new(),
            terms: Terms::default(),
            facts: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            by_identity: HashMap::new(),
            sets: Vec::new(),
            set_ids: HashMap::new(),
            made: HashMap::new(),
            marks: Vec::new(),
            mark_ids: HashMap::new(),
            pending: BTreeSet::new(),
            is_loaded: false,
            room: MAX_REMEMBERED,
        };
        lane.mark("", Vec::new);
        lane
    }

    /// Takes these configurations for those that there are. Everyone is asked anew with [`Lane::evaluate`], after a
    /// [`Lane::load`] where that says so: conditions may read what was not read before.
    pub(super) fn compile(&mut self, configurations: &[Arc<Configuration>]) {
        let mut matchers = Vec::new();
        for configuration in configurations {
            match Matcher::new(Arc::clone(configuration)) {
                Ok(matcher) => matchers.push(matcher),
                // It was read before it was kept; another release may have known more.
                Err(error) => {
                    tracing::error!(configuration = %configuration.id(), %error, "a configuration is for nobody");
                }
            }
        }
        self.matchers = matchers;
        let needed: BTreeSet<Column> = self.matchers.iter().flat_map(|it| it.columns().to_vec()).collect();
        if !needed.iter().all(|column| self.columns.contains(column)) {
            self.columns = needed.into_iter().collect();
            self.is_loaded = false;
        }
        self.compile_index();
    }

    fn compile_index(&mut self) {
        let place_of = |columns: &[Column], column: &Column| columns.iter().position(|it| it == column);
        self.index = Index::default();
        for (number, matcher) in self.matchers.iter_mut().enumerate() {
            let columns = &self.columns;
            matcher.place(|column| place_of(columns, column).unwrap_or(usize::MAX));
            let Ok(number) = u16::try_from(number) else { continue };
            // A need that reads within another column is not in the index.
            let needs = matcher.needs().and_then(|needs| {
                let placed = needs
                    .into_iter()
                    .map(|(column, value)| Some((place_of(columns, &column)?, value)));
                placed.collect::<Option<Vec<_>>>()
            });
            match needs {
                None => self.index.others.push(number),
                Some(needs) => {
                    for (place, value) in needs {
                        let term = self.terms.intern(&value);
                        self.index.by_term.entry((place, term)).or_default().push(number);
                    }
                }
            }
        }
        self.room = MAX_REMEMBERED;
        self.sets.clear();
        self.set_ids.clear();
        self.made.clear();
        self.set(Vec::new());
    }

    /// Whether what conditions read of the fleet is known.
    pub(super) const fn is_loaded(&self) -> bool {
        self.is_loaded
    }

    /// Reads the whole fleet.
    ///
    /// # Errors
    /// When the database can't be read; then nothing is known.
    pub(super) fn load(&mut self, view: &View<'_>) -> Result<(), ServiceError> {
        self.is_loaded = false;
        self.terms = Terms::default();
        self.facts.clear();
        self.slots.clear();
        self.free.clear();
        self.by_identity.clear();
        self.pending.clear();
        self.marks.clear();
        self.mark_ids.clear();
        self.mark("", Vec::new);
        self.compile_index();
        view.each_candidate(self.kind, |candidate| {
            if let Some(identity) = identity_of(candidate) {
                self.learn(identity, candidate);
            }
        })?;
        if self.kind == ConfigurationKind::Edge {
            view.each_agent(|device, document| {
                if let Ok(device) = DeviceId::new(device)
                    && let Some(slot) = self.by_identity.get(&Identity::of_device(device))
                    && let Some(slot) = self.slots.get_mut(*slot as usize)
                {
                    slot.outcome = Outcome::read(document);
                }
            })?;
        }
        self.is_loaded = true;
        Ok(())
    }

    /// Asks every condition of everyone, where it can matter.
    pub(super) fn evaluate(&mut self) {
        let mut scratch = Scratch::default();
        for slot in 0..self.slots.len() {
            self.evaluate_slot(slot, &mut scratch);
        }
    }

    /// Reads one target anew, and asks the conditions that matter of it.
    ///
    /// # Errors
    /// When the database can't be read.
    pub(super) fn refresh(&mut self, view: &View<'_>, identity: &Identity) -> Result<(), ServiceError> {
        let is_agent = identity
            .module
            .as_ref()
            .is_some_and(|module| *module == ModuleId::edge_agent());
        match (self.kind, &identity.module) {
            (ConfigurationKind::Edge, Some(_)) if is_agent => return self.refresh_outcome(view, identity),
            (ConfigurationKind::Edge | ConfigurationKind::Device, Some(_)) | (ConfigurationKind::Module, None) => {
                return Ok(());
            }
            (ConfigurationKind::Module, Some(module)) if module.is_system() => return Ok(()),
            _ => {}
        }
        let found = view.candidate(self.kind, identity, |candidate| self.learn(identity.clone(), candidate))?;
        match found {
            Some(slot) => {
                if let Some(slot) = self.slots.get_mut(slot) {
                    slot.refused = None;
                }
                self.evaluate_slot(slot, &mut Scratch::default());
            }
            None => self.forget(identity),
        }
        Ok(())
    }

    /// Whether it is better to read the whole fleet anew.
    pub(super) fn is_worn(&self) -> bool {
        self.terms.len() > MANY_TERMS && self.terms.len() > self.slots.len().saturating_mul(4)
    }

    fn refresh_outcome(&mut self, view: &View<'_>, agent: &Identity) -> Result<(), ServiceError> {
        let device = Identity::of_device(agent.device.clone());
        let Some(slot) = self.by_identity.get(&device).copied() else {
            return Ok(());
        };
        let outcome = view.agent(&agent.device, Outcome::read)?;
        if let Some(slot) = self.slots.get_mut(slot as usize) {
            slot.outcome = outcome.unwrap_or_default();
        }
        Ok(())
    }

    fn learn(&mut self, identity: Identity, candidate: &Candidate<'_>) -> usize {
        let width = self.columns.len();
        let slot = match self.by_identity.get(&identity) {
            Some(slot) => *slot as usize,
            None => self.occupy(identity),
        };
        let mut terms = Vec::with_capacity(width);
        facts::terms_of(candidate, &self.columns, &mut self.terms, &mut terms);
        if let Some(place) = self.facts.get_mut(slot * width..(slot + 1) * width) {
            place.copy_from_slice(&terms);
        }
        let applied = self.mark(candidate.fingerprint.unwrap_or_default(), || candidate.applied());
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.applied = applied;
            slot.is_trusted = candidate.trusted;
        }
        slot
    }

    fn occupy(&mut self, identity: Identity) -> usize {
        let new = Slot {
            identity: Some(identity.clone()),
            wanted: 0,
            applied: 0,
            is_trusted: true,
            outcome: Outcome::default(),
            refused: None,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                if let Some(place) = self.slots.get_mut(slot as usize) {
                    *place = new;
                }
                slot
            }
            None => {
                self.slots.push(new);
                self.facts.resize(self.slots.len() * self.columns.len(), 0);
                // A fleet of 2^32 does not fit into memory.
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.by_identity.insert(identity, slot);
        slot as usize
    }

    fn forget(&mut self, identity: &Identity) {
        if let Some(slot) = self.by_identity.remove(identity) {
            self.pending.remove(&slot);
            if let Some(place) = self.slots.get_mut(slot as usize) {
                place.identity = None;
                self.free.push(slot);
            }
        }
    }

    fn evaluate_slot(&mut self, slot: usize, scratch: &mut Scratch) {
        let width = self.columns.len();
        let Some(facts) = self.facts.get(slot * width..(slot + 1) * width) else {
            return;
        };
        scratch.matches.clear();
        for (place, term) in facts.iter().enumerate() {
            if let Some(asked) = self.index.by_term.get(&(place, *term)) {
                scratch.matches.extend(asked);
            }
        }
        scratch.matches.extend(&self.index.others);
        scratch.matches.sort_unstable();
        scratch.matches.dedup();
        if self.room < scratch.matches.len() {
            self.matchers.iter_mut().for_each(Matcher::forget);
            self.room = MAX_REMEMBERED;
        }
        let (matchers, terms, key, room) = (&mut self.matchers, &self.terms, &mut scratch.key, &mut self.room);
        scratch.matches.retain(|number| {
            let Some(matcher) = matchers.get_mut(usize::from(*number)) else {
                return false;
            };
            let before = matcher.remembered();
            let holds = matcher.holds(facts, terms, key);
            *room = room.saturating_sub(matcher.remembered() - before);
            holds
        });
        let wanted = match self.set_ids.get(&scratch.matches) {
            Some(set) => *set,
            None => self.set(scratch.matches.clone()),
        };
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.wanted = wanted;
        }
        self.queue(slot);
    }

    /// Puts a slot among those that wait, or takes it away.
    fn queue(&mut self, slot: usize) {
        let Ok(number) = u32::try_from(slot) else { return };
        let Some(slot) = self.slots.get(slot).filter(|slot| slot.identity.is_some()) else {
            return;
        };
        if self.differs(slot) && self.refused(slot).is_none() {
            self.pending.insert(number);
        } else {
            self.pending.remove(&number);
        }
    }

    /// Why what a target shall have now was refused, if it was.
    fn refused<'s>(&self, slot: &'s Slot) -> Option<&'s ServiceError> {
        let (fingerprint, error) = &**slot.refused.as_ref()?;
        let wanted = self.sets.get(slot.wanted as usize)?;
        (wanted.fingerprint == *fingerprint).then_some(error)
    }

    fn differs(&self, slot: &Slot) -> bool {
        let wanted = self.sets.get(slot.wanted as usize).map(|set| set.fingerprint.as_str());
        let applied = self
            .marks
            .get(slot.applied as usize)
            .map(|mark| mark.fingerprint.as_str());
        wanted != applied || (!slot.is_trusted && wanted != Some(""))
    }

    fn set(&mut self, matches: Vec<u16>) -> u32 {
        let id = u32::try_from(self.sets.len()).unwrap_or(u32::MAX);
        let configurations: Vec<&Configuration> = self.configurations(&matches).collect();
        let fingerprint = intent::fingerprint(&configurations);
        self.set_ids.insert(matches.clone(), id);
        self.sets.push(Set {
            members: matches,
            fingerprint,
        });
        id
    }

    fn configurations(&self, members: &[u16]) -> impl Iterator<Item = &Configuration> {
        let matchers = members
            .iter()
            .filter_map(|number| self.matchers.get(usize::from(*number)));
        matchers.map(|matcher| &*matcher.configuration)
    }

    /// What a set comes to.
    fn intent(&mut self, set: u32) -> Option<Arc<Intent>> {
        if let Some(intent) = self.made.get(&set) {
            return Some(Arc::clone(intent));
        }
        let members = &self.sets.get(set as usize)?.members;
        let configurations: Vec<&Configuration> = self.configurations(members).collect();
        let intent = Arc::new(Intent::of(self.kind, &configurations));
        if self.made.len() >= MAX_MADE {
            self.made.clear();
        }
        self.made.insert(set, Arc::clone(&intent));
        Some(intent)
    }

    fn mark(&mut self, fingerprint: &str, applied: impl FnOnce() -> Vec<ConfigurationId>) -> u32 {
        if let Some(id) = self.mark_ids.get(fingerprint) {
            return *id;
        }
        let id = u32::try_from(self.marks.len()).unwrap_or(u32::MAX);
        self.marks.push(Mark {
            fingerprint: fingerprint.to_owned(),
            applied: applied(),
        });
        self.mark_ids.insert(fingerprint.to_owned(), id);
        id
    }

    /// Takes up to `most` of those that wait.
    pub(super) fn take(&mut self, most: usize) -> Vec<Job> {
        let mut jobs = Vec::new();
        while jobs.len() < most
            && let Some(number) = self.pending.pop_first()
        {
            let Some(slot) = self.slots.get(number as usize) else {
                continue;
            };
            let (identity, wanted) = (slot.identity.clone(), slot.wanted);
            if let (Some(identity), Some(intent)) = (identity, self.intent(wanted)) {
                let kind = self.kind;
                jobs.push(Job { kind, identity, intent });
            }
        }
        jobs
    }

    /// Learns that something could not be applied.
    pub(super) fn refuse(&mut self, job: &Job, error: ServiceError) {
        let Some(number) = self.by_identity.get(&job.identity).copied() else {
            return;
        };
        if let Some(slot) = self.slots.get_mut(number as usize) {
            slot.refused = Some(Box::new((job.intent.fingerprint.clone(), error)));
        }
        self.queue(number as usize);
    }

    /// Lets what was refused for a passing reason be tried again; says whether there is such.
    pub(super) fn retry(&mut self, is_passing: impl Fn(&ServiceError) -> bool) -> bool {
        let mut some = false;
        for number in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(number) else {
                continue;
            };
            if slot.refused.as_ref().is_some_and(|refused| is_passing(&refused.1)) {
                slot.refused = None;
                self.queue(number);
                some = true;
            }
        }
        some
    }

    /// Why what is wanted at a target is not applied.
    pub(super) fn refusal(&self, identity: &Identity) -> Option<&ServiceError> {
        self.refused(self.slots.get(*self.by_identity.get(identity)? as usize)?)
    }

    /// How many wait.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether there is nothing to know for: no configuration, and nothing left of one.
    pub(super) fn is_idle(&self) -> bool {
        self.matchers.is_empty()
            && self.pending.is_empty()
            && self
                .slots
                .iter()
                .all(|slot| slot.identity.is_none() || !self.differs(slot))
    }

    /// The set of each target, for those who compare.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (&Identity, u32)> {
        let slots = self.slots.iter();
        slots.filter_map(|slot| Some((slot.identity.as_ref()?, slot.wanted)))
    }

    /// The configurations of each set, in the order of the sets' numbers.
    pub(super) fn sets(&self) -> Vec<Vec<Arc<Configuration>>> {
        let of = |set: &Set| {
            let matchers = set
                .members
                .iter()
                .filter_map(|number| self.matchers.get(usize::from(*number)));
            matchers.map(|matcher| Arc::clone(&matcher.configuration)).collect()
        };
        self.sets.iter().map(of).collect()
    }

    /// The figures of every configuration.
    pub(super) fn counts(&self) -> BTreeMap<ConfigurationId, Counts> {
        let mut by_set: HashMap<u32, u64> = HashMap::new();
        let mut by_mark: HashMap<(u32, Outcome), u64> = HashMap::new();
        for slot in self.slots.iter().filter(|slot| slot.identity.is_some()) {
            *by_set.entry(slot.wanted).or_default() += 1;
            *by_mark.entry((slot.applied, slot.outcome)).or_default() += 1;
        }
        let mut counts: BTreeMap<ConfigurationId, Counts> = BTreeMap::new();
        for (set, number) in by_set {
            for matcher in self.sets.get(set as usize).into_iter().flat_map(|set| &set.members) {
                if let Some(matcher) = self.matchers.get(usize::from(*matcher)) {
                    counts.entry(matcher.configuration.id().clone()).or_default().targeted += number;
                }
            }
        }
        for ((mark, outcome), number) in by_mark {
            for id in self.marks.get(mark as usize).into_iter().flat_map(|mark| &mark.applied) {
                let counts = counts.entry(id.clone()).or_default();
                counts.applied += number;
                match outcome {
                    Outcome::Successful => counts.successful += number,
                    Outcome::Failed => counts.failed += number,
                    Outcome::Unknown => {}
                }
            }
        }
        counts
    }
}

#[derive(Default)]
struct Scratch {
    matches: Vec<u16>,
    key: Vec<u32>,
}

fn identity_of(candidate: &Candidate<'_>) -> Option<Identity> {
    let device = DeviceId::new(candidate.device).ok()?;
    let module = match candidate.module {
        "" => None,
        module => Some(ModuleId::new(module).ok()?),
    };
    Some(Identity { device, module })
}

#[cfg(test)]
mod tests {
    use holm_model::configuration::ConfigurationWish;
    use holm_model::{Timestamp, Twin, TwinUpdate};
    use serde_json::json;

    use super::*;
    use crate::registry::Entry;
    use crate::storage::Repository;

    /// Devices `d0`, `d1`, … whose tag `n` is their number.
    async fn fleet(directory: &tempfile::TempDir, count: u32) -> Repository {
        let repository = Repository::open(&directory.path().join("hub.db")).unwrap();
        let making = repository.change(move |transaction| {
            for number in 0..count {
                let entry = Entry::new(format!("d{number}").parse().unwrap(), Timestamp::NEVER)?;
                transaction.put_entry(&entry)?;
                let mut twin = Twin::new(entry.identity, Timestamp::NEVER);
                let tags = json!({"tags": {"n": number}}).to_string();
                twin.patch(&TwinUpdate::from_json(tags.as_bytes())?, Timestamp::NEVER)?;
                transaction.put_twin(&twin)?;
            }
            Ok(())
        });
        making.await.unwrap();
        repository
    }

    fn configuration(number: u32) -> Arc<Configuration> {
        let id = format!("c{number}");
        let body = json!({"id": id, "schemaVersion": "1.0", "priority": 1, "targetCondition": format!("tags.n > {number}"),
            "content": {"deviceContent": {"properties.desired.a": number}}});
        let id = ConfigurationId::new(&id).unwrap();
        let wish = ConfigurationWish::from_json(&id, body.to_string().as_bytes()).unwrap();
        Arc::new(Configuration::create(id, wish, Timestamp::NEVER, 1).unwrap())
    }

    #[tokio::test]
    async fn what_all_conditions_remember_has_one_bound_and_changes_no_answer() {
        let directory = tempfile::tempdir().unwrap();
        let repository = fleet(&directory, 50).await;
        let all: Vec<_> = (0..5).map(configuration).collect();

        let reading = repository.read(move |view| {
            let mut lane = Lane::new(ConfigurationKind::Device);
            lane.compile(&all);
            lane.load(view)?;
            lane.evaluate();
            let remembered: usize = lane.matchers.iter().map(Matcher::remembered).sum();
            Ok((remembered, lane.counts()))
        });
        let (remembered, counts) = reading.await.unwrap();

        assert!((1..=MAX_REMEMBERED).contains(&remembered), "{remembered}");
        let targeted: Vec<u64> = counts.values().map(|counts| counts.targeted).collect();
        assert_eq!(targeted, [49, 48, 47, 46, 45]);
    }
}
