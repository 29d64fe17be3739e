//! How many durable records a second, beside what the disk does in the same minute.
//!
//! `cargo run --release -p holm-queue --example throughput [DIRECTORY]`; without a directory, a temporary one. Give one on the
//! disk to be measured: a temporary directory may be in memory.
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holm_queue::{AppendError, LaneId, LaneKind, NewRecord, Options, Queue, Visibility};

type Failure = Box<dyn std::error::Error>;

const ROUNDS: u32 = 5;
const RUN: Duration = Duration::from_millis(600);

fn main() -> Result<(), Failure> {
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args_os()
        .nth(1)
        .map_or_else(|| temporary.path().to_owned(), Into::into);
    let directory = tempfile::tempdir_in(directory)?;
    println!(
        "{:<36} {:>10} {:>10} {:>9} {:>12} {:>8}",
        "records/s", "raw syncs", "durable", "ratio", "per commit", "bytes"
    );
    for payload_bytes in [256, 1024] {
        for (producers, in_flight) in [(1, 1), (10, 1), (64, 1), (64, 16)] {
            compare(directory.path(), producers, payload_bytes, in_flight)?;
        }
    }
    println!(
        "{:<36} {:>21.0}",
        "core appends, 256 B, no disk",
        core_rate(directory.path())?
    );
    Ok(())
}

#[derive(Default)]
struct Outcome {
    rate: f64,
    per_commit: f64,
    amplification: f64,
}

/// Measures the queue and the disk in turns, for the machine may be shared and its disk's speed changes by the second.
fn compare(directory: &Path, producers: usize, payload_bytes: usize, in_flight: usize) -> Result<(), Failure> {
    let (mut raw, mut sum) = (0.0, Outcome::default());
    for _ in 0..ROUNDS {
        raw += raw_rate(directory, payload_bytes)?;
        let outcome = measure(directory, producers, payload_bytes, in_flight)?;
        sum.rate += outcome.rate;
        sum.per_commit += outcome.per_commit;
        sum.amplification += outcome.amplification;
    }
    let rounds = f64::from(ROUNDS);
    println!(
        "{:<36} {:>10.0} {:>10.0} {:>9.2} {:>12.1} {:>8.2}",
        format!("{producers} × {payload_bytes} B, {in_flight} in flight each"),
        raw / rounds,
        sum.rate / rounds,
        sum.rate / raw,
        sum.per_commit / rounds,
        sum.amplification / rounds,
    );
    Ok(())
}

/// How often a second this disk takes so many bytes at the end of a file and syncs them.
fn raw_rate(directory: &Path, bytes: usize) -> Result<f64, Failure> {
    let mut file = std::fs::File::create(directory.join("raw"))?;
    let payload = vec![b'x'; bytes];
    let begin = Instant::now();
    let mut count = 0;
    while begin.elapsed() < RUN {
        file.write_all(&payload)?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / begin.elapsed().as_secs_f64())
}

fn measure(directory: &Path, producers: usize, payload_bytes: usize, in_flight: usize) -> Result<Outcome, Failure> {
    let directory = tempfile::tempdir_in(directory)?;
    let (queue, _) = Queue::open(directory.path(), Options::default())?;
    let lane = queue.lane("lane", LaneKind::UntilAcknowledged)?;
    let payload = Bytes::from(vec![b'x'; payload_bytes]);
    // One producer needs no second thread, and would measure how long it takes to wake one.
    let runtime = match producers {
        1 => tokio::runtime::Builder::new_current_thread().build()?,
        _ => tokio::runtime::Builder::new_multi_thread().build()?,
    };
    let begin = Instant::now();
    let tasks: Vec<_> = (0..producers)
        .map(|_| runtime.spawn(produce(queue.clone(), lane, payload.clone(), in_flight, begin + RUN)))
        .collect();
    let mut count = 0;
    for task in tasks {
        count += runtime.block_on(task)??;
    }
    let (stats, seconds) = (queue.stats(), begin.elapsed().as_secs_f64());
    #[expect(clippy::cast_precision_loss, reason = "rates are for people")]
    let (count, commits, written, payload) = (
        count as f64,
        stats.commits as f64,
        stats.bytes_written as f64,
        stats.payload_bytes as f64,
    );
    Ok(Outcome {
        rate: count / seconds,
        per_commit: count / commits,
        amplification: written / payload,
    })
}

/// Appends, with at most so many not yet durable; returns how many became durable.
async fn produce(
    queue: Queue,
    lane: LaneId,
    payload: Bytes,
    in_flight: usize,
    until: Instant,
) -> Result<u64, AppendError> {
    let lanes = [(lane, 0)];
    let mut waiting = std::collections::VecDeque::new();
    let mut count = 0;
    while Instant::now() < until {
        let record = NewRecord {
            sender: "producer-01",
            lanes: &lanes,
            enqueued_at: 1_700_000_000_000,
            payload: payload.clone(),
        };
        match queue.append(&record) {
            Ok(pending) => waiting.push_back(pending),
            Err(AppendError::Busy { .. }) => queue.room().await,
            Err(error) => return Err(error),
        }
        if waiting.len() >= in_flight
            && let Some(pending) = waiting.pop_front()
        {
            count += u64::from(pending.await.is_ok());
        }
    }
    for pending in waiting {
        count += u64::from(pending.await.is_ok());
    }
    Ok(count)
}

/// How many appends a second one thread makes, and that a reader keeps up with them.
fn core_rate(directory: &Path) -> Result<f64, Failure> {
    let directory = tempfile::tempdir_in(directory)?;
    let (queue, _) = Queue::open(
        directory.path(),
        Options {
            max_uncommitted_bytes: 1 << 30,
            ..Options::default()
        },
    )?;
    let lane = queue.lane("lane", LaneKind::UntilAcknowledged)?;
    let mut reader = queue.reader(lane, holm_queue::Start::LowWater, Visibility::Appended)?;
    let lanes = [(lane, 0)];
    let payload = Bytes::from(vec![b'x'; 256]);
    let begin = Instant::now();
    let mut count = 0;
    while begin.elapsed() < RUN {
        for _ in 0..100 {
            let record = NewRecord {
                sender: "producer-01",
                lanes: &lanes,
                enqueued_at: 1,
                payload: payload.clone(),
            };
            drop(queue.append(&record)?);
        }
        count += reader.try_read(1_000, 1 << 20)?.len();
    }
    #[expect(clippy::cast_precision_loss, reason = "rates are for people")]
    let count = count as f64;
    Ok(count / begin.elapsed().as_secs_f64())
}
