//! The log on disk: damage, versions, locks, limits, lifetimes. One log, one thread, a file system in memory.

mod script;

use holm_queue::core::{Health, Log};
use holm_queue::testing::{CrashStyle, MemoryFiles};
use holm_queue::{
    AcknowledgeError, AppendError, FORMAT_VERSION, LaneError, LaneKind, OpenError, Options, Start, Visibility,
};
use script::{FIRST_SEGMENT, Script, options};
use std::sync::Arc;
use std::time::Duration;

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
fn flipped_bit_in_a_payload_costs_that_record_and_no_other() {
    let mut script = Script::new();
    ["first", "second", "third"].map(|payload| script.append("fast", payload));
    script.commit();

    script.flip("second");
    let report = script.reopen();

    assert_eq!(script.read("fast", Visibility::Durable), ["first", "third"]);
    assert_eq!(report.damaged_entries, 1);
    assert_eq!(
        report
            .lost
            .iter()
            .map(|lost| lost.positions.clone())
            .collect::<Vec<_>>(),
        [1..2]
    );
    assert_eq!(script.log.stats().corrupt, 1);
}

#[test]
fn flipped_bit_in_a_sealed_segment_is_found_by_the_reader_and_counted() {
    let mut script = Script::new();
    let payloads: Vec<String> = (0..40).map(|number| format!("{number:0>300}")).collect();
    payloads.iter().for_each(|payload| drop(script.append("fast", payload)));
    script.commit();

    script.flip(&payloads[3]);
    let report = script.reopen();
    let found = script.read("fast", Visibility::Durable);

    let expected: Vec<_> = payloads
        .iter()
        .enumerate()
        .filter(|(index, _)| *index != 3)
        .map(|(_, one)| one.as_str())
        .collect();
    assert_eq!(found, expected);
    assert_eq!(report.lost, [], "a sealed segment is not read at opening");
    assert_eq!(script.log.stats().corrupt, 1);
    assert_eq!(script.log.low_water(script.lane("fast")), Some(0));
}

#[test]
fn broken_header_costs_its_record_and_the_next_one_is_found() {
    let mut script = Script::new();
    ["first", "second", "third"].map(|payload| script.append("fast", payload));
    script.commit();
    let at = script.find("second").0;

    // The magic of the entry: its header is the last multiple of 8 with it before the payload.
    script.files.damage(FIRST_SEGMENT, |bytes| {
        let header = (0..at)
            .rev()
            .find(|&at| at % 8 == 0 && bytes[at..].starts_with(b"HQ"))
            .unwrap();
        bytes[header] ^= 1;
    });
    let report = script.reopen();

    assert_eq!(script.read("fast", Visibility::Durable), ["first", "third"]);
    assert_eq!(report.damaged_stretches, 1);
}

#[test]
fn torn_tail_is_cut_off_and_reported() {
    for tail in [vec![0; 5000], b"HQ\x01\x03half an entry".to_vec(), vec![0xff; 7]] {
        let mut script = Script::new();
        script.append("fast", "kept");
        script.commit();

        let length = tail.len() as u64;
        script.files.damage(FIRST_SEGMENT, |bytes| bytes.extend(tail));
        let report = script.reopen();

        assert_eq!(report.torn_bytes, length);
        assert_eq!(script.read("fast", Visibility::Durable), ["kept"]);
        assert_eq!(script.append("fast", "next"), 1);
    }
}

#[test]
fn payload_that_looks_like_an_entry_is_never_taken_for_one() {
    let mut script = Script::new();
    script.append("fast", "victim");
    script.commit();
    // The bytes of a true entry, in the payload of a later one.
    let entries = script.files.bytes(FIRST_SEGMENT).unwrap();
    script.append_bytes("fast", &entries);
    script.append("fast", "after");
    script.commit();

    // Break the header of the entry that carries them, so that recovery looks through its payload.
    let start = entries.len();
    script.files.damage(FIRST_SEGMENT, |bytes| bytes[start] ^= 1);
    script.reopen();

    assert_eq!(script.read("fast", Visibility::Durable), ["victim", "after"]);
}

