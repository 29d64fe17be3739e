//! The trait for processes. The work is done on files and short-lived programs, so it runs on threads for blocking work.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use holm_model::ModuleId;
use serde_json::json;

use super::cgroup::ControlGroups;
use super::end::BEYOND_GRACE;
use super::observe::{self, Run};
use super::plan::{self, Sources};
use super::procfs::Family;
use super::record::{Directory, FORMAT, ModuleRecord, Plan, write};
use super::{end, image, logs, procfs, user};
use crate::error::{RuntimeError, UnsupportedOption};
use crate::logs::{LogLimits, LogStream, LogsOptions};
use crate::runtime::{BoxFuture, ModuleRuntime, Prepared};
use crate::spec::{ModuleSpec, RuntimeKind};
use crate::state::{ModuleState, ModuleStats, Reachability};
use crate::supervisor::Launched;
use crate::supervisor::protocol::Operation;

/// Where process modules live and come from.
#[derive(Clone, Debug)]
pub struct ProcessConfig {
    /// The directory for what is kept of modules; made if it is not there. Absolute.
    pub root: PathBuf,
    /// Where images are looked for, in this order.
    pub module_paths: Vec<PathBuf>,
    /// The `holm` program, which is every `holm/NAME` image.
    pub holm: PathBuf,
    /// The modules that it has ready: what NAME may be.
    pub ready_made: Vec<String>,
    /// The program and the words that lead to [`crate::supervisor::main`], such as `holm supervise`.
    pub supervise: Vec<OsString>,
    /// How much output of a module is kept when its create options don't say.
    pub log: LogLimits,
}

impl ProcessConfig {
    /// With the supervisor in the `holm` program itself, behind its hidden subcommand `supervise`, and no ready-made modules.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>, module_paths: Vec<PathBuf>, holm: impl Into<PathBuf>) -> Self {
        let holm = holm.into();
        Self {
            root: root.into(),
            module_paths,
            supervise: vec![holm.clone().into_os_string(), "supervise".into()],
            holm,
            ready_made: Vec::new(),
            log: LogLimits::default(),
        }
    }
}

/// Runs modules as processes of this device.
#[derive(Clone, Debug)]
pub struct ProcessRuntime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: ProcessConfig,
    groups: ControlGroups,
}

impl ProcessRuntime {
    /// Makes the runtime; its directory is made with the first module.
    #[must_use]
    pub fn new(config: ProcessConfig) -> Self {
        let groups = ControlGroups::default();
        Self {
            inner: Arc::new(Inner { config, groups }),
        }
    }

    fn blocking<'a, T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, RuntimeError> + Send + 'static,
    ) -> BoxFuture<'a, Result<T, RuntimeError>> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let task = tokio::task::spawn_blocking(move || work(&inner));
            match task.await {
                Ok(result) => result,
                Err(error) => Err(RuntimeError::Answer {
                    operation: "work on a process module".to_owned(),
                    reason: error.to_string(),
                }),
            }
        })
    }
}

