//! `holm hub consumer-group …`, at a running hub.

use hyper::Method;
use serde_json::{Value, json};

use crate::cli::ConsumerGroup;
use crate::commands::hub_access;
use crate::output;
use holm_model::wire::percent;

const PATH: &str = "/holm/v1/consumer-groups";

pub(super) async fn run(command: ConsumerGroup) -> anyhow::Result<()> {
    match command {
        ConsumerGroup::Add { name, hub } => {
            change(Method::PUT, &name, &hub).await?;
            said(&name, "added", "there now", hub.json);
        }
        ConsumerGroup::Remove { name, hub } => {
            change(Method::DELETE, &name, &hub).await?;
            said(&name, "removed", "gone", hub.json);
        }
        ConsumerGroup::List { hub } => {
            let groups = hub_access::open(&hub)?.call(Method::GET, PATH, &[], None).await?.body;
            if hub.json {
                output::json(&groups);
            } else {
                let names = groups.as_array().into_iter().flatten().filter_map(Value::as_str);
                names.for_each(output::line);
            }
        }
    }
    Ok(())
}

async fn change(method: Method, name: &str, hub: &crate::cli::HubAccess) -> anyhow::Result<()> {
    let path = format!("{PATH}/{}", percent::encode(name));
    hub_access::open(hub)?.call(method, &path, &[], None).await?;
    Ok(())
}

fn said(name: &str, what: &str, now: &str, as_json: bool) {
    if as_json {
        output::json(&json!({ "consumerGroup": name, what: true }));
    } else {
        output::note(&format!("consumer group `{name}` is {now}"));
    }
}
