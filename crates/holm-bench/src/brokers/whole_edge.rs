//! A whole Holm edge: the product's own binary, `holm edge run`, with agent, security and runtimes, below a hub that deploys.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
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
    config: PathBuf,
}

impl WholeEdge {
    /// Starts it, gives it its deployment, and waits until that runs.
    ///
    /// # Errors
    /// The hub refuses, or the edge or a module does not come up within 30 s.
    pub async fn start(hub: &Hub, directory: &Path, key: &str) -> Result<Self> {
        let mut edge = Self::launch(hub, directory, key, &MODULES).await?;
        edge.wait("three modules that are connected", |edge| {
            let status = edge.ask("status")?;
            Ok(status["clientsConnected"] == MODULES.len() && status["link"]["connected"] == true)
        })
        .await?;
        Ok(edge)
    }

    /// Starts it with a deployment of no modules, on the engine of this machine, and waits until it is connected.
    ///
    /// # Errors
    /// The hub refuses, or the edge does not come up within 30 s.
    pub async fn start_empty(hub: &Hub, directory: &Path, key: &str) -> Result<Self> {
        let mut edge = Self::launch(hub, directory, key, &[]).await?;
        edge.wait("the link to the hub", |edge| {
            Ok(edge.ask("status")?["link"]["connected"] == true)
        })
        .await?;
        Ok(edge)
    }

    async fn launch(hub: &Hub, directory: &Path, key: &str, modules: &[(&str, &str)]) -> Result<Self> {
        let socket = directory.join("mgmt.sock");
        let config = directory.join("edge.toml");
        // A machine's engine is asked only by those who need it.
        let engine = match modules {
            [] => PathBuf::from("/var/run/docker.sock"),
            _ => directory.join("no-engine.sock"),
        };
        write(&config, &configuration(hub, directory, &socket, &engine, key))?;
        private(&config)?;
        hub.admit_edge(EDGE_DEVICE, key).await?;
        hub.deploy(EDGE_DEVICE, &deployment(modules)).await?;
        let process = Process::start(&mut run(&config)?, &directory.join("edge.log"))?;
        Ok(Self {
            process,
            socket,
            config,
        })
    }

    /// Ends it and starts it again; its modules go on meanwhile. Gives the time from the start of the process until it said that
    /// it was ready.
    ///
    /// # Errors
    /// It does not come up within 30 s.
    pub async fn restart(&mut self) -> Result<Duration> {
        let mut command = run(&self.config)?;
        let log = self.config.with_extension("log");
        self.process.signal(Signal::TERM)?;
        self.wait_for_end().await?;
        let began = Instant::now();
        self.process = Process::start(&mut command, &log)?;
        while !self.process.output().contains("ready ") {
            self.process.check()?;
            if began.elapsed() > START_DEADLINE {
                bail!("waited {} s for an edge that is ready", START_DEADLINE.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(began.elapsed())
    }

    async fn wait_for_end(&mut self) -> Result<()> {
        let began = Instant::now();
        while self.process.check().is_ok() {
            if began.elapsed() > START_DEADLINE {
                bail!("waited {} s for the end of the edge", START_DEADLINE.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
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
            let own = |module: &&Value| module["name"] != "edgeAgent" && module["name"] != "edgeHub";
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

fn run(config: &Path) -> Result<Command> {
    let mut command = Command::new(holm()?);
    command
        .args(["edge", "run", "--config"])
        .arg(config)
        .env("HOLM_LOG", "warn");
    Ok(command)
}

fn configuration(hub: &Hub, directory: &Path, socket: &Path, engine: &Path, key: &str) -> String {
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
         uri = \"unix://{engine}\"\n\
         [holm]\n\
         bind = \"127.0.0.1\"\n\
         mqtt_port = 0\n\
         amqp_port = 0\n\
         https_port = 0\n\
         data = \"{directory}/edge\"\n\
         hub_mqtt_port = {mqtt}\n\
         hub_https_port = {https}\n",
        ca = hub.ca_path().display(),
        socket = socket.display(),
        engine = engine.display(),
        directory = directory.display(),
    )
}

fn private(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(())
}

/// A deployment of one container that does nothing.
pub(super) fn container(module: &str, image: &str) -> Value {
    let options = json!({"Cmd": ["sleep", "3600"]}).to_string();
    let mut content = deployment(&[]);
    let settings = json!({"image": image, "createOptions": options});
    content["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"][module] =
        json!({"type": "docker", "status": "running", "restartPolicy": "always", "settings": settings});
    content
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
