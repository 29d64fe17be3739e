//! A process in the background: started, watched, ended by its id; its log shown when the test fails.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::patience;
use crate::wire::http;

/// Lines of the log that a failed test shows.
const LAST_LINES: usize = 60;

/// A process and its log (standard error, and standard output where nobody else reads it).
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a command; its output goes to `DIRECTORY/NAME.log`, behind what is there.
    ///
    /// # Panics
    /// When it can't be started.
    #[track_caller]
    pub fn start(name: &str, directory: &Path, command: &mut Command) -> Self {
        let log = directory.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log);
        let mut file = file.unwrap_or_else(|error| panic!("`{}` can't be written: {error}", log.display()));
        writeln!(file, "--- {command:?}").expect("the log can be written");
        let output = file.try_clone().expect("a file can be opened twice");
        command.stdin(Stdio::null()).stdout(output).stderr(file);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("`{name}` can't be started: {error}"));
        Self {
            name: name.to_owned(),
            child,
            log,
        }
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its resident set, in KiB.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    #[track_caller]
    pub fn resident_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.id());
        let status = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("`{}` is gone: {error}", self.name));
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok());
        number.unwrap_or_else(|| panic!("`{}` has no resident set: it has ended", self.name))
    }

    /// What it has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// A value of the line `ready NAME=VALUE …` that it printed last; `None` before it did.
    #[must_use]
    pub fn announced(&self, name: &str) -> Option<String> {
        let log = self.log();
        let line = log.lines().rev().find_map(|line| line.strip_prefix("ready "))?;
        let value = line
            .split(' ')
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
        Some(value.to_owned())
    }

    /// What `/healthz` says: 200, or another status and the reason.
    ///
    /// # Panics
    /// When the process has announced no status page, or it does not answer.
    #[must_use]
    #[track_caller]
    pub fn health(&self) -> (u16, String) {
        let address = self.announced("status").and_then(|text| text.parse().ok());
        let address = address.unwrap_or_else(|| panic!("`{}` has announced no status page", self.name));
        let answer = http::get_plain(address, "/healthz");
        let answer = answer.unwrap_or_else(|error| panic!("`{}` does not tell its health: {error:#}", self.name));
        (answer.status, String::from_utf8_lossy(&answer.body).trim().to_owned())
    }

    /// Waits until `/healthz` says so.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn wait_until_healthy(&self) {
        patience::wait("a healthy process", patience::short(), || match self.health() {
            (200, _) => Ok(()),
            (status, reason) => Err(format!("{status} {reason}")),
        });
    }

    /// Its exit status if it has ended.
    ///
    /// # Panics
    /// When the system can't say.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for a state while the process lives.
    ///
    /// # Panics
    /// When the process ends before, or the time is over.
    #[track_caller]
    pub fn wait_until<T>(&mut self, what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
        patience::wait(what, patience::long(), || {
            if let Some(status) = self.ended() {
                panic!("{what}: `{}` ended with {status}:\n{}", self.name, self.last_lines());
            }
            attempt()
        })
    }

    /// Waits for its end, which it finds by itself; returns its exit code and what it wrote.
    ///
    /// # Panics
    /// When it goes on.
    #[track_caller]
    pub fn wait_until_ended(&mut self) -> (Option<i32>, String) {
        let what = format!("the end of `{}`", self.name);
        let status = patience::wait(&what, patience::short(), || {
            self.ended().ok_or_else(|| self.last_lines())
        });
        (status.code(), self.log())
    }

    /// Asks it to end (SIGTERM) and waits for that.
    ///
    /// # Panics
    /// When it goes on.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        if let Some(status) = self.ended() {
            return status;
        }
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("our own child can be signalled");
        let what = format!("the end of `{}` after SIGTERM", self.name);
        patience::wait(&what, patience::short(), || {
            self.ended().ok_or_else(|| "it runs".to_owned())
        })
    }

    /// Asks it to read its certificates anew (SIGHUP).
    ///
    /// # Panics
    /// When it has ended.
    #[track_caller]
    pub fn hang_up(&self) {
        let told = kill_process(Pid::from_child(&self.child), Signal::HUP);
        told.unwrap_or_else(|error| panic!("`{}` can't be signalled: {error}", self.name));
    }

    /// Ends it at once (SIGKILL), as a crash would.
    pub fn kill(&mut self) {
        // It may have ended by itself in between: then there is nothing to kill.
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// The end of its log.
    #[must_use]
    pub fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!(
                "--- end of the log of `{}` ({})\n{}\n---",
                self.name,
                self.log.display(),
                self.last_lines()
            );
        }
    }
}

/// A directory of a test: removed at its end, kept when the test failed.
#[derive(Debug)]
pub struct Directory(Option<tempfile::TempDir>);

impl Directory {
    /// Makes a directory.
    ///
    /// # Panics
    /// When the system has no room for it.
    #[must_use]
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("holm-e2e-").tempdir();
        Self(Some(directory.expect("a temporary directory can be made")))
    }

    /// Its path.
    ///
    /// # Panics
    /// Never: the directory is there until the drop.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.as_ref().expect("there until the drop").path()
    }
}

impl Default for Directory {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Some(directory) = self.0.take().filter(|_| std::thread::panicking()) {
            eprintln!("--- kept: {}", directory.keep().display());
        }
    }
}