impl ModuleRuntime for ProcessRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Process
    }

    fn validate(&self, spec: &ModuleSpec) -> Result<(), Vec<UnsupportedOption>> {
        plan::read_options(&spec.create_options, &self.inner.groups, self.inner.config.log).map(|_| ())
    }

    fn prepare<'a>(&'a self, spec: &'a ModuleSpec) -> BoxFuture<'a, Result<Prepared, RuntimeError>> {
        let name = spec.image.clone();
        self.blocking(move |inner| inner.find_image(&name).map(|_| Prepared::default()))
    }

    fn create<'a>(&'a self, spec: &'a ModuleSpec) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let spec = spec.clone();
        self.blocking(move |inner| inner.create(&spec))
    }

    fn start<'a>(&'a self, id: &'a ModuleId) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let id = id.clone();
        self.blocking(move |inner| inner.start(&id))
    }

    fn stop<'a>(&'a self, id: &'a ModuleId, grace: Option<Duration>) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let id = id.clone();
        self.blocking(move |inner| {
            let (directory, _) = inner.existing(&id)?;
            inner.stop(&directory, grace)
        })
    }

    fn remove<'a>(&'a self, id: &'a ModuleId) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let id = id.clone();
        self.blocking(move |inner| inner.remove(&id))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<ModuleState>, RuntimeError>> {
        self.blocking(Inner::list)
    }

    fn inspect<'a>(&'a self, id: &'a ModuleId) -> BoxFuture<'a, Result<ModuleState, RuntimeError>> {
        let id = id.clone();
        self.blocking(move |inner| {
            let (directory, module) = inner.existing(&id)?;
            Ok(observe::state(module, &observe::run(&directory)?))
        })
    }

    fn logs<'a>(
        &'a self,
        id: &'a ModuleId,
        options: &'a LogsOptions,
    ) -> BoxFuture<'a, Result<LogStream, RuntimeError>> {
        let (id, options) = (id.clone(), options.clone());
        self.blocking(move |inner| {
            let (directory, _) = inner.existing(&id)?;
            logs::open(directory, options)
        })
    }

    fn stats<'a>(&'a self, id: &'a ModuleId) -> BoxFuture<'a, Result<ModuleStats, RuntimeError>> {
        let id = id.clone();
        self.blocking(move |inner| inner.stats(&id))
    }

    fn all_stats(&self) -> BoxFuture<'_, Result<BTreeMap<ModuleId, ModuleStats>, RuntimeError>> {
        self.blocking(Inner::all_stats)
    }

    fn processes<'a>(&'a self, id: &'a ModuleId) -> BoxFuture<'a, Result<Vec<u32>, RuntimeError>> {
        let id = id.clone();
        self.blocking(move |inner| {
            let (directory, _) = inner.existing(&id)?;
            Ok(processes(&observe::run(&directory)?, &Family::read()))
        })
    }

    fn probe_reachability<'a>(
        &'a self,
        id: &'a ModuleId,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<Reachability, RuntimeError>> {
        let (id, host) = (id.clone(), host.to_owned());
        self.blocking(move |inner| {
            inner.existing(&id)?;
            // A process is on the device's own network, so this process stands for it.
            Ok(crate::probe::connect(&host, port))
        })
    }
}

impl Inner {
    fn directory(&self, id: &ModuleId) -> Directory {
        Directory::of(&self.config.root, id)
    }

    fn existing(&self, id: &ModuleId) -> Result<(Directory, ModuleRecord), RuntimeError> {
        let directory = self.directory(id);
        let module = observe::module(&directory)?;
        module
            .map(|module| (directory, module))
            .ok_or_else(|| RuntimeError::NotFound(id.clone()))
    }

    fn find_image(&self, name: &str) -> Result<image::Image, RuntimeError> {
        image::find(name, self.places()).map_err(|reason| RuntimeError::Image {
            image: name.to_owned(),
            reason,
        })
    }

