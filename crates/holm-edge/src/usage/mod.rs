//! What modules and the device use of processor, memory, network and disk, in the published figures (`edge-agent.md` §8).
//!
//! ```text
//!   scrape ──> the last sample, at once          sampler, while somebody asks: every 30 s
//!     '── nobody asked for ten minutes: waits up to 2 s for the first one
//! ```
//!
//! - A reader never makes an engine work: what it reads was measured before. So two readers cost what one does.
//! - While nobody reads, nothing is measured.
//! - What can't be measured is left out: a process module has no network of its own.

mod disks;
mod host;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holm_gateway::metrics::{Exposition, Kind, Summary};
use holm_runtime::ModuleStats;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use crate::agent::figures::telemetry;
use crate::runtimes::Runtimes;
pub use disks::Disk;
pub use host::Host;

/// How often it is measured while somebody asks.
const PERIOD: Duration = Duration::from_secs(30);
/// How soon after the first look.
const SECOND_LOOK: Duration = Duration::from_secs(3);
/// How long after the last question.
const INTEREST: Duration = Duration::from_secs(600);
/// How long a reader waits for the first sample: engines answer in a tenth of that.
const PATIENCE: Duration = Duration::from_secs(2);
/// Modules that are shown; a deployment has 50.
const MAX_MODULES: usize = 200;
/// The device among the names of modules, as published.
const HOST: &str = "host";
/// This process: agent, broker and security manager in one.
const OWN: &str = "edgeAgent";

/// Measures what is used. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Usage {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    runtimes: Runtimes,
    data: PathBuf,
    /// Somebody asked.
    asked: Notify,
    /// When somebody last asked. Held for a copy.
    interest: Mutex<Option<Instant>>,
    /// The processor time that was used, of each name. Held for a few map operations.
    processors: Mutex<BTreeMap<String, Processor>>,
    sample: watch::Sender<Option<Arc<Sample>>>,
}

/// What was found at one look.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When.
    pub taken: Instant,
    /// The device.
    pub host: Host,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// This process.
    pub own: ModuleStats,
    /// The modules that run, by name.
    pub modules: BTreeMap<String, ModuleStats>,
}

/// The processor time of one name.
#[derive(Debug, Default)]
struct Processor {
    /// When it was last measured, and how much had been used, in nanoseconds.
    last: Option<(Instant, u64)>,
    /// Percent of all processors together, between two looks.
    percent: Arc<Summary>,
}

