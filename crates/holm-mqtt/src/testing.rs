//! The test language.
