//! Ends of modules that their supervisor does not see to itself.

use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::observe;
use super::record::{Directory, RunState};
use crate::error::RuntimeError;

/// How much longer than its grace the end of a module may take, until it counts as stuck.
pub(super) const BEYOND_GRACE: Duration = Duration::from_secs(20);

/// Ends a program whose supervisor is gone. The process is held by a descriptor before it is looked at again, so that a
/// later one with the same pid is never meant.
pub(super) fn orphan(run: &RunState, grace: Duration) -> io::Result<()> {
    let Some(main) = run.main else { return Ok(()) };
    let Some(pid) = i32::try_from(main.pid).ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for (signal, patience) in [(Signal::TERM, grace), (Signal::KILL, BEYOND_GRACE)] {
        if !main.is_alive() {
            return Ok(());
        }
        match pidfd_send_signal(&process, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
        let deadline = Instant::now() + patience;
        while main.is_alive() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    if main.is_alive() {
        return Err(io::Error::other(format!("process {} does not end", main.pid)));
    }
    Ok(())
}

/// The supervisor tells of the end shortly before it goes itself.
pub(super) fn wait_for_supervisor(directory: &Directory) -> Result<(), RuntimeError> {
    let deadline = Instant::now() + BEYOND_GRACE;
    loop {
        let lock = observe::try_lock(directory).map_err(RuntimeError::io("lock", &directory.lock()))?;
        if lock.is_some() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(RuntimeError::Timeout {
                operation: "end a supervisor".to_owned(),
                after: BEYOND_GRACE,
            });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
