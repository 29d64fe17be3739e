//! How long it takes to know whom configurations are for, and to write it: `cargo run --release -p holm-hub --example targeting --
//! [TARGETS] [CONFIGURATIONS] [layers|settings]` (100,000 edge devices and 100 deployments, a base and layers, if nobody says; with
//! `settings` plain devices and configurations of devices, each of which sets a desired property).
//!
//! The fleet is made in a directory of its own; then a hub is opened on it, as after a restart. Figures:
//!
//! - cold: from the opening of the hub until every condition is asked of everyone
//! - fan-out: from there until all twins say what follows
//! - retarget: from the answer to a change of tags until the twin's own row names the configuration that is for it now, one at a time:
//!   while the fan-out is under way, and when nothing else is

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for measuring: it says what it finds, or stops"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holm_hub::registry::Entry;
use holm_hub::storage::Repository;
use holm_hub::{Hub, HubConfig};
use holm_identity::SasToken;
use holm_model::configuration::{Configuration, ConfigurationId, ConfigurationKind, ConfigurationWish};
use holm_model::{Identity, ModuleId, Timestamp, Twin, TwinUpdate};
use http_body_util::BodyExt as _;
use hyper::{Method, Request};
use rusqlite::Connection;
use serde_json::{Value, json};

const HOST: &str = "hub.test";
/// Devices of one transaction.
const BATCH: usize = 2000;
/// Changes of tags that are timed when nothing else is to be done, and at most while a fan-out is under way.
const CHANGES: usize = 1000;
/// Between two looks at a row.
const LOOK: Duration = Duration::from_micros(50);
/// Between two changes while a fan-out is under way.
const PAUSE: Duration = Duration::from_millis(50);

fn argument(place: usize, usual: usize) -> usize {
    std::env::args().nth(place).map_or(usual, |text| text.parse().unwrap())
}

#[tokio::main]
async fn main() {
    let (devices, number) = (argument(1, 100_000), argument(2, 100));
    let kind = match std::env::args().nth(3).as_deref() {
        None | Some("layers") => ConfigurationKind::Edge,
        Some("settings") => ConfigurationKind::Device,
        Some(other) => panic!("`{other}` is neither `layers` nor `settings`"),
    };
    let directory = tempfile::tempdir().unwrap();
    let config = HubConfig::new(directory.path().join("data"), HOST);
    Hub::open(config.clone()).await.unwrap().close().await;
    make_fleet(&config, kind, devices, number).await;
    println!("{devices} targets, {number} configurations; load average {}", load());
    let rows = Connection::open(config.data.join("hub.db")).unwrap();

    let begin = Instant::now();
    let hub = Hub::open(config).await.unwrap();
    let opened = begin.elapsed();
    while !hub.configurations().is_evaluated().await {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let cold = begin.elapsed();
    println!(
        "cold      {:>8.0} ms, of which the opening took {:.0} ms",
        millis(cold),
        millis(opened)
    );

    let begin = Instant::now();
    let mut target = Retarget {
        hub: &hub,
        rows: &rows,
        kind,
        number,
    };
    let mut during = Vec::new();
    let mut last = devices;
    while !hub.configurations().is_settled().await {
        tokio::time::sleep(PAUSE).await;
        // From the end, where the fan-out comes last.
        if during.len() < CHANGES && last > devices / 2 {
            last -= 1;
            during.push(target.once(last).await);
        }
    }
    let took = begin.elapsed();
    println!(
        "fan-out   {:>8.0} ms, {:.0} targets a second",
        millis(took),
        devices as f64 / took.as_secs_f64()
    );
    tell("retarget meanwhile", during);

    let waiting = || {
        let count = rows.query_row("SELECT count(*) FROM outbox", [], |row| row.get::<_, i64>(0));
        count.unwrap()
    };
    while waiting() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!(
        "events    {:>8.0} ms after the beginning of the fan-out all are told",
        millis(begin.elapsed())
    );
    let mut quiet = Vec::new();
    for place in 0..CHANGES.min(devices / 2) {
        quiet.push(target.once(place).await);
    }
    tell("retarget", quiet);
    hub.close().await;
}

/// Changes tags so that another configuration is for a target.
struct Retarget<'h> {
    hub: &'h Hub,
    rows: &'h Connection,
    kind: ConfigurationKind,
    number: usize,
}

impl Retarget<'_> {
    /// How long it takes, in milliseconds.
    async fn once(&mut self, target: usize) -> f64 {
        let device = format!("e{target}");
        // One of those that are for a site, and not that of its site before.
        let sites: Vec<usize> = (0..self.number)
            .filter(|it| it % 5 == 3 && *it != target % 1000)
            .collect();
        let site = sites.get(target % sites.len().max(1)).copied();
        let change = json!({"tags": {"site": site}});
        call(self.hub, Method::PATCH, &format!("/twins/{device}"), &change).await;
        let begin = Instant::now();
        let module = match self.kind {
            ConfigurationKind::Edge => "$edgeAgent",
            _ => "",
        };
        let Some(wanted) = site.map(|site| format!("\"c{site}\"")) else {
            return 0.0;
        };
        let sql = "SELECT statuses FROM twin_configurations WHERE device = ?1 AND module = ?2";
        let mut statement = self.rows.prepare_cached(sql).unwrap();
        loop {
            let statuses = statement.query_row([device.as_str(), module], |row| row.get::<_, String>(0));
            if statuses.is_ok_and(|statuses| statuses.contains(&wanted)) {
                return millis(begin.elapsed());
            }
            tokio::task::block_in_place(|| std::thread::sleep(LOOK));
        }
    }
}

