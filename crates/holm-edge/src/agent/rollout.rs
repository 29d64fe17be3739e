//! Which edition of the deployment is in force, which one is made ready, and what becomes of it: a state machine without
//! clock, disk or runtime.
//!
//! ```text
//!   deployed ──> next ──prepared──> trial ──passed──> good
//!                 │ the good one     │ it is in force
//!                 │ is in force      '──failed──> refused, and the good one is in force again
//!                 '── replaced by what is deployed after it
//!
//!   in force = trial, or else good
//! ```
//!
//! - One edition is in force, whole: no state names modules of two. So whatever cuts the power, what the device comes to is
//!   the old edition or the new one.
//! - An event gives the record that comes after it. That record is on disk *before* anything is done by it.
//! - While there is no good edition (a first deployment), what is deployed is in force at once and nothing is taken back:
//!   there is nothing to go back to, and a device that runs what it can is worth more than one that runs nothing.
//! - An edition that was taken back is not tried again until the hub has another version of it, or an operator says so.
//!
//! `docs/decisions/0009-deployments-all-or-nothing.md` says why.

use std::collections::BTreeSet;
use std::sync::Arc;

use holm_model::manifest::{AgentDesired, ConfigError};
use holm_model::{ModuleId, Timestamp};
use serde_json::{Map, Value, json};

#[cfg(test)]
mod tests;

/// What the desired properties said at one version, and could be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Edition {
    /// As the manifest says.
    pub desired: Arc<AgentDesired>,
    /// The version of the desired properties.
    pub version: u64,
    properties: Arc<Map<String, Value>>,
}

impl Edition {
    /// Reads desired properties, without what the hub adds.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(properties: Map<String, Value>, version: u64) -> Result<Self, ConfigError> {
        let desired = AgentDesired::parse(&properties)?;
        Ok(Self {
            desired: Arc::new(desired),
            version,
            properties: Arc::new(properties),
        })
    }

    /// Whether both say the same, at whatever versions.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.properties == other.properties
    }

    fn to_value(&self) -> Value {
        json!({"desired": *self.properties, "version": self.version})
    }

    /// `None` when it is none, or this release can't read it any more; the hub has the original.
    fn from_value(value: &Value) -> Option<Self> {
        let properties = value.get("desired")?.as_object()?.clone();
        let version = value.get("version")?.as_u64()?;
        Self::read(properties, version).ok()
    }
}

/// An edition that is in force and must prove itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// The edition.
    pub edition: Edition,
    /// When it came into force, or the clock was set after that.
    pub since: Timestamp,
    /// Modules that it did not change and that were not well before it: they don't count against it.
    pub excused: BTreeSet<ModuleId>,
}

/// An edition that was taken back.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// The edition.
    pub edition: Edition,
    /// The modules that it was taken back for, and what was wrong with each.
    pub reasons: Vec<(ModuleId, String)>,
}

impl Refused {
    /// The reasons in one line.
    #[must_use]
    pub fn told(&self) -> String {
        let all: Vec<String> = self
            .reasons
            .iter()
            .map(|(id, reason)| format!("{id}: {reason}"))
            .collect();
        all.join("; ")
    }
}

/// The record. It is kept in the edge's state, and an edge that starts goes on from it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rollout {
    good: Option<Edition>,
    trial: Option<Trial>,
    next: Option<Edition>,
    refused: Option<Refused>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The hub wants this.
    Deployed {
        /// What it wants.
        edition: Edition,
        /// When.
        at: Timestamp,
    },
    /// Everything of this edition is there that it needs.
    Prepared {
        /// The version that was prepared.
        version: u64,
        /// When.
        at: Timestamp,
        /// As [`Trial::excused`].
        excused: BTreeSet<ModuleId>,
    },
    /// The trial that began then was passed.
    Passed {
        /// [`Trial::since`].
        began: Timestamp,
    },
    /// The trial that began then was not.
    Failed {
        /// [`Trial::since`].
        began: Timestamp,
        /// As [`Refused::reasons`].
        reasons: Vec<(ModuleId, String)>,
    },
    /// The clock was set: the trial begins again.
    ClockMoved {
        /// The time now.
        at: Timestamp,
    },
    /// An operator wants the edition that was taken back to be tried again.
    Retry,
}

/// Where the rollout is, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing was deployed yet.
    Empty,
    /// What was deployed is good and in force.
    Committed,
    /// An edition is made ready while another one is in force.
    Preparing,
    /// An edition is in force and must prove itself.
    Trial,
    /// The last edition was taken back.
    TakenBack,
}

impl Phase {
    /// The word, for people and for `--json`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Committed => "committed",
            Self::Preparing => "preparing",
            Self::Trial => "trial",
            Self::TakenBack => "taken back",
        }
    }
}

impl Rollout {
    /// The edition that modules are kept by.
    #[must_use]
    pub fn in_force(&self) -> Option<&Edition> {
        let trial = self.trial.as_ref().map(|trial| &trial.edition);
        trial.or(self.good.as_ref())
    }

    /// The last edition that has proved itself.
    #[must_use]
    pub const fn good(&self) -> Option<&Edition> {
        self.good.as_ref()
    }

    /// The trial that goes on.
    #[must_use]
    pub const fn trial(&self) -> Option<&Trial> {
        self.trial.as_ref()
    }

    /// The edition to make ready.
    #[must_use]
    pub const fn next(&self) -> Option<&Edition> {
        self.next.as_ref()
    }

