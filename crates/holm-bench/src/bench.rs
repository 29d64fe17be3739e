//! The benchmarks: every broker under every load, in turns, so that all of them meet the same weather.
//!
//! ```text
//!   for each payload and number of clients
//!       raw sync rate, then for each pace and each broker: start it fresh, load it, end it
//!   idle memory, starts
//! ```

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use holm_model::Timestamp;
use holm_mqtt::{Event, Message, Qos, Text};

use crate::brokers::{Broker, Certificates, Hub, Kind, MAX_MODULES, Product, WholeEdge};
use crate::client::{self, Link};
use crate::disk::sync_rate;
use crate::figures::{self, Figure, KEY};
use crate::hub_load::{self, Size};
use crate::load::{self, ListenerPlan, Plan};
use crate::machine::{Machine, load_average};
use crate::process::{proportional_kib, usage_of};
use crate::report::{BrokerNote, Idle, Latency, Mode, Report, Row, Start};
use crate::schedule::Pace;

/// Unacknowledged messages of one publisher: what SDKs of the field keep.
pub(crate) const WINDOW: u16 = 16;
/// The schedule of an open loop, all publishers together.
const PER_SECOND: u32 = 1000;
/// How long to wait for what does not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long the raw sync rate is measured.
const SYNC_DURATION: Duration = Duration::from_secs(1);
/// How long an idle broker is left alone before its memory is read.
pub(crate) const SETTLE: Duration = Duration::from_secs(1);
/// How often a start is repeated.
const STARTS: usize = 5;
/// A first message that takes longer is lost.
const FIRST_MESSAGE_DEADLINE: Duration = Duration::from_secs(10);

const HOLM: Kind = Kind {
    product: Product::HolmEdge,
    tls: true,
};
const MOSQUITTO: Kind = Kind {
    product: Product::Mosquitto,
    tls: true,
};
const NATS: Kind = Kind {
    product: Product::Nats,
    tls: true,
};

const IN_MEMORY: Kind = Kind {
    product: Product::HolmEdgeMemory,
    tls: true,
};
const RUMQTTD: Kind = Kind {
    product: Product::Rumqttd,
    tls: true,
};

/// What is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    /// A broker, from client to client.
    Broker(Kind),
    /// A Holm edge below a Holm hub, from module to the hub's event log.
    Upstream,
}

/// How the benchmarks are run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// One payload, few clients, short loads.
    pub quick: bool,
    /// Where brokers keep their data: the disk that is measured.
    pub directory: PathBuf,
    /// The command, for the report.
    pub command: String,
}

impl Settings {
    fn payloads(&self) -> &'static [usize] {
        if self.quick { &[256] } else { &[256, 1024] }
    }

    fn clients(&self) -> &'static [usize] {
        if self.quick { &[1, 10] } else { &[1, 10, 100] }
    }

    fn duration(&self) -> Duration {
        Duration::from_secs(if self.quick { 1 } else { 5 })
    }

    fn subjects(&self) -> Vec<Subject> {
        let mut subjects = [HOLM, MOSQUITTO, NATS, IN_MEMORY, RUMQTTD]
            .map(Subject::Broker)
            .to_vec();
        if !self.quick {
            let plain = [MOSQUITTO, NATS].map(|kind| Subject::Broker(Kind { tls: false, ..kind }));
            subjects.extend(plain);
        }
        subjects.push(Subject::Upstream);
        subjects
    }
}

impl Subject {
    fn name(self) -> &'static str {
        match self {
            Self::Broker(kind) => kind.product.name(),
            Self::Upstream => "Holm edge → hub",
        }
    }

    /// How many clients publish where so many are wanted.
    fn clients(self, wanted: usize) -> usize {
        match self {
            Self::Broker(_) => wanted,
            Self::Upstream => wanted.min(MAX_MODULES),
        }
    }

    fn link(self) -> &'static str {
        match self {
            Self::Broker(Kind { tls: false, .. }) => "TCP",
            _ => "TLS",
        }
    }
}

