//! How long records stay, and what becomes of the space.

use std::time::Duration;

use holm_queue::testing::CrashStyle;
use holm_queue::{AcknowledgeError, LaneError, LaneKind, Start, Visibility};

use crate::script::Script;

#[test]
fn appended_reader_sees_a_record_before_the_commit_and_durable_reader_after_it() {
    let mut script = Script::new();

    script.append("fast", "one");

    assert_eq!(script.read("fast", Visibility::Appended), ["one"]);
    assert!(script.read("fast", Visibility::Durable).is_empty());
    script.commit();
    assert_eq!(script.read("fast", Visibility::Durable), ["one"]);
}

#[test]
fn expired_record_is_skipped_counted_and_acknowledged() {
    let mut script = Script::new();
    script.append_until("fast", "short", 100);
    script.append("fast", "long");
    script.now = 99;
    assert_eq!(script.read("fast", Visibility::Appended), ["short", "long"]);

    script.now = 100;

    assert_eq!(script.read("fast", Visibility::Appended), ["long"]);
    assert_eq!(script.log.stats().expired, 1);
    assert_eq!(script.log.low_water(script.lane("fast")), Some(1));
}

#[test]
fn segments_of_expired_records_go_without_a_reader() {
    let mut script = Script::new();
    for _ in 0..60 {
        script.append_until("fast", &"x".repeat(300), 1_000);
    }
    script.commit();
    assert!(script.log.stats().segments > 3);

    script.now = 2_000;
    script.maintain();

    assert_eq!(script.log.stats().segments, 1);
    assert_eq!(script.log.stats().expired, 60);
    assert_eq!(script.log.depth(script.lane("fast")).unwrap().records, 0);
}

#[test]
fn retained_lane_is_trimmed_by_age() {
    let mut script = Script::new();
    let kind = LaneKind::Retained {
        max_age: Some(Duration::from_millis(1_000)),
        max_bytes: None,
    };
    let lane = script.define("events", kind);
    for number in 0..100 {
        script.now = number * 50;
        script.append("events", &format!("{number:0>200}"));
        script.commit();
    }

    script.maintain();

    let bounds = script.log.lane_bounds(lane).unwrap();
    assert!(bounds.first > 50 && bounds.first <= 80, "{bounds:?}");
    assert_eq!((bounds.next, bounds.last_enqueued), (100, Some(99 * 50)));
    assert_eq!(
        script.read("events", Visibility::Durable).len() as u64,
        100 - bounds.first
    );
    assert_eq!(
        script.log.acknowledge(lane, 0..1),
        Err(AcknowledgeError::Retained { lane })
    );
}

#[test]
fn idle_retained_lane_is_emptied_when_its_age_is_over() {
    let mut script = Script::new();
    let kind = LaneKind::Retained {
        max_age: Some(Duration::from_millis(1_000)),
        max_bytes: None,
    };
    let lane = script.define("events", kind);
    script.append("events", "only");
    script.commit();

    script.now = 1_000;
    script.maintain();
    script.reopen();

    let bounds = script.log.lane_bounds(lane).unwrap();
    assert_eq!((bounds.first, bounds.next), (1, 1));
}

#[test]
fn retained_lane_is_trimmed_by_size_to_a_segment() {
    let mut script = Script::new();
    let lane = script.define(
        "events",
        LaneKind::Retained {
            max_age: None,
            max_bytes: Some(10_000),
        },
    );
    script.append_all("events", (0..200).map(|number| format!("{number:0>200}")));
    script.commit();

    script.maintain();

    let bytes = script.log.depth(lane).unwrap().bytes;
    assert!((10_000..10_000 + 2 * 4096).contains(&bytes), "{bytes} bytes are kept");
    assert!(script.log.stats().disk_bytes < 20_000);
}

#[test]
fn reader_starts_at_a_time() {
    let mut script = Script::new();
    script.define(
        "events",
        LaneKind::Retained {
            max_age: None,
            max_bytes: None,
        },
    );
    for number in 0..60 {
        script.now = number * 10;
        script.append("events", &format!("{number:0>200}"));
    }
    script.commit();

    let found = script.read_from("events", Start::Time(333), Visibility::Durable);

    assert_eq!(found.first(), Some(&format!("{:0>200}", 34)));
    assert_eq!(found.len(), 26);
    assert!(
        script
            .read_from("events", Start::Time(10_000), Visibility::Durable)
            .is_empty()
    );
}

#[test]
fn what_a_slow_lane_needs_is_moved_and_the_journal_is_given_back() {
    let mut script = Script::new();
    let mut slow = Vec::new();
    for number in 0..300 {
        script.append("fast", &format!("{number:0>300}"));
        if number % 10 == 0 {
            let payload = format!("slow {number}");
            script.append("slow", &payload);
            slow.push(payload);
        }
        script.commit();
    }
    let before = script.log.stats();
    script.acknowledge("fast", 0..300);

    script.maintain();

    let after = script.log.stats();
    assert!(
        before.segments > 20 && after.segments <= 4,
        "{} segments, then {}",
        before.segments,
        after.segments
    );
    assert!(after.disk_bytes * 5 < before.disk_bytes);
    assert_eq!(script.read("slow", Visibility::Durable), slow);
    script.reopen();
    assert_eq!(script.read("slow", Visibility::Durable), slow);
    script.acknowledge("slow", 0..30);
    script.maintain();
    assert_eq!(script.log.stats().segments, 1);
}

#[test]
fn removed_lane_frees_its_space_and_its_id_is_not_used_again() {
    let mut script = Script::new();
    script.append_all("fast", (0..60).map(|_| "x".repeat(300)));
    script.commit();
    let lane = script.lane("fast");

    script.log.remove_lane(lane).unwrap();
    script.commit();

    assert_eq!(script.log.stats().segments, 1);
    assert_eq!(script.log.remove_lane(lane), Err(LaneError::Unknown { lane }));
    script.reopen();
    assert!(script.log.lanes().iter().all(|info| info.id != lane));
    let again = script.define("fast", LaneKind::UntilAcknowledged);
    assert_ne!(again, lane);
}

#[test]
fn records_for_several_lanes_are_kept_until_each_has_acknowledged() {
    let mut script = Script::new();
    let (fast, slow) = (script.lane("fast"), script.lane("slow"));
    script.append_to(&[(fast, 0), (slow, 0)], "both").unwrap();
    script.commit();

    script.acknowledge("fast", 0..1);
    script.maintain();
    script.reopen();

    assert!(script.read("fast", Visibility::Durable).is_empty());
    assert_eq!(script.read("slow", Visibility::Durable), ["both"]);
}

#[test]
fn offsets_grow_over_crashes_even_for_records_that_were_lost() {
    let mut script = Script::new();
    let mut last = None;
    for _ in 0..5 {
        let appended = script.append_record("fast", "lost").unwrap();
        assert!(last < Some(appended.offset));
        last = Some(appended.offset);

        script.files.crash(CrashStyle::LoseAll);
        script.reopen();
    }
}
