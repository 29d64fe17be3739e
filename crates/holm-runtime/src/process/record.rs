//! What is kept of a process module on disk: one directory for each.
//!
//! ```text
//! ROOT/HASH/            the first 16 hexadecimal digits of SHA-256 of the module's id
//!   module.json         what it was created from           written by the runtime at create
//!   plan.json           what exactly is to be executed     written by the runtime at each start
//!   state.json          who runs, or how it ended          written by the supervisor (by the runtime if that was killed)
//!   lock                held by the supervisor while it lives, so there is never more than one
//!   s                   the supervisor's socket
//!   log, log.1, log.2   the output, newest first
//!   supervisor.log      what the supervisor itself had to complain of
//!   work/               the module's working directory, unless its image or create options give one
//! ```
//!
//! Every JSON file says its format, is replaced whole (written aside, synced, renamed) and is readable by its owner alone,
//! since the environment of a module may hold secrets.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use holm_model::{ModuleId, hex};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::RuntimeError;
use crate::logs::LogLimits;
use crate::process::procfs::ProcessId;
use crate::state::Health;

/// The format of all three files. A reader refuses any other.
pub(crate) const FORMAT: u32 = 1;

/// A module's directory and the names in it.
#[derive(Clone, Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn of(root: &Path, id: &ModuleId) -> Self {
        let digest = Sha256::digest(id.as_str().as_bytes());
        let name = hex::encode(&digest).chars().take(16).collect::<String>();
        Self(root.join(name))
    }

    pub(crate) const fn at(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The last part of the path: unique on this device, and short.
    pub(crate) fn name(&self) -> String {
        self.0.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    pub(crate) fn module(&self) -> PathBuf {
        self.0.join("module.json")
    }

    pub(crate) fn plan(&self) -> PathBuf {
        self.0.join("plan.json")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.0.join("state.json")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("s")
    }

    pub(crate) fn supervisor_log(&self) -> PathBuf {
        self.0.join("supervisor.log")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    /// The log file with this number: 0 is written now, higher ones are older.
    pub(crate) fn log(&self, number: u32) -> PathBuf {
        match number {
            0 => self.0.join("log"),
            older => self.0.join(format!("log.{older}")),
        }
    }

    /// Makes the directory, in one for all modules. Others may pass through both, to a working directory of their own, but see
    /// nothing in them; the umask has no say in that.
    pub(crate) fn create(&self) -> io::Result<()> {
        for path in self.0.parent().into_iter().chain([self.0.as_path()]) {
            if !path.is_dir() {
                fs::DirBuilder::new().recursive(true).mode(0o711).create(path)?;
                fs::set_permissions(path, fs::Permissions::from_mode(0o711))?;
            }
        }
        Ok(())
    }
}

/// `module.json`: what the module was created from, without registry credentials.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ModuleRecord {
    pub(crate) format: u32,
    pub(crate) id: ModuleId,
    pub(crate) image: String,
    pub(crate) image_hash: String,
    pub(crate) create_options: Value,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) module_dir: PathBuf,
    pub(crate) spec_digest: String,
}

/// `plan.json`: what exactly is to be executed. It leaves the supervisor no choice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) format: u32,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) working_dir: PathBuf,
    /// Whom to become; `None` means to stay who the edge is.
    pub(crate) user: Option<UserIds>,
    pub(crate) groups: Vec<ControlGroup>,
    pub(crate) resource_limits: Vec<ResourceLimit>,
    pub(crate) oom_score_adjust: Option<i32>,
    /// The signal that asks the program to end, by number.
    pub(crate) stop_signal: i32,
    pub(crate) stop_grace_millis: u64,
    pub(crate) log: LogLimits,
    #[serde(default)]
    pub(crate) health: Option<HealthCheck>,
}

/// A health check, resolved: what to run, and the engine's five figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HealthCheck {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) interval_millis: u64,
    pub(crate) timeout_millis: u64,
    pub(crate) start_period_millis: u64,
    pub(crate) start_interval_millis: u64,
    pub(crate) retries: u32,
}

/// What the health check says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HealthState {
    pub(crate) health: Health,
    /// Why it fails.
    pub(crate) reason: Option<String>,
}

