//! Makes the members of a simulated fleet at the hub, or takes those that are there.
//!
//! ```text
//! POST /devices, 100 at a time, 8 on their way ─> made, with the tag of the fleet, or there already
//! POST /devices/query ──────────────────────────> which of those have the tag: an earlier run made them, and their tags are set anew
//! GET /holm/v1/devices, 1000 at a time ─────────> the keys of the devices; edges log in by the policy
//! ```
//!
//! What a simulation did not make it neither changes nor deletes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use holm_identity::SymmetricKey;
use holm_model::wire::percent;
use holm_model::{DeviceId, Identity, ModuleId};
use hyper::{Method, StatusCode};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use super::behaviour::{self, Behaviour};
use super::device::Kind;
use super::interrupt::Interrupt;
use super::progress::Progress;
use crate::cli::Simulate;
use crate::commands::query;
use crate::output::WrongUse;
use crate::service::{Refused, Service};

/// Identities of one request: the most that the published interface takes.
const BATCH: usize = 100;
/// Requests at a time.
const TOGETHER: usize = 8;
/// Devices of one page.
const PAGE: usize = 1000;
/// The tag of what a simulation made, and the label of its deployment: the beginning of the fleet's ids.
pub(super) const FLEET: &str = "simulation";
/// How long a hub may be away meanwhile.
const AWAY: Duration = Duration::from_secs(60);
/// How long is waited before it is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Who made an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// This run.
    Made,
    /// An earlier one.
    Found,
    /// Somebody else.
    Foreign,
}

/// A device or edge of the fleet.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) identity: Identity,
    /// Its number among its kind.
    pub(super) number: u32,
    pub(super) kind: Kind,
    /// Whether the fleet's deployment is for it.
    pub(super) is_targeted: bool,
}

impl Member {
    /// Whether it tells what it is or runs.
    pub(super) fn reports(&self, behaviour: &Behaviour) -> bool {
        matches!(self.kind, Kind::Edge) || behaviour.reports()
    }
}

/// Who is to be in a fleet.
#[derive(Debug)]
pub(super) struct Roll {
    prefix: String,
    /// In the order of their numbers, devices first.
    entries: Vec<Entry>,
    with_deployment: bool,
}

#[derive(Debug)]
struct Entry {
    id: DeviceId,
    number: u32,
    is_edge: bool,
    /// `None`: not at the hub, as far as is known.
    origin: Option<Origin>,
}

impl Roll {
    /// # Errors
    /// With this prefix there are no ids.
    pub(super) fn new(options: &Simulate) -> anyhow::Result<Self> {
        let devices = (0..options.devices).map(|number| (number, false));
        let all = devices.chain((0..options.edges).map(|number| (number, true)));
        let entries = all.map(|(number, is_edge)| {
            let kind = if is_edge { "edge" } else { "device" };
            let id = format!("{}{kind}-{number}", options.prefix);
            let id = DeviceId::new(&id).map_err(|why| WrongUse(format!("`--prefix` gives no ids: {why}")))?;
            let origin = None;
            Ok(Entry {
                id,
                number,
                is_edge,
                origin,
            })
        });
        Ok(Self {
            prefix: options.prefix.clone(),
            entries: entries.collect::<anyhow::Result<_>>()?,
            with_deployment: options.deployment.is_some(),
        })
    }

    /// How many there are to be.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many are at the hub by that origin.
    pub(super) fn count(&self, origin: Origin) -> usize {
        self.entries.iter().filter(|entry| entry.origin == Some(origin)).count()
    }

    /// How many of them are at the hub.
    pub(super) fn registered(&self) -> usize {
        self.entries.iter().filter(|entry| entry.origin.is_some()).count()
    }

