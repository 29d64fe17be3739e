//! What makes space: expiry, retention, and removing segments that no lane needs.
//!
//! A segment is dead when every lane that has records in it has acknowledged all of them. It is looked for when a batch
//! begins and removed when that batch is durable, so every acknowledgement that it depends on is durable too. Each segment
//! starts with the state of all lanes, so nothing else in a dead one is needed.

use super::Log;
use super::segment::Segment;
use crate::error::CommitError;
use crate::format::Stream;
use crate::lane::{Lane, LaneId, LaneKind};

/// A newest segment without anything that is needed is given back at this part of its full size. Small enough that little
/// stays, large enough that a trickle does not start a file a second.
const SPENT_PART: u64 = 16;

impl Log {
    /// Looks after expiry, retention, and space; call it every few seconds to minutes. `now` is in milliseconds since 1970.
    /// What it decides becomes durable, and space is given back, with the next commit.
    pub fn maintain(&mut self, now: u64) {
        self.expire_segments(now);
        let ids: Vec<LaneId> = self.lanes.keys().copied().collect();
        for id in ids {
            self.trim(id, now);
        }
        if (self.is_overdue(now) || self.is_spent()) && self.health == super::Health::Good {
            self.roll(now);
        }
        self.look_for_dead = true;
        if self.reserve.file.is_none() {
            // Still no space for it: the next call tries again, and nothing depends on it before the disk is full.
            drop(self.open_reserve());
        }
    }

    /// Acknowledges what lanes have in segments of which every record of theirs has expired.
    fn expire_segments(&mut self, now: u64) {
        let all = self.moved.values().flatten().chain(&self.journal);
        let parts = all.flat_map(|segment| &segment.parts);
        let expired = parts.filter(|(_, part)| part.last_expiry != 0 && part.last_expiry <= now);
        let expired: Vec<_> = expired
            .map(|(&id, part)| (id, part.first..part.last.saturating_add(1)))
            .collect();
        for (id, range) in expired {
            self.expire(id, range);
        }
    }

    /// Acknowledges positions because the time of their records is over, and counts those that were not acknowledged.
    pub fn expire(&mut self, lane: LaneId, positions: std::ops::Range<u64>) -> u64 {
        let new = self.settle_positions(lane, positions);
        self.stats.expired += new;
        new
    }

    /// Whether the newest segment holds nothing that is needed and is large enough to be given back before it is full.
    fn is_spent(&self) -> bool {
        let active = self.active();
        let needs = |id: LaneId| self.lanes.get(&id).map(|lane| &lane.progress);
        active.end >= self.options.segment_bytes / SPENT_PART
            && !active.parts.is_empty()
            && active.durable == active.end
            && active.needed(needs).next().is_none()
    }

