//! The health check of a process module: a program that the supervisor runs as the module's user, now and then.
//!
//! ```text
//!            passes                 fails `retries` times in a row
//!   Starting ──────> Healthy ──────────────────────────────────────> Unhealthy
//!      │  fails after the start period, `retries` times                  │
//!      └──────────────────────────> Unhealthy <──────────────────────────┘  passes: Healthy
//! ```
//!
//! - The rules, the names and the defaults are those of the Docker engine, so that one manifest means the same for both.
//! - One check at a time; it is ended by force, with what it started, after its timeout. That counts as a failure.
//! - What it says is kept up to [`LONGEST_OUTPUT`], and told while it fails.

use std::ffi::OsString;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdout, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitStatus, kill_process_group};

use super::{children, stage};
use crate::process::record::{Directory, HealthCheck, HealthState};
use crate::state::Health;

/// What is kept of a check's output, in bytes: enough to know why, little enough for a twin.
const LONGEST_OUTPUT: usize = 400;

/// The judgement: no clock, no process.
#[derive(Debug)]
struct Tally {
    retries: u32,
    start_period: Duration,
    failures: u32,
    state: HealthState,
}

impl Tally {
    /// Takes in how a check went so long after the start. Says whether that is news.
    fn note(&mut self, outcome: Result<(), String>, since_start: Duration) -> bool {
        let before = self.state.clone();
        match outcome {
            Ok(()) => {
                self.failures = 0;
                self.state = HealthState {
                    health: Health::Healthy,
                    reason: None,
                };
            }
            Err(_) if self.state.health == Health::Starting && since_start < self.start_period => {}
            Err(reason) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures >= self.retries {
                    self.state.health = Health::Unhealthy;
                    // The first reason stands: a text that changes at each check is not worth a write to flash.
                    self.state.reason.get_or_insert(reason);
                }
            }
        }
        self.state != before
    }
}

/// A check that runs.
#[derive(Debug)]
struct Running {
    pid: Pid,
    deadline: Instant,
    output: Option<ChildStdout>,
    text: Vec<u8>,
    was_ended: bool,
}

/// Runs the checks of one module.
#[derive(Debug)]
pub(super) struct Checks {
    check: HealthCheck,
    directory: Directory,
    prefix: Vec<OsString>,
    tally: Tally,
    started: Instant,
    next: Instant,
    running: Option<Running>,
}

impl Checks {
    /// Checks for a module that has just been started.
    pub(super) fn new(check: HealthCheck, directory: &Directory, prefix: &[OsString]) -> Self {
        let tally = Tally {
            retries: check.retries,
            start_period: Duration::from_millis(check.start_period_millis),
            failures: 0,
            state: HealthState {
                health: Health::Starting,
                reason: None,
            },
        };
        let mut checks = Self {
            check,
            directory: directory.clone(),
            prefix: prefix.to_vec(),
            tally,
            started: Instant::now(),
            next: Instant::now(),
            running: None,
        };
        checks.next = Instant::now() + checks.interval();
        checks
    }

    /// What they say.
    pub(super) fn state(&self) -> HealthState {
        self.tally.state.clone()
    }

    /// The check that runs, so that its end is known.
    pub(super) fn pid(&self) -> Option<Pid> {
        self.running.as_ref().map(|running| running.pid)
    }

    /// How long nothing is to be done.
    pub(super) fn wait(&self) -> Option<Duration> {
        let at = match &self.running {
            Some(running) if running.was_ended => return None,
            Some(running) => running.deadline,
            None => self.next,
        };
        Some(at.saturating_duration_since(Instant::now()))
    }

