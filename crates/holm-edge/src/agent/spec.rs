//! From a module of a manifest to what its runtime is told: environment, registry credentials, directory.
//!
//! Source: `edge-agent.md` §1.2 (registry match) and §4.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use holm_client::Transport;
use holm_model::manifest::{ImagePullPolicy, ModuleSpec, ModuleType, RegistryCredential};
use holm_model::{DeviceId, ModuleId};
use holm_runtime::{EdgeNetwork, ModuleSpec as RuntimeSpec, PullPolicy, RegistryAuth, RuntimeKind};
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::workload::module_directory;

/// The version of the workload API that modules are told to speak.
pub const API_VERSION: &str = "2022-08-03";
/// Where a container finds its workload socket.
const WORKLOAD_IN_CONTAINER: &str = "unix:///var/run/iotedge/workload.sock";
/// The published MQTT port, which no module needs to be told.
const MQTT_PORT: u16 = 8883;
/// Names that a manifest may set although they are the runtime's.
const MAY_BE_SET: [&str; 2] = ["RuntimeLogLevel", "UpstreamProtocol"];

/// Why a module can't be run as deployed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A runtime that is not there.
    #[error("module `{0}` has type `wasm`, which is not yet supported; give `docker` or `process`")]
    Wasm(ModuleId),
    /// The manifest sets what is injected.
    #[error("module `{id}` sets the environment variable `{name}`, which the edge sets itself; leave it out")]
    DuplicateEnv {
        /// The module.
        id: ModuleId,
        /// The variable.
        name: String,
    },
    /// The edge's name is an address of the device itself, which a container can't reach, and the engine's network, which
    /// has another, is not there.
    #[error(
        "module `{id}` is a container, and `{host}` means the container itself in there; the edge's address in the \
         containers' network is used instead as soon as a container engine answers"
    )]
    NoNetwork {
        /// The module.
        id: ModuleId,
        /// The edge's name.
        host: String,
    },
    /// An image of the edge above.
    #[error("the image `{image}` of module `{id}` comes from the edge above, and nested edges are not yet supported")]
    Upstream {
        /// The module.
        id: ModuleId,
        /// The image.
        image: String,
    },
}

/// What every module is told.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The device.
    pub device: DeviceId,
    /// The hub's name.
    pub hub_host: String,
    /// The name by which modules reach this edge.
    pub gateway_host: String,
    /// Its port for MQTT over TLS.
    pub mqtt_port: u16,
    /// What it speaks with the hub.
    pub hub_protocol: Transport,
    /// The edge's data directory, in which modules have directories.
    pub data: PathBuf,
    /// The network of containers, once the engine has answered.
    pub network: watch::Receiver<Option<EdgeNetwork>>,
}

impl Surroundings {
    /// What the runtime is told.
    ///
    /// # Errors
    /// [`SpecError`].
    pub fn runtime_spec(
        &self,
        id: &ModuleId,
        module: &ModuleSpec,
        generation: &str,
        credentials: &BTreeMap<String, RegistryCredential>,
    ) -> Result<RuntimeSpec, SpecError> {
        let kind = match module.kind {
            ModuleType::Docker => RuntimeKind::Docker,
            ModuleType::Process => RuntimeKind::Process,
            ModuleType::Wasm => return Err(SpecError::Wasm(id.clone())),
        };
        if module.image.starts_with("$upstream") {
            return Err(SpecError::Upstream {
                id: id.clone(),
                image: module.image.clone(),
            });
        }
        let directory = module_directory(&self.data, id);
        let mut spec = RuntimeSpec::new(id.clone(), kind, module.image.as_str(), directory.clone());
        spec.version.clone_from(&module.version);
        spec.create_options = Value::Object(module.create_options.clone());
        spec.env = self.environment(id, module, generation, kind, directory)?;
        spec.pull_policy = match module.image_pull_policy {
            ImagePullPolicy::OnCreate => PullPolicy::OnCreate,
            ImagePullPolicy::Never => PullPolicy::Never,
        };
        if kind == RuntimeKind::Docker {
            spec.registry_auth = credential_for(&module.image, credentials);
        }
        Ok(spec)
    }

