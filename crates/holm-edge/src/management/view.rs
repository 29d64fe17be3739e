//! Modules as the management API shows them.
//!
//! Source: `edge-agent.md` §3.3.

use holm_runtime::{ModuleState, RuntimeKind, RuntimeStatus};
use serde_json::{Value, json};

/// `{"modules":[…]}`.
#[must_use]
pub fn list(modules: &[ModuleState]) -> Value {
    json!({ "modules": modules.iter().map(module).collect::<Vec<_>>() })
}

/// One module.
#[must_use]
pub fn module(state: &ModuleState) -> Value {
    let exit = state
        .exited_at
        .filter(|_| state.status != RuntimeStatus::Running)
        .map(|moment| json!({ "exitTime": moment, "statusCode": state.exit_code.unwrap_or_default().to_string() }));
    json!({
        "id": "id",
        "name": state.id,
        "type": kind(state.kind),
        "config": {
            "settings": {
                "image": state.image,
                "imageHash": state.image_hash,
                "createOptions": { "Labels": state.labels },
            },
            "env": [],
        },
        "status": {
            "startTime": state.started_at,
            "exitStatus": exit,
            "runtimeStatus": { "status": status(state.status), "description": state.description },
        },
    })
}

/// The published word for a kind.
#[must_use]
pub fn kind(kind: RuntimeKind) -> String {
    kind.to_string()
}

/// The published word for a status.
#[must_use]
pub fn status(status: RuntimeStatus) -> String {
    status.to_string()
}
