//! Backups: one file with all that a hub is, made while it runs, and a data directory made of it.
//!
//! ```text
//! files held ─> one moment: a snapshot of the database, the lengths of the event log ─> contents ─> archive ─> who asked
//!                                                                                                      │
//!                                                       restore: data directory <─ every byte checked <┘
//! ```
//!
//! - The moment is between two commits of the database, and the event log is looked at within it. So no event in the archive tells of
//!   what its database does not know, and none that its database counts as told is missing.
//! - Nothing that the moment names goes before it is copied: files of blobs that are deleted meanwhile and segments of the log that nobody
//!   needs stay until then. Writers wait for the moment only, which takes milliseconds.
//! - The database is copied beside itself first and then sent: who receives slowly holds up files, but no transaction.
//! - One backup is made at a time.
//!
//! The format of the archive is in `docs/formats/backup.md`; how it is used in `docs/backup.md`.

mod contents;
mod format;
mod read;
mod restore;
mod run;
mod taken;

pub use format::{FORMAT_VERSION, Head};
pub use read::{Archive, ArchiveError, Summary, verify};
pub use restore::{RestoreError, restore};
pub use run::{Backups, Making, Offline};
pub use taken::BackupError;
