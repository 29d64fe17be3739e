//! `holm route …`, `holm endpoint …`, `holm enrichment …`.

use anyhow::{Context, bail};
use holm_model::wire::percent;
use hyper::Method;
use serde_json::{Map, Value, json};

use super::hub_access;
use crate::cli::values::Property;
use crate::cli::{Endpoint, EndpointSettings, Enrichment, EnrichmentRule, OneRule, Route, RouteRule, RouteTest};
use crate::output::{self, WrongUse};
use crate::service::Service;

const ROUTING: &str = "/holm/v1/routing";

/// What a rule is.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Route,
    Endpoint,
    Enrichment,
}

impl Kind {
    const fn noun(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Endpoint => "endpoint",
            Self::Enrichment => "enrichment",
        }
    }

    fn path(self, name: &str) -> String {
        format!("{ROUTING}/{}s/{}", self.noun(), percent::encode(name))
    }
}

pub(crate) async fn route(command: Route) -> anyhow::Result<()> {
    let kind = Kind::Route;
    match command {
        Route::Create { one, rule } => create(kind, &one, route_members(&rule)).await,
        Route::List { hub } => {
            let service = hub_access::open(&hub)?;
            let all = service.call(Method::GET, ROUTING, &[], None).await?.body;
            let mut routes = all["routes"].as_array().cloned().unwrap_or_default();
            routes.push(all["fallback"].clone());
            list(
                &routes,
                hub.json,
                &["ROUTE", "SOURCE", "ENDPOINT", "ENABLED", "CONDITION"],
                &["name", "source", "endpoint", "enabled", "condition"],
            );
            Ok(())
        }
        Route::Show(one) => show(kind, &one).await,
        Route::Update { one, rule, etag } => update(kind, &one, route_members(&rule), etag.as_deref()).await,
        Route::Delete(one) => delete(kind, &one).await,
        Route::Fallback { state, hub } => {
            let service = hub_access::open(&hub)?;
            let body = json!({ "enabled": state == "on" });
            let path = format!("{ROUTING}/fallback");
            let now = service.call(Method::PUT, &path, &[], Some(&body)).await?.body;
            told(&now, hub.json, &format!("the fallback route is {state}"));
            Ok(())
        }
        Route::Test(test) => try_message(test).await,
    }
}

pub(crate) async fn endpoint(command: Endpoint) -> anyhow::Result<()> {
    let kind = Kind::Endpoint;
    match command {
        Endpoint::Create {
            one,
            kind: word,
            settings,
        } => {
            let mut members = endpoint_members(&settings)?;
            members.insert("kind".to_owned(), json!(word));
            create(kind, &one, members).await
        }
        Endpoint::List { hub } => {
            let service = hub_access::open(&hub)?;
            let path = format!("{ROUTING}/endpoints");
            let all = service.call(Method::GET, &path, &[], None).await?.body;
            list(
                all.as_array().map(Vec::as_slice).unwrap_or_default(),
                hub.json,
                &[
                    "ENDPOINT",
                    "KIND",
                    "STATUS",
                    "WAITING",
                    "DELIVERED",
                    "DROPPED",
                    "REJECTED",
                    "LAST ERROR",
                ],
                &[
                    "name",
                    "kind",
                    "health/status",
                    "health/waiting",
                    "health/delivered",
                    "health/dropped",
                    "health/rejected",
                    "health/lastError/message",
                ],
            );
            Ok(())
        }
        Endpoint::Show(one) => show(kind, &one).await,
        Endpoint::Update {
            one,
            settings,
            unset,
            etag,
        } => {
            let mut members = endpoint_members(&settings)?;
            members.extend(unset.into_iter().map(|name| (name, Value::Null)));
            update(kind, &one, members, etag.as_deref()).await
        }
        Endpoint::Delete(one) => delete(kind, &one).await,
    }
}

