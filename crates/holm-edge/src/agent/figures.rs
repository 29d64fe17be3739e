//! The published figures of the agent, `edgeAgent_*` (`edge-agent.md` §8), but for those of what modules and the device use
//! ([`crate::usage`]).
//!
//! Labels are names and versions that a deployment gives, commands and methods; of names there are at most
//! [`MAX_SERIES`]. All begin at 0 with the process.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holm_gateway::label;
use holm_gateway::metrics::{Counter, Exposition, Family, Kind, Label as _, Series, Summary};
use holm_model::ModuleId;
use holm_model::manifest::{AgentDesired, ModuleStatus};

use super::plan::{Action, Verdict};

/// Modules and versions of them that have figures of their own: far more than a deployment has.
const MAX_SERIES: usize = 1000;

label! {
    /// What is done to a module, in the published words.
    pub(super) enum Command("command") {
        Create = "create",
        PrepareUpdate = "prepareUpdate",
        Remove = "remove",
        Start = "start",
        Stop = "stop",
        Restart = "restart",
    }
}

label! {
    /// A method that was called.
    pub(super) enum Method("method_name") {
        Ping = "ping",
        RestartModule = "RestartModule",
        GetModuleLogs = "GetModuleLogs",
        UploadModuleLogs = "UploadModuleLogs",
        UploadSupportBundle = "UploadSupportBundle",
        GetTaskStatus = "GetTaskStatus",
        /// There is none of that name, or what was given to it is wrong.
        Refused = "refused",
    }
}

impl Command {
    const fn of(action: Action) -> Self {
        match action {
            Action::Stop => Self::Stop,
            Action::Remove => Self::Remove,
            Action::Prepare => Self::PrepareUpdate,
            Action::Create => Self::Create,
            Action::Start => Self::Start,
            Action::Restart => Self::Restart,
        }
    }
}

/// What an agent counts and times.
#[derive(Debug)]
pub(super) struct Figures {
    starts: Series<Counter>,
    stops: Series<Counter>,
    prepares: Series<Counter>,
    commands: [Summary; Command::VALUES.len()],
    pub(super) syncs: Counter,
    pub(super) failed_syncs: Counter,
    deployments: Summary,
    pub(super) methods: Family<Method>,
    /// Held for a few operations on memory, never over an `.await`.
    times: Mutex<Times>,
}

/// For how long modules ran as they should.
#[derive(Debug, Default)]
struct Times {
    modules: BTreeMap<ModuleId, Running>,
    /// The versions that the deployment in force gives.
    versions: BTreeMap<ModuleId, String>,
    /// When it was last looked.
    looked: Option<Instant>,
    /// Since when a deployment is being carried out.
    deploying: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Running {
    expected: Duration,
    correct: Duration,
}

impl Default for Figures {
    fn default() -> Self {
        let of_module = || Series::new(&["module_name", "module_version"], MAX_SERIES);
        Self {
            starts: of_module(),
            stops: of_module(),
            prepares: of_module(),
            commands: Default::default(),
            syncs: Counter::default(),
            failed_syncs: Counter::default(),
            deployments: Summary::default(),
            methods: Family::default(),
            times: Mutex::default(),
        }
    }
}

impl Figures {
    /// Something was done to a module, or failed.
    pub(super) fn command(&self, module: &ModuleId, action: Action, took: Duration) {
        let version = self.times().versions.get(module).cloned().unwrap_or_default();
        let labels = [module.as_str(), version.as_str()];
        match action {
            Action::Start | Action::Restart => self.starts.of(&labels).increment(),
            Action::Stop => self.stops.of(&labels).increment(),
            Action::Prepare => self.prepares.of(&labels).increment(),
            Action::Remove | Action::Create => {}
        }
        if let Some(summary) = self.commands.get(Command::of(action).index()) {
            summary.observe_time(took);
        }
    }

    /// Something may be done for this deployment: what is counted has its versions.
    pub(super) fn know_versions(&self, desired: &AgentDesired) {
        let modules = desired.modules.iter();
        self.times().versions = modules
            .map(|(id, module)| (id.clone(), module.version.clone()))
            .collect();
    }

    /// The deployment is another one now, and is to be carried out.
    pub(super) fn deployed(&self) {
        self.times().deploying = Some(Instant::now());
    }

