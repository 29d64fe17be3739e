//! A full disk, a failing one, and the bounds of a queue.

use holm_queue::core::Health;
use holm_queue::testing::CrashStyle;
use holm_queue::{AcknowledgeError, AppendError, Options, Visibility};

use crate::script::{Script, options};

#[test]
fn full_disk_refuses_appends_and_takes_acknowledgements_that_survive_a_crash() {
    let mut script = Script::new();
    script.append_all("fast", (0..30).map(|number| format!("{number:0>300}")));
    script.commit();
    script.files.set_capacity(Some(script.files.used()));

    script.append("fast", "too much");
    assert!(script.try_commit().is_err());
    assert_eq!(*script.log.health(), Health::Full);
    assert_eq!(script.try_append("fast", "refused"), Err(AppendError::DiskFull));
    assert_eq!(script.read("fast", Visibility::Durable).len(), 30);
    script.acknowledge("fast", 0..12);
    assert!(script.try_commit().is_err());
    script.files.crash(CrashStyle::LoseAll);
    let report = script.reopen();

    assert!(report.reserve_used);
    assert_eq!(script.log.low_water(script.lane("fast")), Some(12));
    assert_eq!(script.read("fast", Visibility::Durable).len(), 18);
}

#[test]
fn full_disk_recovers_by_itself_when_acknowledgements_give_segments_back() {
    let mut script = Script::new();
    script.append_all("fast", (0..60).map(|number| format!("{number:0>300}")));
    script.commit();
    script.files.set_capacity(Some(script.files.used() + 100));
    script.append("fast", &"y".repeat(300));
    assert!(script.try_commit().is_err());

    script.acknowledge("fast", 0..60);
    while script.try_commit().is_err() {}

    assert_eq!(*script.log.health(), Health::Good);
    assert_eq!(script.read("fast", Visibility::Durable), ["y".repeat(300)]);
    script.append("fast", "goes on");
    script.commit();
}

#[test]
fn opening_on_a_full_disk_reads_and_acknowledges_and_appends_later() {
    let mut script = Script::new();
    script.append_all("fast", ["one", "two"]);
    script.commit();
    script.files.set_capacity(Some(script.files.used()));

    let report = script.reopen();

    assert!(report.disk_full);
    assert_eq!(script.read("fast", Visibility::Durable), ["one", "two"]);
    assert_eq!(script.try_append("fast", "three"), Err(AppendError::DiskFull));
    script.acknowledge("fast", 0..1);
    assert!(script.try_commit().is_err());
    script.reopen();
    assert_eq!(script.read("fast", Visibility::Durable), ["two"]);
    script.files.set_capacity(None);
    script.commit();
    script.append("fast", "three");
    assert_eq!(script.read("fast", Visibility::Appended), ["two", "three"]);
}

#[test]
fn failed_sync_is_told_and_everything_goes_to_a_fresh_segment() {
    let mut script = Script::new();
    script.append("fast", "before");
    script.commit();
    script.append("fast", "during");
    script.files.fail_syncs(1);

    assert!(script.try_commit().is_err());
    assert!(matches!(
        script.try_append("fast", "refused"),
        Err(AppendError::Failing { .. })
    ));
    assert_eq!(script.read("fast", Visibility::Durable), ["before"]);
    script.commit();

    script.files.crash(CrashStyle::LoseAll);
    script.reopen();
    assert_eq!(script.read("fast", Visibility::Durable), ["before", "during"]);
}

#[test]
fn quota_refuses_appends_until_records_are_acknowledged() {
    let mut script = Script::with(Options {
        max_bytes: Some(20_000),
        ..options()
    });
    let mut count = 0;
    let refusal = loop {
        match script.try_append("fast", &"x".repeat(300)) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
        script.commit();
    };

    assert!(
        matches!(refusal, AppendError::QueueFull { max_bytes: 20_000, .. }),
        "{refusal}"
    );
    assert!(script.log.stats().disk_bytes <= 20_000);
    script.acknowledge("fast", 0..count);
    script.maintain();
    script.append("fast", "room again");
}

#[test]
fn what_waits_for_the_disk_is_bounded() {
    let mut script = Script::new();

    let refusal = (0..1_000)
        .find_map(|_| script.try_append("fast", &"x".repeat(300)).err())
        .unwrap();

    assert!(matches!(refusal, AppendError::Busy { .. }), "{refusal}");
    assert!(script.log.stats().uncommitted_bytes < 70_000);
    script.commit();
    script.append("fast", "room again");
}

#[test]
fn scattered_acknowledgements_are_bounded_and_refused_by_name() {
    let mut script = Script::new();
    script.append_all("fast", (0..100).map(|_| "x"));
    let lane = script.lane("fast");

    let refused = (0..49)
        .find_map(|number| script.log.acknowledge(lane, number * 2 + 1..number * 2 + 2).err())
        .unwrap();

    assert!(
        matches!(
            refused,
            AcknowledgeError::TooScattered {
                low_water: 0,
                max_ranges: 16,
                ..
            }
        ),
        "{refused}"
    );
    script.acknowledge("fast", 0..1);
    script.acknowledge("fast", 99..100);
}

#[test]
fn acknowledging_what_was_never_given_out_is_refused() {
    let mut script = Script::new();
    script.append("fast", "x");
    let lane = script.lane("fast");

    let refused = script.log.acknowledge(lane, 0..3);

    assert_eq!(
        refused,
        Err(AcknowledgeError::BeyondEnd {
            lane,
            position: 2,
            next: 1
        })
    );
    assert_eq!(script.log.low_water(lane), Some(0));
}