    /// What becomes readable when a check says something.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        let output = self.running.as_ref()?.output.as_ref()?;
        Some(output.as_fd())
    }

    /// Does what is due. Says whether the state is news.
    pub(super) fn turn(&mut self) -> bool {
        match &mut self.running {
            Some(running) => {
                running.listen();
                if !running.was_ended && Instant::now() >= running.deadline {
                    running.was_ended = true;
                    running.end();
                }
                false
            }
            None if Instant::now() >= self.next => self.begin(),
            None => false,
        }
    }

    /// Takes in that the check has ended. Says whether the state is news.
    pub(super) fn ended(&mut self, status: WaitStatus) -> bool {
        let Some(mut running) = self.running.take() else {
            return false;
        };
        running.listen();
        // What it started and left behind is none of the module's.
        running.end();
        let outcome = match children::exit_code(status) {
            _ if running.was_ended => {
                let seconds = Duration::from_millis(self.check.timeout_millis).as_secs_f32();
                Err(format!("it did not end within {seconds} s"))
            }
            0 => Ok(()),
            code => Err(match running.said() {
                text if text.is_empty() => format!("it ended with exit code {code}"),
                text => format!("exit code {code}: {text}"),
            }),
        };
        self.note(outcome)
    }

    fn note(&mut self, outcome: Result<(), String>) -> bool {
        let is_news = self.tally.note(outcome, self.started.elapsed());
        self.next = Instant::now() + self.interval();
        is_news
    }

    /// Checks come faster during the start period, so that a module that is ready is known to be.
    fn interval(&self) -> Duration {
        let is_starting =
            self.tally.state.health == Health::Starting && self.started.elapsed() < self.tally.start_period;
        let regular = Duration::from_millis(self.check.interval_millis);
        if is_starting {
            regular.min(Duration::from_millis(self.check.start_interval_millis))
        } else {
            regular
        }
    }

    fn begin(&mut self) -> bool {
        let spawned = stage("probe", &self.directory, &self.prefix)
            .arg(std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => return self.note(Err(format!("it cannot be started: {error}"))),
        };
        let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
            return self.note(Err("its pid is out of range".to_owned()));
        };
        let output = child.stdout.take();
        // One that can't be read without waiting is not read at all.
        let output = output.filter(|pipe| rustix::io::ioctl_fionbio(pipe.as_fd(), true).is_ok());
        self.running = Some(Running {
            pid,
            deadline: Instant::now() + Duration::from_millis(self.check.timeout_millis),
            output,
            text: Vec::new(),
            was_ended: false,
        });
        false
    }
}

impl Running {
    /// Reads what the check says; beyond what is kept it is read and dropped, so that the check does not wait for a reader.
    fn listen(&mut self) {
        let mut buffer = [0; 1024];
        while let Some(pipe) = &mut self.output {
            match pipe.read(&mut buffer) {
                Ok(0) => self.output = None,
                Ok(length) => {
                    let room = LONGEST_OUTPUT.saturating_sub(self.text.len());
                    let piece = buffer.get(..length.min(room)).unwrap_or_default();
                    self.text.extend_from_slice(piece);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => self.output = None,
            }
        }
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&self.text).trim().to_owned()
    }

    fn end(&self) {
        // An empty group has ended already.
        kill_process_group(self.pid, Signal::KILL).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(retries: u32, start_period_seconds: u64) -> Tally {
        Tally {
            retries,
            start_period: Duration::from_secs(start_period_seconds),
            failures: 0,
            state: HealthState {
                health: Health::Starting,
                reason: None,
            },
        }
    }

    /// `p` passes, `f` fails, one a second; gives the states after each, by first letters.
    fn course(mut tally: Tally, outcomes: &str) -> String {
        let letters = outcomes.chars().zip(1..).map(|(outcome, second)| {
            let outcome = if outcome == 'p' { Ok(()) } else { Err("no".to_owned()) };
            tally.note(outcome, Duration::from_secs(second));
            match tally.state.health {
                Health::Starting => 's',
                Health::Healthy => 'h',
                Health::Unhealthy => 'u',
            }
        });
        letters.collect()
    }

    #[test]
    fn a_module_is_unhealthy_after_as_many_failures_in_a_row_as_are_tolerated() {
        assert_eq!(course(tally(3, 0), "pffpfffp"), "hhhhhhuh");
        assert_eq!(course(tally(3, 0), "fff"), "ssu");
        assert_eq!(course(tally(1, 0), "f"), "u");
    }

    #[test]
    fn failures_in_the_start_period_do_not_count_until_a_check_has_passed() {
        assert_eq!(
            course(tally(2, 4), "fffff"),
            "ssssu",
            "the fourth second is the first that counts"
        );
        assert_eq!(course(tally(2, 10), "pff"), "hhu");
    }

    #[test]
    fn only_changes_are_news_and_the_first_reason_stands() {
        let mut tally = tally(1, 0);
        assert!(tally.note(Err("first".to_owned()), Duration::ZERO));
        assert!(!tally.note(Err("second".to_owned()), Duration::ZERO));
        assert_eq!(tally.state.reason.as_deref(), Some("first"));
        assert!(tally.note(Ok(()), Duration::ZERO));
        assert!(!tally.note(Ok(()), Duration::ZERO));
    }
}
