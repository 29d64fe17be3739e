//! The settings of each kind of endpoint: members, defaults, ranges.
//!
//! Names that contain `{hub}`, `{device}`, `{module}`, `{source}` or `{partition}` are patterns, filled for each message.

use std::collections::BTreeMap;

use holm_identity::Secret;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::{BrokerSettings, DefinitionError, FileSettings, Members, MqttSettings, NatsSettings, ServerSettings};

/// The most bytes of a name or pattern.
pub(super) const LONGEST_TEXT: usize = 1024;
/// The most bytes of certificates.
pub(super) const LONGEST_PEM: usize = 64 * 1024;

/// What an endpoint is.
#[derive(Clone, Debug)]
pub enum Settings {
    /// Requests to an HTTP server.
    Webhook(WebhookSettings),
    /// Publications at an MQTT broker.
    Mqtt(MqttSettings),
    /// Messages of a NATS JetStream.
    Nats(NatsSettings),
    /// Files on the hub's machine.
    File(FileSettings),
}

/// Requests to an HTTP server.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// The server: `http://` or `https://`.
    pub server: ServerSettings,
    /// A request for each message, its body as it is, instead of a JSON array for a batch.
    pub per_message: bool,
    /// Headers of each request.
    pub headers: BTreeMap<String, String>,
    /// The text behind `Authorization: Bearer`.
    pub token: Option<Secret>,
    /// The key of the signature of each request (HMAC-SHA256).
    pub hmac_key: Option<Secret>,
    /// The most messages of a request; 1 to 10,000, default 500.
    pub max_messages: u64,
}

/// Takes the settings of a kind.
type Read = fn(&mut Members) -> Result<Settings, DefinitionError>;

impl Settings {
    /// The name of the kind.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Mqtt(_) => "mqtt",
            Self::Nats(_) => "nats",
            Self::File(_) => "file",
        }
    }

    /// Where messages go. Secrets belong to it.
    #[must_use]
    pub fn destination(&self) -> &str {
        match self {
            Self::Webhook(WebhookSettings { server, .. }) => &server.url,
            Self::Mqtt(MqttSettings { broker, .. }) | Self::Nats(NatsSettings { broker, .. }) => &broker.server.url,
            Self::File(FileSettings { folder, .. }) => folder,
        }
    }

    /// Takes the settings from the members of a definition.
    pub(super) fn read(members: &mut Members) -> Result<Self, DefinitionError> {
        let kinds: [(&str, Read); 4] = [
            ("webhook", WebhookSettings::read),
            ("mqtt", MqttSettings::read),
            ("nats", NatsSettings::read),
            ("file", FileSettings::read),
        ];
        let read = members.choice("kind", &kinds)?;
        let read = read.ok_or_else(|| DefinitionError::new("kind", "is missing; give webhook, mqtt, nats or file"))?;
        read(members)
    }

    /// Writes the settings, without secrets.
    pub(super) fn write(&self, document: &mut Map<String, Value>) {
        let with_broker = |broker: &BrokerSettings, own| vec![broker.server.write(), broker.write(), own];
        let written = match self {
            Self::Webhook(settings) => vec![settings.server.write(), settings.write()],
            Self::Mqtt(settings) => with_broker(&settings.broker, settings.write()),
            Self::Nats(settings) => with_broker(&settings.broker, settings.write()),
            Self::File(settings) => vec![settings.write()],
        };
        for part in written {
            if let Value::Object(part) = part {
                document.extend(part.into_iter().filter(|(_, value)| !value.is_null()));
            }
        }
    }

    /// The secrets that are set, by their members.
    #[must_use]
    pub fn secrets(&self) -> Vec<(&'static str, &Secret)> {
        let all = match self {
            Self::Webhook(settings) => vec![("token", &settings.token), ("hmacKey", &settings.hmac_key)],
            Self::Mqtt(settings) => settings.broker.secrets().to_vec(),
            Self::Nats(settings) => [&settings.broker.secrets()[..], &settings.secrets()].concat(),
            Self::File(_) => Vec::new(),
        };
        let set = all
            .into_iter()
            .filter_map(|(name, secret)| Some((name, secret.as_ref()?)));
        set.collect()
    }
}

impl WebhookSettings {
    fn read(members: &mut Members) -> Result<Settings, DefinitionError> {
        let headers = members.texts("headers")?;
        for (name, value) in &headers {
            let wrong = |text: String| DefinitionError::new("headers", text);
            let known: HeaderName = name
                .parse()
                .map_err(|_| wrong(format!("`{name}` is no name of a header")))?;
            HeaderValue::from_str(value).map_err(|_| wrong(format!("`{name}` has a value that no header can have")))?;
            if ["host", "content-length", "transfer-encoding", "connection"].contains(&known.as_str()) {
                return Err(wrong(format!("`{name}` is set by the hub itself; leave it out")));
            }
        }
        if headers.len() > 32 {
            return Err(DefinitionError::new("headers", "are more than 32"));
        }
        Ok(Settings::Webhook(Self {
            server: ServerSettings::read(members, &["http", "https"])?,
            per_message: members.boolean("perMessage", false)?,
            headers,
            token: members.secret("token")?,
            hmac_key: members.secret("hmacKey")?,
            max_messages: members.number("maxMessages", 1..=10_000)?.unwrap_or(500),
        }))
    }

    fn write(&self) -> Value {
        json!({
            "perMessage": self.per_message,
            "headers": self.headers,
            "maxMessages": self.max_messages,
        })
    }
}
