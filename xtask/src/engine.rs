//! The container engine: borrowed when one runs, else started here and, only then, stopped here.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::run::{output, peers};
use crate::setup::as_root;

/// How long the engine may take to answer after its start, and to end after it was asked to.
const PATIENCE: Duration = Duration::from_secs(90);

/// A container engine that answers. Dropping it stops it if it was started here.
#[derive(Debug)]
pub(crate) struct Engine(Option<Child>);

impl Engine {
    /// Finds a running engine, or starts one with its data under `target/peers/docker`.
    ///
    /// # Errors
    /// When it ends at once or does not answer in time; with the end of its log.
    pub(crate) fn ensure() -> Result<Self> {
        if answers() {
            return Ok(Self(None));
        }
        let data = peers().join("docker");
        std::fs::create_dir_all(&data).with_context(|| format!("`{}` can't be made", data.display()))?;
        let log_path = peers().join("dockerd.log");
        let log = File::create(&log_path).with_context(|| format!("`{}` can't be written", log_path.display()))?;
        eprintln!(
            "  no container engine answers; starting `dockerd` (log: {})",
            log_path.display()
        );
        let child = as_root("dockerd")?
            .arg("--data-root")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("`dockerd` can't be started")?;
        let mut engine = Self(Some(child));
        let began = Instant::now();
        while !answers() {
            let ended = engine.0.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || began.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(&log_path).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(8).collect();
                let last: Vec<&str> = last.into_iter().rev().collect();
                bail!("`dockerd` does not answer; the end of its log:\n{}", last.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(engine)
    }

    /// Stops the engine if it was started here.
    pub(crate) fn stop(self) {
        drop(self);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else {
            return;
        };
        eprintln!("  stopping the `dockerd` that was started here");
        // The shell's own `kill`: a small system has no other.
        let command = format!("kill {}", child.id());
        let asked = as_root("sh").and_then(|mut shell| output(shell.args(["-c", &command])));
        if let Err(error) = asked {
            eprintln!("  `dockerd` (process {}) can't be stopped: {error:#}", child.id());
            return;
        }
        let began = Instant::now();
        while matches!(child.try_wait(), Ok(None)) {
            if began.elapsed() > PATIENCE {
                eprintln!(
                    "  `dockerd` (process {}) goes on after {} s; it is left running",
                    child.id(),
                    PATIENCE.as_secs()
                );
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn answers() -> bool {
    output(Command::new("docker").args(["version", "--format", "{{.Server.Version}}"])).is_ok()
}
