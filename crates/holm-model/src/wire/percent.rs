//! Percent-encoding by RFC 3986. A `+` is a plus in both directions, never a space.

use std::borrow::Cow;

/// Encodes everything but the unreserved characters `A-Z a-z 0-9 - . _ ~`.
#[must_use]
pub fn encode(text: &str) -> String {
    encode_keeping(text, "")
}

/// Encodes as [`encode`] does, but leaves the ASCII characters of `kept` as they are.
#[must_use]
pub(crate) fn encode_keeping(text: &str, kept: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    encode_into(&mut encoded, text, kept);
    encoded
}

/// [`encode_keeping`] at the end of a text.
pub(crate) fn encode_into(encoded: &mut String, text: &str, kept: &str) {
    const HEX: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    let stays = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~')
            || (byte.is_ascii() && kept.as_bytes().contains(&byte))
    };
    let mut rest = text;
    // What stays is ASCII, so a text can be cut behind it; mostly that is all there is.
    while let Some(place) = rest.bytes().position(|byte| !stays(byte)) {
        let (plain, after) = rest.split_at(place);
        encoded.push_str(plain);
        let end = after.bytes().position(stays).unwrap_or(after.len());
        let (escaped, after) = after.split_at(end);
        for byte in escaped.bytes() {
            encoded.push('%');
            encoded.push(HEX[usize::from(byte >> 4)]);
            encoded.push(HEX[usize::from(byte & 15)]);
        }
        rest = after;
    }
    encoded.push_str(rest);
}

/// Decodes `%xx` with either case of hexadecimal digits. An escape that is not valid stays as it stands; where the result
/// would not be UTF-8 the whole text stays as it stands, so nothing that a client sent is lost.
#[must_use]
pub fn decode(text: &str) -> Cow<'_, str> {
    try_decode(text).unwrap_or(Cow::Borrowed(text))
}

/// Decodes as [`decode`] does; `None` where the result would not be UTF-8.
#[must_use]
pub fn try_decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%'
            && let [high, low, after @ ..] = tail
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            decoded.push(high << 4 | low);
            rest = after;
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

const fn digit(hex: u8) -> Option<u8> {
    match hex {
        b'0'..=b'9' => Some(hex - b'0'),
        b'a'..=b'f' => Some(hex - b'a' + 10),
        b'A'..=b'F' => Some(hex - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_unreserved_characters_stay() {
        assert_eq!(encode("aZ09-._~"), "aZ09-._~");
        assert_eq!(encode("$ +/ä:"), "%24%20%2B%2F%C3%A4%3A");
    }

    #[test]
    fn a_plus_is_a_plus_and_hex_has_either_case() {
        assert_eq!(decode("%2B+%2b"), "+++");
        assert_eq!(decode("%c3%A4"), "ä");
    }

    #[test]
    fn an_invalid_escape_stays_literally() {
        assert_eq!(decode("100%"), "100%");
        assert_eq!(decode("%2"), "%2");
        assert_eq!(decode("%zz%20"), "%zz ");
        assert_eq!(decode("%ff%20"), "%ff%20");
    }

    proptest! {
        #[test]
        fn what_was_encoded_decodes_to_itself(text in any::<String>()) {
            let encoded = encode(&text);
            prop_assert_eq!(decode(&encoded), text);
        }

        #[test]
        fn any_text_decodes_without_panic(text in any::<String>()) {
            prop_assert!(decode(&text).len() <= text.len());
        }
    }
}
