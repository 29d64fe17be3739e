//! The last lines of this process's own log, kept in memory: what `logs edgeAgent` and a support bundle show where no journal
//! is at hand. The whole log is where standard error goes.
//!
//! Bounded: `MAX_BYTES`; the oldest lines go first. Whoever follows too slowly misses what went.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::BytesMut;
use futures_util::stream;
use holm_model::Timestamp;
use holm_runtime::logs::{Output, put_frame};
use holm_runtime::{LogStream, LogsOptions, Tail};
use tokio::sync::watch;

/// Bytes of lines that are kept: some thousand lines, little beside the rest of the process.
const MAX_BYTES: usize = 256 << 10;
/// Frames of one piece.
const PIECE_BYTES: usize = 64 << 10;

/// The log. Clones are the same one.
#[derive(Clone, Debug)]
pub struct OwnLog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Held for a copy of some lines.
    lines: Mutex<Kept>,
    written: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<(Timestamp, Box<[u8]>)>,
    bytes: usize,
    /// The number of the first line that is kept.
    first: u64,
}

impl Default for OwnLog {
    fn default() -> Self {
        let inner = Inner {
            lines: Mutex::default(),
            written: watch::Sender::new(0),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl OwnLog {
    /// Takes note of a line, with its end.
    pub fn write(&self, line: &[u8]) {
        let now = Timestamp::from(SystemTime::now());
        {
            let mut kept = self.kept();
            kept.bytes += line.len();
            kept.lines.push_back((now, line.into()));
            while kept.bytes > MAX_BYTES {
                let Some((_, gone)) = kept.lines.pop_front() else { break };
                kept.bytes -= gone.len();
                kept.first += 1;
            }
        }
        self.inner.written.send_modify(|count| *count += 1);
    }

    /// What is wanted of it, in the framing of modules' logs; as standard output, which is where the original's parts write.
    #[must_use]
    pub fn open(&self, options: &LogsOptions) -> LogStream {
        let reading = Reading {
            next: self.begin(options),
            changes: self.inner.written.subscribe(),
            log: self.clone(),
            options: options.clone(),
        };
        Box::pin(stream::unfold(reading, |mut reading| async move {
            loop {
                let piece = reading.log.read(&mut reading.next, &reading.options);
                if !piece.is_empty() {
                    return Some((Ok(piece.freeze()), reading));
                }
                if !reading.options.follow || reading.changes.changed().await.is_err() {
                    return None;
                }
            }
        }))
    }

    /// The number of the first line that is wanted.
    fn begin(&self, options: &LogsOptions) -> u64 {
        let kept = self.kept();
        let end = kept.first + kept.lines.len() as u64;
        match options.tail {
            Tail::All => kept.first,
            Tail::Lines(lines) => end.saturating_sub(lines).max(kept.first),
        }
    }

    fn read(&self, next: &mut u64, options: &LogsOptions) -> BytesMut {
        let kept = self.kept();
        let mut piece = BytesMut::new();
        let skipped = usize::try_from(next.saturating_sub(kept.first)).unwrap_or(usize::MAX);
        *next = (*next).max(kept.first);
        for (written, line) in kept.lines.iter().skip(skipped) {
            if piece.len() > PIECE_BYTES {
                break;
            }
            *next += 1;
            let is_wanted = options.since.is_none_or(|since| *written >= since)
                && options.until.is_none_or(|until| *written <= until);
            if !is_wanted {
                continue;
            }
            if options.timestamps {
                let line = [format!("{written} ").as_bytes(), line].concat();
                put_frame(Output::Stdout, &line, &mut piece);
            } else {
                put_frame(Output::Stdout, line, &mut piece);
            }
        }
        piece
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.inner.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Reading {
    log: OwnLog,
    options: LogsOptions,
    next: u64,
    changes: watch::Receiver<u64>,
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    async fn text(log: &OwnLog, options: LogsOptions) -> String {
        let pieces: Vec<_> = log.open(&options).collect().await;
        let bytes: Vec<u8> = pieces.into_iter().flat_map(Result::unwrap).collect();
        String::from_utf8_lossy(&bytes).replace(|sign: char| sign.is_control() && sign != '\n', "")
    }

    #[tokio::test]
    async fn the_oldest_lines_go_when_there_are_too_many() {
        let log = OwnLog::default();
        for number in 0..5000 {
            log.write(format!("line {number:0>90}\n").as_bytes());
        }

        let all = text(&log, LogsOptions::default()).await;
        let last = LogsOptions {
            tail: Tail::Lines(2),
            ..LogsOptions::default()
        };

        assert!(all.len() < MAX_BYTES + 100_000 && all.contains("4999\n") && !all.contains("00000\n"));
        assert_eq!(text(&log, last).await.matches("line").count(), 2);
    }

    #[tokio::test]
    async fn whoever_follows_gets_what_is_written_later() {
        let log = OwnLog::default();
        log.write(b"first\n");
        let follow = LogsOptions {
            follow: true,
            ..LogsOptions::default()
        };
        let mut open = log.open(&follow);
        assert!(open.next().await.unwrap().unwrap().ends_with(b"first\n"));

        log.write(b"second\n");

        assert!(open.next().await.unwrap().unwrap().ends_with(b"second\n"));
    }
}
