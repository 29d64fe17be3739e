//! The shell: futures, threads, closing, and recovery without a restart.
#![expect(clippy::unwrap_used, reason = "helpers of tests may, as tests do")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use holm_queue::core::Health;
use holm_queue::testing::{CrashStyle, MemoryFiles};
use holm_queue::{
    AppendError, Clock, CommitError, LaneId, LaneKind, NewRecord, OpenError, Options, Pending, Queue, ReadError,
    Record, Start, Visibility, Volatile,
};

fn options() -> Options {
    Options {
        retry_interval: Duration::from_millis(5),
        ..Options::default()
    }
}

fn append(queue: &Queue, lane: LaneId, payload: &str) -> Result<Pending, AppendError> {
    let lanes = [(lane, 0)];
    let payload = bytes::Bytes::copy_from_slice(payload.as_bytes());
    queue.append(&NewRecord {
        sender: "test",
        lanes: &lanes,
        enqueued_at: 1,
        payload,
    })
}

fn payloads(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .map(|record| String::from_utf8(record.payload().to_vec()).unwrap())
        .collect()
}

fn in_memory(files: &MemoryFiles) -> (Queue, LaneId) {
    let (queue, _) = Queue::open_on(Arc::new(files.clone()), options()).unwrap();
    let lane = queue.lane("lane", LaneKind::UntilAcknowledged).unwrap();
    (queue, lane)
}

/// Waits for a state; what does not come within a minute does not come.
fn until(what: &str, mut state: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !state() {
        assert!(Instant::now() < deadline, "never {what}");
        std::thread::yield_now();
    }
}

#[test]
fn records_appended_together_keep_their_order_up_to_the_first_that_is_refused() {
    let files = MemoryFiles::new();
    let (queue, lane) = in_memory(&files);
    let (lanes, none) = ([(lane, 0)], []);
    let record = |payload: &'static str, lanes| NewRecord {
        sender: "test",
        lanes,
        enqueued_at: 1,
        payload: payload.into(),
    };

    let records = [
        record("a", &lanes[..]),
        record("b", &lanes),
        record("refused", &none),
        record("behind it", &lanes),
    ];
    let (count, commit) = queue.append_all(&records).unwrap();
    let refused = queue.append_all(&records[2..]);

    commit.wait().unwrap();
    let mut reader = queue.reader(lane, Start::LowWater, Visibility::Durable).unwrap();
    assert_eq!(count, 2);
    assert!(matches!(refused, Err(AppendError::NoLane)));
    assert_eq!(payloads(&reader.try_read(9, 999).unwrap()), ["a", "b"]);
}

#[test]
fn a_store_in_memory_is_safe_at_once_and_refuses_at_its_limit_until_there_is_room() {
    let store = Arc::new(Volatile::new(1 << 20));
    let (queue, _) = Queue::open_on(store, options()).unwrap();
    queue.set_max_bytes(Some(8 << 20));
    let lane = queue.lane("lane", LaneKind::UntilAcknowledged).unwrap();
    let payload = "x".repeat(10_000);

    let mut taken = 0;
    let refused = loop {
        match append(&queue, lane, &payload) {
            Ok(mut pending) => {
                let mut context = Context::from_waker(Waker::noop());
                assert!(std::pin::Pin::new(&mut pending).poll(&mut context).is_ready());
                taken += 1;
            }
            Err(AppendError::Busy { .. }) => std::thread::yield_now(),
            Err(error) => break error,
        }
    };
    let mut reader = queue.reader(lane, Start::LowWater, Visibility::Durable).unwrap();
    let mut read = 0;
    until("everything is read", || {
        read += reader.try_read(1000, 64 << 20).unwrap().len();
        read == taken
    });
    queue.acknowledge(lane, 0..taken as u64).unwrap();

    assert!(matches!(refused, AppendError::QueueFull { .. }), "{refused}");
    assert!((80..110).contains(&taken), "{taken}");
    until("there is room", || {
        queue.maintain();
        append(&queue, lane, &payload).is_ok()
    });
}

