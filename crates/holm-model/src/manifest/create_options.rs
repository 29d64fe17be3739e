//! Create options of a container: one JSON object, cut into `createOptions`, `createOptions01` … because a twin's strings
//! are short. The object itself, not as a text, is taken too.
//!
//! Source: `edge-agent.md` §1.2.

mod lenient;

use serde_json::{Map, Value};

use super::fields::Fields;

/// The longest chunk that is written, in characters.
const CHUNK_CHARS: usize = 512;
const NAME: &str = "createOptions";

/// Joins and reads the create options of a module's settings. Absent, blank and `null` mean an empty object.
pub(super) fn read(settings: Fields<'_>) -> Result<Map<String, Value>, String> {
    let mut chunks: Vec<(&str, &Value)> = Vec::new();
    for (name, value) in settings.map() {
        let Some((head, suffix)) = name.split_at_checked(NAME.len()) else {
            continue;
        };
        if head.eq_ignore_ascii_case(NAME) && suffix.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_null() {
            chunks.push((suffix, value));
        }
    }
    chunks.sort_by_key(|(suffix, _)| *suffix);
    if let [("", Value::Object(options))] = chunks.as_slice() {
        return Ok(options.clone());
    }
    let text = join(settings, &chunks)?;
    let text = text.trim();
    if text.is_empty() || text.eq_ignore_ascii_case("null") {
        return Ok(Map::new());
    }
    let nearly_json = || serde_json::from_str(&lenient::to_json(text)?).ok();
    match serde_json::from_str(text).or_else(|error| nearly_json().ok_or(error)) {
        Ok(Value::Object(options)) => Ok(options),
        Ok(_) => Err(format!("`{}` must hold a JSON object", settings.path(NAME))),
        Err(error) => Err(format!("`{}` does not hold JSON: {error}", settings.path(NAME))),
    }
}

fn join(settings: Fields<'_>, chunks: &[(&str, &Value)]) -> Result<String, String> {
    let mut text = String::new();
    for (index, (suffix, value)) in chunks.iter().enumerate() {
        let expected = suffix_of(index);
        if *suffix != expected {
            let found = settings.path(&format!("{NAME}{suffix}"));
            return Err(format!(
                "expected `{NAME}{expected}` but found `{found}`; chunks are numbered without gaps"
            ));
        }
        let chunk = value
            .as_str()
            .ok_or_else(|| format!("`{}` must be a string", settings.path(&format!("{NAME}{suffix}"))))?;
        text.push_str(chunk);
    }
    Ok(text)
}

fn suffix_of(index: usize) -> String {
    if index == 0 {
        String::new()
    } else {
        format!("{index:02}")
    }
}

/// Cuts create options into named chunks for a report. A hundred chunks (50 KiB) are more than a twin can hold; what is
/// beyond them is refused by the twin's own size rule.
#[must_use]
pub fn chunks(options: &Map<String, Value>) -> Vec<(String, String)> {
    let text = Value::Object(options.clone()).to_string();
    let characters: Vec<char> = text.chars().collect();
    characters
        .chunks(CHUNK_CHARS)
        .enumerate()
        .map(|(index, chunk)| (format!("{NAME}{}", suffix_of(index)), chunk.iter().collect()))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(settings: Value) -> Result<Map<String, Value>, String> {
        read(Fields::new("modules.m", "settings", settings.as_object().unwrap()))
    }

    #[test]
    fn nothing_is_an_empty_object() {
        for settings in [
            json!({}),
            json!({"createOptions": ""}),
            json!({"createOptions": " \r\n"}),
            json!({"createOptions": "null"}),
            json!({"createOptions": "NULL"}),
            json!({"createOptions": null}),
        ] {
            assert_eq!(of(settings), Ok(Map::new()));
        }
    }

    #[test]
    fn text_and_object_are_the_same() {
        let expected = json!({"Env": ["a=b"]}).as_object().cloned();

        assert_eq!(of(json!({"createOptions": "{\"Env\":[\"a=b\"]}"})).ok(), expected);
        assert_eq!(of(json!({"CreateOptions": {"Env": ["a=b"]}})).ok(), expected);
    }

    #[test]
    fn what_the_original_reads_as_json_is_read() {
        let options = of(json!({"createOptions": "{'Env': ['a=b'],", "createOptions01": " Tty: false,}\r\n\r\n"}));

        assert_eq!(options.ok(), json!({"Env": ["a=b"], "Tty": false}).as_object().cloned());
    }

    #[test]
    fn chunks_are_joined_in_order_whatever_their_case() {
        let joined = of(json!({"createoptions02": "1}", "createOptions": "{\"a", "CREATEOPTIONS01": "\":"}));

        assert_eq!(joined.ok(), json!({"a": 1}).as_object().cloned());
    }

    #[test]
    fn a_gap_a_repeat_and_a_chunk_without_the_first_are_named() {
        for (settings, found) in [
            (json!({"createOptions": "{", "createOptions02": "}"}), "createOptions02"),
            (json!({"createOptions01": "{}"}), "createOptions01"),
            (json!({"createOptions": "{", "createOptions1": "}"}), "createOptions1"),
            (json!({"createOptions": "{", "CREATEOPTIONS": "}"}), "createOptions"),
        ] {
            let problem = of(settings).unwrap_err();
            assert!(problem.contains(&format!("`modules.m.settings.{found}`")), "{problem}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for options in [json!("[]"), json!("{"), json!(3), json!([])] {
            assert!(
                of(json!({ "createOptions": options }))
                    .unwrap_err()
                    .contains("`modules.m.settings.createOptions`")
            );
        }
    }

    #[test]
    fn what_was_cut_joins_again() {
        let options = json!({"a": "ä".repeat(700), "b": 1}).as_object().cloned().unwrap();

        let settings: Map<String, Value> = chunks(&options)
            .into_iter()
            .map(|(name, text)| (name, json!(text)))
            .collect();

        assert_eq!(settings.len(), 2);
        assert_eq!(of(Value::Object(settings)), Ok(options));
    }
}
