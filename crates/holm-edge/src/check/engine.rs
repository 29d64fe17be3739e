//! The container engine: whether it answers, and whether its containers will work as those of an edge should.

use std::path::Path;

use holm_runtime::{DockerConfig, DockerRuntime};
use serde_json::Value;

use super::{Check, Group, Looking, Subject, Verdict};
use crate::config::EdgeConfig;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "container-engine-uri",
        group: Group::Engine,
        about: "the container engine answers",
        look: answers,
    },
    Check {
        id: "container-engine-dns",
        group: Group::Engine,
        about: "containers can resolve names",
        look: dns,
    },
    Check {
        id: "container-engine-ipv6",
        group: Group::Engine,
        about: "engine and network agree on IPv6",
        look: ipv6,
    },
];

/// Where Docker's engine looks for its configuration.
const DAEMON_JSON: &str = "/etc/docker/daemon.json";
const RESOLV_CONF: &str = "/etc/resolv.conf";

fn runtime(config: &EdgeConfig) -> Result<DockerRuntime, Verdict> {
    let runtime = DockerRuntime::new(DockerConfig {
        endpoint: config.engine_uri.clone(),
        network: config.network.clone(),
        ..DockerConfig::default()
    });
    runtime.map_err(|error| Verdict::error(error.chain(), "correct `moby_runtime.uri`"))
}

fn answers(subject: &Subject) -> Looking<'_> {
    Box::pin(async move {
        let runtime = match subject.config().and_then(runtime) {
            Ok(runtime) => runtime,
            Err(verdict) => return verdict,
        };
        match runtime.engine_info().await {
            Ok(info) => Verdict::Fine(Some(format!("release {}, API {}", info.version, info.api_version))),
            Err(error) => Verdict::warning(
                error.chain(),
                "nothing, when all modules are of type `process`; else install and start it, and let the edge's user use its socket",
            ),
        }
    })
}

/// The engine's own configuration; `None` when it is not on this machine or has none.
fn daemon_json() -> Result<Option<Value>, Verdict> {
    let text = match std::fs::read(DAEMON_JSON) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Verdict::Skipped(format!("`{DAEMON_JSON}` can't be read: {error}"))),
    };
    let parsed = serde_json::from_slice(&text).map(Some);
    parsed.map_err(|error| {
        Verdict::error(
            format!("`{DAEMON_JSON}` is not JSON: {error}"),
            "correct it; the engine won't start with it",
        )
    })
}

fn is_local(config: &EdgeConfig) -> bool {
    config
        .engine_uri
        .strip_prefix("unix://")
        .is_some_and(|path| Path::new(path).exists())
}

fn with_daemon(subject: &Subject, judge: impl FnOnce(&EdgeConfig, Option<&Value>) -> Verdict) -> Verdict {
    let config = match subject.config() {
        Ok(config) => config,
        Err(verdict) => return verdict,
    };
    if !is_local(config) {
        return Verdict::Skipped("there is no engine on this machine".to_owned());
    }
    daemon_json().map_or_else(|verdict| verdict, |daemon| judge(config, daemon.as_ref()))
}

fn dns(subject: &Subject) -> Looking<'_> {
    let resolv = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    let verdict = with_daemon(subject, |_, daemon| judge_dns(daemon, &resolv));
    Box::pin(std::future::ready(verdict))
}

/// Containers get the host's name servers, save those on loopback, which they can't reach.
fn judge_dns(daemon: Option<&Value>, resolv: &str) -> Verdict {
    let own = daemon.and_then(|daemon| daemon.get("dns")).and_then(Value::as_array);
    if own.is_some_and(|servers| !servers.is_empty()) {
        return Verdict::Fine(None);
    }
    let mut servers = resolv
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .map(str::trim);
    let is_reachable = |server: &str| {
        server
            .parse()
            .is_ok_and(|address: std::net::IpAddr| !address.is_loopback())
    };
    if servers.any(is_reachable) {
        return Verdict::Fine(None);
    }
    Verdict::warning(
        format!("`{RESOLV_CONF}` names no server that containers can reach, and `{DAEMON_JSON}` gives no `dns`"),
        format!("give `\"dns\": [\"ADDRESS\"]` in `{DAEMON_JSON}` and restart the engine, if modules look up names"),
    )
}

fn ipv6(subject: &Subject) -> Looking<'_> {
    let verdict = with_daemon(subject, |config, daemon| {
        let engine = daemon
            .and_then(|daemon| daemon.get("ipv6"))
            .and_then(Value::as_bool)
            .unwrap_or(false);
        judge_ipv6(engine, config.network.ipv6)
    });
    Box::pin(std::future::ready(verdict))
}

fn judge_ipv6(engine: bool, network: bool) -> Verdict {
    match (engine, network) {
        (false, true) => Verdict::error(
            "`moby_runtime.network.ipv6` is on, and the engine's own is off",
            format!("give `\"ipv6\": true` in `{DAEMON_JSON}` and restart the engine"),
        ),
        (true, false) => Verdict::warning(
            format!("`{DAEMON_JSON}` turns IPv6 on, and the modules' network has none"),
            "set `moby_runtime.network.ipv6` to true if modules need it",
        ),
        _ => Verdict::Fine(None),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn name_servers_on_loopback_are_of_no_use_to_containers() {
        assert_eq!(judge_dns(None, "nameserver 127.0.0.53\n").word(), "warning");
        assert_eq!(judge_dns(None, "# none\nnameserver 10.0.0.1\n").word(), "ok");
        assert_eq!(
            judge_dns(Some(&json!({"dns": ["10.0.0.1"]})), "nameserver 127.0.0.53").word(),
            "ok"
        );
        assert_eq!(judge_dns(Some(&json!({"dns": []})), "").word(), "warning");
    }

    #[test]
    fn ipv6_is_on_at_both_or_at_none() {
        let words = [(false, false), (true, true), (true, false), (false, true)]
            .map(|(engine, network)| judge_ipv6(engine, network).word());
        assert_eq!(words, ["ok", "ok", "warning", "error"]);
    }
}
