//! A message on disk; the format is described in `docs/formats/message.md`.
//!
//! ```text
//! version | n | n × (number, length, value) | m | m × (length, name, length + 1 or 0, value) | body …
//! 1 byte    varints, so that a small message costs a few bytes
//! ```
//!
//! Invariants: a message has one encoding, so equal messages are equal bytes; body and system properties of a decoded message
//! are slices of the buffer, never copies; no input makes decoding panic or allocate more than a small multiple of its own length.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Message, Properties, SharedText, SystemProperties, SystemProperty};

const VERSION: u8 = 1;

/// The least bytes that an application property takes: a name of no bytes and no value.
const LEAST_PROPERTY_BYTES: usize = 2;

/// Why bytes are not an encoded message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The format is another one.
    #[error("the message has format version {0}; this release reads version {VERSION}")]
    Version(u8),
    /// The bytes end within the properties.
    #[error("the message is cut short")]
    CutShort,
    /// A number is larger than any that is written, or not in its shortest form.
    #[error("a length in the message is not a valid number")]
    Length,
    /// A system property is not known; a newer release may have written it.
    #[error("the message has the unknown system property {0}; read it with the release that wrote it")]
    UnknownProperty(u8),
    /// A name or value is not text.
    #[error("a property of the message is not UTF-8")]
    NotText,
    /// System properties are out of order, or an application property occurs twice.
    #[error("the properties of the message are out of order or repeated")]
    Order,
}

impl Message {
    /// The form on disk. The published limits keep each text far below the 256 MiB that a length can tell.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode_into(&mut out);
        out.freeze()
    }

    /// [`Message::encode`] at the end of a buffer that takes several.
    pub fn encode_into(&self, out: &mut BytesMut) {
        out.reserve(self.encoded_len_hint());
        out.put_u8(VERSION);
        put_number(out, self.system.len());
        for (property, value) in self.system.iter_bytes() {
            out.put_u8(property.number());
            put_bytes(out, value);
        }
        put_number(out, self.properties.len());
        for (name, value) in self.properties.iter() {
            put_bytes(out, name.as_bytes());
            match value {
                None => put_number(out, 0),
                Some(value) => {
                    put_number(out, value.len() + 1);
                    out.put_slice(value.as_bytes());
                }
            }
        }
        out.put_slice(&self.body);
    }

    /// Reads the form on disk. The body shares the buffer.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are of another version or damaged.
    pub fn decode(mut encoded: Bytes) -> Result<Self, DecodeError> {
        match encoded.try_get_u8() {
            Ok(VERSION) => {}
            Ok(other) => return Err(DecodeError::Version(other)),
            Err(_) => return Err(DecodeError::CutShort),
        }
        let system = take_system(&mut encoded)?;
        let properties = take_properties(&mut encoded)?;
        Ok(Self {
            body: encoded,
            system,
            properties,
        })
    }

    /// Room for most messages; only a hint.
    fn encoded_len_hint(&self) -> usize {
        const FRAMING: usize = 8;
        let system: usize = self.system.iter_bytes().map(|(_, value)| value.len() + FRAMING).sum();
        let properties = self.properties.iter();
        let application: usize = properties
            .map(|(name, value)| name.len() + value.map_or(0, str::len) + FRAMING)
            .sum();
        self.body.len() + system + application + FRAMING
    }
}

fn take_system(encoded: &mut Bytes) -> Result<SystemProperties, DecodeError> {
    let mut system = SystemProperties::default();
    let mut last = None;
    let count = take_number(encoded)?;
    // Each is there once, in order; what claims more is refused below.
    system.reserve(count.min(SystemProperty::ALL.len()));
    for _ in 0..count {
        let number = encoded.try_get_u8().map_err(|_| DecodeError::CutShort)?;
        let property = SystemProperty::from_number(number).ok_or(DecodeError::UnknownProperty(number))?;
        if last.is_some_and(|last| last >= property) {
            return Err(DecodeError::Order);
        }
        last = Some(property);
        let length = take_number(encoded)?;
        system.set(property, take_shared(encoded, length)?);
    }
    Ok(system)
}

fn take_properties(encoded: &mut Bytes) -> Result<Properties, DecodeError> {
    let count = take_number(encoded)?;
    if count > encoded.len() / LEAST_PROPERTY_BYTES {
        return Err(DecodeError::CutShort);
    }
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        let length = take_number(encoded)?;
        let name = take_text(encoded, length)?;
        let value = match take_number(encoded)?.checked_sub(1) {
            None => None,
            Some(length) => Some(take_text(encoded, length)?),
        };
        pairs.push((name, value));
    }
    let properties = Properties::from_pairs(pairs);
    if properties.len() == count {
        Ok(properties)
    } else {
        Err(DecodeError::Order)
    }
}

fn put_number(out: &mut BytesMut, mut number: usize) {
    loop {
        // The mask keeps seven bits, so the conversion can't fail.
        let low = u8::try_from(number & 0x7f).unwrap_or_default();
        number >>= 7;
        if number == 0 {
            out.put_u8(low);
            return;
        }
        out.put_u8(low | 0x80);
    }
}