    /// The name by which a module reaches this edge. A loopback address leads a container to itself: it gets the device's
    /// address in its network instead. Any other name it can look up, or has as an extra host.
    fn gateway_for(&self, id: &ModuleId, kind: RuntimeKind, module: &ModuleSpec) -> Result<String, SpecError> {
        let is_loopback = self
            .gateway_host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback());
        let shares_network = shares_network(&module.create_options);
        if kind == RuntimeKind::Process || !is_loopback || shares_network {
            return Ok(self.gateway_host.clone());
        }
        match self.network.borrow().as_ref() {
            Some(network) => Ok(network.gateway.to_string()),
            None => Err(SpecError::NoNetwork {
                id: id.clone(),
                host: self.gateway_host.clone(),
            }),
        }
    }

    fn environment(
        &self,
        id: &ModuleId,
        module: &ModuleSpec,
        generation: &str,
        kind: RuntimeKind,
        directory: PathBuf,
    ) -> Result<BTreeMap<String, String>, SpecError> {
        let workload = match kind {
            RuntimeKind::Docker => WORKLOAD_IN_CONTAINER.to_owned(),
            RuntimeKind::Process => format!("unix://{}", directory.join("workload.sock").display()),
        };
        let gateway = self.gateway_for(id, kind, module)?;
        let mut env = BTreeMap::new();
        for (name, value) in [
            ("IOTEDGE_WORKLOADURI", workload.as_str()),
            ("IOTEDGE_AUTHSCHEME", "sasToken"),
            ("IOTEDGE_MODULEID", id.as_str()),
            ("IOTEDGE_MODULEGENERATIONID", generation),
            ("IOTEDGE_DEVICEID", self.device.as_str()),
            ("IOTEDGE_IOTHUBHOSTNAME", &self.hub_host),
            ("IOTEDGE_GATEWAYHOSTNAME", &gateway),
            ("IOTEDGE_APIVERSION", API_VERSION),
        ] {
            env.insert(name.to_owned(), value.to_owned());
        }
        if self.mqtt_port != MQTT_PORT {
            env.insert("HOLM_MQTT_PORT".to_owned(), self.mqtt_port.to_string());
        }
        for (name, value) in &module.env {
            if env.contains_key(name) && !MAY_BE_SET.contains(&name.as_str()) {
                return Err(SpecError::DuplicateEnv {
                    id: id.clone(),
                    name: name.clone(),
                });
            }
            env.insert(name.clone(), value.clone());
        }
        Ok(env)
    }
}

/// Whether a container is on the device's own network. Names are found whatever their case, as the engine does.
fn shares_network(create_options: &Map<String, Value>) -> bool {
    let find = |map: &Map<String, Value>, name: &str| {
        let found = map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.clone())
    };
    let host = find(create_options, "HostConfig");
    let mode = host
        .as_ref()
        .and_then(Value::as_object)
        .and_then(|host| find(host, "NetworkMode"));
    mode.is_some_and(|mode| mode == "host")
}

/// The first credential whose address is the image's registry. An image of one component has none.
fn credential_for(image: &str, credentials: &BTreeMap<String, RegistryCredential>) -> Option<RegistryAuth> {
    let (first, _) = image.split_once('/')?;
    let registry = if first.contains(['.', ':']) {
        first
    } else {
        "https://index.docker.io/v1/"
    };
    let found = credentials
        .values()
        .find(|credential| credential.address.eq_ignore_ascii_case(registry))?;
    Some(RegistryAuth {
        server_address: found.address.clone(),
        username: found.username.clone(),
        password: found.password.clone(),
    })
}

#[cfg(test)]
mod tests {
    use holm_model::manifest::AgentDesired;
    use serde_json::json;

    use super::*;

