//! Whose turn it is, what is held, and who is stalled.

use std::sync::Arc;

use holm_queue::testing::MemoryFiles;
use holm_queue::{LaneKind, NewRecord, Options, Queue, Start, Visibility};

use super::*;

const WINDOW: usize = 100;

/// Records of a lane, as they are read.
fn records(count: usize) -> (LaneId, Vec<Record>) {
    let (queue, _) = Queue::open_on(Arc::new(MemoryFiles::new()), Options::default()).unwrap();
    let lane = queue.lane("lane", LaneKind::UntilAcknowledged).unwrap();
    for _ in 0..count {
        let lanes = [(lane, 0)];
        let record = NewRecord {
            sender: "box/sensor",
            lanes: &lanes,
            enqueued_at: 0,
            payload: "ten bytes.".into(),
        };
        drop(queue.append(&record).unwrap());
    }
    let mut reader = queue.reader(lane, Start::LowWater, Visibility::Appended).unwrap();
    (lane, reader.try_read(count, usize::MAX).unwrap())
}

fn held((lane, records): (LaneId, Vec<Record>), priority: impl Fn(u64) -> u32) -> Vec<Held> {
    let held = records.into_iter().map(|record| Held {
        priority: priority(record.position),
        record,
        lane,
        is_backlog: false,
    });
    held.collect()
}

fn sensor() -> Identity {
    "box/sensor".parse().unwrap()
}

#[test]
fn the_most_urgent_leave_first_and_what_comes_back_keeps_its_place() {
    let (now, over, mut senders) = (Instant::now(), Source::next(), Senders::default());
    for held in held(records(4), |position| if position == 3 { 0 } else { 9 }) {
        senders.put(sensor(), held);
    }
    let take = |senders: &mut Senders| senders.next(&sensor(), over, WINDOW, now).unwrap();

    let urgent = take(&mut senders);
    let first = take(&mut senders);
    let order = [urgent.record.position, first.record.position];
    senders.put_back(&sensor(), first);
    let again = take(&mut senders).record.position;

    assert_eq!((order, again), ([3, 0], 0));
    assert!(senders.next(&sensor(), over, 2, now).is_none(), "the window is full");
}

#[test]
fn nothing_overtakes_what_another_connection_has() {
    let (now, mut senders) = (Instant::now(), Senders::default());
    held(records(2), |_| 5)
        .into_iter()
        .for_each(|held| senders.put(sensor(), held));
    let (before, after) = (Source::next(), Source::next());

    let first = senders.next(&sensor(), before, WINDOW, now).unwrap();
    let early = senders.next(&sensor(), after, WINDOW, now);
    senders.put_back(&sensor(), first);
    let order = [(); 2].map(|()| senders.next(&sensor(), after, WINDOW, now).unwrap().record.position);

    assert!(early.is_none());
    assert_eq!(order, [0, 1]);
}

#[test]
fn what_is_held_is_what_was_put_and_is_not_done() {
    let (now, mut senders) = (Instant::now(), Senders::default());
    let all = held(records(3), |_| 5);
    let lane = all[0].lane;
    all.into_iter().for_each(|held| senders.put(sensor(), held));

    let sent = senders.next(&sensor(), Source::next(), WINDOW, now).unwrap();
    senders.answered(&sensor(), now);
    senders.done(&sent);
    senders.done(&sent);

    assert_eq!(senders.total(), Amount { messages: 2, bytes: 20 });
    assert_eq!(senders.positions(lane), BTreeSet::from([1, 2]));
    senders.forget(&sensor(), &[lane]);
    senders.tidy();
    assert_eq!((senders.total(), senders.all()), (Amount::default(), Vec::new()));
}

#[test]
fn a_sender_is_stalled_when_it_waited_too_long_and_takes_others_room() {
    let (now, mut senders) = (Instant::now(), Senders::default());
    held(records(3), |_| 5)
        .into_iter()
        .for_each(|held| senders.put(sensor(), held));
    let patience = Duration::from_secs(1);
    let share = |messages| Amount {
        messages,
        bytes: usize::MAX,
    };

    senders.note(&sensor(), Some(now + patience));
    let awaited = senders.stalled(now, share(3), |_| true);
    senders.note(&sensor(), Some(now));
    senders.note(&sensor(), Some(now + patience));
    let early = senders.stalled(now - patience, share(3), |_| true);
    let small = senders.stalled(now, share(4), |_| false);
    let large = senders.stalled(now, share(3), |_| false);
    let full = senders.stalled(now, share(4), |_| true);
    senders.excuse_all();
    let excused = senders.stalled(now, share(3), |_| true);

    assert_eq!((awaited, early, small, excused), (vec![], vec![], vec![], vec![]));
    assert_eq!(
        (large, full),
        (vec![(sensor(), Stall::Waiting)], vec![(sensor(), Stall::Waiting)])
    );
}

#[test]
fn a_connection_is_stuck_when_others_are_answered_and_it_is_not() {
    let (begin, mut senders) = (Instant::now(), Senders::default());
    let other: Identity = "box/other".parse().unwrap();
    let mut all = held(records(2), |_| 5);
    senders.put(other.clone(), all.pop().unwrap());
    senders.put(sensor(), all.pop().unwrap());
    let patience = Duration::from_secs(60);
    drop(senders.next(&sensor(), Source::next(), WINDOW, begin));
    drop(senders.next(&other, Source::next(), WINDOW, begin));
    let late = begin + patience;

    let with_nobody_answered = senders.is_stuck(&sensor(), late, patience);
    senders.answered(&other, late);

    assert!(!with_nobody_answered);
    assert!(senders.is_stuck(&sensor(), late, patience));
    assert!(!senders.is_stuck(&other, late, patience));
}
