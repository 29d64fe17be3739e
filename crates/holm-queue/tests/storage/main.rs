//! The log on disk, seen from outside: one log, one thread, a file system in memory.
#![expect(clippy::unwrap_used, reason = "helpers of tests may, as tests do")]

mod damage;
mod format;
mod lifetime;
mod limits;
mod script;
