//! Reads an archive from its first byte to its last, and finds what is not as it was written.
//!
//! ```text
//! Header ─┬─> Content ─> Padding ─> Header
//!         └─> End, a block of zeros ─> another ─> Done
//! ```
//!
//! Bytes are handed in as they come, and contents out as far as they are there: what is held is a block, the first entry, and a sum. That
//! all is as it was written is known at the end and not before ([`Archive::finish`]), so whoever keeps contents keeps them for good then.

use std::io;

use ring::digest::{Context, SHA256};

use super::format::{
    BLOCK, Entry, FORMAT_VERSION, HEAD, Head, MAX_HEAD, Place, SUMS, header_time, padding, place, sum_line,
};
use crate::storage;

/// What is read of a file at a time.
const PIECE: usize = 1 << 20;

/// Why an archive can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is something else.
    #[error("it is no backup of a hub, or its beginning is damaged; give a file that `holm hub backup` has made")]
    NotABackup,
    /// A later release made it.
    #[error(
        "release {release} made it, in format {format} with a database of format {database}; this release reads format \
         {FORMAT_VERSION} and databases of format {known}: use that release or a later one", known = storage::FORMAT_VERSION
    )]
    Newer {
        /// The release.
        release: String,
        /// The version of the archive.
        format: u32,
        /// The version of the database.
        database: i32,
    },
    /// Something in it is not as it was written.
    #[error("it is damaged at byte {at}: {what}; use another copy of it, or an earlier backup")]
    Damaged {
        /// About where, from the beginning.
        at: u64,
        /// What is not as it should be.
        what: String,
    },
    /// It ends before its end.
    #[error("it ends after {0} bytes, before its end; it was cut off: use another copy of it, or an earlier backup")]
    Cut(u64),
    /// Reading or keeping it failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Takes contents as they come.
pub(super) trait Sink {
    /// A content of this name begins, at this place.
    fn begin(&mut self, entry: &Entry, place: Place) -> io::Result<()>;
    /// More of it.
    fn content(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// It is whole.
    fn end(&mut self) -> io::Result<()>;
}

/// Keeps nothing.
impl Sink for () {
    fn begin(&mut self, _: &Entry, _: Place) -> io::Result<()> {
        Ok(())
    }

    fn content(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What was found of a whole archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// What it says of itself.
    pub head: Head,
    /// Its bytes.
    pub bytes: u64,
}

/// An archive that is being read.
pub struct Archive {
    state: State,
    /// Bytes that came.
    at: u64,
    head: Option<Head>,
    /// The time in the first header.
    time: u64,
    files: u64,
    content_bytes: u64,
    /// Of what the sums should be.
    expected_sums: Context,
    has_sums: bool,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").field("at", &self.at).finish_non_exhaustive()
    }
}

enum State {
    /// A header is coming; what is there of it.
    Header(Vec<u8>),
    Content(Box<Content>),
    Padding(u64),
    /// A block of zeros was there; so much of the other one.
    End(u64),
    Done,
}

struct Content {
    entry: Entry,
    kind: Kind,
    left: u64,
    sum: Context,
}

enum Kind {
    Head(Vec<u8>),
    File,
    Sums,
}

impl Default for Archive {
    fn default() -> Self {
        Self {
            state: State::Header(Vec::new()),
            at: 0,
            head: None,
            time: 0,
            files: 0,
            content_bytes: 0,
            expected_sums: Context::new(&SHA256),
            has_sums: false,
        }
    }
}

impl Archive {
    /// Takes the next bytes, of an archive of which nothing is kept.
    ///
    /// # Errors
    /// [`ArchiveError`]; nothing more can be handed in then.
    pub fn check(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.feed(bytes, &mut ())
    }

