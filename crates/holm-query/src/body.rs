//! Values inside a message's JSON body. Source: `edge-broker.md` §2.4.
//!
//! ```text
//!   $body.location.floors[2].name        ident(.ident | [index])*, keys compared exactly
//! ```
//!
//! A body is looked into only when `contentType` is `application/json` (in any case, nothing behind it) and `contentEncoding`
//! is `utf-8`, `utf-16` or `utf-32`, and its root is an object; otherwise every path is undefined. UTF-16 and UTF-32 are
//! little-endian unless a byte order mark says otherwise.
//!
//! A missing path is null; an object or array is undefined. A text that looks like an ISO date and time is undefined too: the
//! original's JSON reader makes a date of it, which its language does not know, and conditions that clients have tested rely
//! on the outcome. More indexes than one behind a key are read here (the original refuses them).

use std::borrow::Cow;

use serde_json::{Map, Value as Json};

use crate::evaluate::Value;
use crate::lexer::{columns, is_name_character};
use crate::problem::{Position, Problem};

/// A way from the root of a body to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(Box<str>),
    Index(usize),
}

impl Path {
    /// Reads a path; `at` is the place of its first character.
    ///
    /// # Errors
    /// A [`Problem`] when the text is no path.
    pub fn parse(text: &str, at: Position) -> Result<Self, Problem> {
        let mut steps = Vec::new();
        let mut at = at;
        for part in text.split('.') {
            let (key, mut indexes) = part.split_at(part.find('[').unwrap_or(part.len()));
            if key.is_empty() || !key.chars().all(is_name_character) {
                return Err(Problem::new(
                    at,
                    format!("the path `{text}` has a part without a key"),
                    "write keys separated by `.`, such as `$body.a.b[0]`",
                ));
            }
            steps.push(Step::Key(key.into()));
            let mut index_at = at.plus_columns(columns(key));
            while !indexes.is_empty() {
                let inside = indexes.strip_prefix('[').and_then(|rest| rest.split_once(']'));
                let Some((index, rest)) = inside.and_then(|(digits, rest)| Some((index(digits)?, rest))) else {
                    return Err(Problem::new(
                        index_at,
                        format!("`{indexes}` is no index"),
                        "write a number in brackets, counted from 0, such as `[0]`",
                    ));
                };
                steps.push(Step::Index(index));
                index_at = index_at.plus_columns(columns(indexes) - columns(rest));
                indexes = rest;
            }
            at = at.plus_columns(columns(part) + 1);
        }
        Ok(Self(steps))
    }

    /// What stands at the end of this path, whatever it is.
    #[must_use]
    pub fn reach<'b>(&self, root: &'b Map<String, Json>) -> Option<&'b Json> {
        let (first, rest) = self.0.split_first()?;
        let Step::Key(key) = first else { return None };
        let first = root.get(key.as_ref());
        rest.iter().fold(first, |here, step| match step {
            Step::Key(key) => here?.get(key.as_ref()),
            Step::Index(index) => here?.get(index),
        })
    }

    /// The value at the end of this path, as conditions of the edge see it.
    #[must_use]
    pub fn find<'b>(&self, root: &'b Json) -> Value<'b> {
        let mut here = root;
        for step in &self.0 {
            let next = match step {
                Step::Key(key) => here.get(key.as_ref()),
                Step::Index(index) => here.get(index),
            };
            let Some(next) = next else { return Value::Null };
            here = next;
        }
        leaf(here)
    }
}

fn index(digits: &str) -> Option<usize> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

fn leaf(value: &Json) -> Value<'_> {
    match value {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => number.as_f64().map_or(Value::Undefined, Value::number),
        Json::String(text) if is_date_and_time(text) => Value::Undefined,
        Json::String(text) => Value::Text(Cow::Borrowed(text)),
        Json::Array(_) | Json::Object(_) => Value::Undefined,
    }
}

