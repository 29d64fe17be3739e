//! Where a value stands in a document: `tags.site`, `properties.reported.[[a b]].list[0]`.
//!
//! The first word is a member of the document and known without regard to case (`DeviceId` is `deviceId`); all others are
//! keys that somebody chose, and exact. The name of the collection may stand before it: `devices.deviceId`,
//! `devices.jobs.status`.

use std::fmt;

use serde_json::Value;

/// What a query reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collection {
    /// `devices`: the twins of devices.
    Devices,
    /// `devices.modules`: the twins of modules.
    Modules,
    /// `devices.jobs`: what jobs did, a row for each device of a job.
    Jobs,
}

/// A way through a document. Has at least one step, the first of which is a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(Vec<Step>);

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Into an object.
    Key(String),
    /// Into an array, from 0.
    Index(usize),
}

const TWIN_MEMBERS: &[&str] = &[
    "deviceId",
    "moduleId",
    "etag",
    "deviceEtag",
    "status",
    "statusReason",
    "statusUpdateTime",
    "connectionState",
    "lastActivityTime",
    "cloudToDeviceMessageCount",
    "authenticationType",
    "x509Thumbprint",
    "modelId",
    "version",
    "tags",
    "properties",
    "capabilities",
    "deviceScope",
    "parentScopes",
    "configurations",
    "attributes",
];

const JOB_MEMBERS: &[&str] = &[
    "deviceId",
    "moduleId",
    "jobId",
    "jobType",
    "status",
    "startTimeUtc",
    "endTimeUtc",
    "createdDateTimeUtc",
    "lastUpdatedDateTimeUtc",
    "outcome",
    "error",
];

/// The name that a device's identity has for it, by which IoT Explorer asks a twin.
const TWIN_ALIASES: &[(&str, &str)] = &[("statusUpdatedTime", "statusUpdateTime")];

/// Names that are published for the same member of a job's row.
const JOB_ALIASES: &[(&str, &str)] = &[
    ("createdTimeUtc", "createdDateTimeUtc"),
    ("lastUpdatedTimeUtc", "lastUpdatedDateTimeUtc"),
];

impl Collection {
    /// The collection of a name, in any case.
    pub(super) fn of_steps(steps: &[Step]) -> Option<Self> {
        let is = |step: &Step, word: &str| matches!(step, Step::Key(key) if key.eq_ignore_ascii_case(word));
        match steps {
            [one] if is(one, "devices") => Some(Self::Devices),
            [one, two] if is(one, "devices") && is(two, "modules") => Some(Self::Modules),
            [one, two] if is(one, "devices") && is(two, "jobs") => Some(Self::Jobs),
            _ => None,
        }
    }

    /// The name in a query.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Devices => "devices",
            Self::Modules => "devices.modules",
            Self::Jobs => "devices.jobs",
        }
    }

    const fn aliases(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Devices | Self::Modules => TWIN_ALIASES,
            Self::Jobs => JOB_ALIASES,
        }
    }

    const fn members(self) -> &'static [&'static str] {
        match self {
            Self::Devices | Self::Modules => TWIN_MEMBERS,
            Self::Jobs => JOB_MEMBERS,
        }
    }

    /// Whether its documents have a member of this name.
    pub(super) fn has(self, member: &str) -> bool {
        self.members().contains(&member)
    }

    /// The path of a document that steps in a query mean; `None` when they name the collection itself.
    pub(super) fn resolve(self, mut steps: Vec<Step>, alias: Option<&str>) -> Option<Path> {
        let named = steps.get(..2).is_some_and(|two| Self::of_steps(two) == Some(self));
        let is_prefix = |step: &Step| match step {
            Step::Key(key) => key.eq_ignore_ascii_case("devices") || Some(key.as_str()) == alias,
            Step::Index(_) => false,
        };
        if named {
            steps.drain(..2);
        } else if steps.first().is_some_and(is_prefix) {
            steps.remove(0);
        }
        if let Step::Key(first) = steps.first_mut()? {
            let mut aliases = self.aliases().iter();
            let published = aliases.find(|(other, _)| other.eq_ignore_ascii_case(first));
            let member = match published {
                Some((_, member)) => Some(member),
                None => self.members().iter().find(|member| member.eq_ignore_ascii_case(first)),
            };
            if let Some(member) = member {
                (*member).clone_into(first);
            }
        }
        Some(Path(steps))
    }
}

impl Path {
    /// A path of keys, as code names it.
    #[must_use]
    pub fn of_keys(keys: &[&str]) -> Self {
        Self(keys.iter().map(|key| Step::Key((*key).to_owned())).collect())
    }

    /// Its steps.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Its first word.
    #[must_use]
    pub fn root(&self) -> &str {
        match self.0.first() {
            Some(Step::Key(key)) => key,
            _ => "",
        }
    }

    /// Its keys, when it has no index: `["tags", "site"]`.
    #[must_use]
    pub fn keys(&self) -> Option<Vec<&str>> {
        let key = |step: &'_ Step| match step {
            Step::Key(_) => true,
            Step::Index(_) => false,
        };
        self.0.iter().all(key).then(|| {
            self.0
                .iter()
                .filter_map(|step| match step {
                    Step::Key(key) => Some(key.as_str()),
                    Step::Index(_) => None,
                })
                .collect()
        })
    }

    /// Its last word, which names a column of a result; `None` when it ends with an index.
    pub(super) fn last_key(&self) -> Option<&str> {
        match self.0.last() {
            Some(Step::Key(key)) => Some(key),
            _ => None,
        }
    }

    /// What stands there in a document.
    #[must_use]
    pub fn find<'d>(&self, document: &'d Value) -> Option<&'d Value> {
        self.0.iter().try_fold(document, |value, step| match step {
            Step::Key(key) => value.as_object()?.get(key),
            Step::Index(index) => value.as_array()?.get(*index),
        })
    }
}

/// As it is written in a query.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    if place > 0 {
                        f.write_str(".")?;
                    }
                    if is_plain(key, place > 0) {
                        f.write_str(key)?;
                    } else {
                        write!(f, "[[{key}]]")?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether a key can stand without brackets. After a point it may begin with a digit, and be a keyword.
fn is_plain(key: &str, after_point: bool) -> bool {
    let mut characters = key.chars();
    let first = characters
        .next()
        .is_some_and(|c| super::lexer::begins_word(c) || (after_point && super::lexer::continues_word(c)));
    first && characters.all(super::lexer::continues_word)
}
