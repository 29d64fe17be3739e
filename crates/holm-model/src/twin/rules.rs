//! What may stand in a twin. Names, values and depth are checked on what comes in, the size on what results.
//!
//! The published size count: bytes of names and strings, 8 for a number, 4 for a boolean; `$version` and `$metadata` are
//! free. The published example of the deepest object nests ten objects below the section with plain properties in the
//! tenth, so it is objects that are counted.
//!
//! Source: `hub-service-api.md` §2.4, `hub-device-protocols.md` §7.

use serde_json::{Map, Value};

use crate::error::{ErrorCode, ServiceError};

/// The longest property name, in bytes.
pub const MAX_NAME_BYTES: usize = 1024;
/// The longest string, in bytes.
pub const MAX_STRING_BYTES: usize = 4096;
/// The deepest nesting of objects below a section.
pub const MAX_DEPTH: usize = 10;
/// The least integer.
pub const MIN_INTEGER: i64 = -4_503_599_627_370_496;
/// The greatest integer.
pub const MAX_INTEGER: i64 = 4_503_599_627_370_495;
/// The largest tags, in counted bytes.
pub const MAX_TAGS_BYTES: usize = 8 * 1024;
/// The largest desired or reported section, in counted bytes.
pub const MAX_SECTION_BYTES: usize = 32 * 1024;

/// Which part of a twin, with its name in errors and its size limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `tags`
    Tags,
    /// `properties.desired`
    Desired,
    /// `properties.reported`
    Reported,
}

impl Limit {
    const fn path(self) -> &'static str {
        match self {
            Self::Tags => "tags",
            Self::Desired => "properties.desired",
            Self::Reported => "properties.reported",
        }
    }

    const fn max_bytes(self) -> usize {
        match self {
            Self::Tags => MAX_TAGS_BYTES,
            Self::Desired | Self::Reported => MAX_SECTION_BYTES,
        }
    }
}

/// Checks names, values and depth of a patch or a whole section.
///
/// # Errors
/// `ArgumentInvalid` naming the path.
pub fn check(properties: &Map<String, Value>, limit: Limit) -> Result<(), ServiceError> {
    check_within("", properties, limit)
}

/// As [`check`], of a section that stands in the member `root` of a larger document; an empty one is none.
pub(super) fn check_within(root: &str, properties: &Map<String, Value>, limit: Limit) -> Result<(), ServiceError> {
    let mut path: Vec<&str> = [root, limit.path()]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect();
    check_object(properties, 0, &mut path)
}

