//! The processes of the demo: this same program, as hub and as edge. What is started here is ended here, by its process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long a process may take to be ready.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// How long it may take to end when told.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// A hub or an edge.
#[derive(Debug)]
pub(super) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
    /// Where it listens, by name: `mqtt`, `https`, …
    addresses: Vec<(String, SocketAddr)>,
}

impl Process {
    /// Starts `holm ARGUMENTS…` and waits until it says that it is ready.
    pub(super) async fn start(
        name: &'static str,
        arguments: &[&std::ffi::OsStr],
        directory: &Path,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program does not know its own file")?;
        let log = directory.join(format!("{name}.log"));
        let log_file = std::fs::File::create(&log).with_context(|| format!("`{}` can't be made", log.display()))?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("the {name} can't be started"))?;
        let mut process = Self {
            name,
            addresses: Vec::new(),
            log,
            child: {
                child.stdin.take();
                child
            },
        };
        match tokio::time::timeout(START_DEADLINE, process.ready()).await {
            Ok(Ok(())) => Ok(process),
            Ok(Err(error)) => Err(error),
            Err(_) => bail!(
                "the {name} was not ready within {} s: {}",
                START_DEADLINE.as_secs(),
                process.last_words()
            ),
        }
    }

    /// Where it listens.
    pub(super) fn address(&self, name: &str) -> anyhow::Result<SocketAddr> {
        let found = self
            .addresses
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, address)| *address);
        found.with_context(|| format!("the {} does not say where it listens for {name}", self.name))
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let output = self.child.stdout.take().context("its standard output is not there")?;
        let mut lines = BufReader::new(output).lines();
        while let Some(line) = lines.next_line().await.context("its standard output broke off")? {
            if let Some(rest) = line.strip_prefix("ready ") {
                self.addresses = rest
                    .split_whitespace()
                    .filter_map(|pair| pair.split_once('='))
                    .filter_map(|(name, address)| Some((name.to_owned(), address.parse().ok()?)))
                    .collect();
                return Ok(());
            }
        }
        bail!("the {} ended at its start: {}", self.name, self.last_words())
    }

    /// Whether it still runs; if not, why the story can't go on.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait().context("a process can't be asked for")? {
            None => Ok(()),
            Some(status) => bail!("the {} has ended ({status}): {}", self.name, self.last_words()),
        }
    }

    /// Ends it, in good order if it will.
    pub(super) async fn stop(mut self) {
        let pid = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid
            && let Err(error) = kill_process(pid, Signal::TERM)
        {
            tracing::debug!(name = self.name, %error, "it was gone before it was told to stop");
        }
        if tokio::time::timeout(STOP_DEADLINE, self.child.wait()).await.is_err() {
            tracing::warn!(name = self.name, "it did not stop when told and is killed");
            if let Err(error) = self.child.kill().await {
                tracing::warn!(name = self.name, %error, "it can't be killed");
            }
        }
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(3).collect();
        if lines.is_empty() {
            "it left no log".to_owned()
        } else {
            lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
        }
    }
}
