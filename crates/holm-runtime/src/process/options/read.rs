//! How each create option is read, for the rows of [`super::OPTIONS`]. A reason that is returned follows the option's name.

use std::time::Duration;

use serde_json::Value;

use super::{Device, HealthOption, ProcessOptions, is_empty};
use crate::process::cgroup::Controller;
use crate::process::record::ResourceLimit;
use crate::process::{settings, user};

/// A list of texts, or one text, which stands for a list of one.
fn texts(value: &Value) -> Result<Vec<String>, String> {
    let wrong = || "must be a text or a list of texts".to_owned();
    match value {
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect(),
        _ => Err(wrong()),
    }
}

/// A whole number; 0 and -1 are Docker's ways to say "no limit".
fn limit(value: &Value) -> Result<Option<u64>, String> {
    match value.as_i64() {
        Some(-1 | 0) => Ok(None),
        Some(number) => u64::try_from(number)
            .map(Some)
            .map_err(|_| format!("must not be negative, but is {number}")),
        None => Err("must be a whole number".to_owned()),
    }
}

pub(super) fn entrypoint(value: &Value, options: &mut ProcessOptions, _: &Device<'_>) -> Result<(), String> {
    options.entrypoint = texts(value)?;
    if options.entrypoint.first().is_some_and(String::is_empty) {
        // Docker's way to take an image's entry point away.
        options.entrypoint.clear();
    }
    Ok(())
}

pub(super) fn command(value: &Value, options: &mut ProcessOptions, _: &Device<'_>) -> Result<(), String> {
    options.command = texts(value)?;
    Ok(())
}

pub(super) fn env(value: &Value, options: &mut ProcessOptions, _: &Device<'_>) -> Result<(), String> {
    let items = value.as_array().ok_or("must be a list of texts `NAME=VALUE`")?;
    for item in items {
        let text = item.as_str().ok_or("must be a list of texts `NAME=VALUE`")?;
        // A name alone would take the variable from the engine's own environment, which a module must not see.
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        if name.is_empty() || text.contains('\0') {
            return Err(format!("holds `{}`, which is not `NAME=VALUE`", text.escape_default()));
        }
        options.env.insert(name.to_owned(), value.to_owned());
    }
    Ok(())
}

pub(super) fn working_dir(value: &Value, options: &mut ProcessOptions, _: &Device<'_>) -> Result<(), String> {
    match value.as_str() {
        Some("") => Ok(()),
        Some(path) if path.starts_with('/') => {
            options.working_dir = Some(path.to_owned());
            Ok(())
        }
        _ => Err("must be an absolute path".to_owned()),
    }
}

pub(super) fn user(value: &Value, options: &mut ProcessOptions, device: &Device<'_>) -> Result<(), String> {
    let text = value.as_str().ok_or("must be a text")?;
    if text.is_empty() {
        return Ok(());
    }
    let ids = user::resolve(text)?;
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if !device.is_root && (ids.uid, ids.gid) != own {
        return Err(format!(
            "asks for uid {} and gid {}, but the edge runs as uid {} and cannot become anybody else; run it as root or take the option away",
            ids.uid, ids.gid, own.0
        ));
    }
    options.user = Some(ids);
    Ok(())
}

pub(super) fn labels(value: &Value, options: &mut ProcessOptions, _: &Device<'_>) -> Result<(), String> {
    for (name, value) in value.as_object().ok_or("must be an object of texts")? {
        let text = value.as_str().ok_or("must be an object of texts")?;
        options.labels.insert(name.clone(), text.to_owned());
    }
    Ok(())
}

pub(super) fn stop_signal(value: &Value, options: &mut ProcessOptions, _: &Device<'_>) -> Result<(), String> {
    let text = value.as_str().ok_or("must be a text such as `SIGINT`")?;
    if !text.is_empty() {
        let number = settings::signal_number(text).ok_or_else(|| format!("names `{text}`, which is no signal"))?;
        options.stop_signal = Some(number);
    }
    Ok(())
}

pub(super) fn stop_timeout(value: &Value, options: &mut ProcessOptions, _: &Device<'_>) -> Result<(), String> {
    let seconds = value.as_u64().ok_or("must be a number of seconds")?;
    options.stop_grace = Some(Duration::from_secs(seconds));
    Ok(())
}

