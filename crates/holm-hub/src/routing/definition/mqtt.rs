//! The settings of an MQTT broker.

use std::time::Duration;

use holm_identity::Secret;
use serde_json::{Value, json};

use super::settings::{LONGEST_PEM, LONGEST_TEXT, url};
use super::{DefinitionError, Members, Settings};

/// Publications at an MQTT broker, with QoS 1.
#[derive(Clone, Debug)]
pub struct MqttSettings {
    /// `mqtt://host[:1883]` or `mqtts://host[:8883]`, without user and password.
    pub url: String,
    /// The pattern of the topic.
    pub topic: String,
    /// How the properties of a message travel.
    pub properties: MqttProperties,
    /// The client id; `None`: made of the hub's and the endpoint's name.
    pub client_id: Option<String>,
    /// Who logs in.
    pub user: Option<String>,
    /// And how.
    pub password: Option<Secret>,
    /// As for webhooks.
    pub ca: Option<String>,
    /// The certificate that is shown to the broker, with its chain; PEM.
    pub client_certificate: Option<String>,
    /// Its key; PEM.
    pub client_key: Option<Secret>,
    /// The most messages that wait for their acknowledgement at once; 1 to 1000, default 100. Some brokers hold fewer.
    pub max_in_flight: u16,
    /// How long the broker may take to let us in, and to acknowledge a message; 1 to 300 s, default 30 s.
    pub timeout: Duration,
}

/// How properties travel: MQTT 3.1.1 has no place for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MqttProperties {
    /// In the payload: a JSON object with body, application and system properties.
    Envelope,
    /// Behind the topic, as devices send theirs to a hub.
    Topic,
    /// Not at all: the payload is the body, and nothing else.
    None,
}

const PROPERTIES: [(&str, MqttProperties); 3] = [
    ("envelope", MqttProperties::Envelope),
    ("topic", MqttProperties::Topic),
    ("none", MqttProperties::None),
];

impl MqttSettings {
    pub(super) fn read(members: &mut Members) -> Result<Settings, DefinitionError> {
        let max_in_flight = members.number("maxInFlight", 1..=1000)?.unwrap_or(100);
        let settings = Self {
            url: url(members, &["mqtt", "mqtts"])?,
            topic: members.required_text("topic", LONGEST_TEXT)?,
            properties: members
                .choice("properties", &PROPERTIES)?
                .unwrap_or(MqttProperties::Envelope),
            client_id: members.text("clientId", LONGEST_TEXT)?,
            user: members.text("user", LONGEST_TEXT)?,
            password: members.secret("password")?,
            ca: members.text("ca", LONGEST_PEM)?,
            client_certificate: members.text("clientCertificate", LONGEST_PEM)?,
            client_key: members.secret("clientKey")?,
            max_in_flight: u16::try_from(max_in_flight).unwrap_or(u16::MAX),
            timeout: members
                .seconds("timeoutSeconds", 1..=300)?
                .unwrap_or(Duration::from_secs(30)),
        };
        if settings.password.is_some() && settings.user.is_none() {
            // MQTT-3.1.2-22.
            return Err(DefinitionError::new("user", "is missing; a password needs one"));
        }
        Ok(Settings::Mqtt(settings))
    }

    pub(super) fn write(&self) -> Value {
        let properties = PROPERTIES.iter().find(|(_, properties)| *properties == self.properties);
        json!({
            "url": self.url,
            "topic": self.topic,
            "properties": properties.map(|(name, _)| *name),
            "clientId": self.client_id,
            "user": self.user,
            "ca": self.ca,
            "clientCertificate": self.client_certificate,
            "maxInFlight": self.max_in_flight,
            "timeoutSeconds": self.timeout.as_secs(),
        })
    }

    pub(super) const fn secrets(&self) -> [(&'static str, &Option<Secret>); 2] {
        [("password", &self.password), ("clientKey", &self.client_key)]
    }
}
