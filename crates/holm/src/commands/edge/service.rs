//! `holm edge run`: the edge as a service.

use std::net::SocketAddr;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, bail};
use holm_edge::check::{self, Subject, Verdict};
use holm_edge::config::{EdgeConfig, MetricsBind};
use holm_edge::edge::{Edge, Program};
use holm_edge::management::{NotReprovisioned, Wish};
use holm_edge::metrics::EdgeMetrics;
use holm_edge::own_log::OwnLog;
use holm_edge::provisioning::{Asked, Provisioner};
use holm_edge::security::{Security, SecurityOptions};
use holm_edge::{data_directory, formats};
use holm_net::{Clock, Listener, ListeningSockets};
use tokio::sync::{mpsc, oneshot};

use super::successor;
use crate::build;
use crate::signals::{Signals, Told, notify};
use crate::status_page::{self, Status};
use crate::{logging, output};

/// Operators who may wait at once for what the provisioning service says.
const MAX_ASKING: usize = 4;

/// Runs the edge until it is told to stop.
pub(super) async fn run(file: &Path, check_only: bool) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    if check_only {
        check(file).await?;
        output::line(&format!("`{}` is in order", file.display()));
        return Ok(());
    }
    let Some((config, provisioner)) = provisioned(load(file)?, &mut signals).await? else {
        return Ok(());
    };
    let sockets = successor::inherited()?;
    let metrics_bind = config.metrics_bind;
    let page = status_listener(metrics_bind, &sockets)?;
    let program = successor::own_file()?;
    let hostname = config.hostname.clone();
    let own_log = OwnLog::default();
    let kept = own_log.clone();
    logging::tap(move |line| kept.write(line));
    let started = Program {
        file: program.clone(),
        ready_made: holm_modules::NAMES.iter().map(|&name| name.to_owned()).collect(),
        build: build::NAME.to_owned(),
        sockets: sockets.clone(),
        own_log,
    };
    let mut edge = Edge::start(config.clone(), started)
        .await
        .context("the edge can't start")?;
    let status = match page {
        Some(listener) => Some(status_page::serve(edge.scope(), listener, EdgeStatus::of(&edge))?),
        None => None,
    };

    if metrics_bind == MetricsBind::Usual {
        serve_page_to_containers(&edge, sockets);
    }

    let (mqtt, amqp, https) = (edge.mqtt_address(), edge.amqp_address(), edge.https_address());
    tracing::info!(%mqtt, %amqp, %https, hostname, build = build::NAME, "the edge is ready");
    let status = status.map_or_else(String::new, |address| format!(" status={address}"));
    output::line(&format!("ready mqtt={mqtt} amqp={amqp} https={https}{status}"));
    notify("READY=1");
    let refusals = edge.refusals().clone();
    let (asking, asked) = mpsc::channel(MAX_ASKING);
    let elsewhere = async {
        match &provisioner {
            Some(provisioner) => provisioner.told_otherwise(&config, &refusals, asked).await,
            None => std::future::pending().await,
        }
    };
    let asking = provisioner.is_some().then_some(asking);
    if !until_told_to_stop(&mut signals, &mut edge, &program, file, elsewhere, asking).await {
        let sockets = edge.hand_over().await;
        return Err(successor::go_on(&program, &sockets));
    }
    notify("STOPPING=1");
    edge.stop().await;
    tracing::info!("the edge has stopped; its modules go on");
    Ok(())
}

/// The configuration with hub and device, which the provisioning service may have to tell first; `None` if the edge was told to
/// stop meanwhile.
async fn provisioned(
    config: EdgeConfig,
    signals: &mut Signals,
) -> anyhow::Result<Option<(EdgeConfig, Option<Provisioner>)>> {
    let Some(provisioner) = Provisioner::of(&config, Clock::system())? else {
        return Ok(Some((config, None)));
    };
    let settled = {
        let mut settling = std::pin::pin!(provisioner.settle(config));
        loop {
            tokio::select! {
                settled = &mut settling => break settled?,
                told = signals.next() => {
                    if matches!(told, Told::Stop) {
                        return Ok(None);
                    }
                }
            }
        }
    };
    Ok(Some((settled, Some(provisioner))))
}

/// Obeys signals and wishes; whether it was told to stop, and not to make room for another program. The same program goes on anew
/// when it is told that it belongs `elsewhere`, of which whoever is `asking` lets it ask.
async fn until_told_to_stop(
    signals: &mut Signals,
    edge: &mut Edge,
    program: &Path,
    config: &Path,
    elsewhere: impl Future<Output = ()>,
    asking: Option<mpsc::Sender<Asked>>,
) -> bool {
    tokio::pin!(elsewhere);
    loop {
        let (told, answer) = tokio::select! {
            told = signals.next() => (told, None),
            wish = edge.wish() => match wish {
                Wish::Upgrade(answer) => (Told::Upgrade, Some(answer)),
                Wish::Reprovision(answer) => {
                    reprovision(edge, asking.as_ref(), answer);
                    continue;
                }
            },
            () = &mut elsewhere => return false,
        };
        match told {
            Told::Stop => return true,
            Told::Reload => match edge.reload() {
                Ok(()) => tracing::info!("certificates were read anew"),
                Err(error) => {
                    tracing::error!(error = %holm_net::error_chain(&error), "certificates stay what they were")
                }
            },
            Told::Upgrade => {
                let checked = successor::check(program, config).await;
                match &checked {
                    Ok(next) => tracing::info!(next, "this process goes over to another program"),
                    Err(error) => tracing::error!(error = format!("{error:#}"), "this program goes on"),
                }
                let goes_over = checked.is_ok();
                let told = answer.map(|answer| answer.send(checked.map_err(|error| format!("{error:#}"))));
                if told.is_some_and(|told| told.is_err()) {
                    tracing::debug!("who asked for the upgrade did not wait for the answer");
                }
                if goes_over {
                    return false;
                }
            }
        }
    }
}

