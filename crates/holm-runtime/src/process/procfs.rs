//! What `/proc` says about processes.
//!
//! A pid alone names nobody: it is used again. A [`ProcessId`] also holds the time at which the process started, counted in
//! clock ticks since boot, and a record of it stands beside the id of the boot. All three together are unique.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

/// A process, told apart from a later one with the same pid on the same boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: u32,
    /// Clock ticks from boot to the start of the process.
    pub(crate) start: u64,
}

impl ProcessId {
    /// The process that has this pid now, if any.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        Some(Self { pid, start: stat.start })
    }

    /// The calling process.
    pub(crate) fn own() -> io::Result<Self> {
        Self::of(std::process::id()).ok_or_else(|| io::Error::other("/proc/self/stat cannot be read"))
    }

    /// Whether this very process still runs; one that has ended and only waits to be collected does not.
    pub(crate) fn is_alive(self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.start == self.start && !matches!(stat.state, 'Z' | 'X'))
    }
}

/// The id of this boot of the machine.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// When the machine was started, in seconds since 1970.
pub(crate) fn boot_time_seconds() -> Option<i64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

/// Every process below `root`, without `root` itself, parents before children.
pub(crate) fn descendants(root: u32) -> Vec<u32> {
    Family::read().below(root)
}

/// Who is whose child, at one look at all processes.
pub(crate) struct Family(BTreeMap<u32, Vec<u32>>);

impl Family {
    pub(crate) fn read() -> Self {
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (pid, stat) in all() {
            children.entry(stat.parent).or_default().push(pid);
        }
        Self(children)
    }

    /// Every process below `root`, without `root` itself, parents before children.
    pub(crate) fn below(&self, root: u32) -> Vec<u32> {
        let children = |pid: u32| self.0.get(&pid).into_iter().flatten().copied();
        let mut found = Vec::new();
        let mut next: Vec<u32> = children(root).collect();
        while let Some(pid) = next.pop() {
            found.push(pid);
            next.extend(children(pid));
        }
        found
    }
}

/// What some processes use together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) memory_bytes: u64,
    pub(crate) cpu_nanos: u64,
    pub(crate) threads: u64,
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
}

/// Adds up what these processes use, with what those have used that ended below them. `collector` has collected others that
/// ended, and counts with these alone. One that has gone in the meantime counts nothing.
pub(crate) fn usage(pids: &[u32], collector: Option<u32>) -> Usage {
    // Both are constants of the running kernel.
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    let nanos = |ticks: u64| ticks.saturating_mul(1_000_000_000 / ticks_per_second);
    let mut sum = Usage::default();
    if let Some(stat) = collector.and_then(Stat::read) {
        sum.cpu_nanos += nanos(stat.collected_ticks);
    }
    for &pid in pids {
        let Some(stat) = Stat::read(pid) else { continue };
        sum.memory_bytes += stat.resident_pages.saturating_mul(page);
        sum.cpu_nanos += nanos(stat.cpu_ticks.saturating_add(stat.collected_ticks));
        sum.threads += stat.threads;
        let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        sum.read_bytes += io_field(&io, "read_bytes:");
        sum.written_bytes += io_field(&io, "write_bytes:");
    }
    sum
}

fn io_field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// The fields of `/proc/PID/stat` that matter here (proc(5)).
struct Stat {
    state: char,
    parent: u32,
    cpu_ticks: u64,
    /// Of children that have ended and were waited for.
    collected_ticks: u64,
    threads: u64,
    start: u64,
    resident_pages: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name, in brackets, may itself hold brackets and spaces, so fields are counted from the last bracket: there
    /// stands field 3 of the manual page.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: u32::try_from(number(4)?).ok()?,
            cpu_ticks: number(14)?.saturating_add(number(15)?),
            collected_ticks: number(16)?.saturating_add(number(17)?),
            threads: number(20)?,
            start: number(22)?,
            resident_pages: number(24)?,
        })
    }
}

fn all() -> Vec<(u32, Stat)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| Some((pid, Stat::read(pid)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let text = "7 (a) b) (c) S 3 7 7 0 -1 0 0 0 0 0 11 22 3 4 20 0 5 0 999 4096 33 0 0";

        let stat = Stat::parse(text).unwrap();

        assert_eq!((stat.state, stat.parent, stat.start), ('S', 3, 999));
        assert_eq!((stat.cpu_ticks, stat.threads, stat.resident_pages), (33, 5, 33));
        assert_eq!(stat.collected_ticks, 7);
    }

    #[test]
    fn own_process_is_alive_and_one_with_another_start_time_is_not() {
        let own = ProcessId::own().unwrap();
        let reused = ProcessId {
            start: own.start + 1,
            ..own
        };

        assert!(own.is_alive());
        assert!(!reused.is_alive());
    }

    #[test]
    fn half_a_line_is_no_process() {
        assert!(Stat::parse("7 (a) S 3").is_none());
        assert!(Stat::parse("").is_none());
    }
}