    fn places(&self) -> image::Places<'_> {
        image::Places {
            module_paths: &self.config.module_paths,
            holm: &self.config.holm,
            ready_made: &self.config.ready_made,
        }
    }

    fn create(&self, spec: &ModuleSpec) -> Result<(), RuntimeError> {
        let options = plan::read_options(&spec.create_options, &self.groups, self.config.log).map_err(|options| {
            RuntimeError::Unsupported {
                id: spec.id.clone(),
                options,
            }
        })?;
        let directory = self.directory(&spec.id);
        match observe::module(&directory) {
            Ok(None) => {}
            Ok(Some(_)) => return Err(RuntimeError::AlreadyExists(spec.id.clone())),
            // It is of no use to anyone, and the module is wanted: begin again.
            Err(RuntimeError::Record { .. }) => self.remove(&spec.id)?,
            Err(error) => return Err(error),
        }
        let image = self.find_image(&spec.image)?;
        let mut labels = spec.labels.clone();
        labels.extend(options.labels);
        let record = ModuleRecord {
            format: FORMAT,
            id: spec.id.clone(),
            image: spec.image.clone(),
            image_hash: image.hash().map_err(RuntimeError::io("read", &image.program))?,
            create_options: spec.create_options.clone(),
            env: spec.env.clone(),
            labels,
            module_dir: spec.module_dir.clone(),
            spec_digest: spec.digest(),
        };
        directory
            .create()
            .map_err(RuntimeError::io("create", directory.path()))?;
        write(&directory.module(), &record).map_err(RuntimeError::io("write", &directory.module()))
    }

    fn start(&self, id: &ModuleId) -> Result<(), RuntimeError> {
        let (directory, module) = self.existing(id)?;
        if matches!(observe::run(&directory)?, Run::Up(_)) {
            return Ok(());
        }
        let sources = Sources {
            places: self.places(),
            log: self.config.log,
        };
        let plan = plan::make(&module, &directory, sources, &self.groups)?;
        make_working_dir(&directory, &plan)?;
        warn_of_a_barred_way(&module, &plan);
        write(&directory.plan(), &plan).map_err(RuntimeError::io("write", &directory.plan()))?;
        let failed = |reason| RuntimeError::StartFailed { id: id.clone(), reason };
        match self.launch(&directory).map_err(|error| failed(error.to_string()))? {
            Launched::Started => Ok(()),
            Launched::AlreadySupervised => match observe::run(&directory)? {
                Run::Up(_) => Ok(()),
                _ => Err(failed("its last supervisor is still ending it; try again".to_owned())),
            },
            Launched::Failed(reason) => Err(failed(reason)),
        }
    }

    fn launch(&self, directory: &Directory) -> io::Result<Launched> {
        let (program, words) = self
            .config
            .supervise
            .split_first()
            .ok_or_else(|| io::Error::other("no supervisor program is configured"))?;
        let output = Command::new(program)
            .args(words)
            .arg("launch")
            .arg(directory.path())
            .current_dir("/")
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .map_err(|error| io::Error::new(error.kind(), format!("`{}`: {error}", Path::new(program).display())))?;
        serde_json::from_slice(&output.stdout).map_err(|_| {
            let said = String::from_utf8_lossy(&output.stderr);
            io::Error::other(format!(
                "its supervisor ended ({}) and said `{}`",
                output.status,
                said.trim()
            ))
        })
    }

    fn stop(&self, directory: &Directory, grace: Option<Duration>) -> Result<(), RuntimeError> {
        let Run::Up(run) = observe::run(directory)? else {
            return Ok(());
        };
        let from_plan = || {
            let plan: Option<Plan> = super::record::read(&directory.plan()).ok().flatten();
            plan.map_or(Duration::from_secs(10), |plan| {
                Duration::from_millis(plan.stop_grace_millis)
            })
        };
        let grace_time = grace.unwrap_or_else(from_plan);
        let operation = Operation::Stop {
            grace_millis: grace.map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX)),
        };
        if run.supervisor.is_alive() {
            let patience = grace_time.saturating_add(BEYOND_GRACE);
            match observe::ask(directory, operation, patience) {
                Ok(_) => return Ok(()),
                // It may have ended by itself before it was asked.
                Err(_) if !matches!(observe::run(directory)?, Run::Up(_)) => return Ok(()),
                Err(error) if run.supervisor.is_alive() => {
                    return Err(RuntimeError::Answer {
                        operation: "stop a process".to_owned(),
                        reason: error.to_string(),
                    });
                }
                Err(_) => {}
            }
        }
        end::orphan(&run, grace_time).map_err(RuntimeError::io("stop the processes of", directory.path()))
    }

    fn remove(&self, id: &ModuleId) -> Result<(), RuntimeError> {
        let directory = self.directory(id);
        if !directory.path().exists() {
            return Ok(());
        }
        match self.stop(&directory, Some(Duration::ZERO)) {
            // What is damaged cannot be asked; its supervisor, if it lives, can.
            Err(RuntimeError::Record { .. }) => drop(observe::ask(&directory, Operation::Kill, BEYOND_GRACE)),
            other => other?,
        }
        end::wait_for_supervisor(&directory)?;
        fs::remove_dir_all(directory.path()).map_err(RuntimeError::io("remove", directory.path()))
    }

    fn list(&self) -> Result<Vec<ModuleState>, RuntimeError> {
        let root = &self.config.root;
        let entries = match fs::read_dir(root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(RuntimeError::io("read", root)(error)),
        };
        let mut modules = Vec::new();
        for entry in entries {
            let entry = entry.map_err(RuntimeError::io("read", root))?;
            let directory = Directory::at(entry.path());
            match observe::module(&directory) {
                Ok(Some(module)) => modules.push(observe::state(module, &observe::run(&directory)?)),
                // It is being created or removed.
                Ok(None) => {}
                // Nobody can tell which module it is; when that one is created again, it is put in order.
                Err(error @ RuntimeError::Record { .. }) => tracing::warn!(error = %error, "a module is left out"),
                Err(error) => return Err(error),
            }
        }
        modules.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(modules)
    }

    fn stats(&self, id: &ModuleId) -> Result<ModuleStats, RuntimeError> {
        let (directory, module) = self.existing(id)?;
        Ok(self.stats_of(&module, &observe::run(&directory)?, &Family::read()))
    }

    fn all_stats(&self) -> Result<BTreeMap<ModuleId, ModuleStats>, RuntimeError> {
        let root = &self.config.root;
        let entries = match fs::read_dir(root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(RuntimeError::io("read", root)(error)),
        };
        let family = Family::read();
        let mut all = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(RuntimeError::io("read", root))?;
            let directory = Directory::at(entry.path());
            // What can't be read is told of by the list.
            if let (Ok(Some(module)), Ok(run @ Run::Up(_))) = (observe::module(&directory), observe::run(&directory)) {
                let stats = self.stats_of(&module, &run, &family);
                all.insert(module.id, stats);
            }
        }
        Ok(all)
    }

    fn stats_of(&self, module: &ModuleRecord, run: &Run, family: &Family) -> ModuleStats {
        let id = &module.id;
        let supervisor = match run {
            Run::Up(run) if run.supervisor.is_alive() => Some(run.supervisor.pid),
            _ => None,
        };
        let usage = procfs::usage(&processes(run, family), supervisor);
        let limits = plan::read_options(&module.create_options, &self.groups, self.config.log)
            .unwrap_or_default()
            .limits;
        let docker_json = json!({
            "name": format!("/{id}"),
            "pids_stats": {"current": usage.threads},
            "memory_stats": {"usage": usage.memory_bytes, "limit": limits.memory_bytes},
            "cpu_stats": {"cpu_usage": {"total_usage": usage.cpu_nanos}},
            "blkio_stats": {"io_service_bytes_recursive": [
                {"op": "Read", "value": usage.read_bytes}, {"op": "Write", "value": usage.written_bytes}
            ]},
        });
        ModuleStats {
            memory_bytes: usage.memory_bytes,
            memory_limit_bytes: limits.memory_bytes,
            cpu_nanos: usage.cpu_nanos,
            pids: usage.threads,
            network_in_bytes: None,
            network_out_bytes: None,
            disk_read_bytes: usage.read_bytes,
            disk_write_bytes: usage.written_bytes,
            docker_json,
        }
    }
}

