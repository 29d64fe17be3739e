//! Tests of the crate, by what they are about. The test language is in [`crate::testing`].

mod acknowledgements;
mod client;
mod codec;
mod flow;
mod malformed;
mod operations;
mod server;
mod strategies;
