//! The digital twin: a twin rearranged by the components and properties of a plug-and-play model, and patches of it.
//!
//! ```text
//! desired  {"limit":3,"pump":{"__t":"c","speed":9}}            {"$dtId":"d1", "limit":3,
//! reported {"limit":{"value":3,"ac":200,"av":2},        ->      "pump":{"load":0.5,"$metadata":{"speed":{"desiredValue":9,…},…}},
//!           "pump":{"__t":"c","load":0.5}}                      "$metadata":{"$model":"dtmi:…;1","limit":{"desiredValue":3,"ackCode":200,…}}}
//! ```
//!
//! A value is what the device says; what is wanted of it stands in the metadata. The hub reads no models: an object with the mark
//! `__t` is a component, and the first part of a patch's path names one unless a property of that name is there.
//!
//! Source: `hub-service-api.md` §2.2; the published conventions of plug and play.

mod difference;

use holm_model::twin::{Section, patch};
use holm_model::{ServiceError, Twin, TwinUpdate, strict_json};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Marks an object as a component.
const MARK: &str = "__t";
/// The most operations of one patch.
const MAX_OPERATIONS: usize = 1000;

/// One operation of a JSON Patch (RFC 6902).
#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Operation {
    op: Kind,
    path: String,
    #[serde(default)]
    value: Value,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Add,
    Replace,
    Remove,
}

/// A JSON Patch of a digital twin.
#[derive(Clone, Debug, PartialEq)]
pub struct DigitalPatch(Vec<Operation>);

/// The digital twin of a device that has announced a model.
#[must_use]
pub fn view(twin: &Twin, model: &str) -> Value {
    Value::Object(document(twin, model))
}

/// What has changed between two states of the digital twin, a JSON Patch; empty for nothing.
#[must_use]
pub fn changes(before: &Twin, after: &Twin, model: &str) -> Vec<Value> {
    difference::difference(&document(before, model), &document(after, model))
}

fn document(twin: &Twin, model: &str) -> Map<String, Value> {
    let (desired, reported) = (Part::of(twin.desired()), Part::of(twin.reported()));
    let mut metadata = Map::from_iter([("$model".to_owned(), json!(model))]);
    let mut document = Map::from_iter([("$dtId".to_owned(), json!(twin.identity().device))]);
    for name in names(&desired, &reported) {
        let (wanted, told) = (desired.child(name), reported.child(name));
        if wanted.is_component() || told.is_component() {
            let (mut component, mut of_component) = (Map::new(), Map::new());
            for name in names(&wanted, &told).into_iter().filter(|name| *name != MARK) {
                property(name, &wanted, &told, &mut component, &mut of_component);
            }
            component.insert("$metadata".to_owned(), Value::Object(of_component));
            document.insert(name.to_owned(), Value::Object(component));
        } else {
            property(name, &desired, &reported, &mut document, &mut metadata);
        }
    }
    document.insert("$metadata".to_owned(), Value::Object(metadata));
    document
}

/// Properties beside their metadata.
#[derive(Clone, Copy)]
struct Part<'t> {
    properties: Option<&'t Map<String, Value>>,
    metadata: Option<&'t Map<String, Value>>,
}

impl<'t> Part<'t> {
    fn of(section: &'t Section) -> Self {
        Self {
            properties: Some(section.properties()),
            metadata: Some(section.metadata()),
        }
    }

    fn value(&self, name: &str) -> Option<&'t Value> {
        self.properties?.get(name)
    }

    fn noted(&self, name: &str, what: &str) -> Option<&'t Value> {
        self.metadata?.get(name)?.get(what)
    }

    fn child(&self, name: &str) -> Self {
        let object = |part: Option<&'t Map<String, Value>>| part?.get(name)?.as_object();
        Self {
            properties: object(self.properties),
            metadata: object(self.metadata),
        }
    }

    fn is_component(&self) -> bool {
        self.properties.is_some_and(|properties| properties.contains_key(MARK))
    }
}

