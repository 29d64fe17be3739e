//! What a long backlog costs: memory while it grows, and the time to open it again.
//!
//! `cargo run --release -p holm-queue --example backlog [RECORDS] [DIRECTORY]`; 3,000,000 records of 256 bytes and a temporary
//! directory when they are not given. Rounds: a lane that nobody reads; the same with a reader that waits at the end of what it
//! may hold; every second record going to a second lane, where it is acknowledged at once; and a hundredth of the records, each
//! few a commit of their own.
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use holm_queue::{
    AppendError, LaneId, LaneKind, NewRecord, Options, Pending, Queue, Reader, Record, Start, Visibility,
};

type Failure = Box<dyn std::error::Error>;

/// Records that the reader holds, as a forwarder does that waits for its link.
const LOOK_AHEAD: usize = 1000;
const PAYLOAD_BYTES: usize = 256;
/// Records of a commit, at least, when they trickle.
const TRICKLE: u64 = 4;
/// How often a line is printed.
const LINES: u64 = 6;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let records = arguments.next().map_or(Ok(3_000_000), |text| text.parse())?;
    let temporary = tempfile::tempdir()?;
    let directory = arguments.next().map_or_else(|| temporary.path().to_owned(), Into::into);
    for round in [Round::Unread, Round::Read, Round::Acknowledged, Round::Trickle] {
        let directory = tempfile::tempdir_in(&directory)?;
        println!("{round:?}");
        let part = if round == Round::Trickle { 100 } else { 1 };
        fill(directory.path(), records / part, round)?;
        reopen(directory.path())?;
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    Unread,
    Read,
    Acknowledged,
    Trickle,
}

fn fill(directory: &Path, records: u64, round: Round) -> Result<(), Failure> {
    let (queue, _) = Queue::open(directory, Options::default())?;
    let upstream = queue.lane("upstream", LaneKind::UntilAcknowledged)?;
    let local = queue.lane("local", LaneKind::UntilAcknowledged)?;
    let mut reader = queue.reader(upstream, Start::LowWater, Visibility::Durable)?;
    let payload = Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
    let mut held: Vec<Record> = Vec::new();
    let begin = Instant::now();
    for number in 0..records {
        let is_local = round == Round::Acknowledged && number % 2 == 1;
        let lanes: &[(LaneId, u64)] = if is_local { &[(local, 0)] } else { &[(upstream, 0)] };
        let pending = append(&queue, lanes, &payload)?;
        let position = pending.positions().first().map_or(0, |(_, position)| *position);
        if round == Round::Trickle && number % TRICKLE == 0 {
            pending.wait()?;
        }
        if is_local {
            queue.acknowledge(local, position..position + 1)?;
        }
        if round == Round::Read && held.len() < LOOK_AHEAD {
            read_on(&mut reader, &mut held)?;
        }
        if (number + 1) % (records / LINES).max(1) == 0 {
            let stats = queue.stats();
            println!(
                "  {:>10} records  {:>6.1} MiB resident  {:>4} segments  {:>4} files open  {:>7.1} MiB on disk  {:>6.1} s",
                number + 1,
                resident()?,
                stats.segments,
                std::fs::read_dir("/proc/self/fd")?.count(),
                mebibytes(stats.disk_bytes),
                begin.elapsed().as_secs_f64(),
            );
        }
    }
    Ok(())
}

fn append(queue: &Queue, lanes: &[(LaneId, u64)], payload: &Bytes) -> Result<Pending, Failure> {
    let record = NewRecord {
        sender: "box/sensor",
        lanes,
        enqueued_at: 1_700_000_000_000,
        payload: payload.clone(),
    };
    loop {
        match queue.append(&record) {
            Ok(pending) => return Ok(pending),
            Err(AppendError::Busy { .. }) => std::thread::yield_now(),
            Err(error) => return Err(error.into()),
        }
    }
}

fn read_on(reader: &mut Reader, held: &mut Vec<Record>) -> Result<(), Failure> {
    held.extend(reader.try_read(LOOK_AHEAD - held.len(), 256 << 10)?);
    Ok(())
}

fn reopen(directory: &Path) -> Result<(), Failure> {
    let begin = Instant::now();
    let (queue, report) = Queue::open(directory, Options::default())?;
    println!(
        "  open again: {:.0} ms, {} segments, {} records scanned, {:.1} MiB resident",
        begin.elapsed().as_secs_f64() * 1000.0,
        report.segments,
        report.records_scanned,
        resident()?,
    );
    drop(queue);
    Ok(())
}

/// Mebibytes of this process in memory.
fn resident() -> Result<f64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes: u64 = line.unwrap_or("0 kB").trim().trim_end_matches(" kB").parse()?;
    Ok(mebibytes(kibibytes << 10))
}

#[expect(clippy::cast_precision_loss, reason = "printed with one decimal")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
