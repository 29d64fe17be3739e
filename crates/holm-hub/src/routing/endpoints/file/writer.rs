//! The content of a finished file, in each format.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};

use super::journal::{Kept, Messages};
#[cfg(feature = "parquet")]
use super::parquet;
use crate::routing::definition::{DefinitionError, FileFormat};
use crate::routing::endpoints::record;

/// Whether this program writes a format.
///
/// # Errors
/// [`DefinitionError`]: it was built without.
pub(super) fn check(format: FileFormat) -> Result<(), DefinitionError> {
    if format == FileFormat::Parquet && !cfg!(feature = "parquet") {
        let text =
            "is `parquet`, which this program was built without; build it with `--features parquet`, or give `json`";
        return Err(DefinitionError::new("format", text));
    }
    Ok(())
}

/// What names of files of a format end in, if their pattern says nothing else.
pub(super) const fn extension(format: FileFormat) -> &'static str {
    match format {
        FileFormat::Json => "json",
        FileFormat::Parquet => "parquet",
    }
}

/// Writes messages of one partition and syncs the file.
///
/// # Errors
/// What the file system refused.
pub(super) fn write(format: FileFormat, file: File, partition: u16, messages: Messages) -> io::Result<()> {
    let file = match format {
        FileFormat::Json => write_lines(file, messages)?,
        FileFormat::Parquet => write_parquet(file, partition, messages)?,
    };
    file.sync_all()
}

fn write_lines(file: File, mut messages: Messages) -> io::Result<File> {
    let mut out = BufWriter::with_capacity(256 * 1024, file);
    while let Some(Kept { mark, message }) = messages.next()? {
        out.write_all(&record::line(mark.enqueued, &message)?)?;
        out.write_all(b"\n")?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)
}

#[cfg(feature = "parquet")]
fn write_parquet(file: File, partition: u16, messages: Messages) -> io::Result<File> {
    parquet::write(file, partition, messages)
}

#[cfg(not(feature = "parquet"))]
fn write_parquet(_file: File, _partition: u16, _messages: Messages) -> io::Result<File> {
    // A definition that asks for it is refused by `check`, one that an earlier program took too.
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this program was built without `parquet`",
    ))
}
