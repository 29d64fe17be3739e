//! AMQP 1.0 as a codec and a connection, for both roles: bytes and times in, bytes, deadlines and events out.
//!
//! ```text
//!   socket bytes --> handle_bytes --> [decode] --> Connection --> poll_event --> application
//!   socket bytes <-- poll_transmit <- [encode] <-- Connection <-- attach, grant, send, settle …
//!                                      clock <---- poll_timeout / handle_timeout
//! ```
//!
//! This crate never knows a socket, a task, a clock, a file or a random number, nor what an address means.
//! Sources: the OASIS standard AMQP 1.0 (by part and clause), `libraries.md` (facts that the original clients need),
//! `hub-device-protocols.md` §3 and `hub-service-api.md` §5 and §6.

pub mod codec;
pub mod condition;
pub mod connection;
pub mod message;
pub mod performative;
mod sasl;
mod violation;

mod credit;
mod link;
mod session;
mod timer;
mod unsettled;
mod window;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

mod map;
mod text;
mod value;

pub use codec::{DecodeError, Fault, Limits};
pub use condition::AmqpError;
pub use connection::{
    Acceptance, Allowance, Closed, Config, Connection, Delivery, Event, Login, NewLink, OpenError, Outbound, SendError,
    Side,
};
pub use link::{DeliveryId, LinkId, SessionId, Token};
pub use map::{ApplicationProperties, Fields, Map};
pub use message::{Body, Message, MessageId, Properties};
pub use performative::{DeliveryTag, Outcome, Role, SaslCode};
pub use sasl::{Credentials, CredentialsError};
pub use text::{InvalidText, Symbol, Text};
pub use timer::Timer;
pub use value::{Array, Described, Float32, Float64, Kind, MixedArray, Timestamp, Value};
pub use violation::{LinkFault, SessionFault, Violation};
