//! Ways to authenticate, parsed once: what a client says, and what a client of ours says.
//!
//! ```text
//!   none at all   the connection begins with AMQP: rights come by $cbs
//!   ANONYMOUS, MSSBCBS                             rights come by $cbs
//!   EXTERNAL      the TLS certificate             [identity to act as]
//!   PLAIN         identity 0 user 0 password                            RFC 4616
//!   TPM           0 id scope 0 registration id 0 endorsement key        then challenges; the provisioning service alone
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
    /// A TPM, of which the first words name the device. What it proves comes in [responses](crate::Event::SaslResponse).
    Tpm {
        /// The provisioning service.
        id_scope: Text,
        /// The device there.
        registration_id: Text,
        /// The public area of its endorsement key.
        endorsement_key: Bytes,
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
    /// Not the form of `hub-device-protocols.md` §5.4.
    #[error("the initial response of TPM is not an id scope, a registration id and a key, each after a zero byte")]
    Tpm,
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
            Self::Tpm { .. } => "TPM",
        })
    }

    /// The first step of a client of ours.
    pub(crate) fn to_init(&self, hostname: Option<Text>) -> SaslInit {
        let initial_response = match self {
            Self::Anonymous | Self::Mssbcbs | Self::External => Bytes::new(),
            Self::Plain { user, password } => [&[0][..], user.as_bytes(), &[0], &password.0[..]].concat().into(),
            Self::Tpm {
                id_scope,
                registration_id,
                endorsement_key,
            } => {
                let parts = [id_scope.as_bytes(), registration_id.as_bytes(), &endorsement_key[..]];
                parts.map(|part| [&[0][..], part].concat()).concat().into()
            }
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
            b"TPM" => tpm(init.initial_response.as_ref()),
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

/// The key is the rest, and may hold zero bytes.
fn tpm(response: Option<&Secret>) -> Result<Credentials, CredentialsError> {
    let response = response.map(|response| &response.0).ok_or(CredentialsError::Tpm)?;
    let mut parts = response.splitn(4, |byte| *byte == 0);
    let (before, scope, id, key) = (parts.next(), parts.next(), parts.next(), parts.next());
    let text = |part: Option<&[u8]>| {
        let part = part.filter(|part| !part.is_empty()).ok_or(CredentialsError::Tpm)?;
        Text::try_from(response.slice_ref(part)).map_err(|_| CredentialsError::Tpm)
    };
    match (before, key) {
        (Some([]), Some(key)) if !key.is_empty() => Ok(Credentials::Tpm {
            id_scope: text(scope)?,
            registration_id: text(id)?,
            endorsement_key: response.slice_ref(key),
        }),
        _ => Err(CredentialsError::Tpm),
    }
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
    fn a_tpm_names_its_device_and_shows_a_key_that_may_hold_zeros() {
        let expected = Credentials::Tpm {
            id_scope: "0ne1".into(),
            registration_id: "reg-1".into(),
            endorsement_key: Bytes::from_static(b"\x01\0\0k"),
        };

        let read = Credentials::try_from(&init("TPM", Some(b"\x000ne1\0reg-1\0\x01\0\0k")));

        assert_eq!(read, Ok(expected.clone()));
        assert_eq!(Credentials::try_from(&expected.to_init(None)), Ok(expected));
        for other in [
            None,
            Some(&b""[..]),
            Some(b"\0\0\0"),
            Some(b"\0s\0r"),
            Some(b"\0s\0r\0"),
            Some(b"s\0r\0k"),
            Some(b"x\0s\0r\0k"),
            Some(b"\0\xff\0r\0k"),
        ] {
            assert_eq!(
                Credentials::try_from(&init("TPM", other)),
                Err(CredentialsError::Tpm),
                "{other:?}"
            );
        }
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
