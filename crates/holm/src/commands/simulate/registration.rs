//! Makes the members of a simulated fleet at the hub, or takes those of an earlier run.
//!
//! ```text
//! POST /devices, 100 at a time, 8 on their way ─> made, or there already: then their tags are set
//! GET /holm/v1/devices, 1000 at a time ─────────> the keys of the devices; edges log in by the policy
//! ```

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use holm_identity::SymmetricKey;
use holm_model::wire::percent;
use holm_model::{DeviceId, Identity, ModuleId};
use hyper::Method;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use super::behaviour::{self, Behaviour};
use super::device::Kind;
use crate::cli::Simulate;
use crate::commands::deploy;
use crate::output;
use crate::service::Service;

/// Identities of one request: the most that the published interface takes.
const BATCH: usize = 100;
/// Requests at a time.
const TOGETHER: usize = 8;
/// Devices of one page.
const PAGE: usize = 1000;
/// How often progress is shown.
const SHOWN: Duration = Duration::from_millis(200);
/// The tag by which the edges of a fleet are known to their deployment.
const FLEET: &str = "simulation";

/// A device or edge of the fleet.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// As whom it connects.
    pub(super) identity: Identity,
    pub(super) number: u32,
    pub(super) kind: Kind,
}

/// Registers all, and makes the deployment of the edges if there is one; the answer is in the order of their numbers, devices first.
pub(super) async fn register(
    service: &Arc<Service>,
    options: &Simulate,
    behaviour: &Behaviour,
) -> anyhow::Result<Vec<Member>> {
    // What is wrong with it is told before anything is made.
    let deployment = match &options.deployment {
        Some(file) => Some(deploy::modules_of(&deploy::read(file)?, file)?),
        None => None,
    };
    let wanted: Vec<Value> = numbers(options)
        .map(|(number, is_edge)| item(options, behaviour, number, is_edge))
        .collect();
    let total = wanted.len();
    let batches: Vec<Vec<Value>> = wanted.chunks(BATCH).map(<[Value]>::to_vec).collect();
    in_turns(batches, ("registered", total), |batch| {
        let service = Arc::clone(service);
        async move { make(&service, batch).await }
    })
    .await?;
    if let Some(content) = deployment {
        let id = deployment_id(options);
        let body = json!({
            "id": id, "schemaVersion": "1.0", "content": { "modulesContent": content }, "priority": 10,
            "targetCondition": format!("tags.{FLEET} = '{}'", options.prefix),
        });
        let path = format!("/configurations/{}", percent::encode(&id));
        let is_there = service.call(Method::GET, &path, &[], None).await.is_ok();
        let condition: &[(&str, &str)] = if is_there { &[("If-Match", "\"*\"")] } else { &[] };
        let made = service.call(Method::PUT, &path, condition, Some(&body)).await;
        made.with_context(|| format!("the deployment `{id}` can't be made"))?;
    }
    let keys = if options.devices == 0 {
        HashMap::new()
    } else {
        keys(service, options).await?
    };
    numbers(options)
        .map(|(number, is_edge)| {
            let id = id_of(options, number, is_edge);
            if is_edge {
                let identity = Identity::of_module(DeviceId::new(&id)?, ModuleId::edge_agent());
                let kind = Kind::Edge;
                return Ok(Member { identity, number, kind });
            }
            let key = keys.get(&number).cloned();
            let key = key.ok_or_else(|| anyhow!("`{id}` is there already and has no key; give another `--prefix`"))?;
            Ok(Member {
                identity: Identity::of_device(DeviceId::new(&id)?),
                number,
                kind: Kind::Device(key),
            })
        })
        .collect()
}

/// Deletes all, and the deployment.
pub(super) async fn delete(service: &Arc<Service>, options: &Simulate, members: &[Member]) -> anyhow::Result<()> {
    if options.deployment.is_some() {
        let path = format!("/configurations/{}", percent::encode(&deployment_id(options)));
        service
            .call(Method::DELETE, &path, &[("If-Match", "\"*\"")], None)
            .await?;
    }
    let items = |members: &[Member]| -> Vec<Value> {
        let item = |member: &Member| json!({ "id": member.identity.device.as_str(), "importMode": "delete" });
        members.iter().map(item).collect()
    };
    let batches: Vec<Vec<Value>> = members.chunks(BATCH).map(items).collect();
    in_turns(batches, ("deleted", members.len()), |batch| {
        let service = Arc::clone(service);
        async move {
            let errors = service.bulk(&Value::Array(batch)).await?;
            let gone = |error: &Value| error["errorCode"] == "DeviceNotFound";
            told(errors.into_iter().find(|error| !gone(error)))
        }
    })
    .await
}

/// Numbers of all, and whether they are edges'.
fn numbers(options: &Simulate) -> impl Iterator<Item = (u32, bool)> + use<> {
    let devices = (0..options.devices).map(|number| (number, false));
    devices.chain((0..options.edges).map(|number| (number, true)))
}

fn id_of(options: &Simulate, number: u32, is_edge: bool) -> String {
    let kind = if is_edge { "edge" } else { "device" };
    format!("{}{kind}-{number}", options.prefix)
}

