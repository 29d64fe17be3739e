//! How long a hub with a large fleet takes to start, and what memory it holds.
//!
//! ```sh
//! cargo build --release -p holm
//! cargo run --release -p holm-hub --example million -- 1000000 [CONFIGURATIONS] [DIR]
//! ```
//!
//! The first argument is how many identities there are: devices with a key, tags and a reported property each. The second is how many
//! configurations are in force, each for the devices of a site and set there already: with one or more a hub reads the fleet when it
//! starts, in the background. The third is the data directory, which is used again if it is there; else one in the directory for
//! temporary files (a million takes some 0.6 GB). They are written as the hub would, many in a transaction. Then the real program is
//! started on it, `holm` beside this one (or HOLM_BIN), and measured from outside: until it says where it listens, and until it has
//! nothing more to do.

// A stopwatch needs a place to print.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use holm_hub::registry::Entry;
use holm_hub::storage::Repository;
use holm_hub::{Hub, HubConfig};
use holm_model::configuration::{Configuration, ConfigurationId, ConfigurationWish};
use holm_model::{Identity, ServiceError, Timestamp, Twin, TwinUpdate};
use serde_json::json;

/// Identities that are made in one transaction.
const BATCH: u32 = 5000;
/// How long memory and work are looked at after the start: configurations are evaluated then.
const WATCHED: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Sites that devices are at.
const SITES: u32 = 50;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let count: u32 = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let configurations: u32 = arguments.next().map_or(Ok(0), |text| text.parse())?;
    let temporary = tempfile::tempdir()?;
    let data = arguments
        .next()
        .map_or_else(|| temporary.path().join("data"), PathBuf::from);
    if data.join("hub.db").exists() {
        println!("`{}` is used as it is", data.display());
    } else {
        // Everything else that a data directory has.
        Hub::open(HubConfig::new(&data, "localhost")).await?.close().await;
        fill(&data.join("hub.db"), count).await?;
        configure(&data, configurations).await?;
    }
    let bytes = std::fs::metadata(data.join("hub.db"))?.len();
    println!("the database has {} MiB", bytes >> 20);

    // The first start may find the files in no cache, the second does.
    for which in ["first start", "second start"] {
        measure(&data, which)?;
    }
    Ok(())
}

async fn fill(database: &Path, count: u32) -> Result<(), Box<dyn Error>> {
    let repository = Repository::open(database)?;
    // There is nothing to go back to.
    repository.keep_history(false);
    let begin = Instant::now();
    for first in (0..count).step_by(BATCH as usize) {
        let last = count.min(first + BATCH);
        let made = repository.change(move |transaction| {
            for number in first..last {
                let (entry, twin) = device(number)?;
                transaction.put_entry(&entry)?;
                transaction.put_twin(&twin)?;
            }
            Ok(())
        });
        made.await?;
    }
    repository.close().await;
    let took = begin.elapsed();
    println!(
        "{count} identities in {took:.1?}, {:.0} a second",
        f64::from(count) / took.as_secs_f64()
    );
    Ok(())
}

/// Makes configurations, and has a hub put them into force.
async fn configure(data: &Path, count: u32) -> Result<(), Box<dyn Error>> {
    let repository = Repository::open(&data.join("hub.db"))?;
    let made = repository.change(move |transaction| {
        for number in 0..count {
            let id = format!("site-{number}");
            let body = json!({
                "content": { "deviceContent": { "properties.desired.rate": number } },
                "targetCondition": format!("tags.site = 'site-{}'", number % SITES),
                "priority": number,
            });
            let id = ConfigurationId::new(&id).map_err(|_| ServiceError::server_error("the id can't be used"))?;
            let wish = ConfigurationWish::from_json(&id, body.to_string().as_bytes())?;
            transaction.put_configuration(&Configuration::create(
                id,
                wish,
                Timestamp::from_unix_seconds(1_800_000_000),
                1,
            )?)?;
        }
        Ok(())
    });
    made.await?;
    repository.close().await;
    let begin = Instant::now();
    let hub = Hub::open(HubConfig::new(data, "localhost")).await?;
    while !hub.configurations().is_settled().await {
        tokio::time::sleep(LOOK).await;
    }
    println!("{count} configurations are in force after {:.1?}", begin.elapsed());
    hub.close().await;
    Ok(())
}

