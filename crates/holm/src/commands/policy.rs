//! `holm policy …`, and `holm dps policy …`: the same at another path.

use clap::ValueEnum;
use holm_model::wire::percent;
use hyper::Method;
use serde_json::{Value, json};

use super::hub_access;
use crate::cli::{HubAccess, Policy};
use crate::output;
use crate::service::Service;

/// Where the policies of a hub are.
pub(crate) const OF_HUB: &str = "/holm/v1/policies";
/// Where those of its provisioning service are.
pub(crate) const OF_DPS: &str = "/holm/v1/provisioning/policies";

pub(crate) async fn run<R>(command: Policy<R>, place: &str) -> anyhow::Result<()>
where
    R: ValueEnum + Clone + std::fmt::Debug + Send + Sync + 'static,
{
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
        Policy::Create { name, rights, hub } => put(&path(&name), &rights, &[], &hub).await?,
        Policy::Update {
            name,
            rights,
            etag,
            hub,
        } => {
            let quoted = format!("\"{}\"", etag.as_deref().unwrap_or("*"));
            put(&path(&name), &rights, &[("If-Match", quoted.as_str())], &hub).await?;
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
            let word = key.to_possible_value().map(|value| value.get_name().to_owned());
            let (path, body) = (format!("{}/rotate", path(&name)), json!({ "key": word }));
            let policy = service.call(Method::POST, &path, &[], Some(&body)).await?.body;
            show(&service, &policy, hub.json);
        }
    }
    Ok(())
}

async fn put<R: ValueEnum>(path: &str, rights: &[R], headers: &[(&str, &str)], hub: &HubAccess) -> anyhow::Result<()> {
    let service = hub_access::open(hub)?;
    let names = rights.iter().filter_map(ValueEnum::to_possible_value);
    let names: Vec<String> = names.map(|value| value.get_name().to_owned()).collect();
    let body = json!({ "rights": names });
    let policy = service.call(Method::PUT, path, headers, Some(&body)).await?.body;
    show(&service, &policy, hub.json);
    Ok(())
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
