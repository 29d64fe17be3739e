//! `holm policy …`, and `holm dps policy …`: the same at another path.

use clap::ValueEnum;
use holm_model::wire::percent;
use hyper::Method;
use serde_json::{Value, json};

use super::hub_access;
use crate::cli::{Policy, values};
use crate::output;
use crate::service::Service;

/// Whose policies they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Of {
    /// Where they are in the API.
    place: &'static str,
    /// What people write.
    command: &'static str,
}

/// Those of a hub.
pub(crate) const OF_HUB: Of = Of {
    place: "/holm/v1/policies",
    command: "holm policy",
};
/// Those of its provisioning service.
pub(crate) const OF_DPS: Of = Of {
    place: "/holm/v1/provisioning/policies",
    command: "holm dps policy",
};

pub(crate) async fn run<R>(command: Policy<R>, of: Of) -> anyhow::Result<()>
where
    R: ValueEnum + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    let Of { place, command: own } = of;
    let path = |name: &str| format!("{place}/{}", percent::encode(name));
    match command {
        Policy::List { hub } => {
            let service = hub_access::open(&hub)?;
            let policies = service.call(Method::GET, place, &[], None).await?.body;
            list(&policies, hub.json);
        }
        Policy::Show { name, hub } => {
            let service = hub_access::open(&hub)?;
            let policy = service.call(Method::GET, &path(&name), &[], None).await?.body;
            show(&service, &policy, hub.json);
        }
        Policy::Create { name, rights, hub } => {
            let service = hub_access::open(&hub)?;
            let what = format!("policy `{name}`");
            let way_out = format!(
                "`{own} update {name}` changes what its holder may do, `{own} rotate {name}` gives it other keys"
            );
            let policy = service
                .create(&path(&name), &document(&rights), &what, &way_out)
                .await?;
            show(&service, &policy, hub.json);
        }
        Policy::Update {
            name,
            rights,
            etag,
            hub,
        } => {
            let quoted = format!("\"{}\"", etag.as_deref().unwrap_or("*"));
            let service = hub_access::open(&hub)?;
            let headers = [("If-Match", quoted.as_str())];
            let changed = service
                .call(Method::PUT, &path(&name), &headers, Some(&document(&rights)))
                .await?;
            show(&service, &changed.body, hub.json);
        }
        Policy::Delete { name, hub } => {
            let service = hub_access::open(&hub)?;
            service.call(Method::DELETE, &path(&name), &[], None).await?;
            if hub.json {
                output::json(&json!({ "name": name, "deleted": true }));
            } else {
                output::note(&format!("policy `{name}` is deleted"));
            }
        }
        Policy::Rotate { name, key, hub } => {
            let service = hub_access::open(&hub)?;
            let (path, body) = (format!("{}/rotate", path(&name)), json!({ "key": values::word(&key) }));
            let policy = service.call(Method::POST, &path, &[], Some(&body)).await?.body;
            show(&service, &policy, hub.json);
        }
    }
    Ok(())
}

fn document<R: ValueEnum>(rights: &[R]) -> Value {
    let names: Vec<String> = rights.iter().map(values::word).collect();
    json!({ "rights": names })
}

fn rights(policy: &Value) -> String {
    let names = policy["rights"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    names.collect::<Vec<_>>().join(", ")
}

fn list(policies: &Value, as_json: bool) {
    if as_json {
        return output::json(policies);
    }
    let name = |policy: &Value| policy["name"].as_str().unwrap_or("-").to_owned();
    let rows = policies.as_array().into_iter().flatten();
    let rows: Vec<_> = rows.map(|policy| vec![name(policy), rights(policy)]).collect();
    output::table(&["POLICY", "RIGHTS"], &rows);
}

/// The document, or what a person needs: the strings to give to those who use the policy.
fn show(service: &Service, policy: &Value, as_json: bool) {
    if as_json {
        return output::json(policy);
    }
    let text = |name: &str| policy[name].as_str().unwrap_or("-").to_owned();
    output::line(&format!("policy     {}", text("name")));
    output::line(&format!("rights     {}", rights(policy)));
    output::line(&format!("etag       {}", text("etag")));
    for (shown, member) in [("primary", "primaryKey"), ("secondary", "secondaryKey")] {
        let string = format!(
            "HostName={};SharedAccessKeyName={};SharedAccessKey={}",
            service.full_host(),
            text("name"),
            text(member)
        );
        output::line(&format!("{shown:9}  {string}"));
    }
}
