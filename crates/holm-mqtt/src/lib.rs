//! MQTT 3.1.1 as a codec and a session, for both roles: bytes and times in, bytes, deadlines and events out.
//!
//! ```text
//!   socket bytes --> handle_bytes --> [decode] --> Session --> poll_event --> application
//!   socket bytes <-- poll_transmit <- [encode] <-- Session <-- publish, acknowledge, accept, suback …
//!                                     clock <----- poll_timeout / handle_timeout
//! ```
//!
//! This crate never knows a socket, a task, a clock, a file or a random number, nor what a topic means.
//! Sources: the OASIS standard MQTT 3.1.1 (clauses as `MQTT-x.y.z-n`) and `hub-device-protocols.md` §2.

pub mod codec;
pub mod packet;
pub mod session;
mod text;
mod violation;

mod acknowledgements;
mod flow;
mod timer;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use acknowledgements::{DeliveryId, Outcome};
pub use codec::{EncodeError, decode, encode};
pub use flow::{RequestId, Token};
pub use packet::{
    Connack, Connect, Credentials, Delivery, Granted, Packet, PacketId, PacketKind, Publish, Qos, Refusal, Suback,
    Subscribe, Subscription, Unsubscribe, Version, Will,
};
pub use session::{AnswerError, Closed, Config, Event, Message, PublishError, RequestError, SLOWEST_LINK, Session};
pub use text::{InvalidText, Text};
pub use timer::Timer;
pub use violation::Violation;
