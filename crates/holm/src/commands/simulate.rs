//! `holm simulate`: a fleet of light devices and edges over the real protocols.
//!
//! ```text
//! register (REST, 100 identities a request, 8 at a time) ─► connect (64 handshakes at a time) ─► live: send, report, follow, answer ─► report
//! ```
//!
//! Each is a client of its own with a key of its own and one connection, as a real one is; what it says is counted as said when the hub
//! has acknowledged it. An edge is its `$edgeAgent`: it reads its deployment and reports that it runs.

mod behaviour;
mod counts;
mod device;
mod registration;
mod room;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use holm_client::Options;
use holm_net::Scope;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::hub_access;
use crate::cli::Simulate;
use crate::output;

use behaviour::Behaviour;
use counts::Counts;
use device::Kind;
use registration::Member;

/// Handshakes at a time: as many as keep a small machine busy.
const HANDSHAKES: usize = 64;
/// How often progress is shown.
const PROGRESS: Duration = Duration::from_secs(1);
/// How often is looked whether all messages have ended.
const LOOK: Duration = Duration::from_millis(20);
/// How long messages, and then connections, may take to end.
const DRAIN: Duration = Duration::from_secs(10);

pub(crate) async fn run(options: Simulate) -> anyhow::Result<()> {
    let behaviour = match &options.behaviour {
        Some(file) => Behaviour::read(file)?,
        None => Behaviour::default(),
    };
    if !options.register_only {
        room::take_files(options.devices as usize + options.edges as usize)?;
    }
    let service = Arc::new(hub_access::open(&options.hub)?);
    let begin = Instant::now();
    let members = registration::register(&service, &options, &behaviour).await?;
    let registered = begin.elapsed();
    output::note(&format!(
        "registered {} in {:.1} s",
        members.len(),
        registered.as_secs_f64()
    ));
    let counts = Arc::new(Counts::default());
    if !options.register_only {
        live(&options, &service, &members, &Arc::new(behaviour), &counts).await?;
    }
    if options.delete {
        registration::delete(&service, &options, &members).await?;
        output::note(&format!("deleted {}", members.len()));
    }
    let report = counts.report(members.len(), registered);
    if options.hub.json {
        output::json(&report);
    } else {
        show(&report);
    }
    Ok(())
}

async fn live(
    options: &Simulate,
    service: &Arc<crate::service::Service>,
    members: &[Member],
    behaviour: &Arc<Behaviour>,
    counts: &Arc<Counts>,
) -> anyhow::Result<()> {
    let scope = Scope::new();
    let turns = Arc::new(Semaphore::new(HANDSHAKES));
    let port = options.port.unwrap_or_else(|| options.protocol.default_port());
    let dialer = room::way(service.host(), port, members.len()).await;
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    for (place, member) in members.iter().enumerate() {
        let mut client = client_options(options, service, member)?;
        client.turns = Some(Arc::clone(&turns));
        client.dialer = dialer.clone();
        // Spread over the interval, so that they don't all speak at once.
        let offset = behaviour.every.mul_f64(place as f64 / members.len() as f64);
        device::start(
            &scope,
            client,
            member,
            Arc::clone(behaviour),
            Arc::clone(counts),
            offset,
        );
    }
    let begin = Instant::now();
    let mut until: Option<Instant> = None;
    let mut ticks = tokio::time::interval(PROGRESS);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = &mut interrupt => break,
        }
        counts.progress(members.len(), begin.elapsed());
        if until.is_none() && counts.all_tried(members.len()) {
            counts.everybody_was_connected(begin.elapsed());
            until = options.life.map(|life| Instant::now() + life);
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
    }
    counts.close_line();
    counts.ended();
    // What is on its way is not lost because the simulation ends.
    let quiet = async {
        while !counts.is_quiet() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(DRAIN, quiet).await.ok();
    scope.stop();
    if let Err(left) = scope.drain(DRAIN).await {
        output::note(&format!("{left} connections did not end in time"));
    }
    Ok(())
}

fn client_options(options: &Simulate, service: &crate::service::Service, member: &Member) -> anyhow::Result<Options> {
    let credential = match &member.kind {
        Kind::Device(key) => service.tokens_of(&member.identity, Some(key)),
        Kind::Edge => service.tokens_of(&member.identity, None),
    };
    let Some(credential) = credential else {
        bail!("the connection string has a token in the place of a key; give one with `SharedAccessKey`");
    };
    let mut client =
        Options::new(member.identity.clone(), service.host(), credential, service.tls()).over(options.protocol);
    if let Some(port) = options.port {
        client.endpoint.port = port;
    }
    client.user_agent = concat!("holm-simulate/", env!("CARGO_PKG_VERSION")).to_owned();
    Ok(client)
}

fn show(report: &Value) {
    for (name, value) in report
        .as_object()
        .context("a report is an object")
        .into_iter()
        .flatten()
    {
        if !value.is_null() {
            output::line(&format!("{name:<26} {value}"));
        }
    }
}
