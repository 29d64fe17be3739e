//! The trait for containers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::{StreamExt, TryStreamExt, stream};
use holm_model::ModuleId;
use hyper::Method;
use serde_json::json;

use super::body::{self, OWNER};
use super::engine::{Answer, Call, Engine, EngineInfo, encode};
use super::inspect::{self, Container, pids};
use super::network::{self, EdgeNetwork, NetworkConfig};
use super::{image, places, probe, strangers};
use crate::error::{RuntimeError, UnsupportedOption};
use crate::logs::{LogLimits, LogStream, LogsOptions, Output, Tail, put_frame};
use crate::process::procfs;
use crate::runtime::{BoxFuture, ModuleRuntime, Prepared};
use crate::spec::{ModuleSpec, RuntimeKind};
use crate::state::{ModuleState, ModuleStats, Reachability};

/// Containers that are asked about at once: enough to be quick, few enough not to keep a small engine from its work.
const ASKED_AT_ONCE: usize = 8;

/// How much longer than its grace the engine may take to end a container.
const BEYOND_GRACE: Duration = Duration::from_secs(60);

/// How the engine is reached and what every container gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerConfig {
    /// `unix:///var/run/docker.sock`, `tcp://host:port` or `http://host:port`.
    pub endpoint: String,
    /// The network that modules join.
    pub network: NetworkConfig,
    /// The name by which modules reach the edge; each container gets it as an extra host. An address needs no entry.
    pub edge_hostname: Option<String>,
    /// Told apart from other edges that share the engine, as in tests; a device's only edge needs none.
    pub instance: Option<String>,
    /// Whether modules may be privileged and add capabilities; `allow_elevated_docker_permissions`.
    pub allow_elevated: bool,
    /// How much output of a module is kept when its create options don't say, where the engine keeps it in files.
    pub log: LogLimits,
}

impl Default for DockerConfig {
    fn default() -> Self {
        Self {
            endpoint: "unix:///var/run/docker.sock".to_owned(),
            network: NetworkConfig::default(),
            edge_hostname: None,
            instance: None,
            allow_elevated: true,
            log: LogLimits::default(),
        }
    }
}

/// Runs modules as containers.
#[derive(Clone, Debug)]
pub struct DockerRuntime {
    engine: Arc<Engine>,
    config: Arc<DockerConfig>,
}

impl DockerRuntime {
    /// Makes the runtime; the engine is not asked yet.
    ///
    /// # Errors
    /// [`RuntimeError::EngineUnreachable`] when the endpoint is no address of an engine.
    pub fn new(config: DockerConfig) -> Result<Self, RuntimeError> {
        Ok(Self {
            engine: Arc::new(Engine::new(&config.endpoint)?),
            config: Arc::new(config),
        })
    }

    /// What the engine says of itself.
    ///
    /// # Errors
    /// When it cannot be reached, or speaks no version of the API that is known here.
    pub async fn engine_info(&self) -> Result<EngineInfo, RuntimeError> {
        self.engine.info().await.cloned()
    }

    /// Finds the network that modules join, and makes it if it is not there. The edge listens on its gateway address.
    ///
    /// # Errors
    /// When the engine cannot be reached or refuses.
    pub async fn ensure_network(&self) -> Result<EdgeNetwork, RuntimeError> {
        network::ensure(&self.engine, &self.config.network).await
    }

    async fn find(&self, id: &ModuleId) -> Result<Container, RuntimeError> {
        let call = Call::get(format!("tell of module `{id}`"), container_path(id.as_str(), "json"));
        let found = match self.engine.json(&call).await {
            Ok(found) => found,
            Err(RuntimeError::Engine { status: 404, .. }) => return Err(RuntimeError::NotFound(id.clone())),
            Err(error) => return Err(error),
        };
        // A container is also found by its engine's id; a module only by its name.
        let container = Container::read(&found, self.config.instance.as_deref());
        container
            .filter(|container| container.state.id == *id)
            .ok_or_else(|| RuntimeError::NotFound(id.clone()))
    }

