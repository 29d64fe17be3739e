//! Texts counted in UTF-16 units, as the original counts them: `length('€') = 1`, `length('😀') = 2`.

/// The number of units.
pub(crate) fn length(text: &str) -> usize {
    if text.is_ascii() {
        text.len()
    } else {
        text.encode_utf16().count()
    }
}

/// The unit at which a part first occurs.
pub(crate) fn index_of(text: &str, part: &str) -> Option<usize> {
    let byte = text.find(part)?;
    text.get(..byte).map(length)
}

/// The part from a unit on, at most `length` units long. `None` when it begins outside the text: with a length, beginning at
/// the very end is outside. A fraction is cut off. Half of a character at either end becomes U+FFFD.
pub(crate) fn substring(text: &str, start: f64, length: Option<f64>) -> Option<String> {
    let units: Vec<u16> = text.encode_utf16().collect();
    let start = whole(start)?;
    let outside = match length {
        None => start > units.len(),
        Some(_) => start >= units.len(),
    };
    if outside {
        return None;
    }
    let wanted = match length {
        None => usize::MAX,
        Some(length) => whole(length)?,
    };
    let end = start.saturating_add(wanted).min(units.len());
    units.get(start..end).map(String::from_utf16_lossy)
}

/// A number as a count: `None` below zero; numbers beyond `u32::MAX` are that, which no text reaches.
fn whole(number: f64) -> Option<usize> {
    let number = number.trunc();
    if number < 0.0 || number.is_nan() {
        return None;
    }
    // The value is whole and between the two bounds, so the conversion keeps it.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let count = number.min(f64::from(u32::MAX)) as u32;
    usize::try_from(count).ok()
}

/// Lower case, character by character and without regard to language.
pub(crate) fn lower(text: &str) -> String {
    text.chars().map(|c| single(c, c.to_lowercase())).collect()
}

/// Upper case, character by character: `ß` stays, because no single character is its upper case.
pub(crate) fn upper(text: &str) -> String {
    text.chars().map(|c| single(c, c.to_uppercase())).collect()
}

fn single(c: char, mut mapped: impl ExactSizeIterator<Item = char>) -> char {
    if mapped.len() == 1 {
        mapped.next().unwrap_or(c)
    } else {
        c
    }
}

/// Whether two names are the same in any case.
pub(crate) fn same_name(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other) || (!one.is_ascii() && !other.is_ascii() && upper(one) == upper(other))
}

/// How many characters must be added, removed or replaced to make one name from the other.
pub(crate) fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (b, cell) in other.chars().zip(row.iter_mut().skip(1)) {
            let replaced = diagonal + usize::from(a != b);
            diagonal = *cell;
            *cell = replaced.min(*cell + 1).min(left + 1);
            left = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_substring_may_begin_at_the_end_only_without_a_length() {
        assert_eq!(substring("abc", 3.0, None).as_deref(), Some(""));
        assert_eq!(substring("abc", 3.0, Some(0.0)), None);
        assert_eq!(substring("abc", 1.9, Some(9.0)).as_deref(), Some("bc"));
        assert_eq!(substring("abc", 1.0, Some(-1.0)), None);
        assert_eq!(substring("abc", f64::INFINITY, None), None);
    }

    #[test]
    fn characters_outside_the_basic_plane_count_twice() {
        assert_eq!(length("a😀"), 3);
        assert_eq!(index_of("😀b", "b"), Some(2));
        assert_eq!(substring("😀b", 2.0, None).as_deref(), Some("b"));
    }

    #[test]
    fn case_changes_one_character_into_one() {
        assert_eq!(upper("straße"), "STRAßE");
        assert_eq!(lower("ÄBC"), "äbc");
        assert!(same_name("Größe", "GRÖßE"));
        assert!(!same_name("a", "ä"));
    }

    #[test]
    fn distance_counts_edits() {
        for (one, other, edits) in [
            ("abs", "abs", 0),
            ("lenght", "length", 2),
            ("upper", "uper", 1),
            ("", "ab", 2),
        ] {
            assert_eq!(distance(one, other), edits, "{one} {other}");
        }
    }
}
