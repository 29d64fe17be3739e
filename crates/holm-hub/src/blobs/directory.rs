//! The files of the blob store: received piece by piece, counted against the quota, removed when nobody needs them.
//!
//! ```text
//! body --frames--> file, 32 random digits, the first 8 this process's --end--> synced, directory synced --named in the database--> kept
//!                     '-- cut off, too long, disk full, quota, dropped --> removed, its bytes given back
//! ```
//!
//! What was received belongs to a value until somebody keeps it: however a request ends, nothing half stays behind. What a crash
//! leaves is removed at the next opening, since no name in the database is its; that is why the directory must be this hub's
//! (`owner.rs`). A file counts as at least a block of a disk, so that many empty ones don't get past the quota.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use holm_identity::private_file;
use holm_model::hex;
use holm_net::Scope;
use http_body_util::BodyExt as _;
use hyper::body::Body;
use md5::{Digest as _, Md5};
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt as _;

use super::away::{Away, AwayError, Copied};
use super::fault::{Fault, FaultCode};
use super::held::{BlobsHeld, Garbage, Holds};
use super::owner;

/// How long the next piece of a body may take.
const NEXT_PIECE: Duration = Duration::from_secs(30);
/// How long a whole body may take: as long as the signature that it came with is good, by default.
const WHOLE_BODY: Duration = Duration::from_secs(3600);
/// What a file counts at least: what the least one takes of most disks.
const LEAST: u64 = 4096;
/// What waits to be written.
const BUFFER: usize = 256 * 1024;

/// The directory. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    path: Arc<Path>,
    quota: u64,
    used: Arc<AtomicU64>,
    /// The first digits of the files of this process.
    begin: Arc<str>,
    holds: Holds,
}

/// A file that was received whole and is on disk; it goes with this value unless it is kept.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) file: String,
    pub(super) size: u64,
    pub(super) md5: [u8; 16],
    held: Held,
    copied: Option<Copied>,
}

/// A file that nobody has kept yet.
#[derive(Debug)]
struct Held {
    path: PathBuf,
    bytes: u64,
    used: Arc<AtomicU64>,
    is_kept: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(file = %self.path.display(), %error, "a file of the blob store stays until the next start");
            }
            _ => {}
        }
    }
}

impl Received {
    /// The database has it now.
    pub(super) fn keep(mut self) {
        self.held.is_kept = true;
        if let Some(copied) = self.copied.take() {
            copied.keep();
        }
    }

    /// Copies the file to another place, and removes it here.
    pub(super) async fn send_away(&mut self, away: &Arc<dyn Away>, scope: &Scope) -> Result<(), AwayError> {
        let copied = Copied::new(Arc::clone(away), self.file.clone(), scope.clone());
        away.put(&self.file, &self.held.path, self.size).await?;
        self.copied = Some(copied);
        if let Err(error) = tokio::fs::remove_file(&self.held.path).await {
            tracing::warn!(file = self.file, %error, "a file that was copied away stays here until it is deleted");
        }
        Ok(())
    }
}