    /// Acknowledges what a retained lane keeps longer, or more of, than it should.
    fn trim(&mut self, id: LaneId, now: u64) {
        let Some(Lane {
            kind: LaneKind::Retained { max_age, max_bytes },
            progress,
            ..
        }) = self.lanes.get(&id)
        else {
            return;
        };
        let max_age = max_age.map_or(u64::MAX, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let max_bytes = max_bytes.unwrap_or(u64::MAX);
        let active = self.journal.back().map(|segment| segment.number);
        let mut end = progress.low_water();
        let kept = self
            .segments_of(id)
            .filter_map(|segment| Some((segment, segment.parts.get(&id)?)));
        let kept: Vec<_> = kept.filter(|(_, part)| part.last >= progress.low_water()).collect();
        let mut bytes: u64 = kept.iter().map(|(_, part)| part.bytes).sum();
        for (segment, part) in kept {
            let is_active = segment.stream == Stream::Journal && Some(segment.number) == active;
            let is_old = part.last_time.saturating_add(max_age) <= now;
            let is_too_much = !is_active && bytes - part.bytes >= max_bytes;
            if !is_old && !is_too_much {
                break;
            }
            end = part.last.saturating_add(1);
            bytes -= part.bytes;
        }
        self.settle_positions(id, 0..end);
    }

    /// Whether the newest segment must end now, so that a retained lane with few records is trimmed in time: segments span at
    /// most about an eighth of the age.
    fn is_overdue(&self, now: u64) -> bool {
        self.active()
            .parts
            .iter()
            .any(|(id, part)| match self.lanes.get(id).map(|lane| lane.kind) {
                Some(LaneKind::Retained { max_age: Some(age), .. }) => {
                    let eighth = u64::try_from(age.as_millis()).unwrap_or(u64::MAX) / 8;
                    part.first_time.saturating_add(eighth) <= now
                }
                _ => false,
            })
    }

    /// The segments that are dead by what is acknowledged now. Looks at the oldest only, unless told to look at all.
    pub(super) fn find_dead(&mut self) -> Vec<(Stream, u64)> {
        let look_at_all = std::mem::take(&mut self.look_for_dead);
        let own = self.moved.values();
        let own = own.flat_map(|segments| segments.iter().take_while(|segment| self.is_dead(segment)));
        let journal = self.journal.iter();
        let count = journal.len().saturating_sub(1);
        let dead = journal.take(count).map(|segment| (segment, self.is_dead(segment)));
        let dead: Vec<&Segment> = if look_at_all {
            dead.filter(|(_, is_dead)| *is_dead)
                .map(|(segment, _)| segment)
                .chain(own)
                .collect()
        } else {
            dead.take_while(|(_, is_dead)| *is_dead)
                .map(|(segment, _)| segment)
                .chain(own)
                .collect()
        };
        dead.into_iter()
            .map(|segment| (segment.stream, segment.number))
            .collect()
    }

    fn is_dead(&self, segment: &Segment) -> bool {
        let needs = |id: LaneId| self.lanes.get(&id).map(|lane| &lane.progress);
        let is_needed = || segment.needed(needs).next().is_some();
        match segment.stream {
            // A mover may be appending to one that is not sealed.
            Stream::Lane(_) if self.moving && !segment.sealed => false,
            Stream::Lane(id) => !self.lanes.contains_key(&id) || !is_needed(),
            _ => segment.sealed && segment.durable == segment.end && (segment.moved || !is_needed()),
        }
    }

    /// Removes segments that were found dead.
    pub(super) fn bury(&mut self, dead: &[(Stream, u64)]) {
        for &(stream, number) in dead {
            let list = match stream {
                Stream::Journal => &mut self.journal,
                Stream::Lane(lane) => match self.moved.get_mut(&lane) {
                    Some(list) => list,
                    None => continue,
                },
                Stream::Reserve => continue,
            };
            let Ok(index) = list.binary_search_by_key(&number, |segment| segment.number) else {
                continue;
            };
            if let Some(segment) = list.remove(index) {
                self.removal_unsynced |= segment.moved;
                self.hot -= segment.chunks.iter().map(|chunk| chunk.bytes.len() as u64).sum::<u64>();
                self.disk_bytes -= segment.durable;
                self.garbage.push(segment.name());
            }
        }
        self.moved.retain(|_, segments| !segments.is_empty());
    }

    /// Commits everything that waits, for callers that have no thread for it, and removes what is dead.
    ///
    /// # Errors
    /// The commit failed. At a full disk the lanes' progress is in the reserve nevertheless.
    pub fn commit(&mut self, now: u64) -> Result<(), CommitError> {
        let mut result = Ok(());
        while result.is_ok()
            && let Some(batch) = self.begin_commit(now)
        {
            // Bytes that waited for space go first, as they stand; what came since needs a batch of its own.
            let is_recovering = self.health == super::Health::Full;
            let written = batch.write();
            result = self.finish_commit(batch, written);
            if !is_recovering {
                break;
            }
        }
        if let Some(write) = self.begin_reserve() {
            let written = write.write();
            // What the journal answered says it all: the reserve only helps where it can.
            drop(self.finish_reserve(write, written));
        }
        self.remove_garbage();
        result
    }

    /// Removes the files that nothing needs any more; those that can't be removed now are tried again.
    pub fn remove_garbage(&mut self) {
        if !self.has_garbage() {
            return;
        }
        let names = self.take_garbage();
        let (left, synced) = remove_files(self.files.as_ref(), names, self.needs_directory_sync());
        self.garbage_removed(left, synced);
    }
}

/// Removes files and syncs the journal's directory if asked; returns what could not be removed, and whether it was synced.
pub(crate) fn remove_files(
    files: &dyn crate::file_system::FileSystem,
    names: Vec<String>,
    sync: bool,
) -> (Vec<String>, bool) {
    let left = names.into_iter().filter(|name| match files.remove(name) {
        Ok(()) => false,
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    });
    let left = left.collect();
    (left, sync && files.sync_dir(&Stream::Journal.directory()).is_ok())
}
