//! What goes into an archive, how long that makes it, and the archive itself, written once from its beginning to its end.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};

use super::format::{BLOBS, BLOCK, Entry, HEAD, Head, SUMS, header_time, padding, sum_line, sum_line_length};

/// What is read of a file and handed on at a time.
pub(super) const PIECE: usize = 256 * 1024;

/// A content, and where it is.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) entry: Entry,
    pub(super) source: Source,
}

/// Where the bytes of a content are.
pub(super) enum Source {
    /// In hand: small, and maybe written over meanwhile.
    Bytes(Vec<u8>),
    /// The first bytes of a file.
    File(PathBuf),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Everything that goes into an archive.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) head: Head,
    pub(super) files: Vec<Content>,
    /// The directory of the blob store.
    pub(super) blobs: PathBuf,
    /// Its files with their sizes: there may be millions.
    pub(super) blob_files: Vec<(String, u64)>,
    /// A directory for what is needed while the archive is written.
    pub(super) work: PathBuf,
}

/// Why an archive was not written to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// A content can't be read.
    #[error("`{name}` can't be read")]
    Content {
        /// Its name in the archive.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The sums could not be kept until their turn.
    #[error("the sums can't be kept in `{path}`")]
    Sums {
        /// Where.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Nobody takes it any more.
    #[error("the archive is not taken")]
    NotTaken(#[source] io::Error),
}

/// Takes the archive piece by piece.
pub(super) type Taker<'t> = dyn FnMut(&[u8]) -> io::Result<()> + 't;

impl Contents {
    /// How long the archive will be. What the head counts must stand in it.
    pub(super) fn length(&self) -> u64 {
        let (mut length, mut sums) = (0, 0);
        let mut count = |name: &str, size: u64| {
            let entry = Entry {
                name: String::new(),
                mode: 0,
                size,
            };
            length += entry.total();
            sums += sum_line_length(name);
        };
        count(HEAD, self.head_text().len() as u64);
        for content in &self.files {
            count(&content.entry.name, content.entry.size);
        }
        for (file, size) in &self.blob_files {
            count(&blob_name(file), *size);
        }
        let sums = Entry {
            name: String::new(),
            mode: 0,
            size: sums,
        };
        length + sums.total() + 2 * BLOCK as u64
    }

    /// Counts what is in it, for the head.
    pub(super) fn count(&mut self) {
        let files = self.files.iter().map(|content| content.entry.size);
        let blobs = self.blob_files.iter().map(|(_, size)| *size);
        self.head.files = (self.files.len() + self.blob_files.len()) as u64;
        self.head.bytes = files.chain(blobs).sum();
    }

    fn head_text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(&self.head).unwrap_or_default();
        text.push(b'\n');
        text
    }

    /// Writes the archive. Blocks.
    ///
    /// # Errors
    /// [`WriteError`]; what was handed on is no archive then.
    pub(super) fn write(&self, taker: &mut Taker<'_>) -> Result<(), WriteError> {
        let mut archive = Writing {
            time: header_time(self.head.created),
            sums: Sums::new(&self.work)?,
            taker,
        };
        let head = self.head_text();
        let entry = Entry {
            name: HEAD.to_owned(),
            mode: 0o644,
            size: head.len() as u64,
        };
        archive.content(&entry, &Source::Bytes(head))?;
        for content in &self.files {
            archive.content(&content.entry, &content.source)?;
        }
        for (file, size) in &self.blob_files {
            let entry = Entry {
                name: blob_name(file),
                mode: 0o600,
                size: *size,
            };
            archive.content(&entry, &Source::File(self.blobs.join(file)))?;
        }
        archive.end()
    }
}

fn blob_name(file: &str) -> String {
    format!("{BLOBS}/{file}")
}

/// An archive, while it is written.
struct Writing<'t, 'k> {
    time: u64,
    sums: Sums,
    taker: &'t mut Taker<'k>,
}

impl Writing<'_, '_> {
    fn content(&mut self, entry: &Entry, source: &Source) -> Result<(), WriteError> {
        self.give(&entry.header(self.time))?;
        let mut sum = Context::new(&SHA256);
        match source {
            Source::Bytes(bytes) => {
                sum.update(bytes);
                self.give(bytes)?;
            }
            Source::File(path) => {
                let unreadable = |source| WriteError::Content {
                    name: entry.name.clone(),
                    source,
                };
                let mut file = File::open(path).map_err(unreadable)?;
                self.copy(&mut file, entry.size, &mut |piece| sum.update(piece), unreadable)?;
            }
        }
        self.give_padding(entry.size)?;
        self.sums.add(&sum_line(sum.finish().as_ref(), &entry.name))
    }

    /// The sums, and the end.
    fn end(mut self) -> Result<(), WriteError> {
        let (size, mut file) = self.sums.read()?;
        let entry = Entry {
            name: SUMS.to_owned(),
            mode: 0o644,
            size,
        };
        self.give(&entry.header(self.time))?;
        let path = self.sums.path.clone();
        let unreadable = |source| WriteError::Sums {
            path: path.clone(),
            source,
        };
        self.copy(&mut file, size, &mut |_| (), unreadable)?;
        self.give_padding(size)?;
        self.give(&[0; 2 * BLOCK])
    }

    /// Hands on exactly so many bytes of a file.
    fn copy(
        &mut self,
        file: &mut File,
        size: u64,
        seen: &mut dyn FnMut(&[u8]),
        unreadable: impl Fn(io::Error) -> WriteError,
    ) -> Result<(), WriteError> {
        let mut piece = vec![0; PIECE];
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let room = piece.get_mut(..most).unwrap_or_default();
            // One that is shorter than it was is not what it was.
            file.read_exact(room).map_err(&unreadable)?;
            seen(room);
            left -= most as u64;
            (self.taker)(room).map_err(WriteError::NotTaken)?;
        }
        Ok(())
    }

    fn give(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        (self.taker)(bytes).map_err(WriteError::NotTaken)
    }

    fn give_padding(&mut self, size: u64) -> Result<(), WriteError> {
        let zeros = [0; BLOCK];
        let length = usize::try_from(padding(size)).unwrap_or(0);
        self.give(zeros.get(..length).unwrap_or_default())
    }
}

/// The sums until their turn: in a file, for there are as many as contents.
struct Sums {
    path: PathBuf,
    file: io::BufWriter<File>,
    size: u64,
}

impl Sums {
    fn new(work: &Path) -> Result<Self, WriteError> {
        let path = work.join(SUMS);
        let made = File::options().create_new(true).read(true).write(true).open(&path);
        match made {
            Ok(file) => Ok(Self {
                path,
                file: io::BufWriter::new(file),
                size: 0,
            }),
            Err(source) => Err(WriteError::Sums { path, source }),
        }
    }

    fn add(&mut self, line: &str) -> Result<(), WriteError> {
        self.size += line.len() as u64;
        let written = self.file.write_all(line.as_bytes());
        written.map_err(|source| self.failed(source))
    }

    fn read(&mut self) -> Result<(u64, File), WriteError> {
        let file = self.file.flush().and_then(|()| {
            let mut file = self.file.get_ref().try_clone()?;
            file.rewind()?;
            Ok(file)
        });
        Ok((self.size, file.map_err(|source| self.failed(source))?))
    }

    fn failed(&self, source: io::Error) -> WriteError {
        WriteError::Sums {
            path: self.path.clone(),
            source,
        }
    }
}
