//! Paths of requests, and message properties as HTTP headers: of events that devices post, and of cloud-to-device messages that they fetch or that
//! services post.
//!
//! Header names have no case: an application property is called as the client wrote it, and on its way to a device as the client's
//! library gives it, usually in lower case. Ours is the header [`OWN_PROPERTIES`], which carries names and values of any form.
//!
//! Source: `hub-device-protocols.md` §4.1 and §4.2.

use super::percent;
use crate::{Properties, SystemProperties, SystemProperty};

/// What stands before the name of an application property.
pub const APPLICATION_PREFIX: &str = "iothub-app-";

/// Not published: properties whose names and values stay as they are, `Name=value&two%20words=x`, percent-encoded.
pub const OWN_PROPERTIES: &str = "holm-properties";

/// Headers that are read on a message from outside.
const IN: &[(&str, SystemProperty)] = &[
    ("iothub-messageid", SystemProperty::MessageId),
    ("iothub-correlationid", SystemProperty::CorrelationId),
    ("iothub-userid", SystemProperty::UserId),
    ("iothub-to", SystemProperty::To),
    ("iothub-expiry", SystemProperty::AbsoluteExpiryTime),
    ("iothub-ack", SystemProperty::Ack),
    ("iothub-contenttype", SystemProperty::ContentType),
    ("iothub-contentencoding", SystemProperty::ContentEncoding),
    ("iothub-interface-id", SystemProperty::InterfaceId),
    ("iothub-creationtimeutc", SystemProperty::CreationTime),
    ("iothub-messageschema", SystemProperty::MessageSchema),
    ("iothub-operation", SystemProperty::Operation),
    ("dt-subject", SystemProperty::Subject),
];

/// Headers that are written on a cloud-to-device message; the last two as C reads them.
const OUT: &[(&str, SystemProperty)] = &[
    ("iothub-messageid", SystemProperty::MessageId),
    ("iothub-sequencenumber", SystemProperty::SequenceNumber),
    ("iothub-enqueuedtime", SystemProperty::EnqueuedTime),
    ("iothub-deliverycount", SystemProperty::DeliveryCount),
    ("iothub-correlationid", SystemProperty::CorrelationId),
    ("iothub-userid", SystemProperty::UserId),
    ("iothub-to", SystemProperty::To),
    ("iothub-expiry", SystemProperty::AbsoluteExpiryTime),
    ("iothub-ack", SystemProperty::Ack),
    ("ContentType", SystemProperty::ContentType),
    ("ContentEncoding", SystemProperty::ContentEncoding),
];

/// What stands between the slashes of a path, still percent-encoded; `None` where two slashes follow each other. Some clients end a
/// path with a slash, but one too many in it is an id that is missing: what remained without it could name another thing.
#[must_use]
pub fn segments(path: &str) -> Option<Vec<&str>> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Some(Vec::new());
    }
    let segments: Vec<&str> = path.split('/').collect();
    (!segments.contains(&"")).then_some(segments)
}

/// Reads the properties of a message from the headers of a request, or from the members that stand for them in a batch; others
/// are passed over.
#[must_use]
pub fn from_headers<'h>(headers: impl IntoIterator<Item = (&'h str, &'h str)>) -> (SystemProperties, Properties) {
    let mut system = SystemProperties::default();
    let mut pairs = Vec::new();
    for (name, value) in headers {
        if let Some((_, property)) = IN.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)) {
            system.set(*property, value);
        } else if let Some((prefix, rest)) = name.split_at_checked(APPLICATION_PREFIX.len())
            && prefix.eq_ignore_ascii_case(APPLICATION_PREFIX)
            && !rest.is_empty()
        {
            pairs.push((rest.to_owned(), Some(value.to_owned())));
        } else if name.eq_ignore_ascii_case(OWN_PROPERTIES) {
            pairs.extend(value.split('&').filter(|pair| !pair.is_empty()).map(own_property));
        }
    }
    (system, Properties::from_pairs(pairs))
}