#[test]
fn restart_preserves_what_was_not_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let (queue, report) = Queue::open(directory.path(), options()).unwrap();
    assert!(report.created);
    let lane = queue.lane("lane", LaneKind::UntilAcknowledged).unwrap();
    let pending: Vec<_> = (0..10)
        .map(|number| append(&queue, lane, &number.to_string()).unwrap())
        .collect();
    queue.acknowledge(lane, 0..4).unwrap();
    pending.into_iter().for_each(|pending| pending.wait().unwrap());

    drop(queue);
    let (queue, report) = Queue::open(directory.path(), options()).unwrap();

    assert!(!report.created);
    assert_eq!(queue.lane("lane", LaneKind::UntilAcknowledged), Ok(lane));
    let mut reader = queue.reader(lane, Start::LowWater, Visibility::Durable).unwrap();
    assert_eq!(
        payloads(&reader.try_read(100, 1 << 20).unwrap()),
        ["4", "5", "6", "7", "8", "9"]
    );
    assert_eq!(queue.depth(lane).unwrap().records, 6);
}

#[test]
fn second_opener_of_a_directory_is_refused_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let (_queue, _) = Queue::open(directory.path(), options()).unwrap();

    let error = Queue::open(directory.path(), options()).unwrap_err();

    assert!(matches!(error, OpenError::Locked { .. }));
    assert!(
        error.to_string().contains(&directory.path().display().to_string()),
        "{error}"
    );
}

#[test]
fn order_of_appends_of_each_thread_is_the_order_of_positions() {
    let directory = tempfile::tempdir().unwrap();
    let (queue, _) = Queue::open(directory.path(), options()).unwrap();
    let lane = queue.lane("lane", LaneKind::UntilAcknowledged).unwrap();

    std::thread::scope(|scope| {
        for thread in 0..8 {
            let queue = queue.clone();
            scope.spawn(move || {
                for number in 0..200 {
                    let pending = append(&queue, lane, &format!("{thread} {number}")).unwrap();
                    if number % 10 == 0 {
                        pending.wait().unwrap();
                    }
                }
            });
        }
    });

    let mut reader = queue.reader(lane, Start::LowWater, Visibility::Appended).unwrap();
    let mut next = [0; 8];
    let mut count = 0;
    loop {
        let records = reader.try_read(100, 1 << 20).unwrap();
        if records.is_empty() {
            break;
        }
        for payload in payloads(&records) {
            let (thread, number) = payload.split_once(' ').unwrap();
            let expected: &mut u64 = &mut next[thread.parse::<usize>().unwrap()];
            assert_eq!(number.parse::<u64>().unwrap(), *expected);
            *expected += 1;
            count += 1;
        }
    }
    assert_eq!(count, 1_600);
}

#[tokio::test]
async fn waiting_reader_is_woken_by_an_append_and_by_its_commit() {
    let (queue, lane) = in_memory(&MemoryFiles::new());
    let mut early = queue.reader(lane, Start::End, Visibility::Appended).unwrap();
    let mut late = queue.reader(lane, Start::End, Visibility::Durable).unwrap();
    let early = tokio::spawn(async move {
        early.wait().await.unwrap();
        early.try_read(10, 1_000).unwrap()
    });
    let late = tokio::spawn(async move {
        late.wait().await.unwrap();
        late.try_read(10, 1_000).unwrap()
    });
    tokio::task::yield_now().await;

    append(&queue, lane, "news").unwrap().await.unwrap();

    assert_eq!(payloads(&early.await.unwrap()), ["news"]);
    assert_eq!(payloads(&late.await.unwrap()), ["news"]);
}

