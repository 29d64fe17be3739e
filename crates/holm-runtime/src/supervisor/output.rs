//! The files that a module's output is kept in.
//!
//! ```text
//! 2026-01-02T03:04:05.123456789Z stdout F the whole line
//! 2026-01-02T03:04:05.123456789Z stderr P a part of a line that is longer than 16 KiB; the next part follows
//! ```
//!
//! This is the form that container runtimes write for Kubernetes, so tools for it read these files. Stream and time are kept
//! with each line, so the framing of the Docker engine can be made from it again ([`crate::logs`]).
//!
//! Bounds: a line's start waits for its end in at most 16 KiB for each stream; a file is closed before it grows beyond its
//! limit; the oldest file is dropped. When the disk is full, output is counted and dropped, never the module stopped, and the
//! count is written as soon as there is room again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::logs::LogLimits;
use crate::logs::Output;
use crate::process::record::Directory;

/// The longest part of a line that is written as one, in bytes; Docker splits at the same length.
pub(crate) const LONGEST_PART: usize = 16 * 1024;

/// Writes the output of one module.
#[derive(Debug)]
pub(crate) struct LogWriter {
    directory: Directory,
    settings: LogLimits,
    file: Option<File>,
    size: u64,
    lost_lines: u64,
    entries: Vec<u8>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl LogWriter {
    pub(crate) const fn new(directory: Directory, settings: LogLimits) -> Self {
        Self {
            directory,
            settings,
            file: None,
            size: 0,
            lost_lines: 0,
            entries: Vec::new(),
            stdout: Vec::new(),
            stderr: Vec::new(),
        }
    }

    /// Takes what was read from the program and writes every line that is complete.
    pub(crate) fn take(&mut self, output: Output, bytes: &[u8], now: SystemTime) {
        let time = rfc3339(now);
        let mut waiting = std::mem::take(self.waiting(output));
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            waiting.extend_from_slice(text);
            while waiting.len() > LONGEST_PART {
                let rest = waiting.split_off(LONGEST_PART);
                self.entry(&time, output, false, &waiting);
                waiting = rest;
            }
            if ended {
                self.entry(&time, output, true, &waiting);
                waiting.clear();
            }
        }
        *self.waiting(output) = waiting;
        self.flush(&time);
    }

    /// Writes what still waits for the end of its line; the program will say no more.
    pub(crate) fn finish(&mut self, now: SystemTime) {
        let time = rfc3339(now);
        for output in [Output::Stdout, Output::Stderr] {
            let waiting = std::mem::take(self.waiting(output));
            if !waiting.is_empty() {
                self.entry(&time, output, false, &waiting);
            }
        }
        self.flush(&time);
    }

    fn waiting(&mut self, output: Output) -> &mut Vec<u8> {
        match output {
            Output::Stdout => &mut self.stdout,
            Output::Stderr => &mut self.stderr,
        }
    }

    fn entry(&mut self, time: &str, output: Output, whole: bool, text: &[u8]) {
        put_entry(&mut self.entries, time, output, whole, text);
        // Entries are written together, but never many times the longest one.
        if self.entries.len() > LONGEST_PART {
            self.flush(time);
        }
    }

    fn flush(&mut self, time: &str) {
        if self.entries.is_empty() {
            return;
        }
        let mut entries = std::mem::take(&mut self.entries);
        let lines = entries.iter().filter(|byte| **byte == b'\n').count() as u64;
        if self.lost_lines > 0 {
            let text = format!(
                "holm: {} lines of output were lost because they could not be written",
                self.lost_lines
            );
            let mut with_notice = Vec::new();
            put_entry(&mut with_notice, time, Output::Stderr, true, text.as_bytes());
            with_notice.append(&mut entries);
            entries = with_notice;
        }
        match self.write(&entries) {
            Ok(()) => self.lost_lines = 0,
            Err(_) => {
                // Nobody can be told while there is no room; the notice above tells it later.
                self.lost_lines = self.lost_lines.saturating_add(lines);
                self.file = None;
            }
        }
        entries.clear();
        self.entries = entries;
    }

    fn write(&mut self, entries: &[u8]) -> io::Result<()> {
        let length = entries.len() as u64;
        if self.file.is_some() && self.size > 0 && self.size + length > self.settings.max_bytes {
            self.rotate()?;
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.open()?,
        };
        if let Err(error) = file.write_all(entries) {
            // Half an entry would read as another one: take it away again.
            file.set_len(self.size)?;
            return Err(error);
        }
        self.size += length;
        self.file = Some(file);
        Ok(())
    }

