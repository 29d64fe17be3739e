//! The supervisor itself: one loop that waits for output, requests, signals and the end of the program.
//!
//! ```text
//!   lock ─> Starting ─> Running ──────────────────────────────> Ended
//!              │           │  stop: signal, after the grace KILL  ^
//!              └───────────┴──────────────────────────────────────┘
//! ```
//!
//! `state.json` is written at each arrow, before anyone is told.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{ChildStderr, ChildStdout, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal, WaitStatus, kill_process};

use super::connections::Connections;
use super::health::Checks;
use super::output::LogWriter;
use super::protocol::{Answer, Content, Operation};
use super::{Launched, children, complain, stage};
use crate::logs::Output;
use crate::process::cgroup;
use crate::process::procfs::{ProcessId, boot_id};
use crate::process::record::{Directory, FORMAT, Phase, Plan, RunState, read, write};
use crate::process::socket;

/// How long a supervisor waits for the one before it to let go of the module.
const LONGEST_LOCK_WAIT: Duration = Duration::from_secs(5);

/// What is read from a pipe at once.
const READ_BYTES: usize = 16 * 1024;

/// Supervises the module in this directory until it ends.
pub(super) fn run(directory: &Directory, prefix: &[OsString]) -> u8 {
    let lock = match lock(directory) {
        Ok(Some(lock)) => lock,
        Ok(None) => return tell(&Launched::AlreadySupervised),
        Err(error) => return tell(&Launched::Failed(format!("its lock cannot be taken: {error}"))),
    };
    let code = match Supervisor::start(directory, prefix) {
        Ok(supervisor) => {
            // An edge that died in the meantime finds the module in its records.
            tell(&Launched::Started);
            supervisor.run()
        }
        Err(reason) => tell(&Launched::Failed(reason)),
    };
    drop(lock);
    code
}

/// Tells the launch stage how it went, and lets go of it.
fn tell(result: &Launched) -> u8 {
    let mut line = serde_json::to_string(result).unwrap_or_default();
    line.push('\n');
    let told = io::stdout().write_all(line.as_bytes()).and_then(|()| {
        let nothing = OpenOptions::new().write(true).open("/dev/null")?;
        Ok(rustix::stdio::dup2_stdout(nothing)?)
    });
    match told {
        Ok(()) => 0,
        Err(error) => {
            complain(&format!("the launch stage cannot be told `{}`: {error}", line.trim()));
            1
        }
    }
}

fn lock(directory: &Directory) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(directory.lock())?;
    let deadline = Instant::now() + LONGEST_LOCK_WAIT;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() >= deadline => return Ok(None),
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => return Err(error.into()),
        }
    }
}

struct Supervisor {
    directory: Directory,
    plan: Plan,
    state: RunState,
    main: Pid,
    signals: SignalFd,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    log: LogWriter,
    connections: Connections,
    checks: Option<Checks>,
    kill_at: Option<Instant>,
}

impl Supervisor {
    fn start(directory: &Directory, prefix: &[OsString]) -> Result<Self, String> {
        let plan: Plan = match read(&directory.plan()) {
            Ok(Some(plan)) => plan,
            Ok(None) => return Err("its plan is missing".to_owned()),
            Err(error) => return Err(format!("its plan cannot be read: {error}")),
        };
        let mut state = new_state(directory).map_err(|error| format!("/proc cannot be read: {error}"))?;
        save(directory, &state);
        let started = Self::start_program(directory, prefix, plan, state.clone());
        if let Err(reason) = &started {
            // What Docker reports when a container's program cannot be executed.
            state.phase = Phase::Ended;
            state.exit_code = Some(127);
            state.exited_at_millis = Some(millis(SystemTime::now()));
            state.description = Some(reason.clone());
            save(directory, &state);
        }
        started
    }

