//! A file system in memory that forgets what was not synced, like a real one at a power cut, and fails on demand.
//!
//! A file is what a sync made durable, and the writes since. A crash keeps the durable bytes and, sector by sector and at
//! random, some of the writes; the length grows or not; a file that was created since its directory was synced is there or
//! not, and one that was removed or renamed since may be back.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::file_system::{File, FileLock, FileSystem};
use crate::signal::lock;

const SECTOR: usize = 512;

/// What a crash does to what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashStyle {
    /// Everything goes: the strictest disk.
    LoseAll,
    /// Sectors, lengths and directory entries survive at random, by this seed.
    Torn(u64),
    /// Everything stays: the process died, the machine did not.
    KeepAll,
}

/// A file system in memory. Clones share it; each is a process of its own in a crash: those made before it fail from then on,
/// except the one that it was called on.
#[derive(Debug, Default)]
pub struct MemoryFiles {
    disk: Arc<Mutex<Disk>>,
    /// How many crashes there were when this process began.
    generation: AtomicU64,
}

impl Clone for MemoryFiles {
    fn clone(&self) -> Self {
        let generation = AtomicU64::new(self.disk().generation);
        Self {
            disk: Arc::clone(&self.disk),
            generation,
        }
    }
}

#[derive(Debug, Default)]
struct Disk {
    next_inode: u64,
    inodes: BTreeMap<u64, Inode>,
    /// Path to inode as processes see it, and as the last syncs of directories left it.
    entries: BTreeMap<String, u64>,
    durable_entries: BTreeMap<String, u64>,
    capacity: Option<u64>,
    /// Counts crashes; files opened before one are dead.
    generation: u64,
    locked: BTreeMap<String, u64>,
    fail_syncs: u32,
    fail_writes: u32,
    syncs: u64,
}

#[derive(Debug, Default, Clone)]
struct Inode {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    /// Bytes of space taken in advance.
    allocated: u64,
    /// Sectors written since the last sync. After a failed sync none of the older ones is, as on a real kernel.
    dirty: std::collections::BTreeSet<usize>,
}

#[derive(Debug)]
struct MemoryFile {
    disk: Arc<Mutex<Disk>>,
    inode: u64,
    generation: u64,
}

#[derive(Debug)]
struct MemoryLock {
    disk: Arc<Mutex<Disk>>,
    name: String,
    generation: u64,
}

impl FileLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let mut disk = lock(&self.disk);
        if disk.locked.get(&self.name) == Some(&self.generation) {
            disk.locked.remove(&self.name);
        }
    }
}

/// A small generator: the same seed gives the same crash.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

impl MemoryFiles {
    /// An empty file system without a limit.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.disk)
    }

    /// The disk for a process, if it is still alive.
    fn alive(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.disk();
        if disk.generation == self.generation.load(Ordering::Relaxed) {
            Ok(disk)
        } else {
            Err(dead())
        }
    }

    /// Limits the space to so many bytes of files; `None`: no limit.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.disk().capacity = capacity;
    }

    /// How many bytes of space files take.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.disk().used()
    }

    /// Makes the next so many syncs of files fail. What they were to make durable is lost, although it can still be read.
    pub fn fail_syncs(&self, count: u32) {
        self.disk().fail_syncs = count;
    }

    /// Makes the next so many writes fail half-way with an error that is not a full disk.
    pub fn fail_writes(&self, count: u32) {
        self.disk().fail_writes = count;
    }

    /// How many syncs of files there were.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.disk().syncs
    }

    /// The paths of all files.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.disk().entries.keys().cloned().collect()
    }

    /// A file's bytes, as processes see them.
    #[must_use]
    pub fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let disk = self.disk();
        disk.inodes
            .get(disk.entries.get(path)?)
            .map(|inode| inode.bytes.clone())
    }

    /// Puts a file there, durable at once.
    pub fn put(&self, path: &str, bytes: Vec<u8>) {
        let mut disk = self.disk();
        let number = disk.add_entry(path);
        disk.durable_entries.insert(path.to_owned(), number);
        disk.inodes.insert(
            number,
            Inode {
                durable: bytes.clone(),
                bytes,
                ..Inode::default()
            },
        );
    }

    /// Changes a file's bytes behind everybody's back, durably.
    pub fn damage(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.disk();
        if let Some(&number) = disk.entries.get(path)
            && let Some(inode) = disk.inodes.get_mut(&number)
        {
            change(&mut inode.bytes);
            inode.durable = inode.bytes.clone();
            inode.dirty.clear();
        }
    }

    /// Ends every open file and lock, and does to what was not synced what `style` says.
    pub fn crash(&self, style: CrashStyle) {
        let mut disk = self.disk();
        disk.generation += 1;
        self.generation.store(disk.generation, Ordering::Relaxed);
        disk.locked.clear();
        (disk.fail_syncs, disk.fail_writes) = (0, 0);
        let mut dice = match style {
            CrashStyle::KeepAll => return,
            CrashStyle::LoseAll => None,
            CrashStyle::Torn(seed) => Some(Dice(seed)),
        };
        disk.crash_entries(dice.as_mut());
        for inode in disk.inodes.values_mut() {
            inode.crash(dice.as_mut());
        }
    }
}

