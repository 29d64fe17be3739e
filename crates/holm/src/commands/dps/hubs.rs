//! `holm dps hub …`: the hubs that devices are given to.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context, bail};
use holm_identity::ServiceConnectionString;
use holm_model::wire::percent;
use hyper::Method;
use serde_json::{Value, json};

use super::{said, text};
use crate::cli::{DpsHub, HubAccess, Share};
use crate::commands::hub_access;
use crate::output::{self, WrongUse};

const HUBS: &str = "/holm/v1/provisioning/hubs";

pub(super) async fn run(command: DpsHub) -> anyhow::Result<()> {
    match command {
        DpsHub::Add {
            link_file,
            link_ca,
            share,
            hub,
        } => {
            let string = read(&link_file)?;
            let host = host_of(&string)?;
            let mut document = document(&share);
            document["connectionString"] = json!(string);
            if let Some(file) = link_ca {
                document["certificateAuthority"] = json!(read(&file)?);
            }
            put(&host, &document, &hub).await
        }
        DpsHub::List { hub } => list(&hub).await,
        DpsHub::Update { host, share, hub } => {
            let document = document(&share);
            if document == json!({}) {
                let told = "there is nothing to change; give `--weight`, `--allocation` or `--no-allocation`";
                bail!(WrongUse(told.to_owned()));
            }
            put(&host, &document, &hub).await
        }
        DpsHub::Remove { host, hub } => {
            let service = hub_access::open(&hub)?;
            service.call(Method::DELETE, &path(&host), &[], None).await?;
            said(&host, "removed", hub.json);
            Ok(())
        }
    }
}

fn path(host: &str) -> String {
    format!("{HUBS}/{}", percent::encode(host))
}

fn read(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        read.context("standard input can't be read")?;
        return Ok(text.trim().to_owned());
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("`{}` can't be read", file.display()))?;
    Ok(text.trim().to_owned())
}

/// The host name without its port: what devices are told.
fn host_of(string: &str) -> anyhow::Result<String> {
    let string = ServiceConnectionString::parse(string).map_err(|error| {
        let why = holm_net::error_chain(&error);
        WrongUse(format!("`--link-file` holds no connection string of a hub: {why}"))
    })?;
    let host = match string.host_name.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && port.parse::<u16>().is_ok() => host,
        _ => &string.host_name,
    };
    Ok(host.to_owned())
}

fn document(share: &Share) -> Value {
    let mut document = json!({});
    if let Some(weight) = share.weight {
        document["allocationWeight"] = json!(weight);
    }
    if share.allocation || share.no_allocation {
        document["applyAllocationPolicy"] = json!(share.allocation);
    }
    document
}

async fn put(host: &str, document: &Value, hub: &HubAccess) -> anyhow::Result<()> {
    let service = hub_access::open(hub)?;
    let made = service.call(Method::PUT, &path(host), &[], Some(document)).await?.body;
    if hub.json {
        output::json(&made);
    } else {
        table(&[made]);
    }
    Ok(())
}

async fn list(hub: &HubAccess) -> anyhow::Result<()> {
    let service = hub_access::open(hub)?;
    let found = service.call(Method::GET, HUBS, &[], None).await?.body;
    if hub.json {
        output::json(&found);
        return Ok(());
    }
    table(found.as_array().map(Vec::as_slice).unwrap_or_default());
    Ok(())
}

fn table(hubs: &[Value]) {
    let row = |hub: &Value| {
        let policy = if hub["isOwn"] == true {
            "(its own process)".to_owned()
        } else {
            text(hub, "policy")
        };
        let takes_part = hub["applyAllocationPolicy"] == true;
        vec![
            text(hub, "hostName"),
            hub["allocationWeight"].to_string(),
            if takes_part { "yes" } else { "if named" }.to_owned(),
            policy,
        ]
    };
    let rows: Vec<_> = hubs.iter().map(row).collect();
    output::table(&["HUB", "WEIGHT", "ALLOCATION", "POLICY"], &rows);
}