fn own_property(pair: &str) -> (String, Option<String>) {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    (
        percent::decode(name).into_owned(),
        Some(percent::decode(value).into_owned()),
    )
}

/// Writes properties as the value of [`OWN_PROPERTIES`].
#[must_use]
pub fn own_properties<'p>(properties: impl IntoIterator<Item = (&'p str, &'p str)>) -> String {
    let pairs = properties
        .into_iter()
        .map(|(name, value)| format!("{}={}", percent::encode(name), percent::encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Writes the properties of a cloud-to-device message as headers. A property without a value becomes an empty header; the
/// caller refuses names and values that no header may hold.
#[must_use]
pub fn to_headers(system: &SystemProperties, properties: &Properties) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for (name, property) in OUT {
        if let Some(value) = system.get(*property) {
            headers.push(((*name).to_owned(), value.to_owned()));
        }
    }
    for (name, value) in properties.iter() {
        headers.push((
            format!("{APPLICATION_PREFIX}{name}"),
            value.unwrap_or_default().to_owned(),
        ));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_ends_a_path_and_two_in_it_are_none() {
        for path in ["/devices/d1", "/devices/d1/", "devices/d1"] {
            assert_eq!(segments(path), Some(vec!["devices", "d1"]), "{path}");
        }
        for path in ["/", ""] {
            assert_eq!(segments(path), Some(Vec::new()), "{path}");
        }
        for path in ["/devices//d1", "//devices", "/devices//", "///"] {
            assert_eq!(segments(path), None, "{path}");
        }
    }

    #[test]
    fn headers_are_read_in_any_case() {
        let headers = [
            ("IoTHub-MessageId", "m-1"),
            ("iothub-app-Level", "high"),
            ("IOTHUB-APP-b", ""),
            ("iothub-app-", "nameless"),
            ("User-Agent", "x"),
            ("ä", "x"),
        ];

        let (system, properties) = from_headers(headers);

        assert_eq!(system.iter().collect::<Vec<_>>(), [(SystemProperty::MessageId, "m-1")]);
        assert_eq!(
            properties.iter().collect::<Vec<_>>(),
            [("Level", Some("high")), ("b", Some(""))]
        );
    }

    #[test]
    fn names_that_no_header_carries_keep_their_form_in_a_header_of_ours() {
        let sent = [("Level", "2"), ("two words", "a\nb&c=d"), ("größe", "ä"), ("$.mid", "")];

        let header = own_properties(sent);
        let (system, read) = from_headers([("holm-properties", header.as_str()), ("iothub-app-k", "v")]);

        assert!(header.bytes().all(|byte| byte.is_ascii_graphic()), "{header}");
        assert_eq!(system.iter().count(), 0);
        let read: Vec<_> = read.iter().map(|(name, value)| (name, value.unwrap())).collect();
        assert_eq!(read, [sent.as_slice(), &[("k", "v")]].concat());
    }

    #[test]
    fn a_sender_cannot_stamp_a_message_through_headers() {
        let (system, _) = from_headers([("iothub-sequencenumber", "1"), ("iothub-enqueuedtime", "x")]);

        assert_eq!(system.iter().count(), 0);
    }

    #[test]
    fn a_cloud_to_device_message_carries_its_numbers() {
        let (mut system, properties) = from_headers([("iothub-messageid", "m"), ("iothub-app-k", "v")]);
        system.set(SystemProperty::SequenceNumber, "7");
        system.set(SystemProperty::ContentType, "text/plain");

        let headers = to_headers(&system, &properties);

        let expected = [
            ("iothub-messageid", "m"),
            ("iothub-sequencenumber", "7"),
            ("ContentType", "text/plain"),
            ("iothub-app-k", "v"),
        ];
        assert_eq!(
            headers,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }
}
