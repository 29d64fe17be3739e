//! `cargo xtask test` and `e2e`: prepare what the tests need, then run them.
//!
//! The tests of the workspace come first, because they are quick and say most precisely what is wrong; the package `holm-e2e`,
//! which drives the product from outside with real peers, comes last. Peers are required here: a test that would skip for want
//! of one fails instead.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::engine::Engine;
use crate::run::{cargo, find, load_average, output, root, run};
use crate::setup;
use crate::stage::Stages;

pub(crate) fn test(filter: Option<&str>) -> Result<()> {
    let mut stages = Stages::new();
    eprintln!("load average {}", load_average());
    stages.run("peers", setup::prepare)?;
    stages.run("build", || {
        run(&mut cargo(["test", "--workspace", "--no-run"]))?;
        build_holm(false).map(drop)
    })?;
    stages.run("tests of the crates", || run(&mut crate_tests(filter)))?;
    stages.run("examples in the documentation", || match filter {
        None => run(&mut cargo(["test", "--workspace", "--doc"])),
        Some(_) => Ok(()),
    })?;
    let engine = stages.run("container engine", Engine::ensure)?;
    let outcome = stages.run("tests with real peers", || run_e2e(filter));
    engine.stop();
    outcome
}

pub(crate) fn e2e(name: Option<&str>) -> Result<()> {
    let mut stages = Stages::new();
    stages.run("peers", setup::prepare)?;
    let engine = stages.run("container engine", Engine::ensure)?;
    let outcome = stages.run("tests with real peers", || run_e2e(name));
    engine.stop();
    outcome
}

/// nextest where it is installed (it runs tests of different crates side by side), else what comes with cargo.
fn crate_tests(filter: Option<&str>) -> Command {
    let mut command = if find("cargo-nextest").is_some() {
        cargo(["nextest", "run", "--no-tests", "pass"])
    } else {
        cargo(["test", "--lib", "--bins", "--tests", "--examples"])
    };
    command.args(["--workspace", "--exclude", "holm-e2e"]).args(filter);
    command
}

fn run_e2e(filter: Option<&str>) -> Result<()> {
    let holm = build_holm(false)?;
    let mut command = cargo(["test", "-p", "holm-e2e", "--lib", "--tests", "--no-fail-fast"]);
    run(command
        .args(filter)
        .env("HOLM_BIN", holm)
        .env("HOLM_E2E_PEERS", "required"))
}

/// Builds the binary `holm` and returns its path.
///
/// # Errors
/// When it does not build.
pub(crate) fn build_holm(release: bool) -> Result<PathBuf> {
    run(cargo(["build", "-p", "holm"]).args(release.then_some("--release")))?;
    let metadata = output(&mut cargo(["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: serde_json::Value =
        serde_json::from_str(&metadata).context("`cargo metadata` did not answer with JSON")?;
    let target = metadata["target_directory"]
        .as_str()
        .map_or_else(|| root().join("target"), PathBuf::from);
    Ok(target.join(if release { "release/holm" } else { "debug/holm" }))
}
