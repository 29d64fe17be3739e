//! The one entry for all work on Holm.
fn main() {}
