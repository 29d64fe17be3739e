//! Blobs: what the files of the blob store are called, and the uploads that devices have begun.
//!
//! A blob is its parts in order, each a file. Blocks that were brought and are in no blob yet wait beside it under the blob's name.
//! Which file is whose stands here alone: a file that no row names is garbage.

use std::collections::HashSet;

use holm_model::{DeviceId, ServiceError, Timestamp};
use rusqlite::{Row, params};

use super::{Transaction, View, to_i64, to_u64};

/// A blob, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its name in the container, which begins with the id of its device and a slash.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// When it was stored.
    pub modified: Timestamp,
    /// Another one for other content.
    pub etag: String,
    /// What its sender said of it, as a JSON object of headers.
    pub headers: String,
}

/// A piece of a blob, or a block that waits to become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The block's id as its sender chose it; empty where the blob was stored in one piece.
    pub block: String,
    /// The name of its file.
    pub file: String,
    /// The bytes in it.
    pub size: u64,
}

/// An upload that a device has begun and said nothing more about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenUpload {
    /// The device.
    pub device: String,
    /// The blob that it may store.
    pub blob: String,
    /// Until when.
    pub expires: Timestamp,
}

const BLOB: &str = "name, size, modified, etag, headers";

impl View<'_> {
    /// A blob.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn blob(&self, name: &str) -> Result<Option<Blob>, ServiceError> {
        let sql = format!("SELECT {BLOB} FROM blobs WHERE name = ?1");
        self.one(&sql, [name], read_blob)
    }

    /// Blobs of devices in order of their names after `after`, of one device if one is given; at most `most`. Those of other containers
    /// begin with `/`.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn blobs(&self, device: Option<&DeviceId>, after: &str, most: u32) -> Result<Vec<Blob>, ServiceError> {
        let sql = format!(
            "SELECT {BLOB} FROM blobs WHERE name > ?1 AND name >= ?2 AND name < ?3 AND substr(name, 1, 1) != '/' ORDER BY name LIMIT ?4"
        );
        // `0` is the sign behind `/`; no name begins with more than the last of all signs.
        let (from, to) = match device {
            Some(device) => (format!("{device}/"), format!("{device}0")),
            None => (String::new(), char::MAX.to_string()),
        };
        self.all(&sql, params![after, from, to, most], read_blob)
    }

    /// The parts of a blob, in order.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn blob_parts(&self, name: &str) -> Result<Vec<Part>, ServiceError> {
        let sql = "SELECT block, file, size FROM blob_parts WHERE blob = ?1 ORDER BY place";
        self.all(sql, [name], read_part)
    }

    /// The blocks that wait under the name of a blob, in order of their ids.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn waiting_blocks(&self, name: &str) -> Result<Vec<Part>, ServiceError> {
        let sql = "SELECT block, file, size FROM blob_blocks WHERE blob = ?1 ORDER BY block";
        self.all(sql, [name], read_part)
    }

    /// How many blocks wait under the name of a blob.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn waiting_block_count(&self, name: &str) -> Result<u64, ServiceError> {
        let count = self.one("SELECT count(*) FROM blob_blocks WHERE blob = ?1", [name], |row| {
            row.get(0)
        })?;
        Ok(to_u64(count.unwrap_or(0)))
    }

    /// Every file of the store and its bytes, each once.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn blob_files(&self) -> Result<Vec<(String, u64)>, ServiceError> {
        let sql = "SELECT file, size FROM blob_parts UNION SELECT file, size FROM blob_blocks";
        self.all(sql, [], |row| Ok((row.get(0)?, to_u64(row.get(1)?))))
    }

    /// An upload that was begun.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn upload(&self, correlation: &str) -> Result<Option<OpenUpload>, ServiceError> {
        let sql = "SELECT device, blob, expires FROM file_uploads WHERE correlation = ?1";
        self.one(sql, [correlation], |row| {
            Ok(OpenUpload {
                device: row.get(0)?,
                blob: row.get(1)?,
                expires: Timestamp::from_unix_millis(row.get(2)?),
            })
        })
    }

    /// How many uploads of a device are open.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn open_uploads(&self, device: &DeviceId, now: Timestamp) -> Result<u64, ServiceError> {
        let sql = "SELECT count(*) FROM file_uploads WHERE device = ?1 AND expires > ?2";
        let count = self.one(sql, params![device.as_str(), now.unix_millis()], |row| row.get(0))?;
        Ok(to_u64(count.unwrap_or(0)))
    }

    /// The key by which the blob store signs.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn blob_key(&self) -> Result<Option<String>, ServiceError> {
        self.one("SELECT secret FROM blob_key", [], |row| row.get(0))
    }
}

