//! Reads the files that a supervisor writes, and frames them as the Docker engine does.
//!
//! ```text
//!   log.2 ─> log.1 ─> log ─> (follow: at its end wait; when it has been renamed, go on with the next newer file)
//! ```
//!
//! Files are opened at the start and told apart by their inode, so that a rotation in the meantime neither repeats nor skips a
//! line. A follower that is slower than two rotations loses what has been dropped, as with any bounded log.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use holm_model::Timestamp;

use super::observe::{self, Run};
use super::record::Directory;
use crate::error::RuntimeError;
use crate::logs::{LogStream, LogsOptions, Output, Tail, put_frame};
use crate::supervisor::LONGEST_PART;

/// How often a follower looks for new lines.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What is read from a file at once; at least one whole entry fits.
const READ_BYTES: usize = 64 * 1024;

/// Log files that are looked for; create options allow at most this many.
const MOST_FILES: u32 = 100;

/// Opens the output of a module.
pub(super) fn open(directory: Directory, options: LogsOptions) -> Result<LogStream, RuntimeError> {
    let path = directory.log(0);
    let mut files = open_files(&directory).map_err(RuntimeError::io("read", &path))?;
    let skip = match options.tail {
        Tail::All => 0,
        Tail::Lines(wanted) => {
            let all = count(&mut files, &options).map_err(RuntimeError::io("read", &path))?;
            all.saturating_sub(wanted)
        }
    };
    let reader = Reader {
        directory,
        options,
        files,
        current: None,
        last_inode: None,
        text: Vec::new(),
        skip,
        in_line: false,
    };
    Ok(Box::pin(stream::try_unfold(reader, next)))
}

