//! The settings of a NATS JetStream.

use holm_identity::Secret;
use serde_json::{Value, json};

use super::settings::LONGEST_TEXT;
use super::{BrokerSettings, DefinitionError, Members, Settings};

/// How many messages are on their way at once if nothing is said.
const IN_FLIGHT: u16 = 256;

/// Messages of a NATS JetStream.
#[derive(Clone, Debug)]
pub struct NatsSettings {
    /// The server: `nats://host[:4222]` or `tls://host[:4222]`.
    pub broker: BrokerSettings,
    /// The pattern of the subject; a stream must cover it.
    pub subject: String,
    /// The stream that must take the messages; `None`: whichever covers the subject.
    pub stream: Option<String>,
    /// The token, instead of user and password.
    pub token: Option<Secret>,
    /// The text of a credentials file (JWT and seed), instead of these.
    pub credentials: Option<Secret>,
    /// The seed of an nkey (`SU…`), instead of these.
    pub nkey_seed: Option<Secret>,
}

impl NatsSettings {
    pub(super) fn read(members: &mut Members) -> Result<Settings, DefinitionError> {
        let settings = Self {
            broker: BrokerSettings::read(members, &["nats", "tls"], IN_FLIGHT)?,
            subject: members.required_text("subject", LONGEST_TEXT)?,
            stream: members.text("stream", LONGEST_TEXT)?,
            token: members.secret("token")?,
            credentials: members.secret("credentials")?,
            nkey_seed: members.secret("nkeySeed")?,
        };
        settings.check_login()?;
        Ok(Settings::Nats(settings))
    }

    /// One way to log in, and that whole.
    fn check_login(&self) -> Result<(), DefinitionError> {
        let ways = [
            ("user", self.broker.user.is_some()),
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
        if self.broker.user.is_some() && self.broker.password.is_none() {
            return Err(DefinitionError::new("password", "is missing; `user` needs one"));
        }
        Ok(())
    }

    pub(super) fn write(&self) -> Value {
        json!({
            "subject": self.subject,
            "stream": self.stream,
        })
    }

    pub(super) const fn secrets(&self) -> [(&'static str, &Option<Secret>); 3] {
        [
            ("token", &self.token),
            ("credentials", &self.credentials),
            ("nkeySeed", &self.nkey_seed),
        ]
    }
}
