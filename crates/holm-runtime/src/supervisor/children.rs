//! The processes of a module, as their supervisor sees them.

use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};

use crate::process::procfs;

/// How long processes that were sent SIGKILL may take to go; only one that waits for a broken disk takes longer.
const LONGEST_KILL: Duration = Duration::from_secs(10);

/// The children whose end matters.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// How the main program ended.
    pub(super) main: Option<WaitStatus>,
    /// How the health check ended.
    pub(super) check: Option<WaitStatus>,
}

/// Collects every child that has ended.
pub(super) fn collect(main: Pid, check: Option<Pid>) -> Collected {
    let mut collected = Collected::default();
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == main => collected.main = Some(status),
            Ok(Some((pid, status))) if Some(pid) == check => collected.check = Some(status),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(_) => return collected,
        }
    }
}

/// Exit code as a shell and the Docker engine tell it: 128 + n for signal n.
pub(super) fn exit_code(status: WaitStatus) -> i32 {
    let by_signal = status.terminating_signal().map(|signal| 128 + signal);
    status.exit_status().or(by_signal).unwrap_or(255)
}

/// Ends every process that the main program left behind. They are all below the supervisor, which is their subreaper.
///
/// Returns whether none is left.
pub(super) fn end_all() -> bool {
    let deadline = Instant::now() + LONGEST_KILL;
    loop {
        let left = procfs::descendants(std::process::id());
        for pid in left.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
            // It may have ended by itself; either way it is collected below.
            kill_process(pid, Signal::KILL).ok();
        }
        match wait(WaitOptions::NOHANG) {
            Err(Errno::CHILD) => return true,
            Ok(Some(_)) => {}
            _ if Instant::now() >= deadline => return false,
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
