//! `cargo xtask soak NAME [--for DURATION] [--seed N] [--rate MESSAGES]`; `list` shows the scenarios.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a development tool talks to the terminal"
)]

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use holm_e2e::soak::{self, Plan, SCENARIOS, Scenario};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|it| it == "list") {
        for scenario in SCENARIOS {
            println!(
                "{:12} {} ({} s)",
                scenario.name,
                scenario.about,
                scenario.usual.as_secs()
            );
        }
        return ExitCode::SUCCESS;
    }
    match parse(&arguments) {
        Ok((scenario, plan)) => run(scenario, plan),
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(scenario: &Scenario, plan: Plan) -> ExitCode {
    println!("{}: {}", scenario.name, scenario.about);
    println!(
        "seed {}, for {} s, load average {}",
        plan.seed,
        plan.time.as_secs(),
        load_average()
    );
    let began = Instant::now();
    let outcome = catch_unwind(|| (scenario.run)(plan));
    println!(
        "took {:.1} s, load average {}",
        began.elapsed().as_secs_f64(),
        load_average()
    );
    match outcome {
        Ok(lines) => {
            lines.iter().for_each(|line| println!("{line}"));
            println!("{}: held", scenario.name);
            ExitCode::SUCCESS
        }
        Err(_) => {
            let again = format!(
                "cargo xtask soak {} --for {}s --seed {}",
                scenario.name,
                plan.time.as_secs(),
                plan.seed
            );
            println!("{}: FAILED; again with `{again}`", scenario.name);
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Result<(&'static Scenario, Plan)> {
    let (name, rest) = arguments
        .split_first()
        .context("a name is missing; `list` shows them")?;
    let scenario = soak::scenario(name).with_context(|| format!("there is no scenario `{name}`; `list` shows them"))?;
    let seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |since| since.as_secs());
    let mut plan = Plan {
        seed,
        time: scenario.usual,
        rate: soak::RATE,
    };
    let mut rest = rest.iter();
    while let Some(argument) = rest.next() {
        let value = rest.next().with_context(|| format!("`{argument}` needs a value"))?;
        match argument.as_str() {
            "--for" => plan.time = duration(value)?,
            "--seed" => plan.seed = value.parse().context("`--seed` needs a number")?,
            "--rate" => plan.rate = value.parse().context("`--rate` needs a number")?,
            other => bail!("`{other}` is no option; there are `--for`, `--seed` and `--rate`"),
        }
    }
    Ok((scenario, plan))
}

/// `90s`, `10m`, `2h`.
fn duration(text: &str) -> Result<Duration> {
    let wrong = || format!("`{text}` is not a duration; write `90s`, `10m` or `2h`");
    let factor = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        _ => bail!(wrong()),
    };
    let number: u64 = text.trim_end_matches(char::is_alphabetic).parse().with_context(wrong)?;
    Ok(Duration::from_secs(number * factor))
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}
