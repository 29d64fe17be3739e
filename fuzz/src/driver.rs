//! Runs a target for a time, in a process of its own, and saves what breaks it.
//!
//! ```text
//! driver ── worker TARGET SEED FROM SECONDS ──► "at 8192"   every batch; panics are caught and told by number
//!    │                                          "found 9001 why"
//!    └── the worker died (abort, memory, stack) ── worker … one by one from the last batch ──► the number
//! ```
//!
//! Only the worker runs targets, so an abort is a finding like any other. Its memory is limited far above what an input of
//! 64 KiB may cost, and far below what a length field can ask for.

use std::io::{BufRead as _, BufReader, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::mutate;
use crate::targets::{TARGETS, Target};

/// The word that makes this program a worker.
pub const WORKER: &str = "--worker";
/// Inputs between two signs of life.
const BATCH: u64 = 1024;
/// The memory that a worker may have beside its program, in bytes.
const MEMORY: u64 = 256 * 1024 * 1024;
/// The time that one input may take.
const SLOW: Duration = Duration::from_secs(5);

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Chooses the inputs.
    pub seed: u64,
    /// How long.
    pub time: Duration,
}

/// What came of it.
#[derive(Debug)]
pub enum Verdict {
    /// Nothing broke.
    Clean {
        /// How many inputs there were.
        inputs: u64,
    },
    /// The number of the input, why, and where it is saved.
    Found(String),
}

/// Runs a target as planned.
///
/// # Errors
/// When the worker can't be started or the finding can't be saved.
pub fn drive(target: &Target, plan: Plan) -> Result<Verdict> {
    let mut run = run_worker(target, plan, 0, BATCH)?;
    if run.end == End::Died {
        run = run_worker(target, plan, run.at, 1)?;
        if run.end == End::Died {
            let why = "the process died (an abort, too much memory, or the stack)".to_owned();
            run.end = End::Found(run.at, why);
        }
    }
    match run.end {
        End::Clean => Ok(Verdict::Clean { inputs: run.at }),
        End::Died => bail!("`{}` died and did not die again at the same inputs", target.name),
        End::Found(number, why) => {
            let input = mutate::input(plan.seed, number, &examples(target)?);
            let path = save(target, plan.seed, number, &input)?;
            Ok(Verdict::Found(format!(
                "input {number}, saved as `{}`: {why}",
                path.display()
            )))
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Clean,
    Found(u64, String),
    Died,
}

struct Run {
    /// The last number that was told to begin.
    at: u64,
    end: End,
}

fn run_worker(target: &Target, plan: Plan, from: u64, batch: u64) -> Result<Run> {
    let program = std::env::current_exe().context("this program does not know where it is")?;
    let mut child = Command::new(program)
        .args([WORKER, target.name])
        .args([plan.seed, from, plan.time.as_secs(), batch].map(|number| number.to_string()))
        .env("MALLOC_ARENA_MAX", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("the worker can't be started")?;
    let output = child.stdout.take().context("the worker has no output")?;
    let mut run = Run {
        at: from,
        end: End::Died,
    };
    for line in BufReader::new(output).lines() {
        let line = line.context("the worker's output can't be read")?;
        let mut words = line.splitn(3, ' ');
        let word = words.next().unwrap_or_default();
        let number = words.next().and_then(|it| it.parse().ok()).unwrap_or(run.at);
        match word {
            "at" => run.at = number,
            "done" => (run.at, run.end) = (number, End::Clean),
            "found" => run.end = End::Found(number, words.next().unwrap_or_default().to_owned()),
            _ => {}
        }
    }
    child.wait().context("the worker can't be waited for")?;
    Ok(run)
}

/// The worker: `TARGET SEED FROM SECONDS BATCH`.
///
/// # Errors
/// When the arguments are wrong or the driver is gone.
pub fn work(arguments: &[String]) -> Result<()> {
    let [name, seed, from, seconds, batch] = arguments else {
        bail!("a worker needs five arguments");
    };
    let target = TARGETS
        .iter()
        .find(|target| target.name == name)
        .context("an unknown target")?;
    let (seed, mut number): (u64, u64) = (seed.parse()?, from.parse()?);
    let (time, batch): (Duration, u64) = (Duration::from_secs(seconds.parse()?), batch.parse()?);
    let examples = examples(target)?;
    limit_memory()?;
    let current = watch();
    let began = Instant::now();
    while began.elapsed() < time {
        tell(&format!("at {number}"))?;
        for _ in 0..batch {
            current.store(number, Ordering::Relaxed);
            let input = mutate::input(seed, number, &examples);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(&input))) {
                return tell(&format!("found {number} panic: {}", message(panic.as_ref())));
            }
            number += 1;
        }
    }
    tell(&format!("done {number}"))
}

/// Ends the worker when one input takes too long. Returns where the loop writes the number of its input.
fn watch() -> Arc<AtomicU64> {
    let current = Arc::new(AtomicU64::new(u64::MAX));
    let watched = Arc::clone(&current);
    std::thread::spawn(move || {
        let mut last = u64::MAX;
        loop {
            std::thread::sleep(SLOW);
            let now = watched.load(Ordering::Relaxed);
            if now == last && now != u64::MAX {
                // If the driver is gone there is nobody to tell; the worker ends either way.
                tell(&format!("found {now} it takes more than {} s", SLOW.as_secs())).ok();
                std::process::exit(1);
            }
            last = now;
        }
    });
    current
}

fn limit_memory() -> Result<()> {
    let mut limit: Rlimit = getrlimit(Resource::Data);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let used = status.lines().find_map(|line| line.strip_prefix("VmData:"));
    let kilobytes: u64 = used
        .and_then(|text| text.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0);
    limit.current = Some(kilobytes * 1024 + MEMORY);
    setrlimit(Resource::Data, limit).context("the memory can't be limited")
}

fn tell(line: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{}", line.replace('\n', " "))
        .and_then(|()| output.flush())
        .context("the driver is gone")
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()))
        .unwrap_or_default()
}