/// Reads a body; `None` when it is not declared as JSON, not JSON, or its root is no object.
#[must_use]
pub fn read(body: &[u8], content_type: Option<&str>, content_encoding: Option<&str>) -> Option<Json> {
    if !content_type?.eq_ignore_ascii_case("application/json") {
        return None;
    }
    let encoding = content_encoding?;
    let root: Json = if encoding.eq_ignore_ascii_case("utf-8") {
        serde_json::from_slice(body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body)).ok()?
    } else if encoding.eq_ignore_ascii_case("utf-16") {
        serde_json::from_str(&decode_utf16(body)?).ok()?
    } else if encoding.eq_ignore_ascii_case("utf-32") {
        serde_json::from_str(&decode_utf32(body)?).ok()?
    } else {
        return None;
    };
    root.is_object().then_some(root)
}

fn decode_utf16(body: &[u8]) -> Option<String> {
    let (body, big_endian) = match body {
        [0xFE, 0xFF, rest @ ..] => (rest, true),
        [0xFF, 0xFE, rest @ ..] => (rest, false),
        rest => (rest, false),
    };
    let read = if big_endian {
        u16::from_be_bytes
    } else {
        u16::from_le_bytes
    };
    let (units, []) = body.as_chunks::<2>() else {
        return None;
    };
    char::decode_utf16(units.iter().map(|unit| read(*unit)))
        .collect::<Result<_, _>>()
        .ok()
}

fn decode_utf32(body: &[u8]) -> Option<String> {
    let (body, big_endian) = match body {
        [0, 0, 0xFE, 0xFF, rest @ ..] => (rest, true),
        [0xFF, 0xFE, 0, 0, rest @ ..] => (rest, false),
        rest => (rest, false),
    };
    let read = if big_endian {
        u32::from_be_bytes
    } else {
        u32::from_le_bytes
    };
    let (units, []) = body.as_chunks::<4>() else {
        return None;
    };
    units.iter().map(|unit| char::from_u32(read(*unit))).collect()
}

/// Whether the original's JSON reader makes a date of a text: `2017-03-09T00:30:45[.fraction][Z|±hh[:mm]]`.
fn is_date_and_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    let Some((moment, rest)) = bytes.split_first_chunk::<19>() else {
        return false;
    };
    is_moment(moment) && is_zone(without_fraction(rest))
}

fn is_moment(moment: &[u8; 19]) -> bool {
    let shape = b"dddd-dd-ddTdd:dd:dd";
    let fits = moment.iter().zip(shape).all(|(byte, shape)| match shape {
        b'd' => byte.is_ascii_digit(),
        fixed => byte == fixed,
    });
    let number = |range: std::ops::Range<usize>| {
        let digits = moment.get(range).unwrap_or_default();
        digits
            .iter()
            .fold(0_u32, |value, digit| value * 10 + u32::from(digit & 0x0F))
    };
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    let (hour, minute, second) = (number(11..13), number(14..16), number(17..19));
    let time = (hour < 24 && minute < 60 && second < 60) || (hour, minute, second) == (24, 0, 0);
    fits && year > 0 && (1..=days_in(year, month)).contains(&day) && time
}

const fn days_in(year: u32, month: u32) -> u32 {
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 0,
    }
}

fn without_fraction(rest: &[u8]) -> &[u8] {
    let Some(fraction) = rest.strip_prefix(b".") else {
        return rest;
    };
    let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
    match fraction.get(digits..) {
        Some(zone) if digits > 0 => zone,
        _ => rest,
    }
}

