//! `holm simulate`: a fleet of light devices and edges over the real protocols.
//!
//! ```text
//! register (REST, 100 identities a request, 8 at a time) ─► connect (64 handshakes at a time) ─► live: send, report, follow, answer ─► report
//! ```
//!
//! Each is a client of its own with a key of its own and one connection, as a real one is, or one with others on a connection of AMQP, as
//! behind a gateway; what it says is counted as said when the hub has acknowledged it. An edge is its `$edgeAgent`: it reads its
//! deployment and reports that it runs.

mod behaviour;
mod counts;
mod deployment;
mod device;
mod interrupt;
mod progress;
mod registration;
mod report;
mod room;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use holm_client::{Connections, Options};
use holm_net::{Dialer, Scope};
use tokio::sync::Semaphore;

use super::hub_access;
use crate::cli::Simulate;
use crate::output::{self, WrongUse};
use crate::service::Service;

use behaviour::Behaviour;
use counts::{Counts, number};
use deployment::Deployment;
use device::Kind;
use interrupt::Interrupt;
use progress::Progress;
use registration::{Member, Origin, Roll};
use report::{Outcome, Stall};

/// Handshakes at a time: as many as keep a small machine busy.
const HANDSHAKES: usize = 64;
/// How often is looked how it goes, and whether all messages have ended.
const LOOK: Duration = Duration::from_millis(20);
/// How long messages, and then connections, may take to end.
const DRAIN: Duration = Duration::from_secs(10);
/// The fleet is as complete as it will be when for so long nobody new was connected or has reported: longer than the longest wait
/// between two attempts, and than a twin's answer may take.
const STALLED: Duration = Duration::from_secs(90);

pub(crate) async fn run(options: Simulate) -> anyhow::Result<()> {
    if options.devices == 0 && options.edges == 0 {
        let told = "there is nobody to simulate; give a number above 0 by `--devices` or `--edges`";
        bail!(WrongUse(told.to_owned()));
    }
    let behaviour = match &options.behaviour {
        Some(file) => Behaviour::read(file)?,
        None => Behaviour::default(),
    };
    // What is wrong with them is told before anything is made.
    let mut deployment = Deployment::read(&options)?;
    let mut roll = Roll::new(&options)?;
    if options.shared && !options.protocol.is_amqp() {
        let told = "`--shared` goes with AMQP alone; add `--protocol amqp` or `amqp-ws`";
        bail!(WrongUse(told.to_owned()));
    }
    if !options.register_only {
        room::take_files(room::connections(roll.len(), options.shared))?;
    }
    let service = Arc::new(hub_access::open(&options.hub)?);
    registration::probe(&service).await?;
    let scope = Scope::new();
    let interrupt = Interrupt::listen(&scope)?;
    let mut outcome = Outcome::default();
    let mut counts = Arc::new(Counts::new(0, 0, 0));

    let mut done = async {
        register(&mut roll, &service, &behaviour, &interrupt, &mut outcome).await?;
        if interrupt.is_told() {
            return Ok(());
        }
        deployment.make(&service).await?;
        if options.register_only {
            outcome.is_there = true;
            return Ok(());
        }
        let members = roll.members(&service, &interrupt).await;
        if interrupt.is_told() {
            return Ok(());
        }
        let members = members?;
        let reporting = members.iter().filter(|member| member.reports(&behaviour)).count();
        let targeted = members.iter().filter(|member| member.is_targeted).count();
        counts = Arc::new(Counts::new(members.len(), reporting, targeted));
        let fleet = Fleet {
            options: &options,
            service: &service,
            members: &members,
            behaviour: Arc::new(behaviour.clone()),
            counts: Arc::clone(&counts),
            interrupt: &interrupt,
        };
        fleet.live(&mut outcome).await
    }
    .await;
    outcome.is_cut_short = interrupt.is_told() && !outcome.is_there;
    if options.delete {
        let deleted = clean_up(&roll, &service, &deployment, &interrupt, &mut outcome).await;
        done = done.and(deleted);
    }
    report::show(outcome.figures(&roll, &counts), options.hub.json);
    scope.stop();
    done.and_then(|()| outcome.judge(&roll, &counts))
}

async fn register(
    roll: &mut Roll,
    service: &Arc<Service>,
    behaviour: &Behaviour,
    interrupt: &Interrupt,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let begin = Instant::now();
    let registered = roll.register(service, behaviour, interrupt).await;
    outcome.registration = begin.elapsed();
    output::note(&format!(
        "registered {} in {:.1} s",
        roll.registered(),
        outcome.registration.as_secs_f64()
    ));
    let foreign = roll.count(Origin::Foreign);
    if foreign > 0 {
        output::note(&format!(
            "holm: {foreign} of them were there before, and no simulation has made them: they live along; their tags stay as they are, \
             and they are not deleted"
        ));
    }
    registered
}

