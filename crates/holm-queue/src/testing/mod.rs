//! What tests of this crate and of those that use it need: a file system in memory that crashes, runs full and fails on
//! demand, and an entry for a fuzzer.

mod fuzz;
mod memory;

pub use fuzz::open_bytes;
pub use memory::{CrashStyle, MemoryFiles};