impl Disk {
    fn used(&self) -> u64 {
        self.entries
            .values()
            .filter_map(|number| self.inodes.get(number))
            .map(Inode::space)
            .sum()
    }

    fn add_entry(&mut self, path: &str) -> u64 {
        self.next_inode += 1;
        self.entries.insert(path.to_owned(), self.next_inode);
        self.inodes.insert(self.next_inode, Inode::default());
        self.next_inode
    }

    fn crash_entries(&mut self, mut dice: Option<&mut Dice>) {
        let paths: std::collections::BTreeSet<String> = self
            .entries
            .keys()
            .chain(self.durable_entries.keys())
            .cloned()
            .collect();
        let mut after = BTreeMap::new();
        for path in paths {
            let (now, durable) = (self.entries.get(&path), self.durable_entries.get(&path));
            let keeps_new = dice.as_mut().is_some_and(|dice| dice.roll(2) == 0);
            let survivor = if keeps_new { now } else { durable };
            if let Some(&number) = survivor {
                after.insert(path, number);
            }
        }
        self.entries.clone_from(&after);
        self.durable_entries = after;
    }

    fn grow(&self, inode: u64, space: u64) -> Result<(), io::Error> {
        let now = self.inodes.get(&inode).map_or(0, Inode::space);
        match self.capacity {
            Some(capacity) if space > now && self.used() + (space - now) > capacity => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }
}

impl Inode {
    fn space(&self) -> u64 {
        self.allocated.max(self.bytes.len() as u64)
    }

    fn write(&mut self, bytes: &[u8], position: usize) {
        let end = position + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        if let Some(place) = self.bytes.get_mut(position..end) {
            place.copy_from_slice(bytes);
        }
        if !bytes.is_empty() {
            self.dirty.extend(position / SECTOR..=(end - 1) / SECTOR);
        }
    }

    /// Makes what was written since the last sync, successful or not, durable.
    fn sync(&mut self) {
        self.durable.resize(self.bytes.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            self.copy_sector(sector);
        }
    }

    fn copy_sector(&mut self, sector: usize) {
        let start = (sector * SECTOR).min(self.bytes.len());
        let end = (start + SECTOR).min(self.bytes.len()).min(self.durable.len());
        if let (Some(from), Some(to)) = (self.bytes.get(start..end), self.durable.get_mut(start..end)) {
            to.copy_from_slice(from);
        }
    }

