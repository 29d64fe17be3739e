//! Escapes inside quoted texts: `\"`, `\'`, `\\` and `\uXXXX`, nothing else.

/// The byte of the first backslash that begins no escape.
pub(crate) fn first_unknown(raw: &str) -> Option<usize> {
    let mut rest = raw.char_indices();
    while let Some((index, c)) = rest.next() {
        if c != '\\' {
            continue;
        }
        let known = match rest.next() {
            Some((_, '"' | '\'' | '\\')) => true,
            Some((_, 'u')) => (0..4).all(|_| rest.next().is_some_and(|(_, c)| c.is_ascii_hexdigit())),
            _ => false,
        };
        if !known {
            return Some(index);
        }
    }
    None
}

/// Two passes, as in the original: `\uXXXX` first, wherever it stands, then `\"`, `\'` and `\\` in what came out. `None` when
/// half of a surrogate pair is left over.
pub(crate) fn decode(raw: &str) -> Option<String> {
    if !raw.contains('\\') {
        return Some(raw.to_owned());
    }
    let mut units: Vec<u16> = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(c) = rest.chars().next() {
        let code = rest.strip_prefix("\\u").and_then(|digits| digits.get(..4));
        let unit = code
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u16::from_str_radix(digits, 16).ok());
        let taken = if let Some(unit) = unit {
            units.push(unit);
            6
        } else {
            units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
            c.len_utf8()
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    let expanded = String::from_utf16(&units).ok()?;

    let mut text = String::with_capacity(expanded.len());
    let mut characters = expanded.chars().peekable();
    while let Some(c) = characters.next() {
        let meant = match characters.peek() {
            Some(&next) if c == '\\' && matches!(next, '"' | '\'' | '\\') => characters.next().unwrap_or(next),
            _ => c,
        };
        text.push(meant);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unicode_escapes_are_expanded_before_the_others() {
        for (raw, text) in [
            (r"plain", "plain"),
            (r"\\", r"\"),
            (r"\\u0041", r"\A"),
            (r"\u005c\u005c", r"\"),
            (r"\u0027\'", "''"),
            (r"\ud83d\ude00", "😀"),
        ] {
            assert_eq!(decode(raw).as_deref(), Some(text), "{raw}");
        }
        assert_eq!(decode(r"\ud83d"), None);
    }

    #[test]
    fn an_unknown_escape_is_found() {
        assert_eq!(first_unknown(r"a\\b\'c"), None);
        assert_eq!(first_unknown(r"a\\b\n"), Some(4));
        assert_eq!(first_unknown(r"\u12g4"), Some(0));
        assert_eq!(first_unknown(r"ü\"), Some(2));
    }
}
