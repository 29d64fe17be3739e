//! `holm hub backup` and `holm hub restore`.
//!
//! ```text
//! a hub that runs ──HTTPS──┐
//!                          ├─> every byte checked ─> FILE.part ─> on disk ─> FILE
//! one that does not, files ┘
//! ```
//!
//! A hub that runs is asked, also where its data directory is at hand: one process opens a data directory.

use std::fs::{File, TryLockError};
use std::io::{IsTerminal as _, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use holm_hub::backup::{self, Archive, BackupError, Making, Offline, Summary};
use holm_hub::hub::{DataDirectoryError, connection_string, host_name};
use holm_model::Timestamp;
use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::CONTENT_LENGTH;
use serde_json::{Value, json};

use crate::cli;
use crate::commands::hub_access;
use crate::output::{self, WrongUse};
use crate::service::Service;

/// Where a hub gives its backup.
const PATH: &str = "/holm/v1/backup";
/// How often progress is shown.
const SHOWN: std::time::Duration = std::time::Duration::from_millis(200);

pub(super) async fn run(command: cli::Backup) -> anyhow::Result<()> {
    match (command.verb, command.to) {
        (Some(cli::BackupVerb::Verify { file, json }), _) => verify(&file, json),
        (None, Some(to)) => {
            let options = Options {
                to,
                data: command.data,
                blobs: command.blobs,
                hub: command.hub,
            };
            make(options).await
        }
        (None, None) => bail!(WrongUse("say where the backup goes, with `--to`".to_owned())),
    }
}

struct Options {
    to: PathBuf,
    data: Option<PathBuf>,
    blobs: Option<PathBuf>,
    hub: cli::HubAccess,
}

/// Where a backup comes from.
enum Origin {
    Asked(Box<Response<Incoming>>),
    Files(Box<Making>),
}

async fn make(options: Options) -> anyhow::Result<()> {
    let is_standard_output = options.to.as_os_str() == "-";
    if is_standard_output && options.hub.json {
        let text = "`--json` and the backup would both go to standard output; give another `--to`";
        bail!(WrongUse(text.to_owned()));
    }
    if is_standard_output && std::io::stdout().is_terminal() {
        let text = "a backup is not for a terminal; pass it on, as in `holm hub backup --to - | age -r KEY > FILE`";
        bail!(WrongUse(text.to_owned()));
    }
    let (origin, host) = begin(&options).await?;
    let target = if options.to.is_dir() {
        options.to.join(usual_name(&host))
    } else {
        options.to
    };
    let mut taken = if is_standard_output {
        Taken::to_standard_output(origin.length())
    } else {
        Taken::to_file(&target, origin.length())?
    };
    let written = match origin {
        Origin::Asked(answer) => receive(*answer, &mut taken).await,
        Origin::Files(making) => making
            .write(&mut |bytes| taken.take(bytes).map_err(std::io::Error::other))
            .context("the backup can't be made"),
    };
    let summary = taken.end(written)?;
    if options.hub.json {
        let mut told = told(&summary);
        told["file"] = json!(target.display().to_string());
        output::json(&told);
    } else {
        let what = if is_standard_output {
            "standard output".to_owned()
        } else {
            format!("`{}`", target.display())
        };
        output::note(&format!("{what}: {}", in_words(&summary)));
    }
    if summary.head.missing_blobs > 0 {
        output::note(&format!(
            "holm: {} files of devices are not in it, for the hub's store has not got them: those in a bucket stay there",
            summary.head.missing_blobs
        ));
    }
    Ok(())
}

/// Takes the hub's files if it does not run, else asks it; also gives what the hub is called.
async fn begin(options: &Options) -> anyhow::Result<(Origin, String)> {
    let Some(data) = &options.data else {
        let service = hub_access::open(&options.hub)?;
        let answer = service.open(PATH).await?;
        return Ok((Origin::Asked(Box::new(answer)), service.host().to_owned()));
    };
    let now = Timestamp::from(SystemTime::now());
    match Offline::begin(data, options.blobs.as_deref(), now) {
        Ok(making) => Ok((Origin::Files(Box::new(making)), host_name(data).unwrap_or_default())),
        Err(BackupError::Directory(DataDirectoryError::InUse { .. })) => {
            let text = connection_string(data).context("the hub runs, and how to ask it is not known")?;
            let ca = options.hub.authority().unwrap_or_else(|| data.join("ca.pem"));
            let service = Service::new(text.expose(), Some(&ca))?;
            let answer = service.open(PATH).await.context("the hub runs, and was asked")?;
            Ok((Origin::Asked(Box::new(answer)), service.host().to_owned()))
        }
        Err(error) => Err(error).context("the hub can't be backed up"),
    }
}

impl Origin {
    fn length(&self) -> u64 {
        match self {
            Self::Files(making) => making.length(),
            Self::Asked(answer) => {
                let length = answer.headers().get(CONTENT_LENGTH);
                length.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0)
            }
        }
    }
}

