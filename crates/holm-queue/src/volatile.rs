//! A store in memory, for whoever would rather lose messages than wait for a disk or wear it out.
//!
//! The log above it is the same as on a disk: lanes, order, times to live, readers, trimming. What differs is the promise: what
//! was appended is as safe as it will ever be, so its [`Pending`](crate::Pending) resolves at once, and the store holds a limited
//! number of bytes, at which appends are refused as at the limit of a directory. It ends with the process.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::file_system::{File, FileLock, FileSystem};

/// Files in memory.
#[derive(Debug)]
pub struct Volatile {
    max_bytes: u64,
    /// Held for a look-up.
    files: Mutex<BTreeMap<String, Arc<MemoryFile>>>,
}

impl Volatile {
    /// An empty store in which a queue may hold so many bytes.
    #[must_use]
    pub const fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            files: Mutex::new(BTreeMap::new()),
        }
    }

    fn find(&self, name: &str) -> io::Result<Arc<MemoryFile>> {
        let file = self.lock().get(name).map(Arc::clone);
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<MemoryFile>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of a file; held for a copy.
#[derive(Debug, Default)]
struct MemoryFile(RwLock<Vec<u8>>);

impl MemoryFile {
    fn change<T>(&self, change: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A place in a file of this process.
fn place(position: u64) -> io::Result<usize> {
    usize::try_from(position).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

impl File for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let bytes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let there = bytes.get(place(position)?..).unwrap_or_default();
        let count = there.len().min(buffer.len());
        let (filled, _) = buffer.split_at_mut(count);
        filled.copy_from_slice(there.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let start = place(position)?;
        self.change(|file| {
            if file.len() < start {
                file.resize(start, 0);
            }
            let over = (file.len() - start).min(bytes.len());
            let (within, beyond) = bytes.split_at(over);
            if let Some(old) = file.get_mut(start..start + over) {
                old.copy_from_slice(within);
            }
            file.extend_from_slice(beyond);
        });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.read().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let length = place(length)?;
        self.change(|file| file.resize(length, 0));
        Ok(())
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let length = place(length)?;
        self.change(|file| {
            if file.len() < length {
                file.resize(length, 0);
            }
        });
        Ok(())
    }
}

#[derive(Debug)]
struct NoLock;

impl FileLock for NoLock {}

impl FileSystem for Volatile {
    fn capacity(&self) -> Option<u64> {
        Some(self.max_bytes)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.find(name)?)
    }

    fn open_write(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.find(name)?)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = Arc::new(MemoryFile::default());
        self.lock().insert(name.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let removed = self.lock().remove(name);
        removed.map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.lock();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn create_dir(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove_dir(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let within = if directory.is_empty() {
            String::new()
        } else {
            format!("{directory}/")
        };
        let files = self.lock();
        let mut names: Vec<_> = files
            .keys()
            .filter_map(|name| name.strip_prefix(&within))
            .map(|name| name.split_once('/').map_or(name, |(directory, _)| directory).to_owned())
            .collect();
        names.dedup();
        Ok(names)
    }

    fn sync_dir(&self, _directory: &str) -> io::Result<()> {
        Ok(())
    }

    /// The store belongs to whoever made it.
    fn lock(&self, _name: &str) -> io::Result<Option<Box<dyn FileLock>>> {
        Ok(Some(Box::new(NoLock)))
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("memory")
    }
}
