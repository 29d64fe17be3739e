//! Tries whether a TCP port answers, for whoever asks from where a module runs.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::state::Reachability;

/// How long an answer may take. The port is on this very device, so a second says enough; a busy device gets more.
const PATIENCE: Duration = Duration::from_secs(3);

/// Connects from the calling thread's network, with the device's own name resolution.
pub(crate) fn connect(host: &str, port: u16) -> Reachability {
    match (host, port).to_socket_addrs() {
        Ok(addresses) => connect_to_any(host, addresses),
        Err(error) => Reachability::Unreachable {
            reason: format!("the name `{host}` cannot be resolved: {error}"),
        },
    }
}

/// Connects to one address that `host` stands for.
pub(crate) fn connect_to(host: &str, address: IpAddr, port: u16) -> Reachability {
    connect_to_any(host, [SocketAddr::new(address, port)])
}

fn connect_to_any(host: &str, addresses: impl IntoIterator<Item = SocketAddr>) -> Reachability {
    let mut reasons = Vec::new();
    for address in addresses {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(_) => return Reachability::Reachable,
            Err(error) => reasons.push(format!("{address}: {}", explain(&error))),
        }
    }
    if reasons.is_empty() {
        reasons.push(format!("the name `{host}` has no address"));
    }
    Reachability::Unreachable {
        reason: reasons.join("; "),
    }
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing listens there (connection refused)".to_owned(),
        io::ErrorKind::TimedOut => format!(
            "no answer within {} s; a firewall may be in the way",
            PATIENCE.as_secs()
        ),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_that_listens_is_reachable_and_one_that_does_not_says_why() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(connect("127.0.0.1", port), Reachability::Reachable);

        drop(listener);

        let Reachability::Unreachable { reason } = connect("127.0.0.1", port) else {
            panic!("a closed port is reachable");
        };
        assert!(reason.contains("refused"), "{reason}");
    }
}
