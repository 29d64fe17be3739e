//! Stages: what is being done, how long it took, and a table of both at the end.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::again;

/// The stages of one command, in order. The table is printed on drop, so also after a failure; below it, as the last lines of
/// all, the summaries of the test runners in their own words, and the tests that were flaky.
#[derive(Debug)]
pub(crate) struct Stages {
    began: Instant,
    done: Vec<(String, Duration, bool)>,
    summaries: Vec<String>,
}

impl Stages {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            done: Vec::new(),
            summaries: Vec::new(),
        }
    }

    /// Runs one stage.
    ///
    /// # Errors
    /// What the stage returned, with its name.
    pub(crate) fn run<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("==> {name}");
        let began = Instant::now();
        let outcome = work();
        self.done.push((name.to_owned(), began.elapsed(), outcome.is_ok()));
        outcome.with_context(|| format!("stage `{name}` failed"))
    }

    /// Runs test runners as one stage; their summaries, and what was flaky, are repeated at the end.
    ///
    /// # Errors
    /// When one fails, with the name of the stage; the others have run.
    pub(crate) fn run_tests(&mut self, name: &str, commands: Vec<Command>) -> Result<()> {
        let mut summaries = Vec::new();
        let outcome = self.run(name, || {
            let outcomes: Vec<Result<()>> = commands
                .into_iter()
                .map(|command| again::run_tests(command, &mut summaries))
                .collect();
            outcomes.into_iter().collect()
        });
        self.summaries
            .extend(summaries.into_iter().map(|line| format!("{name}: {}", line.trim())));
        outcome
    }
}

impl Drop for Stages {
    fn drop(&mut self) {
        let width = self.done.iter().map(|(name, ..)| name.len()).max().unwrap_or(0).max(5);
        eprintln!("\n{:width$}  seconds", "stage");
        for (name, took, ok) in &self.done {
            eprintln!(
                "{name:width$}  {:7.1}{}",
                took.as_secs_f64(),
                if *ok { "" } else { "  FAILED" }
            );
        }
        eprintln!("{:width$}  {:7.1}", "total", self.began.elapsed().as_secs_f64());
        for line in &self.summaries {
            println!("{line}");
        }
    }
}
