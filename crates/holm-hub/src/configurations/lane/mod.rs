//! The targets of one kind of configuration, in memory: what is known of each, who matches, what was applied.
//!
//! ```text
//!               tags.site   tags.ring     matches        applied (from its row)
//! target 0  d1       3           7         {v1, v2}       v1@…<v2@…
//! target 1  d2       4           7         {v1}           -              -> waits
//! ```
//!
//! - What is known of a target is read from the database, never told: whoever changes something says only who changed.
//! - Whom a configuration is for is known without merging: targets with equal sets of matches have one fingerprint. The merge is made
//!   when something is written, once for all of a set that are written together.
//! - Who has just changed is written to before those of a fan-out ([`Turn`]).
//!
//! A lane exists while there are configurations of its kind, or something is left of the last one.

mod conditions;
mod counts;
mod job;
mod sets;
mod targets;
mod waiting;

pub(super) use counts::Counts;
pub(super) use job::Job;
pub(super) use waiting::Turn;

use std::collections::BTreeMap;
use std::sync::Arc;

use holm_model::configuration::{Configuration, ConfigurationId, ConfigurationKind};
use holm_model::{DeviceId, Identity, ModuleId, ServiceError};

use super::facts::{self, Column};
use super::outcome::Outcome;
use super::terms::Terms;
use crate::storage::{Candidate, View};
use conditions::{Conditions, Scratch};
use sets::{Marks, Sets};
use targets::{Target, Targets};
use waiting::Waiting;

/// A lane learns its fleet anew when it knows more values (or sets, or marks) than this, and more than four for each target: values of
/// reported properties that come once and never again would fill the memory.
const MANY: usize = 1 << 20;

/// The targets of one kind.
#[derive(Debug)]
pub(super) struct Lane {
    kind: ConfigurationKind,
    conditions: Conditions,
    columns: Vec<Column>,
    terms: Terms,
    targets: Targets,
    sets: Sets,
    marks: Marks,
    waiting: Waiting,
    is_loaded: bool,
}

impl Lane {
    /// A lane that knows nobody.
    pub(super) fn new(kind: ConfigurationKind) -> Self {
        let mut lane = Self {
            kind,
            conditions: Conditions::default(),
            columns: Vec::new(),
            terms: Terms::default(),
            targets: Targets::default(),
            sets: Sets::default(),
            marks: Marks::default(),
            waiting: Waiting::default(),
            is_loaded: false,
        };
        lane.marks.clear();
        lane
    }

    /// Takes these configurations for those that there are. Everyone is asked anew with [`Lane::evaluate`], after a
    /// [`Lane::load`] where that says so: conditions may read what was not read before.
    pub(super) fn compile(&mut self, configurations: &[Arc<Configuration>]) {
        self.conditions = Conditions::of(configurations);
        let needed = self.conditions.columns();
        if !needed.iter().all(|column| self.columns.contains(column)) {
            self.columns = needed.into_iter().collect();
            self.is_loaded = false;
        }
        self.place();
    }

    fn place(&mut self) {
        self.conditions.place(&self.columns, &mut self.terms);
        self.sets.clear();
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
        self.targets.clear(self.columns.len());
        self.waiting.clear();
        self.marks.clear();
        self.place();
        let mut facts = Vec::with_capacity(self.columns.len());
        view.each_candidate(self.kind, |candidate| {
            if let Some(identity) = identity_of(candidate) {
                self.learn(identity, candidate, &mut facts);
            }
        })?;
        if self.kind == ConfigurationKind::Edge {
            view.each_agent(|device, document| {
                if let Ok(device) = DeviceId::new(device) {
                    self.learn_outcome(&Identity::of_device(device), Outcome::read(document));
                }
            })?;
        }
        self.is_loaded = true;
        Ok(())
    }

    /// Asks every condition of everyone, where it can matter.
    pub(super) fn evaluate(&mut self) {
        let mut scratch = Scratch::default();
        for number in self.targets.numbers() {
            if self.targets.get(number).is_some() {
                self.evaluate_one(number, Turn::Rest, &mut scratch);
            }
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
            (ConfigurationKind::Edge, Some(_)) if is_agent => {
                let outcome = view.agent(&identity.device, Outcome::read)?.unwrap_or_default();
                self.learn_outcome(&Identity::of_device(identity.device.clone()), outcome);
                return Ok(());
            }
            (ConfigurationKind::Edge | ConfigurationKind::Device, Some(_)) | (ConfigurationKind::Module, None) => {
                return Ok(());
            }
            (ConfigurationKind::Module, Some(module)) if module.is_system() => return Ok(()),
            _ => {}
        }
        let found = view.candidate(self.kind, identity, |candidate| {
            self.learn(identity.clone(), candidate, &mut Vec::new())
        })?;
        match found {
            Some(number) => {
                if let Some(target) = self.targets.get_mut(number) {
                    target.refused = None;
                }
                self.evaluate_one(number, Turn::First, &mut Scratch::default());
            }
            None => {
                if let Some(number) = self.targets.remove(identity) {
                    self.waiting.remove(number);
                }
            }
        }
        Ok(())
    }

    /// Whether it is better to read the whole fleet anew.
    pub(super) fn is_worn(&self) -> bool {
        let known = self.terms.len().max(self.sets.len()).max(self.marks.len());
        known > MANY && known > self.targets.numbers().len().saturating_mul(4)
    }

