//! What is wanted and what was applied, each once and by a small number: targets of equal matches have one set, and rows that name
//! the same have one mark.

use std::collections::HashMap;
use std::sync::Arc;

use holm_model::configuration::{Configuration, ConfigurationId, ConfigurationKind};

use super::super::intent::{self, Intent};
use super::conditions::Conditions;

/// What sets come to that is kept. A merged deployment has some kilobytes, and each device may have a set of its own.
const MAX_MADE: usize = 1024;

/// Sets of conditions that hold together. The first is empty.
#[derive(Debug, Default)]
pub(super) struct Sets {
    sets: Vec<Set>,
    ids: HashMap<Vec<u16>, u32>,
    /// What some sets come to, for those who are written to now.
    made: HashMap<u32, Arc<Intent>>,
}

#[derive(Debug)]
struct Set {
    members: Vec<u16>,
    fingerprint: String,
}

impl Sets {
    /// Forgets all but the empty one.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
        self.id(&[], &Conditions::default());
    }

    /// The number of a set, new or known.
    pub(super) fn id(&mut self, members: &[u16], conditions: &Conditions) -> u32 {
        if let Some(id) = self.ids.get(members) {
            return *id;
        }
        let id = u32::try_from(self.sets.len()).unwrap_or(u32::MAX);
        self.ids.insert(members.to_vec(), id);
        self.sets.push(Set {
            members: members.to_vec(),
            fingerprint: intent::fingerprint(&configurations(members, conditions)),
        });
        id
    }

    /// Names what a set comes to.
    pub(super) fn fingerprint(&self, set: u32) -> Option<&str> {
        self.sets.get(set as usize).map(|set| set.fingerprint.as_str())
    }

    /// The conditions of a set.
    pub(super) fn members(&self, set: u32) -> &[u16] {
        self.sets.get(set as usize).map_or(&[], |set| &set.members)
    }

    /// What a set comes to.
    pub(super) fn intent(&mut self, set: u32, kind: ConfigurationKind, conditions: &Conditions) -> Arc<Intent> {
        if let Some(intent) = self.made.get(&set) {
            return Arc::clone(intent);
        }
        let intent = Arc::new(Intent::of(kind, &configurations(self.members(set), conditions)));
        if self.made.len() >= MAX_MADE {
            self.made.clear();
        }
        self.made.insert(set, Arc::clone(&intent));
        intent
    }

    /// The conditions of each set, in the order of the sets' numbers.
    pub(super) fn all(&self) -> impl Iterator<Item = &[u16]> {
        self.sets.iter().map(|set| set.members.as_slice())
    }

    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.sets.len()
    }
}

fn configurations<'c>(members: &[u16], conditions: &'c Conditions) -> Vec<&'c Configuration> {
    conditions.configurations(members).map(|it| &**it).collect()
}

/// What rows name as applied; the first is nothing.
#[derive(Debug, Default)]
pub(super) struct Marks {
    marks: Vec<Mark>,
    ids: HashMap<String, u32>,
}

#[derive(Debug)]
struct Mark {
    fingerprint: String,
    applied: Vec<ConfigurationId>,
}

impl Marks {
    /// Forgets all but nothing.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
        self.id("", Vec::new);
    }

    /// The number of what a row names, new or known; `applied` are then the configurations that it says are in force.
    pub(super) fn id(&mut self, fingerprint: &str, applied: impl FnOnce() -> Vec<ConfigurationId>) -> u32 {
        if let Some(id) = self.ids.get(fingerprint) {
            return *id;
        }
        let id = u32::try_from(self.marks.len()).unwrap_or(u32::MAX);
        self.marks.push(Mark {
            fingerprint: fingerprint.to_owned(),
            applied: applied(),
        });
        self.ids.insert(fingerprint.to_owned(), id);
        id
    }

    /// What a row names.
    pub(super) fn fingerprint(&self, mark: u32) -> Option<&str> {
        self.marks.get(mark as usize).map(|mark| mark.fingerprint.as_str())
    }

    /// The configurations in force for each mark, in the order of the marks' numbers.
    pub(super) fn all(&self) -> impl Iterator<Item = &[ConfigurationId]> {
        self.marks.iter().map(|mark| mark.applied.as_slice())
    }

    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.marks.len()
    }
}