/// Deletes what simulations have made.
async fn clean_up(
    roll: &Roll,
    service: &Arc<Service>,
    deployment: &Deployment,
    interrupt: &Interrupt,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let of_deployment = deployment.delete(service).await;
    let (deleted, of_members) = roll.delete(service, interrupt).await;
    outcome.deleted = deleted;
    let left = roll.registered().saturating_sub(deleted);
    output::note(&if left == 0 {
        format!("deleted {deleted}")
    } else {
        format!("deleted {deleted}; {left} stay at the hub")
    });
    of_members.and(of_deployment)
}

/// A fleet that is to live.
struct Fleet<'f> {
    options: &'f Simulate,
    service: &'f Arc<Service>,
    members: &'f [Member],
    behaviour: Arc<Behaviour>,
    counts: Arc<Counts>,
    interrupt: &'f Interrupt,
}

impl Fleet<'_> {
    async fn live(&self, outcome: &mut Outcome) -> anyhow::Result<()> {
        let before = report::memory();
        let scope = Scope::new();
        let turns = Arc::new(Semaphore::new(HANDSHAKES));
        let connections = self.options.shared.then(|| Connections::new(scope.clone()));
        let dialer = self.way().await;
        for (place, member) in self.members.iter().enumerate() {
            let mut client = self.client_options(member)?;
            client.turns = Some(Arc::clone(&turns));
            client.dialer = dialer.clone();
            client.connections.clone_from(&connections);
            // Spread over the interval, so that they don't all speak at once.
            let offset = self.behaviour.every.mul_f64(place as f64 / self.members.len() as f64);
            let (behaviour, counts) = (Arc::clone(&self.behaviour), Arc::clone(&self.counts));
            device::start(&scope, client, member, behaviour, counts, offset);
        }
        self.watch(before, outcome).await;
        self.counts.ended();
        // What is on its way is not lost because the simulation ends.
        self.quiet().await;
        scope.stop();
        if let Err(left) = scope.drain(DRAIN).await {
            output::note(&format!("{left} connections did not end in time"));
        }
        // What was still on its way has failed with its client.
        self.quiet().await;
        Ok(())
    }

    /// Waits until the fleet has lived as long as it shall.
    async fn watch(&self, memory_before: Option<u64>, outcome: &mut Outcome) {
        let counts = &self.counts;
        let mut progress = Progress::new(self.members.len());
        let (mut until, mut stall): (Option<Instant>, _) = (None, Stall::new());
        let mut ticks = tokio::time::interval(LOOK);
        while until.is_none_or(|until| Instant::now() < until) {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.interrupt.told() => break,
            }
            progress.show(counts.connected(), "connected", || {
                format!(
                    "{} reported, {} deployed, {} acknowledged, {} methods, {} s",
                    counts.reported.reached(),
                    counts.deployed.reached(),
                    number(&counts.acknowledged),
                    number(&counts.methods),
                    counts.begin.elapsed().as_secs(),
                )
            });
            if outcome.is_there || !(counts.is_settled() || stall.lasts(counts.settled()) > STALLED) {
                continue;
            }
            outcome.is_there = true;
            progress.end();
            let members = u64::try_from(counts.connected()).unwrap_or(u64::MAX);
            let taken = memory_before.and_then(|before| Some(report::memory()?.saturating_sub(before)));
            outcome.member_bytes = taken.and_then(|bytes| bytes.checked_div(members));
            output::note(&format!(
                "connected {}, reported {}, deployed {}, after {:.1} s",
                counts.connected(),
                counts.reported.reached(),
                counts.deployed.reached(),
                counts.begin.elapsed().as_secs_f64()
            ));
            until = self.options.life.map(|life| Instant::now() + life);
        }
        progress.end();
    }

    /// Waits until every message has ended, or has had its time.
    async fn quiet(&self) {
        let quiet = async {
            while !self.counts.is_quiet() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(DRAIN, quiet).await.ok();
    }

    async fn way(&self) -> Dialer {
        let port = self
            .options
            .port
            .unwrap_or_else(|| self.options.protocol.default_port());
        let connections = room::connections(self.members.len(), self.options.shared);
        room::way(self.service.host(), port, connections).await
    }

    fn client_options(&self, member: &Member) -> anyhow::Result<Options> {
        let credential = match &member.kind {
            Kind::Device(key) => self.service.tokens_of(&member.identity, Some(key)),
            Kind::Edge => self.service.tokens_of(&member.identity, None),
        };
        let Some(credential) = credential else {
            bail!("the connection string has a token in the place of a key; give one with `SharedAccessKey`");
        };
        let (host, tls) = (self.service.host(), self.service.tls());
        let mut client = Options::new(member.identity.clone(), host, credential, tls).over(self.options.protocol);
        if let Some(port) = self.options.port {
            client.endpoint.port = port;
        }
        client.user_agent = concat!("holm-simulate/", env!("CARGO_PKG_VERSION")).to_owned();
        Ok(client)
    }
}
