//! Tries a message against routes, without sending it: which match, and where it would go.
//!
//! ```text
//! {"routingSource"?, "message": {"body"?, "appProperties"?, "systemProperties"?}, "twin"?: {"tags", "properties": {"desired", "reported"}},
//!  "deviceId"?, "moduleId"?, "route"?: {"source", "condition"}}
//! with route      {"result": "true"|"false"|"undefined"|"otherSource", "problems": [{"line", "column", "message", "remedy"}]}
//! without         {"routes": [{"name", "result", …}], "endpoints": [name, …], "fallback": bool, "properties": {endpoint: {name: value}}}
//! ```
//!
//! The twin is the one that is given, else that of the device that is named. A body that is not a string is sent as JSON in UTF-8,
//! and says so.

use holm_model::{Identity, Message, ServiceError, SystemProperty, Timestamp, Twin, TwinUpdate};
use holm_query::evaluate::Truth;
use holm_query::{HubCondition, HubFields, hub_condition};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::rules::{Destination, problem_to_json};
use super::source::Source;
use super::table::{Table, Verdict};
use super::{Routing, RoutingError};

/// What is tried.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Trial {
    routing_source: Option<String>,
    #[serde(default)]
    message: Sample,
    twin: Option<Value>,
    device_id: Option<String>,
    module_id: Option<String>,
    route: Option<Candidate>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Sample {
    #[serde(default)]
    body: Value,
    #[serde(default)]
    app_properties: Map<String, Value>,
    #[serde(default)]
    system_properties: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Candidate {
    source: Option<String>,
    #[serde(default)]
    condition: String,
    // What else a route has decides nothing here.
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(rename = "endpoint")]
    _endpoint: Option<String>,
    #[serde(rename = "enabled")]
    _enabled: Option<bool>,
    #[serde(rename = "etag")]
    _etag: Option<String>,
}

impl Routing {
    /// Tries a message.
    ///
    /// # Errors
    /// `ArgumentInvalid` for what can be no message; when the database can't be read.
    pub async fn test(&self, trial: Trial) -> Result<Value, RoutingError> {
        let source = source_of(trial.routing_source.as_deref())?;
        let identity = identity_of(trial.device_id.as_deref(), trial.module_id.as_deref())?;
        let message = message_of(&trial.message, identity.as_ref())?;
        let twin = match (&trial.twin, &identity) {
            (Some(given), _) => Some(twin_of(given)?),
            (None, Some(identity)) => self.shared().twins.of(identity).await?.map(|twin| (*twin).clone()),
            (None, None) => None,
        };
        match &trial.route {
            Some(route) => try_one(route, source, &message, twin.as_ref()),
            None => Ok(try_all(&self.table(), source, &message, twin.as_ref())),
        }
    }
}

fn try_one(route: &Candidate, source: Source, message: &Message, twin: Option<&Twin>) -> Result<Value, RoutingError> {
    let about = source_of(route.source.as_deref())?;
    let condition = match HubCondition::compile(&route.condition) {
        Ok(condition) => condition,
        Err(problems) => {
            let problems: Vec<_> = problems.iter().map(problem_to_json).collect();
            return Ok(json!({ "result": Verdict::Undefined.word(), "problems": problems }));
        }
    };
    let verdict = match condition.truth(&HubFields::new(message, twin)) {
        _ if about != source => Verdict::OtherSource,
        Truth::True => Verdict::Takes,
        Truth::False => Verdict::False,
        Truth::Undefined => Verdict::Undefined,
    };
    Ok(json!({ "result": verdict.word(), "problems": [] }))
}

fn try_all(table: &Table, source: Source, message: &Message, twin: Option<&Twin>) -> Value {
    let routes = table
        .explain(source, message, twin)
        .into_iter()
        .map(|(route, verdict)| {
            let mut told = route.write();
            told.insert("result".to_owned(), json!(verdict.word()));
            told
        });
    let routes: Vec<_> = routes.collect();
    let decision = table.decide(source, message, twin);
    let destinations: Vec<_> = table.destinations(decision).collect();
    let properties = destinations.iter().map(|to| {
        let sent = table.as_sent_to(to, message, twin);
        let all = sent
            .properties
            .iter()
            .map(|(name, value)| (name.to_owned(), json!(value)));
        (to.name().to_owned(), Value::Object(all.collect()))
    });
    json!({
        "routes": routes,
        "endpoints": destinations.iter().copied().map(Destination::name).collect::<Vec<_>>(),
        "fallback": decision.is_fallback && source == Source::DeviceMessages,
        "properties": properties.collect::<Map<_, _>>(),
    })
}