    /// Bounds what a container writes to its log, unless the manifest says how, or the engine hands logs on elsewhere.
    async fn limit_log(&self, body: &mut serde_json::Value) -> Result<(), RuntimeError> {
        if body::names_log_driver(body) {
            return Ok(());
        }
        let info = self.engine.json(&Call::get("tell of its log driver", "/info")).await?;
        let driver = info
            .get("LoggingDriver")
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default();
        body::limit_log(body, driver, self.config.log);
        Ok(())
    }

    async fn create_container(&self, spec: &ModuleSpec) -> Result<(), RuntimeError> {
        let unsupported = |options| RuntimeError::Unsupported {
            id: spec.id.clone(),
            options,
        };
        body::make(spec, &self.config, None).map_err(unsupported)?;
        let network = self.ensure_network().await?;
        let mut body = body::make(spec, &self.config, Some(network.gateway)).map_err(unsupported)?;
        self.limit_log(&mut body).await?;
        places::make(&places::needed(&body), &spec.module_dir).await?;
        let path = format!("/containers/create?name={}", encode(spec.id.as_str()));
        let call = Call::post(format!("create module `{}`", spec.id), path).with_body(&body);
        let refused = match self.engine.send(&call).await {
            Ok(answer) => return answer.done().await,
            Err(refused) => refused,
        };
        match refused {
            RuntimeError::Engine {
                status: 404, message, ..
            } => Err(RuntimeError::Image {
                image: spec.image.clone(),
                reason: message,
            }),
            RuntimeError::Engine {
                status: 409,
                operation,
                message,
            } => match self.find(&spec.id).await {
                Ok(_) => Err(RuntimeError::AlreadyExists(spec.id.clone())),
                Err(_) => Err(RuntimeError::Engine {
                    status: 409,
                    operation,
                    message: format!("{message} It does not belong to this edge: rename or remove that container"),
                }),
            },
            other => Err(other),
        }
    }

    async fn start_container(&self, id: &ModuleId) -> Result<(), RuntimeError> {
        let container = self.find(id).await?;
        let call = Call::post(
            format!("start module `{id}`"),
            container_path(&container.container_id, "start"),
        );
        match self.engine.send(&call).await {
            Ok(answer) => answer.done().await,
            Err(RuntimeError::Engine { message, .. }) => Err(RuntimeError::StartFailed {
                id: id.clone(),
                reason: message,
            }),
            Err(error) => Err(error),
        }
    }

    async fn stop_container(&self, id: &ModuleId, grace: Option<Duration>) -> Result<(), RuntimeError> {
        let container = self.find(id).await?;
        // The engine counts whole seconds; less than one is not none.
        let seconds = grace.map(|grace| grace.as_secs() + u64::from(grace.subsec_nanos() > 0));
        let query = seconds.map(|seconds| format!("?t={seconds}")).unwrap_or_default();
        let path = container_path(&container.container_id, "stop") + &query;
        let mut call = Call::post(format!("stop module `{id}`"), path);
        // Without a grace of ours the container's own counts, which may be long.
        call.patience = grace.unwrap_or(Duration::from_secs(3600)).saturating_add(BEYOND_GRACE);
        finish(self.engine.send(&call).await).await
    }

