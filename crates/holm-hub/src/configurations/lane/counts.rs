//! The figures of configurations, counted over the targets of a lane.

use std::collections::BTreeMap;

use holm_model::configuration::ConfigurationId;

use super::super::outcome::Outcome;
use super::conditions::Conditions;
use super::sets::{Marks, Sets};
use super::targets::Targets;

/// The figures of one configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Counts {
    pub(in super::super) targeted: u64,
    pub(in super::super) applied: u64,
    pub(in super::super) successful: u64,
    pub(in super::super) failed: u64,
}

/// The figures of every configuration that is for somebody or in force somewhere: one pass over the targets by their small numbers.
pub(super) fn count(
    targets: &Targets,
    sets: &Sets,
    marks: &Marks,
    conditions: &Conditions,
) -> BTreeMap<ConfigurationId, Counts> {
    let mut of_set = vec![0; sets.len()];
    let mut of_mark = vec![Counts::default(); marks.len()];
    for target in targets.iter() {
        if let Some(count) = of_set.get_mut(target.wanted as usize) {
            *count += 1;
        }
        if let Some(counts) = of_mark.get_mut(target.applied as usize) {
            counts.applied += 1;
            match target.outcome {
                Outcome::Successful => counts.successful += 1,
                Outcome::Failed => counts.failed += 1,
                Outcome::Unknown => {}
            }
        }
    }
    let mut all: BTreeMap<ConfigurationId, Counts> = BTreeMap::new();
    for (members, count) in sets.all().zip(of_set).filter(|(_, count)| *count > 0) {
        for configuration in conditions.configurations(members) {
            all.entry(configuration.id().clone()).or_default().targeted += count;
        }
    }
    for (applied, counted) in marks.all().zip(of_mark).filter(|(_, counts)| counts.applied > 0) {
        for id in applied {
            let counts = all.entry(id.clone()).or_default();
            counts.applied += counted.applied;
            counts.successful += counted.successful;
            counts.failed += counted.failed;
        }
    }
    all
}
