//! `cargo xtask test` and `e2e`: prepare what the tests need, then run them.
//!
//! The tests of the workspace come first, because they are quick and say most precisely what is wrong; the package `holm-e2e`,
//! which drives the product from outside with real peers, comes last. Peers are required here: a test that would skip for want
//! of one fails instead.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::run::{cargo, find, load_average, output, root, run};
use crate::setup;
use crate::stage::Stages;

pub(crate) fn test(filter: Option<&str>) -> Result<()> {
    let mut stages = Stages::new();
    eprintln!("load average {}", load_average());
    let engine = stages.run("peers", setup::prepare)?;
    stages.run("build", || {
        run(&mut cargo(["test", "--workspace", "--no-run"]))?;
        build_holm(false).map(drop)
    })?;
    // A failure does not hide what comes after it: one run tells all that is wrong.
    let crates = stages.run_tests("tests of the crates", crate_tests(filter));
    let peers = with_peers(&mut stages, filter);
    engine.stop();
    crates.and(peers)
}

pub(crate) fn e2e(name: Option<&str>) -> Result<()> {
    let mut stages = Stages::new();
    let engine = stages.run("peers", setup::prepare)?;
    let outcome = with_peers(&mut stages, name);
    engine.stop();
    outcome
}

fn with_peers(stages: &mut Stages, filter: Option<&str>) -> Result<()> {
    let next = build_next(false)?;
    let holm = build_holm(false)?;
    let mut command = cargo(["test", "-p", "holm-e2e", "--lib", "--tests", "--no-fail-fast"]);
    command
        .args(filter)
        .env("HOLM_BIN", holm)
        .env("HOLM_NEXT_BIN", next)
        .env("HOLM_E2E_PEERS", "required");
    stages.run_tests("tests with real peers", vec![command])
}

/// nextest where it is installed (it runs tests of different crates side by side), else what comes with cargo; and the examples
/// in the documentation.
fn crate_tests(filter: Option<&str>) -> Vec<Command> {
    let mut unit = if find("cargo-nextest").is_some() {
        cargo(["nextest", "run", "--no-fail-fast", "--no-tests", "pass"])
    } else {
        cargo(["test", "--no-fail-fast", "--lib", "--bins", "--tests", "--examples"])
    };
    unit.args(["--workspace", "--exclude", "holm-e2e"]).args(filter);
    // What only these features build; the lints build it with everything else.
    let mut otel = cargo([
        "test",
        "--no-fail-fast",
        "-p",
        "holm-edge",
        "--features",
        "otel",
        "--lib",
    ]);
    otel.arg(filter.unwrap_or("otel"));
    let mut hub = cargo([
        "test",
        "--no-fail-fast",
        "-p",
        "holm-hub",
        "--features",
        "s3,parquet",
        "--test",
        "hub",
        "--",
    ]);
    hub.args(filter.map_or_else(|| vec!["bucket", "parquet"], |filter| vec![filter]));
    let examples = filter.is_none().then(|| cargo(["test", "--workspace", "--doc"]));
    [unit, otel, hub].into_iter().chain(examples).collect()
}

/// Builds the binary `holm` as another build of the same release, for tests that replace one by the other; returns its path,
/// which is beside the usual one. Only the last crate is built anew for it.
///
/// # Errors
/// When it does not build.
pub(crate) fn build_next(release: bool) -> Result<PathBuf> {
    run(cargo(["build", "-p", "holm"])
        .args(release.then_some("--release"))
        .env("HOLM_BUILD", "next"))?;
    let built = holm(release)?;
    let next = built.with_file_name("holm-next");
    std::fs::copy(&built, &next).with_context(|| format!("`{}` can't be written", next.display()))?;
    Ok(next)
}

/// Builds the binary `holm` and returns its path.
///
/// # Errors
/// When it does not build.
pub(crate) fn build_holm(release: bool) -> Result<PathBuf> {
    run(cargo(["build", "-p", "holm"]).args(release.then_some("--release")))?;
    holm(release)
}

fn holm(release: bool) -> Result<PathBuf> {
    built(Path::new(if release { "release/holm" } else { "debug/holm" }))
}

/// Where cargo puts what it has built: a path below its target directory, made absolute.
///
/// # Errors
/// When cargo does not tell.
pub(crate) fn built(path: &Path) -> Result<PathBuf> {
    let metadata = output(&mut cargo(["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: serde_json::Value =
        serde_json::from_str(&metadata).context("`cargo metadata` did not answer with JSON")?;
    let target = metadata["target_directory"]
        .as_str()
        .map_or_else(|| root().join("target"), PathBuf::from);
    Ok(target.join(path))
}
