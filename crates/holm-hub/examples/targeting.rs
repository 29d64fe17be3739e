//! How long it takes to know whom configurations are for, and to write it: `cargo run --release -p holm-hub --example targeting --
//! [DEVICES] [DEPLOYMENTS]` (100,000 edge devices and 100 deployments if nobody says).
//!
//! The fleet is made in a directory of its own; then a hub is opened on it, as after a restart. Figures:
//!
//! - cold: from the opening of the hub until every condition is asked of everyone
//! - retarget: from the answer to a change of tags until the deployment's own row says so, one at a time
//! - fan-out: until all twins say what follows

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
use holm_model::configuration::{Configuration, ConfigurationId, ConfigurationWish};
use holm_model::{Identity, ModuleId, Timestamp, Twin, TwinUpdate};
use http_body_util::BodyExt as _;
use hyper::{Method, Request};
use serde_json::{Value, json};

const HOST: &str = "hub.test";
/// Devices of one transaction.
const BATCH: usize = 2000;
/// Changes of tags that are timed.
const CHANGES: usize = 200;

fn argument(place: usize, usual: usize) -> usize {
    std::env::args().nth(place).map_or(usual, |text| text.parse().unwrap())
}

#[tokio::main]
async fn main() {
    let (devices, deployments) = (argument(1, 100_000), argument(2, 100));
    let directory = tempfile::tempdir().unwrap();
    let config = HubConfig::new(directory.path().join("data"), HOST);
    Hub::open(config.clone()).await.unwrap().close().await;
    make_fleet(&config, devices, deployments).await;
    println!(
        "{devices} edge devices, {deployments} deployments; load average {}",
        load()
    );

    let begin = Instant::now();
    let hub = Hub::open(config).await.unwrap();
    let opened = begin.elapsed();
    while !hub.configurations().is_evaluated().await {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!(
        "cold      {:>8.0} ms, of which the opening took {:.0} ms",
        millis(begin),
        opened.as_secs_f64() * 1e3
    );

    while !hub.configurations().is_settled().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!(
        "fan-out   {:>8.0} ms, {:.0} devices a second",
        millis(begin),
        devices as f64 / begin.elapsed().as_secs_f64()
    );

    let mut times: Vec<f64> = Vec::new();
    for number in 0..CHANGES.min(devices) {
        let device = format!("e{number}");
        let change = json!({"tags": {"site": number as u64 % 7 + 100}});
        call(&hub, Method::PATCH, &format!("/twins/{device}"), &change).await;
        let begin = Instant::now();
        while !hub.configurations().is_settled().await {
            tokio::task::yield_now().await;
        }
        times.push(millis(begin));
    }
    times.sort_by(f64::total_cmp);
    println!(
        "retarget  {:>8.2} ms at the median, {:.2} ms at worst of {}",
        times[times.len() / 2],
        times[times.len() - 1],
        times.len()
    );
    hub.close().await;
}

async fn make_fleet(config: &HubConfig, devices: usize, deployments: usize) {
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
                entry.become_edge();
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
                for module in [ModuleId::edge_agent(), ModuleId::edge_hub()] {
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
        for number in 0..deployments {
            transaction.put_configuration(&deployment(number, now))?;
        }
        Ok(())
    });
    made.await.unwrap();
    repository.close().await;
}

/// One base for all; layers by an equality, by several, and by comparisons that no index answers.
fn deployment(number: usize, now: Timestamp) -> Configuration {
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
    let body = json!({"content": {"modulesContent": content}, "targetCondition": condition, "priority": number});
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

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
