//! Desired properties of `$edgeHub`: routes, and how long messages are kept while the hub is away.
//!
//! Routes are text here; the query crate compiles them.
//!
//! Source: `edge-broker.md` §6, `edge-agent.md` §1.3.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::fields::{Fields, collect, text_of, whole_number};
use super::{ConfigError, is_empty, schema_version};

/// What the broker shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeHubDesired {
    /// As given: `1.0` to `1.3`.
    pub schema_version: String,
    /// Routes by name.
    pub routes: BTreeMap<String, RouteSpec>,
    /// How long and how much is stored.
    pub store_and_forward: StoreAndForward,
}

/// A route before it is compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// `FROM … WHERE … INTO …`
    pub route: String,
    /// 0 (first) to 9; without one it comes after all that have one.
    pub priority: Option<u8>,
    /// How long its messages are kept; without one the store's own time counts.
    pub time_to_live: Option<Duration>,
}

/// `storeAndForwardConfiguration`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreAndForward {
    /// How long messages are kept; `None` is for ever.
    pub time_to_live: Option<Duration>,
    /// The most bytes that may be stored; `None` is no limit of the manifest's.
    pub max_size_bytes: Option<u64>,
    /// What happens at that limit. Ours.
    pub when_full: WhenFull,
    /// Which of the messages for the node above go first. Ours.
    pub order: ForwardOrder,
}

/// What happens to a message when the store is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum WhenFull {
    /// It is not taken in, and its sender not acknowledged.
    #[default]
    Refuse,
    /// The oldest of the least urgent make room for it.
    DropOldest,
}

/// Which of the messages for the node above go first, among those of one priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ForwardOrder {
    /// In the order in which they came.
    #[default]
    OldestFirst,
    /// What comes while the link is up, before what waited when it came up.
    NewestFirst,
}

impl EdgeHubDesired {
    /// Reads the desired section of the twin of `$edgeHub`, as the device gets it.
    ///
    /// # Errors
    /// [`ConfigError`], which names every route that is wrong.
    pub fn parse(desired: &Map<String, Value>) -> Result<Self, ConfigError> {
        if is_empty(desired) {
            return Err(ConfigError::EdgeHub(vec![
                "EdgeHub config missing SchemaVersion".to_owned(),
            ]));
        }
        let root = Fields::new("", "", desired);
        let (schema_version, minor) = supported_schema(root)?;
        let mut problems = Vec::new();
        let given = collect(&mut problems, root.object("routes")).flatten();
        let mut routes = BTreeMap::new();
        for (name, value) in given.into_iter().flatten() {
            // A route that a patch nulled is gone; one without a text was always passed over with schema 1.0.
            let is_blank = minor == 0 && value.as_str().is_some_and(|route| route.trim().is_empty());
            if value.is_null() || is_blank {
                continue;
            }
            if let Some(route) = collect(&mut problems, route(name, value, minor)) {
                routes.insert(name.clone(), route);
            }
        }
        let store_and_forward = collect(&mut problems, store_and_forward(root));
        match store_and_forward {
            Some(store_and_forward) if problems.is_empty() => Ok(Self {
                schema_version,
                routes,
                store_and_forward,
            }),
            _ => Err(ConfigError::EdgeHub(problems)),
        }
    }
}

fn supported_schema(root: Fields<'_>) -> Result<(String, u32), ConfigError> {
    let refuse = |text: String| Err(ConfigError::EdgeHub(vec![text]));
    let Some(given) = root.get("schemaVersion") else {
        return refuse("EdgeHub config missing SchemaVersion".to_owned());
    };
    let text = text_of(given).map_or_else(|| given.to_string(), Cow::into_owned);
    match schema_version(&text) {
        Some((1, minor @ 0..=3)) => Ok((text, minor)),
        _ => refuse(format!(
            "EdgeHub config contains unsupported SchemaVersion `{text}`; give 1.0 to 1.3"
        )),
    }
}

fn route(name: &str, value: &Value, minor: u32) -> Result<RouteSpec, String> {
    let invalid = |problem: String| format!("Error parsing route {name} - {problem}");
    match value {
        Value::String(route) => Ok(RouteSpec {
            route: route.clone(),
            priority: None,
            time_to_live: None,
        }),
        Value::Object(_) if minor == 0 => Err(invalid(
            "an object needs schemaVersion 1.1; with 1.0 a route is a string".to_owned(),
        )),
        Value::Object(map) => {
            let fields = Fields::new("routes", name, map);
            Ok(RouteSpec {
                route: fields.required_text("route").map_err(invalid)?.into_owned(),
                priority: priority(fields).map_err(invalid)?,
                time_to_live: route_time_to_live(fields).map_err(invalid)?,
            })
        }
        _ => Err(invalid("a route is a string or an object".to_owned())),
    }
}

/// What the original takes for "no priority", and tools write out.
const DEFAULT_PRIORITY: i64 = 2_000_000_000;

