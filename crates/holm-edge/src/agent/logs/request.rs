//! What a method asks of the logs: which modules, which lines, in which form.
//!
//! Source: `edge-agent.md` §2.6.

use holm_model::{ModuleId, Timestamp};
use regex_lite::{Regex, RegexBuilder};
use serde_json::Value;

use crate::moment;

/// The longest pattern that is compiled, in bytes.
const LONGEST_PATTERN: usize = 4096;

/// Whether a payload is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::agent) enum Encoding {
    #[default]
    None,
    Gzip,
}

/// The form of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::agent) enum Content {
    #[default]
    Text,
    Json,
}

/// Which lines are wanted.
#[derive(Clone, Debug, Default)]
pub(in crate::agent) struct Filter {
    pub(super) tail: Option<u64>,
    pub(super) since: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
    pub(super) level: Option<u8>,
    pub(super) pattern: Option<Regex>,
}

#[derive(Clone, Debug)]
struct Item {
    /// `None`: every module.
    id: Option<Regex>,
    named: String,
    filter: Filter,
}

/// The logs that are asked for.
#[derive(Clone, Debug)]
pub(in crate::agent) struct LogRequest {
    items: Vec<Item>,
    pub(super) encoding: Encoding,
    pub(super) content: Content,
}

impl LogRequest {
    /// Reads a payload.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub(in crate::agent) fn read(payload: &Value, now: Timestamp) -> Result<Self, String> {
        let items = match field(payload, "items") {
            Some(Value::Array(items)) if !items.is_empty() => items.iter().collect(),
            Some(item @ Value::Object(_)) => vec![item],
            _ => return Err("`items` is missing; give `{\"id\": \"all\"}` or a list of such objects".to_owned()),
        };
        let encoding = match word(payload, "encoding")?.as_deref() {
            None | Some("none") => Encoding::None,
            Some("gzip") => Encoding::Gzip,
            Some(other) => return Err(format!("`encoding` is `{other}`; give `none` or `gzip`")),
        };
        let content = match word(payload, "contentType")?.as_deref() {
            None | Some("text") => Content::Text,
            Some("json") => Content::Json,
            Some(other) => return Err(format!("`contentType` is `{other}`; give `text` or `json`")),
        };
        let items: Result<Vec<Item>, String> = items.into_iter().map(|item| read_item(item, now)).collect();
        Ok(Self {
            items: items?,
            encoding,
            content,
        })
    }

    /// The modules that are asked for, each with the filter of the first item that means it.
    ///
    /// # Errors
    /// An item that means none, for people.
    pub(super) fn select(&self, modules: &[ModuleId]) -> Result<Vec<(ModuleId, Filter)>, String> {
        for item in &self.items {
            if item.id.is_some() && !modules.iter().any(|module| item.means(module)) {
                let named = &item.named;
                let hint = if ["edgeagent", "edgehub"].contains(&named.to_ascii_lowercase().as_str()) {
                    "; agent and broker are parts of the edge itself, whose log is the service's (`journalctl`)"
                } else {
                    ""
                };
                return Err(format!("no module of this device has an id like `{named}`{hint}"));
            }
        }
        let chosen = modules.iter().filter_map(|module| {
            let item = self.items.iter().find(|item| item.means(module))?;
            Some((module.clone(), item.filter.clone()))
        });
        Ok(chosen.collect())
    }
}

impl Item {
    fn means(&self, module: &ModuleId) -> bool {
        self.id.as_ref().is_none_or(|id| id.is_match(module.as_str()))
    }
}

fn read_item(item: &Value, now: Timestamp) -> Result<Item, String> {
    let named = field(item, "id").and_then(Value::as_str).unwrap_or_default().to_owned();
    if named.is_empty() {
        return Err("`items.id` is missing; give a module's id, a pattern for ids, or `all`".to_owned());
    }
    let id = if named.eq_ignore_ascii_case("all") {
        None
    } else {
        Some(pattern("items.id", &named, true)?)
    };
    let filter = field(item, "filter").filter(|filter| !filter.is_null());
    let filter = filter.map_or_else(|| Ok(Filter::default()), |filter| read_filter(filter, now))?;
    Ok(Item { id, named, filter })
}

