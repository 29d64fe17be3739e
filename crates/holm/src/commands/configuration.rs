//! `holm deployment …`, `holm configuration …`.

mod show;

use std::path::Path;

use anyhow::{Context, bail};
use holm_model::wire::percent;
use hyper::Method;
use serde_json::{Map, Value, json};

use super::{deploy, hub_access};
use crate::cli::values::Property;
use crate::cli::{Aim, Configuration};
use crate::output::{self, WrongUse};
use crate::service::Service;

/// Which of the two commands it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// `holm deployment`: modules of edge devices.
    Edges,
    /// `holm configuration`: settings of devices and modules.
    Settings,
}

impl Of {
    /// Whether a configuration, as the hub shows it, is this command's.
    fn has(self, configuration: &Value) -> bool {
        configuration["content"]["modulesContent"].is_object() == (self == Self::Edges)
    }

    const fn noun(self) -> &'static str {
        match self {
            Self::Edges => "deployment",
            Self::Settings => "configuration",
        }
    }
}

pub(crate) async fn run(of: Of, command: Configuration) -> anyhow::Result<()> {
    match command {
        Configuration::Create { id, content, aim, hub } => {
            let mut body = json!({
                "id": id, "schemaVersion": "1.0", "content": read(of, &content)?, "targetCondition": "", "priority": 0,
            });
            apply(&mut body, &aim);
            let service = hub_access::open(&hub)?;
            let noun = of.noun();
            let what = format!("a deployment or configuration `{id}`");
            let way_out = format!(
                "`holm {noun} update {id}` changes whom it is for, its priority, labels or figures; for another content make one of another id"
            );
            let made = service.create(&path(&id), &body, &what, &way_out).await?;
            told(&made, hub.json, &format!("{} `{id}` is made", of.noun()));
        }
        Configuration::List { hub } => {
            let service = hub_access::open(&hub)?;
            let all = service.call(Method::GET, "/configurations", &[], None).await?.body;
            let all = all.as_array().context("the hub's answer is not a list")?;
            let of_kind: Vec<Value> = all.iter().filter(|it| of.has(it)).cloned().collect();
            if hub.json {
                output::json(&Value::Array(of_kind));
            } else {
                show::list(&of_kind);
            }
        }
        Configuration::Show { id, hub } => {
            let service = hub_access::open(&hub)?;
            let one = current(of, &service, &id).await?;
            if hub.json {
                output::json(&one);
            } else {
                show::one(&one);
            }
        }
        Configuration::Update { id, aim, hub } => {
            if is_empty(&aim) {
                bail!(WrongUse(
                    "there is nothing to change; give `--target-condition`, `--priority`, `--label` or `--metric`"
                        .to_owned()
                ));
            }
            let service = hub_access::open(&hub)?;
            let mut body = current(of, &service, &id).await?;
            let etag = format!("\"{}\"", body["etag"].as_str().unwrap_or_default());
            apply(&mut body, &aim);
            let headers = [("If-Match", etag.as_str())];
            let changed = service.call(Method::PUT, &path(&id), &headers, Some(&body)).await?.body;
            told(&changed, hub.json, &format!("{} `{id}` is changed", of.noun()));
        }
        Configuration::Delete { id, hub } => {
            let service = hub_access::open(&hub)?;
            current(of, &service, &id).await?;
            service
                .call(Method::DELETE, &path(&id), &[("If-Match", "*")], None)
                .await?;
            if hub.json {
                output::json(&json!({ "id": id, "deleted": true }));
            } else {
                output::note(&format!("{} `{id}` is deleted", of.noun()));
            }
        }
        Configuration::Plan {
            id,
            content,
            aim,
            delete,
            hub,
        } => {
            let service = hub_access::open(&hub)?;
            let body = if delete {
                current(of, &service, &id).await?;
                json!({ "remove": id })
            } else {
                json!({ "configuration": planned(of, &service, &id, content.as_deref(), &aim).await? })
            };
            let path = "/holm/v1/configurations/plan";
            let plan = service.call(Method::POST, path, &[], Some(&body)).await?.body;
            if hub.json {
                output::json(&plan);
            } else {
                show::plan(&plan);
            }
        }
        Configuration::Explain { device, module, hub } => {
            let service = hub_access::open(&hub)?;
            let device = percent::encode(&device.id());
            let path = match module {
                None => format!("/holm/v1/devices/{device}/configurations"),
                Some(module) => format!(
                    "/holm/v1/devices/{device}/modules/{}/configurations",
                    percent::encode(&module)
                ),
            };
            let mut explained = service.call(Method::GET, &path, &[], None).await?.body;
            if let Some(parts) = explained["parts"].as_array_mut() {
                parts.retain(|part| (part["content"] == "modulesContent") == (of == Of::Edges));
            }
            if hub.json {
                output::json(&explained);
            } else {
                show::explanation(of, &explained);
            }
        }
    }
    Ok(())
}

fn path(id: &str) -> String {
    format!("/configurations/{}", percent::encode(id))
}

/// A configuration that is this command's.
async fn current(of: Of, service: &Service, id: &str) -> anyhow::Result<Value> {
    let current = service.call(Method::GET, &path(id), &[], None).await?.body;
    if !of.has(&current) {
        let other = match of {
            Of::Edges => "configuration",
            Of::Settings => "deployment",
        };
        bail!("`{id}` is no {}; use `holm {other}`", of.noun());
    }
    Ok(current)
}

/// What a plan is asked about: the configuration that is there, with the changes, or a new one.
async fn planned(of: Of, service: &Service, id: &str, content: Option<&Path>, aim: &Aim) -> anyhow::Result<Value> {
    let mut body = match content {
        Some(content) => json!({ "id": id, "content": read(of, content)? }),
        None => current(of, service, id).await?,
    };
    apply(&mut body, aim);
    Ok(body)
}

const fn is_empty(aim: &Aim) -> bool {
    aim.target_condition.is_none() && aim.priority.is_none() && aim.labels.is_empty() && aim.metrics.is_empty()
}

fn apply(body: &mut Value, aim: &Aim) {
    let named = |all: &[Property]| -> Map<String, Value> {
        let pairs = all.iter().map(|it| (it.name.clone(), Value::from(it.value.as_str())));
        pairs.collect()
    };
    if let Some(condition) = &aim.target_condition {
        body["targetCondition"] = json!(condition);
    }
    if let Some(priority) = aim.priority {
        body["priority"] = json!(priority);
    }
    if !aim.labels.is_empty() {
        body["labels"] = Value::Object(named(&aim.labels));
    }
    if !aim.metrics.is_empty() {
        body["metrics"] = json!({ "queries": named(&aim.metrics) });
    }
}

/// Reads a file of content, and checks of it what an edge would refuse.
fn read(of: Of, file: &Path) -> anyhow::Result<Value> {
    let document = deploy::read(file)?;
    let shown = file.display();
    let content = document.get("content").unwrap_or(&document);
    match of {
        Of::Edges => {
            let modules = deploy::modules_of(&document, file)?;
            Ok(json!({ "modulesContent": modules }))
        }
        Of::Settings => {
            let kinds = ["deviceContent", "moduleContent"];
            let found = kinds
                .into_iter()
                .find(|kind| content.get(*kind).is_some_and(|it| !it.is_null()));
            let kind = found.with_context(|| format!("`{shown}` has neither `deviceContent` nor `moduleContent`"))?;
            Ok(json!({ kind: content[kind] }))
        }
    }
}

fn told(configuration: &Value, as_json: bool, text: &str) {
    if as_json {
        output::json(configuration);
    } else {
        output::note(text);
    }
}
