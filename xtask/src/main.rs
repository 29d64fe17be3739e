//! The one entry for all work on Holm, the same on a laptop and in CI: `cargo xtask …`.
//!
//! ```text
//! check ─ format, lints, arrows between crates, documentation     no network, no root
//! test ── setup, then every test there is                         what CI runs
//! setup ─ the real peers: SDKs, broker, container engine          idempotent; says what it does
//! e2e ─── the tests against real peers alone
//! device ─ the program that a device gets
//! bench, soak, fuzz ─ measurements and long runs
//! ```
//!
//! Each command is a few *stages*; a stage prints its name when it begins and the time it took when it ends, and the first
//! that fails ends the run with its exit code. Nothing outside `target/` and `tests/node/node_modules/` is written,
//! except for the system packages that `setup` names before it installs them.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a development tool talks to the terminal"
)]

mod again;
mod arrows;
mod check;
mod device;
mod engine;
mod run;
mod setup;
mod stage;
mod test;
mod tools;

use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "\
Work on Holm. Usage: cargo xtask COMMAND [ARGUMENTS]

  check                        format, lints, arrows between crates, documentation
  test [--filter NAME]         prepare the peers, then run every test (NAME: only tests whose name contains it)
  setup                        prepare the peers alone: SDKs, broker, container engine
  e2e [NAME]                   the tests against real peers (NAME: only those whose name contains it)
  device [--target TRIPLE]     the program that a device gets: small, without the hub
  bench [--quick]              benchmarks beside other brokers; writes docs/benchmarks.md
  soak NAME [--for DURATION] [--seed N]
                               a long run by name (`soak list` shows them); DURATION as in 90s, 10m, 2h; those in virtual
                               time take `--days N` instead, and `--uplink amqp`
  fuzz [TARGET] [--for DURATION] [--seed N]
                               random input for one parser, or for each in turn (`fuzz list` shows them)

Exit code: 0 all well, 1 a stage failed, 2 the command line is wrong.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((command, rest)) = arguments.split_first() else {
        eprintln!("{HELP}");
        return ExitCode::from(2);
    };
    match dispatch(command, rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Usage>() => {
            eprintln!("xtask: {error}\n\n{HELP}");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: &str, rest: &[String]) -> Result<()> {
    match (command, rest) {
        ("check", []) => check::check(),
        ("test", []) => test::test(None),
        ("test", [flag, filter]) if flag == "--filter" => test::test(Some(filter)),
        ("setup", []) => setup::setup(),
        ("e2e", []) => test::e2e(None),
        ("e2e", [name]) if !name.starts_with('-') => test::e2e(Some(name)),
        ("device", []) => device::device(None),
        ("device", [flag, target]) if flag == "--target" => device::device(Some(target)),
        ("bench", arguments) => tools::bench(arguments),
        ("soak", [_, ..]) => tools::soak(rest),
        ("fuzz", arguments) => tools::fuzz(arguments),
        ("help" | "--help" | "-h", _) => {
            println!("{HELP}");
            Ok(())
        }
        _ => bail!(Usage(format!("`{command} {}` is not a command", rest.join(" ")))),
    }
}

/// The command line is wrong; shown with the help.
#[derive(Debug)]
struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.trim_end())
    }
}

impl std::error::Error for Usage {}
