//! A second chance for tests that failed, alone, and a line that says so.
//!
//! ```text
//! cargo test … ── all passed ───────────────────────────────► well
//!              ── `a`, `b` failed ── cargo test … a b alone ─► well, and FLAKY `a`, FLAKY `b` in the last lines
//!                                                           └► failed
//!              ── many failed, or a process died ────────────► failed
//! ```
//!
//! Hundreds of tests with servers, containers and clocks of their own share the processors with others. One that fails once in a thousand
//! runs is an error to be found, and no reason to refuse a change that has nothing to do with it. nextest does the same by
//! itself (`.config/nextest.toml`); this is for cargo's own runner.

use std::process::Command;

use anyhow::{Result, bail};

use crate::run;

/// More than these do not fail by chance.
const MOST: usize = 8;

/// Runs a test runner; adds its summaries, and the names of flaky tests, to `notes`.
///
/// # Errors
/// When it fails, and what failed does so again, or can't be named.
pub(crate) fn run_tests(command: Command, notes: &mut Vec<String>) -> Result<()> {
    let (program, arguments) = (
        command.get_program().to_owned(),
        command.get_args().map(ToOwned::to_owned),
    );
    let mut again = Command::new(program);
    let arguments: Vec<_> = arguments.collect();
    again.args(&arguments);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => again.env(name, value),
            None => again.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        again.current_dir(directory);
    }

    let mut lines = Vec::new();
    let outcome = run::noting(command, is_told, &mut lines);
    notes.extend(lines.iter().filter(|line| is_summary(line)).cloned());
    let Err(failure) = outcome else { return Ok(()) };
    let Some(failed) = by_name(&lines) else {
        return Err(failure);
    };

    eprintln!("  these failed and run again, alone: {}", failed.join(", "));
    if !arguments.iter().any(|argument| argument == "--") {
        again.arg("--");
    }
    again.args(["--exact", "--test-threads", "1"]).args(&failed);
    let mut lines = Vec::new();
    run::noting(again, is_told, &mut lines)?;
    let passed = lines
        .iter()
        .filter(|line| line.starts_with("test ") && line.ends_with(" ... ok"));
    if passed.count() < failed.len() {
        bail!("not every test that failed was found again");
    }
    notes.extend(
        failed
            .into_iter()
            .map(|name| format!("FLAKY {name}: failed, and passed alone")),
    );
    Ok(())
}

fn is_told(line: &str) -> bool {
    is_summary(line) || line.starts_with("test ") || is_death(line)
}

/// Whether a line is a runner's own count, of cargo's or of nextest, or what nextest says of a flaky test.
fn is_summary(line: &str) -> bool {
    let ran_some = !line.contains(" 0 passed; 0 failed; 0 ignored");
    let line = line.trim_start();
    (line.starts_with("test result: ") && ran_some) || line.starts_with("Summary [") || line.starts_with("FLAKY ")
}

/// Whether cargo says of a test program that it ended otherwise than by a test that failed.
fn is_death(line: &str) -> bool {
    line.contains("process didn't exit successfully") && !line.contains("(exit status: 101)")
}

/// The tests that failed, if they are all that is wrong.
fn by_name(lines: &[String]) -> Option<Vec<String>> {
    if lines.iter().any(|line| is_death(line)) {
        return None;
    }
    let name = |line: &String| Some(line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?.to_owned());
    let mut failed: Vec<String> = lines.iter().filter_map(name).collect();
    let summaries = lines
        .iter()
        .filter_map(|line| line.strip_prefix("test result: FAILED. "));
    let counted: usize = summaries.filter_map(count).sum();
    let are_all = counted == failed.len() && (1..=MOST).contains(&counted);
    failed.sort_unstable();
    failed.dedup();
    are_all.then_some(failed)
}

/// How many failed, of `329 passed; 1 failed; …`.
fn count(summary: &str) -> Option<usize> {
    let failed = summary.split("; ").find_map(|part| part.strip_suffix(" failed"))?;
    failed.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(text: &str) -> Option<Vec<String>> {
        let lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
        by_name(&lines)
    }

    #[test]
    fn tests_that_failed_are_named_when_they_are_all_that_is_wrong() {
        let one = "test a::b ... ok\ntest a::c ... FAILED\ntest result: FAILED. 1 passed; 1 failed; 0 ignored";
        let untold = "test a::c ... FAILED\ntest result: FAILED. 1 passed; 2 failed; 0 ignored";
        let died = format!("{one}\n  process didn't exit successfully: `x` (signal: 6, SIGABRT: process abort signal)");

        assert_eq!(failed(one), Some(vec!["a::c".to_owned()]));
        assert_eq!((failed(untold), failed(&died), failed("")), (None, None, None));
    }

    #[test]
    fn many_failures_are_no_chance() {
        let names: String = (0..9).map(|number| format!("test a{number} ... FAILED\n")).collect();

        assert_eq!(
            failed(&format!("{names}test result: FAILED. 0 passed; 9 failed; 0 ignored")),
            None
        );
    }
}
