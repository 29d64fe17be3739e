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

use bytes::Bytes;

use super::percent;
use crate::message::SharedText;
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
    read(bag, None, |down| down != Down::Only)
}

/// [`from_client`] of a bag that is a part of `packet`: values that need no decoding are slices of that.
///
/// # Panics
/// When the bag is no part of the packet.
#[must_use]
pub fn from_packet(bag: &str, packet: &Bytes) -> (SystemProperties, Properties) {
    read(bag, Some(packet), |down| down != Down::Only)
}

/// Reads the bag of a message that a hub or an edge delivered to us.
#[must_use]
pub fn from_server(bag: &str) -> (SystemProperties, Properties) {
    read(bag, None, |_| true)
}

/// System properties that a client gives and a node stamps, as a rule.
const MOST_SYSTEM: usize = 8;

fn read(bag: &str, packet: Option<&Bytes>, is_known: impl Fn(Down) -> bool) -> (SystemProperties, Properties) {
    let mut system = SystemProperties::default();
    let mut properties = Vec::new();
    system.reserve(MOST_SYSTEM);
    for pair in bag.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = match pair.split_once('=') {
            Some((name, value)) => (name, Some(percent::decode(value))),
            None => (pair, None),
        };
        let known = find_on_wire(name).filter(|(_, down)| is_known(*down));
        match (known, value) {
            (Some((property, _)), Some(value)) => system.set(property, shared(value, packet)),
            (_, value) => properties.push((percent::decode(name).into_owned(), value.map(Cow::into_owned))),
        }
    }
    (system, Properties::from_pairs(properties))
}

/// A value as it was sent is there already, in the packet.
fn shared(value: Cow<'_, str>, packet: Option<&Bytes>) -> SharedText {
    match (value, packet) {
        (Cow::Borrowed(value), Some(packet)) => SharedText::part_of(packet, value),
        (value, _) => value.into(),
    }
}

/// A system property by its name in a bag, which mostly has its `$` encoded and nothing else.
fn find_on_wire(name: &str) -> Option<(SystemProperty, Down)> {
    let rest = name.strip_prefix("%24").or_else(|| name.strip_prefix('$'));
    let found = match rest.filter(|rest| !rest.contains('%')) {
        Some(rest) => NAMES.iter().find(|(wire, ..)| wire.strip_prefix('$') == Some(rest)),
        None => {
            let name = percent::decode(name);
            NAMES.iter().find(|(wire, ..)| *wire == name)
        }
    };
    found.map(|(_, property, down)| (*property, *down))
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
    // A name, its escapes and those of a time. What needs more has it made.
    const FRAMING: usize = 24;
    let system = message.system.iter_bytes().map(|(_, value)| value.len() + FRAMING);
    let application = message.properties.iter();
    let application = application.map(|(name, value)| name.len() + value.map_or(0, str::len) + FRAMING);
    let room = first_value.len() + FRAMING + system.chain(application).sum::<usize>();
    let mut bag = Writer(String::with_capacity(room));
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
        self.raw(name, value, "");
    }

    /// A system property for a client. An expiry that is not a point in time is left out: C# throws on it.
    fn system(&mut self, property: SystemProperty, value: &str) {
        let Some((name, _, _)) = find(property) else { return };
        if property == SystemProperty::AbsoluteExpiryTime {
            if let Some(moment) = Timestamp::parse(value) {
                self.raw(name, Some(&moment.to_string()), ":");
            }
        } else if !value.is_empty() {
            self.pair(name, Some(value));
        }
    }

    /// Writes a pair, with the characters of `kept` in its value as they are.
    fn raw(&mut self, name: &str, value: Option<&str>, kept: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        percent::encode_into(&mut self.0, name, "");
        if let Some(value) = value {
            self.0.push('=');
            percent::encode_into(&mut self.0, value, kept);
        }
    }
}

#[cfg(test)]
mod tests;