pub(super) fn memory(value: &Value, options: &mut ProcessOptions, device: &Device<'_>) -> Result<(), String> {
    options.limits.memory_bytes = limit(value)?;
    options
        .limits
        .memory_bytes
        .map_or(Ok(()), |_| device.groups.check(Controller::Memory))
}

pub(super) fn nano_cpus(value: &Value, options: &mut ProcessOptions, device: &Device<'_>) -> Result<(), String> {
    options.limits.nano_cpus = limit(value)?;
    options
        .limits
        .nano_cpus
        .map_or(Ok(()), |_| device.groups.check(Controller::Cpu))
}

pub(super) fn pids_limit(value: &Value, options: &mut ProcessOptions, device: &Device<'_>) -> Result<(), String> {
    options.limits.processes = limit(value)?;
    options
        .limits
        .processes
        .map_or(Ok(()), |_| device.groups.check(Controller::Pids))
}

pub(super) fn ulimits(value: &Value, options: &mut ProcessOptions, _: &Device<'_>) -> Result<(), String> {
    const FORM: &str = "must be a list of objects with `Name`, `Soft` and `Hard`";
    for item in value.as_array().ok_or(FORM)? {
        let name = item
            .get("Name")
            .and_then(Value::as_str)
            .ok_or(FORM)?
            .to_ascii_lowercase();
        if settings::resource(&name).is_none() {
            return Err(format!("names the limit `{name}`, which this device does not have"));
        }
        let part = |key: &str| match item.get(key).and_then(Value::as_i64) {
            Some(-1) => Ok(None),
            Some(number) => u64::try_from(number).map(Some).map_err(|_| FORM),
            None => Err(FORM),
        };
        let (soft, hard) = (part("Soft")?, part("Hard")?);
        options.resource_limits.push(ResourceLimit { name, soft, hard });
    }
    Ok(())
}

pub(super) fn oom_score(value: &Value, options: &mut ProcessOptions, _: &Device<'_>) -> Result<(), String> {
    match value.as_i64().and_then(|number| i32::try_from(number).ok()) {
        Some(0) => Ok(()),
        Some(number @ -1000..=1000) => {
            options.oom_score_adjust = Some(number);
            Ok(())
        }
        _ => Err("must be a number from -1000 to 1000".to_owned()),
    }
}

pub(super) fn log_config(value: &Value, options: &mut ProcessOptions, _: &Device<'_>) -> Result<(), String> {
    let driver = value.get("Type").and_then(Value::as_str).unwrap_or("");
    if !["", "json-file", "local"].contains(&driver) {
        return Err(format!(
            "names the driver `{driver}`; the supervisor keeps the output of a process itself, as `json-file` and `local` do"
        ));
    }
    let settings = value.get("Config").and_then(Value::as_object);
    for (name, value) in settings.into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        match name.as_str() {
            "max-size" => {
                options.log.max_bytes = settings::byte_size(text).ok_or_else(|| {
                    format!("has `max-size` = `{text}`, which is not a size from 4k on, such as `10m`")
                })?;
            }
            "max-file" => {
                options.log.files = text
                    .parse()
                    .ok()
                    .filter(|files| (1..=100).contains(files))
                    .ok_or_else(|| format!("has `max-file` = `{text}`, which is not a number from 1 to 100"))?;
            }
            // Closed files stay as they are: they are small, and a reader must be able to follow them.
            "compress" | "mode" | "max-buffer-size" => {}
            _ => {
                return Err(format!(
                    "has the setting `{name}`, which a process does not know; take it away"
                ));
            }
        }
    }
    Ok(())
}

/// The engine's defaults, for figures that are not given or 0: nanoseconds, but for the number of retries.
const HEALTH_INTERVAL: u64 = 30_000_000_000;
const HEALTH_TIMEOUT: u64 = 30_000_000_000;
const HEALTH_START_INTERVAL: u64 = 5_000_000_000;
const HEALTH_RETRIES: u32 = 3;

