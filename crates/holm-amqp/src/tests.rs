//! Tests of the crate, by what they are about. The test language is in [`crate::testing`].

mod codec;
mod malformed;
mod messages;
mod strategies;
