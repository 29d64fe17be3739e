//! `cargo xtask soak offline-days [--days N] [--seed N] [--uplink mqtt|amqp]`, and the other simulations; `list` shows them.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a development tool talks to the terminal"
)]

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use holm_client::Transport;
use holm_sim::story::{self, Plan, Trouble};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// A simulation.
#[derive(Clone, Copy, Debug)]
struct Simulation {
    name: &'static str,
    about: &'static str,
    trouble: Trouble,
    usual_days: u32,
}

const ALL: &[Simulation] = &[
    Simulation {
        name: "offline-days",
        about: "90 simulated days without the hub, with restarts of everything: nothing is lost, twins are equal",
        trouble: Trouble::Offline,
        usual_days: 90,
    },
    Simulation {
        name: "storms",
        about: "7 simulated days with a link that changes all the time, and restarts of everything: the same holds",
        trouble: Trouble::Storms,
        usual_days: 7,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|it| it == "list") {
        for simulation in ALL {
            println!(
                "{:12} {} (--days {})",
                simulation.name, simulation.about, simulation.usual_days
            );
        }
        return ExitCode::SUCCESS;
    }
    if let Err(error) = log() {
        eprintln!("soak: {error:#}");
        return ExitCode::from(2);
    }
    match parse(&arguments) {
        Ok((simulation, plan)) => run(simulation, plan),
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Logs errors, or what `RUST_LOG` asks for.
fn log() -> Result<()> {
    let filter: Targets = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => text
            .parse()
            .with_context(|| format!("`RUST_LOG={text}` is no log filter; give `info`, say"))?,
        _ => Targets::new().with_default(LevelFilter::ERROR),
    };
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(std::io::stderr)
        .finish()
        .with(filter)
        .try_init()
        .context("logging can't be started")
}

fn run(simulation: &Simulation, plan: Plan) -> ExitCode {
    let name = simulation.name;
    let (seed, days, uplink) = (plan.seed, plan.time.as_secs() / 86_400, plan.uplink.name());
    println!("{name}: {}", simulation.about);
    println!(
        "seed {seed}, {days} days, uplink {uplink}, load average {}",
        load_average()
    );
    let began = Instant::now();
    let outcome = catch_unwind(|| story::run(plan));
    println!(
        "took {:.1} s, load average {}, memory at most {} KiB",
        began.elapsed().as_secs_f64(),
        load_average(),
        most_memory()
    );
    match outcome {
        Ok(lines) => {
            lines.iter().for_each(|line| println!("{line}"));
            println!("{name}: held");
            ExitCode::SUCCESS
        }
        Err(_) => {
            let again = format!("cargo xtask soak {name} --days {days} --seed {seed} --uplink {uplink}");
            println!("{name}: FAILED; again with `{again}`");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Result<(&'static Simulation, Plan)> {
    let (name, rest) = arguments
        .split_first()
        .context("a name is missing; `list` shows them")?;
    let simulation = ALL.iter().find(|simulation| simulation.name == name);
    let simulation = simulation.with_context(|| format!("there is no simulation `{name}`; `list` shows them"))?;
    let mut seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |since| since.as_secs());
    let (mut days, mut uplink) = (simulation.usual_days, Transport::Mqtt);
    let mut rest = rest.iter();
    while let Some(argument) = rest.next() {
        let value = rest.next().with_context(|| format!("`{argument}` needs a value"))?;
        match argument.as_str() {
            "--days" => days = value.parse().context("`--days` needs a number")?,
            "--seed" => seed = value.parse().context("`--seed` needs a number")?,
            "--uplink" => uplink = transport(value)?,
            other => bail!("`{other}` is no option; there are `--days`, `--seed` and `--uplink`"),
        }
    }
    Ok((simulation, Plan::days(simulation.trouble, seed, days).over(uplink)))
}

/// What memory's network carries.
fn transport(name: &str) -> Result<Transport> {
    let transport = name
        .parse()
        .ok()
        .filter(|it| matches!(it, Transport::Mqtt | Transport::Amqp));
    transport.with_context(|| format!("`--uplink {name}` is not simulated; there are `mqtt` and `amqp`"))
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

fn most_memory() -> String {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or_else(String::new, |text| text.trim().trim_end_matches(" kB").to_owned())
}
