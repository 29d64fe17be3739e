//! All lanes together: what is known of all targets, and what is to be applied next.

use std::collections::BTreeMap;
use std::sync::Arc;

use holm_model::configuration::{Configuration, ConfigurationId, ConfigurationKind};
use holm_model::{Identity, ServiceError};

use super::lane::{Counts, Job, Lane, Turn};
use super::unsettled::{Changes, Unsettled};
use crate::storage::View;

/// Of so many things that are applied one is of a fan-out, however many twins have just changed.
const SHARE: usize = 4;

/// What is known of all targets.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    lanes: BTreeMap<ConfigurationKind, Lane>,
    /// How many steps were made, for those who wait for one.
    steps: u64,
    /// How many jobs were taken and are not done.
    in_hand: usize,
    /// How many jobs were done, well or not.
    finished: usize,
}

impl Fleet {
    /// Looks at all that is uncertain, on a view that is opened before the call and so no older than what is told.
    ///
    /// # Errors
    /// When the database can't be read; then it stays uncertain.
    pub(super) fn step(
        &mut self,
        view: &View<'_>,
        unsettled: &Unsettled,
        changes: Changes,
    ) -> Result<(), ServiceError> {
        let result = self.look(view, &changes);
        if result.is_err() {
            unsettled.give_back(changes);
        }
        unsettled.looked();
        match result {
            Ok(()) => {
                self.forget_idle(unsettled);
                self.steps += 1;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Drops the lanes that have nothing to do, unless a job is in hand: what that writes may be of a configuration that has gone
    /// meanwhile, and must be seen then. To be called when what finished jobs have changed was looked at.
    pub(super) fn forget_idle(&mut self, unsettled: &Unsettled) {
        if self.in_hand > 0 {
            return;
        }
        self.lanes.retain(|_, lane| !lane.is_idle());
        if self.lanes.is_empty() {
            unsettled.nobody_cares();
        }
    }

    fn look(&mut self, view: &View<'_>, changes: &Changes) -> Result<(), ServiceError> {
        if changes.configurations || changes.everyone {
            let all: Vec<Arc<Configuration>> = view.configurations()?.into_iter().map(Arc::new).collect();
            for kind in ConfigurationKind::ALL {
                let of_kind: Vec<_> = all.iter().filter(|it| it.kind() == kind).cloned().collect();
                if of_kind.is_empty() && !self.lanes.contains_key(&kind) && !view.is_configured(kind)? {
                    continue;
                }
                let lane = self.lanes.entry(kind).or_insert_with(|| Lane::new(kind));
                lane.compile(&of_kind);
                if changes.everyone || !lane.is_loaded() {
                    lane.load(view)?;
                }
                lane.evaluate();
            }
        }
        for lane in self.lanes.values_mut() {
            for identity in &changes.identities {
                lane.refresh(view, identity)?;
            }
            if lane.is_worn() {
                lane.load(view)?;
                lane.evaluate();
            }
        }
        Ok(())
    }

    /// Up to `most` things to apply: first where a twin has just changed, but for each fourth, which a fan-out always has; the lanes
    /// take turns. In this order, because a transaction comes to the first few only; and from where it has ended, because it may
    /// come to one.
    pub(super) fn take(&mut self, most: usize) -> Vec<Job> {
        let mut jobs = Vec::new();
        while jobs.len() < most {
            let place = self.finished.wrapping_add(jobs.len());
            let turns = if place % SHARE == SHARE - 1 {
                [(Turn::Rest, place / SHARE), (Turn::First, place)]
            } else {
                [(Turn::First, place - place / SHARE), (Turn::Rest, place)]
            };
            let Some(job) = turns.into_iter().find_map(|(turn, lane)| self.next(turn, lane)) else {
                break;
            };
            jobs.push(job);
        }
        self.in_hand += jobs.len();
        jobs
    }

    /// One whose turn this is, of the lane at this place or the next that has one.
    fn next(&mut self, turn: Turn, place: usize) -> Option<Job> {
        let begin = place % self.lanes.len().max(1);
        let from_there = self.lanes.values_mut().skip(begin).find_map(|lane| lane.next(turn));
        from_there.or_else(|| self.lanes.values_mut().take(begin).find_map(|lane| lane.next(turn)))
    }

    /// Learns that so many jobs are done, well or not.
    pub(super) fn done(&mut self, jobs: usize) {
        self.in_hand = self.in_hand.saturating_sub(jobs);
        self.finished = self.finished.wrapping_add(jobs);
    }

    /// Takes back a job that was not begun.
    pub(super) fn give_back(&mut self, job: &Job) {
        self.in_hand = self.in_hand.saturating_sub(1);
        if let Some(lane) = self.lanes.get_mut(&job.kind) {
            lane.give_back(job);
        }
    }

    /// Learns that something could not be applied.
    pub(super) fn refuse(&mut self, job: &Job, error: ServiceError) {
        if let Some(lane) = self.lanes.get_mut(&job.kind) {
            lane.refuse(job, error);
        }
    }

    /// Lets what was refused for a passing reason be tried again; says whether there is such.
    pub(super) fn retry(&mut self, is_passing: impl Fn(&ServiceError) -> bool) -> bool {
        let mut some = false;
        for lane in self.lanes.values_mut() {
            some |= lane.retry(&is_passing);
        }
        some
    }

    /// How many things are to be applied, or on their way.
    pub(super) fn pending(&self) -> usize {
        self.in_hand + self.lanes.values().map(Lane::pending).sum::<usize>()
    }

    /// Why what is wanted at a target is not applied.
    pub(super) fn refusal(&self, kind: ConfigurationKind, identity: &Identity) -> Option<&ServiceError> {
        self.lanes.get(&kind)?.refusal(identity)
    }

    /// The figures of every configuration.
    pub(super) fn counts(&self) -> BTreeMap<ConfigurationId, Counts> {
        let mut all = BTreeMap::new();
        for lane in self.lanes.values() {
            all.extend(lane.counts());
        }
        all
    }

    /// How many steps were made.
    pub(super) const fn steps(&self) -> u64 {
        self.steps
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use holm_model::configuration::ConfigurationWish;
    use holm_model::{Timestamp, Twin};
    use serde_json::json;

    use super::*;
    use crate::configurations::apply;
    use crate::registry::Entry;
    use crate::storage::{Repository, Touched};

    /// Looks at what is uncertain.
    async fn step(repository: &Repository, fleet: &Arc<Mutex<Fleet>>, unsettled: &Unsettled) {
        let (fleet, unsettled) = (Arc::clone(fleet), unsettled.clone());
        let changes = unsettled.take();
        let stepped = repository.read(move |view| fleet.lock().unwrap().step(view, &unsettled, changes));
        stepped.await.unwrap();
    }

    /// Makes identities, and for each of these kinds of content a configuration `c0`, … that is for all of them.
    async fn make(repository: &Repository, ids: impl IntoIterator<Item = String>, contents: &'static [&'static str]) {
        let ids: Vec<String> = ids.into_iter().collect();
        let making = repository.change(move |transaction| {
            for id in &ids {
                let entry = Entry::new(id.parse().unwrap(), Timestamp::NEVER)?;
                transaction.put_entry(&entry)?;
                transaction.put_twin(&Twin::new(entry.identity, Timestamp::NEVER))?;
            }
            for (number, content) in contents.iter().enumerate() {
                let id = ConfigurationId::new(&format!("c{number}")).unwrap();
                let condition = if *content == "moduleContent" {
                    "FROM devices.modules"
                } else {
                    "*"
                };
                let body = json!({"targetCondition": condition, "priority": 1,
                    "content": {(*content): {"properties.desired.a": 5}}});
                let wish = ConfigurationWish::from_json(&id, body.to_string().as_bytes())?;
                transaction.put_configuration(&Configuration::create(id, wish, Timestamp::NEVER, 1)?)?;
            }
            Ok(())
        });
        making.await.unwrap();
    }

    /// Has a transaction come to so many of those that it has taken; gives them.
    fn carry_out_some(fleet: &Mutex<Fleet>, most: usize) -> Vec<String> {
        let mut fleet = fleet.lock().unwrap();
        let taken = fleet.take(512);
        let (done, others) = taken.split_at(most);
        fleet.done(done.len());
        others.iter().for_each(|job| fleet.give_back(job));
        done.iter().map(|job| job.identity.to_string()).collect()
    }

    #[tokio::test]
    async fn what_is_on_its_way_when_its_configuration_is_deleted_is_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        let repository = Repository::open(&directory.path().join("hub.db")).unwrap();
        let (fleet, unsettled) = (Arc::new(Mutex::new(Fleet::default())), Unsettled::default());
        let told = unsettled.clone();
        repository.watch(move |touched| told.told(touched));
        make(&repository, ["d1".to_owned()], &["deviceContent"]).await;
        step(&repository, &fleet, &unsettled).await;
        let carry_out = async |jobs: Vec<Job>| {
            let count = jobs.len();
            let applying = repository.change(move |transaction| {
                let mut jobs = jobs.iter();
                jobs.try_for_each(|job| apply::apply(transaction, job, "hub", Timestamp::NEVER).map(drop))
            });
            applying.await.unwrap();
            fleet.lock().unwrap().done(count);
            step(&repository, &fleet, &unsettled).await;
        };

        let taken = fleet.lock().unwrap().take(8);
        let removing = repository.change(|transaction| transaction.remove_configuration(&"c0".parse().unwrap()));
        removing.await.unwrap();
        step(&repository, &fleet, &unsettled).await;
        carry_out(taken).await;
        let taken_back = fleet.lock().unwrap().take(8);
        let ids: Vec<String> = taken_back.iter().map(|job| job.identity.to_string()).collect();
        carry_out(taken_back).await;

        let twin = repository.read(|view| view.twin(&"d1".parse().unwrap())).await.unwrap();
        assert_eq!(ids, ["d1"]);
        assert!(!json!(twin).to_string().contains(r#""a":5"#));
        assert!(fleet.lock().unwrap().lanes.is_empty());
        assert!(!unsettled.is_watching());
    }

    #[tokio::test]
    async fn who_has_just_changed_goes_before_a_fan_out_and_a_fan_out_still_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let repository = Repository::open(&directory.path().join("hub.db")).unwrap();
        let (fleet, unsettled) = (Arc::new(Mutex::new(Fleet::default())), Unsettled::default());
        make(
            &repository,
            (0..100).map(|number| format!("d{number:02}")),
            &["deviceContent"],
        )
        .await;
        unsettled.begin();
        step(&repository, &fleet, &unsettled).await;

        let changed = (90..100).map(|number| Touched::Identity(format!("d{number}").parse().unwrap()));
        unsettled.told(&changed.collect::<Vec<_>>());
        step(&repository, &fleet, &unsettled).await;
        let first = carry_out_some(&fleet, 8);
        let then = carry_out_some(&fleet, 2);
        let last = [(); 4].map(|()| carry_out_some(&fleet, 1).concat());

        assert_eq!(first, ["d90", "d91", "d92", "d00", "d93", "d94", "d95", "d01"]);
        assert_eq!(then, ["d96", "d97"]);
        assert_eq!(last, ["d98", "d02", "d99", "d03"]);
        assert_eq!(fleet.lock().unwrap().pending(), 100 - 14);
    }

    #[tokio::test]
    async fn kinds_of_configurations_take_turns() {
        let directory = tempfile::tempdir().unwrap();
        let repository = Repository::open(&directory.path().join("hub.db")).unwrap();
        let (fleet, unsettled) = (Arc::new(Mutex::new(Fleet::default())), Unsettled::default());
        let ids = (0..20).flat_map(|number| [format!("d{number:02}"), format!("d{number:02}/m")]);
        make(&repository, ids, &["deviceContent", "moduleContent"]).await;
        unsettled.begin();
        step(&repository, &fleet, &unsettled).await;
        let changed = (10..20).flat_map(|number| [format!("d{number}"), format!("d{number}/m")]);
        let changed = changed.map(|id| Touched::Identity(id.parse().unwrap()));
        unsettled.told(&changed.collect::<Vec<_>>());
        step(&repository, &fleet, &unsettled).await;

        let taken = carry_out_some(&fleet, 8);

        assert_eq!(taken, ["d10", "d10/m", "d11", "d00", "d11/m", "d12", "d12/m", "d00/m"]);
    }
}