/// All processes of a module: everything below its supervisor, which adopts what the program leaves behind.
fn processes(run: &Run, family: &Family) -> Vec<u32> {
    let Run::Up(run) = run else { return Vec::new() };
    if run.supervisor.is_alive() {
        return family.below(run.supervisor.pid);
    }
    let Some(main) = run.main else { return Vec::new() };
    let mut pids = vec![main.pid];
    pids.extend(family.below(main.pid));
    pids
}

/// Makes the module's own working directory, if that is where it works, and gives it to the module's user.
fn make_working_dir(directory: &Directory, plan: &Plan) -> Result<(), RuntimeError> {
    let work = directory.work();
    if plan.working_dir != work {
        return Ok(());
    }
    let make = || {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&work)?;
        fs::set_permissions(&work, fs::Permissions::from_mode(0o700))?;
        let owner = plan.user.map(|user| (user.uid, user.gid));
        let (uid, gid) = owner.unzip();
        std::os::unix::fs::chown(&work, uid, gid)
    };
    make().map_err(RuntimeError::io("create", &work))
}

/// A module whose user can't get to its socket starts and can do nothing: say which directory it is, and leave it as it is,
/// since an operator made it so.
fn warn_of_a_barred_way(module: &ModuleRecord, plan: &Plan) {
    let barred = plan.user.and_then(|ids| user::barred_way(&module.module_dir, ids));
    if let Some(path) = barred {
        let path = path.display();
        tracing::warn!(
            module = %module.id,
            "the module's user can't get to its workload socket, because `{path}` lets no other user through; run `chmod o+x {path}`, or use another data directory"
        );
    }
}