pub(super) fn health_check(value: &Value, options: &mut ProcessOptions, _: &Device<'_>) -> Result<(), String> {
    const FORM: &str =
        "must be an object with `Test`, `Interval`, `Timeout`, `StartPeriod`, `StartInterval` and `Retries`";
    let fields = value.as_object().ok_or(FORM)?;
    let (mut test, mut figures) = (Vec::new(), [0_u64; 5]);
    for (name, value) in fields {
        let place = match name.to_ascii_lowercase().as_str() {
            "test" => {
                test = texts(value)?;
                continue;
            }
            "interval" => 0,
            "timeout" => 1,
            "startperiod" => 2,
            "startinterval" => 3,
            "retries" => 4,
            _ => return Err(format!("has the setting `{name}`, which is not known; {FORM}")),
        };
        let figure = value
            .as_u64()
            .ok_or_else(|| format!("has `{name}` = {value}, which is not a whole number from 0 on"))?;
        if place < 4 && (1..1_000_000).contains(&figure) {
            return Err(format!(
                "has `{name}` = {figure}, but durations are in nanoseconds and not below 1000000 (1 ms)"
            ));
        }
        figures[place] = figure;
    }
    let [interval, timeout, start_period, start_interval, retries] = figures;
    let or = |given: u64, default: u64| Duration::from_nanos(if given == 0 { default } else { given });
    let command = match test.split_first() {
        None => return Ok(()),
        Some((kind, [])) if kind == "NONE" => return Ok(()),
        Some((kind, words)) if kind == "CMD" && !words.is_empty() => words.to_vec(),
        Some((kind, [line])) if kind == "CMD-SHELL" => vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
        Some((kind, _)) => {
            return Err(format!(
                "has a `Test` that begins with `{kind}`; give [\"CMD\", program, argument, …], [\"CMD-SHELL\", line] or [\"NONE\"]"
            ));
        }
    };
    options.health = Some(HealthOption {
        command,
        interval: or(interval, HEALTH_INTERVAL),
        timeout: or(timeout, HEALTH_TIMEOUT),
        start_period: Duration::from_nanos(start_period),
        start_interval: or(start_interval, HEALTH_START_INTERVAL),
        retries: match u32::try_from(retries) {
            Ok(0) => HEALTH_RETRIES,
            Ok(retries) => retries,
            Err(_) => return Err(format!("has `Retries` = {retries}, which is too many")),
        },
    });
    Ok(())
}

pub(super) fn same_networks(value: &Value) -> Result<(), String> {
    let endpoints = value.get("EndpointsConfig").and_then(Value::as_object);
    for (name, settings) in endpoints.into_iter().flatten() {
        if !["azure-iot-edge", "host"].contains(&name.as_str()) {
            return Err(format!("the network `{name}`"));
        }
        if !is_empty(settings) {
            return Err(format!("settings for the network `{name}`"));
        }
    }
    Ok(())
}

pub(super) fn same_network_mode(value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some("host" | "default" | "bridge" | "azure-iot-edge") => Ok(()),
        _ => Err(value.to_string()),
    }
}

pub(super) fn same_ports(value: &Value) -> Result<(), String> {
    for (port, bindings) in value.as_object().ok_or_else(|| value.to_string())? {
        let own = port.split('/').next().unwrap_or_default();
        for binding in bindings.as_array().into_iter().flatten() {
            let host = binding.get("HostPort").and_then(Value::as_str).unwrap_or_default();
            if host != own {
                return Err(format!("port {port} bound to `{host}`"));
            }
        }
    }
    Ok(())
}

pub(super) fn same_binds(value: &Value) -> Result<(), String> {
    for bind in texts(value)? {
        let parts: Vec<&str> = bind.split(':').collect();
        let same = match parts.as_slice() {
            [from, to] => from == to,
            [from, to, mode] => from == to && !mode.split(',').any(|word| word == "ro"),
            _ => false,
        };
        if !same {
            return Err(format!("`{bind}`"));
        }
    }
    Ok(())
}

pub(super) fn same_restart_policy(value: &Value) -> Result<(), String> {
    match value.get("Name").and_then(Value::as_str) {
        None | Some("" | "no") => Ok(()),
        Some(other) => Err(format!("`{other}`")),
    }
}