/// The examples of a target: its seeds and the inputs that once broke it. Sorted by name, so that numbers mean the same.
///
/// # Errors
/// When the folder of seeds can't be read.
pub fn examples(target: &Target) -> Result<Vec<Vec<u8>>> {
    let mut files = files(&folder("seeds", target))?;
    files.extend(files_if_any(&folder("regressions", target))?);
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("`{}` can't be read", path.display()));
    files.iter().map(read).collect()
}

fn files_if_any(folder: &Path) -> Result<Vec<PathBuf>> {
    if folder.is_dir() { files(folder) } else { Ok(Vec::new()) }
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("`{}` can't be read", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

fn save(target: &Target, seed: u64, number: u64, input: &[u8]) -> Result<PathBuf> {
    let folder = folder("regressions", target);
    std::fs::create_dir_all(&folder).with_context(|| format!("`{}` can't be made", folder.display()))?;
    let path = folder.join(format!("{seed}-{number}"));
    std::fs::write(&path, input).with_context(|| format!("`{}` can't be written", path.display()))?;
    Ok(path)
}

fn folder(kind: &str, target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(kind).join(target.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inputs of each target in an ordinary test; a campaign runs millions.
    const A_FEW: u64 = 3000;

    #[test]
    fn seeds_regressions_and_a_few_mutations_break_no_target() {
        for target in TARGETS {
            let examples = examples(target).unwrap();
            for example in &examples {
                (target.run)(example);
            }
            for number in 0..A_FEW {
                let input = mutate::input(1, number, &examples);
                let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
                assert!(
                    outcome.is_ok(),
                    "`{}` fails at input {number} of seed 1: {input:?}",
                    target.name
                );
            }
        }
    }
}
