//! `kill -9` of a process that appends, on a real disk. The binary runs itself as the child.
//!
//! The child says on its standard output what it was told is durable; the parent kills it at some moment, opens the directory
//! and looks for all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use holm_queue::{LaneKind, NewRecord, Options, Queue, Start, Visibility};

const CHILD: &str = "HOLM_QUEUE_KILL_DIRECTORY";
const LINES_BEFORE_KILL: usize = 3_000;

fn options() -> Options {
    // One in three is acknowledged, each a range of its own.
    let (max_ranges, maintain_interval) = (1 << 20, std::time::Duration::from_millis(20));
    Options {
        segment_bytes: 64 << 10,
        maintain_interval,
        max_ranges,
        ..Options::default()
    }
}

/// Appends from four threads, and acknowledges some; tells what is durable, one line each.
fn child(directory: &Path) {
    let (queue, _) = Queue::open(directory, options()).expect("the parent made the directory");
    let lane = queue
        .lane("lane", LaneKind::UntilAcknowledged)
        .expect("there is room for a lane");
    let out = Mutex::new(std::io::stdout());
    let tell = |line: String| writeln!(out.lock().expect("no teller panics"), "{line}").expect("the parent reads");
    let lanes = [(lane, 0)];
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (queue, tell) = (&queue, &tell);
            scope.spawn(move || {
                for number in 0u64.. {
                    let payload = format!("{thread} {number} {}", "x".repeat(200)).into();
                    let record = NewRecord {
                        sender: "child",
                        lanes: &lanes,
                        enqueued_at: number,
                        payload,
                    };
                    let pending = queue.append(&record).expect("four records at a time are not too many");
                    let position = pending.positions()[0].1;
                    pending.wait().expect("the disk has room");
                    tell(format!("durable {position} {thread} {number}"));
                    if number % 3 == 0 {
                        tell(format!("acknowledging {position}"));
                        queue
                            .acknowledge(lane, position..position + 1)
                            .expect("the position was given out");
                    }
                }
            });
        }
    });
}

#[derive(Default)]
struct Told {
    durable: BTreeMap<u64, String>,
    acknowledging: BTreeSet<u64>,
}

fn run_and_kill(directory: &Path, told: &mut Told) {
    let mut child = Command::new(std::env::current_exe().expect("a process knows its file"))
        .env(CHILD, directory)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs itself");
    let lines = BufReader::new(child.stdout.take().expect("it was asked for")).lines();

    for (count, line) in lines.enumerate() {
        if count == LINES_BEFORE_KILL {
            child.kill().expect("it is ours and runs");
        }
        // The line that the kill cut short may lack its end; a number without its line's end is not believed.
        let line = line.expect("lines are text");
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["durable", position, thread, number] => {
                told.durable
                    .insert(position.parse().expect("a position"), format!("{thread} {number} "));
            }
            ["acknowledging", position] => drop(told.acknowledging.insert(position.parse().expect("a position"))),
            _ => panic!("the child failed: {line}"),
        }
    }
    child.wait().expect("it was killed");
}

fn check(directory: &Path, told: &Told) {
    let (queue, report) = Queue::open(directory, options()).expect("what a crash leaves opens");
    assert_eq!(
        (report.damaged_entries, report.damaged_stretches, report.lost.len()),
        (0, 0, 0),
        "{report:?}"
    );
    let lane = queue.lane("lane", LaneKind::UntilAcknowledged).expect("it is there");
    let mut reader = queue
        .reader(lane, Start::LowWater, Visibility::Durable)
        .expect("it is there");
    let mut found = BTreeMap::new();
    loop {
        let records = reader.try_read(1_000, 1 << 20).expect("the disk reads");
        if records.is_empty() {
            break;
        }
        for record in records {
            found.insert(record.position, String::from_utf8_lossy(&record.payload()).into_owned());
        }
    }
    for (position, start) in &told.durable {
        match found.get(position) {
            Some(payload) => assert!(payload.starts_with(start), "position {position} holds another record"),
            None => assert!(
                told.acknowledging.contains(position),
                "position {position} was durable and is gone"
            ),
        }
    }
}

fn main() {
    if let Some(directory) = std::env::var_os(CHILD) {
        return child(Path::new(&directory));
    }
    let directory = tempfile::tempdir().expect("there is a place for it");
    let mut told = Told::default();
    for _ in 0..5 {
        run_and_kill(directory.path(), &mut told);
        check(directory.path(), &told);
    }
    assert!(
        told.durable.len() > 5 * LINES_BEFORE_KILL / 2,
        "the children did little"
    );
}
