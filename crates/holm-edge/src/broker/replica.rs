//! The copy of a module's twin that the edge keeps: what the node above wants of it, and what it says of itself, of which
//! the node above may not know the latest.
//!
//! ```text
//!   above ──desired, versions──> desired                 a patch in turn, or the whole when one is missing
//!   above <──difference───────── reported <──patches── module
//! ```
//!
//! Invariants: the desired version goes back only when the whole twin was read on a new connection (the twin was made anew
//! above); after every patch has been confirmed, the reported section above equals this one.
//!
//! Nothing merged is ever sent where the state above is known: what is sent is the difference between that state and this
//! one. Merging pending patches would lose a deletion that is followed by an object of the same name (see
//! `holm_model::twin::patch`), and a merged patch whose answer was lost could not be taken back by a later change.

use holm_model::error::ServiceError;
use holm_model::twin::patch;
use holm_model::twin::rules::{self, Limit};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

type Properties = Map<String, Value>;

/// The copy, as it is stored. See `docs/formats/edge-state.md`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Replica {
    desired: Properties,
    /// 0: never heard.
    desired_version: u64,
    reported: Properties,
    reported_version: u64,
    /// Whether the reported section was ever read from above.
    known: bool,
    /// Changes not confirmed from above, merged, nulls kept.
    pending: Properties,
}

/// What became of a desired-property patch from above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It was the next one.
    Applied,
    /// It is old; what it says is known.
    Known,
    /// One before it is missing: the whole twin must be read.
    Missed,
}

/// A twin as the node above shows it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Above {
    desired: Properties,
    desired_version: u64,
    /// The reported section.
    pub(super) reported: Properties,
    reported_version: u64,
}

impl Above {
    /// Reads `{"desired":{…,"$version":n},"reported":{…,"$version":n}}`.
    pub(super) fn read(twin: Value) -> Option<Self> {
        let Value::Object(mut twin) = twin else { return None };
        let (desired, desired_version) = section(twin.remove("desired")?)?;
        let (reported, reported_version) = section(twin.remove("reported").unwrap_or_else(|| json!({})))?;
        Some(Self {
            desired,
            desired_version,
            reported,
            reported_version,
        })
    }
}

fn section(value: Value) -> Option<(Properties, u64)> {
    let Value::Object(mut properties) = value else {
        return None;
    };
    let version = properties.remove("$version").and_then(|version| version.as_u64());
    properties.remove("$metadata");
    Some((properties, version.unwrap_or(0)))
}

impl Replica {
    /// The twin as the module sees it.
    pub(super) fn view(&self) -> Value {
        let with_version = |properties: &Properties, version: u64| {
            let mut section = properties.clone();
            section.insert("$version".to_owned(), json!(version));
            section
        };
        json!({
            "desired": with_version(&self.desired, self.desired_version),
            "reported": with_version(&self.reported, self.reported_version),
        })
    }

    /// What the node above wants.
    pub(super) const fn desired(&self) -> &Properties {
        &self.desired
    }

    /// The version of that; 0: never heard.
    pub(super) const fn desired_version(&self) -> u64 {
        self.desired_version
    }

    /// The version of the last reported section that the node above confirmed.
    #[cfg(test)]
    pub(super) const fn reported_version(&self) -> u64 {
        self.reported_version
    }

    /// What the module says of itself.
    pub(super) const fn reported(&self) -> &Properties {
        &self.reported
    }

    /// Whether the node above does not know everything yet.
    pub(super) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Refuses a change that was made for another version of the reported section.
    pub(super) fn expect_version(&self, expected: Option<u64>) -> Result<(), ServiceError> {
        match expected {
            Some(expected) if expected != self.reported_version => Err(ServiceError::precondition_failed(format!(
                "the reported properties have version {}, not {expected}; read the twin and try again",
                self.reported_version
            ))),
            _ => Ok(()),
        }
    }

    /// Takes a change from the module. A refused one changes nothing.
    pub(super) fn patch_reported(&mut self, changes: &Properties) -> Result<(), ServiceError> {
        rules::check(changes, Limit::Reported)?;
        let mut reported = self.reported.clone();
        patch::apply(&mut reported, changes);
        rules::check_size(&reported, Limit::Reported)?;
        self.pending = patch::merge(&self.pending, changes);
        self.reported = reported;
        Ok(())
    }