fn deployment_id(options: &Simulate) -> String {
    format!("{}deployment", options.prefix)
}

fn item(options: &Simulate, behaviour: &Behaviour, number: u32, is_edge: bool) -> Value {
    let mut item = json!({
        "id": id_of(options, number, is_edge), "importMode": "create", "capabilities": { "iotEdge": is_edge },
    });
    let mut tags = match behaviour::filled(&behaviour.tags, number, 0) {
        Value::Object(tags) => tags,
        _ => Map::new(),
    };
    if is_edge && options.deployment.is_some() {
        tags.insert(FLEET.to_owned(), json!(options.prefix));
    }
    if !tags.is_empty() {
        item["tags"] = tags.into();
    }
    item
}

/// Makes those that are not there, and sets the tags of those that are.
async fn make(service: &Service, batch: Vec<Value>) -> anyhow::Result<()> {
    let errors = service.bulk(&Value::Array(batch.clone())).await?;
    let is_there = |error: &Value| error["errorCode"] == "DeviceAlreadyExists";
    told(errors.iter().find(|error| !is_there(error)).cloned())?;
    let known = |item: &Value| errors.iter().any(|error| error["deviceId"] == item["id"]);
    let mut again: Vec<Value> = batch
        .into_iter()
        .filter(|item| item.get("tags").is_some() && known(item))
        .collect();
    if again.is_empty() {
        return Ok(());
    }
    for item in &mut again {
        item["importMode"] = json!("updateTwin");
    }
    told(service.bulk(&Value::Array(again)).await?.into_iter().next())
}

/// An item that was not carried out, as an error.
fn told(error: Option<Value>) -> anyhow::Result<()> {
    let Some(error) = error else { return Ok(()) };
    let text = |name: &str| error[name].as_str().unwrap_or("?").to_owned();
    bail!(
        "`{}`: {} ({})",
        text("deviceId"),
        text("errorStatus"),
        text("errorCode")
    )
}

/// The keys of the fleet's devices, by their numbers.
async fn keys(service: &Service, options: &Simulate) -> anyhow::Result<HashMap<u32, SymmetricKey>> {
    let beginning = format!("{}device-", options.prefix);
    let (mut keys, mut after) = (HashMap::new(), beginning.clone());
    loop {
        let path = format!("/holm/v1/devices?top={PAGE}&after={}", percent::encode(&after));
        let Value::Array(page) = service.call(Method::GET, &path, &[], None).await?.body else {
            bail!("the hub's answer is not a list");
        };
        for device in &page {
            let id = device["deviceId"].as_str().unwrap_or_default();
            let Some(rest) = id.strip_prefix(&beginning) else {
                // Ids come in their order: nothing of the fleet is behind it.
                return Ok(keys);
            };
            let number = rest
                .parse()
                .ok()
                .filter(|number: &u32| *number < options.devices && number.to_string() == rest);
            let key = device
                .pointer("/authentication/symmetricKey/primaryKey")
                .and_then(Value::as_str);
            if let (Some(number), Some(key)) = (number, key.and_then(|text| SymmetricKey::from_base64(text).ok())) {
                keys.insert(number, key);
            }
            after = id.to_owned();
        }
        if page.len() < PAGE {
            return Ok(keys);
        }
    }
}

/// Does all, some at a time; shows how many of `total` identities are done.
async fn in_turns<F>(
    batches: Vec<Vec<Value>>,
    (done, total): (&str, usize),
    work: impl Fn(Vec<Value>) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let mut progress = Progress::new(done, total);
    let mut running: JoinSet<anyhow::Result<usize>> = JoinSet::new();
    for batch in batches {
        if running.len() >= TOGETHER
            && let Some(result) = running.join_next().await
        {
            progress.add(result.context("a request broke off")??);
        }
        let (size, work) = (batch.len(), work(batch));
        running.spawn(async move { work.await.map(|()| size) });
    }
    while let Some(result) = running.join_next().await {
        progress.add(result.context("a request broke off")??);
    }
    progress.end();
    Ok(())
}

/// A bar, on a terminal.
struct Progress<'p> {
    what: &'p str,
    total: usize,
    count: usize,
    begin: Instant,
    shown: Option<Instant>,
    is_terminal: bool,
}

impl<'p> Progress<'p> {
    fn new(what: &'p str, total: usize) -> Self {
        Self {
            what,
            total,
            count: 0,
            begin: Instant::now(),
            shown: None,
            is_terminal: std::io::stderr().is_terminal(),
        }
    }

    fn add(&mut self, count: usize) {
        const WIDTH: usize = 20;
        self.count += count;
        if !self.is_terminal || self.shown.is_some_and(|at| at.elapsed() < SHOWN) {
            return;
        }
        self.shown = Some(Instant::now());
        let full = (self.count * WIDTH).checked_div(self.total).unwrap_or(0).min(WIDTH);
        output::over(&format!(
            "{}{} {}/{} {}, {:.0}/s",
            "#".repeat(full),
            "-".repeat(WIDTH - full),
            self.count,
            self.total,
            self.what,
            self.count as f64 / self.begin.elapsed().as_secs_f64().max(0.001),
        ));
    }

    fn end(&self) {
        if self.shown.is_some() {
            output::over("");
        }
    }
}