/// Oldest first.
fn open_files(directory: &Directory) -> io::Result<VecDeque<File>> {
    let mut files = VecDeque::new();
    for number in 0..MOST_FILES {
        match File::open(directory.log(number)) {
            Ok(file) => files.push_front(file),
            // Only the newest may be missing while others are there: it is made with the next line.
            Err(error) if error.kind() == io::ErrorKind::NotFound && number == 0 => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

/// How many lines these options choose, all files together; leaves the files at their beginning.
fn count(files: &mut VecDeque<File>, options: &LogsOptions) -> io::Result<u64> {
    let mut lines = 0;
    for file in files {
        let mut text = Vec::new();
        while read_more(file, &mut text)? {
            for entry in take_entries(&mut text) {
                lines += u64::from(Entry::parse(&entry).is_some_and(|entry| entry.whole && entry.is_within(options)));
            }
        }
        file.seek(SeekFrom::Start(0))?;
    }
    Ok(lines)
}

struct Reader {
    directory: Directory,
    options: LogsOptions,
    /// Files still to come, oldest first.
    files: VecDeque<File>,
    current: Option<File>,
    last_inode: Option<u64>,
    /// Read and not yet framed: less than one entry.
    text: Vec<u8>,
    /// Lines still to be left out, because only the newest are wanted.
    skip: u64,
    /// Whether the next entry goes on with a line that has been begun; it then gets no timestamp of its own.
    in_line: bool,
}

enum Step {
    Chunk(Bytes),
    Wait,
    End,
}

async fn next(mut reader: Reader) -> io::Result<Option<(Bytes, Reader)>> {
    loop {
        let task = tokio::task::spawn_blocking(move || {
            let step = reader.step();
            (step, reader)
        });
        let (step, back) = task.await.map_err(io::Error::other)?;
        reader = back;
        match step? {
            Step::Chunk(bytes) => return Ok(Some((bytes, reader))),
            Step::Wait => tokio::time::sleep(LOOK_AGAIN).await,
            Step::End => return Ok(None),
        }
    }
}

impl Reader {
    fn step(&mut self) -> io::Result<Step> {
        loop {
            if self.current.is_none() {
                self.current = self.files.pop_front();
            }
            // Asked before the last look at the file, so that nothing that is written before the end is missed.
            let ended = !self.options.follow || !matches!(observe::run(&self.directory), Ok(Run::Up(_)));
            if let Some(file) = &mut self.current {
                let more = read_more(file, &mut self.text)?;
                let chunk = self.frame();
                if !chunk.is_empty() {
                    return Ok(Step::Chunk(chunk));
                }
                if more {
                    continue;
                }
            }
            if !self.files.is_empty() {
                self.leave_file()?;
                continue;
            }
            if self.open_newer()? {
                continue;
            }
            return Ok(if ended { Step::End } else { Step::Wait });
        }
    }

    fn leave_file(&mut self) -> io::Result<()> {
        if let Some(file) = self.current.take() {
            self.last_inode = Some(file.metadata()?.ino());
        }
        self.text.clear();
        Ok(())
    }

    /// Goes to the file that follows the current one, if there is one by now.
    fn open_newer(&mut self) -> io::Result<bool> {
        if !self.options.follow {
            return Ok(false);
        }
        let inode = match &self.current {
            Some(file) => Some(file.metadata()?.ino()),
            None => self.last_inode,
        };
        let mut files = open_files(&self.directory)?;
        let mut position = None;
        for (index, file) in files.iter().enumerate() {
            if Some(file.metadata()?.ino()) == inode {
                position = Some(index);
            }
        }
        if let Some(position) = position {
            files.drain(..=position);
        }
        if files.is_empty() {
            return Ok(false);
        }
        // The current file got its last lines before it was renamed: look at it once more.
        if let Some(file) = &mut self.current
            && read_more(file, &mut self.text)?
        {
            return Ok(true);
        }
        self.leave_file()?;
        self.files = files;
        Ok(true)
    }

    fn frame(&mut self) -> Bytes {
        let mut out = BytesMut::new();
        for line in take_entries(&mut self.text) {
            let Some(entry) = Entry::parse(&line) else { continue };
            let continues = std::mem::replace(&mut self.in_line, !entry.whole);
            if !entry.is_within(&self.options) {
                continue;
            }
            if self.skip > 0 {
                self.skip -= u64::from(entry.whole);
                continue;
            }
            let mut payload = Vec::with_capacity(entry.text.len() + 40);
            if self.options.timestamps && !continues {
                payload.extend_from_slice(entry.time.as_bytes());
                payload.push(b' ');
            }
            payload.extend_from_slice(entry.text);
            if entry.whole {
                payload.push(b'\n');
            }
            put_frame(entry.output, &payload, &mut out);
        }
        out.freeze()
    }
}

/// Appends what comes next in the file; false at its end.
fn read_more(file: &mut File, text: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = vec![0; READ_BYTES];
    let length = file.read(&mut buffer)?;
    text.extend_from_slice(buffer.get(..length).unwrap_or_default());
    // No writer makes an entry so long: the file is not one of ours, and must not fill the memory.
    if length > 0 && text.len() > READ_BYTES + 2 * LONGEST_PART {
        text.clear();
    }
    Ok(length > 0)
}

/// Takes the entries that are complete, without their ends.
fn take_entries(text: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let Some(last) = text.iter().rposition(|byte| *byte == b'\n') else {
        return Vec::new();
    };
    let rest = text.split_off(last + 1);
    let mut complete = std::mem::replace(text, rest);
    complete.pop();
    complete.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

/// One entry of the file: see [`crate::supervisor`] for its form.
struct Entry<'a> {
    time: &'a str,
    at: Timestamp,
    output: Output,
    whole: bool,
    text: &'a [u8],
}

impl<'a> Entry<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(fields.next()?).ok()?;
        let output = match fields.next()? {
            b"stdout" => Output::Stdout,
            b"stderr" => Output::Stderr,
            _ => return None,
        };
        let whole = fields.next()? == b"F";
        Some(Self {
            time,
            at: Timestamp::parse(time)?,
            output,
            whole,
            text: fields.next()?,
        })
    }

    fn is_within(&self, options: &LogsOptions) -> bool {
        options.since.is_none_or(|since| self.at >= since) && options.until.is_none_or(|until| self.at <= until)
    }
}