impl Transaction<'_> {
    /// Stores a blob of these parts in the place of an earlier one; what waited under its name goes.
    ///
    /// Gives the files that nobody needs any more, with their bytes.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn put_blob(&self, blob: &Blob, parts: &[Part]) -> Result<Vec<(String, u64)>, ServiceError> {
        let mut garbage = self.take_blob_files(&blob.name)?;
        let kept: HashSet<&str> = parts.iter().map(|part| part.file.as_str()).collect();
        garbage.retain(|(file, _)| !kept.contains(file.as_str()));
        self.write(
            "INSERT OR REPLACE INTO blobs (name, size, modified, etag, headers) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                blob.name,
                to_i64(blob.size),
                blob.modified.unix_millis(),
                blob.etag,
                blob.headers
            ],
        )?;
        for (place, part) in (0_i64..).zip(parts) {
            self.write(
                "INSERT INTO blob_parts (blob, place, block, file, size) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![blob.name, place, part.block, part.file, to_i64(part.size)],
            )?;
        }
        Ok(garbage)
    }

    /// Keeps a block until its blob is put together; gives the file of an earlier one of the same id.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn put_block(&self, blob: &str, block: &Part, now: Timestamp) -> Result<Option<(String, u64)>, ServiceError> {
        let before = self.one(
            "SELECT file, size FROM blob_blocks WHERE blob = ?1 AND block = ?2",
            params![blob, block.block],
            |row| Ok((row.get(0)?, to_u64(row.get(1)?))),
        )?;
        self.write(
            "INSERT OR REPLACE INTO blob_blocks (blob, block, file, size, at) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![blob, block.block, block.file, to_i64(block.size), now.unix_millis()],
        )?;
        Ok(before)
    }

    /// Removes a blob and what waits under its name; gives their files.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn remove_blob(&self, name: &str) -> Result<Vec<(String, u64)>, ServiceError> {
        let files = self.take_blob_files(name)?;
        self.write("DELETE FROM blobs WHERE name = ?1", [name])?;
        Ok(files)
    }

    /// Removes blocks that have waited since before `before`; gives their files.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn remove_waiting_blocks(&self, before: Timestamp) -> Result<Vec<(String, u64)>, ServiceError> {
        let before = before.unix_millis();
        let files = self.all("SELECT file, size FROM blob_blocks WHERE at < ?1", [before], read_file)?;
        self.write("DELETE FROM blob_blocks WHERE at < ?1", [before])?;
        Ok(files)
    }

    /// Opens an upload.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn add_upload(&self, correlation: &str, upload: &OpenUpload) -> Result<(), ServiceError> {
        self.write(
            "INSERT INTO file_uploads (correlation, device, blob, expires) VALUES (?1, ?2, ?3, ?4)",
            params![correlation, upload.device, upload.blob, upload.expires.unix_millis()],
        )?;
        Ok(())
    }

    /// Closes an upload.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn remove_upload(&self, correlation: &str) -> Result<(), ServiceError> {
        self.write("DELETE FROM file_uploads WHERE correlation = ?1", [correlation])?;
        Ok(())
    }

    /// Closes the uploads of everybody whose time is over.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn remove_ended_uploads(&self, now: Timestamp) -> Result<(), ServiceError> {
        self.write("DELETE FROM file_uploads WHERE expires <= ?1", [now.unix_millis()])?;
        Ok(())
    }

    /// Keeps the key by which the blob store signs.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn put_blob_key(&self, secret: &str) -> Result<(), ServiceError> {
        self.write("INSERT OR REPLACE INTO blob_key (id, secret) VALUES (1, ?1)", [secret])?;
        Ok(())
    }

    /// Takes parts and waiting blocks from a name; gives their files, each once.
    fn take_blob_files(&self, name: &str) -> Result<Vec<(String, u64)>, ServiceError> {
        let sql = "SELECT file, size FROM blob_parts WHERE blob = ?1 UNION SELECT file, size FROM blob_blocks WHERE blob = ?1";
        let files = self.all(sql, [name], read_file)?;
        self.write("DELETE FROM blob_parts WHERE blob = ?1", [name])?;
        self.write("DELETE FROM blob_blocks WHERE blob = ?1", [name])?;
        Ok(files)
    }
}

fn read_blob(row: &Row<'_>) -> rusqlite::Result<Blob> {
    Ok(Blob {
        name: row.get(0)?,
        size: to_u64(row.get(1)?),
        modified: Timestamp::from_unix_millis(row.get(2)?),
        etag: row.get(3)?,
        headers: row.get(4)?,
    })
}

fn read_part(row: &Row<'_>) -> rusqlite::Result<Part> {
    Ok(Part {
        block: row.get(0)?,
        file: row.get(1)?,
        size: to_u64(row.get(2)?),
    })
}

fn read_file(row: &Row<'_>) -> rusqlite::Result<(String, u64)> {
    Ok((row.get(0)?, to_u64(row.get(1)?)))
}
