//! Moves bytes: between a sans-I/O session and TCP, TLS or a WebSocket, for servers and clients alike.
//!
//! What decides lives in the sessions (`holm-mqtt`, `holm-amqp`); what is here reads, writes, sleeps and spawns. This crate never knows
//! what a device or a message is.

mod alarm;
pub mod clock;
pub mod connection;
pub mod dial;
mod error_chain;
pub mod http;
pub mod listener;
mod peer;
pub mod scope;
pub mod sockets;
pub mod tls;
pub mod websocket;

pub use alarm::Alarm;
pub use clock::Clock;
pub use connection::{Connection, Protocol};
pub use dial::{Dial, Dialer, Dialing, Stream};
pub use error_chain::error_chain;
pub use listener::{Admitted, Listener, ListenerOptions};
pub use peer::{Peer, UnixPeer};
pub use scope::Scope;
pub use sockets::ListeningSockets;
