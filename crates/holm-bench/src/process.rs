//! Processes: what one used, from `/proc`, and one of our own that ends with its owner.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

/// How long a process may take to end when told to.
const END_DEADLINE: Duration = Duration::from_secs(10);
/// How much of a log is shown when something goes wrong.
const SHOWN_BYTES: usize = 2000;

/// What processes used together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Processor time, user and system, in seconds; the kernel counts hundredths.
    pub cpu_seconds: f64,
    /// Resident memory in KiB.
    pub resident_kib: u64,
}

impl Usage {
    /// The processor time since an earlier moment, and the memory now.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - earlier.cpu_seconds,
            resident_kib: self.resident_kib,
        }
    }
}

/// What these processes have used so far.
///
/// # Errors
/// One of them is gone.
pub fn usage_of(pids: &[u32]) -> Result<Usage> {
    let mut usage = Usage::default();
    for pid in pids {
        let read = |file: &str| {
            std::fs::read_to_string(format!("/proc/{pid}/{file}")).with_context(|| format!("process {pid} is gone"))
        };
        usage.cpu_seconds += cpu_seconds(&read("stat")?).with_context(|| format!("`/proc/{pid}/stat`"))?;
        usage.resident_kib += resident_kib(&read("status")?).with_context(|| format!("`/proc/{pid}/status`"))?;
    }
    Ok(usage)
}

/// Fields 14 and 15, counted from the one after the name, which is in brackets and may hold anything.
fn cpu_seconds(stat: &str) -> Result<f64> {
    let (_, fields) = stat.rsplit_once(") ").context("no name in brackets")?;
    let ticks = |index: usize| -> Result<f64> {
        let field = fields.split_whitespace().nth(index).context("too few fields")?;
        field.parse().context("not a number of ticks")
    };
    #[expect(clippy::cast_precision_loss, reason = "it is 100")]
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    Ok((ticks(11)? + ticks(12)?) / per_second)
}

/// Memory of a process in KiB: its own, and its share of what others use too.
///
/// # Errors
/// It is gone, or another user's.
pub fn proportional_kib(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("`{path}` can't be read"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.context("no Pss")?.parse().context("Pss is not a number")
}

fn resident_kib(status: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line
        .and_then(|line| line.split_whitespace().next())
        .context("no VmRSS")?;
    number.parse().context("VmRSS is not a number")
}

/// A process that was started here; dropped, it ends.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program whose output goes to a log file. Its standard input is a pipe that closes when this is dropped.
    ///
    /// # Errors
    /// The program or the log can't be opened.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("`{}` can't be written", log.display()))?;
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("`{name}` can't be started"))?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.context("the process has no number")?, signal)?)
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// It has ended; with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("it ended with {status}; its last words:\n{}", self.last_words()),
        }
    }

    /// What it wrote so far.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read(&self.log).map_or_else(
            |error| format!("`{}` can't be read: {error}", self.log.display()),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    fn last_words(&self) -> String {
        let output = self.output();
        let start = (output.len().saturating_sub(SHOWN_BYTES)..output.len())
            .find(|index| output.is_char_boundary(*index))
            .unwrap_or(0);
        output.split_at(start).1.to_owned()
    }

    /// Asks it to end and waits; kills it when it takes too long.
    fn end(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + END_DEADLINE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                self.child.kill()?;
                self.child.wait()?;
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(pid = self.pid(), %error, "a process that was started here did not end");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_used_memory_and_never_less_time_than_before() {
        let before = usage_of(&[std::process::id()]).unwrap();
        let mut sum = 0_u64;
        while usage_of(&[std::process::id()]).unwrap().since(before).cpu_seconds < 0.02 {
            sum = (0..100_000).fold(sum, u64::wrapping_add);
        }

        let now = usage_of(&[std::process::id()]).unwrap().since(before);

        assert!(now.resident_kib > 500, "{now:?}");
        assert!(now.cpu_seconds >= 0.02, "{now:?}");
    }

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 150 0 0";

        let seconds = cpu_seconds(stat).unwrap();

        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert!((seconds - 400.0 / ticks).abs() < 1e-9, "{seconds}");
    }

    #[test]
    fn a_process_ends_when_its_owner_drops_it() {
        let directory = tempfile::tempdir().unwrap();
        let process = Process::start(Command::new("sleep").arg("600"), &directory.path().join("log")).unwrap();
        let pid = process.pid();
        assert!(Path::new(&format!("/proc/{pid}")).exists());

        drop(process);

        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_process_that_fails_is_noticed_with_its_last_words() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such port >&2; exit 3"]);
        let mut process = Process::start(&mut command, &directory.path().join("log")).unwrap();

        let error = loop {
            if let Err(error) = process.check() {
                break error;
            }
            std::thread::yield_now();
        };

        assert!(error.to_string().contains("no such port"), "{error}");
    }
}