    /// What the archive says of itself, once that has come.
    #[must_use]
    pub const fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Takes the next bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8], sink: &mut dyn Sink) -> Result<(), ArchiveError> {
        while !bytes.is_empty() {
            let taken = self.step(bytes, sink)?;
            self.at += taken as u64;
            bytes = bytes.get(taken..).unwrap_or_default();
            // A content without bytes ends where it begins.
            self.turn(sink)?;
        }
        Ok(())
    }

    /// All bytes came.
    ///
    /// # Errors
    /// [`ArchiveError::Cut`], where there should be more.
    pub fn finish(self) -> Result<Summary, ArchiveError> {
        match (self.state, self.head) {
            (State::Done, Some(head)) => Ok(Summary { head, bytes: self.at }),
            (State::Header(_), None) => Err(ArchiveError::NotABackup),
            _ => Err(ArchiveError::Cut(self.at)),
        }
    }

    /// Takes as many bytes as belong together; at least one.
    fn step(&mut self, bytes: &[u8], sink: &mut dyn Sink) -> Result<usize, ArchiveError> {
        let first = |most: u64| {
            let most = usize::try_from(most).unwrap_or(usize::MAX).min(bytes.len());
            bytes.get(..most).unwrap_or_default()
        };
        match &mut self.state {
            State::Header(block) => {
                let more = first((BLOCK - block.len()) as u64);
                block.extend_from_slice(more);
                if let Ok(block) = <[u8; BLOCK]>::try_from(block.as_slice()) {
                    let at = self.at;
                    self.state = self.begin(&block, at, sink)?;
                }
                Ok(more.len())
            }
            State::Content(content) => {
                let piece = first(content.left);
                content.sum.update(piece);
                match &mut content.kind {
                    Kind::Head(text) => text.extend_from_slice(piece),
                    Kind::File => sink.content(piece)?,
                    Kind::Sums => {}
                }
                content.left -= piece.len() as u64;
                Ok(piece.len())
            }
            State::Padding(left) => {
                let piece = first(*left);
                *left -= piece.len() as u64;
                zeros(piece, self.at)?;
                Ok(piece.len())
            }
            State::End(left) => {
                let piece = first(*left);
                *left -= piece.len() as u64;
                zeros(piece, self.at)?;
                Ok(piece.len())
            }
            State::Done => Err(damaged(self.at, "there is something behind its end")),
        }
    }

    /// Goes on from a state that has all it waited for.
    fn turn(&mut self, sink: &mut dyn Sink) -> Result<(), ArchiveError> {
        if matches!(&self.state, State::Content(content) if content.left == 0) {
            let State::Content(content) = std::mem::replace(&mut self.state, State::Done) else {
                return Ok(());
            };
            let rest = padding(content.entry.size);
            self.end(*content, sink)?;
            self.state = State::Padding(rest);
        }
        match self.state {
            State::Padding(0) => self.state = State::Header(Vec::new()),
            State::End(0) => self.state = State::Done,
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, block: &[u8; BLOCK], at: u64, sink: &mut dyn Sink) -> Result<State, ArchiveError> {
        if self.has_sums {
            zeros(block, at)?;
            return Ok(State::End(BLOCK as u64));
        }
        let time = self.head.as_ref().map(|head| header_time(head.created));
        let Some((entry, told)) = Entry::of_header(block, time) else {
            return Err(match self.head {
                None => ArchiveError::NotABackup,
                Some(_) => damaged(at, "a header is not as it was written"),
            });
        };
        let kind = match (&self.head, entry.name.as_str()) {
            (None, HEAD) if entry.size <= MAX_HEAD => {
                self.time = told;
                Kind::Head(Vec::new())
            }
            (None, _) => return Err(ArchiveError::NotABackup),
            (Some(_), SUMS) => Kind::Sums,
            (Some(_), name) => {
                let Some(place) = place(name) else {
                    return Err(damaged(at, &format!("it has a file `{name}`, and no backup has one")));
                };
                sink.begin(&entry, place)?;
                Kind::File
            }
        };
        Ok(State::Content(Box::new(Content {
            left: entry.size,
            entry,
            kind,
            sum: Context::new(&SHA256),
        })))
    }

    /// A content is whole.
    fn end(&mut self, content: Content, sink: &mut dyn Sink) -> Result<(), ArchiveError> {
        let digest = content.sum.finish();
        let name = &content.entry.name;
        match content.kind {
            Kind::Sums => {
                let expected = std::mem::replace(&mut self.expected_sums, Context::new(&SHA256)).finish();
                let head = self.head.as_ref();
                if expected.as_ref() != digest.as_ref() {
                    return Err(damaged(
                        self.at,
                        "the content of a file, or the sums, are not as they were written",
                    ));
                }
                if head.is_none_or(|head| (head.files, head.bytes) != (self.files, self.content_bytes)) {
                    return Err(damaged(self.at, "it has not the files that it says it has"));
                }
                self.has_sums = true;
            }
            Kind::Head(text) => {
                let head = read_head(&text)?;
                if header_time(head.created) != self.time {
                    return Err(damaged(self.at, "it says two times when it was made"));
                }
                self.head = Some(head);
                self.expected_sums.update(sum_line(digest.as_ref(), name).as_bytes());
            }
            Kind::File => {
                sink.end()?;
                self.files += 1;
                self.content_bytes += content.entry.size;
                self.expected_sums.update(sum_line(digest.as_ref(), name).as_bytes());
            }
        }
        Ok(())
    }
}

fn read_head(text: &[u8]) -> Result<Head, ArchiveError> {
    // A later format may have another first entry; what made it is told as far as it can be read.
    let told: serde_json::Value = serde_json::from_slice(text).map_err(|_| ArchiveError::NotABackup)?;
    let number = |name: &str| told.get(name).and_then(serde_json::Value::as_i64).unwrap_or(0);
    let (format, database) = (number("format"), number("databaseFormat"));
    if format > i64::from(FORMAT_VERSION) || database > i64::from(storage::FORMAT_VERSION) {
        let release = told.get("release").and_then(serde_json::Value::as_str).unwrap_or("?");
        return Err(ArchiveError::Newer {
            release: release.chars().take(40).collect(),
            format: u32::try_from(format).unwrap_or(u32::MAX),
            database: i32::try_from(database).unwrap_or(i32::MAX),
        });
    }
    serde_json::from_value(told).map_err(|_| ArchiveError::NotABackup)
}

fn zeros(bytes: &[u8], at: u64) -> Result<(), ArchiveError> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    Err(damaged(at, "there is something where nothing was written"))
}

fn damaged(at: u64, what: &str) -> ArchiveError {
    ArchiveError::Damaged {
        at,
        what: what.to_owned(),
    }
}

/// Reads an archive to its end; `progress` learns how many bytes there were so far.
pub(super) fn read_all(
    source: &mut dyn io::Read,
    sink: &mut dyn Sink,
    progress: &mut dyn FnMut(u64),
) -> Result<Summary, ArchiveError> {
    let mut archive = Archive::default();
    let mut piece = vec![0; PIECE];
    loop {
        let read = match source.read(&mut piece) {
            Ok(0) => return archive.finish(),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        archive.feed(piece.get(..read).unwrap_or_default(), sink)?;
        progress(archive.at);
    }
}

/// Reads an archive to its end and keeps nothing: whether it is whole.
///
/// # Errors
/// [`ArchiveError`].
pub fn verify(source: &mut dyn io::Read, progress: &mut dyn FnMut(u64)) -> Result<Summary, ArchiveError> {
    read_all(source, &mut (), progress)
}