    /// Makes all that are not there. What was done is known afterwards, whatever the end.
    ///
    /// # Errors
    /// The first thing that the hub did not do.
    pub(super) async fn register(
        &mut self,
        service: &Arc<Service>,
        behaviour: &Behaviour,
        interrupt: &Interrupt,
    ) -> anyhow::Result<()> {
        let mut work = InTurns::new(self.len(), "registered", interrupt);
        for (place, batch) in self.entries.chunks(BATCH).enumerate() {
            let batch: Vec<Value> = batch.iter().map(|entry| self.item(entry, behaviour)).collect();
            let (service, fleet) = (Arc::clone(service), self.prefix.clone());
            let waiter = interrupt.clone();
            let made = async move { (place, make(&service, &fleet, batch, &waiter).await) };
            if !work.start(made).await {
                break;
            }
        }
        let (done, error) = work.end().await;
        for (place, origins) in done {
            for (entry, origin) in self.entries.iter_mut().skip(place * BATCH).zip(origins) {
                entry.origin = origin;
            }
        }
        error.map_or(Ok(()), Err)
    }

    /// Those that are at the hub, with what they log in by.
    ///
    /// # Errors
    /// The hub does not tell; a device has no key.
    pub(super) async fn members(&self, service: &Service, interrupt: &Interrupt) -> anyhow::Result<Vec<Member>> {
        let devices = self.entries.iter().filter(|entry| !entry.is_edge).count();
        let keys = keys(service, &self.prefix, devices, interrupt).await?;
        let there = self.entries.iter().filter(|entry| entry.origin.is_some());
        there
            .map(|entry| {
                let device = entry.id.clone();
                let (identity, kind) = if entry.is_edge {
                    (Identity::of_module(device, ModuleId::edge_agent()), Kind::Edge)
                } else {
                    let key = keys.get(&entry.number).cloned().ok_or_else(|| {
                        anyhow!("`{device}` is there already and has no key; give another `--prefix`")
                    })?;
                    (Identity::of_device(device), Kind::Device(key))
                };
                Ok(Member {
                    identity,
                    number: entry.number,
                    kind,
                    is_targeted: self.with_deployment && entry.is_edge && entry.origin != Some(Origin::Foreign),
                })
            })
            .collect()
    }

    /// Deletes those that simulations have made; gives how many.
    pub(super) async fn delete(&self, service: &Arc<Service>, interrupt: &Interrupt) -> (usize, anyhow::Result<()>) {
        let is_ours = |entry: &&Entry| matches!(entry.origin, Some(Origin::Made | Origin::Found));
        let ours = self.entries.iter().filter(is_ours);
        let items: Vec<Value> = ours
            .map(|entry| json!({ "id": entry.id.as_str(), "importMode": "delete" }))
            .collect();
        // The one that interrupted the simulation wants this all the same; the next one ends the program.
        let mut work = InTurns::new(items.len(), "deleted", interrupt).without_interrupt();
        for (place, batch) in items.chunks(BATCH).enumerate() {
            let (service, batch, waiter) = (Arc::clone(service), batch.to_vec(), interrupt.clone());
            if !work
                .start(async move { (place, unmake(&service, batch, &waiter).await) })
                .await
            {
                break;
            }
        }
        let (done, error) = work.end().await;
        let deleted = done.into_iter().map(|(_, gone)| gone.len()).sum();
        (deleted, error.map_or(Ok(()), Err))
    }

    fn item(&self, entry: &Entry, behaviour: &Behaviour) -> Value {
        let mut tags = match behaviour::filled(&behaviour.tags, entry.number, 0) {
            Value::Object(tags) => tags,
            _ => Map::new(),
        };
        tags.insert(FLEET.to_owned(), json!(self.prefix));
        json!({
            "id": entry.id.as_str(), "importMode": "create", "capabilities": { "iotEdge": entry.is_edge }, "tags": tags,
        })
    }
}

/// What came of the items of a request, one by one, and what the hub did not do.
type Done<T> = (Vec<T>, Option<anyhow::Error>);

