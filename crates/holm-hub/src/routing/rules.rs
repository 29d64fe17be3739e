//! Routes and enrichments, as operators write them.
//!
//! ```text
//! route       {"name": "alarms", "source": "DeviceMessages", "condition": "level = 'alarm'", "endpoint": "hot", "enabled": true}
//! enrichment  {"key": "site", "value": "$twin.tags.site", "endpoints": ["events", "hot"]}
//! fallback    {"enabled": true}
//! ```
//!
//! What is here compiles: a condition or value that means nothing is refused when it is written, with its place.
//!
//! Source: `hub-service-api.md` §4.2.

use std::collections::BTreeSet;
use std::sync::Arc;

use holm_query::problem::Position;
use holm_query::{HubCondition, Problem, TwinPath};
use serde_json::{Map, Value, json};

use super::definition::{DefinitionError, EndpointName, Members};
use super::source::Source;

/// The most bytes of a condition.
const LONGEST_CONDITION: usize = 8192;
/// The most bytes of a value of an enrichment.
const LONGEST_VALUE: usize = 1024;
/// The most characters of a route's name, and of an enrichment's key.
const LONGEST_NAME: usize = 64;

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    /// The event log, which back ends read as an Event Hub.
    Events,
    /// An endpoint that an operator has defined.
    Endpoint(EndpointName),
}

impl Destination {
    /// The destination of a name.
    ///
    /// # Errors
    /// When the name can be none.
    pub fn of_name(name: &str, member: &str) -> Result<Self, DefinitionError> {
        if name.eq_ignore_ascii_case(EndpointName::EVENTS) {
            return Ok(Self::Events);
        }
        let parsed = name.parse().map(Self::Endpoint);
        parsed.map_err(|error: DefinitionError| DefinitionError::new(member, error.text))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Events => EndpointName::EVENTS,
            Self::Endpoint(name) => name.as_str(),
        }
    }
}

/// Says which messages go to an endpoint.
#[derive(Clone, Debug)]
pub struct Route {
    /// What it is called.
    pub name: String,
    /// What kind of messages it is about.
    pub source: Source,
    /// The condition as it was written.
    pub text: String,
    /// And checked.
    pub condition: Arc<HubCondition>,
    /// Where they go.
    pub to: Destination,
    /// Whether it counts.
    pub enabled: bool,
}

impl Route {
    /// Reads a route. `name` is that of the path; a document may repeat it.
    ///
    /// # Errors
    /// [`DefinitionError`] with the member; of a condition with every place where it is wrong.
    pub fn read(name: &str, document: Map<String, Value>) -> Result<Self, DefinitionError> {
        check_name("name", name)?;
        let mut members = Members::new(document);
        members.ignore("etag");
        same_name(&mut members, "name", name)?;
        let source = members.text("source", LONGEST_NAME)?;
        let source = source.map(|source| source_of(&source)).transpose()?;
        let text = members
            .text("condition", LONGEST_CONDITION)?
            .unwrap_or_else(|| "true".to_owned());
        let condition = HubCondition::compile(&text).map_err(|problems| {
            let all: Vec<_> = problems.iter().map(ToString::to_string).collect();
            DefinitionError::new("condition", all.join("\n"))
        })?;
        let to = Destination::of_name(&members.required_text("endpoint", EndpointName::LONGEST)?, "endpoint")?;
        let enabled = members.boolean("enabled", true)?;
        members.finish()?;
        Ok(Self {
            name: name.to_owned(),
            source: source.unwrap_or(Source::DeviceMessages),
            text,
            condition: Arc::new(condition),
            to,
            enabled,
        })
    }

    /// The route as a document that [`Route::read`] reads.
    #[must_use]
    pub fn write(&self) -> Map<String, Value> {
        object(json!({
            "name": self.name,
            "source": self.source.name(),
            "condition": self.text,
            "endpoint": self.to.name(),
            "enabled": self.enabled,
        }))
    }
}

/// What is wrong with a condition, as documents tell it.
#[must_use]
pub fn problem_to_json(problem: &Problem) -> Value {
    json!({ "line": problem.line, "column": problem.column, "message": problem.message, "remedy": problem.remedy })
}

/// The value of an enrichment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnrichmentValue {
    /// The text itself.
    Literal,
    /// The hub's name.
    HubName,
    /// A value of the twin of the sender; the text itself where there is none.
    Twin(TwinPath),
}

/// A property that the hub adds to messages.
#[derive(Clone, Debug)]
pub struct Enrichment {
    /// The name of the application property.
    pub key: String,
    /// The value as it was written.
    pub text: String,
    /// And what it means.
    pub value: EnrichmentValue,
    /// For which destinations.
    pub to: BTreeSet<Destination>,
}

