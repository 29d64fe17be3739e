//! What a session tells the application, and why it refuses what the application asks.

use bytes::Bytes;
use thiserror::Error;

use crate::acknowledgements::DeliveryId;
use crate::codec::EncodeError;
use crate::flow::{RequestId, Token};
use crate::packet::{Connect, Granted, Qos, Refusal, Subscription};
use crate::text::Text;
use crate::timer::Timer;
use crate::violation::Violation;

/// A message as the application sees it, in either direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Where it goes; never empty on the wire.
    pub topic: Text,
    /// What it says; any bytes, may be empty.
    pub payload: Bytes,
    /// QoS 0 or 1.
    pub qos: Qos,
    /// The retain flag.
    pub retain: bool,
    /// Whether it may have been sent before; ignored at QoS 0.
    pub dup: bool,
}

/// What happened, in the order in which it happened. After [`Event::Closed`] nothing follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Server: a client wants in, with its will. Answer by [`accept`](crate::Session::accept) or
    /// [`refuse`](crate::Session::refuse); what the client sends meanwhile waits.
    Connect(Box<Connect>),
    /// Client: the server let us in.
    Connected {
        /// Whether the server kept state of an earlier session.
        session_present: bool,
    },
    /// The peer published a message.
    Publish {
        /// The message.
        message: Message,
        /// At QoS 1, what [`acknowledge`](crate::Session::acknowledge) wants once the message is durable.
        delivery: Option<DeliveryId>,
    },
    /// The peer acknowledged a message of ours.
    Acknowledged(Token),
    /// Server: the client wants messages. Answer by [`suback`](crate::Session::suback).
    Subscribe {
        /// What the answer names.
        request: RequestId,
        /// The filters in their order; a requested QoS 2 shows as 1, the most that is granted.
        filters: Vec<Subscription>,
    },
    /// Server: the client no longer wants messages. Answer by [`unsuback`](crate::Session::unsuback).
    Unsubscribe {
        /// What the answer names.
        request: RequestId,
        /// The filters in their order.
        filters: Vec<Text>,
    },
    /// Client: the answer to [`subscribe`](crate::Session::subscribe).
    Subscribed {
        /// The request.
        request: RequestId,
        /// One code for each filter, in their order.
        granted: Vec<Granted>,
    },
    /// Client: the answer to [`unsubscribe`](crate::Session::unsubscribe).
    Unsubscribed {
        /// The request.
        request: RequestId,
    },
    /// The session is over. Send what [`poll_transmit`](crate::Session::poll_transmit) still gives, then close the socket.
    Closed(Closed),
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Closed {
    /// The client said DISCONNECT: its will is dropped.
    #[error("the client disconnected")]
    Disconnected,
    /// The application closed it.
    #[error("closed by this side")]
    ByApplication,
    /// Server: the application refused the client; client: the server refused us.
    #[error("the connection was refused: {0}")]
    Refused(Refusal),
    /// The peer broke a rule or a limit.
    #[error("the peer broke the protocol")]
    Violation(#[source] Violation),
    /// A deadline passed.
    #[error("nothing came in time: waited for {0}")]
    TimedOut(Timer),
    /// The transport ended.
    #[error("the connection was lost")]
    Lost,
}

impl Closed {
    /// Whether the client said DISCONNECT, so that its will must not be published. MQTT-3.14.4-3.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        matches!(self, Self::Disconnected)
    }
}

/// Why a message cannot be published. Nothing was sent; the caller still has the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PublishError {
    /// Before the connection is accepted, or after its end.
    #[error("the session is not open; publish between its opening and its end")]
    NotOpen,
    /// As many messages of QoS 1 as allowed wait for their PUBACK.
    #[error("the window of unacknowledged messages is full; publish again after `Acknowledged`")]
    WindowFull,
    /// The peer reads too slowly.
    #[error("too many bytes wait to be sent; publish again after `poll_transmit` took them")]
    OutputFull,
    /// QoS 2 is not offered.
    #[error("QoS 2 is not supported; publish at QoS 1 or 0")]
    ExactlyOnce,
    /// The message has no form on the wire.
    #[error("the message cannot be sent")]
    Encode(#[source] EncodeError),
}

/// Why a client cannot subscribe or unsubscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// Before the connection is accepted, after its end, or in a server.
    #[error("the session is not that of an open client; subscribe between `Connected` and `Closed`")]
    NotOpen,
    /// As many requests as allowed wait for their answer, or the output is full.
    #[error("too many requests wait for their answer; ask again after `Subscribed` or `Unsubscribed`")]
    TooMany,
    /// QoS 2 is not offered.
    #[error("QoS 2 is not supported; subscribe at QoS 1 or 0")]
    ExactlyOnce,
    /// The filters have no form on the wire.
    #[error("the request cannot be sent")]
    Encode(#[source] EncodeError),
}

/// Why a server's answer to a SUBSCRIBE or UNSUBSCRIBE is wrong. After the end of a session every answer is taken and
/// dropped, without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AnswerError {
    /// No such request waits, or it is of the other kind.
    #[error("no such request waits for an answer; answer each request once")]
    UnknownRequest,
    /// Another number of codes than filters.
    #[error("{given} codes were given for {filters} filters; give one code a filter, in their order")]
    CodeCount {
        /// How many filters the SUBSCRIBE has.
        filters: usize,
        /// How many codes were given.
        given: usize,
    },
}
