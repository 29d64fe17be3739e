//! What the agent knows of every module, for whoever lists them beside what runtimes find: the two that are built in, and those
//! of the deployment, also where nothing of them is there yet.

use std::collections::BTreeMap;

use holm_model::manifest::{ModuleSpec, ModuleType};
use holm_model::{ModuleId, Timestamp};
use holm_runtime::RuntimeStatus;
use serde_json::{Map, Value};

use super::{Agent, Memory};

/// The names of the two that are built in, as the original's containers have them.
pub const BUILT_IN: [&str; 2] = ["edgeAgent", "edgeHub"];

/// Whether a name is that of a part of the edge itself.
#[must_use]
pub fn is_built_in(name: &str) -> bool {
    BUILT_IN.contains(&name.trim_start_matches('$'))
}

/// All modules that there are, or shall be.
#[derive(Clone, Debug)]
pub struct Overview {
    /// When agent and broker were started.
    pub started_at: Timestamp,
    /// Agent and broker, by name.
    pub built_in: BTreeMap<&'static str, Known>,
    /// The modules of the deployment in force, and of the one that is made ready.
    pub deployed: BTreeMap<ModuleId, Known>,
}

/// What is known of a module.
#[derive(Clone, Debug)]
pub struct Known {
    /// How it is run: the manifest's word.
    pub kind: &'static str,
    /// What it is made of.
    pub image: String,
    /// As deployed.
    pub create_options: Map<String, Value>,
    /// How it fares.
    pub status: RuntimeStatus,
    /// Why not well.
    pub reason: Option<String>,
}

impl Agent {
    /// What is known of every module.
    #[must_use]
    pub fn overview(&self) -> Overview {
        let memory = self.inner.memory();
        let desired = memory.deployment.in_force();
        let spec_of = |name: &str| {
            let desired = desired?;
            let specs = [("edgeAgent", &desired.edge_agent), ("edgeHub", &desired.edge_hub)];
            let (_, spec) = specs.into_iter().find(|(known, _)| *known == name)?;
            spec.as_ref()
        };
        Overview {
            started_at: self.inner.started_at,
            built_in: BUILT_IN.map(|name| (name, built_in(spec_of(name)))).into(),
            deployed: deployed(&memory),
        }
    }
}

/// Before the first deployment nobody has named an image.
fn built_in(spec: Option<&ModuleSpec>) -> Known {
    let unnamed = || concat!("holm:", env!("CARGO_PKG_VERSION")).to_owned();
    Known {
        kind: word(spec.map_or(ModuleType::Docker, |spec| spec.kind)),
        image: spec.map_or_else(unnamed, |spec| spec.image.clone()),
        create_options: spec.map(|spec| spec.create_options.clone()).unwrap_or_default(),
        status: RuntimeStatus::Running,
        reason: None,
    }
}

fn deployed(memory: &Memory) -> BTreeMap<ModuleId, Known> {
    let rollout = &memory.deployment.rollout;
    let mut all = BTreeMap::new();
    // What is in force says more than what shall be.
    for edition in [rollout.next(), rollout.in_force()].into_iter().flatten() {
        for (id, spec) in &edition.desired.modules {
            let verdict = memory.verdicts.get(id);
            let told = verdict.and_then(|verdict| verdict.error.clone().or_else(|| verdict.description.clone()));
            let unprepared = memory.unprepared.get(id);
            let unprepared = unprepared.map(|reason| format!("its next version is not ready: {reason}"));
            let known = Known {
                kind: word(spec.kind),
                image: spec.image.clone(),
                create_options: spec.create_options.clone(),
                status: verdict.map(|verdict| verdict.status).unwrap_or_default(),
                reason: told.or(unprepared),
            };
            all.insert(id.clone(), known);
        }
    }
    all
}

const fn word(kind: ModuleType) -> &'static str {
    match kind {
        ModuleType::Docker => "docker",
        ModuleType::Process => "process",
        ModuleType::Wasm => "wasm",
    }
}