#[tokio::test]
async fn dropped_wait_misses_nothing() {
    let (queue, lane) = in_memory(&MemoryFiles::new());
    let mut reader = queue.reader(lane, Start::LowWater, Visibility::Appended).unwrap();
    {
        let mut wait = std::pin::pin!(reader.wait());
        assert!(wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }

    append(&queue, lane, "news").unwrap().await.unwrap();

    reader.wait().await.unwrap();
    assert_eq!(payloads(&reader.try_read(10, 1_000).unwrap()), ["news"]);
}

#[tokio::test]
async fn flush_makes_acknowledgements_durable() {
    let files = MemoryFiles::new();
    let (queue, lane) = in_memory(&files);
    append(&queue, lane, "one").unwrap().await.unwrap();
    append(&queue, lane, "two").unwrap().await.unwrap();

    queue.acknowledge(lane, 0..1).unwrap();
    queue.flush().await.unwrap();

    files.crash(CrashStyle::LoseAll);
    let (queue, lane) = in_memory(&files);
    assert_eq!(queue.low_water(lane), Some(1));
}

/// Options with which acknowledgements alone wait for longer than a test takes.
fn patient() -> Options {
    Options {
        acknowledge_delay: Duration::from_secs(60),
        ..options()
    }
}

#[tokio::test]
async fn acknowledgements_go_with_the_next_append_and_cost_no_sync_of_their_own() {
    let files = MemoryFiles::new();
    let (queue, _) = Queue::open_on(Arc::new(files.clone()), patient()).unwrap();
    let lane = queue.lane("lane", LaneKind::UntilAcknowledged).unwrap();
    append(&queue, lane, "first").unwrap().await.unwrap();
    let before = queue.stats();

    for number in 0..100 {
        queue.acknowledge(lane, number..number + 1).unwrap();
        append(&queue, lane, "next").unwrap().await.unwrap();
    }

    let after = queue.stats();
    assert_eq!(after.syncs - before.syncs, 100);
    // A record that lies across the border of two blocks writes both.
    let blocks = (after.device_bytes - before.device_bytes) / 4096;
    assert!((100..=110).contains(&blocks), "{blocks}");
    files.crash(CrashStyle::LoseAll);
    let (queue, lane) = in_memory(&files);
    assert_eq!(queue.low_water(lane), Some(100));
}

#[tokio::test]
async fn crash_before_acknowledgements_are_on_disk_delivers_again() {
    let files = MemoryFiles::new();
    let (queue, _) = Queue::open_on(Arc::new(files.clone()), patient()).unwrap();
    let lane = queue.lane("lane", LaneKind::UntilAcknowledged).unwrap();
    append(&queue, lane, "one").unwrap().await.unwrap();
    append(&queue, lane, "two").unwrap().await.unwrap();

    queue.acknowledge(lane, 0..1).unwrap();
    files.crash(CrashStyle::LoseAll);

    let (queue, lane) = in_memory(&files);
    let mut reader = queue.reader(lane, Start::LowWater, Visibility::Durable).unwrap();
    assert_eq!(payloads(&reader.try_read(10, 1_000).unwrap()), ["one", "two"]);
}

#[tokio::test]
async fn acknowledgement_that_no_append_follows_is_on_disk_in_its_time() {
    let files = MemoryFiles::new();
    let options = Options {
        acknowledge_delay: Duration::from_millis(20),
        ..options()
    };
    let (queue, _) = Queue::open_on(Arc::new(files.clone()), options).unwrap();
    let lane = queue.lane("lane", LaneKind::UntilAcknowledged).unwrap();
    append(&queue, lane, "one").unwrap().await.unwrap();
    append(&queue, lane, "two").unwrap().await.unwrap();
    let commits = queue.stats().commits;

    queue.acknowledge(lane, 0..1).unwrap();
    until("committed", || queue.stats().commits > commits);

    files.crash(CrashStyle::LoseAll);
    let (queue, lane) = in_memory(&files);
    assert_eq!(queue.low_water(lane), Some(1));
}

#[tokio::test]
async fn many_acknowledgements_wait_for_no_append() {
    let files = MemoryFiles::new();
    let (queue, _) = Queue::open_on(Arc::new(files.clone()), patient()).unwrap();
    let lane = queue.lane("lane", LaneKind::UntilAcknowledged).unwrap();
    let pending: Vec<_> = (0..2000).map(|_| append(&queue, lane, "one").unwrap()).collect();
    for pending in pending {
        pending.await.unwrap();
    }
    let commits = queue.stats().commits;

    for position in 0..1024 {
        queue.acknowledge(lane, position..position + 1).unwrap();
    }
    until("committed", || queue.stats().commits > commits);

    files.crash(CrashStyle::LoseAll);
    let (queue, lane) = in_memory(&files);
    assert_eq!(queue.low_water(lane), Some(1024));
}

#[tokio::test]
async fn close_writes_acknowledgements_that_wait() {
    let files = MemoryFiles::new();
    let (queue, _) = Queue::open_on(Arc::new(files.clone()), patient()).unwrap();
    let lane = queue.lane("lane", LaneKind::UntilAcknowledged).unwrap();
    append(&queue, lane, "one").unwrap().await.unwrap();

    queue.acknowledge(lane, 0..1).unwrap();
    queue.close().await;

    files.crash(CrashStyle::LoseAll);
    let (queue, lane) = in_memory(&files);
    assert_eq!(queue.low_water(lane), Some(1));
}

#[tokio::test]
async fn acknowledgements_give_a_full_queue_its_space_back_without_waiting() {
    let options = Options {
        max_bytes: Some(1 << 20),
        segment_bytes: 64 << 10,
        ..patient()
    };
    let (queue, _) = Queue::open_on(Arc::new(MemoryFiles::new()), options).unwrap();
    let lane = queue.lane("lane", LaneKind::UntilAcknowledged).unwrap();
    let payload = "x".repeat(10_000);
    let mut taken = 0;
    while let Ok(pending) = append(&queue, lane, &payload) {
        pending.await.unwrap();
        taken += 1;
    }

    queue.acknowledge(lane, 0..taken).unwrap();

    until("there is room", || append(&queue, lane, &payload).is_ok());
}

#[tokio::test]
async fn close_commits_what_waits_and_releases_the_directory() {
    let files = MemoryFiles::new();
    let (queue, lane) = in_memory(&files);
    let mut reader = queue.reader(lane, Start::LowWater, Visibility::Durable).unwrap();
    let other = queue.clone();
    let pending = append(&queue, lane, "last").unwrap();

    queue.close().await;

    assert_eq!(pending.await, Ok(()));
    assert_eq!(append(&other, lane, "too late").unwrap_err(), AppendError::Closed);
    assert!(matches!(reader.try_read(1, 1), Err(ReadError::Closed)));
    assert!(matches!(reader.wait().await, Err(ReadError::Closed)));
    assert_eq!(other.flush().await, Err(CommitError::Closed));
    let (queue, lane) = in_memory(&files);
    assert_eq!(queue.depth(lane).unwrap().records, 1);
}

#[tokio::test]
async fn full_disk_is_told_and_ends_without_a_restart() {
    let files = MemoryFiles::new();
    let (queue, lane) = in_memory(&files);
    append(&queue, lane, "before").unwrap().await.unwrap();
    files.set_capacity(Some(files.used()));

    assert_eq!(
        append(&queue, lane, &"x".repeat(1_000)).unwrap().await,
        Err(CommitError::DiskFull)
    );
    assert_eq!(append(&queue, lane, "refused").unwrap_err(), AppendError::DiskFull);
    let mut reader = queue.reader(lane, Start::LowWater, Visibility::Durable).unwrap();
    assert_eq!(payloads(&reader.try_read(10, 10_000).unwrap()), ["before"]);
    files.set_capacity(None);
    until("healthy", || queue.health() == Some(Health::Good));

    append(&queue, lane, "after").unwrap().await.unwrap();
    assert_eq!(
        payloads(&reader.try_read(10, 10_000).unwrap()),
        [&"x".repeat(1_000), "after"]
    );
}

#[tokio::test]
async fn acknowledgement_on_a_full_disk_survives_a_crash() {
    let files = MemoryFiles::new();
    let (queue, lane) = in_memory(&files);
    append(&queue, lane, "one").unwrap().await.unwrap();
    append(&queue, lane, "two").unwrap().await.unwrap();
    files.set_capacity(Some(files.used()));
    assert!(append(&queue, lane, &"x".repeat(1_000)).unwrap().await.is_err());
    let syncs = files.syncs();

    queue.acknowledge(lane, 0..1).unwrap();
    until("saved to the reserve", || files.syncs() > syncs);

    files.crash(CrashStyle::LoseAll);
    let (queue, lane) = in_memory(&files);
    assert_eq!(queue.low_water(lane), Some(1));
}

#[tokio::test]
async fn failed_sync_is_told_and_recovers_without_a_restart() {
    let files = MemoryFiles::new();
    let (queue, lane) = in_memory(&files);
    queue.flush().await.unwrap();
    files.fail_syncs(1);

    let answer = append(&queue, lane, "during").unwrap().await;
    until("healthy", || queue.health() == Some(Health::Good));

    assert!(matches!(answer, Err(CommitError::Failed { .. })), "{answer:?}");
    files.crash(CrashStyle::LoseAll);
    let (queue, lane) = in_memory(&files);
    let mut reader = queue.reader(lane, Start::LowWater, Visibility::Durable).unwrap();
    assert_eq!(payloads(&reader.try_read(10, 1_000).unwrap()), ["during"]);
}

#[tokio::test]
async fn room_comes_when_what_waits_is_committed() {
    let files = MemoryFiles::new();
    let options = Options {
        max_uncommitted_bytes: 2_000,
        ..options()
    };
    let (queue, _) = Queue::open_on(Arc::new(files.clone()), options).unwrap();
    let lane = queue.lane("lane", LaneKind::UntilAcknowledged).unwrap();

    let mut count = 0;
    while count < 100 {
        match append(&queue, lane, &"x".repeat(500)) {
            Ok(_) => count += 1,
            Err(AppendError::Busy { .. }) => queue.room().await,
            Err(error) => panic!("{error}"),
        }
    }

    queue.flush().await.unwrap();
    assert_eq!(queue.depth(lane).unwrap().records, 100);
}

#[tokio::test]
async fn skipped_records_are_counted_for_the_reader() {
    let files = MemoryFiles::new();
    let time = Arc::new(AtomicU64::new(1));
    let clock = Arc::clone(&time);
    let options = Options {
        clock: Clock::new(move || clock.load(Ordering::Relaxed)),
        ..options()
    };
    let (queue, _) = Queue::open_on(Arc::new(files), options).unwrap();
    let lane = queue.lane("lane", LaneKind::UntilAcknowledged).unwrap();
    let lanes = [(lane, 50)];
    queue
        .append(&NewRecord {
            sender: "test",
            lanes: &lanes,
            enqueued_at: 1,
            payload: "short".into(),
        })
        .unwrap()
        .await
        .unwrap();

    time.store(50, Ordering::Relaxed);
    let mut reader = queue.reader(lane, Start::LowWater, Visibility::Durable).unwrap();
    let records = reader.try_read(10, 1_000).unwrap();

    assert!(records.is_empty());
    assert_eq!(reader.take_skipped().expired, 1);
    assert_eq!(reader.take_skipped().expired, 0);
    assert_eq!(queue.stats().expired, 1);
}

#[tokio::test]
async fn far_behind_lane_does_not_keep_the_journal() {
    let files = MemoryFiles::new();
    let options = Options {
        segment_bytes: 4096,
        maintain_interval: Duration::from_millis(5),
        ..options()
    };
    let (queue, _) = Queue::open_on(Arc::new(files.clone()), options).unwrap();
    let fast = queue.lane("fast", LaneKind::UntilAcknowledged).unwrap();
    let slow = queue.lane("slow", LaneKind::UntilAcknowledged).unwrap();
    for number in 0..400 {
        let lane = if number % 20 == 0 { slow } else { fast };
        append(&queue, lane, &format!("{number:0>300}")).unwrap().await.unwrap();
    }
    let before = queue.stats().segments;

    queue.acknowledge(fast, 0..380).unwrap();
    until("small", || queue.stats().segments <= 4);

    assert!(before > 20);
    let mut reader = queue.reader(slow, Start::LowWater, Visibility::Durable).unwrap();
    assert_eq!(reader.try_read(100, 1 << 20).unwrap().len(), 20);
    assert_eq!(queue.stats().corrupt, 0);
}

#[test]
fn pending_is_woken_on_any_executor() {
    let (queue, lane) = in_memory(&MemoryFiles::new());
    let mut pending = append(&queue, lane, "one").unwrap();

    until("durable", || {
        let poll = std::pin::Pin::new(&mut pending).poll(&mut Context::from_waker(Waker::noop()));
        poll == Poll::Ready(Ok(()))
    });

    assert_eq!(queue.lane_bounds(lane).unwrap().durable_next, 1);
}