    async fn remove_container(&self, id: &ModuleId) -> Result<(), RuntimeError> {
        let container = match self.find(id).await {
            Ok(container) => container,
            Err(RuntimeError::NotFound(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let path = format!("/containers/{}?force=true", encode(&container.container_id));
        let call = Call::new(Method::DELETE, format!("remove module `{id}`"), path);
        finish(self.engine.send(&call).await).await
    }

    async fn list_containers(&self) -> Result<Vec<ModuleState>, RuntimeError> {
        let filters = json!({"label": [format!("{}={}", OWNER.0, OWNER.1)]}).to_string();
        let path = format!("/containers/json?all=true&filters={}", encode(&filters));
        let listed = self.engine.json(&Call::get("list the modules", path)).await?;
        let ids: Vec<String> = listed
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|container| Some(container.get("Id")?.as_str()?.to_owned()))
            .collect();
        let asked = stream::iter(ids).map(|id| async move {
            match self
                .engine
                .json(&Call::get("tell of a module", container_path(&id, "json")))
                .await
            {
                Ok(found) => Ok(Container::read(&found, self.config.instance.as_deref())),
                // Removed in the meantime.
                Err(RuntimeError::Engine { status: 404, .. }) => Ok(None),
                Err(error) => Err(error),
            }
        });
        let found: Vec<Option<Container>> = asked.buffer_unordered(ASKED_AT_ONCE).try_collect().await?;
        let mut states: Vec<ModuleState> = found.into_iter().flatten().map(|container| container.state).collect();
        states.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(states)
    }

    async fn open_logs(&self, id: &ModuleId, options: &LogsOptions) -> Result<LogStream, RuntimeError> {
        let container = self.find(id).await?;
        let path = container_path(&container.container_id, "logs") + &logs_query(options);
        let answer = self
            .engine
            .send(&Call::get(format!("tell the output of module `{id}`"), path))
            .await?;
        let tty = container.tty;
        Ok(Box::pin(stream::try_unfold(
            answer,
            move |mut answer: Answer| async move {
                let Some(chunk) = answer.chunk().await? else {
                    return Ok(None);
                };
                if !tty {
                    return Ok(Some((chunk, answer)));
                }
                // With a terminal the engine sends one stream without framing.
                let mut framed = BytesMut::new();
                put_frame(Output::Stdout, &chunk, &mut framed);
                Ok(Some((framed.freeze(), answer)))
            },
        )))
    }

    async fn read_stats(&self, id: &ModuleId) -> Result<ModuleStats, RuntimeError> {
        let container = self.find(id).await?;
        let path = container_path(&container.container_id, "stats?stream=false&one-shot=true");
        let stats = self
            .engine
            .json(&Call::get(format!("tell what module `{id}` uses"), path))
            .await?;
        Ok(container.stats(stats))
    }

    async fn read_all_stats(&self) -> Result<BTreeMap<ModuleId, ModuleStats>, RuntimeError> {
        let label = format!("{}={}", OWNER.0, OWNER.1);
        let filters = json!({"label": [label], "status": ["running"]}).to_string();
        let path = format!("/containers/json?filters={}", encode(&filters));
        let listed = self.engine.json(&Call::get("list the modules", path)).await?;
        let running = listed.as_array().into_iter().flatten();
        let running = running.filter_map(|entry| inspect::listed(entry, self.config.instance.as_deref()));
        let running: Vec<_> = running.collect();
        let asked = stream::iter(running).map(|(container, id)| async move {
            let path = container_path(&container, "stats?stream=false&one-shot=true");
            let call = Call::get(format!("tell what module `{id}` uses"), path);
            match self.engine.json(&call).await {
                Ok(stats) => Some((id, inspect::read_stats(stats))),
                Err(error) => {
                    // It may have ended in the meantime.
                    tracing::debug!(module = %id, error = %error.chain(), "what a module uses can't be read now");
                    None
                }
            }
        });
        Ok(asked
            .buffer_unordered(ASKED_AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await)
    }

    async fn list_processes(&self, id: &ModuleId) -> Result<Vec<u32>, RuntimeError> {
        let container = self.find(id).await?;
        let Some(main) = container.state.pid else {
            return Ok(Vec::new());
        };
        let call = Call::get(
            format!("tell the processes of module `{id}`"),
            container_path(&container.container_id, "top"),
        );
        match self.engine.json(&call).await {
            Ok(top) => pids(&top).ok_or_else(|| RuntimeError::Answer {
                operation: call.operation,
                reason: "it has no column `PID`".to_owned(),
            }),
            // It ended in the meantime.
            Err(RuntimeError::Engine { status: 404 | 409, .. }) => Ok(Vec::new()),
            // The engine needs `ps` for this, which small devices lack: see for ourselves.
            Err(RuntimeError::Engine { .. }) if self.engine.is_local() => {
                let mut found = procfs::descendants(main);
                found.insert(0, main);
                Ok(found)
            }
            Err(error) => Err(error),
        }
    }

    async fn probe_container(&self, id: &ModuleId, host: &str, port: u16) -> Result<Reachability, RuntimeError> {
        let container = self.find(id).await?;
        let not_checked = |reason: &str| Reachability::NotChecked {
            reason: reason.to_owned(),
        };
        if !self.engine.is_local() {
            return Ok(not_checked("the engine is on another machine"));
        }
        let Some(pid) = container.state.pid else {
            return Ok(not_checked("the module does not run"));
        };
        let host = host.to_owned();
        let task =
            tokio::task::spawn_blocking(move || probe::from_container(&container.container_id, pid, &host, port));
        Ok(task.await.unwrap_or_else(|_| not_checked("the check broke off")))
    }
}

impl ModuleRuntime for DockerRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Docker
    }

    fn validate(&self, spec: &ModuleSpec) -> Result<(), Vec<UnsupportedOption>> {
        body::make(spec, &self.config, None).map(|_| ())
    }

    fn prepare<'a>(&'a self, spec: &'a ModuleSpec) -> BoxFuture<'a, Result<Prepared, RuntimeError>> {
        Box::pin(async move {
            let image = image::prepare(&self.engine, spec).await?;
            let notes: Vec<_> = [image.note, strangers::note(&spec.create_options)]
                .into_iter()
                .flatten()
                .collect();
            Ok(Prepared {
                note: (!notes.is_empty()).then(|| notes.join("; ")),
            })
        })
    }

    fn create<'a>(&'a self, spec: &'a ModuleSpec) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(self.create_container(spec))
    }