/// Runs the benchmarks; `tell` is given a line for each figure as it comes.
///
/// # Errors
/// A broker is not installed or fails.
pub async fn run(settings: &Settings, tell: impl Fn(&str)) -> Result<Report> {
    let place = tempfile::Builder::new()
        .prefix("run-")
        .tempdir_in(&settings.directory)
        .with_context(|| format!("no directory can be made in `{}`", settings.directory.display()))?;
    let bench = Bench {
        settings,
        certificates: Certificates::create(place.path())?,
        place: place.path(),
        tell: &tell,
    };
    let mut report = Report {
        command: settings.command.clone(),
        date: minute(Timestamp::from(SystemTime::now())),
        quick: settings.quick,
        machine: Machine::here(),
        brokers: notes()?,
        window: WINDOW,
        seconds: settings.duration().as_secs_f64(),
        rows: Vec::new(),
        idle: Vec::new(),
        starts: Vec::new(),
        figures: Vec::new(),
        hub: Vec::new(),
    };
    for payload_bytes in settings.payloads() {
        for clients in settings.clients() {
            report.rows.extend(bench.group(*payload_bytes, *clients).await?);
        }
    }
    for kind in [HOLM, MOSQUITTO, NATS] {
        report
            .idle
            .extend(idle(bench.place, &bench.certificates, kind, bench.tell).await?);
        report.starts.push(bench.starts(kind).await?);
    }
    report.idle.push(bench.idle_whole_edge().await?);
    report.figures = figures::measure(place.path(), &bench.certificates, &report.rows, &report.idle, &tell).await?;
    let size = if settings.quick { Size::QUICK } else { Size::FULL };
    let told = |figure: &Figure| tell(&format!("{}: {}", figure.name, figure.value));
    report.hub = hub_load::run(place.path(), size, told).await.context("the hub")?;
    Ok(report)
}

/// Measures the figures of the edge that need no table.
///
/// # Errors
/// A broker or the hub fails.
pub async fn figures(directory: &Path, tell: impl Fn(&str)) -> Result<()> {
    let place = tempfile::Builder::new().prefix("run-").tempdir_in(directory)?;
    let certificates = Certificates::create(place.path())?;
    let idle = idle(place.path(), &certificates, HOLM, &tell).await?;
    figures::measure(place.path(), &certificates, &[], &idle, &tell).await?;
    Ok(())
}

/// Measures the memory of a broker whose clients do nothing, and what one of them costs.
///
/// # Errors
/// The broker is not installed or fails.
pub async fn idle_memory(directory: &Path, kind: Kind, tell: impl Fn(&str)) -> Result<Figure> {
    let place = tempfile::Builder::new().prefix("run-").tempdir_in(directory)?;
    let certificates = Certificates::create(place.path())?;
    let rows = idle(place.path(), &certificates, kind, &tell).await?;
    Ok(figures::client_memory(&rows))
}

/// Memory without clients, with three, and with a thousand.
async fn idle(place: &Path, certificates: &Certificates, kind: Kind, tell: &impl Fn(&str)) -> Result<Vec<Idle>> {
    const CLIENTS: [usize; 3] = [0, 3, 1000];
    let directory = tempfile::tempdir_in(place)?;
    let broker = Broker::start(kind, directory.path(), certificates, 1000).await?;
    let mut links: Vec<Link> = Vec::new();
    let mut rows = Vec::new();
    for clients in CLIENTS {
        while links.len() < clients {
            let publisher = broker.publisher(links.len())?;
            links.push(client::connect(broker.target(), &publisher.login, WINDOW).await?);
        }
        tokio::time::sleep(SETTLE).await;
        let resident_kib = usage_of(&[broker.pid()])?.resident_kib;
        let proportional_kib = proportional_kib(broker.pid())?;
        let subject = Subject::Broker(kind);
        tell(&format!(
            "{:14} {clients:4} idle clients: {resident_kib} KiB, {proportional_kib} KiB of them its own",
            subject.name()
        ));
        rows.push(Idle {
            broker: subject.name().to_owned(),
            link: subject.link().to_owned(),
            clients,
            resident_kib,
            proportional_kib,
        });
    }
    Ok(rows)
}

/// One broker under one load.
#[derive(Clone, Copy, Debug)]
pub struct SingleLoad {
    /// Which broker.
    pub kind: Kind,
    /// Bytes of a payload.
    pub payload_bytes: usize,
    /// How many publish.
    pub clients: usize,
    /// How fast.
    pub pace: Pace,
    /// How long.
    pub duration: Duration,
}

