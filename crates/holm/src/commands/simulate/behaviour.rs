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

use anyhow::{Context as _, anyhow, bail};
use serde::{Deserialize, Deserializer};
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

/// As it stands in the file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    every: Option<String>,
    #[serde(default, deserialize_with = "given")]
    body: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    report: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    tags: Option<Value>,
    method_status: Option<i32>,
}

/// A value that is given, be it null.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Written {
    /// What of it has a form that nobody can follow: where it stands, and what is wrong.
    fn wrong(&self) -> Option<(String, String)> {
        for (name, value) in [("report", &self.report), ("tags", &self.tags)] {
            if let Some(value) = value.as_ref().filter(|value| !value.is_object() && !value.is_null()) {
                let text = format!("`{name}` is `{value}`: give an object, or null for none");
                return Some((format!("\"{name}\""), text));
            }
        }
        let templates = [&self.body, &self.report, &self.tags].into_iter().flatten();
        let text = templates.flat_map(without_divisor).next()?;
        let told = format!("`{text}` has no number to divide by; write it as `{{n%5}}`");
        Some((Value::from(text).to_string(), told))
    }

    fn every(&self, usual: Duration) -> Result<Duration, String> {
        match self.every.as_deref() {
            None => Ok(usual),
            Some("never") => Ok(OFF),
            Some(text) => match values::duration(text) {
                Ok(every) if every > OFF => Ok(every),
                Ok(_) => Err(format!("`every` is `{text}`: give `never`, or at least `1s`")),
                Err(why) => Err(format!("`every` is `{text}`: {why}")),
            },
        }
    }
}

/// The line on which a text stands first, as the end of a sentence.
fn at_line(file: &str, text: &str) -> String {
    let before = file.find(text).and_then(|place| file.get(..place));
    before.map_or_else(String::new, |before| {
        format!(" at line {}", before.matches('\n').count() + 1)
    })
}

/// A text of the template in which `{n%` is followed by nothing that divides.
fn without_divisor(template: &Value) -> Option<&str> {
    match template {
        Value::String(text) => {
            let mut rests = text.split("{n%").skip(1);
            let is_wrong = rests.any(|rest| {
                let divisor = rest
                    .split_once('}')
                    .and_then(|(divisor, _)| divisor.parse::<u64>().ok());
                divisor.is_none_or(|divisor| divisor == 0)
            });
            is_wrong.then_some(text)
        }
        Value::Array(items) => items.iter().find_map(without_divisor),
        Value::Object(members) => members.values().find_map(without_divisor),
        _ => None,
    }
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
        let every = written.every(usual.every);
        let every = every.map_err(|why| anyhow!("{why}{}", at_line(text, "\"every\"")))?;
        if let Some((place, why)) = written.wrong() {
            bail!("{why}{}", at_line(text, &place));
        }
        Ok(Self {
            every,
            body: written.body.unwrap_or(usual.body),
            report: written.report.unwrap_or(usual.report),
            tags: written.tags.unwrap_or(usual.tags),
            method_status: written.method_status.unwrap_or(usual.method_status),
        })
    }

    /// Whether devices report what they are.
    pub(super) fn reports(&self) -> bool {
        !self.report.is_null()
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
        assert!(!Behaviour::parse(r#"{"report": null}"#).unwrap().reports());
    }

    #[test]
    fn what_is_wrong_in_a_file_is_told_with_its_line() {
        for (wrong, told) in [
            ("{\n\"evry\": \"1s\"\n}", "unknown field `evry`"),
            ("{\n\"every\": \"soon\"\n}", "`every` is `soon`: it is no time"),
            ("{\n\"every\": \"0s\"\n}", "`every` is `0s`: give `never`"),
            ("{\n\"tags\": 5\n}", "`tags` is `5`: give an object"),
            ("{\"body\":\n[\"{n%0}\"]\n}", "`{n%0}` has no number to divide by"),
            ("{\n\"methodStatus\": \"ok\"\n}", "invalid type"),
            ("{\n\"every\" \"1s\"\n}", "expected `:`"),
        ] {
            let error = Behaviour::parse(wrong).unwrap_err().to_string();

            assert!(error.contains(told) && error.contains("line 2"), "{error}");
        }
    }
}