    fn crash(&mut self, dice: Option<&mut Dice>) {
        if let Some(dice) = dice {
            let (old, new) = (self.durable.len(), self.bytes.len());
            let length = match dice.roll(3) {
                0 => old,
                1 => new,
                _ => {
                    let (low, high) = (old.min(new), old.max(new));
                    low + usize::try_from(dice.roll((high - low) as u64 + 1)).unwrap_or(0)
                }
            };
            self.durable.resize(length, 0);
            // Disks often write in order, so half of the crashes keep a run of sectors, the others any of them.
            let in_order = dice.roll(2) == 0;
            let kept = dice.roll(self.dirty.len() as u64 + 1);
            for (index, sector) in std::mem::take(&mut self.dirty).into_iter().enumerate() {
                let keeps = if in_order {
                    (index as u64) < kept
                } else {
                    dice.roll(2) == 0
                };
                if keeps {
                    self.copy_sector(sector);
                }
            }
        }
        self.dirty.clear();
        self.bytes.clone_from(&self.durable);
    }
}

impl MemoryFile {
    fn with<T>(&self, action: impl FnOnce(&mut Disk, u64) -> io::Result<T>) -> io::Result<T> {
        let mut disk = lock(&self.disk);
        if disk.generation != self.generation {
            return Err(dead());
        }
        action(&mut disk, self.inode)
    }
}

fn dead() -> io::Error {
    io::Error::other("this process ended in the crash")
}

fn place(position: u64) -> io::Result<usize> {
    usize::try_from(position).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl File for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.with(|disk, inode| {
            let bytes = disk
                .inodes
                .get(&inode)
                .map(|inode| inode.bytes.as_slice())
                .unwrap_or_default();
            let rest = bytes.get(place(position)?..).unwrap_or_default();
            let count = rest.len().min(buffer.len());
            if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
                to.copy_from_slice(from);
            }
            Ok(count)
        })
    }

    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.with(|disk, number| {
            let mut part = bytes;
            let mut result = Ok(());
            if disk.fail_writes > 0 {
                disk.fail_writes -= 1;
                part = bytes.get(..bytes.len() / 2).unwrap_or_default();
                result = Err(io::Error::other("the write was made to fail"));
            } else if let Err(error) = disk.grow(number, position + bytes.len() as u64) {
                // A real disk takes what fits.
                let room = disk.capacity.unwrap_or(0).saturating_sub(disk.used());
                let fits = place((disk.inodes.get(&number).map_or(0, Inode::space) + room).saturating_sub(position))?;
                part = bytes.get(..fits.min(bytes.len())).unwrap_or_default();
                result = Err(error);
            }
            if let Some(inode) = disk.inodes.get_mut(&number) {
                inode.write(part, place(position)?);
            }
            result
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|disk, number| {
            disk.syncs += 1;
            let fails = disk.fail_syncs > 0;
            disk.fail_syncs = disk.fail_syncs.saturating_sub(1);
            let Some(inode) = disk.inodes.get_mut(&number) else {
                return Ok(());
            };
            if fails {
                // The kernel drops the dirty marks: no later sync writes these pages.
                inode.dirty.clear();
                return Err(io::Error::other("the sync was made to fail"));
            }
            inode.sync();
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|disk, inode| Ok(disk.inodes.get(&inode).map_or(0, |inode| inode.bytes.len() as u64)))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.with(|disk, number| {
            disk.grow(number, length)?;
            if let Some(inode) = disk.inodes.get_mut(&number) {
                inode.bytes.resize(place(length)?, 0);
                inode.allocated = inode.allocated.min(length);
                inode.dirty.extend(place(length)? / SECTOR..=place(length)? / SECTOR);
            }
            Ok(())
        })
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.with(|disk, number| {
            disk.grow(number, length)?;
            if let Some(inode) = disk.inodes.get_mut(&number) {
                inode.allocated = inode.allocated.max(length);
                let longer = place(length)?.max(inode.bytes.len());
                inode.bytes.resize(longer, 0);
            }
            Ok(())
        })
    }
}

impl MemoryFiles {
    fn file(&self, inode: u64, generation: u64) -> Arc<dyn File> {
        Arc::new(MemoryFile {
            disk: Arc::clone(&self.disk),
            inode,
            generation,
        })
    }
}

fn directory_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

impl FileSystem for MemoryFiles {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let disk = self.alive()?;
        let inode = *disk.entries.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(inode, disk.generation))
    }

    fn open_write(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.open(name)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut disk = self.alive()?;
        let inode = disk.add_entry(name);
        Ok(self.file(inode, disk.generation))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.alive()?
            .entries
            .remove(name)
            .map(|_| ())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.alive()?;
        let inode = disk.entries.remove(from).ok_or(io::ErrorKind::NotFound)?;
        disk.entries.insert(to.to_owned(), inode);
        Ok(())
    }

    fn create_dir(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove_dir(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let disk = self.alive()?;
        let prefix = if directory.is_empty() {
            String::new()
        } else {
            format!("{directory}/")
        };
        let names = disk.entries.keys().filter_map(|path| path.strip_prefix(&prefix));
        let names: std::collections::BTreeSet<&str> =
            names.map(|rest| rest.split('/').next().unwrap_or(rest)).collect();
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    fn sync_dir(&self, directory: &str) -> io::Result<()> {
        let mut disk = self.alive()?;
        let disk = &mut *disk;
        disk.durable_entries.retain(|path, _| directory_of(path) != directory);
        let now = disk.entries.iter().filter(|(path, _)| directory_of(path) == directory);
        disk.durable_entries
            .extend(now.map(|(path, &inode)| (path.clone(), inode)));
        Ok(())
    }

    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn FileLock>>> {
        let mut disk = self.alive()?;
        if disk.locked.contains_key(name) {
            return Ok(None);
        }
        let generation = disk.generation;
        disk.locked.insert(name.to_owned(), generation);
        Ok(Some(Box::new(MemoryLock {
            disk: Arc::clone(&self.disk),
            name: name.to_owned(),
            generation,
        })))
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("memory")
    }
}