/// Measures one broker under one load, in a directory where it keeps its data meanwhile.
///
/// # Errors
/// The broker is not installed or fails.
pub async fn single(directory: &Path, load: &SingleLoad) -> Result<load::Outcome> {
    let place = tempfile::Builder::new().prefix("run-").tempdir_in(directory)?;
    let certificates = Certificates::create(place.path())?;
    let broker = Broker::start(load.kind, &place.path().join("broker"), &certificates, load.clients).await?;
    let listener = broker.subscriber()?;
    let servers = vec![broker.pid()];
    load::run(&plan(&broker, listener, servers, load)?).await
}

/// The load on a broker that runs; a fifth of it to warm up.
fn plan(broker: &Broker, listener: ListenerPlan, servers: Vec<u32>, load: &SingleLoad) -> Result<Plan> {
    Ok(Plan {
        target: broker.target().clone(),
        publishers: (0..load.clients)
            .map(|number| broker.publisher(number))
            .collect::<Result<_>>()?,
        listeners: vec![listener],
        payload_bytes: load.payload_bytes,
        window: WINDOW,
        pace: load.pace,
        duration: load.duration,
        warm_up: load.duration / 5,
        patience: PATIENCE,
        servers,
    })
}

/// `2026-11-21 05:36 UTC`.
fn minute(time: Timestamp) -> String {
    let text: String = time.to_string().chars().take(16).collect();
    text.replace('T', " ") + " UTC"
}

fn notes() -> Result<Vec<BrokerNote>> {
    let products = [HOLM, MOSQUITTO, NATS, IN_MEMORY, RUMQTTD].map(|kind| kind.product);
    let note = |product: Product| {
        Ok(BrokerNote {
            name: product.name().to_owned(),
            version: product.version()?,
            promise: product.promise().to_owned(),
            settings: product.settings().to_owned(),
        })
    };
    let mut notes = products.into_iter().map(note).collect::<Result<Vec<_>>>()?;
    notes.push(BrokerNote {
        name: Subject::Upstream.name().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        promise:
            "as at the edge; delivery is at a reader of the hub's event log, after two commits and a second PUBACK"
                .to_owned(),
        settings: format!(
            "the edge below `holm hub run`; its CPU is that of both processes; at most {MAX_MODULES} clients, which is what a hub \
             gives one device"
        ),
    });
    Ok(notes)
}

/// A run under way.
struct Bench<'r, T> {
    settings: &'r Settings,
    certificates: Certificates,
    place: &'r Path,
    tell: &'r T,
}

