//! `cargo xtask device`: the program that a device gets, and whether it is as small as was promised.
//!
//! It is `holm` without the hub, built by the profile `device` of the root `Cargo.toml`: for size, except for crates that every
//! message passes through. `docs/decisions/0012-a-smaller-program-for-devices.md` has what each step saved and what it costs.
//!
//! Not part of CI: the whole program is optimised at once, which takes minutes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::run::{cargo, run};
use crate::test::built;

/// What a device gets has at most so many bytes, stripped: flash of 32 MiB holds it twice, for an upgrade and the way back.
const LIMIT: u64 = 10 << 20;

/// Builds it, says where it is and how large.
///
/// # Errors
/// When it does not build, or is larger than [`LIMIT`].
pub(crate) fn device(target: Option<&str>) -> Result<()> {
    let holm = build(target)?;
    let bytes = size(&holm)?;
    eprintln!("{}: {}", holm.display(), mib(bytes));
    if bytes > LIMIT {
        bail!(
            "it has {}, and {} are promised; `nm --size-sort -C` tells what grew, if it is built with \
             `CARGO_PROFILE_DEVICE_STRIP=none`",
            mib(bytes),
            mib(LIMIT)
        );
    }
    Ok(())
}

/// Builds it, for this machine or for `target` (a triple of Rust's), and returns its path.
///
/// # Errors
/// When it does not build.
pub(crate) fn build(target: Option<&str>) -> Result<PathBuf> {
    let part = ["--no-default-features", "--features", "edge"];
    let mut command = cargo(["build", "--profile", "device", "-p", "holm"]);
    command.args(part);
    if let Some(target) = target {
        command.args(["--target", target]);
    }
    run(&mut command)?;
    built(&Path::new(target.unwrap_or_default()).join("device/holm"))
}

fn size(file: &Path) -> Result<u64> {
    let file = std::fs::metadata(file).with_context(|| format!("`{}` can't be looked at", file.display()))?;
    Ok(file.len())
}

/// To a tenth, rounded up: a limit is not kept by rounding.
fn mib(bytes: u64) -> String {
    let tenths = (bytes * 10).div_ceil(1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_over_the_limit_is_seen_in_the_figure() {
        assert_eq!(mib(LIMIT), "10.0 MiB");
        assert_eq!(mib(LIMIT + 1), "10.1 MiB");
    }
}
