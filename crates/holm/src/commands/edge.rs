//! `holm edge …`: run the edge, or look at the one that runs here.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use hyper::Method;
use serde_json::Value;

use crate::cli::{Edge, OnDevice, Socket};
use crate::management::{LogQuery, LogStream, Management};
use crate::output;

mod bundle;
mod check;
mod config;
mod dead_letters;
mod list;
mod plan;
mod service;
mod status;
mod successor;
mod system;
mod systemd;

pub(crate) async fn run(command: Edge) -> anyhow::Result<ExitCode> {
    match command {
        Edge::Run { config, check } => service::run(&config.file(), check).await?,
        Edge::Ca { config } => output::line(service::authority(&config.file()).await?.trim_end()),
        Edge::List(on) => list::print(&reach(&on.edge)?.ask(Method::GET, "/modules").await?, on.json)?,
        Edge::Logs {
            module,
            follow,
            tail,
            since,
            until,
            edge,
        } => {
            let query = LogQuery {
                follow,
                tail: tail.and_then(|tail| tail.0),
                since,
                until,
            };
            logs(&module, &query, &edge).await?;
        }
        Edge::Restart { module, edge } => {
            let path = format!("/modules/{}/restart", holm_model::wire::percent::encode(&module));
            reach(&edge)?.ask(Method::POST, &path).await?;
            output::line(&format!("Restarted {module}"));
        }
        Edge::Status(on) => status(&on).await?,
        Edge::DeadLetters(command) => dead_letters::run(command).await?,
        Edge::Plan(on) => plan(&on).await?,
        Edge::Retry(edge) => {
            reach(&edge)?.ask(Method::POST, "/holm/v1/retry").await?;
            output::line("The deployment is tried again; `holm edge plan` shows how far it is");
        }
        Edge::Upgrade(edge) => upgrade(&edge).await?,
        Edge::Check(options) => return check::run(&options).await,
        Edge::SupportBundle(options) => return bundle::run(&options).await,
        Edge::Config(command) => return config::run(command).await,
        Edge::System(command) => return system::run(command).await,
        Edge::CheckList { json } => check::list(json),
    }
    Ok(ExitCode::SUCCESS)
}

/// Stops and removes the process modules of an edge that has ended; they outlive it by design.
#[cfg(feature = "hub")]
pub(crate) async fn remove_process_modules(data: &Path) -> anyhow::Result<()> {
    service::remove_process_modules(data).await
}

/// How long an edge may take to end its sessions and to start again.
const UPGRADE: Duration = Duration::from_secs(60);
/// The pause between two looks at it.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Where sockets are looked for when none is named: the published place, and that of an edge with its defaults.
const SOCKETS: [&str; 2] = [
    "unix:///var/run/iotedge/mgmt.sock",
    "unix:///var/lib/holm/edge/mgmt.sock",
];

fn reach(edge: &Socket) -> anyhow::Result<Management> {
    let is_there = |uri: &&str| uri.strip_prefix("unix://").is_some_and(|path| Path::new(path).exists());
    let usual = || SOCKETS.into_iter().find(is_there).unwrap_or(SOCKETS[0]);
    Management::new(edge.named()?.as_deref().unwrap_or_else(usual))
}

async fn logs(module: &str, query: &LogQuery, edge: &Socket) -> anyhow::Result<()> {
    use std::io::Write;
    let mut log = reach(edge)?.log(module, query).await?;
    while let Some((stream, piece)) = log.next().await? {
        match stream {
            LogStream::Output => output::bytes(&piece),
            // Whoever read along has gone.
            LogStream::Error if std::io::stderr().lock().write_all(&piece).is_err() => return Ok(()),
            LogStream::Error => {}
        }
    }
    Ok(())
}

async fn status(on: &OnDevice) -> anyhow::Result<()> {
    let status = reach(&on.edge)?.ask(Method::GET, "/holm/v1/status").await?;
    if on.json {
        output::json(&status);
        return Ok(());
    }
    for line in status::lines(&status, output::room()) {
        output::line(&line);
    }
    Ok(())
}

async fn upgrade(edge: &Socket) -> anyhow::Result<()> {
    let edge = reach(edge)?;
    let text = |answer: &Value, name: &str| answer[name].as_str().unwrap_or("unknown").to_owned();
    let before = text(&edge.ask(Method::GET, "/holm/v1/status").await?, "startedAt");
    let next = text(&edge.ask(Method::POST, "/holm/v1/upgrade").await?, "build");
    let changed = async {
        loop {
            // Who asks while one program makes room for the other waits, or is cut off by the one and asks the other.
            match edge.ask(Method::GET, "/holm/v1/status").await {
                Ok(status) if text(&status, "startedAt") != before => return text(&status, "build"),
                _ => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    };
    let running = tokio::time::timeout(UPGRADE, changed).await;
    let running =
        running.with_context(|| format!("the edge went over to `{next}`, which does not answer; see its log"))?;
    anyhow::ensure!(
        running == next,
        "the edge was to go over to `{next}`, and `{running}` goes on; see its log"
    );
    output::line(&format!("The edge goes on as {running}"));
    Ok(())
}

async fn plan(on: &OnDevice) -> anyhow::Result<()> {
    let answer = reach(&on.edge)?.ask(Method::GET, "/holm/v1/plan").await?;
    if on.json {
        output::json(&answer);
        return Ok(());
    }
    for line in plan::lines(&answer, output::room()) {
        output::line(&line);
    }
    Ok(())
}