impl Directory {
    /// Opens the directory of the hub `owner`, for this user alone; `files` are those that are in use, with their bytes. Others of
    /// ours are removed.
    ///
    /// # Errors
    /// What the file system refused; that the directory is another hub's.
    pub(super) fn open(path: &Path, owner: &str, files: &[(String, u64)], quota: u64) -> io::Result<Self> {
        private_file::ensure_directory(path).map_err(io::Error::other)?;
        let known: HashSet<&str> = files.iter().map(|(file, _)| file.as_str()).collect();
        let mut garbage = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name();
            // Whatever else lies here is not ours to remove.
            let is_garbage = name.to_str().is_some_and(|name| is_ours(name) && !known.contains(name));
            if is_garbage && !entry.file_type()?.is_dir() {
                garbage.push(entry.path());
            }
        }
        owner::claim(path, owner, garbage.is_empty() || !files.is_empty())?;
        for file in garbage {
            fs::remove_file(file)?;
        }
        let used = files.iter().map(|(_, size)| counted(*size)).sum();
        let begin = crate::random::bytes::<4>().map_err(io::Error::other)?;
        Ok(Self {
            path: path.into(),
            quota,
            used: Arc::new(AtomicU64::new(used)),
            begin: hex::encode(&begin).into(),
            holds: Holds::default(),
        })
    }

    /// Bytes that are stored or being stored.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether a file, here or away, is of an earlier process: nobody is about to give it a name.
    pub(super) fn is_of_earlier(&self, name: &str) -> bool {
        is_ours(name) && !name.starts_with(self.begin.as_ref())
    }

    /// Where a file is.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a body of at most `limit` bytes to a new file; returns when it is on disk.
    pub(super) async fn receive<B>(&self, body: &mut B, limit: u64) -> Result<Received, Fault>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let received = self.receive_all(body, limit);
        tokio::time::timeout(WHOLE_BODY, received)
            .await
            .unwrap_or_else(|_| Err(timed_out(WHOLE_BODY)))
    }

    async fn receive_all<B>(&self, body: &mut B, limit: u64) -> Result<Received, Fault>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let announced = body.size_hint().exact();
        if announced.is_some_and(|bytes| bytes > limit) {
            return Err(too_large(limit));
        }
        let digits = format!("{}{}", self.begin, hex::encode(&crate::random::bytes::<12>()?));
        let mut held = Held {
            path: self.file(&digits),
            bytes: 0,
            used: Arc::clone(&self.used),
            is_kept: false,
        };
        // All of it at once, where it is known: better no room than none in the middle.
        self.reserve(&mut held, counted(announced.unwrap_or(0)))?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&held.path).await.map_err(|error| disk(&error))?;
        file.set_max_buf_size(BUFFER);
        let (mut size, mut md5) = (0, Md5::new());
        while let Some(piece) = next_piece(body).await? {
            size += piece.len() as u64;
            if size > limit {
                return Err(too_large(limit));
            }
            let more = size.saturating_sub(held.bytes);
            self.reserve(&mut held, more)?;
            md5.update(&piece);
            file.write_all(&piece).await.map_err(|error| disk(&error))?;
        }
        finish(file, &self.path).await.map_err(|error| disk(&error))?;
        Ok(Received {
            file: digits,
            size,
            md5: md5.finalize().into(),
            held,
            copied: None,
        })
    }

    fn reserve(&self, held: &mut Held, more: u64) -> Result<(), Fault> {
        let reserved = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(more).filter(|all| more == 0 || *all <= self.quota)
        });
        match reserved {
            Ok(_) => {
                held.bytes += more;
                Ok(())
            }
            Err(used) => Err(Fault::new(
                FaultCode::InsufficientStorage,
                format!(
                    "the blob store holds {used} bytes of at most {}; delete files, or raise the hub's `--blob-quota`",
                    self.quota
                ),
            )),
        }
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps all files until what is given is dropped.
    pub(super) fn hold(&self) -> BlobsHeld {
        let (path, used) = (Arc::clone(&self.path), Arc::clone(&self.used));
        self.holds.hold(move |garbage| remove_now(&path, &used, garbage))
    }

    /// Removes files that no name is left for; while files are held, later.
    pub(super) async fn remove(&self, garbage: Garbage) {
        let garbage = self.holds.may_go(garbage);
        if garbage.is_empty() {
            return;
        }
        let (path, used) = (Arc::clone(&self.path), Arc::clone(&self.used));
        let removed = tokio::task::spawn_blocking(move || remove_now(&path, &used, garbage));
        if let Err(error) = removed.await {
            tracing::warn!(%error, "files of the blob store stay until the next start");
        }
    }
}

fn remove_now(path: &Path, used: &Arc<AtomicU64>, garbage: Garbage) {
    for (file, bytes) in garbage {
        // As what was received and not kept.
        drop(Held {
            path: path.join(file),
            bytes: counted(bytes),
            used: Arc::clone(used),
            is_kept: false,
        });
    }
}

/// What a file of so many bytes counts.
fn counted(size: u64) -> u64 {
    size.max(LEAST)
}

