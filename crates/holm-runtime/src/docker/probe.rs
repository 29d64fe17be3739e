//! Tries from inside a container's network whether the edge can be reached there.
//!
//! A thread of its own enters the network namespace of the container's main process, connects, and ends; no image, no program
//! in the container and no other tool is needed. Entering needs the rights of root; without them it says so instead of
//! guessing from outside.

use std::fs::{self, File};
use std::net::{IpAddr, ToSocketAddrs};
use std::os::fd::AsFd;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::probe::connect_to;
use crate::state::Reachability;

/// Tries to connect to a port of `host` from the network of the container whose main process is `pid`. Blocks.
pub(super) fn from_container(container_id: &str, pid: u32, host: &str, port: u16) -> Reachability {
    let not_checked = |reason: String| Reachability::NotChecked { reason };
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    if !groups.contains(container_id) {
        return not_checked("the processes of the engine are not visible here".to_owned());
    }
    let address = match resolve(pid, host, port) {
        Ok(address) => address,
        Err(reason) => return Reachability::Unreachable { reason },
    };
    let namespace = match File::open(format!("/proc/{pid}/ns/net")) {
        Ok(namespace) => namespace,
        Err(error) => return not_checked(format!("the container's network cannot be opened: {error}")),
    };
    let host = host.to_owned();
    // Not a thread of a pool: whoever enters a namespace stays in it.
    let entered = std::thread::Builder::new().name("probe".to_owned()).spawn(move || {
        match move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)) {
            Ok(()) => connect_to(&host, address, port),
            Err(error) => Reachability::NotChecked {
                reason: format!("the container's network cannot be entered: {error}; run the edge as root"),
            },
        }
    });
    match entered.map(std::thread::JoinHandle::join) {
        Ok(Ok(reachability)) => reachability,
        Ok(Err(_)) => not_checked("the check broke off".to_owned()),
        Err(error) => not_checked(format!("no thread can be made: {error}")),
    }
}

/// The address that the container has for a name: by its own hosts file, else as the device resolves it, whose resolver the
/// engine's stands before.
fn resolve(pid: u32, host: &str, port: u16) -> Result<IpAddr, String> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let hosts = fs::read_to_string(format!("/proc/{pid}/root/etc/hosts")).unwrap_or_default();
    if let Some(address) = find_host(&hosts, host) {
        return Ok(address);
    }
    let resolved = (host, port)
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next());
    resolved.map(|address| address.ip()).ok_or_else(|| {
        format!(
            "the name `{host}` is not in the container's /etc/hosts and the device cannot resolve it; \
             add it to `HostConfig.ExtraHosts` or let the module join the edge's network"
        )
    })
}

fn find_host(hosts: &str, name: &str) -> Option<IpAddr> {
    hosts.lines().find_map(|line| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_a_hosts_file() {
        let hosts = "127.0.0.1\tlocalhost\n# 10.0.0.9 edge\n172.18.0.1 gw Edge.Plant # ours\n";

        assert_eq!(find_host(hosts, "edge.plant"), Some([172, 18, 0, 1].into()));
        assert_eq!(find_host(hosts, "edge"), None);
        assert_eq!(find_host(hosts, "ours"), None);
    }

    #[test]
    fn a_process_of_somebody_else_is_not_entered() {
        let result = from_container("no-such-container", std::process::id(), "127.0.0.1", 1);

        assert!(matches!(result, Reachability::NotChecked { .. }), "{result:?}");
    }
}
