//! A message: a body of bytes, system properties that the platform knows, and application properties that it carries.
//!
//! How each protocol spells a system property stands in the protocol fronts; here a property has one name.
//! Source: `hub-device-protocols.md` §2.3, `edge-broker.md` §1.7.

mod encoding;
mod event;
mod shared_text;

pub use encoding::DecodeError;
pub use shared_text::SharedText;

use std::collections::BTreeMap;

use bytes::Bytes;

/// The most bytes of a device-to-cloud message: body, system property values, and names and values of application
/// properties together. Source: `hub-device-protocols.md` §7.
pub const MAX_DEVICE_TO_CLOUD_BYTES: usize = 256 * 1024;
/// The most bytes of a cloud-to-device message. Source: `hub-device-protocols.md` §7.
pub const MAX_CLOUD_TO_DEVICE_BYTES: usize = 64 * 1024;

/// A message between devices, modules and the hub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The payload; any bytes, may be empty.
    pub body: Bytes,
    /// What the platform knows about the message.
    pub system: SystemProperties,
    /// What the application said about it.
    pub properties: Properties,
}

impl Message {
    /// A message with a body and no properties.
    #[must_use]
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            ..Self::default()
        }
    }

    /// The size that the published limits speak of: body, values of the system properties that the sender set, names and
    /// values of the application properties; in bytes. What the platform stamped on the message is free.
    #[must_use]
    pub fn counted_bytes(&self) -> usize {
        let system: usize = self
            .system
            .iter_bytes()
            .filter(|(name, _)| !name.is_stamped())
            .map(|(_, value)| value.len())
            .sum();
        let application: usize = self
            .properties
            .iter()
            .map(|(name, value)| name.len() + value.map_or(0, str::len))
            .sum();
        self.body.len() + system + application
    }
}

/// Names and values that the application gave, in the order given. A name occurs once: a later value replaces an earlier
/// one in its place. A value may be absent (`a` in the bag `a&b=1`), which differs from empty.
///
/// Names keep their case; [`Properties::get`] compares it exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties(Vec<(String, Option<String>)>);

impl Properties {
    /// Sets a property, replacing an earlier one of the same name.
    pub fn set(&mut self, name: impl Into<String>, value: Option<String>) {
        let name = name.into();
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// Takes properties as [`Properties::set`] would, one after the other. The cost stays near-linear in their number,
    /// which matters for names chosen by a peer.
    #[must_use]
    pub fn from_pairs(pairs: Vec<(String, Option<String>)>) -> Self {
        const FEW: usize = 32;
        let mut properties = Self::default();
        if pairs.len() <= FEW {
            for (name, value) in pairs {
                properties.set(name, value);
            }
            return properties;
        }
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for (name, value) in pairs {
            match places.get(&name).and_then(|&place| properties.0.get_mut(place)) {
                Some((_, old)) => *old = value,
                None => {
                    places.insert(name.clone(), properties.0.len());
                    properties.0.push((name, value));
                }
            }
        }
        properties
    }

    /// The value of a property: `None` when it is not set, `Some(None)` when it is set without a value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Option<&str>> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_deref())
    }

    /// Removes a property and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<Option<String>> {
        let index = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(index).1)
    }

    /// All properties in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Properties {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut properties = Self::default();
        for (name, value) in pairs {
            properties.set(name, Some(value.into()));
        }
        properties
    }
}

macro_rules! system_properties {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $route:literal, $stamped:literal;)*) => {
        /// A property that the platform knows. The number is its form on disk and never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum SystemProperty {
            $($(#[$doc])* $name = $number,)*
        }

        impl SystemProperty {
            /// Every system property, by number.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name after `$` in route conditions, as the original broker spells it. Compared without case.
            #[must_use]
            pub const fn route_name(self) -> &'static str {
                match self { $(Self::$name => $route,)* }
            }

            /// The number on disk.
            #[must_use]
            pub const fn number(self) -> u8 {
                self as u8
            }

            /// The property of a number on disk.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// Whether the platform writes it, so that it does not count against the sender's size limit.
            #[must_use]
            pub const fn is_stamped(self) -> bool {
                match self { $(Self::$name => $stamped,)* }
            }
        }
    };
}

