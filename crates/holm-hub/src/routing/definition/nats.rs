//! The settings of a NATS JetStream.

use std::time::Duration;

use holm_identity::Secret;
use serde_json::{Value, json};

use super::settings::{LONGEST_PEM, LONGEST_TEXT, url};
use super::{DefinitionError, Members, Settings};

/// Messages of a NATS JetStream.
#[derive(Clone, Debug)]
pub struct NatsSettings {
    /// `nats://host[:4222]` or `tls://host[:4222]`, without user and password.
    pub url: String,
    /// The pattern of the subject; a stream must cover it.
    pub subject: String,
    /// The stream that must take the messages; `None`: whichever covers the subject.
    pub stream: Option<String>,
    /// Who logs in.
    pub user: Option<String>,
    /// And how.
    pub password: Option<Secret>,
    /// The token, instead of user and password.
    pub token: Option<Secret>,
    /// The text of a credentials file (JWT and seed), instead of these.
    pub credentials: Option<Secret>,
    /// The seed of an nkey (`SU…`), instead of these.
    pub nkey_seed: Option<Secret>,
    /// As for webhooks.
    pub ca: Option<String>,
    /// The certificate that is shown to the server, with its chain; PEM.
    pub client_certificate: Option<String>,
    /// Its key; PEM.
    pub client_key: Option<Secret>,
    /// The most messages that wait for their acknowledgement at once; 1 to 1000, default 256.
    pub max_in_flight: u16,
    /// How long the server may take to let us in, and to acknowledge a message; 1 to 300 s, default 30 s.
    pub timeout: Duration,
}

impl NatsSettings {
    pub(super) fn read(members: &mut Members) -> Result<Settings, DefinitionError> {
        let max_in_flight = members.number("maxInFlight", 1..=1000)?.unwrap_or(256);
        let settings = Self {
            url: url(members, &["nats", "tls"])?,
            subject: members.required_text("subject", LONGEST_TEXT)?,
            stream: members.text("stream", LONGEST_TEXT)?,
            user: members.text("user", LONGEST_TEXT)?,
            password: members.secret("password")?,
            token: members.secret("token")?,
            credentials: members.secret("credentials")?,
            nkey_seed: members.secret("nkeySeed")?,
            ca: members.text("ca", LONGEST_PEM)?,
            client_certificate: members.text("clientCertificate", LONGEST_PEM)?,
            client_key: members.secret("clientKey")?,
            max_in_flight: u16::try_from(max_in_flight).unwrap_or(u16::MAX),
            timeout: members
                .seconds("timeoutSeconds", 1..=300)?
                .unwrap_or(Duration::from_secs(30)),
        };
        settings.check_login()?;
        Ok(Settings::Nats(settings))
    }

    /// One way to log in, and that whole.
    fn check_login(&self) -> Result<(), DefinitionError> {
        let ways = [
            ("user", self.user.is_some()),
            ("token", self.token.is_some()),
            ("credentials", self.credentials.is_some()),
            ("nkeySeed", self.nkey_seed.is_some()),
        ];
        let mut given = ways.into_iter().filter(|(_, is_given)| *is_given);
        if let (Some((first, _)), Some((second, _))) = (given.next(), given.next()) {
            return Err(DefinitionError::new(
                second,
                format!("is given beside `{first}`; give one of them"),
            ));
        }
        match (&self.user, &self.password) {
            (Some(_), None) => Err(DefinitionError::new("password", "is missing; `user` needs one")),
            (None, Some(_)) => Err(DefinitionError::new("user", "is missing; a password needs one")),
            _ => Ok(()),
        }
    }

    pub(super) fn write(&self) -> Value {
        json!({
            "url": self.url,
            "subject": self.subject,
            "stream": self.stream,
            "user": self.user,
            "ca": self.ca,
            "clientCertificate": self.client_certificate,
            "maxInFlight": self.max_in_flight,
            "timeoutSeconds": self.timeout.as_secs(),
        })
    }

    pub(super) const fn secrets(&self) -> [(&'static str, &Option<Secret>); 5] {
        [
            ("password", &self.password),
            ("token", &self.token),
            ("credentials", &self.credentials),
            ("nkeySeed", &self.nkey_seed),
            ("clientKey", &self.client_key),
        ]
    }
}
