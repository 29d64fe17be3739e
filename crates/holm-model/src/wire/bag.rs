//! The property bag: the last part of a telemetry, input or cloud-to-device topic.
//!
//! ```text
//! %24.mid=m-1&%24.ct=application%2Fjson&k=v&flag&empty=
//! `-- system properties: `$.` + short name       `-- application properties: value, no value, empty value
//! ```
//!
//! Reading is tolerant: C encodes nothing but the `%24.` prefix, so raw spaces, slashes and question marks arrive; Java
//! writes `$.` literally. So a pair is split first, then decoded, then its name is matched.
//!
//! Writing to a client suits the strictest reader: C looks for the text `%24.`; Java starts at the first `%24` and throws
//! on a pair without a value, so a property without one is left out; C# reads the expiry in one form only; Node loses a
//! message without a bag.
//!
//! Invariant: a client can't speak as somebody else. `$.cdid` and `$.cmid` from a client are application properties, and
//! an application property that is named like a system property is never written.
//!
//! Source: `hub-device-protocols.md` §2.3 and §2.5, `edge-broker.md` §1.7.

use std::borrow::Cow;

use super::percent;
use crate::{Identity, Message, Properties, SystemProperties, SystemProperty, Timestamp};

/// The most bytes of properties that a topic carries wherever a message may go: what MQTT gives a topic (1.5.3), less the
/// longest addresses.
pub const MAX_BYTES: usize = 65_535 - 2_048;

/// The application property that tells of the retain flag of a PUBLISH; its value is `true`.
pub const MQTT_RETAIN: &str = "mqtt-retain";
/// The application property that tells of the DUP flag of a PUBLISH; its value is `true`.
pub const MQTT_DUP: &str = "mqtt-dup";
/// The application property by which the hub tells that an event is a client's will; its value is `Will`.
pub const HUB_WILL: &str = "iothub-MessageType";
/// The application property by which the edge tells that a message is a client's will; its value is `Will`.
pub const EDGE_WILL: &str = "MessageType";

/// Names on the wire, and whether the property goes down to clients (all go up to the hub, but for the sender's ids,
/// which only go down).
const NAMES: &[(&str, SystemProperty, Down)] = &[
    ("$.mid", SystemProperty::MessageId, Down::Yes),
    ("$.cid", SystemProperty::CorrelationId, Down::Yes),
    ("$.uid", SystemProperty::UserId, Down::Yes),
    ("$.to", SystemProperty::To, Down::Yes),
    ("$.exp", SystemProperty::AbsoluteExpiryTime, Down::Yes),
    ("$.ct", SystemProperty::ContentType, Down::Yes),
    ("$.ce", SystemProperty::ContentEncoding, Down::Yes),
    ("$.on", SystemProperty::OutputName, Down::No),
    ("$.sub", SystemProperty::Subject, Down::Yes),
    ("$.ifid", SystemProperty::InterfaceId, Down::No),
    ("$.ctime", SystemProperty::CreationTime, Down::Yes),
    ("$.schema", SystemProperty::MessageSchema, Down::Yes),
    ("iothub-ack", SystemProperty::Ack, Down::Yes),
    ("iothub-operation", SystemProperty::Operation, Down::Yes),
    ("$.diagid", SystemProperty::DiagnosticId, Down::No),
    ("$.diagctx", SystemProperty::DiagnosticContext, Down::No),
    ("$.cdid", SystemProperty::ConnectionDeviceId, Down::Only),
    ("$.cmid", SystemProperty::ConnectionModuleId, Down::Only),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Down {
    /// Both ways.
    Yes,
    /// From client to hub only.
    No,
    /// From edge to module only.
    Only,
}

/// Reads the bag of a message that a client published.
#[must_use]
pub fn from_client(bag: &str) -> (SystemProperties, Properties) {
    read(bag, |down| down != Down::Only)
}

/// Reads the bag of a message that a hub or an edge delivered to us.
#[must_use]
pub fn from_server(bag: &str) -> (SystemProperties, Properties) {
    read(bag, |_| true)
}

fn read(bag: &str, is_known: impl Fn(Down) -> bool) -> (SystemProperties, Properties) {
    let mut system = SystemProperties::default();
    let mut properties = Vec::new();
    for pair in bag.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = match pair.split_once('=') {
            Some((name, value)) => (percent::decode(name), Some(percent::decode(value))),
            None => (percent::decode(pair), None),
        };
        let known = NAMES.iter().find(|(wire, _, down)| *wire == name && is_known(*down));
        match (known, value) {
            (Some((_, property, _)), Some(value)) => system.set(*property, value),
            (_, value) => properties.push((name.into_owned(), value.map(Cow::into_owned))),
        }
    }
    (system, Properties::from_pairs(properties))
}

