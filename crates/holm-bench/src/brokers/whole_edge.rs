//! A whole Holm edge: the product's own binary, `holm edge run`, with agent, security and runtimes, below a hub that deploys.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::edge::EDGE_DEVICE;
use super::{Hub, START_DEADLINE, hub::holm, write};
use crate::process::Process;

/// How often it is looked whether the edge is as it shall be.
const LOOK: Duration = Duration::from_millis(100);

/// Ready-made modules that have nothing to do while nobody sends them anything.
const MODULES: [(&str, &str); 3] = [
    ("watcher", "holm/watcher"),
    ("second", "holm/watcher"),
    ("summary", "holm/summary"),
];

/// An edge that runs, with three modules that are connected to it.
#[derive(Debug)]
pub struct WholeEdge {
    process: Process,
    socket: PathBuf,
}

impl WholeEdge {
    /// Starts it, gives it its deployment, and waits until that runs.
    ///
    /// # Errors
    /// The hub refuses, or the edge or a module does not come up within 30 s.
    pub async fn start(hub: &Hub, directory: &Path, key: &str) -> Result<Self> {
        let socket = directory.join("mgmt.sock");
        let config = directory.join("edge.toml");
        write(&config, &configuration(hub, directory, &socket, key))?;
        private(&config)?;
        hub.admit_edge(EDGE_DEVICE, key).await?;
        hub.deploy(EDGE_DEVICE, &deployment(&MODULES)).await?;
        let mut command = Command::new(holm()?);
        command
            .args(["edge", "run", "--config"])
            .arg(&config)
            .env("HOLM_LOG", "warn");
        let process = Process::start(&mut command, &directory.join("edge.log"))?;
        let mut edge = Self { process, socket };
        edge.wait("three modules that are connected", |edge| {
            let status = edge.ask("status")?;
            Ok(status["clientsConnected"] == MODULES.len() && status["link"]["connected"] == true)
        })
        .await?;
        Ok(edge)
    }

    /// Its process; the modules and their supervisors are others.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Ends its modules, which would outlive it, and then itself.
    ///
    /// # Errors
    /// The hub refuses, or a module does not end within 30 s.
    pub async fn stop(mut self, hub: &Hub) -> Result<()> {
        hub.deploy(EDGE_DEVICE, &deployment(&[])).await?;
        self.wait("the end of the modules", |edge| {
            let modules = edge.ask("list")?;
            let own = |module: &&Value| MODULES.iter().any(|(name, _)| module["name"] == *name);
            Ok(modules
                .as_array()
                .is_some_and(|all| all.iter().filter(own).count() == 0))
        })
        .await
    }

    async fn wait(&mut self, what: &str, enough: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let began = Instant::now();
        loop {
            // Before it listens it answers nothing.
            if enough(self).unwrap_or(false) {
                return Ok(());
            }
            self.process.check()?;
            if began.elapsed() > START_DEADLINE {
                bail!("waited {} s for {what}", START_DEADLINE.as_secs());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn ask(&self, command: &str) -> Result<Value> {
        let done = Command::new(holm()?)
            .args(["edge", command, "--json"])
            .env("IOTEDGE_HOST", format!("unix://{}", self.socket.display()))
            .output()?;
        serde_json::from_slice(&done.stdout).with_context(|| String::from_utf8_lossy(&done.stderr).into_owned())
    }
}

fn configuration(hub: &Hub, directory: &Path, socket: &Path, key: &str) -> String {
    let (mqtt, https) = hub.ports();
    format!(
        "hostname = \"127.0.0.1\"\n\
         trust_bundle_cert = \"file://{ca}\"\n\
         [provisioning]\n\
         source = \"manual\"\n\
         connection_string = \"HostName=127.0.0.1;DeviceId={EDGE_DEVICE};SharedAccessKey={key}\"\n\
         [listen]\n\
         management_uri = \"unix://{socket}\"\n\
         [moby_runtime]\n\
         uri = \"unix://{directory}/no-engine.sock\"\n\
         [holm]\n\
         bind = \"127.0.0.1\"\n\
         mqtt_port = 0\n\
         https_port = 0\n\
         data = \"{directory}/edge\"\n\
         hub_mqtt_port = {mqtt}\n\
         hub_https_port = {https}\n",
        ca = hub.ca_path().display(),
        socket = socket.display(),
        directory = directory.display(),
    )
}

fn private(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(())
}

fn deployment(modules: &[(&str, &str)]) -> Value {
    let built_in = json!({"type": "docker", "status": "running", "restartPolicy": "always", "settings": {"image": "built-in", "createOptions": "{}"}});
    let module = |image: &str| json!({"type": "process", "status": "running", "restartPolicy": "always", "settings": {"image": image}});
    let modules: serde_json::Map<_, _> = modules
        .iter()
        .map(|(name, image)| ((*name).to_owned(), module(image)))
        .collect();
    json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {
            "schemaVersion": "1.1",
            "runtime": {"type": "docker", "settings": {}},
            "systemModules": {"edgeAgent": built_in, "edgeHub": built_in},
            "modules": modules,
        }},
        "$edgeHub": {"properties.desired": {
            "schemaVersion": "1.1",
            "routes": {"up": "FROM /messages/* INTO $upstream"},
            "storeAndForwardConfiguration": {"timeToLiveSecs": 7200},
        }},
    }})
}