fn priority(fields: Fields<'_>) -> Result<Option<u8>, String> {
    match fields.get("priority") {
        None => Ok(None),
        Some(priority) => match whole_number(priority) {
            Some(DEFAULT_PRIORITY) => Ok(None),
            Some(number @ 0..=9) => Ok(u8::try_from(number).ok()),
            _ => Err(format!(
                "`{}` is {priority}: priority can only be between 0-9",
                fields.path("priority")
            )),
        },
    }
}

fn route_time_to_live(fields: Fields<'_>) -> Result<Option<Duration>, String> {
    match fields.get("timeToLiveSecs") {
        None => Ok(None),
        Some(seconds) => match whole_number(seconds).map(u32::try_from) {
            Some(Ok(0)) => Ok(None),
            Some(Ok(seconds)) => Ok(Some(Duration::from_secs(seconds.into()))),
            _ => Err(format!(
                "`{}` is {seconds}; give whole seconds from 0 to {}",
                fields.path("timeToLiveSecs"),
                u32::MAX
            )),
        },
    }
}

fn store_and_forward(root: Fields<'_>) -> Result<StoreAndForward, String> {
    const NAME: &str = "storeAndForwardConfiguration";
    let given = root
        .required_object(NAME)
        .map_err(|problem| format!("{problem}; give an object with `timeToLiveSecs`: seconds, or -1 for ever"))?;
    let fields = Fields::new("", NAME, given);
    let time_to_live = match fields.get("timeToLiveSecs") {
        None => {
            return Err(format!(
                "`{}` is missing; give seconds, or -1 for ever",
                fields.path("timeToLiveSecs")
            ));
        }
        Some(seconds) => match whole_number(seconds).map(i32::try_from) {
            Some(Ok(seconds)) => u64::try_from(seconds).ok().map(Duration::from_secs),
            _ => {
                return Err(format!(
                    "`{}` is {seconds}; give whole seconds up to {}, or -1 for ever",
                    fields.path("timeToLiveSecs"),
                    i32::MAX
                ));
            }
        },
    };
    let limits_path = fields.path("storeLimits");
    let limits = fields
        .object("storeLimits")?
        .map(|limits| Fields::new("", &limits_path, limits));
    let max_size_bytes = match limits.and_then(|limits| limits.get("maxSizeBytes")) {
        None => None,
        Some(bytes) => {
            let number = whole_number(bytes).and_then(|bytes| u64::try_from(bytes).ok());
            Some(number.filter(|bytes| *bytes > 0).ok_or_else(|| {
                format!("`{limits_path}.maxSizeBytes` is {bytes}; give a whole number of bytes above 0")
            })?)
        }
    };
    let when_full = one_of(
        &format!("{limits_path}.whenFull"),
        limits.and_then(|limits| limits.get("whenFull")),
        &[("refuse", WhenFull::Refuse), ("dropOldest", WhenFull::DropOldest)],
    )?;
    let order = one_of(
        &fields.path("order"),
        fields.get("order"),
        &[
            ("oldestFirst", ForwardOrder::OldestFirst),
            ("newestFirst", ForwardOrder::NewestFirst),
        ],
    )?;
    Ok(StoreAndForward {
        time_to_live,
        max_size_bytes,
        when_full,
        order,
    })
}