async fn receive(answer: Response<Incoming>, taken: &mut Taken) -> anyhow::Result<()> {
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the backup broke off; the hub's log tells why")?;
        let bytes: Bytes = frame.into_data().unwrap_or_default();
        // Nothing else waits for this thread.
        taken.take(&bytes)?;
    }
    Ok(())
}

/// A backup as it comes: checked, and written to where it goes.
struct Taken {
    archive: Archive,
    out: Out,
    progress: Progress,
    bytes: u64,
}

enum Out {
    StandardOutput,
    File { file: File, part: PathBuf, target: PathBuf },
}

impl Taken {
    fn to_standard_output(length: u64) -> Self {
        Self {
            archive: Archive::default(),
            out: Out::StandardOutput,
            progress: Progress::new(length),
            bytes: 0,
        }
    }

    /// To a file for this user alone, which has its name when all of it is on disk.
    fn to_file(target: &Path, length: u64) -> anyhow::Result<Self> {
        let mut part = target.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let shown = part.display().to_string();
        let made = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&part);
        let file = made.with_context(|| format!("`{shown}` can't be made"))?;
        // One that was cut off has left its part; one that goes on holds it.
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("another backup is being written to `{shown}`; wait until it has ended")
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("`{shown}` can't be locked")),
        }
        file.set_len(0).with_context(|| format!("`{shown}` can't be written"))?;
        Ok(Self {
            archive: Archive::default(),
            out: Out::File {
                file,
                part,
                target: target.to_owned(),
            },
            progress: Progress::new(length),
            bytes: 0,
        })
    }

    fn take(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.archive.check(bytes).context("what came is no whole backup")?;
        match &mut self.out {
            Out::StandardOutput => output::bytes(bytes),
            Out::File { file, part, .. } => {
                let written = file.write_all(bytes);
                written.with_context(|| format!("`{}` can't be written", part.display()))?;
            }
        }
        self.bytes += bytes.len() as u64;
        self.progress.at(self.bytes);
        Ok(())
    }

    /// All of it came, or not: then nothing of it stays.
    fn end(self, written: anyhow::Result<()>) -> anyhow::Result<Summary> {
        self.progress.end();
        let whole = written.and_then(|()| self.archive.finish().context("what came is no whole backup"));
        let Out::File { file, part, target } = self.out else {
            return whole;
        };
        let kept = whole.and_then(|summary| {
            file.sync_all()
                .with_context(|| format!("`{}` can't be written", part.display()))?;
            let renamed = std::fs::rename(&part, &target).and_then(|()| {
                let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty());
                File::open(directory.unwrap_or_else(|| Path::new(".")))?.sync_all()
            });
            renamed.with_context(|| format!("`{}` can't be written", target.display()))?;
            Ok(summary)
        });
        if kept.is_err()
            && let Err(error) = std::fs::remove_file(&part)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            output::note(&format!(
                "holm: `{}` is left, and can't be removed: {error}",
                part.display()
            ));
        }
        kept
    }
}

