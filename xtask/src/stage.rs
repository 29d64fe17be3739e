//! Stages: what is being done, how long it took, and a table of both at the end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// The stages of one command, in order. The table is printed on drop, so also after a failure.
#[derive(Debug)]
pub(crate) struct Stages {
    began: Instant,
    done: Vec<(String, Duration, bool)>,
}

impl Stages {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            done: Vec::new(),
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
    }
}
