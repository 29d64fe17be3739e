//! `holm-bench`: the benchmarks, the generator by itself, and the edge that is measured.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a development tool talks to the terminal"
)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use holm_bench::bench::{self, Settings, SingleLoad};
use holm_bench::brokers::{Kind, Product};
use holm_bench::client::{Login, Target};
use holm_bench::edge_server::{self, EdgeSettings};
use holm_bench::hub_load;
use holm_bench::load::{self, ListenerPlan, Outcome, Plan, PublisherPlan};
use holm_bench::report::{Latency, document::document};
use holm_bench::schedule::Pace;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::runtime::Builder;

/// Load for MQTT brokers, and benchmarks of Holm beside other brokers.
#[derive(Debug, Parser)]
#[command(name = "holm-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure Holm, mosquitto and NATS JetStream; `cargo xtask bench` calls this.
    Run {
        /// One payload, few clients, short loads: to see that it works.
        #[arg(long)]
        quick: bool,
        /// Where brokers keep their data: the disk that is measured.
        #[arg(long, value_name = "DIR", default_value = "target/bench")]
        directory: PathBuf,
        /// Where the page of results goes.
        #[arg(long, value_name = "FILE", default_value = "docs/benchmarks.md")]
        page: PathBuf,
    },
    /// Measure one broker under one load, and print what came of it.
    Row {
        /// `edge`, `edge-memory`, `mosquitto`, `nats` or `rumqttd`.
        #[arg(value_name = "BROKER", value_parser = named)]
        product: Product,
        /// Plain TCP; the edge has TLS only.
        #[arg(long)]
        plain: bool,
        /// How many publish.
        #[arg(long, default_value_t = 100)]
        clients: usize,
        /// Messages a second of all together; without it, as fast as it goes.
        #[arg(long)]
        per_second: Option<u32>,
        /// Bytes of a message.
        #[arg(long, default_value_t = 256)]
        bytes: usize,
        /// Seconds of load.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        /// Where the broker keeps its data.
        #[arg(long, value_name = "DIR", default_value = "target/bench")]
        directory: PathBuf,
    },
    /// Measure the memory of one broker whose clients do nothing, with none and with up to a thousand.
    Idle {
        /// `edge`, `edge-memory`, `mosquitto`, `nats` or `rumqttd`.
        #[arg(value_name = "BROKER", value_parser = named)]
        product: Product,
        /// Plain TCP; the edge has TLS only.
        #[arg(long)]
        plain: bool,
        /// Where the broker keeps its data.
        #[arg(long, value_name = "DIR", default_value = "target/bench")]
        directory: PathBuf,
    },
    /// Measure single figures of the edge: queue, drain, memory, start, container. Those of loads come with `run`.
    Figures {
        /// Where brokers keep their data: the disk that is measured.
        #[arg(long, value_name = "DIR", default_value = "target/bench")]
        directory: PathBuf,
    },
    /// Measure a hub: telemetry, methods, memory of idle devices, over MQTT and AMQP.
    Hub {
        /// Devices that send.
        #[arg(long, default_value_t = 1000)]
        senders: usize,
        /// Seconds for which they do.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Devices that do nothing.
        #[arg(long, default_value_t = 10_000)]
        idle: usize,
        /// Method calls.
        #[arg(long, default_value_t = 1000)]
        calls: usize,
        /// Where the hub keeps its data: the disk that is measured.
        #[arg(long, value_name = "DIR", default_value = "target/bench")]
        directory: PathBuf,
    },
    /// Put load on a broker that runs, anonymously and without TLS.
    Load {
        /// Its address.
        #[arg(value_name = "ADDR:PORT")]
        address: SocketAddr,
        /// How many publish.
        #[arg(long, default_value_t = 1)]
        clients: u32,
        /// Messages a second of all together; without it, as fast as it goes.
        #[arg(long)]
        per_second: Option<u32>,
        /// Bytes of a message.
        #[arg(long, default_value_t = 256)]
        bytes: usize,
        /// Unacknowledged messages of a publisher.
        #[arg(long, default_value_t = 16)]
        window: u16,
        /// Seconds of load.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// The broker's process, for its CPU and memory.
        #[arg(long)]
        pid: Vec<u32>,
    },
    /// Be the edge that is measured.
    #[command(hide = true)]
    ServeEdge {
        /// A file that `run` wrote.
        settings: PathBuf,
    },
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holm-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<()> {
    allow_many_files()?;
    match command {
        Command::Run { quick, directory, page } => generator(run(quick, &directory, &page)),
        Command::Row {
            product,
            plain,
            clients,
            per_second,
            bytes,
            seconds,
            directory,
        } => {
            std::fs::create_dir_all(&directory)?;
            let load = SingleLoad {
                kind: Kind { product, tls: !plain },
                payload_bytes: bytes,
                clients,
                pace: pace(per_second),
                duration: Duration::from_secs(seconds),
            };
            generator(async move { print(&bench::single(&directory.canonicalize()?, &load).await?) })
        }
        Command::Idle {
            product,
            plain,
            directory,
        } => {
            std::fs::create_dir_all(&directory)?;
            let kind = Kind { product, tls: !plain };
            generator(async move {
                let figure = bench::idle_memory(&directory.canonicalize()?, kind, |line| eprintln!("  {line}")).await?;
                println!("{}: {}", figure.name, figure.value);
                Ok(())
            })
        }
        Command::Figures { directory } => {
            std::fs::create_dir_all(&directory)?;
            generator(async move { bench::figures(&directory.canonicalize()?, |line| eprintln!("  {line}")).await })
        }
        Command::Hub {
            senders,
            seconds,
            idle,
            calls,
            directory,
        } => {
            std::fs::create_dir_all(&directory)?;
            let size = hub_load::Size {
                senders,
                duration: Duration::from_secs(seconds),
                idle,
                calls,
            };
            generator(async move {
                let tell = |figure: &holm_bench::figures::Figure| {
                    println!(
                        "{}: {} ({})\n    {}",
                        figure.name, figure.value, figure.limit, figure.how
                    );
                };
                hub_load::run(&directory.canonicalize()?, size, tell).await.map(drop)
            })
        }
        Command::Load {
            address,
            clients,
            per_second,
            bytes,
            window,
            seconds,
            pid,
        } => {
            let target = Target { address, tls: None };
            let publisher = |number: u32| PublisherPlan {
                login: Login::anonymous(format!("publisher-{number}")),
                topic: format!("bench/{number}"),
            };
            let plan = Plan {
                publishers: (0..clients).map(publisher).collect(),
                listeners: vec![ListenerPlan::Subscriber {
                    target: target.clone(),
                    login: Login::anonymous("listener"),
                    filter: "bench/#".to_owned(),
                }],
                target,
                payload_bytes: bytes,
                window,
                pace: pace(per_second),
                duration: Duration::from_secs(seconds),
                warm_up: Duration::ZERO,
                patience: Duration::from_secs(10),
                servers: pid,
            };
            generator(async move { print(&load::run(&plan).await?) })
        }
        Command::ServeEdge { settings } => serve_edge(&settings),
    }
}

