//! How long queries take over a large fleet.
//!
//! ```sh
//! cargo run --release -p holm-hub --example query_speed -- 1000000 200
//! ```
//!
//! The first number is how many twins there are, the second how often each query is asked. The fleet is made first, in the
//! directory for temporary files, or in a third argument, where it stays and is found again: a million twins are about 1.5 GB.
//! At the end the selective queries are asked once more while scans of the whole fleet run beside them.

// A stopwatch needs a place to print.
#![allow(clippy::print_stdout)]

use std::path::Path;
use std::time::{Duration, Instant};

use holm_hub::presence::Presence;
use holm_hub::queries::{PageRequest, Queries};
use holm_hub::registry::Entry;
use holm_hub::storage::Repository;
use holm_model::{Identity, ServiceError, Timestamp, Twin, TwinUpdate};
use serde_json::json;

/// Twins that are made in one transaction.
const BATCH: u32 = 5000;

/// Scans that run beside selective queries.
const SCANS: usize = 4;
/// Reads every twin, and finds none.
const SCAN: &str = "SELECT * FROM devices WHERE properties.reported.battery + 0 = -1";

/// What an index finds: the text, and the size of a page.
const SELECTIVE: &[(&str, usize)] = &[
    ("SELECT * FROM devices WHERE deviceId = 'device-0000777'", 100),
    ("SELECT * FROM devices WHERE tags.room = 'room-77'", 100),
    (
        "SELECT * FROM devices WHERE tags.site = 'site-7' AND tags.room = 'room-77'",
        100,
    ),
    (
        "SELECT * FROM devices WHERE tags.serial >= 500 AND tags.serial < 550",
        100,
    ),
    (
        "SELECT * FROM devices WHERE tags.site = 'site-7' AND properties.reported.battery < 10",
        100,
    ),
    (
        "SELECT * FROM devices WHERE tags.site = 'site-7' AND tags.spare = true AND properties.reported.battery < 10",
        100,
    ),
    (
        "SELECT * FROM devices WHERE tags.room = 'room-77' AND properties.reported.battery = -1",
        100,
    ),
    (
        "SELECT * FROM devices WHERE tags.site IN ['site-7', 'site-9'] AND properties.reported.battery > 90",
        100,
    ),
];

/// What reads much: the text, the size of a page, and how often at most.
const OTHERS: &[(&str, usize, u32)] = &[
    ("SELECT * FROM devices", 1000, 20),
    ("SELECT COUNT() AS n FROM devices", 100, 20),
    ("SELECT status, COUNT() AS n FROM devices GROUP BY status", 100, 20),
    ("SELECT COUNT() AS n FROM devices WHERE tags.site = 'site-7'", 100, 20),
    (
        "SELECT COUNT() AS n FROM devices WHERE tags.site = 'site-7' AND properties.reported.battery = -1",
        100,
        5,
    ),
    ("SELECT tags.site, COUNT() AS n FROM devices GROUP BY tags.site", 100, 3),
    ("SELECT * FROM devices WHERE properties.reported.battery = -1", 100, 2),
    (SCAN, 100, 2),
    (
        "SELECT properties.reported.battery AS b, COUNT() AS n FROM devices GROUP BY properties.reported.battery",
        100,
        1,
    ),
];

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize, or: u32| arguments.get(place).map_or(Ok(or), |text| text.parse::<u32>());
    let (twins, times) = (number(0, 100_000)?, number(1, 100)?);
    let temporary = tempfile::tempdir()?;
    let directory = arguments.get(2).map_or_else(|| temporary.path(), Path::new);
    let database = directory.join("hub.db");
    let is_there = database.exists();
    let repository = Repository::open(&database)?;

    if !is_there {
        make(&repository, twins).await?;
    }
    let queries = Queries::new(repository.clone(), Presence::default());
    for (text, most) in SELECTIVE {
        ask(&queries, text, *most, times).await;
    }
    for (text, most, at_most) in OTHERS {
        ask(&queries, text, *most, times.min(*at_most)).await;
    }
    println!("beside {SCANS} scans:");
    let scans: Vec<_> = (0..SCANS).map(|_| tokio::spawn(scan(queries.clone()))).collect();
    for (text, most) in SELECTIVE {
        ask(&queries, text, *most, times).await;
    }
    scans.iter().for_each(tokio::task::JoinHandle::abort);
    repository.close().await;
    Ok(())
}

/// Scans again and again; a scan that had to wait too long for others is asked again as well.
async fn scan(queries: Queries) {
    loop {
        let request = PageRequest {
            text: SCAN.to_owned(),
            ..PageRequest::default()
        };
        if let Err(error) = queries.page(request).await {
            println!("{error}");
        }
    }
}

async fn make(repository: &Repository, twins: u32) -> Result<(), ServiceError> {
    let begun = Instant::now();
    let mut first = 0;
    while first < twins {
        let last = twins.min(first + BATCH);
        repository
            .change(move |transaction| {
                for n in first..last {
                    let (entry, twin) = device(n)?;
                    transaction.put_entry(&entry)?;
                    transaction.put_twin(&twin)?;
                }
                Ok(())
            })
            .await?;
        first = last;
    }
    let took = begun.elapsed();
    let rate = f64::from(twins) / took.as_secs_f64();
    println!("{twins} twins made in {took:.1?}, {rate:.0} a second");
    Ok(())
}

async fn ask(queries: &Queries, text: &str, most: usize, times: u32) {
    let mut took = Vec::new();
    let mut found = String::new();
    for _ in 0..times {
        let request = PageRequest {
            text: text.to_owned(),
            most: Some(most),
            continuation: None,
        };
        let begun = Instant::now();
        found = match queries.page(request).await {
            Ok(page) if page.continuation.is_some() => format!("{} found, and more", page.items.len()),
            Ok(page) => format!("{} found", page.items.len()),
            Err(error) => error.to_string(),
        };
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    println!(
        "p50 {:>9.2?}  p99 {:>9.2?}  {text}: {found}",
        part(&took, 50),
        part(&took, 99)
    );
}

/// A device in one of fifty sites and one of many rooms, with 25 devices each.
fn device(n: u32) -> Result<(Entry, Twin), ServiceError> {
    let now = Timestamp::from_unix_seconds(1_800_000_000);
    let identity: Identity = format!("device-{n:07}")
        .parse()
        .map_err(|_| ServiceError::server_error("the id of an example can't be used"))?;
    let entry = Entry::new(identity.clone(), now)?;
    let mut twin = Twin::new(identity, now);
    let tags = json!({
        "site": format!("site-{}", n % 50), "room": format!("room-{}", n / 25), "serial": n, "spare": n.is_multiple_of(7),
    });
    let desired = json!({"interval": 30, "fw": {"version": "1.4.2"}});
    let update = TwinUpdate {
        tags: tags.as_object().cloned(),
        desired: desired.as_object().cloned(),
    };
    twin.patch(&update, now)?;
    let reported = json!({"battery": n % 100, "fw": {"version": "1.4.1"}, "temperature": f64::from(n % 400) / 10.0});
    twin.patch_reported(&reported.as_object().cloned().unwrap_or_default(), None, now)?;
    Ok((entry, twin))
}

fn part(sorted: &[Duration], percent: usize) -> Duration {
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or_default()
}