fn take_number(encoded: &mut Bytes) -> Result<usize, DecodeError> {
    // Four groups of seven bits hold 256 MiB, a thousand times the largest message.
    const MOST_BYTES: u32 = 4;
    let mut number = 0;
    for index in 0..MOST_BYTES {
        let byte = encoded.try_get_u8().map_err(|_| DecodeError::CutShort)?;
        number |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let is_shortest = byte != 0 || index == 0;
            return is_shortest.then_some(number).ok_or(DecodeError::Length);
        }
    }
    Err(DecodeError::Length)
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_number(out, bytes.len());
    out.put_slice(bytes);
}

fn take_shared(encoded: &mut Bytes, length: usize) -> Result<SharedText, DecodeError> {
    if length > encoded.len() {
        return Err(DecodeError::CutShort);
    }
    SharedText::from_utf8(encoded.split_to(length)).map_err(|_| DecodeError::NotText)
}

fn take_text(encoded: &mut Bytes, length: usize) -> Result<String, DecodeError> {
    if length > encoded.len() {
        return Err(DecodeError::CutShort);
    }
    let text = encoded.split_to(length);
    std::str::from_utf8(&text)
        .map(str::to_owned)
        .map_err(|_| DecodeError::NotText)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of `docs/formats/message.md`.
    const GOLDEN: &[u8] = b"\x01\x02\x01\x03m-1\x20\x01d\x03\x01k\x02v\x04flag\x00\x01e\x01hi";

    fn example() -> Message {
        let mut message = Message::new("hi");
        message.system.set(SystemProperty::MessageId, "m-1");
        message.system.set(SystemProperty::ConnectionDeviceId, "d");
        message.properties.set("k", Some("v".to_owned()));
        message.properties.set("flag", None);
        message.properties.set("e", Some(String::new()));
        message
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let system = proptest::collection::vec((0..SystemProperty::ALL.len(), ".*"), 0..8);
        let properties = proptest::collection::vec((".*", proptest::option::of(".{0,200}")), 0..40);
        let body = proptest::collection::vec(any::<u8>(), 0..300);
        (system, properties, body).prop_map(|(system, properties, body)| {
            let mut message = Message::new(body);
            for (index, value) in system {
                message.system.set(SystemProperty::ALL[index], value);
            }
            message.properties = Properties::from_pairs(properties);
            message
        })
    }

    #[test]
    fn the_bytes_on_disk_are_those_of_the_document() {
        assert_eq!(example().encode(), GOLDEN);
        assert_eq!(Message::decode(Bytes::from_static(GOLDEN)), Ok(example()));
    }

    #[test]
    fn the_empty_message_has_three_bytes() {
        assert_eq!(&Message::default().encode()[..], [1, 0, 0]);
    }

    #[test]
    fn the_body_is_a_slice_of_the_buffer() {
        let encoded = example().encode();

        let message = Message::decode(encoded.clone()).unwrap();

        assert_eq!(message.body.as_ptr(), encoded.slice(encoded.len() - 2..).as_ptr());
    }

    #[test]
    fn damage_is_named() {
        for (bytes, error) in [
            (&b""[..], DecodeError::CutShort),
            (b"\x02\x00\x00", DecodeError::Version(2)),
            (b"\x01\x01\x11\x00\x00", DecodeError::UnknownProperty(17)),
            (b"\x01\x01\x01\x05ab", DecodeError::CutShort),
            (b"\x01\x01\x01\x01\xff\x00", DecodeError::NotText),
            (b"\x01\x02\x02\x00\x01\x00\x00", DecodeError::Order),
            (b"\x01\x02\x01\x00\x01\x00\x00", DecodeError::Order),
            (b"\x01\x00\x02\x01a\x00\x01a\x00", DecodeError::Order),
            (b"\x01\x80\x00\x00", DecodeError::Length),
            (b"\x01\xff\xff\xff\xff\x00", DecodeError::Length),
            (b"\x01\x00\xff\xff\xff\x7f", DecodeError::CutShort),
        ] {
            assert_eq!(Message::decode(Bytes::from_static(bytes)), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn a_header_cut_anywhere_is_noticed() {
        let header = GOLDEN.len() - 2;
        for length in 0..header {
            let cut = Bytes::from_static(GOLDEN).slice(..length);
            assert_eq!(Message::decode(cut), Err(DecodeError::CutShort), "{length}");
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_decodes_to_itself(message in any_message()) {
            prop_assert_eq!(Message::decode(message.encode()), Ok(message));
        }

        #[test]
        fn any_bytes_are_a_message_of_just_this_encoding_or_refused(
            bytes in proptest::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..200)
        ) {
            let bytes = Bytes::from(bytes);
            if let Ok(message) = Message::decode(bytes.clone()) {
                prop_assert_eq!(message.encode(), bytes);
            }
        }

        #[test]
        fn a_changed_byte_gives_another_message_or_an_error(
            message in any_message(), place in any::<proptest::sample::Index>(), flip in 1..=255_u8
        ) {
            let mut bytes = message.encode().to_vec();
            let place = place.index(bytes.len());
            bytes[place] ^= flip;
            prop_assert_ne!(Message::decode(Bytes::from(bytes)), Ok(message));
        }
    }
}