/// A device in one of the sites.
fn device(number: u32) -> Result<(Entry, Twin), ServiceError> {
    let now = Timestamp::from_unix_seconds(1_800_000_000);
    let identity: Identity = format!("device-{number:07}")
        .parse()
        .map_err(|_| ServiceError::server_error("the id of an example can't be used"))?;
    let entry = Entry::new(identity.clone(), now)?;
    let mut twin = Twin::new(identity, now);
    let tags = json!({ "site": format!("site-{}", number % SITES), "serial": number });
    let update = TwinUpdate {
        tags: tags.as_object().cloned(),
        desired: None,
    };
    twin.patch(&update, now)?;
    let reported = json!({ "fw": "1.4.1" });
    twin.patch_reported(&reported.as_object().cloned().unwrap_or_default(), None, now)?;
    Ok((entry, twin))
}

/// A hub that runs; it ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended by itself can't be killed.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn measure(data: &Path, which: &str) -> Result<(), Box<dyn Error>> {
    let begin = Instant::now();
    let mut hub = Command::new(program()?);
    hub.args(["hub", "run", "--hostname", "localhost", "--bind", "127.0.0.1"])
        .args(["--mqtt-port", "0", "--amqp-port", "0", "--https-port", "0", "--data"])
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let mut hub = Running(hub.env("HOLM_LOG", "warn").spawn()?);
    let out = hub.0.stdout.take().ok_or("the hub has no output")?;
    let mut line = String::new();
    // It says where it listens when it is ready.
    if BufReader::new(out).read_line(&mut line)? == 0 {
        return Err("the hub did not start; what it says stands above".into());
    }
    let took = begin.elapsed();
    let at_start = resident(&hub.0)?;
    let (mut most, mut last, mut worked) = (at_start, at_start, took);
    let (mut used, until) = (ticks(&hub.0)?, Instant::now() + WATCHED);
    while Instant::now() < until {
        std::thread::sleep(LOOK);
        last = resident(&hub.0)?;
        most = most.max(last);
        let now = ticks(&hub.0)?;
        // More than a tick is more than what an idle hub does.
        if now > used + 1 {
            worked = begin.elapsed();
        }
        used = now;
    }
    println!(
        "{which}: ready after {took:.2?}, at rest after {worked:.2?}; {at_start} KiB resident when ready, {most} KiB at most and \
         {last} KiB at last in {WATCHED:?}"
    );
    Ok(())
}

/// The processor time that a process has used, in ticks of some 10 ms.
fn ticks(process: &Child) -> Result<u64, Box<dyn Error>> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id()))?;
    // Behind the name, which may hold spaces: state is the first, user and system time are the 12th and 13th.
    let behind = stat.rsplit(')').next().unwrap_or_default();
    let times = behind.split_whitespace().skip(11).take(2);
    Ok(times.map(str::parse::<u64>).sum::<Result<u64, _>>()?)
}

/// `holm`, as it is built beside this example.
fn program() -> Result<PathBuf, Box<dyn Error>> {
    if let Some(named) = std::env::var_os("HOLM_BIN") {
        return Ok(named.into());
    }
    let example = std::env::current_exe()?;
    let built = example
        .parent()
        .and_then(Path::parent)
        .map(|directory| directory.join("holm"));
    built
        .filter(|program| program.exists())
        .ok_or_else(|| "`holm` is not built beside this example; build it with `cargo build --release -p holm`".into())
}

/// What a process holds in memory, in KiB.
fn resident(process: &Child) -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line
        .and_then(|line| line.split_whitespace().next())
        .ok_or("the process tells no memory")?;
    Ok(number.parse()?)
}
