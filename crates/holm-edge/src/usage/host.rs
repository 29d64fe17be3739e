//! The device and this process, as the kernel tells of them (proc(5)).

use std::fs;
use std::time::Duration;

use holm_runtime::ModuleStats;

/// The device at one moment. What can't be read is 0, or `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Host {
    /// Processors.
    pub processors: u32,
    /// Processor time that was used since the start, all processors together, in nanoseconds.
    pub cpu_nanos: u64,
    /// Memory, in bytes.
    pub total_memory: u64,
    /// Memory that can't be had, in bytes.
    pub used_memory: u64,
    /// How long the device has been on.
    pub uptime: Option<Duration>,
    /// How long this process has been running.
    pub process_uptime: Option<Duration>,
}

impl Host {
    /// Reads it.
    #[must_use]
    pub fn read() -> Self {
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total_memory = kibibytes(&memory, "MemTotal:").unwrap_or(0);
        let available = kibibytes(&memory, "MemAvailable:").or_else(|| kibibytes(&memory, "MemFree:"));
        let uptime = uptime(&fs::read_to_string("/proc/uptime").unwrap_or_default());
        let own = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let started = fields(&own).nth(19).and_then(|ticks| ticks.parse().ok()).map(ticks);
        Self {
            processors: std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1)),
            cpu_nanos: cpu_nanos(&fs::read_to_string("/proc/stat").unwrap_or_default()),
            total_memory,
            used_memory: total_memory.saturating_sub(available.unwrap_or(0)),
            uptime,
            process_uptime: uptime
                .zip(started)
                .map(|(uptime, started)| uptime.saturating_sub(started)),
        }
    }
}

/// What this process uses.
pub(super) fn own() -> ModuleStats {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let number = |place: usize| {
        fields(&stat)
            .nth(place)
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let io = |name: &str| value(&io, name).unwrap_or(0);
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    ModuleStats {
        memory_bytes: number(21).saturating_mul(page),
        cpu_nanos: nanos(ticks(number(11).saturating_add(number(12)))),
        pids: number(17),
        disk_read_bytes: io("read_bytes:"),
        disk_write_bytes: io("write_bytes:"),
        ..ModuleStats::default()
    }
}

/// The fields after the name, which may hold anything; the first is field 3 of the manual page.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace()
}

fn ticks(count: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_secs(count / per_second) + Duration::from_nanos(count % per_second * (1_000_000_000 / per_second))
}

/// Everything but idling and waiting for disks: fields 4 and 5. The last two are within the first two.
fn cpu_nanos(stat: &str) -> u64 {
    let line = stat
        .lines()
        .find_map(|line| line.strip_prefix("cpu "))
        .unwrap_or_default();
    let numbers = line.split_whitespace().take(8).enumerate();
    let busy = numbers.filter(|(place, _)| !matches!(place, 3 | 4));
    let busy = busy
        .filter_map(|(_, text)| text.parse::<u64>().ok())
        .fold(0, u64::saturating_add);
    u64::try_from(ticks(busy).as_nanos()).unwrap_or(u64::MAX)
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    Some(value(text, name)?.saturating_mul(1024))
}

fn value(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn uptime(text: &str) -> Option<Duration> {
    let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_not_used() {
        let per_second = rustix::param::clock_ticks_per_second();
        let stat = format!("cpu  {per_second} 0 {per_second} 900 800 0 0 0 {per_second} 0\ncpu0 1 2 3\n");

        assert_eq!(cpu_nanos(&stat), 2_000_000_000);
        assert_eq!(cpu_nanos(""), 0);
    }

    #[test]
    fn this_process_was_started_after_the_device() {
        let host = Host::read();

        assert!(host.process_uptime.unwrap() <= host.uptime.unwrap());
        assert!(host.processors > 0);
    }
}
