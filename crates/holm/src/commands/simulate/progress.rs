//! How far something has come: a bar that is written over on a terminal, nothing elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use crate::output;

/// How often it is shown.
const SHOWN: Duration = Duration::from_millis(200);
/// Its length, in characters.
const WIDTH: usize = 20;

/// A bar for so many things.
pub(super) struct Progress {
    total: usize,
    begin: Instant,
    shown: Option<Instant>,
    is_terminal: bool,
}

impl Progress {
    pub(super) fn new(total: usize) -> Self {
        Self {
            total,
            begin: Instant::now(),
            shown: None,
            is_terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Shows that `count` of them are `done`, and what else there is to tell, unless that was shown just now.
    pub(super) fn show(&mut self, count: usize, done: &str, more: impl FnOnce() -> String) {
        if !self.is_terminal || self.shown.is_some_and(|at| at.elapsed() < SHOWN) {
            return;
        }
        self.shown = Some(Instant::now());
        let bar = bar(count, self.total);
        output::over(&format!("{bar} {count}/{} {done}, {}", self.total, more()));
    }

    /// How many of so many there were in a second.
    pub(super) fn per_second(&self, count: usize) -> f64 {
        count as f64 / self.begin.elapsed().as_secs_f64().max(0.001)
    }

    /// Takes the bar away, for what is told next.
    pub(super) fn end(&mut self) {
        if self.shown.take().is_some() {
            output::over("");
        }
    }
}

fn bar(count: usize, total: usize) -> String {
    let full = (count * WIDTH).checked_div(total).unwrap_or(0).min(WIDTH);
    format!("{}{}", "#".repeat(full), "-".repeat(WIDTH - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_what_is_done_and_never_longer() {
        assert_eq!(bar(0, 0), "-".repeat(WIDTH));
        assert_eq!(bar(5, 10), format!("{}{}", "#".repeat(10), "-".repeat(10)));
        assert_eq!(bar(11, 10), "#".repeat(WIDTH));
    }
}
