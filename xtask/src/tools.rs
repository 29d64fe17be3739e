//! Measurements and long runs: they live in packages of their own; here they are only started.

use std::path::Path;

use anyhow::Result;

use crate::device;
use crate::engine::Engine;
use crate::run::{cargo, load_average, run};
use crate::setup;
use crate::test::{build_holm, build_next};

pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    setup::setup()?;
    let _engine = Engine::ensure()?;
    let holm = build_holm(true)?;
    let device = device::build(None)?;
    install_rumqttd()?;
    eprintln!("load average {}", load_average());
    run(cargo(["run", "--release", "-p", "holm-bench", "--", "run"])
        .args(arguments)
        .env("HOLM_BIN", holm)
        .env("HOLM_DEVICE_BIN", device))
}

/// The peer without a disk, for the benchmarks alone. Not with its own lock file: that names a crate which this compiler refuses.
fn install_rumqttd() -> Result<()> {
    let root = Path::new("target/peers/rumqttd");
    if root.join("bin/rumqttd").is_file() {
        return Ok(());
    }
    run(cargo(["install", "rumqttd", "--version", "0.20.0", "--root"]).arg(root))
}

/// The long run that changes from one build of the program to another.
const UPGRADES: &str = "upgrade";

/// The long runs in virtual time, of the package `holm-sim`: they need no peer. The others are of `holm-e2e`.
const SIMULATIONS: [&str; 2] = ["offline-days", "storms"];

pub(crate) fn soak(arguments: &[String]) -> Result<()> {
    let simulate = || run(cargo(["run", "--release", "-p", "holm-sim", "--"]).args(arguments));
    if arguments
        .first()
        .is_some_and(|name| SIMULATIONS.contains(&name.as_str()))
    {
        return simulate();
    }
    let mut command = cargo(["run", "--release", "-p", "holm-e2e", "--bin", "soak", "--"]);
    command.args(arguments);
    if arguments.iter().any(|it| it == "list") {
        run(&mut command)?;
        return simulate();
    }
    setup::setup()?;
    let _engine = Engine::ensure()?;
    if arguments.first().is_some_and(|name| name == UPGRADES) {
        command.env("HOLM_NEXT_BIN", build_next(true)?);
    }
    run(command.env("HOLM_BIN", build_holm(true)?))
}

/// In a build with checks of overflow and of debug assertions: these are what random input shall trip over.
pub(crate) fn fuzz(arguments: &[String]) -> Result<()> {
    run(cargo(["run", "--quiet", "-p", "holm-fuzz", "--"]).args(arguments))
}
