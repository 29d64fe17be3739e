//! The settings of each kind of endpoint: members, defaults, ranges.
//!
//! Names that contain `{hub}`, `{device}`, `{module}`, `{source}` or `{partition}` are patterns, filled for each message.

use std::collections::BTreeMap;
use std::time::Duration;

use holm_identity::Secret;
use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::{DefinitionError, FileSettings, Members, MqttSettings, NatsSettings};

/// The most bytes of an address.
const LONGEST_URL: usize = 2048;
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
    /// `http://` or `https://`, without user and password.
    pub url: String,
    /// A request for each message, its body as it is, instead of a JSON array for a batch.
    pub per_message: bool,
    /// Headers of each request.
    pub headers: BTreeMap<String, String>,
    /// The text behind `Authorization: Bearer`.
    pub token: Option<Secret>,
    /// The key of the signature of each request (HMAC-SHA256).
    pub hmac_key: Option<Secret>,
    /// Who may have signed the server's certificate, instead of those that the system trusts; PEM.
    pub ca: Option<String>,
    /// How long an answer may take; 1 to 300 s, default 30 s.
    pub timeout: Duration,
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
            Self::Webhook(WebhookSettings { url, .. })
            | Self::Mqtt(MqttSettings { url, .. })
            | Self::Nats(NatsSettings { url, .. }) => url,
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
        let written = match self {
            Self::Webhook(settings) => settings.write(),
            Self::Mqtt(settings) => settings.write(),
            Self::Nats(settings) => settings.write(),
            Self::File(settings) => settings.write(),
        };
        if let Value::Object(written) = written {
            document.extend(written.into_iter().filter(|(_, value)| !value.is_null()));
        }
    }

    /// The secrets that are set, by their members.
    #[must_use]
    pub fn secrets(&self) -> Vec<(&'static str, &Secret)> {
        let all = match self {
            Self::Webhook(settings) => vec![("token", &settings.token), ("hmacKey", &settings.hmac_key)],
            Self::Mqtt(settings) => settings.secrets().to_vec(),
            Self::Nats(settings) => settings.secrets().to_vec(),
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
            url: url(members, &["http", "https"])?,
            per_message: members.boolean("perMessage", false)?,
            headers,
            token: members.secret("token")?,
            hmac_key: members.secret("hmacKey")?,
            ca: members.text("ca", LONGEST_PEM)?,
            timeout: members
                .seconds("timeoutSeconds", 1..=300)?
                .unwrap_or(Duration::from_secs(30)),
            max_messages: members.number("maxMessages", 1..=10_000)?.unwrap_or(500),
        }))
    }

    fn write(&self) -> Value {
        json!({
            "url": self.url,
            "perMessage": self.per_message,
            "headers": self.headers,
            "ca": self.ca,
            "timeoutSeconds": self.timeout.as_secs(),
            "maxMessages": self.max_messages,
        })
    }
}

/// An address with a host and one of the schemes; nobody's password in it, since it is shown.
pub(super) fn url(members: &mut Members, schemes: &[&str]) -> Result<String, DefinitionError> {
    let text = members.required_text("url", LONGEST_URL)?;
    let wrong = |text: String| DefinitionError::new("url", text);
    let uri: Uri = text.parse().map_err(|error| wrong(format!("is no address: {error}")))?;
    let authority = uri.authority().filter(|authority| !authority.host().is_empty());
    let authority = authority.ok_or_else(|| wrong("has no host".to_owned()))?;
    if !schemes.iter().any(|scheme| uri.scheme_str() == Some(scheme)) {
        return Err(wrong(format!("must begin with {}://", schemes.join(":// or "))));
    }
    if authority.as_str().contains('@') {
        return Err(wrong(
            "has a user or password; give them as members of their own".to_owned(),
        ));
    }
    Ok(text)
}
