//! The two packets that open a connection: CONNECT and CONNACK.

use std::fmt;

use bytes::Bytes;

use super::Qos;
use crate::text::Text;

/// The version of the protocol, as its name and level in CONNECT say. A later version is a further variant, and what
/// it changes hangs on this value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Version {
    /// MQTT 3.1.1: name `MQTT`, level 4.
    #[default]
    V311,
}

impl Version {
    /// The version for a protocol name and level; none for those that are not spoken here.
    pub(crate) fn from_wire(name: &str, level: u8) -> Option<Self> {
        (name == "MQTT" && level == 4).then_some(Self::V311)
    }

    /// The protocol name and level that CONNECT carries.
    pub(crate) fn to_wire(self) -> (&'static [u8], u8) {
        match self {
            Self::V311 => (b"MQTT", 4),
        }
    }
}

/// CONNECT: who the client is. 3.1.
///
/// ```text
///   | 0 0 0 1 | 0 0 0 0 |  remaining length
///   | 0 4 M Q T T | level 4 | user pass wretain wqos wqos will clean 0 | keep-alive 2, seconds |
///   | client id | will topic | will payload | user name | password |     each: length 2, bytes; absent without its flag
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// The version that the client speaks.
    pub version: Version,
    /// The client id; may be empty.
    pub client_id: Text,
    /// Whether earlier state is dropped and none kept.
    pub clean_session: bool,
    /// The longest silence of the client in seconds, 0 for no limit of its own.
    pub keep_alive_seconds: u16,
    /// What the server publishes for the client when the connection ends without DISCONNECT.
    pub will: Option<Will>,
    /// User name and password.
    pub credentials: Option<Credentials>,
}

/// The will of a client. 3.1.2.5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// Where it goes; never empty on the wire.
    pub topic: Text,
    /// What it says, at most 65,535 bytes.
    pub payload: Bytes,
    /// The quality of service.
    pub qos: Qos,
    /// The retain flag.
    pub retain: bool,
}

/// A user name with or without a password. Printing it leaves the password out.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user name; may be empty.
    pub user_name: Text,
    /// The password: any bytes, at most 65,535. A secret.
    pub password: Option<Bytes>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user_name", &self.user_name)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .finish()
    }
}

/// CONNACK: the answer to CONNECT. 3.2.
///
/// ```text
///   | 0x20 | 2 |   | 0 0 0 0 0 0 0 session-present |   | return code |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connack {
    /// Code 0.
    Accepted {
        /// Whether the server kept state of an earlier session.
        session_present: bool,
    },
    /// Codes 1 to 5; the connection is closed after it.
    Refused(Refusal),
}

/// Why a connection is refused. 3.2.2.3; how the SDKs take each is in `hub-device-protocols.md` §2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// 1: protocol level not supported.
    UnacceptableProtocolVersion = 1,
    /// 2: client id not allowed.
    IdentifierRejected = 2,
    /// 3: for the time being; the one answer to a temporary condition, since SDKs give up on 5.
    ServerUnavailable = 3,
    /// 4: malformed user name or password.
    BadUserNameOrPassword = 4,
    /// 5: wrong credentials or no right to connect.
    NotAuthorized = 5,
}

impl Refusal {
    /// The refusal for a return code, 1 to 5.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::UnacceptableProtocolVersion),
            2 => Some(Self::IdentifierRejected),
            3 => Some(Self::ServerUnavailable),
            4 => Some(Self::BadUserNameOrPassword),
            5 => Some(Self::NotAuthorized),
            _ => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::UnacceptableProtocolVersion => "unacceptable protocol version (1)",
            Self::IdentifierRejected => "identifier rejected (2)",
            Self::ServerUnavailable => "server unavailable (3)",
            Self::BadUserNameOrPassword => "bad user name or password (4)",
            Self::NotAuthorized => "not authorized (5)",
        })
    }
}
