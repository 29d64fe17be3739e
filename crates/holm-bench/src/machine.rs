//! What the numbers were measured on.

use serde::Serialize;

/// The machine, as far as it matters to the numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processors that this process may use.
    pub cores: usize,
    /// What the first one calls itself.
    pub processor: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The kernel's release.
    pub kernel: String,
}

impl Machine {
    /// This machine; what the system does not tell is `unknown` or 0.
    #[must_use]
    pub fn here() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let meminfo = read("/proc/meminfo");
        let kib: u64 = field(&meminfo, "MemTotal")
            .split(' ')
            .next()
            .map_or(0, |it| it.parse().unwrap_or(0));
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: field(&cpuinfo, "model name"),
            memory_mib: kib / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// The load averages of 1, 5 and 15 minutes.
#[must_use]
pub fn load_average() -> String {
    read("/proc/loadavg")
        .split_whitespace()
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The value of the first line `name : value`.
fn field(text: &str, name: &str) -> String {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map_or_else(|| "unknown".into(), |(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_cores_and_memory() {
        let machine = Machine::here();

        assert!(machine.cores > 0);
        assert!(machine.memory_mib > 0);
        assert_eq!(load_average().split(' ').count(), 3);
    }
}