    fn start_program(
        directory: &Directory,
        prefix: &[OsString],
        plan: Plan,
        mut state: RunState,
    ) -> Result<Self, String> {
        let failed = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| failed("it cannot adopt processes")(error.into()))?;
        let signals = take_signals().map_err(failed("it cannot take signals"))?;
        let listener = listen(directory).map_err(failed("its socket cannot be made"))?;
        let connections = Connections::new(listener).map_err(failed("its socket cannot be made"))?;
        for group in &plan.groups {
            cgroup::create(group).map_err(failed("its control group cannot be made"))?;
        }
        let (mut report, theirs) = UnixStream::pair().map_err(failed("no socket pair"))?;
        let mut child = stage("exec", directory, prefix)
            .arg(std::process::id().to_string())
            .stdin(std::os::fd::OwnedFd::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(failed("its first stage cannot be started"))?;
        let main = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or("its pid is out of range")?;
        let id = ProcessId::of(child.id());
        let mut reason = String::new();
        let heard = report.read_to_string(&mut reason);
        if !reason.is_empty() || heard.is_err() {
            children::end_all();
            for group in &plan.groups {
                drop(cgroup::remove(group));
            }
            drop(std::fs::remove_file(directory.socket()));
            return Err(if reason.is_empty() {
                "its first stage broke off".to_owned()
            } else {
                reason
            });
        }
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        for pipe in [stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)]
            .into_iter()
            .flatten()
        {
            rustix::io::ioctl_fionbio(pipe, true).map_err(|error| failed("its output cannot be read")(error.into()))?;
        }
        state.phase = Phase::Running;
        state.main = id;
        state.started_at_millis = Some(millis(SystemTime::now()));
        let checks = plan.health.clone().map(|check| Checks::new(check, directory, prefix));
        state.health = checks.as_ref().map(Checks::state);
        save(directory, &state);
        Ok(Self {
            log: LogWriter::new(directory.clone(), plan.log),
            directory: directory.clone(),
            plan,
            state,
            main,
            signals,
            stdout,
            stderr,
            connections,
            checks,
            kill_at: None,
        })
    }

    fn run(mut self) -> u8 {
        let status = loop {
            if let Err(error) = self.wait() {
                complain(&format!("waiting failed: {error}"));
                self.send(Signal::KILL);
            }
            while let Ok(Some(signal)) = self.signals.read_signal() {
                // Whoever ends the supervisor means the module: at shutdown everything is asked to end.
                if signal.ssi_signo == NixSignal::SIGTERM as u32 || signal.ssi_signo == NixSignal::SIGINT as u32 {
                    self.stop(None);
                }
            }
            self.read_output();
            self.connections.accept();
            for (connection, operation) in self.connections.read() {
                self.obey(connection, &operation);
            }
            if self.kill_at.is_some_and(|at| Instant::now() >= at) {
                self.kill_at = None;
                self.send(Signal::KILL);
            }
            let collected = children::collect(self.main, self.checks.as_ref().and_then(Checks::pid));
            if let Some(status) = collected.main {
                break status;
            }
            self.check(collected.check);
        };
        self.end(children::exit_code(status))
    }

    /// Goes on with the health check. A module that was asked to end is left in peace.
    fn check(&mut self, ended: Option<WaitStatus>) {
        let Some(checks) = &mut self.checks else { return };
        let is_news = match ended {
            Some(status) => checks.ended(status),
            None if self.kill_at.is_some() && checks.pid().is_none() => false,
            None => checks.turn(),
        };
        if is_news {
            self.state.health = Some(checks.state());
            save(&self.directory, &self.state);
        }
    }

    /// Waits until there is something to do.
    fn wait(&self) -> io::Result<()> {
        let outputs = [
            self.stdout.as_ref().map(AsFd::as_fd),
            self.stderr.as_ref().map(AsFd::as_fd),
        ];
        let descriptors = std::iter::once(self.signals.as_fd())
            .chain(outputs.into_iter().flatten())
            .chain(self.checks.as_ref().and_then(Checks::descriptor))
            .chain(self.connections.descriptors());
        let mut wanted: Vec<PollFd<'_>> = descriptors
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let left = self.kill_at.map(|at| at.saturating_duration_since(Instant::now()));
        let check = self
            .checks
            .as_ref()
            .filter(|checks| left.is_none() || checks.pid().is_some());
        let left = [left, check.and_then(Checks::wait)].into_iter().flatten().min();
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut wanted, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads once from each pipe: a module that writes without end must not keep requests waiting.
    fn read_output(&mut self) -> bool {
        let mut buffer = [0; READ_BYTES];
        let out = read_pipe(&mut self.stdout, Output::Stdout, &mut self.log, &mut buffer);
        let err = read_pipe(&mut self.stderr, Output::Stderr, &mut self.log, &mut buffer);
        out || err
    }

    fn obey(&mut self, connection: usize, operation: &Operation) {
        match operation {
            Operation::Status => {
                let answer = Answer::new(Content::State(Box::new(self.state.clone())));
                self.connections.answer(connection, &answer);
            }
            Operation::Stop { grace_millis } => {
                self.connections.wait(connection);
                self.stop(grace_millis.map(Duration::from_millis));
            }
            Operation::Kill => {
                self.connections.wait(connection);
                self.send(Signal::KILL);
            }
        }
    }

    fn stop(&mut self, grace: Option<Duration>) {
        let grace = grace.unwrap_or_else(|| Duration::from_millis(self.plan.stop_grace_millis));
        self.send(Signal::from_named_raw(self.plan.stop_signal).unwrap_or(Signal::TERM));
        // Of several requests the most impatient counts. A deadline past the end of time is none.
        let at = Instant::now().checked_add(grace);
        self.kill_at = match (self.kill_at, at) {
            (Some(earlier), Some(at)) => Some(earlier.min(at)),
            (earlier, at) => earlier.or(at),
        };
    }

    /// The program has not been collected yet, so its pid is still its own.
    fn send(&self, signal: Signal) {
        if let Err(error) = kill_process(self.main, signal) {
            complain(&format!(
                "the program cannot be sent signal {}: {error}",
                signal.as_raw()
            ));
        }
    }

    fn end(mut self, exit_code: i32) -> u8 {
        let all_gone = children::end_all();
        while self.read_output() {}
        self.log.finish(SystemTime::now());
        self.state.phase = Phase::Ended;
        self.state.health = None;
        self.state.exit_code = Some(exit_code);
        self.state.exited_at_millis = Some(millis(SystemTime::now()));
        self.state.description = if self.plan.groups.iter().any(cgroup::was_out_of_memory) {
            Some("it used more memory than `HostConfig.Memory` allows".to_owned())
        } else if !all_gone {
            Some("processes that it left behind cannot be ended".to_owned())
        } else {
            None
        };
        for group in &self.plan.groups {
            if let Err(error) = cgroup::remove(group) {
                complain(&format!(
                    "the control group {} cannot be removed: {error}",
                    group.path.display()
                ));
            }
        }
        save(&self.directory, &self.state);
        drop(std::fs::remove_file(self.directory.socket()));
        self.connections
            .finish(&Answer::new(Content::State(Box::new(self.state))));
        0
    }
}