/// Whom a module runs as. It has no supplementary groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UserIds {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A control group to make for the module, and what to write into which of its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ControlGroup {
    pub(crate) path: PathBuf,
    pub(crate) writes: Vec<(String, String)>,
}

/// One limit of setrlimit(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ResourceLimit {
    /// Its name as Docker writes it, such as `nofile`.
    pub(crate) name: String,
    pub(crate) soft: Option<u64>,
    pub(crate) hard: Option<u64>,
}

/// `state.json`: who runs, or how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunState {
    pub(crate) format: u32,
    /// The boot in which the two processes below mean anything.
    pub(crate) boot_id: String,
    pub(crate) supervisor: ProcessId,
    pub(crate) main: Option<ProcessId>,
    pub(crate) phase: Phase,
    pub(crate) started_at_millis: Option<i64>,
    pub(crate) exited_at_millis: Option<i64>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) description: Option<String>,
    #[serde(default)]
    pub(crate) health: Option<HealthState>,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// `Starting => (Running | Ended)`: the supervisor prepares the program.
    Starting,
    /// `Running => Ended`: the program runs.
    Running,
    /// The program has ended, or could not be started.
    Ended,
}

/// Why a record cannot be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    Io(io::Error),
    /// The content is damaged.
    Damaged(String),
    /// It was written by a release that has another format.
    Format(u32),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Damaged(reason) => write!(f, "it is damaged: {reason}"),
            Self::Format(format) => write!(f, "it has format {format}, this program reads format {FORMAT}"),
        }
    }
}

impl ReadError {
    /// The error of an operation that needs the record at `path`.
    pub(crate) fn at(self, path: &Path) -> RuntimeError {
        let path = path.to_owned();
        match self {
            Self::Io(source) => RuntimeError::Io {
                operation: "read",
                path,
                source,
            },
            Self::Damaged(reason) => RuntimeError::Record { path, reason },
            Self::Format(found) => RuntimeError::Format {
                path,
                found,
                known: FORMAT,
            },
        }
    }
}

/// Reads a record; `None` when there is none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ReadError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ReadError::Io(error)),
    };
    #[derive(Deserialize)]
    struct Header {
        format: u32,
    }
    let header: Header = serde_json::from_slice(&text).map_err(|error| ReadError::Damaged(error.to_string()))?;
    if header.format != FORMAT {
        return Err(ReadError::Format(header.format));
    }
    match serde_json::from_slice(&text) {
        Ok(record) => Ok(Some(record)),
        Err(error) => Err(ReadError::Damaged(error.to_string())),
    }
}

/// Replaces a record whole: a reader, and a power cut, see the old or the new.
pub(crate) fn write<T: Serialize>(path: &Path, record: &T) -> io::Result<()> {
    // A name of its own, so that two writers never share the file beside; the last to rename wins.
    static WRITES: AtomicU32 = AtomicU32::new(0);
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    let aside = path.with_extension(format!("{}-{number}.new", std::process::id()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_data()?;
    fs::rename(&aside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn record_reads_back_and_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let state = RunState {
            format: FORMAT,
            boot_id: "b".into(),
            supervisor: ProcessId { pid: 1, start: 2 },
            main: None,
            phase: Phase::Ended,
            started_at_millis: Some(3),
            exited_at_millis: None,
            exit_code: Some(4),
            description: None,
            health: None,
        };

        write(&path, &state).unwrap();

        assert_eq!(read::<RunState>(&path).unwrap(), Some(state));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn other_format_is_refused_with_both_numbers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        fs::write(&path, r#"{"format":7,"anything":true}"#).unwrap();

        let refused = read::<RunState>(&path).unwrap_err();

        assert_eq!(refused.to_string(), "it has format 7, this program reads format 1");
    }

    #[test]
    fn no_record_is_not_an_error_and_half_a_record_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        assert!(read::<RunState>(&path).unwrap().is_none());

        fs::write(&path, r#"{"format":1,"boot_"#).unwrap();

        assert!(matches!(read::<RunState>(&path), Err(ReadError::Damaged(_))));
    }
}
