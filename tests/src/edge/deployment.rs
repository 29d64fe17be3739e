//! What is deployed to an edge of a test: modules that hold an SDK, manifests, and what the agent reports of them.

use serde_json::{Value, json};

use super::Edge;
use crate::hub::{Device, Hub};
use crate::need;
use crate::patience;
use crate::sdk::{Language, Transport, program_of};

/// The image of `cargo xtask setup`: one static program, and empty directories where a test mounts the host's.
pub const IMAGE: &str = "holm-e2e/busybox:1";

/// How modules run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// As processes.
    Process,
    /// In containers.
    Docker,
}

/// A module that holds an SDK.
#[derive(Clone, Debug)]
pub struct SdkModule {
    /// Its id.
    pub name: &'static str,
    /// The SDK.
    pub language: Language,
    /// How it connects to the edge.
    pub transport: Transport,
    /// How it runs.
    pub runtime: Runtime,
}

impl Edge {
    /// A module's entry in the deployment.
    #[must_use]
    pub fn module(&self, module: &SdkModule) -> Value {
        let port = self.switchboard.address().port();
        if module.runtime == Runtime::Docker {
            self.owns_container(module.name);
        }
        let (host, options) = match module.runtime {
            Runtime::Process => ("127.0.0.1", json!({})),
            Runtime::Docker => (self.hostname.as_str(), container_options(module.language)),
        };
        let (kind, image) = match module.runtime {
            Runtime::Process => ("process", program_name(module.language)),
            Runtime::Docker => ("docker", IMAGE),
        };
        json!({
            "type": kind, "version": "1.0", "status": "running", "restartPolicy": "always", "imagePullPolicy": "never",
            "settings": {"image": image, "createOptions": options.to_string()},
            "env": {
                "HOLM_E2E_CONTROL": {"value": format!("{host}:{port}")},
                "HOLM_E2E_TRANSPORT": {"value": module.transport.name()},
            },
        })
    }

    /// A whole deployment of SDK modules.
    #[must_use]
    pub fn manifest(&self, modules: &[SdkModule], routes: &Value) -> Value {
        let modules = modules
            .iter()
            .map(|module| (module.name.to_owned(), self.module(module)));
        manifest(&Value::Object(modules.collect()), routes)
    }
}

/// A deployment of these modules and routes.
#[must_use]
pub fn manifest(modules: &Value, routes: &Value) -> Value {
    let system = |image: &str| {
        json!({"type": "docker", "status": "running", "restartPolicy": "always",
            "settings": {"image": image, "createOptions": "{}"}})
    };
    json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {
            "schemaVersion": "1.1",
            "runtime": {"type": "docker", "settings": {}},
            "systemModules": {"edgeAgent": system("holm/edge-agent"), "edgeHub": system("holm/edge-hub")},
            "modules": modules,
        }},
        "$edgeHub": {"properties.desired": {
            "schemaVersion": "1.1",
            "routes": routes,
            "storeAndForwardConfiguration": {"timeToLiveSecs": 7200},
        }},
    }})
}

/// Deploys, as an operator's program does.
///
/// # Panics
/// When the hub refuses.
#[track_caller]
pub fn deploy(hub: &Hub, device: &Device, manifest: &Value) {
    let path = format!("/devices/{}/applyConfigurationContent", device.id);
    hub.service().call("POST", &path, Some(manifest));
}

/// What the edge's agent last reported of itself and its modules.
#[must_use]
#[track_caller]
pub fn reported(hub: &Hub, device: &Device) -> Value {
    let path = format!("/twins/{}/modules/$edgeAgent", device.id);
    hub.service().call("GET", &path, None)["properties"]["reported"].clone()
}

/// Waits until what the agent reports fulfils a condition.
///
/// # Panics
/// When it does not; with the last report.
#[track_caller]
pub fn wait_until_reported(hub: &Hub, device: &Device, what: &str, enough: impl Fn(&Value) -> bool) -> Value {
    patience::wait(what, patience::long(), || {
        let report = reported(hub, device);
        if enough(&report) {
            Ok(report)
        } else {
            Err(report.to_string())
        }
    })
}

pub(super) const fn program_name(language: Language) -> &'static str {
    match language {
        Language::Python => "python-device",
        Language::Node => "node-device",
    }
}

/// The host's interpreter and libraries, read-only, in an image that has none of its own.
fn container_options(language: Language) -> Value {
    let (interpreter, file) = program_of(language, "device");
    let mut binds: Vec<String> = ["/usr", "/lib", "/lib64"]
        .map(|path| format!("{path}:{path}:ro"))
        .to_vec();
    for path in [need::root().join("target/peers/python"), need::root().join("tests")] {
        binds.push(format!("{0}:{0}:ro", path.display()));
    }
    json!({"Entrypoint": [interpreter], "Cmd": [file], "HostConfig": {"Binds": binds}})
}
