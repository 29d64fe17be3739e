//! A plain model beside the real log: random actions on a file system that crashes, tears, fills up and fails.
//!
//! What is asserted is the design's first invariant: what was reported durable and not acknowledged is read again, in order,
//! with its own content, whatever happened in between; positions and offsets are given out once; acknowledgements that were
//! committed hold.
#![expect(clippy::unwrap_used, reason = "helpers of tests may, as tests do")]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use holm_queue::core::{Health, Log, Mover, OpenReport, ReadBuffer};
use holm_queue::testing::{CrashStyle, MemoryFiles};
use holm_queue::{AppendError, LaneId, LaneKind, NewRecord, Offset, Options, Start, Visibility};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Action {
    Append { lanes: u8, size: usize, ttl: u64 },
    Acknowledge { lane: usize, skip: usize, count: u64 },
    Read { lane: usize, visibility: Visibility },
    Commit,
    Maintain,
    MoveStep,
    Crash(CrashStyle),
    LeaveSpace(u64),
    FailSyncs(u32),
    FailWrites(u32),
    Pass(u64),
}

fn action() -> impl Strategy<Value = Action> {
    let size = prop_oneof![4 => 0usize..300, 1 => 1000usize..3000];
    let ttl = prop_oneof![4 => Just(0u64), 1 => 1u64..100];
    let visibility = prop_oneof![Just(Visibility::Appended), Just(Visibility::Durable)];
    let style = prop_oneof![
        1 => Just(CrashStyle::LoseAll),
        3 => any::<u64>().prop_map(CrashStyle::Torn),
        1 => Just(CrashStyle::KeepAll),
    ];
    prop_oneof![
        30 => (1u8..8, size, ttl).prop_map(|(lanes, size, ttl)| Action::Append { lanes, size, ttl }),
        12 => (0usize..3, 0usize..6, 1u64..8).prop_map(|(lane, skip, count)| Action::Acknowledge { lane, skip, count }),
        8 => (0usize..3, visibility).prop_map(|(lane, visibility)| Action::Read { lane, visibility }),
        10 => Just(Action::Commit),
        4 => Just(Action::Maintain),
        6 => Just(Action::MoveStep),
        3 => style.prop_map(Action::Crash),
        2 => (0u64..6000).prop_map(Action::LeaveSpace),
        1 => (1u32..3).prop_map(Action::FailSyncs),
        1 => (1u32..3).prop_map(Action::FailWrites),
        3 => (1u64..50).prop_map(Action::Pass),
    ]
}

#[derive(Debug, Clone)]
struct Expected {
    offset: Offset,
    payload: Bytes,
    expires_at: u64,
    durable: bool,
    acknowledged: bool,
    /// The acknowledgement was committed.
    settled: bool,
}

#[derive(Debug, Default)]
struct Model {
    lanes: [BTreeMap<u64, Expected>; 3],
    last_offset: Option<Offset>,
    count: u64,
    now: u64,
}

struct World {
    files: MemoryFiles,
    log: Log,
    ids: [LaneId; 3],
    mover: Option<Mover>,
    model: Model,
}

const NAMES: [&str; 3] = ["fast", "slow", "both"];

fn options() -> Options {
    Options {
        segment_bytes: 4096,
        reserve_bytes: 8192,
        max_uncommitted_bytes: 12 << 10,
        hot_bytes: 2048,
        max_ranges: 16,
        move_step_bytes: 700,
        salt: Some(99),
        ..Options::default()
    }
}

fn open(files: &MemoryFiles, now: u64) -> (Log, OpenReport) {
    Log::open(Arc::new(files.clone()), options(), now).unwrap()
}

impl World {
    fn new() -> Self {
        let files = MemoryFiles::new();
        let (mut log, report) = open(&files, 0);
        assert!(report.created);
        let ids = NAMES.map(|name| log.lane(name, LaneKind::UntilAcknowledged).unwrap());
        log.commit(0).unwrap();
        Self {
            files,
            log,
            ids,
            mover: None,
            model: Model {
                now: 1_000,
                ..Model::default()
            },
        }
    }

    fn run(&mut self, action: &Action) {
        match *action {
            Action::Append { lanes, size, ttl } => self.append(lanes, size, ttl),
            Action::Acknowledge { lane, skip, count } => self.acknowledge(lane, skip, count),
            Action::Read { lane, visibility } => self.read(lane, visibility),
            Action::Commit => self.commit(),
            Action::Maintain => {
                self.log.maintain(self.model.now);
                self.commit();
            }
            Action::MoveStep => self.move_step(),
            Action::Crash(style) => self.crash(style),
            Action::LeaveSpace(bytes) => self.files.set_capacity(Some(self.files.used() + bytes)),
            Action::FailSyncs(count) => self.files.fail_syncs(count),
            Action::FailWrites(count) => self.files.fail_writes(count),
            Action::Pass(time) => self.model.now += time,
        }
    }

