//! The settings of an MQTT broker.

use serde_json::{Value, json};

use super::settings::LONGEST_TEXT;
use super::{BrokerSettings, DefinitionError, Members, Settings};

/// How many messages are on their way at once if nothing is said.
const IN_FLIGHT: u16 = 100;

/// Publications at an MQTT broker, with QoS 1.
#[derive(Clone, Debug)]
pub struct MqttSettings {
    /// The broker: `mqtt://host[:1883]` or `mqtts://host[:8883]`.
    pub broker: BrokerSettings,
    /// The pattern of the topic.
    pub topic: String,
    /// How the properties of a message travel.
    pub properties: MqttProperties,
    /// The client id; `None`: made of the hub's and the endpoint's name.
    pub client_id: Option<String>,
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
        Ok(Settings::Mqtt(Self {
            broker: BrokerSettings::read(members, &["mqtt", "mqtts"], IN_FLIGHT)?,
            topic: members.required_text("topic", LONGEST_TEXT)?,
            properties: members
                .choice("properties", &PROPERTIES)?
                .unwrap_or(MqttProperties::Envelope),
            client_id: members.text("clientId", LONGEST_TEXT)?,
        }))
    }

    pub(super) fn write(&self) -> Value {
        let properties = PROPERTIES.iter().find(|(_, properties)| *properties == self.properties);
        json!({
            "topic": self.topic,
            "properties": properties.map(|(name, _)| *name),
            "clientId": self.client_id,
        })
    }
}
