//! A message as bytes, in the event log, in the outbox and among the waiting cloud-to-device messages.
//!
//! ```text
//! version 1 | count | (number u8, text)… | count | (text, 0 or 1 + text)… | body to the end
//!             system properties             application properties
//! text = length u32, little-endian + UTF-8        count = u16, little-endian
//! ```
//!
//! Described in `docs/formats/hub-database.md`. Numbers of system properties never change their meaning.

use bytes::{Buf, BufMut, Bytes};
use holm_model::{Message, SystemProperty};

/// The version of this form, its first byte.
pub const RECORD_VERSION: u8 = 1;

/// Bytes that are not a message, or one of another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record is not a message of form {RECORD_VERSION}")]
pub struct InvalidRecord;

/// A message as bytes. More than 65,535 properties do not fit, which the size limit of messages rules out.
#[must_use]
pub fn encode(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.body.len() + 512);
    bytes.put_u8(RECORD_VERSION);
    let system = message.system.iter().count();
    bytes.put_u16_le(u16::try_from(system).unwrap_or(u16::MAX));
    for (name, value) in message.system.iter() {
        bytes.put_u8(name.number());
        put_text(&mut bytes, value);
    }
    bytes.put_u16_le(u16::try_from(message.properties.len()).unwrap_or(u16::MAX));
    for (name, value) in message.properties.iter().take(usize::from(u16::MAX)) {
        put_text(&mut bytes, name);
        bytes.put_u8(u8::from(value.is_some()));
        if let Some(value) = value {
            put_text(&mut bytes, value);
        }
    }
    bytes.put_slice(&message.body);
    bytes
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.put_u32_le(u32::try_from(text.len()).unwrap_or(u32::MAX));
    bytes.put_slice(text.as_bytes());
}

/// Reads a message. A system property of an unknown number (a later release's) is passed over.
///
/// # Errors
/// [`InvalidRecord`].
pub fn decode(mut bytes: Bytes) -> Result<Message, InvalidRecord> {
    if take_u8(&mut bytes)? != RECORD_VERSION {
        return Err(InvalidRecord);
    }
    let mut message = Message::default();
    for _ in 0..take_u16(&mut bytes)? {
        let number = take_u8(&mut bytes)?;
        let value = take_text(&mut bytes)?;
        if let Some(name) = SystemProperty::from_number(number) {
            message.system.set(name, value);
        }
    }
    for _ in 0..take_u16(&mut bytes)? {
        let name = take_text(&mut bytes)?;
        let value = match take_u8(&mut bytes)? {
            0 => None,
            1 => Some(take_text(&mut bytes)?),
            _ => return Err(InvalidRecord),
        };
        message.properties.set(name, value);
    }
    message.body = bytes;
    Ok(message)
}

fn take_u8(bytes: &mut Bytes) -> Result<u8, InvalidRecord> {
    bytes.try_get_u8().map_err(|_| InvalidRecord)
}

fn take_u16(bytes: &mut Bytes) -> Result<u16, InvalidRecord> {
    bytes.try_get_u16_le().map_err(|_| InvalidRecord)
}

fn take_text(bytes: &mut Bytes) -> Result<String, InvalidRecord> {
    let length = bytes.try_get_u32_le().map_err(|_| InvalidRecord)?;
    let length = usize::try_from(length).map_err(|_| InvalidRecord)?;
    if length > bytes.len() {
        return Err(InvalidRecord);
    }
    let text = bytes.split_to(length);
    std::str::from_utf8(&text).map(str::to_owned).map_err(|_| InvalidRecord)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        let mut message = Message::new(&b"\x00body"[..]);
        message.system.set(SystemProperty::MessageId, "m-1");
        message.system.set(SystemProperty::EnqueuedTime, "t");
        message.properties.set("a", Some(String::new()));
        message.properties.set("ü", None);
        message
    }

    #[test]
    fn a_message_reads_back() {
        for message in [message(), Message::default()] {
            assert_eq!(decode(encode(&message).into()), Ok(message));
        }
    }

    #[test]
    fn no_prefix_and_no_changed_byte_makes_it_panic() {
        let whole = encode(&message());

        for end in 0..whole.len() {
            // A prefix that ends within the body is a shorter body.
            drop(decode(Bytes::copy_from_slice(&whole[..end])));
        }
        for index in 0..whole.len() {
            for value in [0, 1, 2, 0x7f, 0xff] {
                let mut changed = whole.clone();
                changed[index] = value;
                drop(decode(changed.into()));
            }
        }
        assert_eq!(decode(Bytes::from_static(&[2])), Err(InvalidRecord));
    }
}