fn is_ours(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

async fn next_piece<B>(body: &mut B) -> Result<Option<Bytes>, Fault>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    loop {
        let Ok(frame) = tokio::time::timeout(NEXT_PIECE, body.frame()).await else {
            return Err(timed_out(NEXT_PIECE));
        };
        match frame {
            None => return Ok(None),
            Some(Ok(frame)) => {
                // Trailers are nothing to store.
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Some(Err(_)) => {
                let text = "the connection ended within the body";
                return Err(Fault::new(FaultCode::IncompleteBody, text));
            }
        }
    }
}

async fn finish(mut file: File, directory: &Path) -> io::Result<()> {
    file.flush().await?;
    file.sync_all().await?;
    File::open(directory).await?.sync_all().await
}

fn too_large(limit: u64) -> Fault {
    let text = format!("at most {limit} bytes are allowed here; send the file in blocks");
    Fault::new(FaultCode::RequestBodyTooLarge, text)
}

fn timed_out(patience: Duration) -> Fault {
    let text = format!("the body did not arrive within {} s", patience.as_secs());
    Fault::new(FaultCode::OperationTimedOut, text)
}

/// What the disk could not do: its owner learns more from the log.
pub(super) fn disk(error: &io::Error) -> Fault {
    tracing::error!(%error, "the blob store can't use its disk");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Fault::new(
            FaultCode::InsufficientStorage,
            "the hub's disk is full; free space on it, uploads then go on by themselves",
        ),
        _ => Fault::new(
            FaultCode::InternalError,
            "the hub's disk fails; see that it works, uploads then go on by themselves",
        ),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;

    use super::*;

    fn files(directory: &Path) -> usize {
        let entries = fs::read_dir(directory).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().file_name() != owner::NAME)
            .count()
    }

    #[tokio::test]
    async fn what_was_received_goes_unless_it_is_kept() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::open(&place.path().join("b"), "h1", &[], 2 * LEAST).unwrap();
        let path = place.path().join("b");

        let first = directory
            .receive(&mut Full::new(Bytes::from("hello")), 10)
            .await
            .unwrap();
        let second = directory.receive(&mut Full::new(Bytes::from("you")), 10).await.unwrap();
        let (name, digest) = (first.file.clone(), first.md5);
        first.keep();
        drop(second);

        assert_eq!(fs::read(path.join(&name)).unwrap(), b"hello");
        assert_eq!(digest[..4], [0x5d, 0x41, 0x40, 0x2a]);
        assert_eq!((files(&path), directory.used()), (1, LEAST));
        directory.remove(vec![(name, 5)]).await;
        assert_eq!((files(&path), directory.used()), (0, 0));
    }

    #[tokio::test]
    async fn what_is_cut_off_too_long_or_beyond_the_quota_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("b");
        let directory = Directory::open(&path, "h1", &[("0".repeat(32), 95)], 2 * LEAST).unwrap();
        let page = "x".repeat(usize::try_from(LEAST).unwrap());
        let pieces = |pieces: Vec<Result<&str, io::Error>>| {
            let frames: Vec<_> = pieces
                .into_iter()
                .map(|piece| piece.map(|text| Frame::data(Bytes::copy_from_slice(text.as_bytes()))))
                .collect();
            StreamBody::new(futures_util::stream::iter(frames))
        };

        let cut = pieces(vec![Ok("ab"), Err(io::ErrorKind::ConnectionReset.into())]);
        let cut = directory.receive(&mut { cut }, 10).await.unwrap_err();
        let long = directory
            .receive(&mut pieces(vec![Ok("abc"), Ok("d")]), 3)
            .await
            .unwrap_err();
        let much = directory
            .receive(&mut pieces(vec![Ok("abc"), Ok(page.as_str())]), 2 * LEAST)
            .await
            .unwrap_err();
        let announced = directory
            .receive(&mut Full::new(Bytes::from(format!("{page}a"))), 2 * LEAST)
            .await
            .unwrap_err();

        let codes = [cut, long, much, announced].map(|fault| fault.code);
        let full = FaultCode::InsufficientStorage;
        assert_eq!(
            codes,
            [FaultCode::IncompleteBody, FaultCode::RequestBodyTooLarge, full, full]
        );
        assert_eq!((files(&path), directory.used()), (0, LEAST));
    }

    #[test]
    fn at_the_opening_files_of_ours_without_a_name_go_and_others_stay() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("b");
        Directory::open(&path, "h1", &[], 100).unwrap();
        let (known, garbage) = ("a".repeat(32), "b".repeat(32));
        for name in [known.as_str(), garbage.as_str(), "notes.txt"] {
            fs::write(path.join(name), "x").unwrap();
        }
        fs::create_dir(path.join("c".repeat(32))).unwrap();

        let directory = Directory::open(&path, "h1", &[(known.clone(), 1)], 100).unwrap();

        assert!(path.join(known).exists() && path.join("notes.txt").exists());
        assert!(!path.join(garbage).exists());
        assert_eq!(directory.used(), LEAST);
    }
    #[test]
    fn files_of_another_hub_are_not_removed() {
        let place = tempfile::tempdir().unwrap();
        let (theirs, unmarked) = (place.path().join("theirs"), place.path().join("unmarked"));
        Directory::open(&theirs, "h1", &[], 100).unwrap();
        fs::create_dir(&unmarked).unwrap();
        let file = "a".repeat(32);
        for path in [&theirs, &unmarked] {
            fs::write(path.join(&file), "x").unwrap();
        }

        let refused = [&theirs, &unmarked].map(|path| Directory::open(path, "h2", &[], 100).unwrap_err().to_string());

        assert!(refused.iter().all(|text| text.contains("another hub")), "{refused:?}");
        assert!(theirs.join(&file).exists() && unmarked.join(&file).exists());
    }
}
