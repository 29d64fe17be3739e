//! What the log has to say about itself.

use std::ops::Range;

use crate::lane::LaneId;

/// Positions whose records are gone. Nothing reports them again: they count as acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The lane.
    pub lane: LaneId,
    /// The positions.
    pub positions: Range<u64>,
}

/// A cursor that was found beyond the end of its lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PulledBack {
    /// The lane.
    pub lane: LaneId,
    /// The lane's end, where the cursor now ends.
    pub to: u64,
}

/// What opening found and did. `OpenReport::default()` with `created` or an epoch is the normal case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// There was no queue here and one was made.
    pub created: bool,
    /// The high half of the offsets that this opening gives out.
    pub epoch: u32,
    /// Segment files found.
    pub segments: u64,
    /// Records read one by one, because their segment was not complete.
    pub records_scanned: u64,
    /// Bytes at the end of the newest segment that a crash left half-written; they were cut off. None of them was reported
    /// durable.
    pub torn_bytes: u64,
    /// Entries with a broken body that whole entries follow.
    pub damaged_entries: u64,
    /// Stretches without a valid header that whole entries follow.
    pub damaged_stretches: u64,
    /// Segments whose first entry, or whose lane states, could not be read.
    pub damaged_segments: u64,
    /// Positions whose records are gone. Besides damage, a crash can leave such a gap among records that were never reported
    /// durable, when the disk wrote later ones first.
    pub lost: Vec<Lost>,
    /// Cursors beyond the end of their lane.
    pub pulled_back: Vec<PulledBack>,
    /// Lanes whose definition is gone; their records are kept under the name `lost lane N`.
    pub nameless_lanes: Vec<LaneId>,
    /// The reserve knew of more progress than the journal, as after an end on a full disk, and it was taken over.
    pub reserve_used: bool,
    /// The disk is full: appends are refused until there is space, the rest works.
    pub disk_full: bool,
}

impl OpenReport {
    /// Whether bytes that were on disk have changed: what they held is lost.
    #[must_use]
    pub const fn is_damaged(&self) -> bool {
        self.damaged_entries + self.damaged_stretches + self.damaged_segments > 0
    }

    /// Records that are gone, as often as there are lanes that wanted them.
    #[must_use]
    pub fn records_lost(&self) -> u64 {
        let lost = self.lost.iter().map(|lost| lost.positions.end - lost.positions.start);
        lost.sum()
    }

    /// What is out of the ordinary, for the log; `None` when all is as it was left.
    #[must_use]
    pub fn irregularities(&self) -> Option<String> {
        let counts = [
            (self.torn_bytes, "bytes of an unfinished write cut off"),
            (self.damaged_entries, "damaged entries"),
            (self.damaged_stretches, "damaged stretches"),
            (self.damaged_segments, "damaged segments"),
            (self.records_lost(), "records gone"),
            (self.pulled_back.len() as u64, "cursors beyond their lane's end"),
            (self.nameless_lanes.len() as u64, "lanes without a name"),
        ];
        let counted = counts.iter().filter(|(count, _)| *count > 0);
        let mut all: Vec<String> = counted.map(|(count, what)| format!("{count} {what}")).collect();
        for (is_so, what) in [
            (self.reserve_used, "progress taken from the reserve"),
            (self.disk_full, "the disk is full"),
        ] {
            if is_so {
                all.push(what.to_owned());
            }
        }
        (!all.is_empty()).then(|| all.join(", "))
    }
}

/// What the device writes for a byte that is synced: the usual block of a file system, and page of the system's cache.
pub(super) const BLOCK_BYTES: u64 = 4096;

/// What the device writes when so much of a file is synced.
pub(super) fn device_bytes(written: Range<u64>) -> u64 {
    if written.is_empty() {
        return 0;
    }
    (written.end.div_ceil(BLOCK_BYTES) - written.start / BLOCK_BYTES) * BLOCK_BYTES
}

/// Counters since opening, and sizes now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records appended.
    pub appended: u64,
    /// Records known to be on disk.
    pub durable: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
    /// Positions acknowledged, trimmed or expired.
    pub acknowledged: u64,
    /// Commits that succeeded.
    pub commits: u64,
    /// Commits that failed.
    pub failed_commits: u64,
    /// Bytes written by commits and moves that succeeded, and to the reserve.
    pub bytes_written: u64,
    /// The same as the device sees them: each write up to its sync in whole blocks of 4 KiB, and one for each sync of a
    /// directory. What the file system writes besides (its own journal, inodes) comes on top.
    pub device_bytes: u64,
    /// Syncs of files and directories.
    pub syncs: u64,
    /// Positions whose time-to-live ended before they were acknowledged.
    pub expired: u64,
    /// Positions whose records were found damaged or missing, at opening too.
    pub corrupt: u64,
    /// Records moved to their lane's own segments.
    pub moved: u64,
    /// Segment files now.
    pub segments: u64,
    /// Bytes in segment files now.
    pub disk_bytes: u64,
    /// Bytes that wait for the disk now.
    pub uncommitted_bytes: u64,
    /// Newest bytes held in memory now, those that wait included.
    pub hot_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_writes_every_block_that_is_touched() {
        let cases = [
            (0..0, 0),
            (5..5, 0),
            (0..1, 1),
            (0..4096, 1),
            (4095..4097, 2),
            (4096..12_289, 3),
        ];

        for (written, blocks) in cases {
            assert_eq!(device_bytes(written.clone()), blocks * BLOCK_BYTES, "{written:?}");
        }
    }

    #[test]
    fn only_what_is_out_of_the_ordinary_is_told() {
        let usual = OpenReport {
            epoch: 3,
            segments: 2,
            records_scanned: 9,
            ..OpenReport::default()
        };
        let torn = OpenReport {
            torn_bytes: 17,
            disk_full: true,
            lost: vec![Lost {
                lane: LaneId(1),
                positions: 5..9,
            }],
            ..usual.clone()
        };

        assert_eq!(usual.irregularities(), None);
        assert_eq!(
            torn.irregularities().unwrap(),
            "17 bytes of an unfinished write cut off, 4 records gone, the disk is full"
        );
    }
}
