//! What is true of a process module now, from its records, `/proc` and its supervisor.
//!
//! ```text
//!   main program alive by pid, start time and boot    -> it runs
//!   else lock held: a supervisor is at work           -> what the supervisor says (it runs until its end is written down)
//!   else state.json says that it ended                -> that
//!   else it ended and nobody saw it: the supervisor was killed (and the kernel ended the module with it),
//!        or the machine was restarted                 -> failed; written down, so that it is told the same way again
//! ```

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use holm_model::Timestamp;
use rustix::fs::FlockOperation;

use super::procfs::{ProcessId, boot_id, boot_time_seconds};
use super::record::{Directory, FORMAT, ModuleRecord, Phase, ReadError, RunState, read, write};
use super::socket;
use crate::error::RuntimeError;
use crate::spec::RuntimeKind;
use crate::state::{Health, ModuleState, RuntimeStatus};
use crate::supervisor::protocol::{Answer, Content, Operation, Request, VERSION};

/// How long a supervisor may take to answer at once.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// How long a supervisor that has closed its socket may take to exit.
const LONGEST_EXIT: Duration = Duration::from_secs(2);

/// A module's run.
#[derive(Clone, Debug)]
pub(super) enum Run {
    /// It was never started.
    Never,
    /// Its program runs.
    Up(RunState),
    /// It has ended.
    Down(RunState),
}

/// Reads `module.json`; `None` when there is no such module.
pub(super) fn module(directory: &Directory) -> Result<Option<ModuleRecord>, RuntimeError> {
    let path = directory.module();
    read(&path).map_err(|error| error.at(&path))
}

