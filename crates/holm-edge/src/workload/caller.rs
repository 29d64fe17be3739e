//! Whether a process belongs to a module: it is one of the module's, or descends from one.

use holm_net::UnixPeer;

/// The most ancestors that are followed: process trees of modules are shallow, and a loop in what `/proc` says must end.
const MAX_DEPTH: usize = 64;

/// Whether the caller is one of these processes, or descends from one.
pub(super) fn belongs(caller: UnixPeer, processes: &[u32]) -> bool {
    let Some(mut pid) = caller.pid.and_then(|pid| u32::try_from(pid).ok()) else {
        return false;
    };
    for _ in 0..MAX_DEPTH {
        if processes.contains(&pid) {
            return true;
        }
        match parent(pid) {
            Some(next) if next > 1 => pid = next,
            _ => return false,
        }
    }
    false
}

/// The parent of a process. The command in `stat` is in parentheses and may hold any character, so what follows is counted
/// from the last one.
fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_belongs_to_itself_and_to_its_ancestors_and_to_no_other() {
        let own = std::process::id();
        let caller = UnixPeer {
            uid: 0,
            pid: i32::try_from(own).ok(),
        };

        assert!(belongs(caller, &[own]));
        assert!(belongs(caller, &[parent(own).unwrap()]));
        assert!(!belongs(caller, &[u32::MAX]));
        assert!(!belongs(UnixPeer { uid: 0, pid: None }, &[own]));
    }
}
