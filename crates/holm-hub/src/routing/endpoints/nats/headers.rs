//! The headers of a publication.
//!
//! ```text
//! NATS/1.0␍␊
//! Nats-Msg-Id: hot.1/42␍␊
//! iothub-connection-device-id: d1␍␊
//! iothub-app-level: high␍␊
//! ␍␊
//! ```
//!
//! A name or value that can't stand in a header is percent-encoded there, as on the hub's HTTPS interface. Clients read names as they
//! are written, with their case.

use std::fmt::Write as _;

use holm_model::SystemProperty;
use holm_model::wire::{http, percent};

use crate::routing::Routed;

/// The names of system properties, as on the hub's other interfaces.
const SYSTEM: &[(SystemProperty, &str)] = &[
    (SystemProperty::ConnectionDeviceId, "iothub-connection-device-id"),
    (SystemProperty::ConnectionModuleId, "iothub-connection-module-id"),
    (SystemProperty::MessageSource, "iothub-message-source"),
    (SystemProperty::MessageId, "iothub-messageid"),
    (SystemProperty::CorrelationId, "iothub-correlationid"),
    (SystemProperty::UserId, "iothub-userid"),
    (SystemProperty::ContentType, "iothub-contenttype"),
    (SystemProperty::ContentEncoding, "iothub-contentencoding"),
    (SystemProperty::CreationTime, "iothub-creation-time-utc"),
    (SystemProperty::MessageSchema, "iothub-message-schema"),
    (SystemProperty::InterfaceId, "iothub-interface-id"),
    (SystemProperty::OutputName, "iothub-outputname"),
    (SystemProperty::Subject, "dt-subject"),
    (SystemProperty::ModelId, "dt-dataschema"),
];

/// Headers that are being written.
#[derive(Clone, Debug)]
pub(super) struct Headers(String);

impl Headers {
    pub(super) fn new() -> Self {
        Self("NATS/1.0\r\n".to_owned())
    }

    /// A header that the server understands; its value [`is_plain`].
    pub(super) fn own(&mut self, name: &str, value: &str) {
        self.push("", name, value);
    }

    /// What a message says of itself.
    pub(super) fn message(&mut self, routed: &Routed) {
        self.push("", "iothub-enqueuedtime", &routed.enqueued.to_string());
        for (property, name) in SYSTEM {
            if let Some(value) = routed.system(*property) {
                self.push("", name, value);
            }
        }
        for (name, value) in routed.message.properties.iter() {
            self.push(http::APPLICATION_PREFIX, name, value.unwrap_or_default());
        }
    }

    fn push(&mut self, prefix: &str, name: &str, value: &str) {
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
        let name = if is_name { name.into() } else { percent::encode(name) };
        let value = if is_plain(value) {
            value.into()
        } else {
            percent::encode(value)
        };
        write!(self.0, "{prefix}{name}: {value}\r\n").expect("writing to a string does not fail");
    }

    /// The headers with the empty line behind them.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.0.push_str("\r\n");
        self.0.into_bytes()
    }
}

/// Whether a text can be the value of a header as it is: no control characters, no space at its ends, which readers cut.
pub(super) fn is_plain(value: &str) -> bool {
    value.trim() == value && !value.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use holm_model::{Message, Timestamp};

    use super::*;
    use crate::routing::Source;

    #[test]
    fn no_property_makes_a_header_that_the_server_understands() {
        let mut message = Message::new("x");
        message.system.set(SystemProperty::ConnectionDeviceId, "d1");
        message.system.set(SystemProperty::MessageId, "a\r\nNats-Rollup: all");
        message.properties.set("Nats-Rollup", Some("all".into()));
        message.properties.set("a: b\r\nNats-Rollup", Some(" all ".into()));
        message.properties.set("rate", Some("50 %".into()));
        let routed = Routed {
            sequence: 1,
            enqueued: Timestamp::from_unix_millis(0),
            source: Source::DeviceMessages,
            partition: 0,
            message,
        };
        let mut headers = Headers::new();

        headers.own("Nats-Msg-Id", "l/1");
        headers.message(&routed);

        assert_eq!(
            String::from_utf8(headers.into_bytes()).unwrap(),
            "NATS/1.0\r\nNats-Msg-Id: l/1\r\niothub-enqueuedtime: 1970-01-01T00:00:00.0000000Z\r\n\
             iothub-connection-device-id: d1\r\niothub-messageid: a%0D%0ANats-Rollup%3A%20all\r\n\
             iothub-app-Nats-Rollup: all\r\niothub-app-a%3A%20b%0D%0ANats-Rollup: %20all%20\r\niothub-app-rate: 50 %\r\n\r\n"
        );
    }
}
