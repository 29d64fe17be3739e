//! A manifest file as editors and shells write it: UTF-8 with or without a byte order mark, or UTF-16 with one.

use std::path::Path;

use anyhow::{Context, anyhow};
use holm_model::strict_json;
use serde_json::Value;

/// Reads a file of JSON.
pub(super) fn read(path: &Path) -> anyhow::Result<Value> {
    let shown = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("`{shown}` can't be read"))?;
    let text = decode(&bytes).ok_or_else(|| anyhow!("`{shown}` is no text; save it as UTF-8"))?;
    strict_json::parse(text.as_bytes()).with_context(|| format!("`{shown}` is not JSON that can be kept as it is"))
}

fn decode(bytes: &[u8]) -> Option<String> {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes
            .chunks(2)
            .map(|pair| pair.try_into().map(unit))
            .collect::<Result<_, _>>()
            .ok()?;
        String::from_utf16(&units).ok()
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => String::from_utf8(rest.to_vec()).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_every_encoding_are_read() {
        let text = "{\"ä\": 1}";
        let units = |bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        for bytes in [
            text.as_bytes().to_vec(),
            [b"\xef\xbb\xbf".as_slice(), text.as_bytes()].concat(),
            [b"\xff\xfe".to_vec(), units(u16::to_le_bytes)].concat(),
            [b"\xfe\xff".to_vec(), units(u16::to_be_bytes)].concat(),
        ] {
            assert_eq!(decode(&bytes).as_deref(), Some(text), "{bytes:?}");
        }
        assert_eq!(decode(b"\xff\xfea"), None);
        assert_eq!(decode(b"\xff"), None);
    }
}
