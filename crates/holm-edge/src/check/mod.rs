//! What can be wrong with an edge and the device under it, looked at one by one. Each finding says what to do.
//!
//! ```text
//!   configuration ── device ── certificates ── edge (running?) ── engine ── hub
//! ```
//!
//! - Nothing is changed, pulled or started; it works with the edge running or not, and as well with no network: what then
//!   can't be known is told as skipped, with the reason.
//! - The ids are the published ones where the thing still exists here (`edge-agent.md` §7), so that `--dont-run` lists and
//!   scripts go on working; what is new has an id of its own.
//! - No look takes longer than [`PATIENCE`]; they run at once and are told in order.

mod certificates;
mod configuration;
mod device;
mod engine;
mod hub;
mod running;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use holm_model::Timestamp;
use serde_json::{Map, Value, json};

use crate::config::{EdgeConfig, Loaded};

/// The longest that one look may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// In order; with something worth knowing, or nothing.
    Fine(Option<String>),
    /// It works, and may not for long.
    Warning(Finding),
    /// It does not work.
    Error(Finding),
    /// Nothing else can be looked at.
    Fatal(Finding),
    /// It could not be looked at, and why.
    Skipped(String),
    /// The caller did not want it.
    Ignored,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

impl Finding {
    fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            remedy: remedy.into(),
        }
    }
}

impl Verdict {
    fn warning(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Warning(Finding::new(reason, remedy))
    }

    fn error(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Error(Finding::new(reason, remedy))
    }

    /// The published word.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Fine(_) => "ok",
            Self::Warning(_) => "warning",
            Self::Error(_) => "error",
            Self::Fatal(_) => "fatal",
            Self::Skipped(_) => "skipped",
            Self::Ignored => "ignored",
        }
    }
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// The file and the device under the edge.
    Configuration,
    /// Keys and certificates.
    Certificates,
    /// The edge itself.
    Edge,
    /// The container engine.
    Engine,
    /// The node above.
    Connectivity,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configuration => "Configuration and device",
            Self::Certificates => "Keys and certificates",
            Self::Edge => "The edge",
            Self::Engine => "The container engine",
            Self::Connectivity => "The hub",
        })
    }
}

type Looking<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// One thing to look at.
#[derive(Clone, Copy)]
pub struct Check {
    /// Its id, for `--dont-run` and in JSON.
    pub id: &'static str,
    /// Where it belongs.
    pub group: Group,
    /// What is in order when it is.
    pub about: &'static str,
    look: for<'a> fn(&'a Subject) -> Looking<'a>,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Every check; told by group, then in this order.
pub const CHECKS: &[&[Check]] = &[
    configuration::CHECKS,
    device::CHECKS,
    certificates::CHECKS,
    running::CHECKS,
    engine::CHECKS,
    hub::CHECKS,
];

/// What is looked at, read once.
#[derive(Debug)]
pub struct Subject {
    /// The configuration file.
    pub file: PathBuf,
    /// What it says, or what is wrong with it.
    pub config: Result<Loaded, String>,
    /// What the running edge says of itself (`/holm/v1/status`), or why it says nothing.
    pub status: Result<Value, String>,
    /// Another hub to look at than that of the configuration.
    pub hub_host: Option<String>,
    /// The device's clock.
    pub now: Timestamp,
}

impl Subject {
    /// Reads the configuration. Who can ask the running edge adds its `status`.
    #[must_use]
    pub fn new(file: PathBuf, hub_host: Option<String>) -> Self {
        let config = EdgeConfig::load(&file).map_err(|error| holm_net::error_chain(&error));
        Self {
            file,
            config,
            status: Err("the edge was not asked".to_owned()),
            hub_host,
            now: Timestamp::from(SystemTime::now()),
        }
    }

    fn config(&self) -> Result<&EdgeConfig, Verdict> {
        match &self.config {
            Ok(loaded) => Ok(&loaded.config),
            Err(_) => Err(Verdict::Skipped("the configuration can't be read".to_owned())),
        }
    }
}

/// What was found, in order.
#[derive(Debug)]
pub struct Report(Vec<(Check, Verdict)>);

impl Report {
    /// Each check with what it found.
    pub fn iter(&self) -> impl Iterator<Item = (&Check, &Verdict)> {
        self.0.iter().map(|(check, verdict)| (check, verdict))
    }

    /// How many have this word.
    #[must_use]
    pub fn count(&self, word: &str) -> usize {
        self.0.iter().filter(|(_, verdict)| verdict.word() == word).count()
    }

    /// Whether something does not work.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.count("error") + self.count("fatal") > 0
    }

    /// The published form.
    #[must_use]
    pub fn to_json(&self, version: &str) -> Value {
        let checks: Map<String, Value> = self
            .0
            .iter()
            .map(|(check, verdict)| (check.id.to_owned(), one(verdict)))
            .collect();
        json!({"additional_info": {"version": version, "product": "holm"}, "checks": checks})
    }
}

fn one(verdict: &Verdict) -> Value {
    let word = verdict.word();
    match verdict {
        Verdict::Warning(finding) | Verdict::Error(finding) | Verdict::Fatal(finding) => json!({
            "result": word, "details": [finding.reason, finding.remedy],
            "additional_info": {"reason": finding.reason, "remedy": finding.remedy},
        }),
        Verdict::Skipped(why) => json!({"result": word, "additional_info": {"reason": why}}),
        Verdict::Fine(Some(note)) => json!({"result": word, "additional_info": {"note": note}}),
        Verdict::Fine(None) | Verdict::Ignored => json!({"result": word, "additional_info": {}}),
    }
}

/// Looks at everything but `dont_run`.
pub async fn run(subject: &Subject, dont_run: &BTreeSet<String>) -> Report {
    look_at(subject, CHECKS.iter().copied().flatten(), dont_run).await
}

/// Looks at the keys and certificates that the configuration names: an edge without them does not start.
pub async fn before_start(subject: &Subject) -> Report {
    look_at(subject, certificates::before_start(subject), &BTreeSet::new()).await
}

async fn look_at(
    subject: &Subject,
    checks: impl Iterator<Item = &'static Check>,
    dont_run: &BTreeSet<String>,
) -> Report {
    let looks = checks.map(|check| async move {
        if dont_run.contains(check.id) {
            return (*check, Verdict::Ignored);
        }
        let looking = tokio::time::timeout(PATIENCE, (check.look)(subject)).await;
        let late = || {
            Verdict::error(
                format!("no answer within {} s", PATIENCE.as_secs()),
                "see what makes it slow, and look again",
            )
        };
        (*check, looking.unwrap_or_else(|_| late()))
    });
    let mut report = join_all(looks).await;
    report.sort_by_key(|(check, _)| check.group);
    Report(report)
}

#[cfg(test)]
mod tests;