/// Checks the integers of a JSON text, as they are written: one of more than 64 bits reads as a real number, and would be
/// kept as another one. `root` comes before the paths in errors; `applies` says of a path within the text whether it is
/// checked.
///
/// The text must be JSON; of any other the outcome means nothing.
///
/// # Errors
/// `ArgumentInvalid` naming the path.
pub fn check_literals(json: &[u8], root: &str, applies: impl Fn(&[&str]) -> bool) -> Result<(), ServiceError> {
    let text = std::str::from_utf8(json).unwrap_or_default();
    let piece = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    // The member that is read of each open object; empty for an array.
    let mut path: Vec<&str> = Vec::new();
    let (mut string, mut at) = ("", 0);
    while let Some(byte) = json.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'"' => {
                at += string_bytes(json.get(at..).unwrap_or_default());
                string = piece(start + 1, at - 1);
            }
            b':' => {
                if let Some(member) = path.last_mut() {
                    *member = string;
                }
            }
            b'{' | b'[' => path.push(""),
            b'}' | b']' => {
                path.pop();
            }
            b'-' | b'0'..=b'9' => {
                let rest = json.get(at..).unwrap_or_default().iter();
                at += rest
                    .take_while(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
                    .count();
                let literal = piece(start, at);
                let is_integer = !literal.contains(['.', 'e', 'E']);
                let in_range = || matches!(literal.parse(), Ok(MIN_INTEGER..=MAX_INTEGER));
                if is_integer && applies(&path) && !in_range() {
                    let names = path.iter().filter(|name| !name.is_empty()).copied();
                    let path: Vec<&str> = Some(root)
                        .filter(|root| !root.is_empty())
                        .into_iter()
                        .chain(names)
                        .collect();
                    return Err(out_of_range(&path, literal));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The bytes of a string behind its first quotation mark, with the last one.
fn string_bytes(json: &[u8]) -> usize {
    let mut escaped = false;
    let end = json.iter().position(|byte| {
        let is_end = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        is_end
    });
    end.map_or(json.len(), |end| end + 1)
}

/// Checks the size of a section.
///
/// # Errors
/// `DeviceModelMaxPropertiesExceeded` naming the section.
pub fn check_size(properties: &Map<String, Value>, limit: Limit) -> Result<(), ServiceError> {
    check_size_within("", properties, limit)
}

/// As [`check_size`], of a section that stands in the member `root` of a larger document; an empty one is none.
pub(super) fn check_size_within(root: &str, properties: &Map<String, Value>, limit: Limit) -> Result<(), ServiceError> {
    let size = object_size(properties);
    if size > limit.max_bytes() {
        let dot = if root.is_empty() { "" } else { "." };
        return Err(ServiceError::new(
            ErrorCode::DeviceModelMaxPropertiesExceeded,
            format!(
                "`{root}{dot}{}` would have {size} bytes; at most {} are allowed: remove properties or shorten values",
                limit.path(),
                limit.max_bytes()
            ),
        ));
    }
    Ok(())
}

/// The published size of an object.
#[must_use]
pub fn object_size(properties: &Map<String, Value>) -> usize {
    properties
        .iter()
        .map(|(name, value)| name.len() + value_size(value))
        .sum()
}

fn value_size(value: &Value) -> usize {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(value_size).sum(),
        Value::Object(properties) => object_size(properties),
    }
}

fn check_object<'v>(
    properties: &'v Map<String, Value>,
    depth: usize,
    path: &mut Vec<&'v str>,
) -> Result<(), ServiceError> {
    if depth > MAX_DEPTH {
        return Err(broken(
            path,
            &format!("is nested more than {MAX_DEPTH} levels deep; flatten it"),
        ));
    }
    for (name, value) in properties {
        check_name(name, path)?;
        path.push(name);
        check_value(value, depth, path)?;
        path.pop();
    }
    Ok(())
}

fn check_value<'v>(value: &'v Value, depth: usize, path: &mut Vec<&'v str>) -> Result<(), ServiceError> {
    match value {
        Value::Null | Value::Bool(_) => Ok(()),
        Value::Number(number) => {
            let in_range = match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => (MIN_INTEGER..=MAX_INTEGER).contains(&number),
                (None, Some(_)) => false,
                (None, None) => true,
            };
            in_range
                .then_some(())
                .ok_or_else(|| out_of_range(path, &number.to_string()))
        }
        Value::String(text) if text.len() > MAX_STRING_BYTES => Err(broken(
            path,
            &format!(
                "is a string of {} bytes; at most {MAX_STRING_BYTES} are allowed",
                text.len()
            ),
        )),
        Value::String(_) => Ok(()),
        Value::Array(items) => items.iter().try_for_each(|item| check_value(item, depth, path)),
        Value::Object(properties) => check_object(properties, depth + 1, path),
    }
}

fn check_name(name: &str, path: &[&str]) -> Result<(), ServiceError> {
    let problem = if name.is_empty() {
        "is empty; give it a name".to_owned()
    } else if name.len() > MAX_NAME_BYTES {
        format!("has {} bytes; at most {MAX_NAME_BYTES} are allowed", name.len())
    } else if name.chars().any(|c| c.is_control() || matches!(c, '.' | ' ' | '$')) {
        format!(
            "is `{}`; a name holds no control character, `.`, space or `$`",
            shown(name)
        )
    } else {
        return Ok(());
    };
    Err(ServiceError::argument_invalid(format!(
        "a property name in `{}` {problem}",
        shown(&path.join("."))
    )))
}

fn out_of_range(path: &[&str], literal: &str) -> ServiceError {
    broken(
        path,
        &format!("is {}; integers go from {MIN_INTEGER} to {MAX_INTEGER}", shown(literal)),
    )
}

fn broken(path: &[&str], rule: &str) -> ServiceError {
    ServiceError::argument_invalid(format!("`{}` {rule}", shown(&path.join("."))))
}