fn verify(file: &Path, as_json: bool) -> anyhow::Result<()> {
    let (mut source, length) = open(file)?;
    let mut progress = Progress::new(length);
    let read = backup::verify(&mut source, &mut |bytes| progress.at(bytes));
    progress.end();
    let summary = read.with_context(|| format!("`{}` can't be restored", file.display()))?;
    if as_json {
        output::json(&told(&summary));
    } else {
        output::line(&format!("whole: {}", in_words(&summary)));
    }
    Ok(())
}

pub(super) fn restore(options: &cli::Restore) -> anyhow::Result<()> {
    let (mut source, length) = open(&options.from)?;
    let mut progress = Progress::new(length);
    let restored = backup::restore(&mut source, &options.data, options.blobs.as_deref(), &mut |bytes| {
        progress.at(bytes);
    });
    progress.end();
    let summary = restored.with_context(|| format!("`{}` is not restored", options.from.display()))?;
    let data = options.data.display().to_string();
    if options.json {
        let mut told = told(&summary);
        told["data"] = json!(data);
        output::json(&told);
        return Ok(());
    }
    output::note(&format!("restored `{data}`: {}", in_words(&summary)));
    let blobs = options
        .blobs
        .as_ref()
        .map(|blobs| format!(" --blobs {}", blobs.display()));
    output::note(&format!(
        "start it with `holm hub run --data {data} --hostname {}{}`, and the other options that it had",
        summary.head.host_name.split(':').next().unwrap_or_default(),
        blobs.unwrap_or_default()
    ));
    Ok(())
}

fn open(file: &Path) -> anyhow::Result<(Box<dyn Read>, u64)> {
    if file.as_os_str() == "-" {
        return Ok((Box::new(std::io::stdin().lock()), 0));
    }
    let shown = file.display();
    let opened = File::open(file).with_context(|| format!("`{shown}` can't be read"))?;
    let metadata = opened.metadata().with_context(|| format!("`{shown}` can't be read"))?;
    Ok((Box::new(opened), metadata.len()))
}

fn told(summary: &Summary) -> Value {
    let head = &summary.head;
    json!({
        "bytes": summary.bytes,
        "files": head.files,
        "created": head.created,
        "release": head.release,
        "hostName": head.host_name,
        "missingBlobs": head.missing_blobs,
    })
}

fn in_words(summary: &Summary) -> String {
    let head = &summary.head;
    format!(
        "the hub `{}` of {}, by release {}, {} files, {}",
        head.host_name,
        head.created,
        head.release,
        head.files,
        output::size(summary.bytes)
    )
}

/// A name with hub and time, which sorts by time.
fn usual_name(host: &str) -> String {
    let time: String = Timestamp::from(SystemTime::now())
        .to_string()
        .chars()
        .take("2026-01-02T03:04:05".len())
        .filter(|letter| !matches!(letter, '-' | ':'))
        .collect();
    let host = host.split(':').next().unwrap_or_default();
    let host: String = host
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.'))
        .collect();
    format!("holm-hub-{host}-{time}Z.tar")
}

/// How far it is, on a terminal.
struct Progress {
    length: u64,
    shown: Option<Instant>,
    is_terminal: bool,
}

impl Progress {
    fn new(length: u64) -> Self {
        Self {
            length,
            shown: None,
            is_terminal: std::io::stderr().is_terminal(),
        }
    }

    fn at(&mut self, bytes: u64) {
        if !self.is_terminal || self.shown.is_some_and(|at| at.elapsed() < SHOWN) {
            return;
        }
        self.shown = Some(Instant::now());
        match (bytes * 100).checked_div(self.length) {
            Some(part) => output::over(&format!(
                "{} of {}, {part} %",
                output::size(bytes),
                output::size(self.length)
            )),
            None => output::over(&output::size(bytes)),
        }
    }

    fn end(&self) {
        if self.shown.is_some() {
            output::over("");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_backup_has_hub_and_time_and_no_path() {
        let name = usual_name("../hub.test:8443");

        assert!(
            name.starts_with("holm-hub-..hub.test-2") && name.ends_with("Z.tar"),
            "{name}"
        );
        assert_eq!(name.len(), "holm-hub-..hub.test-20260102T030405Z.tar".len());
    }
}