#[test]
fn cursor_beyond_the_end_is_pulled_back_and_reported() {
    let mut script = Script::new();
    ["first", "second"].map(|payload| script.append("fast", payload));
    script.commit();
    script.acknowledge("fast", 0..2);
    script.commit();

    // Both records go, the acknowledgement stays.
    let (first, second) = (script.find("first").0, script.find("second").1);
    script
        .files
        .damage(FIRST_SEGMENT, |bytes| bytes[first - 40..second].fill(0));
    let report = script.reopen();

    let lane = script.lane("fast");
    let bounds = script.log.lane_bounds(lane).unwrap();
    assert_eq!(
        report
            .pulled_back
            .iter()
            .map(|pulled| (pulled.lane, pulled.to))
            .collect::<Vec<_>>(),
        [(lane, 0)]
    );
    assert_eq!((bounds.first, bounds.next), (0, 0));
    script.append("fast", "new");
    assert_eq!(script.read("fast", Visibility::Appended), ["new"]);
}

#[test]
fn data_of_another_version_is_refused_with_both_versions_and_untouched() {
    let files = MemoryFiles::new();
    let text = b"holm-queue format 7\nsalt 0000000000000001\n".to_vec();
    files.put("format", text.clone());

    let error = Log::open(Arc::new(files.clone()), options(), 0).unwrap_err();

    assert!(matches!(
        error,
        OpenError::Version {
            found: 7,
            supported: FORMAT_VERSION
        }
    ));
    assert!(
        error.to_string().contains("format 7") && error.to_string().contains("format 1"),
        "{error}"
    );
    assert_eq!(files.paths(), ["format"]);
    assert_eq!(files.bytes("format"), Some(text));
}

#[test]
fn lost_format_file_is_made_again_from_the_segments() {
    let mut script = Script::new();
    script.append("fast", "kept");
    script.commit();

    script.files.damage("format", Vec::clear);
    script.reopen();

    assert_eq!(script.read("fast", Visibility::Durable), ["kept"]);
    assert!(
        script
            .files
            .bytes("format")
            .unwrap()
            .starts_with(b"holm-queue format 1\n")
    );
}

#[test]
fn file_that_is_no_format_file_is_refused() {
    let files = MemoryFiles::new();
    files.put("format", b"something else".to_vec());

    let error = Log::open(Arc::new(files.clone()), options(), 0).unwrap_err();

    assert!(matches!(error, OpenError::NotAQueue { .. }), "{error}");
    assert_eq!(files.paths(), ["format"]);
}

#[test]
fn second_opener_is_refused_while_the_first_lives() {
    let script = Script::new();

    let error = Log::open(Arc::new(script.files.clone()), options(), 0).unwrap_err();

    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    let files = script.files.clone();
    drop(script);
    assert!(Log::open(Arc::new(files), options(), 0).is_ok());
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
    (0..60).for_each(|_| drop(script.append_until("fast", &"x".repeat(300), 1_000)));
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
    (0..200).for_each(|number| drop(script.append("events", &format!("{number:0>200}"))));
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
fn full_disk_refuses_appends_and_takes_acknowledgements_that_survive_a_crash() {
    let mut script = Script::new();
    (0..30).for_each(|number| drop(script.append("fast", &format!("{number:0>300}"))));
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
    (0..60).for_each(|number| drop(script.append("fast", &format!("{number:0>300}"))));
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
    ["one", "two"].map(|payload| script.append("fast", payload));
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
    (0..100).for_each(|_| drop(script.append("fast", "x")));
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

#[test]
fn removed_lane_frees_its_space_and_its_id_is_not_used_again() {
    let mut script = Script::new();
    (0..60).for_each(|_| drop(script.append("fast", &"x".repeat(300))));
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
    script.append_to(&[(fast, 0), (slow, 0)], "both");
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