/// The generator has one thread; the rest of the machine is the brokers'. Ctrl-C ends it, and with it what it started.
fn generator(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            done = work => done,
            stopped = tokio::signal::ctrl_c() => stopped.context("interrupted"),
        }
    })
}

async fn run(quick: bool, directory: &Path, page: &Path) -> Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("`{}` can't be made", directory.display()))?;
    let settings = Settings {
        quick,
        directory: directory.canonicalize()?,
        command: if quick {
            "cargo xtask bench --quick"
        } else {
            "cargo xtask bench"
        }
        .to_owned(),
    };
    let report = bench::run(&settings, |line| eprintln!("  {line}")).await?;
    let text = document(&report);
    println!("{text}");
    write(page, &text)?;
    let json = serde_json::to_string_pretty(&report)? + "\n";
    write(&directory.join("results.json"), &json)
}

fn pace(per_second: Option<u32>) -> Pace {
    per_second.map_or(Pace::Closed, |per_second| Pace::Open { per_second })
}

/// The broker of a name on the command line.
fn named(name: &str) -> Result<Product> {
    match name {
        "edge" => Ok(Product::HolmEdge),
        "edge-memory" => Ok(Product::HolmEdgeMemory),
        "rumqttd" => Ok(Product::Rumqttd),
        "mosquitto" => Ok(Product::Mosquitto),
        "nats" => Ok(Product::Nats),
        _ => bail!("there is no broker `{name}`; give edge, edge-memory, mosquitto, nats or rumqttd"),
    }
}

fn print(outcome: &Outcome) -> Result<()> {
    let shown = serde_json::json!({
        "outcome": outcome,
        "acknowledgedPerSecond": outcome.acknowledged_per_second(),
        "receivedPerSecond": outcome.received_per_second(),
        "puback": Latency::of(&outcome.puback),
        "endToEnd": Latency::of(&outcome.end_to_end),
        "lateness": Latency::of(&outcome.lateness),
        "serverUsPerMessage": outcome.server_us_per_message(),
        "generatorUsPerMessage": outcome.generator_us_per_message(),
    });
    println!("{shown:#}");
    Ok(())
}

fn serve_edge(path: &Path) -> Result<()> {
    let text = std::fs::read(path).with_context(|| format!("`{}` can't be read", path.display()))?;
    let settings: EdgeSettings = serde_json::from_slice(&text).context("the settings of the edge")?;
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::ERROR)
        .with_writer(std::io::stderr)
        .init();
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(edge_server::serve(&settings, || println!("ready")))
}

/// A thousand clients need more files than many shells allow.
fn allow_many_files() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("the limit of open files can't be raised")
}

fn write(path: &Path, content: &str) -> Result<()> {
    std::fs::write(path, content).with_context(|| format!("`{}` can't be written", path.display()))
}