pub(crate) async fn enrichment(command: Enrichment) -> anyhow::Result<()> {
    let kind = Kind::Enrichment;
    match command {
        Enrichment::Create { one, rule } => create(kind, &one, enrichment_members(&rule)).await,
        Enrichment::List { hub } => {
            let service = hub_access::open(&hub)?;
            let path = format!("{ROUTING}/enrichments");
            let all = service.call(Method::GET, &path, &[], None).await?.body;
            list(
                all.as_array().map(Vec::as_slice).unwrap_or_default(),
                hub.json,
                &["PROPERTY", "VALUE", "ENDPOINTS"],
                &["key", "value", "endpoints"],
            );
            Ok(())
        }
        Enrichment::Show(one) => show(kind, &one).await,
        Enrichment::Update { one, rule, etag } => update(kind, &one, enrichment_members(&rule), etag.as_deref()).await,
        Enrichment::Delete(one) => delete(kind, &one).await,
    }
}

fn route_members(rule: &RouteRule) -> Map<String, Value> {
    let texts = [
        ("endpoint", &rule.endpoint),
        ("condition", &rule.condition),
        ("source", &rule.source),
    ];
    let texts = texts
        .into_iter()
        .filter_map(|(name, text)| Some((name.to_owned(), json!(text.as_ref()?))));
    let enabled = rule.enabled.map(|enabled| ("enabled".to_owned(), json!(enabled)));
    texts.chain(enabled).collect()
}

fn enrichment_members(rule: &EnrichmentRule) -> Map<String, Value> {
    let value = rule.value.as_ref().map(|value| ("value".to_owned(), json!(value)));
    let endpoints = Some(&rule.endpoints).filter(|endpoints| !endpoints.is_empty());
    let endpoints = endpoints.map(|endpoints| ("endpoints".to_owned(), json!(endpoints)));
    value.into_iter().chain(endpoints).collect()
}

/// Values that are JSON are JSON (`true`, `7`, `{…}`), the others text; what is in a file is text.
fn endpoint_members(settings: &EndpointSettings) -> anyhow::Result<Map<String, Value>> {
    let mut members = Map::new();
    for Property { name, value } in &settings.set {
        let read = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        members.insert(name.clone(), read);
    }
    for Property { name, value } in &settings.files {
        let text = std::fs::read_to_string(value).with_context(|| format!("`{value}` can't be read"))?;
        // A certificate keeps its line ends; a secret has none.
        let text = if text.trim_end().contains('\n') {
            text.as_str()
        } else {
            text.trim_end()
        };
        members.insert(name.clone(), json!(text));
    }
    Ok(members)
}

async fn create(kind: Kind, one: &OneRule, members: Map<String, Value>) -> anyhow::Result<()> {
    let service = hub_access::open(&one.hub)?;
    let body = Value::Object(members);
    let (noun, name) = (kind.noun(), &one.name);
    let (what, way_out) = (
        format!("{noun} `{name}`"),
        format!("`holm {noun} update {name}` changes it"),
    );
    let made = service.create(&kind.path(name), &body, &what, &way_out).await?;
    told(&made, one.hub.json, &format!("{noun} `{name}` is made"));
    Ok(())
}

/// Members that are not given stay as they are.
async fn update(kind: Kind, one: &OneRule, members: Map<String, Value>, etag: Option<&str>) -> anyhow::Result<()> {
    if members.is_empty() {
        bail!(WrongUse(
            "there is nothing to change; give what is to be different".to_owned()
        ));
    }
    let service = hub_access::open(&one.hub)?;
    let path = kind.path(&one.name);
    let mut body = service.call(Method::GET, &path, &[], None).await?.body;
    let current = body["etag"].as_str().unwrap_or_default().to_owned();
    let quoted = format!("\"{}\"", etag.unwrap_or(&current));
    if let Some(body) = body.as_object_mut() {
        body.remove("health");
        body.extend(members);
    }
    let headers = [("If-Match", quoted.as_str())];
    let changed = service.call(Method::PUT, &path, &headers, Some(&body)).await?.body;
    told(
        &changed,
        one.hub.json,
        &format!("{} `{}` is changed", kind.noun(), one.name),
    );
    Ok(())
}