    fn start<'a>(&'a self, id: &'a ModuleId) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(self.start_container(id))
    }

    fn stop<'a>(&'a self, id: &'a ModuleId, grace: Option<Duration>) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(self.stop_container(id, grace))
    }

    fn remove<'a>(&'a self, id: &'a ModuleId) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(self.remove_container(id))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<ModuleState>, RuntimeError>> {
        Box::pin(self.list_containers())
    }

    fn inspect<'a>(&'a self, id: &'a ModuleId) -> BoxFuture<'a, Result<ModuleState, RuntimeError>> {
        Box::pin(async move { Ok(self.find(id).await?.state) })
    }

    fn logs<'a>(
        &'a self,
        id: &'a ModuleId,
        options: &'a LogsOptions,
    ) -> BoxFuture<'a, Result<LogStream, RuntimeError>> {
        Box::pin(self.open_logs(id, options))
    }

    fn stats<'a>(&'a self, id: &'a ModuleId) -> BoxFuture<'a, Result<ModuleStats, RuntimeError>> {
        Box::pin(self.read_stats(id))
    }

    fn all_stats(&self) -> BoxFuture<'_, Result<BTreeMap<ModuleId, ModuleStats>, RuntimeError>> {
        Box::pin(self.read_all_stats())
    }

    fn processes<'a>(&'a self, id: &'a ModuleId) -> BoxFuture<'a, Result<Vec<u32>, RuntimeError>> {
        Box::pin(self.list_processes(id))
    }

    fn probe_reachability<'a>(
        &'a self,
        id: &'a ModuleId,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<Reachability, RuntimeError>> {
        Box::pin(self.probe_container(id, host, port))
    }
}

/// A container that has gone in the meantime is as stopped and removed as can be.
async fn finish(result: Result<Answer, RuntimeError>) -> Result<(), RuntimeError> {
    match result {
        Ok(answer) => answer.done().await,
        Err(RuntimeError::Engine { status: 404, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn container_path(container: &str, action: &str) -> String {
    format!("/containers/{}/{action}", encode(container))
}

fn logs_query(options: &LogsOptions) -> String {
    let mut query = format!(
        "?stdout=true&stderr=true&follow={}&timestamps={}",
        options.follow, options.timestamps
    );
    if let Tail::Lines(lines) = options.tail {
        query.push_str(&format!("&tail={lines}"));
    }
    for (name, time) in [("since", options.since), ("until", options.until)] {
        if let Some(time) = time {
            let millis = time.unix_millis();
            query.push_str(&format!(
                "&{name}={}.{:03}",
                millis.div_euclid(1000),
                millis.rem_euclid(1000)
            ));
        }
    }
    query
}