/// Writes the bag of a message that we, as a client, publish: telemetry or a module's output (`OutputName`).
#[must_use]
pub fn to_server(message: &Message) -> String {
    let mut bag = Writer::default();
    for (property, value) in message.system.iter() {
        if let Some((name, _, _)) = find(property).filter(|(_, _, down)| *down != Down::Only) {
            bag.pair(name, Some(value));
        }
    }
    for (name, value) in message.properties.iter().filter(|(name, _)| !is_reserved(name)) {
        bag.pair(name, value);
    }
    bag.0
}

/// Writes the bag of a cloud-to-device message to `receiver`: `%24.to` first, given or made.
#[must_use]
pub fn cloud_to_device(message: &Message, receiver: &Identity) -> String {
    let to = message.system.get(SystemProperty::To).filter(|to| !to.is_empty());
    let to = to.map_or_else(
        || Cow::Owned(format!("{}/messages/devicebound", address(receiver))),
        Cow::Borrowed,
    );
    down(message, SystemProperty::To, &to, false)
}

/// Writes the bag of a message to the input `input` of `receiver`: the sender's device (`%24.cdid`) first.
#[must_use]
pub fn input(message: &Message, receiver: &Identity, input: &str) -> String {
    match message.system.get(SystemProperty::ConnectionDeviceId) {
        Some(device) if !device.is_empty() => down(message, SystemProperty::ConnectionDeviceId, device, true),
        _ => {
            let to = format!("{}/inputs/{input}", address(receiver));
            down(message, SystemProperty::To, &to, true)
        }
    }
}

/// The bytes that the properties of a message take in the longest of its topics: up to a hub, to an input, or down to a device.
/// A node that takes in a message with more than [`MAX_BYTES`] could never pass it on: what a client sent as it is, `/` say, is
/// three bytes here.
#[must_use]
pub fn longest(message: &Message) -> usize {
    // Most have so few that nothing needs to be written to know.
    let application = message.properties.iter();
    let application = application.map(|(name, value)| name.len() + value.map_or(0, str::len));
    let system = message.system.iter_bytes().map(|(_, value)| value.len());
    let (bytes, pairs) = application
        .chain(system)
        .fold((0, 0), |(bytes, pairs), length| (bytes + length, pairs + 1));
    let bound = bytes * 3 + pairs * 24;
    if bound <= MAX_BYTES {
        return bound;
    }
    let nobody = SystemProperty::DiagnosticContext;
    to_server(message).len().max(down(message, nobody, "", true).len())
}

fn down(message: &Message, first: SystemProperty, first_value: &str, with_sender: bool) -> String {
    let mut bag = Writer::default();
    bag.system(first, first_value);
    for (property, value) in message.system.iter().filter(|(property, _)| *property != first) {
        match find(property) {
            Some((_, _, Down::Yes)) => bag.system(property, value),
            Some((_, _, Down::Only)) if with_sender => bag.system(property, value),
            _ => {}
        }
    }
    for (name, value) in message.properties.iter() {
        if let Some(value) = value.filter(|value| !value.is_empty() && !name.is_empty() && !is_reserved(name)) {
            bag.pair(name, Some(value));
        }
    }
    bag.0
}

fn find(property: SystemProperty) -> Option<(&'static str, SystemProperty, Down)> {
    NAMES.iter().copied().find(|(_, known, _)| *known == property)
}

fn is_reserved(name: &str) -> bool {
    NAMES.iter().any(|(wire, _, _)| *wire == name)
}

fn address(identity: &Identity) -> String {
    match &identity.module {
        None => format!("/devices/{}", identity.device),
        Some(module) => format!("/devices/{}/modules/{module}", identity.device),
    }
}

#[derive(Default)]
struct Writer(String);

impl Writer {
    fn pair(&mut self, name: &str, value: Option<&str>) {
        self.raw(name, value.map(percent::encode).as_deref());
    }

    /// A system property for a client. An expiry that is not a point in time is left out: C# throws on it.
    fn system(&mut self, property: SystemProperty, value: &str) {
        let Some((name, _, _)) = find(property) else { return };
        if property == SystemProperty::AbsoluteExpiryTime {
            if let Some(moment) = Timestamp::parse(value) {
                self.raw(name, Some(&percent::encode_keeping(&moment.to_string(), ":")));
            }
        } else if !value.is_empty() {
            self.pair(name, Some(value));
        }
    }

    fn raw(&mut self, name: &str, encoded: Option<&str>) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(&percent::encode(name));
        if let Some(encoded) = encoded {
            self.0.push('=');
            self.0.push_str(encoded);
        }
    }
}

#[cfg(test)]
mod tests;