fn read_filter(filter: &Value, now: Timestamp) -> Result<Filter, String> {
    let number = |name: &str| match field(filter, name) {
        None | Some(Value::Null) => Ok(None),
        // The published tools write numbers in either form.
        Some(value) => {
            let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
            let wrong = || format!("`filter.{name}` is {value}; give a whole number");
            number.map(Some).ok_or_else(wrong)
        }
    };
    let time = |name: &str| match field(filter, name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let forms = "a time (2026-01-02T03:04:05Z), seconds since 1970, or how long ago (`1 day`)";
            let wrong = || format!("`filter.{name}` is `{text}`; give {forms}");
            moment::read(&text, now).map(Some).ok_or_else(wrong)
        }
    };
    let level = match number("loglevel")? {
        None => None,
        Some(level) => {
            let known = u8::try_from(level).ok().filter(|level| *level <= 7);
            Some(known.ok_or_else(|| format!("`filter.loglevel` is {level}; give a severity from 0 to 7"))?)
        }
    };
    let text = word_as_is(filter, "regex")?;
    Ok(Filter {
        tail: number("tail")?,
        since: time("since")?,
        until: time("until")?,
        level,
        pattern: text.map(|text| pattern("filter.regex", &text, false)).transpose()?,
    })
}

fn pattern(name: &str, text: &str, ignores_case: bool) -> Result<Regex, String> {
    if text.len() > LONGEST_PATTERN {
        return Err(format!("`{name}` is longer than {LONGEST_PATTERN} bytes"));
    }
    let built = RegexBuilder::new(text).case_insensitive(ignores_case).build();
    built.map_err(|error| format!("`{name}` is `{text}`, which is no pattern that can be used: {error}"))
}

/// A member by its name, without regard to case.
pub(super) fn field<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let members = value.as_object()?;
    let exact = members.get(name);
    exact.or_else(|| {
        members
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    })
}

fn word(value: &Value, name: &str) -> Result<Option<String>, String> {
    Ok(word_as_is(value, name)?.map(|text| text.to_ascii_lowercase()))
}

fn word_as_is(value: &Value, name: &str) -> Result<Option<String>, String> {
    match field(value, name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(format!("`{name}` is {other}; give a text")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(payload: Value) -> Result<LogRequest, String> {
        LogRequest::read(&payload, Timestamp::from_unix_seconds(1_000_000))
    }

    fn modules() -> Vec<ModuleId> {
        ["pump", "pump2", "valve"].map(|id| ModuleId::new(id).unwrap()).to_vec()
    }

    fn chosen(items: Value) -> Vec<(String, Option<u64>)> {
        let request = read(json!({"items": items})).unwrap();
        let chosen = request.select(&modules()).unwrap().into_iter();
        chosen.map(|(id, filter)| (id.to_string(), filter.tail)).collect()
    }

    #[test]
    fn ids_are_patterns_without_case_and_the_first_item_wins() {
        let of = |id: &str, tail: Option<u64>| (id.to_owned(), tail);

        assert_eq!(chosen(json!({"id": "ALL"})).len(), 3);
        assert_eq!(chosen(json!([{"id": "PUMP"}])), [of("pump", None), of("pump2", None)]);
        assert_eq!(
            chosen(json!([{"id": "^pump$", "filter": {"tail": 3}}, {"id": "all", "filter": {"tail": "9"}}])),
            [of("pump", Some(3)), of("pump2", Some(9)), of("valve", Some(9))]
        );
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        for (payload, word) in [
            (json!({}), "`items`"),
            (json!({"items": []}), "`items`"),
            (json!({"items": {"id": ""}}), "`items.id`"),
            (json!({"items": {"id": "("}}), "`items.id`"),
            (json!({"items": {"id": "all"}, "encoding": "zip"}), "`encoding`"),
            (json!({"items": {"id": "all"}, "contentType": "xml"}), "`contentType`"),
            (
                json!({"items": {"id": "all", "filter": {"regex": "["}}}),
                "`filter.regex`",
            ),
            (
                json!({"items": {"id": "all", "filter": {"since": "soon"}}}),
                "`filter.since`",
            ),
            (
                json!({"items": {"id": "all", "filter": {"loglevel": 9}}}),
                "`filter.loglevel`",
            ),
            (json!({"items": {"id": "all", "filter": {"tail": -1}}}), "`filter.tail`"),
        ] {
            let error = read(payload.clone()).unwrap_err();
            assert!(error.contains(word), "{payload}: {error}");
        }
        let nobody = read(json!({"items": {"id": "edgeHub"}})).unwrap();
        let error = nobody.select(&modules()).unwrap_err();
        assert!(error.contains("`edgeHub`") && error.contains("journalctl"), "{error}");
    }

    #[test]
    fn times_are_read_in_every_published_form() {
        let payload = json!({"items": {"id": "all", "filter": {"since": "1 day", "until": 999_999, "loglevel": 3}}});
        let filter = read(payload).unwrap().items[0].filter.clone();

        assert_eq!(filter.since, Some(Timestamp::from_unix_seconds(1_000_000 - 86_400)));
        assert_eq!(filter.until, Some(Timestamp::from_unix_seconds(999_999)));
        assert_eq!(filter.level, Some(3));
    }
}