    fn append(&mut self, mask: u8, size: usize, ttl: u64) {
        let now = self.model.now;
        let expires_at = if ttl == 0 { 0 } else { now + ttl };
        let chosen: Vec<usize> = (0..3).filter(|lane| mask & 1 << lane != 0).collect();
        let lanes: Vec<(LaneId, u64)> = chosen.iter().map(|&lane| (self.ids[lane], expires_at)).collect();
        self.model.count += 1;
        let mut payload = self.model.count.to_le_bytes().to_vec();
        payload.resize(8 + size, b'x');
        let payload = Bytes::from(payload);
        let record = NewRecord {
            sender: "model",
            lanes: &lanes,
            enqueued_at: now,
            payload: payload.clone(),
        };
        let appended = match self.log.append(&record) {
            Ok(appended) => appended,
            Err(AppendError::DiskFull) => return assert_eq!(*self.log.health(), Health::Full),
            Err(AppendError::Failing { .. }) => return assert!(matches!(self.log.health(), Health::Failing(_))),
            Err(AppendError::Busy { bytes, max_bytes }) => return assert!(bytes >= max_bytes),
            Err(error) => panic!("an append was refused: {error}"),
        };
        assert!(
            self.model.last_offset.is_none_or(|last| last < appended.offset),
            "an offset was given out again"
        );
        self.model.last_offset = Some(appended.offset);
        for (&lane, &(id, position)) in chosen.iter().zip(appended.positions.as_slice()) {
            assert_eq!(id, self.ids[lane]);
            let next = self.model.lanes[lane].last_key_value().map_or(0, |(&last, _)| last + 1);
            assert!(position >= next, "a position was given out again");
            let (offset, payload) = (appended.offset, payload.clone());
            let expected = Expected {
                offset,
                payload,
                expires_at,
                durable: false,
                acknowledged: false,
                settled: false,
            };
            self.model.lanes[lane].insert(position, expected);
        }
    }

    fn acknowledge(&mut self, lane: usize, skip: usize, count: u64) {
        let open = self.model.lanes[lane].iter().filter(|(_, record)| !record.acknowledged);
        let Some(first) = open.map(|(&position, _)| position).nth(skip) else {
            return;
        };
        let end = (first + count).min(self.log.lane_bounds(self.ids[lane]).unwrap().next);
        // Too scattered is the one refusal that can come; nothing is acknowledged then.
        if self.log.acknowledge(self.ids[lane], first..end).is_ok() {
            self.model.lanes[lane]
                .range_mut(first..end)
                .for_each(|(_, record)| record.acknowledged = true);
        }
    }

    fn read_all(&mut self, lane: usize, visibility: Visibility) -> BTreeMap<u64, (Offset, Bytes)> {
        let mut cursor = self.log.cursor(self.ids[lane], Start::LowWater, visibility).unwrap();
        let mut buffer = ReadBuffer::default();
        let mut all = BTreeMap::new();
        loop {
            let (records, _) = self
                .log
                .read(&mut cursor, &mut buffer, (5, 2000), visibility, self.model.now)
                .unwrap();
            if records.is_empty() {
                return all;
            }
            for record in records {
                assert!(
                    all.last_key_value().is_none_or(|(&last, _)| last < record.position),
                    "out of order"
                );
                assert_eq!(record.sender(), "model");
                all.insert(record.position, (record.offset, record.payload()));
            }
        }
    }

    /// While the process lives, a reader sees exactly what the model says.
    fn read(&mut self, lane: usize, visibility: Visibility) {
        let now = self.model.now;
        let is_expired = |record: &Expected| record.expires_at != 0 && record.expires_at <= now;
        let is_visible = |record: &Expected| visibility == Visibility::Appended || record.durable;
        let model = self.model.lanes[lane].iter_mut();
        let mut expected = BTreeMap::new();
        for (&position, record) in model.filter(|(_, record)| !record.acknowledged && is_visible(record)) {
            if is_expired(record) {
                record.acknowledged = true;
            } else {
                expected.insert(position, (record.offset, record.payload.clone()));
            }
        }

        let found = self.read_all(lane, visibility);

        assert_eq!(found, expected);
    }

