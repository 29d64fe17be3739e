//! A runtime in memory: it keeps what the trait promises, notes what it is asked, and fails where it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use holm_model::{ModuleId, Timestamp};
use holm_runtime::{
    BoxFuture, Health, LogStream, LogsOptions, ModuleRuntime, ModuleSpec, ModuleState, ModuleStats, Prepared,
    Reachability, RuntimeError, RuntimeKind, RuntimeStatus, UnsupportedOption,
};

#[derive(Debug, Default)]
struct World {
    modules: BTreeMap<ModuleId, ModuleState>,
    log: Vec<String>,
    /// By image.
    failing: BTreeMap<String, String>,
    /// Images whose program ends as soon as it is started.
    crashing: BTreeSet<String>,
    /// Images with a health check that has still to pass.
    starting: BTreeSet<String>,
    /// It does not answer.
    hangs: bool,
    /// What modules have written: frames.
    output: BTreeMap<ModuleId, Vec<u8>>,
}

#[derive(Debug, Default)]
pub(super) struct InMemory {
    world: Mutex<World>,
}

impl InMemory {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(super) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.world().log)
    }

    pub(super) fn image(&self, id: &ModuleId) -> Option<String> {
        self.world().modules.get(id).map(|state| state.image.clone())
    }

    pub(super) fn fail(&self, image: &str, reason: Option<&str>) {
        let mut world = self.world();
        world.failing.remove(image);
        if let Some(reason) = reason {
            world.failing.insert(image.to_owned(), reason.to_owned());
        }
    }

    /// Makes the program of an image end with code 3 at each start, or no longer. It did so long ago, so no wait is left.
    pub(super) fn crash_at_start(&self, image: &str, crashes: bool) {
        let mut world = self.world();
        if crashes {
            world.crashing.insert(image.to_owned());
        } else {
            world.crashing.remove(image);
        }
    }

    /// A module has written a line.
    pub(super) fn write(&self, id: &ModuleId, line: &str) {
        let mut world = self.world();
        let output = world.output.entry(id.clone()).or_default();
        let length = u32::try_from(line.len() + 1).unwrap();
        output.extend_from_slice(&[1, 0, 0, 0]);
        output.extend_from_slice(&length.to_be_bytes());
        output.extend_from_slice(line.as_bytes());
        output.push(b'\n');
    }

    pub(super) fn hang(&self) {
        self.world().hangs = true;
    }

    /// A module is gone, as if somebody had removed it by hand.
    pub(super) fn lose(&self, id: &ModuleId) {
        self.world().modules.remove(id);
    }

    pub(super) fn crash(&self, id: &ModuleId, exit_code: i32, at: Timestamp) {
        let mut world = self.world();
        let state = world.modules.get_mut(id).unwrap();
        state.status = RuntimeStatus::Failed;
        state.exit_code = Some(exit_code);
        state.exited_at = Some(at);
    }

    pub(super) fn has_health_check(&self, image: &str) {
        self.world().starting.insert(image.to_owned());
    }

    /// What a health check says of a module.
    pub(super) fn set_health(&self, id: &ModuleId, health: Health) {
        self.world().modules.get_mut(id).unwrap().health = Some(health);
    }

    fn change(
        &self,
        operation: &str,
        id: &ModuleId,
        change: impl FnOnce(&mut ModuleState),
    ) -> Result<(), RuntimeError> {
        let mut world = self.world();
        world.log.push(format!("{operation} {id}"));
        let state = world.modules.get_mut(id);
        state.map(change).ok_or_else(|| RuntimeError::NotFound(id.clone()))
    }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

