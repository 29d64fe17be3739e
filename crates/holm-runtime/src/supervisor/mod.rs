//! The small program that stands between the edge and one process module.
//!
//! ```text
//!   edge ── launch ──> supervise launch DIR      a session of its own; waits for one line from the next and ends
//!                        └─> supervise run DIR   the supervisor: owns output, lock, socket and state of the module
//!                              ├─> supervise exec DIR PID   becomes user, limits, directory; then the module's program
//!                              └─> supervise probe DIR PID  the same, then the module's health check; now and then
//! ```
//!
//! - The supervisor is no child of the edge, holds no pipe to it and shares no file with it: the edge may die or be upgraded,
//!   the module goes on, and the next edge finds it by pid, start time and boot id in `state.json`.
//! - It has one thread, no async runtime, and bounded buffers (at most about 100 KiB), so it costs little beside any module.
//! - A module never outlives its supervisor: it would lose its output and nobody would see it end. The kernel sees to that.
//! - When the program ends, every process that it left behind is ended too, as in a container.
//! - It decides nothing: it neither restarts nor judges. It carries out a plan that leaves no choice.

mod children;
mod connections;
mod exec;
mod health;
mod output;
pub(crate) mod protocol;
mod run;

use std::env;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use serde::{Deserialize, Serialize};

pub(crate) use output::LONGEST_PART;

use crate::process::record::Directory;

/// What the launch stage tells the edge, as one JSON line.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Launched {
    /// The program runs.
    Started,
    /// A supervisor is at work on this module already.
    AlreadySupervised,
    /// It could not be started.
    Failed(String),
}

/// Runs a supervisor stage. `arguments` are those after the hidden subcommand (`holm supervise …`).
///
/// Must be called from a process with a single thread, before any async runtime exists.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let own: Vec<OsString> = env::args_os().skip(1).collect();
    // What leads here again: the words before `arguments`, which name the hidden subcommand.
    let prefix = own.get(..own.len().saturating_sub(arguments.len())).unwrap_or_default();
    let stage = arguments.first().and_then(|stage| stage.to_str());
    let directory = arguments.get(1).map(|path| Directory::at(PathBuf::from(path)));
    let code = match (stage, directory) {
        (Some("launch"), Some(directory)) => launch(&directory, prefix),
        (Some("run"), Some(directory)) => run::run(&directory, prefix),
        (Some(stage @ ("exec" | "probe")), Some(directory)) => {
            let parent = arguments
                .get(2)
                .and_then(|pid| pid.to_str())
                .and_then(|pid| pid.parse().ok());
            let parent = parent.unwrap_or(0);
            if stage == "exec" {
                exec::run(&directory, parent)
            } else {
                exec::probe(&directory, parent)
            }
        }
        _ => {
            complain("this command is for the edge alone; it starts modules of the kind `process`");
            2
        }
    };
    ExitCode::from(code)
}

fn launch(directory: &Directory, prefix: &[OsString]) -> u8 {
    let result = launch_supervisor(directory, prefix)
        .unwrap_or_else(|error| Launched::Failed(format!("its supervisor could not be started: {error}")));
    let mut line = serde_json::to_string(&result).unwrap_or_default();
    line.push('\n');
    u8::from(io::stdout().write_all(line.as_bytes()).is_err())
}

fn launch_supervisor(directory: &Directory, prefix: &[OsString]) -> io::Result<Launched> {
    rustix::process::setsid()?;
    let log = std::fs::File::create(directory.supervisor_log())?;
    let mut supervisor = stage("run", directory, prefix)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    let mut output = supervisor
        .stdout
        .take()
        .ok_or_else(|| io::Error::other("it has no output"))?;
    // Until the end, so that the supervisor has let go of this stage when the edge hears of it.
    let mut line = String::new();
    output.read_to_string(&mut line)?;
    if let Ok(result) = serde_json::from_str(&line) {
        return Ok(result);
    }
    let why = std::fs::read_to_string(directory.supervisor_log()).unwrap_or_default();
    Err(io::Error::other(format!(
        "it ended without a word; its log says `{}`",
        why.trim()
    )))
}

/// A command for another stage of this same program: by `/proc/self/exe`, so that it is the same release even when the file
/// has been replaced in the meantime.
fn stage(name: &str, directory: &Directory, prefix: &[OsString]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("holm-supervise")
        .args(prefix)
        .arg(name)
        .arg(directory.path());
    command
}

/// Standard error of the supervisor is its log file.
fn complain(text: &str) {
    // Nobody is left to tell when even this fails.
    drop(writeln!(io::stderr(), "{text}"));
}