    fn commit(&mut self) {
        let result = self.log.commit(self.model.now);
        match result {
            Ok(()) => self.all_durable(),
            Err(_) => assert_ne!(*self.log.health(), Health::Good),
        }
        for (lane, id) in self.ids.iter().enumerate() {
            let durable_next = self.log.lane_bounds(*id).unwrap().durable_next;
            for (position, record) in &mut self.model.lanes[lane] {
                let is_durable = *position < durable_next;
                assert!(
                    is_durable || !record.durable,
                    "position {position} of lane {lane} was durable"
                );
                // A commit that fails in its second batch has a first one that is on disk.
                record.durable = is_durable;
            }
        }
    }

    fn all_durable(&mut self) {
        for record in self.model.lanes.iter_mut().flat_map(BTreeMap::values_mut) {
            record.durable = true;
            record.settled |= record.acknowledged;
        }
    }

    fn move_step(&mut self) {
        let Some(mut mover) = self.mover.take().or_else(|| self.log.begin_move(self.model.now)) else {
            return;
        };
        match mover.step() {
            Ok(false) => self.mover = Some(mover),
            result => drop(self.log.finish_move(mover, result)),
        }
    }

    fn crash(&mut self, style: CrashStyle) {
        self.mover = None;
        self.files.crash(style);
        let (log, report) = open(&self.files, self.model.now);
        self.log = log;

        assert_eq!(report.nameless_lanes, []);
        assert!(
            report.damaged_segments == 0 || matches!(style, CrashStyle::Torn(_)),
            "{report:?}"
        );
        for lost in &report.lost {
            let lane = self.ids.iter().position(|id| *id == lost.lane).unwrap();
            for (position, record) in self.model.lanes[lane].range(lost.positions.clone()) {
                assert!(
                    !record.durable || record.acknowledged,
                    "lost durable position {position} of lane {lane}"
                );
            }
        }
        for lane in 0..3 {
            self.check_lane_after_crash(lane);
        }
    }

    fn check_lane_after_crash(&mut self, lane: usize) {
        let bounds = self.log.lane_bounds(self.ids[lane]).unwrap();
        assert!(bounds.first <= bounds.next, "a cursor beyond the end");
        let found = self.read_all(lane, Visibility::Durable);

        let now = self.model.now;
        let model = &mut self.model.lanes[lane];
        for (position, (offset, payload)) in &found {
            let record = model.get(position).expect("every record was appended");
            assert_eq!(
                (record.offset, &record.payload),
                (*offset, payload),
                "position {position} of lane {lane}"
            );
            assert!(!record.settled, "position {position} of lane {lane} was acknowledged");
        }
        for (position, record) in model.iter_mut() {
            let is_expired = record.expires_at != 0 && record.expires_at <= now;
            let is_found = found.contains_key(position);
            assert!(
                is_found || !record.durable || record.acknowledged || is_expired,
                "position {position} of lane {lane} was durable and is gone"
            );
            assert!(
                !record.durable || *position < bounds.next,
                "position {position} of lane {lane} lies beyond the end"
            );
            // What counts now is what was found: it is on disk, and nothing else of what was not durable is.
            record.durable = true;
            record.acknowledged = !is_found;
            record.settled = record.settled || (record.acknowledged && record.durable && !is_found);
        }
        model.retain(|position, _| *position < bounds.next);
    }

    /// The disk works again, and everything that was taken is on it.
    fn heal(&mut self) {
        self.files.set_capacity(None);
        self.files.fail_syncs(0);
        self.files.fail_writes(0);
        self.log.commit(self.model.now).unwrap();
        self.all_durable();
        for lane in 0..3 {
            self.read(lane, Visibility::Durable);
        }
    }
}

fn check(actions: &[Action]) {
    let mut world = World::new();
    for action in actions {
        world.run(action);
    }
    world.heal();
    world.crash(CrashStyle::LoseAll);
    world.heal();
    for lane in 0..3 {
        let end = world.log.lane_bounds(world.ids[lane]).unwrap().next;
        world.log.acknowledge(world.ids[lane], 0..end).unwrap();
        world.model.lanes[lane]
            .values_mut()
            .for_each(|record| record.acknowledged = true);
    }
    world.heal();
    world.log.maintain(world.model.now);
    world.log.commit(world.model.now).unwrap();
    assert_eq!(
        world.log.stats().segments,
        1,
        "everything is acknowledged, so only the newest segment stays"
    );
}

/// `HOLM_MODEL_CASES` asks for more, for a long run by hand.
fn cases() -> u32 {
    std::env::var("HOLM_MODEL_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn durable_unacknowledged_records_survive_whatever_happens(actions in prop::collection::vec(action(), 1..250)) {
        check(&actions);
    }
}
