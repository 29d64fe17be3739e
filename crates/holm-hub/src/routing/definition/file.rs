//! The settings of files.

use std::time::Duration;

use serde_json::{Value, json};

use super::settings::LONGEST_TEXT;
use super::{DefinitionError, Members, Settings};

/// Files on the hub's machine.
#[derive(Clone, Debug)]
pub struct FileSettings {
    /// Below the hub's directory for such files; names joined by `/`.
    pub folder: String,
    /// The pattern of their names below the folder, as published; see [`FileSettings::NAMES`].
    pub file_name_format: String,
    /// What is in them.
    pub format: FileFormat,
    /// What is collected for a file before it is written, by the size of its messages; 64 KiB to 8 GiB, default 64 MiB.
    pub max_file_bytes: u64,
    /// How long, from the first message on; 1 s to a day, default 300 s.
    pub max_file_age: Duration,
}

/// What is in the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// A JSON object a line.
    Json,
    /// Apache Parquet.
    Parquet,
}

const FORMATS: [(&str, FileFormat); 2] = [("json", FileFormat::Json), ("parquet", FileFormat::Parquet)];

impl FileSettings {
    /// What names of files look like if nothing is said. Source: the default of the original's storage endpoints.
    pub const NAMES: &'static str = "{iothub}/{partition}/{YYYY}/{MM}/{DD}/{HH}/{mm}";

    pub(super) fn read(members: &mut Members) -> Result<Settings, DefinitionError> {
        let folder = members.required_text("folder", LONGEST_TEXT)?;
        let is_plain = |name: &str| {
            let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && name.bytes().all(is_good)
        };
        if !folder.split('/').all(is_plain) {
            let rule = "must be names joined by `/`, each of A-Z, a-z, 0-9, `-`, `_`, `.` and not beginning with `.`; it lies below the \
                        hub's directory for routed files";
            return Err(DefinitionError::new("folder", rule));
        }
        let names = members.text("fileNameFormat", LONGEST_TEXT)?;
        Ok(Settings::File(Self {
            folder,
            file_name_format: names.unwrap_or_else(|| Self::NAMES.to_owned()),
            format: members.choice("format", &FORMATS)?.unwrap_or(FileFormat::Json),
            max_file_bytes: members.number("maxFileBytes", 1 << 16..=1 << 33)?.unwrap_or(64 << 20),
            max_file_age: members
                .seconds("maxFileSeconds", 1..=86_400)?
                .unwrap_or(Duration::from_secs(300)),
        }))
    }

    pub(super) fn write(&self) -> Value {
        let format = FORMATS.iter().find(|(_, format)| *format == self.format);
        json!({
            "folder": self.folder,
            "fileNameFormat": self.file_name_format,
            "format": format.map(|(name, _)| *name),
            "maxFileBytes": self.max_file_bytes,
            "maxFileSeconds": self.max_file_age.as_secs(),
        })
    }
}
