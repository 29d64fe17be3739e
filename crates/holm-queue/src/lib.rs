//! Durable store-and-forward: one journal a directory takes every append and every acknowledgement, so that one sync
//! commits them all.
//!
//! ```text
//!  append ─┐                      ┌─ Visibility::Appended: at once, from memory
//!  append ─┼─> log (in order) ──> │
//!  ack ────┘      │               └─ Visibility::Durable: after the commit
//!                 └─ writer thread: one write + one fdatasync for all that has arrived since the last one
//! ```
//!
//! What decides is synchronous and lives in [`core`]: it is given time, salt and a [`FileSystem`]. [`Queue`] is the shell
//! around it: a handle to share, a writer thread, and futures that need no particular runtime. The bytes on disk are
//! described in `docs/formats/queue.md`.
//!
//! This crate never knows what a payload means, who may read it, or over which protocol it came.

mod error;
mod lane;
mod options;
mod ranges;
mod record;

mod file_system;
mod format;

pub mod core;

mod copy;
mod pending;
mod queue;
mod reader;
mod signal;
mod writer;

pub mod testing;
mod volatile;

pub use copy::{FilesHeld, files_to_copy};
pub use error::{AcknowledgeError, AppendError, CommitError, LaneError, OpenError, ReadError};
pub use file_system::{Directory, File, FileLock, FileSystem};
pub use format::FORMAT_VERSION;
pub use lane::{LaneBounds, LaneDepth, LaneId, LaneInfo, LaneKind};
pub use options::{Clock, Options};
pub use pending::{Commit, Pending};
pub use queue::Queue;
pub use reader::{Reader, Skipped};
pub use volatile::Volatile;

pub use record::{Appended, NewRecord, Offset, Positions, Record, Start, Visibility};

pub use crate::core::{Health, OpenReport, Stats};
