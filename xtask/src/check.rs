//! `cargo xtask check`: everything that can be said about the code without running it.

use anyhow::{Result, bail};

use crate::arrows;
use crate::run::{cargo, output, run};
use crate::stage::Stages;

/// The parts of the product that are also built alone: features of the crate `holm`.
const PARTS: &[&str] = &["hub", "edge"];

pub(crate) fn check() -> Result<()> {
    need_components()?;
    let mut stages = Stages::new();
    stages.run("format", || run(&mut cargo(["fmt", "--all", "--check"])))?;
    stages.run("arrows between crates", check_arrows)?;
    stages.run("lints", || {
        run(&mut cargo([
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    for part in parts()? {
        stages.run(&format!("lints, {part} alone"), || {
            run(&mut cargo([
                "clippy",
                "-p",
                "holm",
                "--no-default-features",
                "--features",
                part,
                "--",
                "-D",
                "warnings",
            ]))
        })?;
    }
    stages.run("documentation", || {
        run(cargo(["doc", "--workspace", "--no-deps", "--all-features", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings"))
    })
}

fn need_components() -> Result<()> {
    for component in ["fmt", "clippy"] {
        if output(&mut cargo([component, "--version"])).is_err() {
            bail!("`cargo {component}` is missing; add it with `rustup component add rustfmt clippy`");
        }
    }
    Ok(())
}

fn check_arrows() -> Result<()> {
    let broken = arrows::broken()?;
    if broken.is_empty() {
        return Ok(());
    }
    bail!("ARCHITECTURE.md and the crates disagree:\n  {}", broken.join("\n  "))
}

/// Those of [`PARTS`] that the crate `holm` has by now.
fn parts() -> Result<Vec<&'static str>> {
    let metadata = arrows::metadata(&["--no-deps"])?;
    let packages = metadata
        .get("packages")
        .and_then(|it| it.as_array())
        .cloned()
        .unwrap_or_default();
    let holm = packages
        .iter()
        .find(|it| it.get("name").is_some_and(|name| name == "holm"));
    let has = |part: &str| {
        holm.and_then(|it| it.get("features"))
            .and_then(|it| it.get(part))
            .is_some()
    };
    Ok(PARTS.iter().copied().filter(|part| has(part)).collect())
}