fn tell(what: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let at = |of_hundred: usize| {
        let place = times.len() * of_hundred / 100;
        times
            .get(place.min(times.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    };
    println!(
        "{what}: {:.2} ms at the median, {:.2} ms for 99 of 100, {:.2} ms at worst of {}",
        at(50),
        at(99),
        at(100),
        times.len()
    );
}

async fn make_fleet(config: &HubConfig, kind: ConfigurationKind, devices: usize, number: usize) {
    let repository = Repository::open(&config.data.join("hub.db")).unwrap();
    let now = Timestamp::from_unix_millis(1_800_000_000_000);
    let numbers: Vec<usize> = (0..devices).collect();
    for batch in numbers.chunks(BATCH) {
        let batch = batch.to_vec();
        let made = repository.change(move |transaction| {
            for number in batch {
                let device = holm_model::DeviceId::new(&format!("e{number}")).unwrap();
                let identity = Identity::of_device(device.clone());
                let mut entry = Entry::new(identity.clone(), now)?;
                let is_edge = kind == ConfigurationKind::Edge;
                if is_edge {
                    entry.become_edge();
                }
                transaction.put_entry(&entry)?;
                let mut twin = Twin::new(identity, now);
                let tags =
                    json!({"site": number % 1000, "ring": number % 5, "line": {"name": format!("l{}", number % 37)}});
                twin.patch(
                    &TwinUpdate {
                        tags: tags.as_object().cloned(),
                        desired: None,
                    },
                    now,
                )?;
                let reported = json!({"battery": number % 100, "model": format!("m{}", number % 9)});
                twin.patch_reported(reported.as_object().unwrap(), None, now)?;
                transaction.put_twin(&twin)?;
                for module in [ModuleId::edge_agent(), ModuleId::edge_hub()]
                    .into_iter()
                    .filter(|_| is_edge)
                {
                    let identity = Identity::of_module(device.clone(), module);
                    transaction.put_entry(&Entry::new(identity.clone(), now)?)?;
                    transaction.put_twin(&Twin::new(identity, now))?;
                }
            }
            Ok(())
        });
        made.await.unwrap();
    }
    let made = repository.change(move |transaction| {
        for number in 0..number {
            transaction.put_configuration(&configuration(kind, number, now))?;
        }
        Ok(())
    });
    made.await.unwrap();
    repository.close().await;
}

/// One for all; others by an equality, by several, and by comparisons that no index answers.
fn configuration(kind: ConfigurationKind, number: usize, now: Timestamp) -> Configuration {
    let id = ConfigurationId::new(&format!("c{number}")).unwrap();
    let module =
        json!({"type": "docker", "status": "running", "restartPolicy": "always", "settings": {"image": "m:1"}});
    let (condition, content) = match number {
        0 => (
            "*".to_owned(),
            json!({"$edgeAgent": {"properties.desired": {
                "schemaVersion": "1.1", "runtime": {"type": "docker", "settings": {}}, "modules": {"base": module},
            }}, "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {}}}}),
        ),
        _ => {
            let condition = match number % 5 {
                0 => format!(
                    "tags.ring = {} AND properties.reported.battery < {}",
                    number % 7,
                    number
                ),
                1 => format!(
                    "tags.line.name IN ['l{}', 'l{}'] AND properties.reported.model = 'm3'",
                    number,
                    number / 2
                ),
                2 => format!("properties.reported.battery > {number} AND NOT tags.ring = 1"),
                _ => format!("tags.site = {number}"),
            };
            let layer = json!({"$edgeAgent": {format!("properties.desired.modules.m{number}"): module}});
            (condition, layer)
        }
    };
    let content = match kind {
        ConfigurationKind::Edge => json!({"modulesContent": content}),
        _ => json!({"deviceContent": {format!("properties.desired.p{number}"): number}}),
    };
    let body = json!({"content": content, "targetCondition": condition, "priority": number});
    let wish = ConfigurationWish::from_json(&id, body.to_string().as_bytes()).unwrap();
    Configuration::create(id, wish, now, 1).unwrap()
}

async fn call(hub: &Hub, method: Method, path: &str, body: &Value) {
    let policies = hub.policies().await.unwrap();
    let owner = policies
        .into_iter()
        .find(|policy| policy.name == "iothubowner")
        .unwrap();
    let expiry = Timestamp::from(std::time::SystemTime::now()).unix_seconds() + 3600;
    let token = SasToken::sign(HOST, expiry, Some("iothubowner"), &owner.primary)
        .to_text()
        .expose()
        .to_owned();
    let request = Request::builder()
        .method(method)
        .uri(format!("{path}?api-version=2021-04-12"))
        .header("authorization", token)
        .body(Bytes::from(body.to_string()))
        .unwrap();
    let nobody: Arc<[_]> = Arc::from([]);
    let answer = hub.rest_handler().answer(request, &nobody).await;
    assert!(
        answer.status().is_success(),
        "{:?}",
        answer.into_body().collect().await.unwrap().to_bytes()
    );
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