/// Lets the provisioning service be asked, and passes on what comes of it.
fn reprovision(
    edge: &Edge,
    asking: Option<&mpsc::Sender<Asked>>,
    answer: oneshot::Sender<Result<(), NotReprovisioned>>,
) {
    let (asked, told) = oneshot::channel();
    let refused = match asking.map(|asking| asking.try_send(asked)) {
        Some(Ok(())) => None,
        Some(Err(_)) => Some(NotReprovisioned::NotTold(
            "the service is being asked already".to_owned(),
        )),
        None => Some(NotReprovisioned::ByHand),
    };
    edge.scope().spawn_until_stopped(async move {
        let outcome = match refused {
            Some(refused) => Err(refused),
            None => match told.await {
                Ok(told) => told.map_err(NotReprovisioned::NotTold),
                Err(_) => Err(NotReprovisioned::NotTold("the edge is stopping".to_owned())),
            },
        };
        if answer.send(outcome).is_err() {
            tracing::debug!("who wanted the device to be provisioned anew did not wait for the answer");
        }
    });
}

/// Looks at a configuration, the files that it names and the formats of the data; says everything that is wrong.
pub(super) async fn check(file: &Path) -> anyhow::Result<()> {
    let config = load(file)?;
    check_files(file).await?;
    data_directory::look_at(&config.data).map_err(anyhow::Error::new)?;
    Ok(formats::look_at(&config.data)?)
}

/// Looks at the files that the configuration names, by the checks of `holm edge check`.
async fn check_files(file: &Path) -> anyhow::Result<()> {
    let report = check::before_start(&Subject::new(file.to_owned(), None)).await;
    let mut wrong = Vec::new();
    for (_, verdict) in report.iter() {
        match verdict {
            Verdict::Error(finding) | Verdict::Fatal(finding) => {
                wrong.push(format!("{}; {}", finding.reason, finding.remedy));
            }
            Verdict::Warning(finding) => output::note(&format!("holm: {}; {}", finding.reason, finding.remedy)),
            Verdict::Fine(_) | Verdict::Skipped(_) | Verdict::Ignored => {}
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!(
        "`{}` names files that can't be used\n  {}",
        file.display(),
        wrong.join("\n  ")
    )
}

/// The port of the status page, before anything is changed on this device. An address that nobody asked for is no reason not
/// to start.
fn status_listener(bind: MetricsBind, sockets: &ListeningSockets) -> anyhow::Result<Option<Listener>> {
    match bind {
        MetricsBind::Nowhere => Ok(None),
        MetricsBind::At(address) => {
            let listener = status_page::bind(sockets, address);
            listener.context("`holm.metrics_bind` can't be used").map(Some)
        }
        MetricsBind::Usual => match status_page::bind(sockets, MetricsBind::USUAL) {
            Ok(listener) => Ok(Some(listener)),
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "health and metrics are not served; give them an address in `holm.metrics_bind`"
                );
                Ok(None)
            }
        },
    }
}

/// Serves the page in the containers' network too, where collectors of figures look for it (`http://edgeHub:9600/metrics`): as
/// the original's containers do. Only where nobody chose another address.
fn serve_page_to_containers(edge: &Edge, sockets: ListeningSockets) {
    let (found, scope, page) = (
        edge.address_for_containers(),
        edge.scope().clone(),
        EdgeStatus::of(edge),
    );
    edge.scope().spawn_until_stopped(async move {
        let address = SocketAddr::new(found.await, MetricsBind::USUAL.port());
        let served =
            status_page::bind(&sockets, address).and_then(|listener| status_page::serve(&scope, listener, page));
        match served {
            Ok(_) => tracing::info!(%address, "containers can read metrics"),
            Err(error) => {
                tracing::warn!(%address, error = format!("{error:#}"), "containers can't read metrics");
            }
        }
    });
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
    metrics: EdgeMetrics,
    health: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

impl EdgeStatus {
    fn of(edge: &Edge) -> Self {
        Self {
            metrics: edge.metrics(),
            health: edge.health(),
        }
    }
}

impl Status for EdgeStatus {
    fn health(&self) -> Result<(), String> {
        (self.health)()
    }

    async fn metrics(&self) -> String {
        self.metrics.read().await.into_text()
    }
}