fn source_of(name: Option<&str>) -> Result<Source, ServiceError> {
    let name = name.unwrap_or(Source::DeviceMessages.name());
    Source::of_name(name).ok_or_else(|| {
        let names: Vec<_> = Source::ALL.iter().map(|source| source.name()).collect();
        let shown: String = name.chars().take(50).collect();
        ServiceError::argument_invalid(format!(
            "there is no source `{shown}`; give one of {}",
            names.join(", ")
        ))
    })
}

fn identity_of(device: Option<&str>, module: Option<&str>) -> Result<Option<Identity>, ServiceError> {
    let text = match (device, module) {
        (None, None) => return Ok(None),
        (None, Some(_)) => return Err(ServiceError::argument_invalid("`moduleId` needs a `deviceId`")),
        (Some(device), None) => device.to_owned(),
        (Some(device), Some(module)) => format!("{device}/{module}"),
    };
    let parsed: Result<Identity, _> = text.parse();
    parsed
        .map(Some)
        .map_err(|error| ServiceError::argument_invalid(format!("`deviceId`, `moduleId`: {error}")))
}

fn message_of(sample: &Sample, identity: Option<&Identity>) -> Result<Message, ServiceError> {
    let mut message = match &sample.body {
        Value::Null => Message::default(),
        Value::String(text) => Message::new(text.clone()),
        json => {
            let mut message = Message::new(json.to_string());
            message.system.set(SystemProperty::ContentType, "application/json");
            message.system.set(SystemProperty::ContentEncoding, "utf-8");
            message
        }
    };
    if let Some(identity) = identity {
        message
            .system
            .set(SystemProperty::ConnectionDeviceId, identity.device.as_str());
        if let Some(module) = &identity.module {
            message.system.set(SystemProperty::ConnectionModuleId, module.as_str());
        }
    }
    for (name, value) in &sample.system_properties {
        let property = system_property(name)?;
        message.system.set(property, text_of(name, value)?.unwrap_or_default());
    }
    for (name, value) in &sample.app_properties {
        message.properties.set(name.as_str(), text_of(name, value)?);
    }
    Ok(message)
}

fn system_property(name: &str) -> Result<SystemProperty, ServiceError> {
    let plain = name.strip_prefix('$').unwrap_or(name);
    let published = hub_condition::SYSTEM.iter();
    let published = published.map(|(known, property)| (*known, *property));
    let others = SystemProperty::ALL
        .iter()
        .map(|property| (property.route_name(), *property));
    let found = published
        .chain(others)
        .find(|(known, _)| known.eq_ignore_ascii_case(plain));
    found.map(|(_, property)| property).ok_or_else(|| {
        let names: Vec<_> = hub_condition::SYSTEM.iter().map(|(name, _)| *name).collect();
        let shown: String = name.chars().take(50).collect();
        let known = names.join(", ");
        ServiceError::argument_invalid(format!("there is no system property `{shown}`; known are {known}"))
    })
}

fn text_of(name: &str, value: &Value) -> Result<Option<String>, ServiceError> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        Value::Number(_) | Value::Bool(_) => Ok(Some(value.to_string())),
        _ => {
            let shown: String = name.chars().take(50).collect();
            let text = format!("the property `{shown}` must be a string; properties hold text");
            Err(ServiceError::argument_invalid(text))
        }
    }
}

fn twin_of(given: &Value) -> Result<Twin, ServiceError> {
    let identity = "sample".parse::<Identity>();
    let identity = identity.map_err(|error| ServiceError::server_error(error.to_string()))?;
    let mut twin = Twin::new(identity, Timestamp::NEVER);
    let reported = given.pointer("/properties/reported").and_then(Value::as_object);
    let update = json!({
        "tags": given.get("tags").cloned().unwrap_or_else(|| json!({})),
        "properties": { "desired": given.pointer("/properties/desired").cloned().unwrap_or_else(|| json!({})) },
    });
    twin.patch(&TwinUpdate::from_json(update.to_string().as_bytes())?, Timestamp::NEVER)?;
    if let Some(reported) = reported {
        twin.adopt_reported(reported.clone(), 1, Timestamp::NEVER);
    }
    Ok(twin)
}