impl ModuleRuntime for InMemory {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Process
    }

    fn validate(&self, _: &ModuleSpec) -> Result<(), Vec<UnsupportedOption>> {
        Ok(())
    }

    fn prepare<'a>(&'a self, spec: &'a ModuleSpec) -> BoxFuture<'a, Result<Prepared, RuntimeError>> {
        let mut world = self.world();
        world.log.push(format!("prepare {}", spec.id));
        let outcome = match world.failing.get(&spec.image) {
            Some(reason) => Err(RuntimeError::Image {
                image: spec.image.clone(),
                reason: reason.clone(),
            }),
            None => Ok(Prepared::default()),
        };
        Box::pin(std::future::ready(outcome))
    }

    fn create<'a>(&'a self, spec: &'a ModuleSpec) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let mut world = self.world();
        world.log.push(format!("create {}", spec.id));
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
            image_hash: Some(format!("sha256:{}", spec.image)),
            pid: None,
            spec_digest: Some(spec.digest()),
            labels: BTreeMap::new(),
            is_from_before_boot: None,
        };
        let outcome = match world.modules.insert(spec.id.clone(), state) {
            None => Ok(()),
            Some(_) => Err(RuntimeError::AlreadyExists(spec.id.clone())),
        };
        Box::pin(std::future::ready(outcome))
    }

    fn start<'a>(&'a self, id: &'a ModuleId) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let (crashing, starting) = {
            let world = self.world();
            (world.crashing.clone(), world.starting.clone())
        };
        let outcome = self.change("start", id, |state| {
            state.status = RuntimeStatus::Running;
            state.health = starting.contains(&state.image).then_some(Health::Starting);
            state.started_at = Some(now());
            if crashing.contains(&state.image) {
                state.status = RuntimeStatus::Failed;
                state.exit_code = Some(3);
                state.exited_at = Some(now().plus_millis(-3_600_000));
            }
        });
        Box::pin(std::future::ready(outcome))
    }

    fn stop<'a>(&'a self, id: &'a ModuleId, _: Option<Duration>) -> BoxFuture<'a, Result<(), RuntimeError>> {
        if !self.world().modules.contains_key(id) {
            return Box::pin(std::future::ready(Err(RuntimeError::NotFound(id.clone()))));
        }
        let outcome = self.change("stop", id, |state| {
            state.status = RuntimeStatus::Stopped;
            state.exit_code = Some(0);
            state.exited_at = Some(now());
        });
        Box::pin(std::future::ready(outcome))
    }

    fn remove<'a>(&'a self, id: &'a ModuleId) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let mut world = self.world();
        world.log.push(format!("remove {id}"));
        world.modules.remove(id);
        Box::pin(std::future::ready(Ok(())))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<ModuleState>, RuntimeError>> {
        if self.world().hangs {
            return Box::pin(std::future::pending());
        }
        let modules = self.world().modules.values().cloned().collect();
        Box::pin(std::future::ready(Ok(modules)))
    }

    fn inspect<'a>(&'a self, id: &'a ModuleId) -> BoxFuture<'a, Result<ModuleState, RuntimeError>> {
        let found = self.world().modules.get(id).cloned();
        Box::pin(std::future::ready(
            found.ok_or_else(|| RuntimeError::NotFound(id.clone())),
        ))
    }

    fn logs<'a>(&'a self, id: &'a ModuleId, _: &'a LogsOptions) -> BoxFuture<'a, Result<LogStream, RuntimeError>> {
        let world = self.world();
        let outcome = if world.modules.contains_key(id) {
            let output = world.output.get(id).cloned().unwrap_or_default();
            let pieces: Vec<_> = output.chunks(1000).map(|piece| Ok(piece.to_vec().into())).collect();
            Ok(Box::pin(futures_util::stream::iter(pieces)) as LogStream)
        } else {
            Err(RuntimeError::NotFound(id.clone()))
        };
        Box::pin(std::future::ready(outcome))
    }

    fn stats<'a>(&'a self, _: &'a ModuleId) -> BoxFuture<'a, Result<ModuleStats, RuntimeError>> {
        Box::pin(std::future::ready(Ok(ModuleStats::default())))
    }

    fn all_stats(&self) -> BoxFuture<'_, Result<BTreeMap<ModuleId, ModuleStats>, RuntimeError>> {
        let running = self.world().modules.keys().cloned().collect::<Vec<_>>();
        let all = running.into_iter().map(|id| (id, ModuleStats::default())).collect();
        Box::pin(std::future::ready(Ok(all)))
    }

    fn processes<'a>(&'a self, _: &'a ModuleId) -> BoxFuture<'a, Result<Vec<u32>, RuntimeError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn probe_reachability<'a>(
        &'a self,
        _: &'a ModuleId,
        _: &'a str,
        _: u16,
    ) -> BoxFuture<'a, Result<Reachability, RuntimeError>> {
        Box::pin(std::future::ready(Ok(Reachability::Reachable)))
    }
}
