//! What simulated devices do, from a file.
//!
//! ```json
//! { "every": "10s", "body": {"device": "{n}", "flow": "{random}"}, "report": {"model": "m1"},
//!   "tags": {"ring": "{n%5}"}, "methodStatus": 200 }
//! ```
//!
//! In `body`, `report` and `tags` a text that is nothing but one of these words becomes a number; within a text it is written out:
//! `{n}` the device's number, `{n%K}` its rest, `{count}` how many it has sent, `{random}` 0 to 99, of its number and count.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::values;

/// How often nothing is said: telemetry is off.
const OFF: Duration = Duration::ZERO;

/// What each does.
#[derive(Clone, Debug)]
pub(super) struct Behaviour {
    /// How often it sends; zero: not at all.
    pub(super) every: Duration,
    pub(super) body: Value,
    /// What it reports when it is connected; null: nothing.
    pub(super) report: Value,
    /// What it is tagged with when it is registered; null: nothing.
    pub(super) tags: Value,
    /// With what it answers methods; it gives their payload back.
    pub(super) method_status: i32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    every: Option<String>,
    body: Option<Value>,
    report: Option<Value>,
    tags: Option<Value>,
    method_status: Option<i32>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(10),
            body: json!({ "device": "{n}", "count": "{count}", "value": "{random}" }),
            report: json!({ "simulated": true }),
            tags: Value::Null,
            method_status: 200,
        }
    }
}

impl Behaviour {
    /// Reads a file.
    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        let shown = file.display();
        let text = std::fs::read_to_string(file).with_context(|| format!("`{shown}` can't be read"))?;
        Self::parse(&text).with_context(|| format!("`{shown}` is no behaviour"))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let written: Written = serde_json::from_str(text)?;
        let usual = Self::default();
        let every = match written.every.as_deref() {
            None => usual.every,
            Some("never") => OFF,
            Some(text) => match values::duration(text) {
                Ok(every) => every,
                Err(why) => bail!("`every` is `{text}`: {why}"),
            },
        };
        Ok(Self {
            every,
            body: written.body.unwrap_or(usual.body),
            report: written.report.unwrap_or(usual.report),
            tags: written.tags.unwrap_or(usual.tags),
            method_status: written.method_status.unwrap_or(usual.method_status),
        })
    }
}

/// A template with its words filled in.
pub(super) fn filled(template: &Value, number: u32, count: u64) -> Value {
    match template {
        Value::String(text) => filled_text(text, number, count),
        Value::Array(items) => items.iter().map(|item| filled(item, number, count)).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), filled(value, number, count)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

fn filled_text(text: &str, number: u32, count: u64) -> Value {
    if let Some(value) = word(text, number, count) {
        return value.into();
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let Some((inner, behind)) = after.split_once('}') else {
            out.push('{');
            rest = after;
            continue;
        };
        match word(&format!("{{{inner}}}"), number, count) {
            Some(value) => out.push_str(&value.to_string()),
            None => {
                out.push('{');
                out.push_str(inner);
                out.push('}');
            }
        }
        rest = behind;
    }
    out.push_str(rest);
    out.into()
}

fn word(text: &str, number: u32, count: u64) -> Option<u64> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    match inner {
        "n" => Some(number.into()),
        "count" => Some(count),
        "random" => {
            let mixed = (u64::from(number) << 32 ^ count).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            Some((mixed >> 33) % 100)
        }
        _ => {
            let divisor: u64 = inner.strip_prefix("n%")?.parse().ok()?;
            u64::from(number).checked_rem(divisor)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_numbers_and_are_written_out_within_texts() {
        let template =
            json!({"n": "{n}", "ring": "{n%5}", "name": "pump {n} of {x}", "list": ["{count}", 1], "open": "a{b"});

        let value = filled(&template, 12, 3);

        assert_eq!(
            value,
            json!({"n": 12, "ring": 2, "name": "pump 12 of {x}", "list": [3, 1], "open": "a{b"})
        );
    }

    #[test]
    fn a_behaviour_has_what_is_usual_and_no_other_members() {
        let read = Behaviour::parse(r#"{"every": "90s", "tags": {"a": 1}}"#).unwrap();

        assert_eq!((read.every, read.method_status), (Duration::from_secs(90), 200));
        assert_eq!(read.tags, json!({"a": 1}));
        assert_eq!(Behaviour::parse(r#"{"every": "never"}"#).unwrap().every, Duration::ZERO);
        for wrong in [r#"{"evry": "1s"}"#, r#"{"every": "soon"}"#, "[]"] {
            assert!(Behaviour::parse(wrong).is_err(), "{wrong}");
        }
    }
}