/// Finds out whether the module runs.
pub(super) fn run(directory: &Directory) -> Result<Run, RuntimeError> {
    let deadline = Instant::now() + LONGEST_EXIT;
    loop {
        if let Some(run) = look(directory, Instant::now() >= deadline)? {
            return Ok(run);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One look; `None` when only a supervisor knows that is about to exit, and so can't be asked, unless it is the last look.
fn look(directory: &Directory, is_last: bool) -> Result<Option<Run>, RuntimeError> {
    let path = directory.state();
    let boot = boot_id().map_err(RuntimeError::io("read", "/proc/sys/kernel/random/boot_id".as_ref()))?;
    let (recorded, damaged) = match read::<RunState>(&path) {
        Ok(recorded) => (recorded, false),
        Err(ReadError::Damaged(_)) => (None, true),
        Err(error) => return Err(error.at(&path)),
    };
    if let Some(state) = recorded.as_ref().filter(|state| is_up(state, &boot)) {
        return Ok(Some(Run::Up(state.clone())));
    }
    let lock = try_lock(directory).map_err(RuntimeError::io("lock", &directory.lock()))?;
    if lock.is_none() {
        // Starting, ending, or its records cannot be written because the disk is full: the supervisor knows.
        let state = match ask(directory, Operation::Status, ANSWER_TIME) {
            Ok(state) => Some(state),
            Err(_) => read(&path).ok().flatten().or(recorded),
        };
        return Ok(Some(match state {
            None if damaged && !is_last => return Ok(None),
            None => Run::Never,
            // The program may have ended, but not what it left behind: it runs until its end is written down.
            Some(state) if state.phase == Phase::Running => Run::Up(state),
            Some(state) => Run::Down(state),
        }));
    }
    match recorded {
        None if damaged => {
            let lost = lost_end(boot);
            write(&path, &lost).map_err(RuntimeError::io("write", &path))?;
            Ok(Some(Run::Down(lost)))
        }
        None => Ok(Some(Run::Never)),
        Some(state) if state.phase == Phase::Ended => Ok(Some(Run::Down(state))),
        Some(state) => {
            // It may have ended and been written down between the reading above and the lock.
            let state = read(&path).ok().flatten().unwrap_or(state);
            if state.phase == Phase::Ended {
                return Ok(Some(Run::Down(state)));
            }
            let ended = unseen_end(state, &boot);
            write(&path, &ended).map_err(RuntimeError::io("write", &path))?;
            Ok(Some(Run::Down(ended)))
        }
    }
}

/// How a run ended whose record is damaged.
fn lost_end(boot_id: String) -> RunState {
    RunState {
        format: FORMAT,
        boot_id,
        supervisor: ProcessId { pid: 0, start: 0 },
        main: None,
        phase: Phase::Ended,
        started_at_millis: None,
        exited_at_millis: now_millis(),
        exit_code: Some(255),
        description: Some("the record of its last run was damaged".to_owned()),
        health: None,
    }
}

fn now_millis() -> Option<i64> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    i64::try_from(now).ok()
}

fn is_up(state: &RunState, boot: &str) -> bool {
    state.phase == Phase::Running && state.boot_id == boot && state.main.is_some_and(ProcessId::is_alive)
}

/// How a run ended that nobody saw ending.
fn unseen_end(mut state: RunState, boot: &str) -> RunState {
    let restarted = state.boot_id != boot;
    let seen = now_millis();
    let booted = boot_time_seconds().map(|seconds| seconds.saturating_mul(1000));
    state.phase = Phase::Ended;
    state.exited_at_millis = if restarted { booted.or(seen) } else { seen };
    // 255 is what the Docker engine tells after a restart of the machine; 137 is the kernel's SIGKILL.
    state.exit_code = Some(if restarted { 255 } else { 137 });
    let reason = if restarted {
        "the device was restarted while it ran"
    } else {
        "its supervisor was killed, and it with it"
    };
    state.description = Some(reason.to_owned());
    state
}

/// Takes the module's lock; `None` when a supervisor has it. Dropping the file lets go.
pub(super) fn try_lock(directory: &Directory) -> io::Result<Option<File>> {
    let file = match File::open(directory.lock()) {
        Ok(file) => file,
        // No supervisor ever was here: nothing can hold it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => File::open(directory.path())?,
        Err(error) => return Err(error),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Asks the supervisor, and waits for its answer.
pub(super) fn ask(directory: &Directory, operation: Operation, patience: Duration) -> io::Result<RunState> {
    let mut stream = socket::connect(&directory.socket())?;
    stream.set_read_timeout(Some(patience))?;
    let mut line = serde_json::to_string(&Request { v: VERSION, operation })?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut text = String::new();
    BufReader::new(stream).read_line(&mut text)?;
    let answer: Answer = serde_json::from_str(&text)?;
    match answer.content {
        Content::State(state) => Ok(*state),
        Content::Error(reason) => Err(io::Error::other(reason)),
    }
}

/// The state as it is told to whoever plans.
pub(super) fn state(module: ModuleRecord, run: &Run) -> ModuleState {
    let (status, run) = match run {
        Run::Never => (RuntimeStatus::Stopped, None),
        Run::Up(run)
            if run
                .health
                .as_ref()
                .is_some_and(|health| health.health == Health::Unhealthy) =>
        {
            (RuntimeStatus::Unhealthy, Some(run))
        }
        Run::Up(run) => (RuntimeStatus::Running, Some(run)),
        Run::Down(run) if run.phase == Phase::Starting => (RuntimeStatus::Stopped, Some(run)),
        Run::Down(run) if run.exit_code == Some(0) => (RuntimeStatus::Stopped, Some(run)),
        Run::Down(run) => (RuntimeStatus::Failed, Some(run)),
    };
    let up = status.is_up();
    let orphan = up && run.is_some_and(|run| !run.supervisor.is_alive());
    let description = if orphan {
        Some("its supervisor is gone, so its output is lost; restart it".to_owned())
    } else {
        let failing = run.and_then(|run| run.health.as_ref()?.reason.as_ref());
        let failing = failing.filter(|_| status == RuntimeStatus::Unhealthy);
        failing
            .map(|reason| format!("its health check fails: {reason}"))
            .or_else(|| run.and_then(|run| run.description.clone()))
    };
    ModuleState {
        id: module.id,
        kind: RuntimeKind::Process,
        status,
        health: run
            .filter(|_| up)
            .and_then(|run| run.health.as_ref().map(|health| health.health)),
        description,
        exit_code: run.and_then(|run| run.exit_code),
        started_at: run
            .and_then(|run| run.started_at_millis)
            .map(Timestamp::from_unix_millis),
        exited_at: run
            .and_then(|run| run.exited_at_millis)
            .map(Timestamp::from_unix_millis),
        image: module.image,
        image_hash: Some(module.image_hash),
        pid: run
            .and_then(|run| run.main)
            .filter(|main| up && main.is_alive())
            .map(|main| main.pid),
        spec_digest: Some(module.spec_digest),
        labels: module.labels,
        // The record names the boot: no clock is asked, which may be wrong when the device starts.
        is_from_before_boot: run.zip(boot_id().ok()).map(|(run, boot)| run.boot_id != boot),
    }
}