/// A word of a few; the default where there is none.
fn one_of<T: Copy + Default>(path: &str, value: Option<&Value>, words: &[(&str, T)]) -> Result<T, String> {
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return Ok(T::default());
    };
    let known = words.iter().find(|(word, _)| value.as_str() == Some(word));
    known.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let names: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        format!("`{path}` is {value}; give {}", names.join(" or "))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(desired: Value) -> Result<EdgeHubDesired, ConfigError> {
        EdgeHubDesired::parse(desired.as_object().unwrap())
    }

    fn refusal(desired: Value) -> String {
        let error = parse(desired).unwrap_err();
        assert_eq!(error.code(), 400);
        error.to_string()
    }

    #[test]
    fn both_forms_of_a_route_are_read() {
        let desired = parse(json!({
            "schemaVersion": "1.1",
            "routes": {
                "up": "FROM /messages/* INTO $upstream",
                "fast": {"route": "FROM /* INTO $upstream", "priority": 0, "timeToLiveSecs": 60},
                "plain": {"route": "FROM /* INTO $upstream", "timeToLiveSecs": 0},
                "gone": null,
            },
            "storeAndForwardConfiguration": {"timeToLiveSecs": 7200, "storeLimits": {"maxSizeBytes": 1000}},
        }))
        .unwrap();

        assert_eq!(desired.routes.len(), 3);
        assert_eq!(desired.routes["fast"].priority, Some(0));
        assert_eq!(desired.routes["fast"].time_to_live, Some(Duration::from_secs(60)));
        assert_eq!(
            (desired.routes["plain"].priority, desired.routes["plain"].time_to_live),
            (None, None)
        );
        assert_eq!(desired.store_and_forward.time_to_live, Some(Duration::from_secs(7200)));
        assert_eq!(desired.store_and_forward.max_size_bytes, Some(1000));
    }

    #[test]
    fn minus_one_is_for_ever_and_zero_is_not() {
        let ttl = |seconds: i64| {
            let desired = json!({"schemaVersion": "1.0", "storeAndForwardConfiguration": {"timeToLiveSecs": seconds}});
            parse(desired).unwrap().store_and_forward.time_to_live
        };

        assert_eq!(ttl(-1), None);
        assert_eq!(ttl(0), Some(Duration::ZERO));
    }

    #[test]
    fn every_bad_route_is_named() {
        let text = refusal(json!({
            "schemaVersion": "1.1",
            "routes": {"a": 1, "b": {}, "c": {"route": "x", "priority": 10}, "d": {"route": "x", "timeToLiveSecs": -1}, "e": "ok"},
            "storeAndForwardConfiguration": {},
        }));

        for part in [
            "Error parsing route a - ",
            "Error parsing route b - `routes.b.route` is missing",
            "priority can only be between 0-9",
            "Error parsing route d - `routes.d.timeToLiveSecs` is -1",
            "`storeAndForwardConfiguration.timeToLiveSecs` is missing",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("route e"));
    }

    #[test]
    fn a_missing_store_and_forward_is_told_with_what_to_give() {
        let text = refusal(json!({"schemaVersion": "1.1", "routes": {}}));

        assert!(
            text.contains("`storeAndForwardConfiguration` is missing; give an object with `timeToLiveSecs`"),
            "{text}"
        );
    }

    #[test]
    fn the_object_form_needs_schema_1_1() {
        let text = refusal(json!({
            "schemaVersion": "1.0",
            "routes": {"a": {"route": "FROM /* INTO $upstream"}},
            "storeAndForwardConfiguration": {"timeToLiveSecs": 1},
        }));

        assert!(text.contains("schemaVersion 1.1"), "{text}");
    }

    #[test]
    fn values_that_the_original_converts_are_read() {
        let desired = parse(json!({
            "SchemaVersion": 1.1,
            "Routes": {"a": {"Route": "FROM /* INTO $upstream", "priority": "3", "TimeToLiveSecs": "60"},
                "b": {"route": "FROM /* INTO $upstream", "priority": 2_000_000_000, "timeToLiveSecs": 0}},
            "storeandforwardconfiguration": {"timeToLiveSecs": "7200", "StoreLimits": {"maxsizebytes": "9"}},
        }))
        .unwrap();

        let a = &desired.routes["a"];
        assert_eq!((a.priority, a.time_to_live), (Some(3), Some(Duration::from_secs(60))));
        let b = &desired.routes["b"];
        assert_eq!((b.priority, b.time_to_live), (None, None));
        assert_eq!(desired.store_and_forward.time_to_live, Some(Duration::from_secs(7200)));
        assert_eq!(desired.store_and_forward.max_size_bytes, Some(9));
    }

    #[test]
    fn a_blank_route_is_passed_over_with_schema_1_0_only() {
        let routes = |version: &str| {
            parse(
                json!({"schemaVersion": version, "routes": {"a": " ", "b": "FROM /* INTO $upstream", "c": null},
                "storeAndForwardConfiguration": {"timeToLiveSecs": 1}}),
            )
        };

        let names: Vec<_> = routes("1.0").unwrap().routes.into_keys().collect();

        assert_eq!(names, ["b"]);
        assert_eq!(routes("1.1").unwrap().routes.len(), 2);
    }

    #[test]
    fn a_missing_or_foreign_schema_version_is_400() {
        assert_eq!(refusal(json!({"routes": {}})), "EdgeHub config missing SchemaVersion");
        assert_eq!(refusal(json!({})), "EdgeHub config missing SchemaVersion");
        assert!(refusal(json!({"schemaVersion": "2.0"})).contains("unsupported SchemaVersion `2.0`"));
    }

    #[test]
    fn what_happens_at_the_limit_and_the_order_are_words_and_others_are_named() {
        let parsed = |limits: Value, order: Value| {
            parse(json!({
                "schemaVersion": "1.1",
                "storeAndForwardConfiguration": {"timeToLiveSecs": 1, "storeLimits": limits, "order": order},
            }))
        };

        let plain = parsed(json!({}), Value::Null).unwrap().store_and_forward;
        let ours = parsed(
            json!({"maxSizeBytes": 9, "whenFull": "dropOldest"}),
            json!("newestFirst"),
        );
        let ours = ours.unwrap().store_and_forward;
        let wrong = parsed(json!({"whenFull": "explode"}), Value::Null)
            .unwrap_err()
            .to_string();
        let unordered = parsed(json!({}), json!(3)).unwrap_err().to_string();

        assert_eq!(
            (plain.when_full, plain.order),
            (WhenFull::Refuse, ForwardOrder::OldestFirst)
        );
        assert_eq!(
            (ours.when_full, ours.order),
            (WhenFull::DropOldest, ForwardOrder::NewestFirst)
        );
        assert!(
            wrong.contains("storeLimits.whenFull` is \"explode\"; give `refuse` or `dropOldest`"),
            "{wrong}"
        );
        assert!(unordered.contains("`oldestFirst` or `newestFirst`"), "{unordered}");
    }
}