/// Makes those that are not there, and sets the tags of those that an earlier run made.
async fn make(service: &Service, fleet: &str, batch: Vec<Value>, interrupt: &Interrupt) -> Done<Option<Origin>> {
    let nothing = |error| (Vec::new(), Some(error));
    let body = Value::Array(batch.clone());
    let errors = match patiently(interrupt, || service.bulk(&body)).await {
        Ok(errors) => errors,
        Err(error) => return nothing(error),
    };
    let refusals: HashMap<&str, &Value> = errors
        .iter()
        .filter_map(|error| Some((error["deviceId"].as_str()?, error)))
        .collect();
    let is_there = |error: &Value| error["errorCode"] == "DeviceAlreadyExists";
    let there: Vec<&str> = refusals
        .iter()
        .filter(|(_, error)| is_there(error))
        .map(|(id, _)| *id)
        .collect();
    let ours = match patiently(interrupt, || tagged(service, fleet, &there)).await {
        Ok(ours) => ours,
        Err(error) => return nothing(error),
    };
    let origin = |item: &Value| {
        let id = item["id"].as_str().unwrap_or_default();
        match refusals.get(id) {
            None => Some(Origin::Made),
            Some(error) if !is_there(error) => None,
            Some(_) if ours.contains(id) => Some(Origin::Found),
            Some(_) => Some(Origin::Foreign),
        }
    };
    let origins: Vec<_> = batch.iter().map(origin).collect();
    let refused = errors.iter().find(|error| !is_there(error)).map(told);
    let again = batch.into_iter().zip(&origins);
    let again: Vec<Value> = again
        .filter(|(_, origin)| **origin == Some(Origin::Found))
        .map(|(mut item, _)| {
            item["importMode"] = json!("updateTwin");
            item
        })
        .collect();
    if refused.is_some() || again.is_empty() {
        return (origins, refused);
    }
    let again = Value::Array(again);
    let error = match patiently(interrupt, || service.bulk(&again)).await {
        Ok(errors) => errors.first().map(told),
        Err(error) => Some(error),
    };
    (origins, error)
}

/// Deletes; gives the items that are gone.
async fn unmake(service: &Service, batch: Vec<Value>, interrupt: &Interrupt) -> Done<()> {
    let body = Value::Array(batch);
    match patiently(interrupt, || service.bulk(&body)).await {
        Ok(errors) => {
            let left: Vec<_> = errors
                .iter()
                .filter(|error| error["errorCode"] != "DeviceNotFound")
                .collect();
            let count = body.as_array().map_or(0, Vec::len).saturating_sub(left.len());
            (vec![(); count], left.first().map(|error| told(error)))
        }
        Err(error) => (Vec::new(), Some(error)),
    }
}

/// Which of these devices have the tag of the fleet.
async fn tagged(service: &Service, fleet: &str, ids: &[&str]) -> anyhow::Result<HashSet<String>> {
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let list: Vec<_> = ids.iter().map(|id| quoted(id)).collect();
    let text = format!(
        "SELECT deviceId FROM devices WHERE deviceId IN [{}] AND tags.{FLEET} = {}",
        list.join(", "),
        quoted(fleet)
    );
    let body = json!({ "query": text });
    let found = query::pages(service, Method::POST, "/devices/query", Some(&body), ids.len() + 1).await?;
    let id = |row: Value| row["deviceId"].as_str().map(str::to_owned);
    Ok(found.rows.into_iter().filter_map(id).collect())
}

/// A text as queries have it.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// An item that was not carried out, as an error.
fn told(error: &Value) -> anyhow::Error {
    let text = |name: &str| error[name].as_str().unwrap_or("?");
    anyhow!(
        "`{}`: {} ({})",
        text("deviceId"),
        text("errorStatus"),
        text("errorCode")
    )
}

