//! What the queue makes of the disk: one producer that waits for each commit, and 64 that share them.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use holm_queue::{LaneId, LaneKind, NewRecord, Options, Queue};

use super::Figure;
use crate::disk::sync_rate;

/// Queue and disk take turns: the disk of a shared machine changes its speed by the second.
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(500);
const BYTES: usize = 256;

struct Appends {
    per_second: f64,
    per_sync: f64,
}

pub(super) fn measure(place: &Path) -> Result<Vec<Figure>> {
    let (mut raw, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        raw.push(sync_rate(place, BYTES, ROUND)?.per_second);
        alone.push(appends(place, 1)?.per_second);
    }
    let shared = appends(place, 64)?;
    let (raw, alone) = (median(raw), median(alone));
    Ok(vec![
        Figure::new(
            "durable append with one producer",
            format!("{:.0} % of the raw sync rate", alone / raw * 100.0),
            "≥ 85 %",
            format!("{alone:.0} records of {BYTES} B and {raw:.0} syncs a second, in turns, medians of {ROUNDS}"),
        ),
        Figure::new(
            "records a sync with 64 producers",
            format!("{:.0}", shared.per_sync),
            "≥ 30",
            format!(
                "each waits for its commit before the next; {:.0} records a second",
                shared.per_second
            ),
        ),
    ])
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Producers on threads of their own, each of which waits for its record before it appends the next.
fn appends(place: &Path, producers: usize) -> Result<Appends> {
    let directory = tempfile::tempdir_in(place)?;
    let (queue, _) = Queue::open(directory.path(), Options::default())?;
    let lane = queue.lane("lane", LaneKind::UntilAcknowledged)?;
    let (before, began) = (queue.stats().syncs, Instant::now());
    let counts: Vec<u32> = std::thread::scope(|scope| {
        let produce = || produce(&queue, lane, began + ROUND);
        let threads: Vec<_> = (1..producers).map(|_| scope.spawn(produce)).collect();
        // One producer needs no second thread, and would measure how long it takes to wake one.
        let own = produce();
        let others = threads.into_iter().filter_map(|thread| thread.join().ok());
        others.chain([own]).collect()
    });
    let (count, seconds) = (f64::from(counts.iter().sum::<u32>()), began.elapsed().as_secs_f64());
    let syncs = f64::from(u32::try_from(queue.stats().syncs - before).unwrap_or(u32::MAX));
    Ok(Appends {
        per_second: count / seconds,
        per_sync: count / syncs.max(1.0),
    })
}

fn produce(queue: &Queue, lane: LaneId, until: Instant) -> u32 {
    let (lanes, payload) = ([(lane, 0)], Bytes::from(vec![b'.'; BYTES]));
    let mut count = 0;
    while Instant::now() < until {
        let record = NewRecord {
            sender: "producer",
            lanes: &lanes,
            enqueued_at: 0,
            payload: payload.clone(),
        };
        match queue.append(&record).map(holm_queue::Pending::wait) {
            Ok(Ok(())) => count += 1,
            _ => break,
        }
    }
    count
}
