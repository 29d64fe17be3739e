//! Progress while the journal can't take it: two slots in a file whose space was taken at opening, written in turn.
//!
//! Acknowledgements only ever add up, so a slot needs no order with the journal: at opening, what it holds is added to what
//! the journal says. It counts only for the run that wrote it (same epoch), because a later run may have given out positions
//! again that a damaged disk had lost.
//!
//! It is written for each new segment as well: should that segment's checkpoint be damaged, this is the other copy.

use std::io;
use std::sync::Arc;

use super::{Health, Log, report};
use crate::file_system::File;
use crate::format::{Fields, Found, Scanner, Seed, Snapshot, Stream, encode_entry, kind, put_number};

pub(super) const RESERVE_NAME: &str = "reserve";

#[derive(Debug, Default)]
pub(super) struct Reserve {
    /// `None`: there was no space for it yet.
    pub(super) file: Option<Arc<dyn File>>,
    pub(super) sequence: u64,
    /// What the newest slot holds, as [`Log::progress_version`] counts.
    saved_version: u64,
    /// The newest segment when it was written.
    saved_segment: u64,
}

/// What a slot of the reserve held.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) sequence: u64,
    pub(super) epoch: u32,
    pub(super) snapshot: Snapshot,
}

/// Progress on its way to the reserve. Made by [`Log::begin_reserve`]; at most one at a time.
#[derive(Debug)]
pub struct ReserveWrite {
    file: Arc<dyn File>,
    at: u64,
    bytes: Vec<u8>,
    progress_version: u64,
    segment: u64,
    dead: Vec<(Stream, u64)>,
}

impl ReserveWrite {
    /// Writes and syncs the slot. Needs nothing of the log.
    ///
    /// # Errors
    /// What the file system answered; the other slot is untouched.
    pub fn write(&self) -> io::Result<()> {
        self.file.write_all_at(&self.bytes, self.at)?;
        self.file.sync()
    }
}

impl Log {
    /// Takes the progress that the journal can't take now; `None` if it takes it, or if nothing has changed.
    pub fn begin_reserve(&mut self) -> Option<ReserveWrite> {
        if self.wants_reserve() {
            self.reserve_write()
        } else {
            None
        }
    }

    /// Whether there is progress that the journal can't take now and the reserve does not hold yet, or a new segment.
    #[must_use]
    pub fn wants_reserve(&self) -> bool {
        let is_behind = self.reserve.saved_version != self.progress_version && self.health != Health::Good;
        let active = self.active();
        let is_new = active.durable > 0 && active.number != self.reserve.saved_segment;
        (is_behind || is_new) && self.reserve.file.is_some()
    }

    pub(super) fn reserve_write(&mut self) -> Option<ReserveWrite> {
        let file = Arc::clone(self.reserve.file.as_ref()?);
        let slot_bytes = self.slot_bytes();
        let sequence = self.reserve.sequence + 1;
        let at = if sequence.is_multiple_of(2) { 0 } else { slot_bytes };
        let mut max_ranges = self.options.max_ranges;
        let bytes = loop {
            let bytes = self.encode_slot(sequence, at, max_ranges);
            if bytes.len() as u64 <= slot_bytes {
                break bytes;
            }
            if max_ranges == 0 {
                return None;
            }
            max_ranges /= 2;
        };
        self.reserve.sequence = sequence;
        // Ranges that were left out are not durable, so nothing may be removed because of them.
        let is_whole = max_ranges == self.options.max_ranges;
        let mut dead = if is_whole { self.find_dead() } else { Vec::new() };
        // The newest segment on disk says where the lanes end; it goes when a newer one is there.
        let newest = self
            .journal
            .iter()
            .rev()
            .find(|segment| segment.durable > 0)
            .map(|segment| segment.number);
        dead.retain(|&(stream, number)| stream != Stream::Journal || Some(number) != newest);
        Some(ReserveWrite {
            file,
            at,
            bytes,
            progress_version: self.progress_version,
            segment: self.active().number,
            dead,
        })
    }

    fn encode_slot(&self, sequence: u64, at: u64, max_ranges: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let lanes = self.lanes.iter().map(|(&id, lane)| (id, lane));
        let durable = self.journal.iter().rev().find(|segment| segment.durable > 0);
        let epoch = durable.map_or(self.epoch, |segment| segment.epoch);
        encode_entry(&mut bytes, kind::RESERVE, self.reserve_seed(), at, |buffer| {
            put_number(buffer, sequence);
            put_number(buffer, epoch.into());
            Snapshot::encode(buffer, self.next_lane, lanes, |lane| lane.durable_next, max_ranges);
        });
        bytes
    }

    /// Takes note of how it went. A failure changes nothing: the next call of [`Self::begin_reserve`] tries again.
    pub fn finish_reserve(&mut self, write: ReserveWrite, result: io::Result<()>) -> io::Result<()> {
        result?;
        self.stats.syncs += 1;
        let length = write.bytes.len() as u64;
        self.stats.bytes_written += length;
        self.stats.device_bytes += report::device_bytes(write.at..write.at + length);
        self.reserve.saved_version = write.progress_version;
        self.reserve.saved_segment = write.segment;
        self.bury(&write.dead);
        Ok(())
    }

    /// Takes the reserve's space if it has none yet.
    pub(super) fn open_reserve(&mut self) -> io::Result<()> {
        if self.reserve.file.is_some() {
            return Ok(());
        }
        let (file, is_new) = match self.files.open_write(RESERVE_NAME) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => (self.files.create(RESERVE_NAME)?, true),
            result => (result?, false),
        };
        file.allocate(self.options.reserve_bytes)?;
        if is_new {
            self.files.sync_dir("")?;
        }
        self.reserve.file = Some(file);
        Ok(())
    }

    /// Reads the newest valid slot, wherever in the file slots begin: the size may have been another.
    pub(super) fn read_reserve(&self) -> io::Result<Option<Slot>> {
        let file = match self.files.open(RESERVE_NAME) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result?,
        };
        let mut newest: Option<Slot> = None;
        let mut scanner = Scanner::new(file.as_ref(), self.reserve_seed(), 0, file.len()?).without_start();
        while let Some(found) = scanner.next()? {
            let Found::Entry(entry) = found else { continue };
            let mut fields = Fields::new(entry.body);
            let slot = fields
                .number()
                .zip(fields.number_u32())
                .zip(Snapshot::decode(&mut fields));
            if entry.kind == kind::RESERVE
                && let Some(((sequence, epoch), snapshot)) = slot
                && newest.as_ref().is_none_or(|newest| newest.sequence < sequence)
            {
                newest = Some(Slot {
                    sequence,
                    epoch,
                    snapshot,
                });
            }
        }
        Ok(newest)
    }

    fn slot_bytes(&self) -> u64 {
        self.options.reserve_bytes / 16 * 8
    }

    fn reserve_seed(&self) -> Seed {
        Seed::new(self.salt, Stream::Reserve, 0)
    }
}
