//! An MQTT broker as an endpoint: MQTT 3.1.1, QoS 1, over TCP or TLS.
//!
//! ```text
//! message --> topic of the pattern, payload as the settings say --PUBLISH--> broker --PUBACK--> delivered
//!
//! properties = envelope   topic             {"EnqueuedTimeUtc":…,"Properties":{…},"SystemProperties":{…},"Body":…}
//!              topic      topic/{bag}       the body              the bag as devices write theirs to a hub, and `%24.cdid`, `%24.cmid`
//!              none       topic             the body
//! ```
//!
//! - Messages are not retained, and the session is clean: what was not acknowledged is sent anew, with DUP only as far as MQTT sends it on
//!   the same connection, so a message may come twice.
//! - A broker acknowledges what it then does not pass on (no right to publish there); MQTT 3.1.1 has no word for that. One that takes
//!   no message so large ends the connection, and the message comes again until it has waited too long.

use futures_util::future::BoxFuture;
use holm_model::SystemProperty;
use holm_model::wire::bag;
use holm_mqtt::{
    Config, Connect, Credentials, Event, Message, PublishError, Qos, Refusal, Session, Text, Token, Version,
};
use holm_net::clock::instant;
use holm_net::{Connection, error_chain};

use super::address::Address;
use super::link::{Heard, Link, NotNow, Publisher, Publishes};
use super::record;
use super::template::{Dialect, Template};
use crate::routing::definition::{DefinitionError, MqttProperties, MqttSettings};
use crate::routing::{Endpoint, Routed, Surroundings};

/// How often the broker hears of us while there is nothing to send.
const KEEP_ALIVE_SECONDS: u16 = 30;

/// An endpoint of settings.
///
/// # Errors
/// [`DefinitionError`] with the member.
pub(super) fn endpoint(
    settings: &MqttSettings,
    surroundings: &Surroundings,
) -> Result<impl Endpoint + use<>, DefinitionError> {
    let broker = Broker::new(settings, surroundings)?;
    let server = &settings.broker.server;
    let description = format!("PUBLISH {} at {}", settings.topic, server.url);
    Ok(Publisher::new(broker, description, server.timeout))
}

/// How to speak with the broker.
struct Broker {
    address: Address,
    topic: Template,
    properties: MqttProperties,
    hub: String,
    connect: Connect,
    config: Config,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Broker({}:{})", self.address.host, self.address.port)
    }
}

impl Broker {
    fn new(settings: &MqttSettings, surroundings: &Surroundings) -> Result<Self, DefinitionError> {
        let broker = &settings.broker;
        let port = |is_secure| if is_secure { 8883 } else { 1883 };
        let topic = Template::parse(&settings.topic, Dialect::Topic);
        let text = |member: &str, value: &str| {
            Text::try_from(value).map_err(|error| DefinitionError::new(member, error.to_string()))
        };
        let credentials = match &broker.user {
            None => None,
            Some(user) => Some(Credentials {
                user_name: text("user", user)?,
                password: broker.password.as_ref().map(|it| it.expose().to_owned().into()),
            }),
        };
        let client_id = match &settings.client_id {
            Some(given) => given.clone(),
            // The same for each life of the endpoint, so that a broker ends a connection of ours that it thinks alive.
            None => format!("holm-{}-{}", surroundings.hub_name, surroundings.lane).replace('/', "-"),
        };
        Ok(Self {
            address: Address::read(broker, "mqtts", port)?,
            topic: topic.map_err(|why| DefinitionError::new("topic", why))?,
            properties: settings.properties,
            hub: surroundings.hub_name.to_string(),
            connect: Connect {
                version: Version::V311,
                client_id: text("clientId", &client_id)?,
                clean_session: true,
                keep_alive_seconds: KEEP_ALIVE_SECONDS,
                will: None,
                credentials,
            },
            config: Config {
                outbound_window: broker.max_in_flight,
                connect_timeout: broker.server.timeout,
                ping_timeout: broker.server.timeout,
                ..Config::default()
            },
        })
    }

    /// The message as it is published.
    ///
    /// # Errors
    /// Why it has no form in MQTT.
    fn message(&self, routed: &Routed) -> Result<Message, String> {
        let mut topic = self.topic.render(&self.hub, routed);
        let payload = match self.properties {
            MqttProperties::Envelope => record::to_line(routed).map_err(|error| error.to_string())?.into(),
            MqttProperties::Topic | MqttProperties::None => routed.message.body.clone(),
        };
        if self.properties == MqttProperties::Topic {
            topic.push('/');
            topic.push_str(&bag_of(routed));
        }
        let topic = Text::try_from(topic).map_err(|error| format!("its topic can't be written: {error}"))?;
        Ok(Message {
            topic,
            payload,
            qos: Qos::AtLeastOnce,
            retain: false,
            dup: false,
        })
    }
}

/// The properties as a device writes them, and who sent the message.
fn bag_of(routed: &Routed) -> String {
    let mut text = bag::to_server(&routed.message);
    for (name, property) in [
        ("%24.cdid", SystemProperty::ConnectionDeviceId),
        ("%24.cmid", SystemProperty::ConnectionModuleId),
    ] {
        if let Some(value) = routed.system(property) {
            if !text.is_empty() {
                text.push('&');
            }
            text.push_str(name);
            text.push('=');
            text.push_str(&holm_model::wire::percent::encode(value));
        }
    }
    text
}

impl Publishes for Broker {
    type Session = Session;
    type Ticket = Token;

    fn connect(&self) -> BoxFuture<'_, Result<Link<Self>, String>> {
        Box::pin(async move {
            let stream = self.address.connect().await?;
            let session = Session::client(instant(), self.config.clone(), self.connect.clone());
            let session = session.map_err(|error| error_chain(&error))?;
            let mut link = Connection::new(session, stream);
            loop {
                match link.next_event().await {
                    Event::Connected { .. } => return Ok(link),
                    Event::Closed(closed) => return Err(over(&closed)),
                    _ => {}
                }
            }
        })
    }

    fn publish(&self, session: &mut Session, routed: &Routed) -> Result<Token, NotNow> {
        let message = self.message(routed).map_err(NotNow::Never)?;
        match session.publish(instant(), &message) {
            Ok(Some(token)) => Ok(token),
            Ok(None) | Err(PublishError::ExactlyOnce) => Err(NotNow::Never("it has another QoS than 1".to_owned())),
            Err(PublishError::WindowFull | PublishError::OutputFull) => Err(NotNow::Full),
            Err(PublishError::NotOpen) => Err(NotNow::Over),
            Err(PublishError::Encode(error)) => Err(NotNow::Never(error_chain(&error))),
        }
    }

    fn read(event: Event) -> Heard<Token> {
        match event {
            Event::Acknowledged(token) => Heard::Taken(token),
            Event::Closed(closed) => Heard::Over(over(&closed)),
            _ => Heard::Nothing,
        }
    }

    fn leave(&self, session: &mut Session) {
        session.close();
    }
}

/// Why there is no connection, with what helps where something does.
fn over(closed: &holm_mqtt::Closed) -> String {
    let way_out = match closed {
        holm_mqtt::Closed::Refused(Refusal::BadUserNameOrPassword | Refusal::NotAuthorized) => {
            "; check `user`, `password` and the client certificate"
        }
        holm_mqtt::Closed::Refused(Refusal::IdentifierRejected) => "; give another `clientId`",
        holm_mqtt::Closed::Lost => "; the broker may not let us in, or takes no message so large",
        _ => "",
    };
    format!("{}{way_out}", error_chain(closed))
}

#[cfg(test)]
mod tests;
