//! The runtime in which the edge's agent keeps the simulated modules: programs, in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holm_model::{ModuleId, Timestamp};
use holm_runtime::{
    BoxFuture, LogStream, LogsOptions, ModuleRuntime, ModuleSpec, ModuleState, ModuleStats, Prepared, Reachability,
    RuntimeError, RuntimeKind, RuntimeStatus, UnsupportedOption,
};

use crate::programs::{Kind, Program, Surroundings};

/// The modules of a device. Clones are the same.
#[derive(Clone, Debug)]
pub struct Modules {
    device: String,
    surroundings: Surroundings,
    all: Arc<Mutex<BTreeMap<ModuleId, Module>>>,
}

#[derive(Debug)]
struct Module {
    state: ModuleState,
    program: Option<Program>,
}

impl Modules {
    /// A device without modules.
    #[must_use]
    pub fn new(device: &str, surroundings: &Surroundings) -> Self {
        Self {
            device: device.to_owned(),
            surroundings: surroundings.clone(),
            all: Arc::default(),
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<ModuleId, Module>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.surroundings.clock.millis())
    }

    /// The modules that run, and their images.
    #[must_use]
    pub fn running(&self) -> BTreeMap<String, String> {
        let all = self.all();
        let running = all.iter().filter(|(_, module)| module.program.is_some());
        running
            .map(|(id, module)| (id.to_string(), module.state.image.clone()))
            .collect()
    }

    /// A module's program dies.
    pub fn crash(&self, id: &str) {
        let now = self.now();
        if let Some((_, module)) = self.all().iter_mut().find(|(known, _)| known.as_str() == id) {
            module.end(RuntimeStatus::Failed, 1, now);
        }
    }

    /// The device loses its power: every program dies, and it is known that it was the device.
    pub fn power_cut(&self) {
        let now = self.now();
        for module in self.all().values_mut().filter(|module| module.program.is_some()) {
            module.end(RuntimeStatus::Failed, 255, now);
            module.state.is_from_before_boot = Some(true);
        }
    }
}

impl Module {
    fn end(&mut self, status: RuntimeStatus, exit_code: i32, now: Timestamp) {
        self.program = None;
        self.state.status = status;
        self.state.exit_code = Some(exit_code);
        self.state.exited_at = Some(now);
    }
}

fn kind_of(image: &str) -> Option<Kind> {
    let name = image.strip_prefix("sim/")?;
    match name.split(':').next()? {
        "sensor" => Some(Kind::Sensor),
        "watcher" => Some(Kind::Watcher),
        "caller" => Some(Kind::Caller),
        _ => None,
    }
}

fn ready<'a, T: Send + 'a>(outcome: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(outcome))
}

impl ModuleRuntime for Modules {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Process
    }

    fn validate(&self, _: &ModuleSpec) -> Result<(), Vec<UnsupportedOption>> {
        Ok(())
    }

    fn prepare<'a>(&'a self, spec: &'a ModuleSpec) -> BoxFuture<'a, Result<Prepared, RuntimeError>> {
        ready(match kind_of(&spec.image) {
            Some(_) => Ok(Prepared::default()),
            None => Err(RuntimeError::Image {
                image: spec.image.clone(),
                reason: "there is no such program".to_owned(),
            }),
        })
    }

    fn create<'a>(&'a self, spec: &'a ModuleSpec) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let mut all = self.all();
        if all.contains_key(&spec.id) {
            return ready(Err(RuntimeError::AlreadyExists(spec.id.clone())));
        }
        let state = ModuleState {
            id: spec.id.clone(),
            kind: RuntimeKind::Process,
            status: RuntimeStatus::Stopped,
            health: None,
            description: None,
            exit_code: None,
            started_at: None,
            exited_at: None,
            image: spec.image.clone(),
            image_hash: None,
            pid: None,
            spec_digest: Some(spec.digest()),
            labels: BTreeMap::new(),
            is_from_before_boot: None,
        };
        all.insert(spec.id.clone(), Module { state, program: None });
        ready(Ok(()))
    }

    fn start<'a>(&'a self, id: &'a ModuleId) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let now = self.now();
        let mut all = self.all();
        let Some(module) = all.get_mut(id) else {
            return ready(Err(RuntimeError::NotFound(id.clone())));
        };
        if module.program.is_none()
            && let Some(kind) = kind_of(&module.state.image)
        {
            let identity = format!("{}/{id}", self.device);
            module.program = Some(Program::start(&self.surroundings, &identity, kind));
            module.state.status = RuntimeStatus::Running;
            module.state.exit_code = None;
            module.state.started_at = Some(now);
            module.state.is_from_before_boot = Some(false);
        }
        ready(Ok(()))
    }

    fn stop<'a>(&'a self, id: &'a ModuleId, _: Option<Duration>) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let now = self.now();
        ready(match self.all().get_mut(id) {
            Some(module) => {
                module.end(RuntimeStatus::Stopped, 0, now);
                Ok(())
            }
            None => Err(RuntimeError::NotFound(id.clone())),
        })
    }

    fn remove<'a>(&'a self, id: &'a ModuleId) -> BoxFuture<'a, Result<(), RuntimeError>> {
        self.all().remove(id);
        ready(Ok(()))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<ModuleState>, RuntimeError>> {
        let states = self.all().values().map(|module| module.state.clone()).collect();
        ready(Ok(states))
    }

    fn inspect<'a>(&'a self, id: &'a ModuleId) -> BoxFuture<'a, Result<ModuleState, RuntimeError>> {
        let state = self.all().get(id).map(|module| module.state.clone());
        ready(state.ok_or_else(|| RuntimeError::NotFound(id.clone())))
    }

    fn logs<'a>(&'a self, id: &'a ModuleId, _: &'a LogsOptions) -> BoxFuture<'a, Result<LogStream, RuntimeError>> {
        ready(Err(RuntimeError::NotFound(id.clone())))
    }

    fn stats<'a>(&'a self, _: &'a ModuleId) -> BoxFuture<'a, Result<ModuleStats, RuntimeError>> {
        ready(Ok(ModuleStats::default()))
    }

    fn all_stats(&self) -> BoxFuture<'_, Result<BTreeMap<ModuleId, ModuleStats>, RuntimeError>> {
        ready(Ok(BTreeMap::new()))
    }

    fn processes<'a>(&'a self, _: &'a ModuleId) -> BoxFuture<'a, Result<Vec<u32>, RuntimeError>> {
        ready(Ok(Vec::new()))
    }

    fn probe_reachability<'a>(
        &'a self,
        _: &'a ModuleId,
        _: &'a str,
        _: u16,
    ) -> BoxFuture<'a, Result<Reachability, RuntimeError>> {
        ready(Ok(Reachability::Reachable))
    }
}