    /// All was looked at. `is_done`: the deployment is carried out.
    pub(super) fn looked(&self, desired: &AgentDesired, verdicts: &BTreeMap<ModuleId, Verdict>, is_done: bool) {
        let now = Instant::now();
        let mut times = self.times();
        let passed = times.looked.replace(now).map_or(Duration::ZERO, |looked| now - looked);
        times.modules.retain(|id, _| desired.modules.contains_key(id));
        let should_run = |(_, module): &(&ModuleId, &_)| is_to_run(module);
        for (id, _) in desired.modules.iter().filter(should_run) {
            let running = times.modules.entry(id.clone()).or_default();
            running.expected += passed;
            if verdicts.get(id).is_some_and(|verdict| verdict.status.is_up()) {
                running.correct += passed;
            }
        }
        if is_done && let Some(began) = times.deploying.take() {
            self.deployments.observe_time(now - began);
        }
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes them. Agent and broker are this process: they have run as they should since `uptime`.
    pub(super) fn write(&self, out: &mut Exposition, uptime: Duration) {
        self.write_times(out, uptime);
        for (name, help, series) in [
            ("module_start_total", "Starts of a module.", &self.starts),
            ("module_stop_total", "Stops of a module.", &self.stops),
            (
                "module_prepare_update_total",
                "How often a module's image was made present.",
                &self.prepares,
            ),
        ] {
            out.begin(&format!("edgeAgent_{name}"), help, Kind::Counter);
            series.each(|labels, counter| out.point(&telemetry(labels), counter.get()));
        }
        out.begin(
            "edgeAgent_command_latency_seconds",
            "Time that a command took, good or not.",
            Kind::Summary,
        );
        for (command, summary) in Command::VALUES.iter().zip(&self.commands) {
            out.point(&telemetry(&[(Command::NAME, command)]), summary.read());
        }
        out.begin(
            "edgeAgent_iothub_syncs_total",
            "Twins of the agent that were asked for or came by themselves.",
            Kind::Counter,
        );
        out.point(&telemetry(&[]), self.syncs.get());
        out.begin(
            "edgeAgent_unsuccessful_iothub_syncs_total",
            "Those that could not be read.",
            Kind::Counter,
        );
        out.point(&telemetry(&[]), self.failed_syncs.get());
        out.begin(
            "edgeAgent_deployment_time_seconds",
            "Time from a deployment's arrival until it was carried out.",
            Kind::Summary,
        );
        out.point(&telemetry(&[]), self.deployments.read());
    }

    /// The one figure that is published without the labels that stand at all others.
    pub(super) fn write_methods(&self, out: &mut Exposition) {
        out.begin(
            "edgeagent_direct_method_invocations_count",
            "Methods of the agent that were called.",
            Kind::Counter,
        );
        for (name, counter) in self.methods.each() {
            out.point(&[(Method::NAME, name)], counter);
        }
    }

    fn write_times(&self, out: &mut Exposition, uptime: Duration) {
        let mut all: Vec<(String, Running)> = {
            let times = self.times();
            let known = times.modules.iter();
            known.map(|(id, running)| (id.to_string(), *running)).collect()
        };
        for built_in in ["edgeAgent", "edgeHub"] {
            let running = Running {
                expected: uptime,
                correct: uptime,
            };
            all.push((built_in.to_owned(), running));
        }
        let mut write = |name: &str, help: &str, of: fn(&Running) -> Duration| {
            out.begin(&format!("edgeAgent_{name}"), help, Kind::Gauge);
            for (id, running) in &all {
                out.point(&telemetry(&[("module_name", id)]), of(running).as_secs_f64());
            }
        };
        write(
            "total_time_running_correctly_seconds",
            "Time that a module ran while it should.",
            |running| running.correct,
        );
        write(
            "total_time_expected_running_seconds",
            "Time that a module should have run.",
            |running| running.expected,
        );
    }
}

fn is_to_run(module: &holm_model::manifest::ModuleSpec) -> bool {
    module.status == ModuleStatus::Running
}

/// With the label that stands at all published figures of the agent.
pub(crate) fn telemetry<'a>(labels: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    labels.iter().copied().chain([("ms_telemetry", "True")]).collect()
}

#[cfg(test)]
mod tests {
    use holm_runtime::RuntimeStatus;
    use serde_json::json;

    use super::*;

    fn desired() -> AgentDesired {
        let module = |version: &str, status: &str| json!({"type": "docker", "version": version, "status": status, "settings": {"image": "a:1"}});
        let desired = json!({"schemaVersion": "1.1", "runtime": {"type": "docker"},
            "modules": {"pump": module("2.7", "running"), "off": module("1", "stopped")}});
        AgentDesired::parse(desired.as_object().unwrap()).unwrap()
    }

    fn page(figures: &Figures) -> String {
        let mut out = Exposition::default();
        figures.write(&mut out, Duration::from_secs(9));
        out.into_text()
    }

    #[test]
    fn a_start_is_counted_under_the_version_that_is_deployed() {
        let (figures, pump) = (Figures::default(), ModuleId::new("pump").unwrap());

        figures.know_versions(&desired());
        figures.command(&pump, Action::Start, Duration::from_secs(1));
        figures.command(&pump, Action::Stop, Duration::from_secs(1));

        let text = page(&figures);
        for name in ["start", "stop"] {
            let line = format!(
                "edgeAgent_module_{name}_total{{module_name=\"pump\",module_version=\"2.7\",ms_telemetry=\"True\"}} 1"
            );
            assert!(text.contains(&line), "{text}");
        }
        assert!(
            text.contains("edgeAgent_command_latency_seconds_count{command=\"start\",ms_telemetry=\"True\"} 1"),
            "{text}"
        );
    }

    #[test]
    fn time_is_counted_for_modules_that_shall_run_and_a_deployment_is_timed_when_it_is_done() {
        let (figures, desired) = (Figures::default(), desired());
        let verdicts = |status| {
            let verdict = Verdict {
                status,
                description: None,
                error: None,
            };
            BTreeMap::from([(ModuleId::new("pump").unwrap(), verdict)])
        };
        let deployed = |figures: &Figures| {
            page(figures).contains("edgeAgent_deployment_time_seconds_count{ms_telemetry=\"True\"} 1")
        };

        figures.deployed();
        figures.looked(&desired, &verdicts(RuntimeStatus::Failed), false);
        assert!(!deployed(&figures));
        figures.looked(&desired, &verdicts(RuntimeStatus::Running), true);
        figures.looked(&desired, &verdicts(RuntimeStatus::Running), true);

        assert!(deployed(&figures));
        let times = figures.times().modules.clone();
        assert_eq!(times.len(), 1, "one that shall be stopped is not expected to run");
        let pump = times.values().next().unwrap();
        assert!(pump.correct > Duration::ZERO && pump.correct <= pump.expected);
    }
}
