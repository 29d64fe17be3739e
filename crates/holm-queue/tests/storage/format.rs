//! The bytes on disk do not change by accident: a directory made by fixed calls is compared with one kept as text.
//!
//! When this fails, old data may have become unreadable. A change that is meant needs a new format version, and a reader for
//! the old one; `docs/formats/queue.md` says what may be added without.

use std::fmt::Write;
use std::time::Duration;

use crate::script::{Script, options};
use holm_queue::testing::{MemoryFiles, open_bytes};
use holm_queue::{LaneKind, Options, Visibility};
use proptest::prelude::*;

const GOLDEN: &str = include_str!("golden/format-1.txt");

/// Every kind of entry, in a journal and in a lane's own segment.
fn directory() -> Script {
    let mut script = Script::with(Options {
        salt: Some(0x0123_4567_89ab_cdef),
        reserve_bytes: 4096,
        ..options()
    });
    script.now = 1_700_000_000_000;
    let kind = LaneKind::Retained {
        max_age: Some(Duration::from_secs(86_400)),
        max_bytes: Some(1 << 30),
    };
    let events = script.define("events", kind);
    let (fast, slow) = (script.lane("fast"), script.lane("slow"));
    script
        .append_to(&[(fast, 1_700_000_007_200), (slow, 0)], "a reading")
        .unwrap();
    script.append_to(&[(events, 0)], "an event").unwrap();
    script.log.remove_lane(events).unwrap();
    script.commit();
    script.append_all("fast", (0..12).map(|_| "x".repeat(400)));
    script.acknowledge("fast", 0..3);
    script.acknowledge("fast", 5..13);
    script.commit();
    let mut mover = script.log.begin_move(script.now).unwrap();
    while !mover.step().unwrap() {}
    script.log.finish_move(mover, Ok(true)).unwrap();
    script
}

fn dump(files: &MemoryFiles) -> String {
    let mut text = String::new();
    for path in files.paths().into_iter().filter(|path| path != "lock") {
        let bytes = files.bytes(&path).unwrap();
        writeln!(text, "file {path} {}", bytes.len()).unwrap();
        for (index, line) in bytes
            .chunks(32)
            .enumerate()
            .filter(|(_, line)| line.iter().any(|byte| *byte != 0))
        {
            let hex: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(text, "{:06x} {hex}", index * 32).unwrap();
        }
    }
    text
}

fn restore(text: &str) -> MemoryFiles {
    let files = MemoryFiles::new();
    let mut current: Option<(String, Vec<u8>)> = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["file", path, length] = words[..] {
            if let Some((path, bytes)) = current.replace((path.to_owned(), vec![0; length.parse().unwrap()])) {
                files.put(&path, bytes);
            }
        } else {
            let at = usize::from_str_radix(words[0], 16).unwrap();
            let bytes = &mut current.as_mut().unwrap().1;
            for (index, pair) in words[1].as_bytes().chunks(2).enumerate() {
                bytes[at + index] = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
            }
        }
    }
    let (path, bytes) = current.unwrap();
    files.put(&path, bytes);
    files
}

#[test]
fn bytes_on_disk_are_those_of_format_1() {
    let script = directory();

    let found = dump(&script.files);

    if std::env::var_os("HOLM_WRITE_GOLDEN").is_some() {
        std::fs::write(
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/storage/golden/format-1.txt"),
            &found,
        )
        .unwrap();
    }
    let changed = found.lines().zip(GOLDEN.lines()).find(|(found, kept)| found != kept);
    assert_eq!(changed, None, "the bytes on disk changed");
    assert_eq!(found.lines().count(), GOLDEN.lines().count());
}

#[test]
fn directory_kept_from_format_1_opens_with_everything_in_it() {
    let mut script = Script::new();
    script.files = restore(GOLDEN);
    script.now = 1_700_000_000_000;

    let report = script.reopen();

    assert_eq!(
        (report.lost.as_slice(), report.damaged_entries, report.torn_bytes),
        (&[][..], 0, 0)
    );
    assert_eq!(script.read("slow", Visibility::Durable), ["a reading"]);
    assert_eq!(
        script.read("fast", Visibility::Durable),
        ["x".repeat(400), "x".repeat(400)]
    );
    script.now = 1_700_000_007_200;
    let names: Vec<_> = script.log.lanes().into_iter().map(|lane| lane.name).collect();
    assert_eq!(names, ["fast", "slow"]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_open_or_are_refused(input in prop::collection::vec(any::<u8>(), 0..2000)) {
        open_bytes(&input);
    }

    #[test]
    fn any_change_of_true_bytes_opens_or_is_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
        choice in 0u8..4,
    ) {
        let files = restore(GOLDEN);
        let path = files.paths().into_iter().find(|path| path.starts_with("journal/")).unwrap();
        let mut bytes = files.bytes(&path).unwrap();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);

        open_bytes(&[&[choice], bytes.as_slice()].concat());

        files.damage(&path, |all| *all = bytes);
        let mut script = Script::new();
        script.files = files;
        script.reopen();
        script.read("fast", Visibility::Durable);
    }
}
