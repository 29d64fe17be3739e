//! The file system as the log needs it, and the real one.
//!
//! Names are relative to the queue directory (`journal/0000000000000001.seg`), so a file system stands for one queue.
//! Only what durability needs is here: positional reads and writes, a sync for a file's data and one for a directory's
//! entries, and a lock.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file held open. Reads and writes name their position, so that readers need no lock.
pub trait File: fmt::Debug + Send + Sync {
    /// Reads at `position`; fewer bytes than asked, or none, at the end.
    ///
    /// # Errors
    /// Those of the file system.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `position`. After an error any part of it may have been written.
    ///
    /// # Errors
    /// Those of the file system; [`io::ErrorKind::StorageFull`] at a full disk.
    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;

    /// Makes the data durable, with as much of the metadata as reading it back needs (`fdatasync`).
    ///
    /// # Errors
    /// Those of the file system. What was written since the last success is then lost or not, whatever a later sync says.
    fn sync(&self) -> io::Result<()>;

    /// How long the file is.
    ///
    /// # Errors
    /// Those of the file system.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// Those of the file system.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts or extends the file with zeros.
    ///
    /// # Errors
    /// Those of the file system.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Makes sure that writes below `length` need no more space, extending the file with zeros.
    ///
    /// # Errors
    /// Those of the file system; [`io::ErrorKind::StorageFull`] at a full disk.
    fn allocate(&self, length: u64) -> io::Result<()>;
}

/// Keeps a lock until it is dropped.
pub trait FileLock: fmt::Debug + Send + Sync {}

/// What a queue directory is kept on.
pub trait FileSystem: fmt::Debug + Send + Sync {
    /// For a store that keeps nothing beyond the process: how many bytes a queue may hold. What is appended there is never more
    /// durable than at once. `None`: what is synced is durable.
    fn capacity(&self) -> Option<u64> {
        None
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// Those of the file system; [`io::ErrorKind::NotFound`] if there is none.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Opens a file for reading and writing, without changing it.
    ///
    /// # Errors
    /// Those of the file system; [`io::ErrorKind::NotFound`] if there is none.
    fn open_write(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Creates an empty file for reading and writing, in place of any that is there.
    ///
    /// # Errors
    /// Those of the file system.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Removes a file.
    ///
    /// # Errors
    /// Those of the file system; [`io::ErrorKind::NotFound`] if there is none.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Gives a file another name, in place of any file that has it.
    ///
    /// # Errors
    /// Those of the file system.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Creates a directory if there is none.
    ///
    /// # Errors
    /// Those of the file system.
    fn create_dir(&self, name: &str) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// Those of the file system.
    fn remove_dir(&self, name: &str) -> io::Result<()>;

    /// The names within a directory, in any order; the queue directory itself is `""`. Empty if there is none.
    ///
    /// # Errors
    /// Those of the file system.
    fn list(&self, directory: &str) -> io::Result<Vec<String>>;

    /// Makes the entries of a directory durable.
    ///
    /// # Errors
    /// Those of the file system.
    fn sync_dir(&self, directory: &str) -> io::Result<()>;

    /// Locks a file, creating it if there is none; `None` if another opener holds it.
    ///
    /// # Errors
    /// Those of the file system.
    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn FileLock>>>;

    /// Where this is, for messages.
    fn path(&self) -> PathBuf;
}

/// A directory of the operating system.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Names a directory, creating it with its parents if there is none.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn new(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        std::fs::create_dir_all(&path)?;
        Ok(Self { path })
    }

    /// Names a directory that is there, or is none of which anything is found.
    pub(crate) fn existing(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    fn join(&self, name: &str) -> PathBuf {
        self.path.join(Path::new(name))
    }
}

#[derive(Debug)]
struct DiskFile(std::fs::File);

#[derive(Debug)]
struct DiskLock(#[expect(dead_code, reason = "closing the file gives the lock back")] std::fs::File);

impl FileLock for DiskLock {}

impl File for DiskFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        loop {
            match std::os::unix::fs::FileExt::read_at(&self.0, buffer, position) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.0, bytes, position)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, length) {
            // Where the file system cannot reserve, written zeros are the nearest to it.
            Err(rustix::io::Errno::OPNOTSUPP) => {
                let zeros = [0; 4096];
                let mut at = 0;
                while at < length {
                    let count = (length - at).min(4096);
                    let part = zeros
                        .get(..usize::try_from(count).unwrap_or(zeros.len()))
                        .unwrap_or(&zeros);
                    self.write_all_at(part, at)?;
                    at += count;
                }
                Ok(())
            }
            result => Ok(result?),
        }
    }
}

impl FileSystem for Directory {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(DiskFile(std::fs::File::open(self.join(name))?)))
    }

    fn open_write(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.join(name))?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut options = std::fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.join(name))?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.join(from), self.join(to))
    }

    fn create_dir(&self, name: &str) -> io::Result<()> {
        match std::fs::create_dir(self.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        }
    }

    fn remove_dir(&self, name: &str) -> io::Result<()> {
        std::fs::remove_dir(self.join(name))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(self.join(directory)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result?,
        };
        // A name that is not UTF-8 is not ours.
        entries
            .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
            .collect()
    }

    fn sync_dir(&self, directory: &str) -> io::Result<()> {
        std::fs::File::open(self.join(directory))?.sync_all()
    }

    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn FileLock>>> {
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.join(name))?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(DiskLock(file)))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn path(&self) -> PathBuf {
        self.path.clone()
    }
}