impl Enrichment {
    /// Reads an enrichment. `key` is that of the path; a document may repeat it.
    ///
    /// # Errors
    /// [`DefinitionError`] with the member.
    pub fn read(key: &str, document: Map<String, Value>) -> Result<Self, DefinitionError> {
        check_name("key", key)?;
        let mut members = Members::new(document);
        members.ignore("etag");
        same_name(&mut members, "key", key)?;
        let text = members.required_text("value", LONGEST_VALUE)?;
        let names = members.words("endpoints", EndpointName::LONGEST)?;
        members.finish()?;
        let to: BTreeSet<_> = names
            .iter()
            .map(|name| Destination::of_name(name, "endpoints"))
            .collect::<Result<_, _>>()?;
        if to.is_empty() {
            let text = "is empty or missing; name the endpoints whose messages get the property";
            return Err(DefinitionError::new("endpoints", text));
        }
        Ok(Self {
            key: key.to_owned(),
            value: value_of(&text),
            text,
            to,
        })
    }

    /// The enrichment as a document that [`Enrichment::read`] reads.
    #[must_use]
    pub fn write(&self) -> Map<String, Value> {
        let to: Vec<_> = self.to.iter().map(Destination::name).collect();
        object(json!({ "key": self.key, "value": self.text, "endpoints": to }))
    }
}

/// A path that leads to nothing that a twin has is a literal, as published.
fn value_of(text: &str) -> EnrichmentValue {
    if text.eq_ignore_ascii_case("$iothubname") {
        return EnrichmentValue::HubName;
    }
    let path = text
        .strip_prefix("$twin.")
        .map(|path| TwinPath::parse(path, Position::START));
    match path {
        Some(Ok(path)) => EnrichmentValue::Twin(path),
        _ => EnrichmentValue::Literal,
    }
}

fn source_of(name: &str) -> Result<Source, DefinitionError> {
    Source::of_name(name).ok_or_else(|| {
        let names: Vec<_> = Source::ALL.iter().map(|source| source.name()).collect();
        DefinitionError::new("source", format!("is `{name}`; give one of {}", names.join(", ")))
    })
}

/// Names are short and plain; `$fallback` and the like are the hub's own.
fn check_name(member: &str, name: &str) -> Result<(), DefinitionError> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(is_good) {
        return Ok(());
    }
    let rule = format!("must be 1 to {LONGEST_NAME} of A-Z, a-z, 0-9, `-`, `_`, `.`");
    Err(DefinitionError::new(member, rule))
}

fn same_name(members: &mut Members, member: &'static str, name: &str) -> Result<(), DefinitionError> {
    match members.text(member, LONGEST_NAME)? {
        Some(given) if given != name => {
            let text = format!("is `{given}`, but the path says `{name}`");
            Err(DefinitionError::new(member, text))
        }
        _ => Ok(()),
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(document: Value) -> Result<Route, DefinitionError> {
        Route::read("r", document.as_object().unwrap().clone())
    }

    #[test]
    fn a_route_is_read_as_it_was_written() {
        let route = read(
            json!({ "source": "devicemessages", "condition": "$body.a > 1", "endpoint": "hot", "enabled": false }),
        )
        .unwrap();
        let again = Route::read("r", route.write()).unwrap();

        assert_eq!(again.write(), route.write());
        assert_eq!(route.write()["source"], "DeviceMessages");
        assert_eq!(read(json!({ "endpoint": "EVENTS" })).unwrap().to, Destination::Events);
    }

    #[test]
    fn what_is_wrong_with_a_route_is_named_with_its_place() {
        for (document, member) in [
            (json!({}), "endpoint"),
            (json!({ "endpoint": "a b" }), "endpoint"),
            (json!({ "endpoint": "e", "source": "Telemetry" }), "source"),
            (json!({ "endpoint": "e", "condition": "a = = 1" }), "condition"),
            (json!({ "endpoint": "e", "condition": "x".repeat(9000) }), "condition"),
            (json!({ "endpoint": "e", "name": "other" }), "name"),
            (json!({ "endpoint": "e", "isEnabled": true }), "isEnabled"),
        ] {
            assert_eq!(read(document.clone()).unwrap_err().member, member, "{document}");
        }
        let problem = read(json!({ "endpoint": "e", "condition": "a = = 1" })).unwrap_err();
        assert!(problem.text.starts_with("line 1, column 5"), "{problem}");
        assert!(Route::read("$fallback", Map::new()).is_err());
    }

    #[test]
    fn the_value_of_an_enrichment_is_a_literal_unless_it_means_something() {
        let value = |text: &str| {
            let document = json!({ "value": text, "endpoints": ["events"] });
            Enrichment::read("k", document.as_object().unwrap().clone())
                .unwrap()
                .value
        };

        assert_eq!(value("plant 7"), EnrichmentValue::Literal);
        assert_eq!(value("$iothubname"), EnrichmentValue::HubName);
        assert!(matches!(value("$twin.tags.site"), EnrichmentValue::Twin(_)));
        assert!(matches!(
            value("$twin.properties.reported.a.b"),
            EnrichmentValue::Twin(_)
        ));
        assert_eq!(value("$twin.deviceId"), EnrichmentValue::Literal);
        assert_eq!(value("$body.a"), EnrichmentValue::Literal);
    }
}
