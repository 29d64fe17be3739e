//! `holm edge run`: the edge as a service.

use std::path::Path;
use std::time::SystemTime;

use anyhow::Context;
use holm_edge::config::EdgeConfig;
use holm_edge::edge::Edge;
use holm_edge::security::{Security, SecurityOptions};
use serde_json::Value;

use crate::output;
use crate::signals::{Signals, Told, notify};
use crate::status_page::{self, Status};

/// Runs the edge until it is told to stop.
pub(super) async fn run(file: &Path, check: bool) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let config = load(file)?;
    if check {
        output::line(&format!("`{}` is in order", file.display()));
        return Ok(());
    }
    let metrics = config.metrics_bind;
    let program = std::env::current_exe().context("this program does not know its own file")?;
    let hostname = config.hostname.clone();
    let edge = Edge::start(config, program).await.context("the edge can't start")?;
    let status = match metrics {
        Some(address) => {
            let page = EdgeStatus {
                status: edge.status(),
                health: edge.health(),
            };
            let listener = status_page::bind(address).await?;
            Some(status_page::serve(edge.scope(), listener, page)?)
        }
        None => None,
    };

    let (mqtt, https) = (edge.mqtt_address(), edge.https_address());
    tracing::info!(%mqtt, %https, hostname, "the edge is ready");
    let status = status.map_or_else(String::new, |address| format!(" status={address}"));
    output::line(&format!("ready mqtt={mqtt} https={https}{status}"));
    notify("READY=1");
    loop {
        match signals.next().await {
            Told::Stop => break,
            Told::Reload => match edge.reload() {
                Ok(()) => tracing::info!("certificates were read anew"),
                Err(error) => {
                    tracing::error!(error = %holm_net::error_chain(&error), "certificates stay what they were")
                }
            },
        }
    }
    notify("STOPPING=1");
    edge.stop().await;
    tracing::info!("the edge has stopped; its modules go on");
    Ok(())
}

/// The edge's authority, as PEM.
pub(super) async fn authority(file: &Path) -> anyhow::Result<String> {
    let config = load(file)?;
    let now = SystemTime::now().into();
    let security = Security::open(SecurityOptions::from_config(&config), now).await;
    Ok(security.context("keys and certificates can't be used")?.edge_ca_pem())
}

fn load(file: &Path) -> anyhow::Result<EdgeConfig> {
    let loaded = EdgeConfig::load(file).with_context(|| format!("`{}`", file.display()))?;
    for note in loaded.notes {
        tracing::warn!("{note}");
    }
    Ok(loaded.config)
}

/// Stops and removes the process modules of an edge that has ended.
#[cfg(feature = "hub")]
pub(super) async fn remove_process_modules(data: &Path) -> anyhow::Result<()> {
    use holm_runtime::{ModuleRuntime as _, ProcessConfig, ProcessRuntime};
    let program = std::env::current_exe().context("this program does not know its own file")?;
    let runtime = ProcessRuntime::new(ProcessConfig::new(data.join("processes"), Vec::new(), program));
    for module in runtime.list().await.context("the modules can't be listed")? {
        runtime
            .remove(&module.id)
            .await
            .with_context(|| format!("module `{}` can't be removed", module.id))?;
    }
    Ok(())
}

struct EdgeStatus {
    status: Box<dyn Fn() -> Value + Send + Sync>,
    health: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

impl Status for EdgeStatus {
    fn health(&self) -> Result<(), String> {
        (self.health)()
    }

    async fn metrics(&self) -> String {
        let status = (self.status)();
        let number = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
        let connected = u64::from(
            status
                .pointer("/link/connected")
                .and_then(Value::as_bool)
                .unwrap_or_default(),
        );
        let mut text = String::new();
        for (name, help, value) in [
            (
                "holm_edge_clients",
                "Modules connected to this edge now.",
                number("/clientsConnected"),
            ),
            ("holm_edge_link_up", "Whether the hub can be reached.", connected),
            (
                "holm_edge_upstream_messages",
                "Messages that wait for the hub.",
                number("/upstream/messages"),
            ),
            (
                "holm_edge_queue_disk_bytes",
                "Bytes of the message queue on disk.",
                number("/diskBytes"),
            ),
        ] {
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"));
        }
        text
    }
}
