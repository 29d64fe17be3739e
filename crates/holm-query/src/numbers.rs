//! Numbers as texts: literals in expressions, and the texts that `as_number` takes. All numbers are doubles.

/// The value of a number literal: `-3`, `.5`, `1.5e+3`, `0xFF`; `None` when the word is no number.
pub(crate) fn literal(word: &str) -> Option<f64> {
    if let Some(digits) = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        return hexadecimal(digits);
    }
    if word.starts_with('+') || word.ends_with('.') {
        return None;
    }
    decimal(word)
}

/// What `as_number` makes of a text: an optional sign, digits, fraction and exponent, with white space around it.
///
/// The original also takes currency signs, parentheses and thousands separators; `12,5` is then 125. Here they make no
/// number, because a wrong number is worse than none.
pub(crate) fn from_text(text: &str) -> Option<f64> {
    decimal(text.trim_matches([' ', '\t', '\r', '\n']))
}

fn hexadecimal(digits: &str) -> Option<f64> {
    if digits.is_empty() {
        return None;
    }
    digits
        .chars()
        .try_fold(0.0, |value, digit| Some(value * 16.0 + f64::from(digit.to_digit(16)?)))
}

/// The standard parser also takes `inf` and `nan`, so the form is checked first.
fn decimal(text: &str) -> Option<f64> {
    let digits_seen = text
        .bytes()
        .take_while(|b| !matches!(b, b'e' | b'E'))
        .any(|b| b.is_ascii_digit());
    let only_number_characters = text
        .bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
    if digits_seen && only_number_characters {
        text.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_whole_words() {
        for (word, value) in [
            ("3", 3.0),
            ("-4.5", -4.5),
            (".5", 0.5),
            ("10e10", 10e10),
            ("0xFf", 255.0),
            ("-.5E+1", -5.0),
        ] {
            assert_eq!(literal(word), Some(value), "{word}");
        }
        for word in [
            "", "-", "e10", "inf", "nan", "3-4", "0x", "0xG", "1.", "+1", "--1", "1e", "3a",
        ] {
            assert_eq!(literal(word), None, "{word}");
        }
    }

    #[test]
    fn texts_with_separators_are_no_numbers() {
        assert_eq!(from_text(" +12.5 "), Some(12.5));
        assert_eq!(from_text("10e1000"), Some(f64::INFINITY));
        for text in ["", "12,5", "(3)", "$3", "0x10", "Infinity", "1 2"] {
            assert_eq!(from_text(text), None, "{text}");
        }
    }
}
