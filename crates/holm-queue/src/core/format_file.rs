//! The file `format`: which version the directory has, and the salt of its headers.

use std::io;

use super::Log;
use crate::error::OpenError;
use crate::file_system::FileSystem;
use crate::format::{FORMAT_VERSION, Stream, read_start};

const FORMAT_NAME: &str = "format";

/// What there is in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Nothing,
    /// A format file, with the salt that it gives.
    Format(u64),
    /// No readable format file, but a segment that gives the salt.
    Segments(u64),
}

pub(super) fn read_format(files: &dyn FileSystem) -> Result<Content, OpenError> {
    let text = match files.open(FORMAT_NAME) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        result => {
            let file = result.map_err(OpenError::io("open", FORMAT_NAME))?;
            let mut bytes = [0; 256];
            let count = file
                .read_at(&mut bytes, 0)
                .map_err(OpenError::io("read", FORMAT_NAME))?;
            Some(String::from_utf8_lossy(bytes.get(..count).unwrap_or_default()).into_owned())
        }
    };
    let mut lines = text.as_deref().unwrap_or_default().lines();
    if let Some(found) = lines
        .next()
        .and_then(|line| line.strip_prefix("holm-queue format ")?.parse().ok())
        && found != FORMAT_VERSION
    {
        return Err(OpenError::Version {
            found,
            supported: FORMAT_VERSION,
        });
    }
    let salt = lines
        .next()
        .and_then(|line| u64::from_str_radix(line.strip_prefix("salt ")?, 16).ok());
    if let Some(salt) = salt {
        return Ok(Content::Format(salt));
    }
    let numbers = segment_numbers(files, Stream::Journal)?;
    for &number in numbers.iter().rev() {
        let name = Stream::Journal.segment_name(number);
        let file = files.open(&name).map_err(OpenError::io("open", name.clone()))?;
        match read_start(file.as_ref()).map_err(OpenError::io("read", name))? {
            Some(start) if start.version != FORMAT_VERSION => {
                return Err(OpenError::Version {
                    found: start.version,
                    supported: FORMAT_VERSION,
                });
            }
            Some(start) => return Ok(Content::Segments(start.salt)),
            None => {}
        }
    }
    match text {
        None if numbers.is_empty() => Ok(Content::Nothing),
        _ => {
            let reason = if text.is_some() {
                "its text is not known"
            } else {
                "it is missing beside segments"
            };
            Err(OpenError::NotAQueue {
                name: FORMAT_NAME.to_owned(),
                reason: reason.to_owned(),
            })
        }
    }
}

impl Log {
    pub(super) fn write_format(&self) -> Result<(), OpenError> {
        let text = format!("holm-queue format {FORMAT_VERSION}\nsalt {:016x}\n", self.salt);
        let new = "format.new";
        let file = self.files.create(new).map_err(OpenError::io("create", new))?;
        file.write_all_at(text.as_bytes(), 0)
            .map_err(OpenError::io("write", new))?;
        file.sync().map_err(OpenError::io("sync", new))?;
        self.files
            .rename(new, FORMAT_NAME)
            .map_err(OpenError::io("rename", new))?;
        self.files.sync_dir("").map_err(OpenError::io("sync", "."))
    }
}

pub(super) fn segment_numbers(files: &dyn FileSystem, stream: Stream) -> Result<Vec<u64>, OpenError> {
    let directory = stream.directory();
    let names = files.list(&directory).map_err(OpenError::io("list", directory))?;
    let number = |name: &String| {
        let digits = name.strip_suffix(".seg").filter(|digits| digits.len() == 16)?;
        digits.parse().ok()
    };
    let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}