/// The names of both, each once.
fn names<'t>(one: &Part<'t>, other: &Part<'t>) -> Vec<&'t str> {
    let keys = |part: &Part<'t>| part.properties.into_iter().flat_map(Map::keys).map(String::as_str);
    let mut all: Vec<&str> = keys(one).chain(keys(other)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn property(
    name: &str,
    wanted: &Part<'_>,
    told: &Part<'_>,
    values: &mut Map<String, Value>,
    metadata: &mut Map<String, Value>,
) {
    let mut about = Map::new();
    if let Some(value) = wanted.value(name) {
        about.insert("desiredValue".to_owned(), value.clone());
        if let Some(version) = wanted.noted(name, "$lastUpdatedVersion") {
            about.insert("desiredVersion".to_owned(), version.clone());
        }
    }
    if let Some(value) = told.value(name) {
        let answer = value.as_object().filter(|object| is_answer(object));
        for (published, given) in [("ackCode", "ac"), ("ackVersion", "av"), ("ackDescription", "ad")] {
            if let Some(given) = answer.and_then(|answer| answer.get(given)) {
                about.insert(published.to_owned(), given.clone());
            }
        }
        let value = answer.and_then(|answer| answer.get("value")).unwrap_or(value);
        values.insert(name.to_owned(), value.clone());
    }
    let last = told
        .noted(name, "$lastUpdated")
        .or_else(|| wanted.noted(name, "$lastUpdated"));
    if let Some(last) = last {
        about.insert("lastUpdateTime".to_owned(), last.clone());
    }
    metadata.insert(name.to_owned(), Value::Object(about));
}

/// Whether a reported value is the device's answer to a desired one.
fn is_answer(object: &Map<String, Value>) -> bool {
    ["value", "ac", "av"].iter().all(|name| object.contains_key(*name))
}

impl DigitalPatch {
    /// Reads a JSON Patch.
    ///
    /// # Errors
    /// `ArgumentInvalid` when it is none, or has an operation other than `add`, `replace` and `remove`.
    pub fn from_json(body: &[u8]) -> Result<Self, ServiceError> {
        let wrong = |error: serde_json::Error| {
            let text = format!("the body must be an array of `add`, `replace` and `remove`: {error}");
            ServiceError::argument_invalid(text)
        };
        let operations: Vec<Operation> =
            serde_json::from_value(strict_json::parse(body).map_err(wrong)?).map_err(wrong)?;
        if operations.len() > MAX_OPERATIONS {
            let text = format!(
                "the patch has {} operations; at most {MAX_OPERATIONS} are allowed",
                operations.len()
            );
            return Err(ServiceError::argument_invalid(text));
        }
        Ok(Self(operations))
    }

    /// What it changes in the desired properties of a twin.
    ///
    /// # Errors
    /// `ArgumentInvalid` naming the path that can't be followed.
    pub fn update_of(&self, twin: &Twin) -> Result<TwinUpdate, ServiceError> {
        let before = twin.desired().properties();
        let mut after = before.clone();
        for operation in &self.0 {
            operation.apply(&mut after, twin)?;
        }
        Ok(TwinUpdate::of_desired(patch::diff(before, &after)))
    }
}

impl Operation {
    fn apply(&self, desired: &mut Map<String, Value>, twin: &Twin) -> Result<(), ServiceError> {
        let path = self.tokens()?;
        let Some((last, above)) = path.split_last() else {
            return Err(self.wrong("names nothing; begin with the name of a property or component"));
        };
        let is_plain = |properties: &Map<String, Value>, name: &str| {
            let known = properties.get(name).and_then(Value::as_object);
            known.is_some_and(|known| !known.contains_key(MARK))
        };
        let mut place = desired;
        for (depth, name) in above.iter().enumerate() {
            let is_component = depth == 0 && !is_plain(place, name) && !is_plain(twin.reported().properties(), name);
            let child = place.entry(name.as_str()).or_insert_with(|| json!({}));
            let Value::Object(child) = child else {
                return Err(self.wrong(&format!("goes through `{name}`, which is no object")));
            };
            if is_component {
                child.entry(MARK).or_insert_with(|| json!("c"));
            }
            place = child;
        }
        match self.op {
            Kind::Remove => {
                let removed = place.remove(last);
                removed.map(|_| ()).ok_or_else(|| self.wrong("is not there"))
            }
            Kind::Add | Kind::Replace => {
                place.insert(last.clone(), as_component(self.value.clone()));
                Ok(())
            }
        }
    }

    /// The parts of a JSON pointer (RFC 6901).
    fn tokens(&self) -> Result<Vec<String>, ServiceError> {
        let Some(rest) = self.path.strip_prefix('/') else {
            return Err(self.wrong("must begin with `/`"));
        };
        let decode = |token: &str| token.replace("~1", "/").replace("~0", "~");
        Ok(rest.split('/').map(decode).collect())
    }

    fn wrong(&self, why: &str) -> ServiceError {
        let shown: String = self.path.chars().take(200).collect();
        ServiceError::argument_invalid(format!("the path `{shown}` {why}"))
    }
}

/// A component is given with `$metadata`, which it must have and which is empty.
fn as_component(mut value: Value) -> Value {
    if let Value::Object(object) = &mut value
        && object.remove("$metadata").is_some()
    {
        object.insert(MARK.to_owned(), json!("c"));
    }
    value
}

#[cfg(test)]
mod tests {
    use holm_model::Timestamp;

    use super::*;

    const T: Timestamp = Timestamp::from_unix_millis(1_800_000_000_000);

    fn twin(desired: &Value, reported: &Value) -> Twin {
        let mut twin = Twin::new("d1".parse().unwrap(), T);
        let update = TwinUpdate::of_desired(desired.as_object().unwrap().clone());
        twin.patch(&update, T).unwrap();
        twin.patch_reported(reported.as_object().unwrap(), None, T).unwrap();
        twin
    }

    fn patched(twin: &Twin, patch: &Value) -> Result<Value, ServiceError> {
        let patch = DigitalPatch::from_json(patch.to_string().as_bytes())?;
        let mut after = twin.clone();
        after.patch(&patch.update_of(twin)?, T)?;
        Ok(json!(after.desired().properties()))
    }

    #[test]
    fn a_twin_is_shown_by_what_the_device_says_and_what_is_wanted_beside_it() {
        let twin = twin(
            &json!({"limit": 3, "pump": {"__t": "c", "speed": 9}}),
            &json!({"limit": {"value": 2, "ac": 200, "av": 2, "ad": "ok"}, "serial": "x", "pump": {"__t": "c", "load": 0.5}}),
        );

        let shown = view(&twin, "dtmi:com:example:Pump;1");

        assert_eq!(
            (&shown["$dtId"], &shown["limit"], &shown["serial"]),
            (&json!("d1"), &json!(2), &json!("x"))
        );
        assert_eq!(shown["$metadata"]["$model"], "dtmi:com:example:Pump;1");
        let about = &shown["$metadata"]["limit"];
        assert_eq!(
            (
                &about["desiredValue"],
                &about["desiredVersion"],
                &about["ackCode"],
                &about["ackVersion"]
            ),
            (&json!(3), &json!(2), &json!(200), &json!(2))
        );
        assert_eq!(about["lastUpdateTime"], json!(T));
        assert_eq!(shown["pump"]["load"], 0.5);
        assert_eq!(shown["pump"].get("speed"), None);
        assert_eq!(shown["pump"]["$metadata"]["speed"]["desiredValue"], 9);
        assert_eq!(shown["pump"].get(MARK), None);
    }

    #[test]
    fn a_patch_sets_properties_of_root_and_components() {
        let twin = twin(&json!({"a": {"x": 1}, "gone": 1}), &json!({"pump": {"__t": "c"}}));

        let after = patched(
            &twin,
            &json!([
                {"op": "replace", "path": "/a/x", "value": {"y": 2}},
                {"op": "add", "path": "/pump/speed", "value": 7},
                {"op": "add", "path": "/fan", "value": {"$metadata": {}, "rpm": 950}},
                {"op": "remove", "path": "/gone"},
                {"op": "add", "path": "/b~1c", "value": [1]},
            ]),
        );

        assert_eq!(
            after.unwrap(),
            json!({"a": {"x": {"y": 2}}, "pump": {"__t": "c", "speed": 7}, "fan": {"__t": "c", "rpm": 950}, "b/c": [1]})
        );
    }

    #[test]
    fn a_path_that_leads_nowhere_is_named() {
        let twin = twin(&json!({"a": 1}), &json!({}));

        for patch in [
            json!([{"op": "remove", "path": "/b"}]),
            json!([{"op": "add", "path": "/a/b", "value": 1}]),
            json!([{"op": "add", "path": "a", "value": 1}]),
            json!([{"op": "move", "path": "/a", "from": "/b"}]),
            json!([{"op": "add", "path": "/$x", "value": 1}]),
            json!({"op": "add"}),
        ] {
            let refused = patched(&twin, &patch).unwrap_err();
            assert_eq!(refused.code, holm_model::ErrorCode::ArgumentInvalid, "{patch}");
        }
    }
}