fn is_zone(zone: &[u8]) -> bool {
    let digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    match zone {
        [] | b"Z" => true,
        [b'+' | b'-', rest @ ..] => match rest {
            [_, _] | [_, _, _, _] => digits(rest),
            [h1, h2, b':', m1, m2] => digits(&[*h1, *h2, *m1, *m2]),
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_keys_and_indexes() {
        let root: Json = serde_json::from_str(r#"{"a":{"b-c":[[1,2],{"d":"x"}]}}"#).unwrap();
        let value = |path: &str| Path::parse(path, Position::START).unwrap().find(&root);

        assert_eq!(value("a.b-c[0][1]"), Value::Number(2.0));
        assert_eq!(value("a.b-c[1].d"), Value::Text("x".into()));
        assert_eq!(value("a.b-c[7]"), Value::Null);
        assert_eq!(value("a.B-C"), Value::Null);
        assert_eq!(value("a.b-c"), Value::Undefined);
    }

    #[test]
    fn a_bad_path_is_refused_at_its_place() {
        for (path, column) in [
            ("", 1),
            ("a.", 3),
            ("a..b", 3),
            ("a[]", 2),
            ("ab.c[x]", 5),
            ("a[0]b", 5),
            ("a[1", 2),
            ("[0]", 1),
        ] {
            let problem = Path::parse(path, Position::START).unwrap_err();
            assert_eq!(problem.column, column, "{path}: {problem}");
        }
    }

    #[test]
    fn bodies_are_read_in_every_declared_encoding() {
        let text = r#"{"a":"ü😀"}"#;
        let expected: Json = serde_json::from_str(text).unwrap();
        let utf16 = |order: fn(u16) -> [u8; 2], mark: &[u8]| -> Vec<u8> {
            mark.iter()
                .copied()
                .chain(text.encode_utf16().flat_map(order))
                .collect()
        };
        let utf32 = |order: fn(u32) -> [u8; 4], mark: &[u8]| -> Vec<u8> {
            mark.iter()
                .copied()
                .chain(text.chars().flat_map(|c| order(u32::from(c))))
                .collect()
        };
        let bodies = [
            ("utf-8", text.as_bytes().to_vec()),
            ("UTF-8", [b"\xEF\xBB\xBF", text.as_bytes()].concat()),
            ("utf-16", utf16(u16::to_le_bytes, &[])),
            ("UTF-16", utf16(u16::to_be_bytes, &[0xFE, 0xFF])),
            ("utf-32", utf32(u32::to_le_bytes, &[])),
            ("utf-32", utf32(u32::to_be_bytes, &[0, 0, 0xFE, 0xFF])),
        ];

        for (encoding, body) in bodies {
            assert_eq!(
                read(&body, Some("Application/JSON"), Some(encoding)),
                Some(expected.clone()),
                "{encoding}"
            );
        }
    }

    #[test]
    fn a_body_that_is_not_declared_or_no_object_is_not_read() {
        let read = |body: &str, content_type, encoding| read(body.as_bytes(), content_type, encoding);
        let (json, utf8) = (Some("application/json"), Some("utf-8"));

        assert!(read("{}", json, utf8).is_some());
        assert!(read("{}", None, utf8).is_none());
        assert!(read("{}", json, None).is_none());
        assert!(read("{}", Some("application/json; charset=utf-8"), utf8).is_none());
        assert!(read("{}", json, Some("ascii")).is_none());
        assert!(read("[1]", json, utf8).is_none());
        assert!(read("{", json, utf8).is_none());
        assert!(read("{} ", json, Some("utf-16")).is_none());
    }

    #[test]
    fn dates_are_recognised_as_the_original_reader_does() {
        for date in [
            "2017-03-09T00:30:45",
            "2017-03-09T00:30:45Z",
            "2017-03-09T00:30:45.1234567+02:00",
            "2016-02-29T24:00:00-0800",
            "2017-03-09T00:30:45+01",
        ] {
            assert!(is_date_and_time(date), "{date}");
        }
        for text in [
            "",
            "2017-03-09",
            "2017-02-29T00:00:00",
            "2017-03-09 00:30:45",
            "2017-03-09T00:60:45",
            "2017-03-09T00:30:45.",
            "2017-03-09T00:30:45+1",
        ] {
            assert!(!is_date_and_time(text), "{text}");
        }
    }
}