system_properties! {
    /// Chosen by the sender; repeats are recognised by it.
    MessageId = 1, "messageId", false;
    /// What this message answers.
    CorrelationId = 2, "cid", false;
    /// Origin named by the sender.
    UserId = 3, "userId", false;
    /// Destination of a cloud-to-device message.
    To = 4, "to", false;
    /// When the message becomes useless; ISO 8601.
    AbsoluteExpiryTime = 5, "absolute-expiry-time", false;
    /// Media type of the body.
    ContentType = 6, "contentType", false;
    /// Character set of the body.
    ContentEncoding = 7, "contentEncoding", false;
    /// The output that a module sent through.
    OutputName = 8, "outputName", false;
    /// Component name of a digital twin (`dt-subject`).
    Subject = 9, "dt-subject", false;
    /// Interface of a security agent.
    InterfaceId = 10, "iothub-interface-id", false;
    /// When the sender made it; ISO 8601.
    CreationTime = 11, "creationTime", false;
    /// Schema named by the sender.
    MessageSchema = 12, "messageSchema", false;
    /// Which feedback the sender of a cloud-to-device message wants: none, positive, negative or full.
    Ack = 13, "ack", false;
    /// Operation named by the sender.
    Operation = 14, "operation", false;
    /// Trace id of distributed tracing.
    DiagnosticId = 15, "diagnosticId", false;
    /// Correlation context of distributed tracing.
    DiagnosticContext = 16, "diagnosticContext", false;
    /// The device that sent it, as authenticated.
    ConnectionDeviceId = 32, "connectionDeviceId", true;
    /// The module that sent it, as authenticated.
    ConnectionModuleId = 33, "connectionModuleId", true;
    /// How the sender was authenticated; JSON text.
    ConnectionAuthMethod = 34, "connectionAuthMethod", true;
    /// Generation of the sender's identity.
    ConnectionAuthGenerationId = 35, "connectionAuthGenerationId", true;
    /// When the node took it in; ISO 8601.
    EnqueuedTime = 36, "enqueuedTime", true;
    /// Unique id that the edge gives to each message it takes in.
    EdgeMessageId = 37, "edgeMessageId", true;
    /// `internal` for the edge's own modules, `downstream` for devices behind it.
    EdgeOrigin = 38, "edgeHubOriginInterface", true;
    /// Digital-twin model that the sender announced.
    ModelId = 39, "modelId", true;
    /// What kind of event this is at the hub: `Telemetry`, `twinChangeEvents`, …
    MessageSource = 40, "messageSource", true;
    /// Kind of message made by the platform, such as `twinChangeNotification`.
    MessageType = 41, "messageType", true;
    /// Increasing number of a cloud-to-device message.
    SequenceNumber = 42, "sequenceNumber", true;
    /// How often delivery was tried before.
    DeliveryCount = 43, "deliveryCount", true;
}

/// Values of the system properties of one message, in order of their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemProperties(Vec<(SystemProperty, SharedText)>);

impl SystemProperties {
    /// Makes room for so many more values.
    pub fn reserve(&mut self, more: usize) {
        self.0.reserve(more);
    }

    /// Sets a value, replacing an earlier one.
    pub fn set(&mut self, name: SystemProperty, value: impl Into<SharedText>) {
        let value = value.into();
        // Mostly they come in order.
        if self.0.last().is_none_or(|(last, _)| *last < name) {
            return self.0.push((name, value));
        }
        match self.0.binary_search_by_key(&name, |(known, _)| *known) {
            Ok(index) => self.0[index].1 = value,
            Err(index) => self.0.insert(index, (name, value)),
        }
    }

    /// The value of a property, if it is set.
    #[must_use]
    pub fn get(&self, name: SystemProperty) -> Option<&str> {
        let index = self.0.binary_search_by_key(&name, |(known, _)| *known).ok()?;
        Some(self.0[index].1.as_str())
    }

    /// Removes a value and returns it.
    pub fn remove(&mut self, name: SystemProperty) -> Option<SharedText> {
        let index = self.0.binary_search_by_key(&name, |(known, _)| *known).ok()?;
        Some(self.0.remove(index).1)
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All values, in order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (SystemProperty, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// All values as bytes, in order of their numbers.
    pub(crate) fn iter_bytes(&self) -> impl Iterator<Item = (SystemProperty, &[u8])> {
        self.0.iter().map(|(name, value)| (*name, value.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_application_property_keeps_its_place_and_takes_the_last_value() {
        let properties: Properties = [("a", "1"), ("b", "2"), ("a", "3")].into_iter().collect();
        assert_eq!(
            properties.iter().collect::<Vec<_>>(),
            [("a", Some("3")), ("b", Some("2"))]
        );
    }

    #[test]
    fn many_pairs_are_taken_as_few_are() {
        let pairs: Vec<(String, Option<String>)> =
            (0..100).map(|i| ((i % 40).to_string(), Some(i.to_string()))).collect();
        let mut one_by_one = Properties::default();
        for (name, value) in pairs.clone() {
            one_by_one.set(name, value);
        }

        assert_eq!(Properties::from_pairs(pairs), one_by_one);
    }

    #[test]
    fn the_counted_size_leaves_out_what_the_platform_stamped() {
        let mut message = Message::new("12345");
        message.system.set(SystemProperty::MessageId, "abc");
        message
            .system
            .set(SystemProperty::ConnectionDeviceId, "a-long-device-id");
        message.properties.set("k", Some("vv".into()));
        message.properties.set("n", None);
        assert_eq!(message.counted_bytes(), 5 + 3 + 3 + 1);
    }

    #[test]
    fn numbers_on_disk_read_back() {
        for &property in SystemProperty::ALL {
            assert_eq!(SystemProperty::from_number(property.number()), Some(property));
        }
    }
}