/// A text from outside, short and printable.
fn shown(text: &str) -> String {
    const SHOWN_CHARS: usize = 200;
    text.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(properties: Value) -> String {
        let error = check(properties.as_object().unwrap(), Limit::Desired).unwrap_err();
        assert_eq!(error.code, ErrorCode::ArgumentInvalid);
        error.message
    }

    fn accepted(properties: Value) -> bool {
        check(properties.as_object().unwrap(), Limit::Desired).is_ok()
    }

    fn nested(levels: usize) -> Value {
        (0..levels).fold(json!({"property": "value"}), |inner, _| json!({ "level": inner }))
    }

    /// Acceptance rows 41 (service) and 45 (device).
    #[test]
    fn a_name_with_a_forbidden_character_is_refused_with_its_path() {
        for name in ["a.b", "a b", "$a", "a\u{7}", "a\u{85}", ""] {
            assert!(
                refusal(json!({"x": {name: 1}})).contains("`properties.desired.x`"),
                "{name:?}"
            );
        }
        assert!(refusal(json!({"x": [{"a.b": 1}]})).contains("`a.b`"));
        assert!(accepted(json!({"a-b_c#/ä%": 1})));
    }

    #[test]
    fn lengths_are_bytes() {
        assert!(accepted(json!({"n".repeat(1024): "s".repeat(4096)})));
        assert!(refusal(json!({"n".repeat(1025): 1})).contains("1025"));
        assert!(
            refusal(json!({"a": {"b": "ä".repeat(2049)}})).starts_with("`properties.desired.a.b` is a string of 4098")
        );
    }

    #[test]
    fn integers_stay_within_52_bits() {
        assert!(accepted(
            json!({"least": MIN_INTEGER, "greatest": MAX_INTEGER, "real": 1e300})
        ));
        for number in [json!(MIN_INTEGER - 1), json!(MAX_INTEGER + 1), json!(u64::MAX)] {
            assert!(refusal(json!({"n": [number]})).contains("`properties.desired.n`"));
        }
    }

    #[test]
    fn an_integer_of_more_than_64_bits_is_refused_as_it_is_written() {
        let json = br#"{"s":"99999999999999999999:\"}","r":1e300,"f":99999999999999999999.0,"a":{"b":[1,{"c":-99999999999999999999}]}}"#;
        assert!(serde_json::from_slice::<Value>(json).is_ok());

        let refused = check_literals(json, "properties.desired", |_| true).unwrap_err();

        assert_eq!(refused.code, ErrorCode::ArgumentInvalid);
        assert!(
            refused
                .message
                .starts_with("`properties.desired.a.b.c` is -99999999999999999999; integers go"),
            "{refused}"
        );
        assert!(check_literals(json, "", |path| path.first() != Some(&"a")).is_ok());
    }

    #[test]
    fn ten_objects_may_be_nested() {
        assert!(accepted(nested(10)));
        assert!(refusal(nested(11)).contains("more than 10 levels"));
    }

    #[test]
    fn the_size_counts_names_strings_numbers_and_booleans() {
        let properties = json!({"ab": "cde", "n": 1.5, "t": true, "o": {"x": [1, null]}});

        assert_eq!(
            object_size(properties.as_object().unwrap()),
            (2 + 3) + (1 + 8) + (1 + 4) + (1 + 1 + 8)
        );
    }

    #[test]
    fn a_section_may_fill_its_limit_exactly() {
        let section = |bytes: usize| {
            let mut map = Map::new();
            for index in 0..bytes / 4096 {
                map.insert(index.to_string(), json!("x".repeat(4095)));
            }
            map
        };
        let mut fits = section(MAX_SECTION_BYTES);

        assert!(check_size(&fits, Limit::Desired).is_ok());
        fits.insert("y".into(), Value::Null);
        let error = check_size(&fits, Limit::Desired).unwrap_err();
        assert_eq!(error.code, ErrorCode::DeviceModelMaxPropertiesExceeded);
        assert!(error.message.contains("`properties.desired`"), "{error}");
        assert!(check_size(&section(MAX_TAGS_BYTES + 4096), Limit::Tags).is_err());
    }
}
