//! Ways to authenticate, parsed once: what a client says, and what a client of ours says.
//!
//! ```text
//!   none at all   the connection begins with AMQP: rights come by $cbs
//!   ANONYMOUS, MSSBCBS                             rights come by $cbs
//!   EXTERNAL      the TLS certificate             [identity to act as]
//!   PLAIN         identity 0 user 0 password                            RFC 4616
//! ```
//!
//! Sources: AMQP 1.0, part 5; `libraries.md`, AMQP facts 3 and 4; `hub-device-protocols.md` §3.1.

use bytes::Bytes;
use thiserror::Error;

use crate::performative::{SaslInit, Secret};
use crate::text::{Symbol, Text};

/// What a client gives to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing.
    Anonymous,
    /// Nothing, by the name that stands for claims-based security.
    Mssbcbs,
    /// What the transport says of the client.
    External,
    /// A name and a password, which may be a token.
    Plain {
        /// The name.
        user: Text,
        /// The password.
        password: Secret,
    },
}

/// Why credentials can't be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CredentialsError {
    /// Nothing that is known here.
    #[error("the mechanism `{0}` is not known; choose one of those offered")]
    UnknownMechanism(Symbol),
    /// Not the form of RFC 4616.
    #[error("the initial response of PLAIN is not an identity, a user and a password with zero bytes between them")]
    Plain,
}

impl Credentials {
    /// The name of the mechanism.
    #[must_use]
    pub const fn mechanism(&self) -> Symbol {
        Symbol::from_static(match self {
            Self::Anonymous => "ANONYMOUS",
            Self::Mssbcbs => "MSSBCBS",
            Self::External => "EXTERNAL",
            Self::Plain { .. } => "PLAIN",
        })
    }

    /// The first step of a client of ours.
    pub(crate) fn to_init(&self, hostname: Option<Text>) -> SaslInit {
        let initial_response = match self {
            Self::Anonymous | Self::Mssbcbs | Self::External => Bytes::new(),
            Self::Plain { user, password } => [&[0][..], user.as_bytes(), &[0], &password.0[..]].concat().into(),
        };
        SaslInit {
            mechanism: self.mechanism(),
            initial_response: Some(Secret(initial_response)),
            hostname,
        }
    }
}

impl TryFrom<&SaslInit> for Credentials {
    type Error = CredentialsError;

    fn try_from(init: &SaslInit) -> Result<Self, CredentialsError> {
        match init.mechanism.as_bytes() {
            b"ANONYMOUS" => Ok(Self::Anonymous),
            b"MSSBCBS" => Ok(Self::Mssbcbs),
            b"EXTERNAL" => Ok(Self::External),
            b"PLAIN" => plain(init.initial_response.as_ref()),
            _ => Err(CredentialsError::UnknownMechanism(init.mechanism.clone())),
        }
    }
}

/// The identity to act as is read over: who has the password acts as its user.
fn plain(response: Option<&Secret>) -> Result<Credentials, CredentialsError> {
    let response = response.map(|response| &response.0).ok_or(CredentialsError::Plain)?;
    let zero = |from: usize| {
        response
            .iter()
            .skip(from)
            .position(|byte| *byte == 0)
            .map(|at| from + at)
    };
    let first = zero(0).ok_or(CredentialsError::Plain)?;
    let second = zero(first + 1).ok_or(CredentialsError::Plain)?;
    let user = Text::try_from(response.slice(first + 1..second)).map_err(|_| CredentialsError::Plain)?;
    let password = Secret(response.slice(second + 1..));
    if user.is_empty() || password.0.contains(&0) {
        return Err(CredentialsError::Plain);
    }
    Ok(Credentials::Plain { user, password })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn init(mechanism: &str, response: Option<&'static [u8]>) -> SaslInit {
        SaslInit {
            mechanism: Symbol::try_from(mechanism).unwrap(),
            initial_response: response.map(|response| Secret(Bytes::from_static(response))),
            hostname: None,
        }
    }

    #[test]
    fn plain_is_read_with_and_without_an_identity() {
        let expected = Credentials::Plain {
            user: "dev1@sas.hub".into(),
            password: Secret(Bytes::from_static(b"token")),
        };

        for response in [&b"\0dev1@sas.hub\0token"[..], b"somebody\0dev1@sas.hub\0token"] {
            let response = Some(response);
            assert_eq!(Credentials::try_from(&init("PLAIN", response)), Ok(expected.clone()));
        }
        assert_eq!(Credentials::try_from(&expected.to_init(None)), Ok(expected));
    }

    #[test]
    fn other_forms_are_refused() {
        let responses = [
            None,
            Some(&b""[..]),
            Some(b"user"),
            Some(b"\0user"),
            Some(b"\0\0x"),
            Some(b"\0u\0p\0x"),
            Some(b"\0\xff\0p"),
        ];
        for response in responses {
            assert_eq!(
                Credentials::try_from(&init("PLAIN", response)),
                Err(CredentialsError::Plain)
            );
        }
        assert!(matches!(
            Credentials::try_from(&init("GSSAPI", None)),
            Err(CredentialsError::UnknownMechanism(_))
        ));
    }

    #[test]
    fn mechanisms_without_a_secret_need_no_response() {
        assert_eq!(
            Credentials::try_from(&init("ANONYMOUS", None)),
            Ok(Credentials::Anonymous)
        );
        assert_eq!(
            Credentials::try_from(&init("MSSBCBS", Some(b"x"))),
            Ok(Credentials::Mssbcbs)
        );
        assert_eq!(
            Credentials::try_from(&init("EXTERNAL", Some(b""))),
            Ok(Credentials::External)
        );
    }
}
