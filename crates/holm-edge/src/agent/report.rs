//! What the agent reports to the hub: the published document, and what of it is new.
//!
//! Source: `edge-agent.md` §2.5.

use std::collections::BTreeMap;

use holm_model::manifest::{
    AgentReported, BuildVersion, DesiredStatus, ModuleReported, ModuleSpec, ModuleType, Platform, RuntimeReported,
    RuntimeSettingsReported, RuntimeStatus as ReportedStatus, SystemModulesReported,
};
use holm_model::{ModuleId, Timestamp};
use holm_runtime::{ModuleState, RuntimeStatus};
use serde_json::{Map, Value};

use super::deployment::Deployment;
use super::plan::Verdict;
use super::restarts::Bookkeeping;

/// The longest text of a twin, in bytes, with room for an ellipsis.
const LONGEST_TEXT: usize = 4000;

/// What a report is made of.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The release.
    pub version: &'a str,
    /// When this edge started.
    pub started_at: Timestamp,
    /// What was deployed.
    pub deployment: &'a Deployment,
    /// What is there.
    pub states: &'a [ModuleState],
    /// How each module fares.
    pub verdicts: &'a BTreeMap<ModuleId, Verdict>,
    /// What is remembered of restarts.
    pub bookkeeping: &'a Bookkeeping,
    /// Why the next edition is not ready.
    pub unprepared: &'a BTreeMap<ModuleId, String>,
}

/// Which version the report speaks of, and how that one stands.
///
/// The last that came from the hub, if it can't be used, was taken back or can't be made ready; else the one that is in force.
/// An edition on trial is not spoken of as in force until it has proved itself, since a hub counts 200 as success; but what
/// is wrong with it is told at once.
#[must_use]
pub fn standing(
    deployment: &Deployment,
    verdicts: &BTreeMap<ModuleId, Verdict>,
    unprepared: &BTreeMap<ModuleId, String>,
) -> (Option<u64>, DesiredStatus) {
    if let Some((version, refusal)) = deployment.refusal() {
        return (version, cut(refusal));
    }
    let rollout = &deployment.rollout;
    let good = rollout.good().map_or(0, |good| good.version);
    if let Some(refused) = rollout.refused() {
        let text = format!(
            "the device went back to version {good}, since version {} did not run well: {}; it is tried again when the \
             desired properties are set anew, or with `holm edge retry` on the device",
            refused.edition.version,
            refused.told()
        );
        return (Some(refused.edition.version), cut(DesiredStatus::failed(text)));
    }
    if let Some(next) = rollout.next().filter(|_| !unprepared.is_empty()) {
        let all: Vec<String> = unprepared
            .iter()
            .map(|(id, reason)| format!("{id}: {reason}"))
            .collect();
        let text = format!("what runs goes on as it is until all is ready: {}", all.join("; "));
        return (Some(next.version), cut(DesiredStatus::failed(text)));
    }
    let errors: Vec<String> = verdicts
        .iter()
        .filter_map(|(id, verdict)| verdict.error.as_ref().map(|error| format!("{id}: {error}")))
        .collect();
    let in_force = rollout.in_force().map(|edition| edition.version);
    if !errors.is_empty() {
        return (in_force, cut(DesiredStatus::failed(errors.join("; "))));
    }
    let version = rollout.good().map_or(in_force, |good| Some(good.version));
    (version.filter(|version| *version > 0), DesiredStatus::applied())
}

fn cut(mut status: DesiredStatus) -> DesiredStatus {
    status.description = shortened(&status.description);
    status
}

fn shortened(text: &str) -> String {
    let end = text.floor_char_boundary(LONGEST_TEXT);
    match text.get(..end) {
        Some(head) if end < text.len() => format!("{head} …"),
        _ => text.to_owned(),
    }
}

/// The whole document.
#[must_use]
pub fn document(facts: &Facts<'_>) -> Map<String, Value> {
    let desired = facts.deployment.in_force();
    let (version, status) = standing(facts.deployment, facts.verdicts, facts.unprepared);
    let settings = desired.map(|desired| RuntimeSettingsReported {
        min_docker_version: desired.runtime.min_docker_version.clone(),
        logging_options: desired.runtime.logging_options.clone(),
    });
    let agent = desired.and_then(|desired| desired.edge_agent.as_ref());
    let hub = desired.and_then(|desired| desired.edge_hub.as_ref());
    let modules = desired.into_iter().flat_map(|desired| &desired.modules);
    let reported = AgentReported {
        schema_version: "1.0".to_owned(),
        version: BuildVersion {
            version: facts.version.to_owned(),
            ..BuildVersion::default()
        },
        last_desired_version: version,
        last_desired_status: status,
        runtime: RuntimeReported {
            kind: ModuleType::Docker,
            settings: settings.unwrap_or_default(),
            platform: Platform {
                os: std::env::consts::OS.to_owned(),
                architecture: std::env::consts::ARCH.to_owned(),
                version: facts.version.to_owned(),
            },
        },
        system_modules: SystemModulesReported {
            edge_agent: agent.map(|spec| built_in(ModuleReported::of_agent(spec, ""), facts.started_at)),
            edge_hub: hub.map(|spec| built_in(ModuleReported::of_spec(spec, ""), facts.started_at)),
        },
        modules: modules
            .map(|(id, spec)| (id.clone(), module(facts, id, spec)))
            .collect(),
    };
    match serde_json::to_value(reported) {
        Ok(Value::Object(document)) => document,
        // A struct of this form always becomes an object.
        _ => Map::new(),
    }
}

/// Agent and broker are this process: they run since it does.
fn built_in(reported: ModuleReported, started_at: Timestamp) -> ModuleReported {
    ModuleReported {
        runtime_status: ReportedStatus::Running,
        last_start_time_utc: started_at,
        ..reported
    }
}

fn module(facts: &Facts<'_>, id: &ModuleId, spec: &ModuleSpec) -> ModuleReported {
    let state = facts.states.iter().find(|state| state.id == *id);
    let verdict = facts.verdicts.get(id);
    let hash = state.and_then(|state| state.image_hash.as_deref()).unwrap_or_default();
    let restarts = facts.bookkeeping.restarts(id);
    let status = verdict
        .map(|verdict| verdict.status)
        .or_else(|| state.map(|state| state.status));
    ModuleReported {
        runtime_status: reported_status(status.unwrap_or_default()),
        status_description: verdict
            .and_then(|verdict| verdict.description.as_deref())
            .map(shortened),
        exit_code: state.and_then(|state| state.exit_code).map_or(0, i64::from),
        last_start_time_utc: state.and_then(|state| state.started_at).unwrap_or(Timestamp::NEVER),
        last_exit_time_utc: state.and_then(|state| state.exited_at).unwrap_or(Timestamp::NEVER),
        restart_count: Some(restarts.count),
        last_restart_time_utc: Some(restarts.last.unwrap_or(Timestamp::NEVER)),
        ..ModuleReported::of_spec(spec, hash)
    }
}

const fn reported_status(status: RuntimeStatus) -> ReportedStatus {
    match status {
        RuntimeStatus::Unknown => ReportedStatus::Unknown,
        RuntimeStatus::Running => ReportedStatus::Running,
        RuntimeStatus::Unhealthy => ReportedStatus::Unhealthy,
        RuntimeStatus::Stopped => ReportedStatus::Stopped,
        RuntimeStatus::Backoff => ReportedStatus::Backoff,
        RuntimeStatus::Failed => ReportedStatus::Failed,
        RuntimeStatus::Dead => ReportedStatus::Dead,
    }
}