    /// Takes a patch of desired properties from above.
    pub(super) fn hear(&mut self, changes: &Properties) -> Heard {
        let version = changes.get("$version").and_then(Value::as_u64).unwrap_or(0);
        if version <= self.desired_version {
            return Heard::Known;
        }
        if version != self.desired_version + 1 || self.desired_version == 0 {
            return Heard::Missed;
        }
        let mut changes = changes.clone();
        changes.remove("$version");
        patch::apply(&mut self.desired, &changes);
        self.desired_version = version;
        Heard::Applied
    }

    /// Takes a whole twin read from above. Gives what is new in the desired section, with `$version`; `None` when nothing
    /// is. `is_first` says that it is the first on its connection; a later one may have been overtaken by a patch.
    ///
    /// The reported section is taken over only from the first: nothing of this connection is on its way then. A later read may
    /// have been overtaken by a patch whose answer is here already, and nobody but this edge reports while it is connected.
    pub(super) fn adopt(&mut self, above: &Above, is_first: bool) -> Option<Properties> {
        if is_first || !self.known {
            self.adopt_reported(above);
        }
        if above.desired_version < self.desired_version && !is_first {
            return None;
        }
        let mut difference = patch::diff(&self.desired, &above.desired);
        self.desired.clone_from(&above.desired);
        self.desired_version = above.desired_version;
        if difference.is_empty() {
            return None;
        }
        difference.insert("$version".to_owned(), json!(above.desired_version));
        Some(difference)
    }

    fn adopt_reported(&mut self, above: &Above) {
        if !self.is_pending() || !self.known {
            let mut reported = above.reported.clone();
            patch::apply(&mut reported, &self.pending);
            self.reported = reported;
        }
        self.known = true;
        self.reported_version = above.reported_version;
    }

    /// What to send, where the reported section above is `above`.
    pub(super) fn difference_to(&self, above: &Properties) -> Properties {
        patch::diff(above, &self.reported)
    }

    /// The node above now has `confirmed` as reported section.
    pub(super) fn confirm(&mut self, confirmed: &Properties, version: Option<u64>) {
        if self.reported == *confirmed {
            self.pending.clear();
        }
        if let Some(version) = version {
            self.reported_version = version;
        }
    }