    /// The edition that was taken back.
    #[must_use]
    pub const fn refused(&self) -> Option<&Refused> {
        self.refused.as_ref()
    }

    /// Where it is.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        match self {
            Self { next: Some(_), .. } => Phase::Preparing,
            Self { trial: Some(_), .. } => Phase::Trial,
            Self { refused: Some(_), .. } => Phase::TakenBack,
            Self { good: Some(_), .. } => Phase::Committed,
            _ => Phase::Empty,
        }
    }

    /// The user's modules of every edition that is or may come into force; `None` when there is none.
    #[must_use]
    pub fn modules(&self) -> Option<BTreeSet<ModuleId>> {
        self.in_force()?;
        let editions = [self.good.as_ref(), self.in_force(), self.next.as_ref()];
        let modules = editions
            .into_iter()
            .flatten()
            .flat_map(|edition| edition.desired.modules.keys());
        Some(modules.cloned().collect())
    }

    /// The record after an event; `None` when it changes nothing. The caller keeps it on disk before it goes by it.
    #[must_use]
    pub fn after(&self, event: Event) -> Option<Self> {
        let mut record = self.clone();
        match event {
            Event::Deployed { edition, at } => record.deployed(edition, at),
            Event::Prepared { version, at, excused } => record.prepared(version, at, excused),
            Event::Passed { began } => record.passed(began),
            Event::Failed { began, reasons } => record.failed(began, reasons),
            Event::ClockMoved { at } => {
                if let Some(trial) = &mut record.trial {
                    trial.since = at;
                }
            }
            Event::Retry => {
                if let Some(refused) = record.refused.take() {
                    record.next = Some(refused.edition);
                }
            }
        }
        (record != *self).then_some(record)
    }

    fn deployed(&mut self, edition: Edition, at: Timestamp) {
        let is_refused = self.refused.as_ref().is_some_and(|refused| refused.edition == edition);
        let is_next = self.next.as_ref().is_some_and(|next| next.says_the_same(&edition));
        if is_refused {
            return;
        }
        self.refused = None;
        if is_next {
            self.next = Some(edition);
            return;
        }
        self.next = None;
        match (&mut self.trial, &mut self.good) {
            (Some(trial), _) if trial.edition.says_the_same(&edition) => trial.edition = edition,
            // What is good already needs no proof, though another edition was on trial.
            (trial, Some(good)) if good.says_the_same(&edition) => {
                *trial = None;
                *good = edition;
            }
            (trial, None) => {
                *trial = Some(Trial {
                    edition,
                    since: at,
                    excused: BTreeSet::new(),
                });
            }
            (_, Some(_)) => self.next = Some(edition),
        }
    }

    fn prepared(&mut self, version: u64, at: Timestamp, excused: BTreeSet<ModuleId>) {
        if let Some(edition) = self.next.take_if(|next| next.version == version) {
            self.trial = Some(Trial {
                edition,
                since: at,
                excused,
            });
        }
    }

    fn passed(&mut self, began: Timestamp) {
        if let Some(trial) = self.trial.take_if(|trial| trial.since == began) {
            self.good = Some(trial.edition);
        }
    }

    fn failed(&mut self, began: Timestamp, reasons: Vec<(ModuleId, String)>) {
        if self.good.is_none() {
            return;
        }
        if let Some(trial) = self.trial.take_if(|trial| trial.since == began) {
            // What was deployed in the meantime is what the hub wants now; the one before it is of no interest any more.
            if self.next.is_none() {
                self.refused = Some(Refused {
                    edition: trial.edition,
                    reasons,
                });
            }
        }
    }

    /// The document to keep. The good edition stands where releases before trials have theirs.
    #[must_use]
    pub fn to_document(&self) -> Option<Value> {
        let mut document = match &self.good {
            Some(good) => good.to_value(),
            None => json!({}),
        };
        if let Some(trial) = &self.trial {
            let mut value = trial.edition.to_value();
            value["since"] = json!(trial.since.unix_millis());
            value["excused"] = json!(trial.excused);
            document["trial"] = value;
        }
        if let Some(next) = &self.next {
            document["next"] = next.to_value();
        }
        if let Some(refused) = &self.refused {
            let mut value = refused.edition.to_value();
            value["reasons"] = json!(refused.reasons);
            document["refused"] = value;
        }
        (self.in_force().is_some()).then_some(document)
    }

    /// From the document of an earlier run. What this release can't read of it counts as not there; the hub has it.
    #[must_use]
    pub fn from_document(document: Option<&Value>) -> Self {
        let Some(document) = document else {
            return Self::default();
        };
        let part = |name: &str| {
            document
                .get(name)
                .and_then(|value| Some((Edition::from_value(value)?, value)))
        };
        Self {
            good: Edition::from_value(document),
            trial: part("trial").map(|(edition, value)| Trial {
                edition,
                since: value
                    .get("since")
                    .and_then(Value::as_i64)
                    .map_or(Timestamp::NEVER, Timestamp::from_unix_millis),
                excused: read(value, "excused"),
            }),
            next: part("next").map(|(edition, _)| edition),
            refused: part("refused").map(|(edition, value)| Refused {
                edition,
                reasons: read(value, "reasons"),
            }),
        }
    }
}

fn read<T: serde::de::DeserializeOwned + Default>(value: &Value, name: &str) -> T {
    let found = value.get(name).cloned();
    found
        .and_then(|value| serde_json::from_value(value).ok())
        .unwrap_or_default()
}
