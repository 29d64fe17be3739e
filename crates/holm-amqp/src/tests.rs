//! Tests of the crate, by what they are about. The test language is in [`crate::testing`].

mod closing;
mod codec;
mod deliveries;
mod flow;
mod handshake;
mod limits;
mod links;
mod malformed;
mod messages;
mod operations;
mod strategies;