    /// The node above refuses what is pending, for good: it keeps what it has.
    pub(super) fn give_up(&mut self, above: &Properties) {
        self.reported.clone_from(above);
        self.pending.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(value: Value) -> Properties {
        value.as_object().unwrap().clone()
    }

    fn above(desired: Value, reported: Value) -> Above {
        Above::read(json!({"desired": desired, "reported": reported})).unwrap()
    }

    #[test]
    fn the_next_patch_is_applied_and_an_old_one_is_known() {
        let mut replica = Replica::default();
        replica.adopt(&above(json!({"a": 1, "$version": 4}), json!({"$version": 1})), true);

        assert_eq!(
            replica.hear(&map(json!({"a": null, "b": 2, "$version": 5}))),
            Heard::Applied
        );
        assert_eq!(replica.hear(&map(json!({"a": 9, "$version": 5}))), Heard::Known);
        assert_eq!(replica.hear(&map(json!({"a": 9, "$version": 7}))), Heard::Missed);

        assert_eq!(replica.view()["desired"], json!({"b": 2, "$version": 5}));
    }

    #[test]
    fn without_a_twin_from_above_every_patch_asks_for_the_whole() {
        let mut replica = Replica::default();

        assert_eq!(replica.hear(&map(json!({"a": 1, "$version": 1}))), Heard::Missed);
    }

    #[test]
    fn a_whole_twin_tells_the_difference_once() {
        let mut replica = Replica::default();
        replica.adopt(
            &above(json!({"a": 1, "b": {"c": 1}, "$version": 2}), json!({"$version": 1})),
            true,
        );

        let twin = above(json!({"b": {"c": 2}, "$version": 6}), json!({"$version": 1}));
        let first = replica.adopt(&twin, true);
        let again = replica.adopt(&twin, false);

        assert_eq!(first, Some(map(json!({"a": null, "b": {"c": 2}, "$version": 6}))));
        assert_eq!(again, None);
    }

    #[test]
    fn a_twin_that_was_overtaken_is_passed_over_and_one_made_anew_is_taken() {
        let mut replica = Replica::default();
        replica.adopt(&above(json!({"a": 1, "$version": 8}), json!({"$version": 1})), true);
        let old = above(json!({"a": 0, "$version": 7}), json!({"$version": 1}));

        assert_eq!(replica.adopt(&old, false), None);
        assert_eq!(replica.desired_version(), 8);
        assert!(replica.adopt(&old, true).is_some());
        assert_eq!(replica.desired_version(), 7);
    }

    #[test]
    fn a_refused_patch_changes_nothing() {
        let mut replica = Replica::default();
        replica.patch_reported(&map(json!({"a": 1}))).unwrap();
        let before = replica.clone();

        replica.patch_reported(&map(json!({"b.c": 1}))).unwrap_err();
        let large: Properties = (0..10).map(|n| (format!("k{n}"), json!("x".repeat(4000)))).collect();
        replica.patch_reported(&large).unwrap_err();

        assert_eq!(replica, before);
    }

    #[test]
    fn what_was_reported_before_the_first_contact_is_merged_into_what_is_above() {
        let mut replica = Replica::default();
        replica.patch_reported(&map(json!({"old": null, "new": 1}))).unwrap();

        replica.adopt(
            &above(json!({"$version": 1}), json!({"old": 1, "kept": 2, "$version": 3})),
            true,
        );

        assert_eq!(replica.reported(), &map(json!({"kept": 2, "new": 1})));
        let upstream = map(json!({"old": 1, "kept": 2}));
        assert_eq!(replica.difference_to(&upstream), map(json!({"old": null, "new": 1})));
    }

    fn objects(with_nulls: bool) -> impl Strategy<Value = Properties> {
        let leaf = prop_oneof![
            2 => (0..3_i32).prop_map(|n| json!(n)),
            u32::from(with_nulls) => Just(Value::Null),
        ];
        let value = leaf.prop_recursive(2, 12, 3, |inner| {
            proptest::collection::btree_map("[abc]", inner, 0..3).prop_map(|map| json!(map))
        });
        proptest::collection::btree_map("[abc]", value, 0..4).prop_map(|map| map.into_iter().collect())
    }

    #[derive(Clone, Debug)]
    enum Step {
        Patch(Properties),
        /// Sent; `true`: it arrived above, and so did its answer. `false`: it arrived and the answer was lost.
        Send(bool),
        /// Sent and lost before it arrived.
        Lose,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => objects(true).prop_map(Step::Patch),
            2 => any::<bool>().prop_map(Step::Send),
            1 => Just(Step::Lose),
        ];
        proptest::collection::vec(step, 0..16)
    }

    proptest! {
        /// Invariant 2 of the design: the node above converges on exactly what the module reported, however the link failed.
        #[test]
        fn the_reported_section_above_converges(start in objects(false), steps in steps()) {
            let mut replica = Replica::default();
            let (mut hub, mut module) = (start.clone(), start);
            let read = |hub: &Properties| above(json!({"$version": 1}), Value::Object(hub.clone()));
            replica.adopt(&read(&hub), true);
            let mut base = Some(hub.clone());
            for step in steps.into_iter().chain([Step::Send(true), Step::Send(true)]) {
                match step {
                    Step::Patch(changes) => {
                        patch::apply(&mut module, &changes);
                        replica.patch_reported(&changes).unwrap();
                    }
                    Step::Send(is_answered) => {
                        if base.is_none() {
                            replica.adopt(&read(&hub), true);
                        }
                        let known = base.take().unwrap_or_else(|| hub.clone());
                        patch::apply(&mut hub, &replica.difference_to(&known));
                        if is_answered {
                            let confirmed = replica.reported().clone();
                            replica.confirm(&confirmed, None);
                            base = Some(confirmed);
                        }
                    }
                    Step::Lose => base = None,
                }
            }

            prop_assert_eq!(&hub, &module);
            prop_assert_eq!(replica.reported(), &module);
            prop_assert!(!replica.is_pending());
        }
    }
}
