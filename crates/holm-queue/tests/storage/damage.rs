//! Bytes that changed, went missing or are not ours.

use std::sync::Arc;

use holm_queue::core::{Log, Lost};
use holm_queue::testing::MemoryFiles;
use holm_queue::{FORMAT_VERSION, OpenError, Visibility};

use crate::script::{FIRST_SEGMENT, Script, options};

#[test]
fn flipped_bit_in_a_payload_costs_that_record_and_no_other() {
    let mut script = Script::new();
    script.append_all("fast", ["first", "second", "third"]);
    script.commit();

    script.flip("second");
    let report = script.reopen();

    assert_eq!(script.read("fast", Visibility::Durable), ["first", "third"]);
    assert_eq!(report.damaged_entries, 1);
    assert_eq!(
        report.lost,
        [Lost {
            lane: script.lane("fast"),
            positions: 1..2
        }]
    );
    assert_eq!(script.log.stats().corrupt, 1);
}

#[test]
fn flipped_bit_in_a_sealed_segment_is_found_by_the_reader_and_counted() {
    let mut script = Script::new();
    let payloads: Vec<String> = (0..40).map(|number| format!("{number:0>300}")).collect();
    script.append_all("fast", &payloads);
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
    script.append_all("fast", ["first", "second", "third"]);
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
    script.append_all("fast", ["first", "second"]);
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
fn damaged_checkpoint_of_the_newest_segment_costs_no_record_and_no_lane() {
    let mut script = Script::new();
    script.append_all("fast", (0..60).map(|number| format!("{number:0>300}")));
    script.commit();
    let kept = "kept".to_owned();
    script.append("slow", &kept);
    script.acknowledge("fast", 0..60);
    script.maintain();
    let newest = script
        .files
        .paths()
        .into_iter()
        .rfind(|path| path.starts_with("journal/"))
        .unwrap();

    script.files.damage(&newest, |bytes| bytes[64 + 20] ^= 1);
    let report = script.reopen();

    assert_eq!(report.damaged_segments, 1);
    assert_eq!(report.nameless_lanes, []);
    assert_eq!(script.read("slow", Visibility::Durable), [kept]);
    assert_eq!(script.log.lane_bounds(script.lane("fast")).unwrap().next, 60);
    assert_eq!(script.append("fast", "next"), 60);
}