    /// Enters what is known of one; gives its number. `facts` is memory to work in.
    fn learn(&mut self, identity: Identity, candidate: &Candidate<'_>, facts: &mut Vec<u32>) -> u32 {
        facts.clear();
        facts::terms_of(candidate, &self.columns, &mut self.terms, facts);
        let fingerprint = candidate.fingerprint.unwrap_or_default();
        let applied = self.marks.id(fingerprint, || candidate.applied());
        let number = self.targets.put(identity, facts);
        if let Some(target) = self.targets.get_mut(number) {
            target.applied = applied;
            target.is_trusted = candidate.trusted;
        }
        number
    }

    fn learn_outcome(&mut self, device: &Identity, outcome: Outcome) {
        if let Some(number) = self.targets.find(device)
            && let Some(target) = self.targets.get_mut(number)
        {
            target.outcome = outcome;
        }
    }

    fn evaluate_one(&mut self, number: u32, turn: Turn, scratch: &mut Scratch) {
        self.conditions
            .matching(self.targets.facts(number), &self.terms, scratch);
        let wanted = self.sets.id(&scratch.matches, &self.conditions);
        if let Some(target) = self.targets.get_mut(number) {
            target.wanted = wanted;
        }
        self.queue(number, turn);
    }

    /// Puts one among those that wait, or takes it away.
    fn queue(&mut self, number: u32, turn: Turn) {
        let Some(target) = self.targets.get(number) else {
            return;
        };
        if self.differs(target) && self.refused(target).is_none() {
            self.waiting.add(number, turn);
        } else {
            self.waiting.remove(number);
        }
    }

    /// Why what a target shall have now was refused, if it was.
    fn refused<'t>(&self, target: &'t Target) -> Option<&'t ServiceError> {
        let (fingerprint, error) = &**target.refused.as_ref()?;
        (self.sets.fingerprint(target.wanted)? == fingerprint).then_some(error)
    }

    fn differs(&self, target: &Target) -> bool {
        let wanted = self.sets.fingerprint(target.wanted);
        let applied = self.marks.fingerprint(target.applied);
        wanted != applied || (!target.is_trusted && wanted != Some(""))
    }

    /// Takes one of those that wait for this turn.
    pub(super) fn next(&mut self, turn: Turn) -> Option<Job> {
        loop {
            let number = self.waiting.pop(turn)?;
            let Some(target) = self.targets.get(number) else {
                continue;
            };
            return Some(Job {
                kind: self.kind,
                identity: target.identity.clone(),
                intent: self.sets.intent(target.wanted, self.kind, &self.conditions),
                turn,
            });
        }
    }

    /// Takes back what was not begun.
    pub(super) fn give_back(&mut self, job: &Job) {
        if let Some(number) = self.targets.find(&job.identity) {
            self.queue(number, job.turn);
        }
    }

    /// Learns that something could not be applied.
    pub(super) fn refuse(&mut self, job: &Job, error: ServiceError) {
        let Some(number) = self.targets.find(&job.identity) else {
            return;
        };
        if let Some(target) = self.targets.get_mut(number) {
            target.refused = Some(Box::new((job.intent.fingerprint.clone(), error)));
        }
        self.queue(number, job.turn);
    }

    /// Lets what was refused for a passing reason be tried again; says whether there is such.
    pub(super) fn retry(&mut self, is_passing: impl Fn(&ServiceError) -> bool) -> bool {
        let mut some = false;
        for number in self.targets.numbers() {
            let Some(target) = self.targets.get_mut(number) else {
                continue;
            };
            if target.refused.as_ref().is_some_and(|refused| is_passing(&refused.1)) {
                target.refused = None;
                self.queue(number, Turn::Rest);
                some = true;
            }
        }
        some
    }

    /// Why what is wanted at a target is not applied.
    pub(super) fn refusal(&self, identity: &Identity) -> Option<&ServiceError> {
        self.refused(self.targets.get(self.targets.find(identity)?)?)
    }

    /// How many wait.
    pub(super) fn pending(&self) -> usize {
        self.waiting.len()
    }

    /// Whether there is nothing to know for: no configuration, and nothing left of one.
    pub(super) fn is_idle(&self) -> bool {
        self.conditions.is_empty() && self.waiting.len() == 0 && !self.targets.iter().any(|target| self.differs(target))
    }

    /// The set of each target, for those who compare.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (&Identity, u32)> {
        self.targets.iter().map(|target| (&target.identity, target.wanted))
    }

    /// The configurations of each set, in the order of the sets' numbers.
    pub(super) fn sets(&self) -> Vec<Vec<Arc<Configuration>>> {
        let of = |members| self.conditions.configurations(members).cloned().collect();
        self.sets.all().map(of).collect()
    }

    /// The figures of every configuration.
    pub(super) fn counts(&self) -> BTreeMap<ConfigurationId, Counts> {
        counts::count(&self.targets, &self.sets, &self.marks, &self.conditions)
    }
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
            Ok((lane.conditions.remembered(), lane.counts()))
        });
        let (remembered, counts) = reading.await.unwrap();

        assert!((1..=conditions::MAX_REMEMBERED).contains(&remembered), "{remembered}");
        let targeted: Vec<u64> = counts.values().map(|counts| counts.targeted).collect();
        assert_eq!(targeted, [49, 48, 47, 46, 45]);
    }
}