async fn show(kind: Kind, one: &OneRule) -> anyhow::Result<()> {
    let service = hub_access::open(&one.hub)?;
    let document = service.call(Method::GET, &kind.path(&one.name), &[], None).await?.body;
    if one.hub.json {
        output::json(&document);
    } else {
        output::indented(&document);
    }
    Ok(())
}

async fn delete(kind: Kind, one: &OneRule) -> anyhow::Result<()> {
    let service = hub_access::open(&one.hub)?;
    service.call(Method::DELETE, &kind.path(&one.name), &[], None).await?;
    if one.hub.json {
        output::json(&json!({ "name": one.name, "deleted": true }));
    } else {
        output::note(&format!("{} `{}` is deleted", kind.noun(), one.name));
    }
    Ok(())
}

async fn try_message(test: RouteTest) -> anyhow::Result<()> {
    let service = hub_access::open(&test.hub)?;
    let answer = tried(&service, &test).await?;
    if test.hub.json {
        output::json(&answer);
        return Ok(());
    }
    if test.condition.is_some() {
        for problem in answer["problems"].as_array().into_iter().flatten() {
            let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
            let (line, column) = (&problem["line"], &problem["column"]);
            output::line(&format!(
                "line {line}, column {column}: {}; {}",
                text("message"),
                text("remedy")
            ));
        }
        output::line(answer["result"].as_str().unwrap_or("-"));
        return Ok(());
    }
    let routes = answer["routes"].as_array().map(Vec::as_slice).unwrap_or_default();
    list(
        routes,
        false,
        &["ROUTE", "RESULT", "ENDPOINT", "CONDITION"],
        &["name", "result", "endpoint", "condition"],
    );
    let to = cell(&answer["endpoints"]);
    let by = if answer["fallback"] == true {
        " (by the fallback route)"
    } else {
        ""
    };
    output::line(&if to.is_empty() {
        "goes nowhere".to_owned()
    } else {
        format!("goes to {to}{by}")
    });
    Ok(())
}

async fn tried(service: &Service, test: &RouteTest) -> anyhow::Result<Value> {
    let pairs = |properties: &[Property]| -> Map<String, Value> {
        let all = properties.iter();
        all.map(|property| (property.name.clone(), json!(property.value)))
            .collect()
    };
    let body = test.body.as_ref();
    let body = body.map(|text| serde_json::from_str(text).unwrap_or_else(|_| json!(text)));
    let mut question = json!({
        "message": {
            "body": body,
            "appProperties": pairs(&test.properties),
            "systemProperties": pairs(&test.system),
        },
        "routingSource": test.source,
        "deviceId": test.device,
        "moduleId": test.module,
    });
    if let Some(condition) = &test.condition {
        question["route"] = json!({ "condition": condition, "source": test.source });
    }
    let path = format!("{ROUTING}/test");
    Ok(service.call(Method::POST, &path, &[], Some(&question)).await?.body)
}

/// A table of the members at these paths, or the documents.
fn list(documents: &[Value], as_json: bool, headings: &[&str], paths: &[&str]) {
    if as_json {
        return output::json(&Value::Array(documents.to_vec()));
    }
    let row = |document: &Value| -> Vec<String> {
        let cells = paths.iter().map(|path| document.pointer(&format!("/{path}")));
        cells.map(|value| cell(value.unwrap_or(&Value::Null))).collect()
    };
    let rows: Vec<_> = documents.iter().map(row).collect();
    output::table(headings, &rows);
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

fn told(document: &Value, as_json: bool, note: &str) {
    if as_json {
        output::json(document);
    } else {
        output::note(note);
    }
}
