//! From what a module was created from to what exactly is to be executed.
//!
//! This is done at each start, so that an upgraded program, a new user in `/etc/passwd` or a control group that has become
//! usable count from the next start on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::cgroup::ControlGroups;
use super::image::{self, Image};
use super::options::{Device, ProcessOptions};
use super::record::{Directory, FORMAT, HealthCheck, ModuleRecord, Plan};
use crate::conversions;
use crate::error::{RuntimeError, UnsupportedOption};
use crate::logs::LogLimits;

/// Where a module's programs are looked for when its environment names no other `PATH`; the Docker engine's default.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long a module has to end when nobody says otherwise, as with the Docker engine.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// The signal that asks a module to end when its create options name no other.
const STOP_SIGNAL: rustix::process::Signal = rustix::process::Signal::TERM;

/// Where modules come from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sources<'a> {
    pub(super) places: image::Places<'a>,
    /// How much of their output is kept where they don't say.
    pub(super) log: LogLimits,
}

/// Reads create options on this device.
pub(super) fn read_options(
    create_options: &Value,
    groups: &ControlGroups,
    log: LogLimits,
) -> Result<ProcessOptions, Vec<UnsupportedOption>> {
    let is_root = rustix::process::geteuid().is_root();
    ProcessOptions::read(
        &conversions::converted(create_options),
        &Device { groups, is_root, log },
    )
}

/// Makes the plan for a module.
pub(super) fn make(
    module: &ModuleRecord,
    directory: &Directory,
    sources: Sources<'_>,
    groups: &ControlGroups,
) -> Result<Plan, RuntimeError> {
    let options =
        read_options(&module.create_options, groups, sources.log).map_err(|options| RuntimeError::Unsupported {
            id: module.id.clone(),
            options,
        })?;
    let no_image = |reason| RuntimeError::Image {
        image: module.image.clone(),
        reason,
    };
    let cannot_start = |reason| RuntimeError::StartFailed {
        id: module.id.clone(),
        reason,
    };
    let image = image::find(&module.image, sources.places).map_err(no_image)?;
    let env = environment(module, &options);
    let search_path = env.get("PATH").map_or(SEARCH_PATH, String::as_str);
    let (program, arguments) = command(&image, &options, search_path).map_err(cannot_start)?;
    let working_dir = match (&options.working_dir, &image.directory) {
        (Some(path), _) => PathBuf::from(path),
        (None, Some(directory)) => directory.clone(),
        (None, None) => directory.work(),
    };
    let health = health(&image, &options, search_path).map_err(cannot_start)?;
    Ok(Plan {
        format: FORMAT,
        program,
        arguments,
        env,
        working_dir,
        user: options.user,
        groups: groups.plan(&directory.name(), options.limits).map_err(cannot_start)?,
        resource_limits: options.resource_limits,
        oom_score_adjust: options.oom_score_adjust,
        stop_signal: options.stop_signal.unwrap_or(STOP_SIGNAL.as_raw()),
        stop_grace_millis: u64::try_from(options.stop_grace.unwrap_or(STOP_GRACE).as_millis()).unwrap_or(u64::MAX),
        log: options.log,
        health,
    })
}

/// The health check, its program found as the module's own would be.
fn health(image: &Image, options: &ProcessOptions, search_path: &str) -> Result<Option<HealthCheck>, String> {
    let Some(health) = &options.health else { return Ok(None) };
    let Some((program, arguments)) = health.command.split_first() else {
        return Ok(None);
    };
    let program = image::find_entrypoint(program, image, search_path)
        .map_err(|reason| format!("`Healthcheck` cannot be run: {reason}"))?;
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Ok(Some(HealthCheck {
        program,
        arguments: arguments.to_vec(),
        interval_millis: millis(health.interval),
        timeout_millis: millis(health.timeout),
        start_period_millis: millis(health.start_period),
        start_interval_millis: millis(health.start_interval),
        retries: health.retries,
    }))
}

/// The module sees nothing of the edge's own environment. The create options win over everything (`edge-agent.md` §4).
fn environment(module: &ModuleRecord, options: &ProcessOptions) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), SEARCH_PATH.to_owned()),
        (
            "HOLM_MODULE_DIR".to_owned(),
            module.module_dir.to_string_lossy().into_owned(),
        ),
    ]);
    env.extend(module.env.clone());
    env.extend(options.env.clone());
    env
}

/// As the Docker engine joins them: an entry point replaces the image's program, a command gives it arguments.
fn command(image: &Image, options: &ProcessOptions, search_path: &str) -> Result<(PathBuf, Vec<String>), String> {
    let Some((program, arguments)) = options.entrypoint.split_first() else {
        let arguments = image.arguments.iter().chain(&options.command).cloned().collect();
        return Ok((image.program.clone(), arguments));
    };
    let program = image::find_entrypoint(program, image, search_path)?;
    Ok((program, arguments.iter().chain(&options.command).cloned().collect()))
}
