//! The test language, and the checks that fuzz targets call.

mod decoding;

pub use decoding::{check_frames, check_message, check_value};