/// The keys of the fleet's devices, by their numbers.
async fn keys(
    service: &Service,
    prefix: &str,
    devices: usize,
    interrupt: &Interrupt,
) -> anyhow::Result<HashMap<u32, SymmetricKey>> {
    let beginning = format!("{prefix}device-");
    let (mut keys, mut after) = (HashMap::new(), beginning.clone());
    while keys.len() < devices && !interrupt.is_told() {
        let path = format!("/holm/v1/devices?top={PAGE}&after={}", percent::encode(&after));
        let answer = patiently(interrupt, || service.call(Method::GET, &path, &[], None)).await?;
        let Value::Array(page) = answer.body else {
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
                .filter(|number: &u32| (*number as usize) < devices && number.to_string() == rest);
            let key = device
                .pointer("/authentication/symmetricKey/primaryKey")
                .and_then(Value::as_str);
            if let (Some(number), Some(key)) = (number, key.and_then(|text| SymmetricKey::from_base64(text).ok())) {
                keys.insert(number, key);
            }
            after = id.to_owned();
        }
        if page.len() < PAGE {
            break;
        }
    }
    Ok(keys)
}

/// Asks again while the hub does not answer, or says that it can't now: for so long it may be away.
async fn patiently<T, F>(interrupt: &Interrupt, ask: impl Fn() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let begin = Instant::now();
    loop {
        match ask().await {
            Err(error) if is_passing(&error) && begin.elapsed() < AWAY && !interrupt.is_told() => {
                tracing::warn!(error = format!("{error:#}"), "the hub is asked again");
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => {}
                    () = interrupt.told() => {}
                }
            }
            told => return told,
        }
    }
}

fn is_passing(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<Refused>() {
        Some(refused) => refused.status == StatusCode::TOO_MANY_REQUESTS || refused.status.is_server_error(),
        None => true,
    }
}

/// Requests, some at a time, until one fails or the user has had enough.
struct InTurns<'i, T> {
    running: JoinSet<(usize, Done<T>)>,
    done: Vec<(usize, Vec<T>)>,
    count: usize,
    error: Option<anyhow::Error>,
    progress: Progress,
    what: &'static str,
    interrupt: Option<&'i Interrupt>,
}

impl<'i, T: Send + 'static> InTurns<'i, T> {
    fn new(total: usize, what: &'static str, interrupt: &'i Interrupt) -> Self {
        Self {
            running: JoinSet::new(),
            done: Vec::new(),
            count: 0,
            error: None,
            progress: Progress::new(total),
            what,
            interrupt: Some(interrupt),
        }
    }

    /// Whatever the user has told.
    fn without_interrupt(self) -> Self {
        Self {
            interrupt: None,
            ..self
        }
    }

    /// Starts one as soon as there is room; whether there shall be others.
    async fn start(&mut self, request: impl Future<Output = (usize, Done<T>)> + Send + 'static) -> bool {
        if self.running.len() >= TOGETHER {
            self.join().await;
        }
        if self.error.is_some() || self.interrupt.is_some_and(Interrupt::is_told) {
            return false;
        }
        self.running.spawn(request);
        true
    }

    async fn join(&mut self) {
        match self.running.join_next().await {
            Some(Ok((place, (done, error)))) => {
                self.count += done.len();
                self.done.push((place, done));
                if self.error.is_none() {
                    self.error = error;
                }
                let per_second = self.progress.per_second(self.count);
                self.progress
                    .show(self.count, self.what, || format!("{per_second:.0}/s"));
            }
            Some(Err(error)) => self.error = Some(anyhow::Error::new(error).context("a request broke off")),
            None => {}
        }
    }

    /// Waits for those that are on their way; gives what was done, by the place of the request, and the first failure.
    async fn end(mut self) -> (Vec<(usize, Vec<T>)>, Option<anyhow::Error>) {
        while !self.running.is_empty() {
            self.join().await;
        }
        self.progress.end();
        (self.done, self.error)
    }
}

/// Asks the hub whether it is there and takes the credential: what is wrong with those is told at once, and not after a minute.
pub(super) async fn probe(service: &Service) -> anyhow::Result<()> {
    service.call(Method::GET, "/statistics/devices", &[], None).await?;
    Ok(())
}
