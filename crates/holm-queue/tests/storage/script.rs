//! A small language for tests on one log: lanes by name, payloads as text, time by hand.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use holm_queue::core::{Log, OpenReport, ReadBuffer};
use holm_queue::testing::MemoryFiles;
use holm_queue::{AppendError, Appended, CommitError, LaneId, LaneKind, NewRecord, Options, Start, Visibility};

/// The first segment of a new directory.
pub(crate) const FIRST_SEGMENT: &str = "journal/0000000000000001.seg";

pub(crate) fn options() -> Options {
    Options {
        segment_bytes: 4096,
        reserve_bytes: 8192,
        max_uncommitted_bytes: 64 << 10,
        hot_bytes: 2048,
        max_ranges: 16,
        salt: Some(99),
        ..Options::default()
    }
}

pub(crate) struct Script {
    pub(crate) files: MemoryFiles,
    pub(crate) log: Log,
    pub(crate) now: u64,
    options: Options,
}

impl Script {
    pub(crate) fn new() -> Self {
        Self::with(options())
    }

    pub(crate) fn with(options: Options) -> Self {
        let files = MemoryFiles::new();
        let (log, _) = Log::open(Arc::new(files.clone()), options.clone(), 0).unwrap();
        let mut script = Self {
            files,
            log,
            now: 0,
            options,
        };
        for name in ["fast", "slow"] {
            script.define(name, LaneKind::UntilAcknowledged);
        }
        script
    }

    pub(crate) fn define(&mut self, name: &str, kind: LaneKind) -> LaneId {
        let lane = self.log.lane(name, kind).unwrap();
        self.commit();
        lane
    }

    pub(crate) fn lane(&self, name: &str) -> LaneId {
        self.log.lanes().into_iter().find(|lane| lane.name == name).unwrap().id
    }

    pub(crate) fn append_to(&mut self, lanes: &[(LaneId, u64)], payload: &str) -> Result<Appended, AppendError> {
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        self.log.append(&NewRecord {
            sender: "test",
            lanes,
            enqueued_at: self.now,
            payload,
        })
    }

    pub(crate) fn append_record(&mut self, lane: &str, payload: &str) -> Result<Appended, AppendError> {
        self.append_to(&[(self.lane(lane), 0)], payload)
    }

    pub(crate) fn try_append(&mut self, lane: &str, payload: &str) -> Result<u64, AppendError> {
        Ok(self.append_record(lane, payload)?.positions.as_slice()[0].1)
    }

    /// Returns the position.
    pub(crate) fn append(&mut self, lane: &str, payload: &str) -> u64 {
        self.try_append(lane, payload).unwrap()
    }

    pub(crate) fn append_all(&mut self, lane: &str, payloads: impl IntoIterator<Item = impl AsRef<str>>) {
        for payload in payloads {
            self.append(lane, payload.as_ref());
        }
    }

    pub(crate) fn append_until(&mut self, lane: &str, payload: &str, expires_at: u64) {
        self.append_to(&[(self.lane(lane), expires_at)], payload).unwrap();
    }

    pub(crate) fn append_bytes(&mut self, lane: &str, payload: &[u8]) {
        let lanes = [(self.lane(lane), 0)];
        let payload = Bytes::copy_from_slice(payload);
        self.log
            .append(&NewRecord {
                sender: "test",
                lanes: &lanes,
                enqueued_at: self.now,
                payload,
            })
            .unwrap();
    }

    pub(crate) fn acknowledge(&mut self, lane: &str, positions: Range<u64>) {
        self.log.acknowledge(self.lane(lane), positions).unwrap();
    }

    pub(crate) fn try_commit(&mut self) -> Result<(), CommitError> {
        self.log.commit(self.now)
    }

    pub(crate) fn commit(&mut self) {
        self.try_commit().unwrap();
    }

    /// Maintains, moves all there is to be moved, and commits.
    pub(crate) fn maintain(&mut self) {
        self.log.maintain(self.now);
        self.commit();
        while let Some(mut mover) = self.log.begin_move(self.now) {
            while !mover.step().unwrap() {}
            self.log.finish_move(mover, Ok(true)).unwrap();
            self.commit();
        }
        self.log.maintain(self.now);
        self.commit();
    }

    pub(crate) fn read(&mut self, lane: &str, visibility: Visibility) -> Vec<String> {
        self.read_from(lane, Start::LowWater, visibility)
    }

    pub(crate) fn read_from(&mut self, lane: &str, start: Start, visibility: Visibility) -> Vec<String> {
        let mut cursor = self.log.cursor(self.lane(lane), start, visibility).unwrap();
        let mut buffer = ReadBuffer::default();
        let mut all = Vec::new();
        loop {
            let (records, _) = self
                .log
                .read(&mut cursor, &mut buffer, (7, 5000), visibility, self.now)
                .unwrap();
            if records.is_empty() {
                return all;
            }
            all.extend(
                records
                    .iter()
                    .map(|record| String::from_utf8(record.payload().to_vec()).unwrap()),
            );
        }
    }

    pub(crate) fn reopen(&mut self) -> OpenReport {
        // The old log holds the lock, as a process would; a crash is what ends it without a word.
        self.files.crash(holm_queue::testing::CrashStyle::KeepAll);
        let (log, report) = Log::open(Arc::new(self.files.clone()), self.options.clone(), self.now).unwrap();
        self.log = log;
        report
    }

    /// Where a text begins and ends in the first segment.
    pub(crate) fn find(&self, text: &str) -> (usize, usize) {
        let bytes = self.files.bytes(FIRST_SEGMENT).unwrap();
        let at = bytes
            .windows(text.len())
            .position(|window| window == text.as_bytes())
            .unwrap();
        (at, at + text.len())
    }

    /// Flips a bit within a text of the first segment.
    pub(crate) fn flip(&mut self, text: &str) {
        let at = self.find(text).0;
        self.files.damage(FIRST_SEGMENT, |bytes| bytes[at] ^= 4);
    }
}