    fn open(&mut self) -> io::Result<File> {
        let path = self.directory.log(0);
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        self.size = file.metadata()?.len();
        Ok(file)
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        for number in (0..self.settings.files.saturating_sub(1)).rev() {
            match fs::rename(self.directory.log(number), self.directory.log(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.settings.files <= 1 {
            fs::remove_file(self.directory.log(0))?;
        }
        Ok(())
    }
}

fn put_entry(out: &mut Vec<u8>, time: &str, output: Output, whole: bool, text: &[u8]) {
    let stream = match output {
        Output::Stdout => "stdout",
        Output::Stderr => "stderr",
    };
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(format!(" {stream} {} ", if whole { 'F' } else { 'P' }).as_bytes());
    out.extend_from_slice(text);
    out.push(b'\n');
}

/// The time in UTC with nine decimals, which sorts as text.
pub(crate) fn rfc3339(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let nanos = i128::try_from(since.as_nanos()).unwrap_or(i128::MAX);
    let moment = time::OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let (date, clock) = (moment.date(), moment.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second(),
        clock.nanosecond()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(directory: &tempfile::TempDir, max_bytes: u64, files: u32) -> LogWriter {
        LogWriter::new(
            Directory::at(directory.path().to_owned()),
            LogLimits { max_bytes, files },
        )
    }

    fn at(nanos: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(nanos)
    }

    #[test]
    fn a_line_is_written_once_it_is_whole_with_stream_and_time() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = writer(&directory, 10_000, 3);

        log.take(Output::Stdout, b"one\ntw", at(1_500_000_000));
        log.take(Output::Stderr, b"oops\n", at(2_000_000_001));
        log.take(Output::Stdout, b"o\nrest", at(3_000_000_000));
        log.finish(at(4_000_000_000));

        let text = fs::read_to_string(directory.path().join("log")).unwrap();
        assert_eq!(
            text,
            "1970-01-01T00:00:01.500000000Z stdout F one\n\
             1970-01-01T00:00:02.000000001Z stderr F oops\n\
             1970-01-01T00:00:03.000000000Z stdout F two\n\
             1970-01-01T00:00:04.000000000Z stdout P rest\n"
        );
    }

    #[test]
    fn a_line_without_end_is_written_in_parts_and_never_held_whole() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = writer(&directory, 10_000_000, 3);

        for _ in 0..10 {
            log.take(Output::Stdout, &[b'x'; LONGEST_PART], at(0));
            assert!(log.stdout.capacity() <= 4 * LONGEST_PART);
        }
        log.take(Output::Stdout, b"\n", at(0));

        let text = fs::read_to_string(directory.path().join("log")).unwrap();
        let marks: Vec<&str> = text.lines().map(|line| line.split(' ').nth(2).unwrap()).collect();
        assert_eq!(marks, ["P", "P", "P", "P", "P", "P", "P", "P", "P", "F"]);
    }

    #[test]
    fn files_stay_within_their_limit_and_number() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = writer(&directory, 4096, 3);

        for number in 0..1000 {
            log.take(Output::Stdout, format!("line {number}\n").as_bytes(), at(0));
        }

        let mut names: Vec<String> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .inspect(|entry| assert!(entry.metadata().unwrap().len() <= 4096))
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["log", "log.1", "log.2"]);
        let newest = fs::read_to_string(directory.path().join("log")).unwrap();
        assert!(newest.ends_with("line 999\n"));
    }

    #[test]
    fn one_file_is_started_again_when_it_is_full() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = writer(&directory, 4096, 1);

        for number in 0..200 {
            log.take(Output::Stdout, format!("line {number}\n").as_bytes(), at(0));
        }

        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(fs::metadata(directory.path().join("log")).unwrap().len() <= 4096);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_told_later() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = writer(&directory, 10_000, 3);
        fs::create_dir(directory.path().join("log")).unwrap();
        log.take(Output::Stdout, b"a\nb\n", at(0));

        fs::remove_dir(directory.path().join("log")).unwrap();
        log.take(Output::Stdout, b"c\n", at(0));

        let text = fs::read_to_string(directory.path().join("log")).unwrap();
        assert!(text.contains("stderr F holm: 2 lines of output were lost"), "{text}");
        assert!(text.ends_with("stdout F c\n"));
    }
}
