//! Modules as the management API shows them: what runtimes find, what is built in, and what the deployment names and is not
//! there yet.
//!
//! Source: `edge-agent.md` §3.3. The original's tools know five words for a status: a module that runs and whose health check
//! fails is `running` here, and its description says so.

use std::collections::BTreeMap;

use holm_model::{ModuleId, Timestamp};
use holm_runtime::{ModuleState, RuntimeStatus};
use serde_json::{Map, Value, json};

use crate::agent::overview::{Known, Overview};

/// `{"modules":[…]}`, by name.
#[must_use]
pub fn list(states: &[ModuleState], overview: Option<&Overview>) -> Value {
    let mut all: BTreeMap<&str, Value> = BTreeMap::new();
    if let Some(overview) = overview {
        for (name, known) in &overview.built_in {
            all.insert(name, built_in(name, known, overview.started_at));
        }
        for (id, known) in &overview.deployed {
            all.insert(id.as_str(), absent(id, known));
        }
    }
    for state in states {
        let known = overview.and_then(|overview| overview.deployed.get(&state.id));
        all.insert(state.id.as_str(), module(state, known));
    }
    json!({ "modules": all.into_values().collect::<Vec<_>>() })
}

/// One module that a runtime has found. `known`: what the agent knows of it.
#[must_use]
pub fn module(state: &ModuleState, known: Option<&Known>) -> Value {
    let exit = state
        .exited_at
        .filter(|_| !state.status.is_up())
        .map(|moment| json!({ "exitTime": moment, "statusCode": state.exit_code.unwrap_or_default().to_string() }));
    let reason = state.description.clone().or_else(|| known?.reason.clone());
    // The word alone says too little.
    let reason = reason.or_else(|| match (state.status, state.exit_code) {
        (RuntimeStatus::Failed | RuntimeStatus::Backoff, Some(code)) => {
            Some(format!("it ended with exit code {code}; its log may say why"))
        }
        (RuntimeStatus::Failed | RuntimeStatus::Backoff, None) => {
            Some("it ended, and its runtime does not say how; its log may".to_owned())
        }
        _ => None,
    });
    let image = Image {
        name: &state.image,
        hash: state.image_hash.as_deref(),
        options: json!({ "Labels": state.labels }),
    };
    let status = [
        ("startTime", state.started_at.map(|moment| json!(moment))),
        ("exitStatus", exit),
    ];
    details(
        state.id.as_str(),
        &state.kind.to_string(),
        &image,
        state.status,
        (status, reason),
    )
}

/// A part of the edge itself.
#[must_use]
pub fn built_in(name: &str, known: &Known, started_at: Timestamp) -> Value {
    let status = [("startTime", Some(json!(started_at))), ("exitStatus", None)];
    details(
        name,
        known.kind,
        &Image::of(known),
        known.status,
        (status, known.reason.clone()),
    )
}

/// A module of which nothing is there.
#[must_use]
pub fn absent(id: &ModuleId, known: &Known) -> Value {
    let reason = known.reason.clone().unwrap_or_else(|| "it is not there yet".to_owned());
    let status = [("startTime", None), ("exitStatus", None)];
    details(
        id.as_str(),
        known.kind,
        &Image::of(known),
        known.status,
        (status, Some(reason)),
    )
}

struct Image<'a> {
    name: &'a str,
    hash: Option<&'a str>,
    options: Value,
}

impl<'a> Image<'a> {
    fn of(known: &'a Known) -> Self {
        Self {
            name: &known.image,
            hash: None,
            options: json!({ "Labels": known.create_options.get("Labels").cloned().unwrap_or_else(|| json!({})) }),
        }
    }
}

/// Members that there is nothing to say of are left out: the published schema knows no `null`.
fn details(
    name: &str,
    kind: &str,
    image: &Image<'_>,
    status: RuntimeStatus,
    (times, reason): ([(&str, Option<Value>); 2], Option<String>),
) -> Value {
    let mut settings = Map::new();
    settings.insert("image".to_owned(), json!(image.name));
    if let Some(hash) = image.hash {
        settings.insert("imageHash".to_owned(), json!(hash));
    }
    settings.insert("createOptions".to_owned(), image.options.clone());
    let mut runtime = Map::new();
    runtime.insert("status".to_owned(), json!(word(status)));
    if let Some(reason) = reason {
        runtime.insert("description".to_owned(), json!(reason));
    }
    let mut told = Map::new();
    for (member, value) in times {
        if let Some(value) = value {
            told.insert(member.to_owned(), value);
        }
    }
    told.insert("runtimeStatus".to_owned(), Value::Object(runtime));
    json!({
        "id": "id",
        "name": name,
        "type": kind,
        "config": { "settings": settings, "env": [] },
        "status": told,
    })
}

const fn word(status: RuntimeStatus) -> &'static str {
    match status {
        RuntimeStatus::Running | RuntimeStatus::Unhealthy => "running",
        RuntimeStatus::Stopped => "stopped",
        RuntimeStatus::Failed | RuntimeStatus::Backoff => "failed",
        RuntimeStatus::Dead => "dead",
        RuntimeStatus::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use holm_runtime::RuntimeKind;

    use super::*;

    #[test]
    fn a_module_that_has_failed_is_told_with_a_reason_whoever_knows_one() {
        let state = |description: Option<&str>, exit_code| ModuleState {
            id: ModuleId::new("m").unwrap(),
            kind: RuntimeKind::Docker,
            status: RuntimeStatus::Failed,
            health: None,
            description: description.map(str::to_owned),
            exit_code,
            started_at: None,
            exited_at: None,
            image: "pump".to_owned(),
            image_hash: None,
            pid: None,
            spec_digest: None,
            labels: BTreeMap::new(),
            is_from_before_boot: None,
        };
        let reason = |state| module(&state, None)["status"]["runtimeStatus"]["description"].to_string();

        assert!(reason(state(Some("out of memory"), Some(137))).contains("out of memory"));
        assert!(reason(state(None, Some(3))).contains("exit code 3"));
        assert!(reason(state(None, None)).contains("does not say how"));
    }
}