    fn module(kind: &str, image: &str, env: &[(&str, &str)]) -> (ModuleId, ModuleSpec) {
        let env: Map<String, Value> = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!({"value": value})))
            .collect();
        let desired = json!({"schemaVersion": "1.1", "runtime": {"type": "docker"}, "modules": {"m": {
            "type": kind, "status": "running", "settings": {"image": image}, "env": env}}});
        let desired = AgentDesired::parse(desired.as_object().unwrap()).unwrap();
        desired.modules.into_iter().next().unwrap()
    }

    fn surroundings(mqtt_port: u16) -> Surroundings {
        Surroundings {
            device: DeviceId::new("dev1").unwrap(),
            hub_host: "hub.test".to_owned(),
            gateway_host: "edge.test".to_owned(),
            mqtt_port,
            hub_protocol: Transport::Mqtt,
            data: "/data".into(),
            network: watch::channel(None).1,
        }
    }

    fn spec(kind: &str, image: &str, env: &[(&str, &str)]) -> Result<RuntimeSpec, SpecError> {
        let (id, module) = module(kind, image, env);
        let credential = RegistryCredential {
            address: "Registry.test:5000".to_owned(),
            username: "u".to_owned(),
            password: "p".to_owned(),
        };
        let credentials = BTreeMap::from([("r".to_owned(), credential)]);
        surroundings(8883).runtime_spec(&id, &module, "g1", &credentials)
    }

    #[test]
    fn every_published_variable_is_injected() {
        let spec = spec("docker", "a:1", &[("A", "1"), ("UpstreamProtocol", "Mqtt")]).unwrap();

        let expected = [
            ("A", "1"),
            ("IOTEDGE_APIVERSION", "2022-08-03"),
            ("IOTEDGE_AUTHSCHEME", "sasToken"),
            ("IOTEDGE_DEVICEID", "dev1"),
            ("IOTEDGE_GATEWAYHOSTNAME", "edge.test"),
            ("IOTEDGE_IOTHUBHOSTNAME", "hub.test"),
            ("IOTEDGE_MODULEGENERATIONID", "g1"),
            ("IOTEDGE_MODULEID", "m"),
            ("IOTEDGE_WORKLOADURI", "unix:///var/run/iotedge/workload.sock"),
            ("UpstreamProtocol", "Mqtt"),
        ];
        let env: Vec<(&str, &str)> = spec
            .env
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(env, expected);
    }

    #[test]
    fn a_process_finds_its_socket_in_its_directory_and_the_port_where_it_is_another() {
        let (id, module) = module("process", "holm/sensor", &[]);

        let spec = surroundings(18883)
            .runtime_spec(&id, &module, "g1", &BTreeMap::new())
            .unwrap();

        let directory = spec.module_dir.display().to_string();
        assert_eq!(
            spec.env["IOTEDGE_WORKLOADURI"],
            format!("unix://{directory}/workload.sock")
        );
        assert_eq!(spec.env["HOLM_MQTT_PORT"], "18883");
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        let duplicate = spec("docker", "a:1", &[("IOTEDGE_MODULEID", "x")])
            .unwrap_err()
            .to_string();
        assert!(duplicate.contains("`IOTEDGE_MODULEID`"), "{duplicate}");
        assert!(matches!(spec("wasm", "a", &[]), Err(SpecError::Wasm(_))));
        assert!(matches!(
            spec("docker", "$upstream:8000/a:1", &[]),
            Err(SpecError::Upstream { .. })
        ));
    }

    #[test]
    fn credentials_are_those_of_the_images_registry() {
        assert_eq!(
            spec("docker", "registry.test:5000/a:1", &[])
                .unwrap()
                .registry_auth
                .unwrap()
                .username,
            "u"
        );
        assert_eq!(spec("docker", "other.test/a:1", &[]).unwrap().registry_auth, None);
        assert_eq!(spec("docker", "a:1", &[]).unwrap().registry_auth, None);
    }

    #[test]
    fn a_loopback_name_becomes_the_address_in_the_containers_network() {
        let at = |kind: &str, options: Value, network: Option<EdgeNetwork>| {
            let (id, mut module) = module(kind, "busybox", &[]);
            module.create_options = options.as_object().cloned().unwrap();
            let mut surroundings = surroundings(8883);
            surroundings.gateway_host = "127.0.0.2".to_owned();
            surroundings.network = watch::channel(network).1;
            let spec = surroundings.runtime_spec(&id, &module, "g1", &BTreeMap::new());
            spec.map(|spec| spec.env["IOTEDGE_GATEWAYHOSTNAME"].clone())
        };
        let bridge = Some(EdgeNetwork {
            name: "azure-iot-edge".to_owned(),
            gateway: "172.18.0.1".parse().unwrap(),
            subnet: None,
        });
        let host = json!({"HostConfig": {"NetworkMode": "host"}});

        assert_eq!(at("docker", json!({}), bridge.clone()).unwrap(), "172.18.0.1");
        assert_eq!(at("docker", host, bridge.clone()).unwrap(), "127.0.0.2");
        assert_eq!(at("process", json!({}), bridge).unwrap(), "127.0.0.2");
        assert!(matches!(
            at("docker", json!({}), None),
            Err(SpecError::NoNetwork { .. })
        ));
    }
}