impl<T: Fn(&str)> Bench<'_, T> {
    /// Every broker at every pace, with one payload and number of clients.
    async fn group(&self, payload_bytes: usize, clients: usize) -> Result<Vec<Row>> {
        let sync = sync_rate(self.place, payload_bytes, SYNC_DURATION)?;
        (self.tell)(&format!(
            "{payload_bytes} B, {clients} clients: {:.0} syncs/s of {:.0} µs CPU, load average {}",
            sync.per_second,
            sync.cpu_us,
            load_average()
        ));
        let mut rows = Vec::new();
        for mode in [Mode::Closed, Mode::Open] {
            for subject in self.settings.subjects() {
                let (name, link) = (subject.name(), subject.link());
                let clients = subject.clients(clients);
                let load_average = load_average();
                let outcome = self.measure(subject, payload_bytes, clients, mode).await;
                let outcome =
                    outcome.with_context(|| format!("{name} over {link}, {payload_bytes} B, {clients} clients"))?;
                let row = Row {
                    broker: name.to_owned(),
                    link: link.to_owned(),
                    payload_bytes,
                    clients,
                    mode,
                    sync,
                    load_average,
                    acknowledged_per_second: outcome.acknowledged_per_second(),
                    received_per_second: outcome.received_per_second(),
                    puback: Latency::of(&outcome.puback),
                    end_to_end: Latency::of(&outcome.end_to_end),
                    lateness: Latency::of(&outcome.lateness),
                    server_us_per_message: outcome.server_us_per_message(),
                    generator_us_per_message: outcome.generator_us_per_message(),
                    outcome,
                };
                (self.tell)(&crate::report::document::progress(&row));
                rows.push(row);
            }
        }
        Ok(rows)
    }

    async fn measure(
        &self,
        subject: Subject,
        payload_bytes: usize,
        clients: usize,
        mode: Mode,
    ) -> Result<load::Outcome> {
        let directory = tempfile::tempdir_in(self.place)?;
        let load = |kind| SingleLoad {
            kind,
            payload_bytes,
            clients,
            pace: match mode {
                Mode::Closed => Pace::Closed,
                Mode::Open => Pace::Open { per_second: PER_SECOND },
            },
            duration: self.settings.duration(),
        };
        match subject {
            Subject::Broker(kind) => {
                let broker = Broker::start(kind, directory.path(), &self.certificates, clients).await?;
                let listener = broker.subscriber()?;
                let servers = vec![broker.pid()];
                load::run(&plan(&broker, listener, servers, &load(kind))?).await
            }
            Subject::Upstream => {
                let hub = Hub::start(&directory.path().join("above")).await?;
                let edge = directory.path().join("edge");
                let broker = Broker::start_below(&hub, &edge, &self.certificates, clients).await?;
                let servers = vec![broker.pid(), hub.pid()];
                load::run(&plan(&broker, hub.events(), servers, &load(HOLM))?).await
            }
        }
    }

    /// Memory of the whole product on a device that has nothing to do.
    async fn idle_whole_edge(&self) -> Result<Idle> {
        const NAME: &str = "Holm edge, whole";
        let directory = tempfile::tempdir_in(self.place)?;
        let hub = Hub::start(&directory.path().join("above")).await?;
        let edge = WholeEdge::start(&hub, directory.path(), KEY).await?;
        tokio::time::sleep(SETTLE).await;
        let resident_kib = usage_of(&[edge.pid()])?.resident_kib;
        let proportional_kib = proportional_kib(edge.pid())?;
        edge.stop(&hub).await?;
        (self.tell)(&format!("{NAME:14}    3 modules: {resident_kib} KiB"));
        Ok(Idle {
            broker: NAME.to_owned(),
            link: "TLS".to_owned(),
            clients: 3,
            resident_kib,
            proportional_kib,
        })
    }

    async fn starts(&self, kind: Kind) -> Result<Start> {
        let mut milliseconds = Vec::new();
        for _ in 0..STARTS {
            let directory = tempfile::tempdir_in(self.place)?;
            let took = first_message(kind, directory.path(), &self.certificates).await?;
            milliseconds.push(took.as_secs_f64() * 1e3);
        }
        milliseconds.sort_by(f64::total_cmp);
        let subject = Subject::Broker(kind);
        (self.tell)(&format!(
            "{:14} start to first message: {milliseconds:.0?} ms",
            subject.name()
        ));
        Ok(Start {
            broker: subject.name().to_owned(),
            link: subject.link().to_owned(),
            milliseconds,
        })
    }
}

/// From the start of a process to its first message delivered.
async fn first_message(kind: Kind, directory: &Path, certificates: &Certificates) -> Result<Duration> {
    let (broker, mut listener) = Broker::start_with_listener(kind, directory, certificates, 1).await?;
    let ListenerPlan::Subscriber { filter, .. } = broker.subscriber()? else {
        bail!("a broker has a subscriber");
    };
    client::subscribe(&mut listener, &filter).await?;
    let publisher = broker.publisher(0)?;
    let mut link = client::connect(broker.target(), &publisher.login, WINDOW).await?;
    let message = Message {
        topic: Text::try_from(publisher.topic)?,
        payload: "first".into(),
        qos: Qos::AtLeastOnce,
        ..Message::default()
    };
    link.session_mut().publish(std::time::Instant::now(), &message)?;
    let delivered = async {
        loop {
            tokio::select! {
                event = listener.next_event() => match event {
                    Event::Publish { .. } => return Ok(broker.started().elapsed()),
                    Event::Closed(reason) => return Err(anyhow::Error::new(reason)),
                    _ => {}
                },
                event = link.next_event() => if let Event::Closed(reason) = event {
                    return Err(anyhow::Error::new(reason));
                },
            }
        }
    };
    tokio::time::timeout(FIRST_MESSAGE_DEADLINE, delivered)
        .await
        .context("the first message did not arrive in time")?
}
