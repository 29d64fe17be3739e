//! The process modules of an edge, as the system shows them: who runs, since when, and an end for those left behind.
//!
//! ```text
//! holm supervise run DATA/…      one for each module; belongs to no edge process, so it survives its end
//!   └─ the module's program      IOTEDGE_MODULEID in its environment
//! ```
//!
//! Nothing is read from the edge or its files: a module that was restarted unseen shows here.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// A process, told apart from a later one with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub id: i32,
    /// When it began, in ticks since the system did.
    pub start: u64,
}

impl Process {
    /// Ends it as a crash would.
    pub fn kill(self) {
        // It may have ended by itself.
        if let Some(pid) = Pid::from_raw(self.id) {
            kill_process(pid, Signal::KILL).ok();
        }
    }
}

/// The programs of the modules that run for the edge with this data directory, by module id.
#[must_use]
pub fn modules(data: &Path) -> BTreeMap<String, Process> {
    let supervisors = supervisors(data);
    let programs = all().into_iter().filter(|(_, stat)| supervisors.contains(&stat.parent));
    programs
        .filter_map(|(id, stat)| Some((module_of(id)?, Process { id, start: stat.start })))
        .collect()
}

/// Ends the supervisors of the edge with this data directory, and with them their modules. For edges that have ended: one
/// that runs starts them again.
pub fn end_modules(data: &Path) {
    for id in supervisors(data) {
        // It may have ended by itself in between.
        if let Some(pid) = Pid::from_raw(id) {
            kill_process(pid, Signal::KILL).ok();
        }
    }
}

fn supervisors(data: &Path) -> Vec<i32> {
    let inside = |argument: &[u8]| std::str::from_utf8(argument).is_ok_and(|text| Path::new(text).starts_with(data));
    let is_one = |id: &i32| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        arguments
            .windows(3)
            .any(|words| matches!(words, [b"supervise", b"run", directory] if inside(directory)))
    };
    all().into_keys().filter(is_one).collect()
}

fn module_of(id: i32) -> Option<String> {
    variable(id, "IOTEDGE_MODULEID")
}

/// A variable of a process's environment, as it was at its start.
#[must_use]
pub fn variable(id: i32, name: &str) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{id}/environ")).ok()?;
    let value = environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    String::from_utf8(value.to_vec()).ok()
}

struct Stat {
    parent: i32,
    start: u64,
}

/// Every process that has not ended.
fn all() -> BTreeMap<i32, Stat> {
    let entries = std::fs::read_dir("/proc").expect("a Linux system has /proc");
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter_map(|id| Some((id, stat(id)?))).collect()
}

/// proc_pid_stat(5): after the name in parentheses come the state (3), the parent (4), …, the start (22).
fn stat(id: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ended = matches!(*fields.first()?, "Z" | "X");
    let stat = Stat {
        parent: fields.get(1)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    };
    (!ended).then_some(stat)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen_with_its_parent_and_is_no_supervisor() {
        let own = i32::try_from(std::process::id()).unwrap();

        let stat = stat(own).unwrap();

        assert_eq!(u32::try_from(stat.parent).unwrap(), std::os::unix::process::parent_id());
        assert!(stat.start > 0);
        assert!(!supervisors(Path::new("/")).contains(&own));
    }
}
