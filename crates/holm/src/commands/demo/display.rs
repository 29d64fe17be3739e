//! What a person sees while the story runs: moments as lines, and how things stand as one line that changes in place. With
//! `--json` all of it goes to standard error, so that standard output ends with the object alone.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::output;

/// Without a terminal, how things stand is told this often.
const PLAIN_PERIOD: Duration = Duration::from_secs(5);

/// The screen.
#[derive(Debug)]
pub(super) struct Display {
    began: Instant,
    to_error: bool,
    terminal: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    line_is_open: bool,
    last_plain: Option<Instant>,
}

impl Display {
    pub(super) fn new(to_error: bool) -> Self {
        let terminal = if to_error {
            std::io::stderr().is_terminal()
        } else {
            std::io::stdout().is_terminal()
        };
        Self {
            began: Instant::now(),
            to_error,
            terminal,
            state: Mutex::default(),
        }
    }

    /// Tells a moment.
    pub(super) fn moment(&self, text: &str) {
        self.say(&format!("[{:5.1} s] {text}", self.began.elapsed().as_secs_f64()));
    }

    /// Tells anything.
    pub(super) fn say(&self, text: &str) {
        self.close_line();
        if self.to_error {
            output::note(text)
        } else {
            output::line(text)
        }
    }

    /// Tells how things stand.
    pub(super) fn standing(&self, text: &str) {
        let mut state = self.lock();
        if self.terminal {
            state.line_is_open = true;
            drop(state);
            let shown = format!("\r\x1b[2K          {text}");
            let written = if self.to_error {
                write!(std::io::stderr().lock(), "{shown}")
            } else {
                let mut out = std::io::stdout().lock();
                write!(out, "{shown}").and_then(|()| out.flush())
            };
            // A terminal that is gone has nobody before it.
            written.ok();
        } else if state.last_plain.is_none_or(|last| last.elapsed() >= PLAIN_PERIOD) {
            state.last_plain = Some(Instant::now());
            drop(state);
            self.moment(text);
        }
    }

    /// Leaves the line that changes in place.
    pub(super) fn finish(&self) {
        self.close_line();
    }

    fn close_line(&self) {
        if std::mem::take(&mut self.lock().line_is_open) {
            if self.to_error {
                output::note("")
            } else {
                output::line("")
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
