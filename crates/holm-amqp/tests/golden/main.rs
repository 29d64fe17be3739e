//! What the original clients sent is understood as before: recordings of real SDKs, replayed frame by frame. Where they come from
//! is in `README.md` beside them.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test, which reads files"
)]

mod hub;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use holm_amqp::codec::{Limits, ProtocolHeader, decode_frame, encode_frame};
use holm_amqp::{Config, Connection};

#[test]
fn recordings_of_the_original_clients_are_understood_as_written_down() {
    for recording in recordings() {
        let bytes = std::fs::read(&recording).unwrap();

        let understood = replay(&bytes);

        let expected = recording.with_extension("txt");
        if std::env::var_os("HOLM_WRITE_GOLDEN").is_some() {
            std::fs::write(&expected, &understood).unwrap();
        }
        let expected = std::fs::read_to_string(&expected).unwrap();
        assert_eq!(understood, expected, "{}", recording.display());
    }
}

#[test]
fn frames_of_the_original_clients_are_written_again_with_the_same_meaning() {
    for recording in recordings() {
        let mut bytes = BytesMut::from(&std::fs::read(&recording).unwrap()[..]);
        while !bytes.is_empty() {
            if take_header(&mut bytes).is_some() {
                continue;
            }
            let frame = decode_frame(&mut bytes, u32::MAX, Limits::default()).unwrap().unwrap();
            let mut again = BytesMut::new();
            encode_frame(&frame, &mut again);
            assert_eq!(decode_frame(&mut again, u32::MAX, Limits::default()), Ok(Some(frame)));
        }
    }
}

fn recordings() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut recordings: Vec<PathBuf> = files
        .filter(|path| path.extension().is_some_and(|it| it == "amqp"))
        .collect();
    recordings.sort();
    assert!(recordings.len() >= 5, "{recordings:?}");
    recordings
}

/// Gives the bytes to a server piece by piece, as the client sent them: what its application noted.
fn replay(bytes: &[u8]) -> String {
    let now = Instant::now();
    let mut connection = Connection::server(now, Arc::new(Config::default()));
    let mut hub = hub::Hub::default();
    let mut rest = BytesMut::from(bytes);
    let mut out = BytesMut::new();
    while let Some(piece) = next_piece(&mut rest) {
        connection.handle_bytes(now, &piece);
        while let Some(event) = connection.poll_event() {
            hub.handle(&mut connection, event);
        }
        while connection.poll_transmit(&mut out) {}
    }
    hub.notes.join("\n") + "\n"
}

/// The next header or frame.
fn next_piece(bytes: &mut BytesMut) -> Option<BytesMut> {
    let size = bytes.first_chunk::<4>().copied()?;
    if let Some(header) = take_header(bytes) {
        return Some(header);
    }
    let size = usize::try_from(u32::from_be_bytes(size)).unwrap();
    Some(bytes.split_to(size))
}

fn take_header(bytes: &mut BytesMut) -> Option<BytesMut> {
    let header = bytes.first_chunk::<{ ProtocolHeader::BYTES }>()?;
    ProtocolHeader::of(*header).map(|_| bytes.split_to(ProtocolHeader::BYTES))
}
