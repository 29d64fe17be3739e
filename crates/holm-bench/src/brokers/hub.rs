//! A Holm hub: the product's own binary, `holm hub run`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use holm_identity::SymmetricKey;
use holm_model::DeviceId;
use hyper::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{EDGE_DEVICE, START_DEADLINE, make, sibling, whole_edge};
use crate::edge_server::EdgeSettings;
use crate::load::ListenerPlan;
use crate::process::Process;
use crate::service::{HubEvents, Service};

/// A hub that runs.
#[derive(Debug)]
pub struct Hub {
    process: Process,
    data: PathBuf,
    mqtt_port: u16,
    amqp_port: u16,
    https_port: u16,
    service: Service,
}

impl Hub {
    /// Starts a hub on free ports and waits until it listens.
    ///
    /// # Errors
    /// There is no `holm`, or it does not start within 30 s.
    pub async fn start(directory: &Path) -> Result<Self> {
        make(directory)?;
        let holm = holm()?;
        let data = directory.join("hub");
        let mut command = Command::new(&holm);
        command.args([
            "hub",
            "run",
            "--hostname",
            "127.0.0.1",
            "--mqtt-port",
            "0",
            "--amqp-port",
            "0",
            "--https-port",
            "0",
        ]);
        command.arg("--data").arg(&data).env("HOLM_LOG", "warn");
        let mut process = Process::start(&mut command, &directory.join("hub.log"))?;
        let (mqtt_port, amqp_port, https_port) = ports(&mut process).await.context("the hub did not start")?;
        let told = Command::new(&holm)
            .args(["hub", "connection-string", "--data"])
            .arg(&data)
            .output()?;
        let text = String::from_utf8(told.stdout).context("the connection string is not text")?;
        let service = Service::new(&text, https_port, &data.join("ca.pem"))?;
        Ok(Self {
            process,
            data,
            mqtt_port,
            amqp_port,
            https_port,
            service,
        })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its port of MQTT.
    #[must_use]
    pub const fn mqtt_port(&self) -> u16 {
        self.mqtt_port
    }

    /// Its port of AMQP.
    #[must_use]
    pub const fn amqp_port(&self) -> u16 {
        self.amqp_port
    }

    /// Its ports of MQTT and HTTPS.
    #[must_use]
    pub const fn ports(&self) -> (u16, u16) {
        (self.mqtt_port, self.https_port)
    }

    /// The authority to trust.
    #[must_use]
    pub fn ca_path(&self) -> PathBuf {
        self.data.join("ca.pem")
    }

    /// A token of its owner.
    #[must_use]
    pub fn owner_token(&self) -> &str {
        self.service.token()
    }

    /// A reader of its event log.
    #[must_use]
    pub fn events(&self) -> ListenerPlan {
        ListenerPlan::HubEvents(self.service.clone())
    }

    /// The same, open already.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn follow(&self) -> Result<HubEvents> {
        self.service.follow().await
    }

    /// Stops it where it is, as if its machine hung.
    ///
    /// # Errors
    /// It is gone.
    pub fn pause(&self) -> Result<()> {
        self.process.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It is gone.
    pub fn resume(&self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// Gives the whole edge a deployment of one container.
    ///
    /// # Errors
    /// The hub refuses.
    pub async fn deploy_container(&self, module: &str, image: &str) -> Result<()> {
        self.deploy(EDGE_DEVICE, &whole_edge::container(module, image)).await
    }

    /// Creates a device with this key.
    ///
    /// # Errors
    /// The hub refuses.
    pub async fn admit_device(&self, device: &str, key: &str) -> Result<()> {
        let body = json!({ "deviceId": device, "authentication": authentication(key) });
        self.service.create(&format!("/devices/{device}"), &body).await
    }

    /// Posts to the service API.
    ///
    /// # Errors
    /// There is no answer, or it does not tell success.
    pub async fn call(&self, path: &str, body: &Value) -> Result<()> {
        self.service.change(Method::POST, path, body).await
    }

    /// Creates an edge device with this key.
    ///
    /// # Errors
    /// The hub refuses.
    pub async fn admit_edge(&self, device: &str, key: &str) -> Result<()> {
        let body =
            json!({ "deviceId": device, "capabilities": { "iotEdge": true }, "authentication": authentication(key) });
        self.service.create(&format!("/devices/{device}"), &body).await
    }

    /// Gives an edge its deployment.
    ///
    /// # Errors
    /// The hub refuses.
    pub async fn deploy(&self, device: &str, content: &Value) -> Result<()> {
        let path = format!("/devices/{device}/applyConfigurationContent");
        self.service.change(Method::POST, &path, content).await
    }

    /// Creates the edge, its modules with its key, and gives it its routes.
    ///
    /// # Errors
    /// The hub refuses.
    pub async fn admit(&self, settings: &EdgeSettings) -> Result<()> {
        let device = &settings.device;
        self.admit_edge(device, &settings.key).await?;
        let authentication = authentication(&settings.key);
        let module = |module: &str| json!({ "deviceId": device, "moduleId": module, "authentication": authentication });
        for name in &settings.modules {
            let path = format!("/devices/{device}/modules/{name}");
            self.service.create(&path, &module(name)).await?;
        }
        // This one came with the device; its key is the edge's to set, as the device.
        let path = format!("/devices/{device}/modules/%24edgeHub");
        let key = SymmetricKey::from_base64(&settings.key)?;
        let edge = self.service.as_device(&DeviceId::new(device)?, &key);
        edge.change(Method::PUT, &path, &module("$edgeHub")).await?;
        let path = format!("/twins/{device}/modules/%24edgeHub");
        let body = json!({ "properties": { "desired": settings.desired() } });
        self.service.change(Method::PATCH, &path, &body).await
    }
}

fn authentication(key: &str) -> Value {
    json!({ "type": "sas", "symmetricKey": { "primaryKey": key, "secondaryKey": key } })
}

/// The ports that the hub says it listens on.
async fn ports(process: &mut Process) -> Result<(u16, u16, u16)> {
    let began = Instant::now();
    loop {
        let output = process.output();
        if let Some(line) = output.lines().find(|line| line.starts_with("ready ")) {
            return Ok((port(line, "mqtt=")?, port(line, "amqp=")?, port(line, "https=")?));
        }
        process.check()?;
        if began.elapsed() > START_DEADLINE {
            bail!("it is not ready after {} s", START_DEADLINE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn port(line: &str, name: &str) -> Result<u16> {
    let word = line.split(' ').find_map(|word| word.strip_prefix(name));
    let port = word.and_then(|address| address.rsplit(':').next());
    port.with_context(|| format!("`{line}` does not tell `{name}`"))?
        .parse()
        .with_context(|| format!("`{line}` has no port after `{name}`"))
}

/// The product's binary: `HOLM_BIN`, or the one beside this program.
pub(super) fn holm() -> Result<PathBuf> {
    match std::env::var_os("HOLM_BIN") {
        Some(path) => Ok(path.into()),
        None => sibling("holm").context("set HOLM_BIN, or use `cargo xtask bench`"),
    }
}