impl Usage {
    /// Measures the modules of these runtimes, and the device that holds `data`.
    #[must_use]
    pub fn new(runtimes: Runtimes, data: PathBuf) -> Self {
        let inner = Inner {
            runtimes,
            data,
            asked: Notify::new(),
            interest: Mutex::default(),
            processors: Mutex::default(),
            sample: watch::Sender::new(None),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Measures while somebody asks; for ever.
    pub async fn run(self) {
        loop {
            if !self.is_wanted() {
                self.inner.asked.notified().await;
                continue;
            }
            let before = self.inner.sample.borrow().clone();
            self.measure().await;
            // What was used is known between two looks, and the first reader waits for it.
            let is_first = before.is_none_or(|before| before.taken.elapsed() > 2 * PERIOD);
            let pause = if is_first { SECOND_LOOK } else { PERIOD };
            tokio::time::sleep(pause).await;
        }
    }

    fn is_wanted(&self) -> bool {
        lock(&self.inner.interest).is_some_and(|asked| asked.elapsed() < INTEREST)
    }

    /// What was measured last; `None` when nothing could be measured in time.
    pub async fn sample(&self) -> Option<Arc<Sample>> {
        *lock(&self.inner.interest) = Some(Instant::now());
        self.inner.asked.notify_one();
        let mut samples = self.inner.sample.subscribe();
        let fresh = |sample: &Option<Arc<Sample>>| {
            let sample = sample.as_ref();
            sample.is_some_and(|sample| sample.taken.elapsed() < 2 * PERIOD)
        };
        let wait = samples.wait_for(fresh);
        if let Ok(Ok(sample)) = tokio::time::timeout(PATIENCE, wait).await {
            return sample.clone();
        }
        self.inner.sample.borrow().clone()
    }

    async fn measure(&self) {
        let data = self.inner.data.clone();
        let host = tokio::task::spawn_blocking(move || (Host::read(), disks::read(&data), host::own()));
        let (modules, host) = tokio::join!(self.inner.runtimes.all_stats(), host);
        let (host, disks, own) = match host {
            Ok(read) => read,
            Err(error) => return tracing::error!(%error, "measuring the device broke off"),
        };
        let modules = modules.into_iter().take(MAX_MODULES);
        let sample = Sample {
            taken: Instant::now(),
            host,
            disks,
            own,
            modules: modules.map(|(id, stats)| (id.to_string(), stats)).collect(),
        };
        self.note_processors(&sample);
        self.inner.sample.send_replace(Some(Arc::new(sample)));
    }

    fn note_processors(&self, sample: &Sample) {
        let modules = sample
            .modules
            .iter()
            .map(|(name, stats)| (name.as_str(), stats.cpu_nanos));
        let ours = [(HOST, sample.host.cpu_nanos), (OWN, sample.own.cpu_nanos)];
        let all: BTreeMap<&str, u64> = modules.chain(ours).collect();
        let mut processors = lock(&self.inner.processors);
        processors.retain(|name, _| all.contains_key(name.as_str()));
        for (name, nanos) in all {
            let processor = processors.entry(name.to_owned()).or_default();
            if let Some((at, before)) = processor.last.replace((sample.taken, nanos))
                // Less than before: it was started anew.
                && let Some(used) = nanos.checked_sub(before)
            {
                let passed = sample.taken.duration_since(at);
                let share = Duration::from_nanos(used).as_secs_f64() / passed.as_secs_f64().max(f64::EPSILON);
                let percent = share / f64::from(sample.host.processors.max(1)) * 100.0;
                // Ticks are counted in hundredths of a second, so that a little more than all may seem to have been used.
                processor.percent.observe(percent.min(100.0));
            }
        }
    }

    /// Writes the published figures.
    pub async fn write(&self, out: &mut Exposition) {
        let Some(sample) = self.sample().await else {
            return tracing::warn!("what modules and the device use could not be measured in time");
        };
        self.write_processors(out);
        write_memory(out, &sample);
        write_modules(out, &sample);
        write_disks(out, &sample.disks);
        let mut gauge = |name: &str, help: &str, value: Option<Duration>| {
            out.begin(&format!("edgeAgent_{name}"), help, Kind::Gauge);
            if let Some(value) = value {
                out.point(&telemetry(&[]), value.as_secs_f64());
            }
        };
        gauge(
            "host_uptime_seconds",
            "How long the device has been on.",
            sample.host.uptime,
        );
        gauge(
            "iotedged_uptime_seconds",
            "How long this process has been running.",
            sample.host.process_uptime,
        );
    }

    fn write_processors(&self, out: &mut Exposition) {
        out.begin(
            "edgeAgent_used_cpu_percent",
            "Percent of all processors that were used.",
            Kind::Summary,
        );
        let all: Vec<_> = {
            let processors = lock(&self.inner.processors);
            let all = processors.iter();
            all.map(|(name, processor)| (name.clone(), Arc::clone(&processor.percent)))
                .collect()
        };
        for (name, percent) in all {
            out.point(&telemetry(&[("module_name", &name)]), percent.read());
        }
    }

    /// The same in the published form of `GET /systeminfo/resources`.
    pub async fn resources(&self) -> Option<Value> {
        let sample = self.sample().await?;
        let percent = {
            let processors = lock(&self.inner.processors);
            processors.get(HOST).map(|host| host.percent.read())
        };
        let used = percent.filter(|view| view.count > 0).map_or(0.0, |view| {
            view.sum / f64::from(u32::try_from(view.count).unwrap_or(u32::MAX))
        });
        let stats: Vec<&Value> = sample.modules.values().map(|stats| &stats.docker_json).collect();
        let seconds = |duration: Option<Duration>| duration.unwrap_or_default().as_secs();
        Some(json!({
            "host_uptime": seconds(sample.host.uptime),
            "process_uptime": seconds(sample.host.process_uptime),
            "used_cpu": used,
            "used_ram": sample.host.used_memory,
            "total_ram": sample.host.total_memory,
            "disks": sample.disks.iter().map(Disk::to_json).collect::<Vec<_>>(),
            // A text that holds JSON, as published.
            "docker_stats": json!(stats).to_string(),
        }))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write_memory(out: &mut Exposition, sample: &Sample) {
    let total = sample.host.total_memory;
    let modules = sample.modules.iter().map(|(name, stats)| {
        let limit = stats.memory_limit_bytes.map_or(total, |limit| limit.min(total));
        (name.as_str(), stats.memory_bytes, limit)
    });
    let ours = [
        (HOST, sample.host.used_memory, total),
        (OWN, sample.own.memory_bytes, total),
    ];
    let all: Vec<_> = ours.into_iter().chain(modules).collect();
    out.begin(
        "edgeAgent_used_memory_bytes",
        "Memory in use, without page cache.",
        Kind::Gauge,
    );
    for (name, used, _) in &all {
        out.point(&telemetry(&[("module_name", name)]), *used);
    }
    out.begin(
        "edgeAgent_total_memory_bytes",
        "Memory that there is for it: its limit, else the device's.",
        Kind::Gauge,
    );
    for (name, _, total) in &all {
        out.point(&telemetry(&[("module_name", name)]), *total);
    }
}

fn write_modules(out: &mut Exposition, sample: &Sample) {
    let own = (OWN, &sample.own);
    let modules = sample.modules.iter().map(|(name, stats)| (name.as_str(), stats));
    let all: Vec<_> = std::iter::once(own).chain(modules).collect();
    let mut gauge = |name: &str, help: &str, of: fn(&ModuleStats) -> Option<u64>| {
        out.begin(&format!("edgeAgent_{name}"), help, Kind::Gauge);
        for (name, stats) in &all {
            if let Some(value) = of(stats) {
                out.point(&telemetry(&[("module_name", name)]), value);
            }
        }
    };
    gauge(
        "created_pids_total",
        "Processes and threads that it has now.",
        |stats| Some(stats.pids),
    );
    gauge("total_network_in_bytes", "Bytes received from the network.", |stats| {
        stats.network_in_bytes
    });
    gauge("total_network_out_bytes", "Bytes sent to the network.", |stats| {
        stats.network_out_bytes
    });
    gauge("total_disk_read_bytes", "Bytes read from disks.", |stats| {
        Some(stats.disk_read_bytes)
    });
    gauge("total_disk_write_bytes", "Bytes written to disks.", |stats| {
        Some(stats.disk_write_bytes)
    });
}

fn write_disks(out: &mut Exposition, disks: &[Disk]) {
    let mut gauge = |name: &str, help: &str, of: fn(&Disk) -> u64| {
        out.begin(&format!("edgeAgent_{name}"), help, Kind::Gauge);
        for disk in disks {
            let labels = [
                ("disk_name", disk.name.as_str()),
                ("disk_filesystem", disk.file_system.as_str()),
                ("disk_filetype", disk.kind),
            ];
            out.point(&telemetry(&labels), of(disk));
        }
    };
    gauge("available_disk_space_bytes", "Space that is left on a disk.", |disk| {
        disk.available
    });
    gauge("total_disk_space_bytes", "Size of a disk.", |disk| disk.total);
}

#[cfg(test)]
mod tests {
    use holm_model::ModuleId;

    use super::*;

    fn sample(taken: Instant, nanos: u64) -> Sample {
        let stats = ModuleStats {
            memory_bytes: 5,
            memory_limit_bytes: Some(10),
            cpu_nanos: nanos,
            ..ModuleStats::default()
        };
        Sample {
            taken,
            host: Host {
                processors: 2,
                total_memory: 100,
                ..Host::default()
            },
            disks: Vec::new(),
            own: ModuleStats::default(),
            modules: BTreeMap::from([(ModuleId::new("m").unwrap().to_string(), stats)]),
        }
    }

    #[test]
    fn processor_time_is_told_as_a_share_of_all_processors_and_survives_a_restart_of_the_module() {
        let (usage, start) = (Usage::new(Runtimes::default(), "/".into()), Instant::now());

        usage.note_processors(&sample(start, 0));
        usage.note_processors(&sample(start + Duration::from_secs(10), 5_000_000_000));
        usage.note_processors(&sample(start + Duration::from_secs(20), 1_000_000));

        let view = lock(&usage.inner.processors)["m"].percent.read();
        assert_eq!((view.count, view.sum), (1, 25.0));
    }

    #[test]
    fn a_network_that_can_not_be_measured_is_left_out() {
        let mut out = Exposition::default();
        let sample = sample(Instant::now(), 0);

        write_modules(&mut out, &sample);
        write_memory(&mut out, &sample);

        let text = out.into_text();
        assert!(text.contains("created_pids_total{module_name=\"m\""), "{text}");
        assert!(!text.contains("network_in_bytes{"), "{text}");
        assert!(
            text.contains("edgeAgent_total_memory_bytes{module_name=\"m\",ms_telemetry=\"True\"} 10"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn nothing_is_measured_until_somebody_asks_and_then_the_device_is_told() {
        let usage = Usage::new(Runtimes::default(), "/".into());
        let sampler = tokio::spawn(usage.clone().run());
        assert!(usage.inner.sample.borrow().is_none());

        let sample = usage.sample().await.unwrap();

        sampler.abort();
        assert!(sample.host.total_memory > sample.host.used_memory && sample.host.used_memory > 0);
        assert!(sample.host.cpu_nanos > 0 && sample.own.memory_bytes > 0 && sample.own.pids > 0);
        assert!(
            sample.disks.iter().all(|disk| disk.total >= disk.available),
            "{:?}",
            sample.disks
        );
        assert!(!sample.disks.is_empty());
    }
}
