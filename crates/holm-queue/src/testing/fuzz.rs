//! What a fuzzer drives: bytes from anywhere, taken for a queue directory.

use std::sync::Arc;

use super::MemoryFiles;
use crate::core::{Log, ReadBuffer};
use crate::format::{ENTRY_VERSION, Fields, Seed, SegmentStart, Stream, encode_entry, kind};
use crate::lane::LaneKind;
use crate::options::Options;
use crate::record::{NewRecord, Start, Visibility};

const SALT: u64 = 7;

/// Takes `input` for the bytes of a queue directory, opens it, reads every lane, appends, commits and opens again. Must not
/// panic, and memory stays in proportion to the input.
///
/// The first byte chooses how: even, the rest is a journal segment as it stands; odd, the rest is cut into bodies (kind,
/// length, bytes …) that get valid headers, so that what lies behind the checksums is reached too.
pub fn open_bytes(input: &[u8]) {
    let Some((&choice, rest)) = input.split_first() else {
        return;
    };
    let files = MemoryFiles::new();
    files.put(
        "format",
        format!("holm-queue format 1\nsalt {SALT:016x}\n").into_bytes(),
    );
    let segment = if choice % 2 == 0 { rest.to_vec() } else { wrapped(rest) };
    if choice % 4 < 2 {
        files.put("journal/0000000000000001.seg", segment);
    } else {
        files.put("lane-00000000/0000000000000001.seg", segment);
    }
    let options = Options {
        segment_bytes: 4096,
        reserve_bytes: 4096,
        max_lanes: 8,
        ..Options::default()
    };
    for now in [1_000, 2_000] {
        // Refusing is a fine answer; only panics and floods are not.
        let Ok((mut log, _)) = Log::open(Arc::new(files.clone()), options.clone(), now) else {
            return;
        };
        exercise(&mut log, now);
    }
}

/// Cuts bytes into bodies and gives them headers.
fn wrapped(input: &[u8]) -> Vec<u8> {
    debug_assert_eq!(ENTRY_VERSION, 1, "the wrapping writes entries of this version");
    let mut bytes = Vec::new();
    SegmentStart::new(Stream::Journal, 1, 1, SALT, 0).encode(&mut bytes);
    let seed = Seed::new(SALT, Stream::Journal, 1);
    let mut fields = Fields::new(input);
    while let Some([entry_kind, length]) = fields.fixed() {
        let length = u64::from(length).min(fields.rest().len() as u64);
        let Some(body) = fields.bytes(length) else { break };
        encode_entry(&mut bytes, entry_kind % (kind::RESERVE + 2), seed, 0, |buffer| {
            buffer.extend_from_slice(body)
        });
    }
    bytes
}

fn exercise(log: &mut Log, now: u64) {
    for lane in log.lanes().into_iter().take(8) {
        for visibility in [Visibility::Appended, Visibility::Durable] {
            let Ok(mut cursor) = log.cursor(lane.id, Start::LowWater, visibility) else {
                continue;
            };
            let mut buffer = ReadBuffer::default();
            while let Ok((records, _)) = log.read(&mut cursor, &mut buffer, (16, 4096), visibility, now) {
                if records.is_empty() {
                    break;
                }
            }
        }
    }
    if let Ok(lane) = log.lane("fuzz", LaneKind::UntilAcknowledged) {
        let record = NewRecord {
            sender: "fuzz",
            lanes: &[(lane, 0)],
            enqueued_at: now,
            payload: "fuzz".into(),
        };
        // A queue that is full of the input refuses; that is an answer too.
        if log.append(&record).is_ok() {
            drop(log.commit(now));
        }
    }
    log.maintain(now);
    drop(log.commit(now));
}