/// Reads a pipe once; true when there may be more.
fn read_pipe(pipe: &mut Option<impl Read>, output: Output, log: &mut LogWriter, buffer: &mut [u8]) -> bool {
    let Some(reader) = pipe else { return false };
    match reader.read(buffer) {
        Ok(0) => {
            *pipe = None;
            false
        }
        Ok(length) => {
            log.take(output, buffer.get(..length).unwrap_or_default(), SystemTime::now());
            true
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
        Err(error) => {
            complain(&format!("output cannot be read: {error}"));
            *pipe = None;
            false
        }
    }
}

/// The state at the start: what is known of the run before stays until this one says better.
fn new_state(directory: &Directory) -> io::Result<RunState> {
    let before = read::<RunState>(&directory.state()).ok().flatten();
    Ok(RunState {
        format: FORMAT,
        boot_id: boot_id()?,
        supervisor: ProcessId::own()?,
        main: None,
        phase: Phase::Starting,
        started_at_millis: before.as_ref().and_then(|before| before.started_at_millis),
        exited_at_millis: before.as_ref().and_then(|before| before.exited_at_millis),
        exit_code: None,
        description: None,
        health: None,
    })
}

/// A state that cannot be written is complained of and not fatal: on a full disk the module goes on, and the socket still
/// tells the truth.
fn save(directory: &Directory, state: &RunState) {
    if let Err(error) = write(&directory.state(), state) {
        complain(&format!("{} cannot be written: {error}", directory.state().display()));
    }
}

fn listen(directory: &Directory) -> io::Result<UnixListener> {
    match std::fs::remove_file(directory.socket()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = socket::bind(&directory.socket())?;
    std::fs::set_permissions(directory.socket(), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

/// Signals that would end the supervisor come as data instead. The program starts with none blocked.
fn take_signals() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [
        NixSignal::SIGTERM,
        NixSignal::SIGINT,
        NixSignal::SIGHUP,
        NixSignal::SIGCHLD,
    ] {
        set.add(signal);
    }
    set.thread_block()?;
    Ok(SignalFd::with_flags(
        &set,
        SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
    )?)
}

fn millis(now: SystemTime) -> i64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
