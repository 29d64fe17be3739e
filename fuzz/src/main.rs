//! `cargo xtask fuzz [TARGET] [--for DURATION] [--seed N]`; `list` shows the targets, `run TARGET FILE…` gives it these inputs.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a development tool talks to the terminal"
)]

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use holm_fuzz::driver::{self, Plan};
use holm_fuzz::{TARGETS, Target};

/// How long each target runs when nothing is said.
const USUAL: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fuzz: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[String]) -> Result<bool> {
    match arguments.first().map(String::as_str) {
        Some("list") => {
            for target in TARGETS {
                println!("{:24} {}", target.name, target.about);
            }
            Ok(true)
        }
        Some("run") => {
            let [_, name, files @ ..] = arguments else {
                bail!("`run` needs a target and files");
            };
            let target = find(name)?;
            for file in files {
                (target.run)(&std::fs::read(file).with_context(|| format!("`{file}` can't be read"))?);
                println!("{file}: nothing found");
            }
            Ok(true)
        }
        Some(driver::WORKER) => driver::work(arguments.get(1..).unwrap_or_default()).map(|()| true),
        _ => campaign(arguments),
    }
}

fn campaign(arguments: &[String]) -> Result<bool> {
    let mut chosen = None;
    let mut time = USUAL;
    let mut seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |since| since.as_secs());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().with_context(|| format!("`{argument}` needs a value"));
        match argument.as_str() {
            "--for" => time = duration(value()?)?,
            "--seed" => seed = value()?.parse().context("`--seed` needs a number")?,
            name => chosen = Some(find(name)?),
        }
    }
    let targets: Vec<&Target> = TARGETS
        .iter()
        .filter(|it| chosen.is_none_or(|name| name.name == it.name))
        .collect();
    let mut clean = true;
    for target in targets {
        let plan = Plan { seed, time };
        match driver::drive(target, plan)? {
            driver::Verdict::Clean { inputs } => {
                println!("{:24} {inputs:>10} inputs, nothing found (seed {seed})", target.name);
            }
            driver::Verdict::Found(finding) => {
                clean = false;
                println!("{:24} FOUND (seed {seed}): {finding}", target.name);
            }
        }
    }
    Ok(clean)
}

fn find(name: &str) -> Result<&'static Target> {
    let target = TARGETS.iter().find(|target| target.name == name);
    target.with_context(|| format!("there is no target `{name}`; `list` shows them"))
}

/// `90s`, `10m`, `2h`.
fn duration(text: &str) -> Result<Duration> {
    let (digits, unit) = text.split_at(text.len().saturating_sub(1));
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => bail!("`{text}` is not a duration; write `90s`, `10m` or `2h`"),
    };
    let number: u64 = digits
        .parse()
        .with_context(|| format!("`{text}` is not a duration; write `90s`, `10m` or `2h`"))?;
    Ok(Duration::from_secs(number * factor))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("2h").unwrap(), Duration::from_secs(7200));
        assert!(duration("90").is_err() && duration("").is_err() && duration("ms").is_err());
    }

    #[test]
    fn every_target_has_a_seed() {
        for target in TARGETS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target.name);
            assert!(folder.is_dir(), "`{}` is missing", folder.display());
        }
    }
}
