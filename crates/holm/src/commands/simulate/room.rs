//! What a fleet takes of this machine: a file and a port for each connection.
//!
//! A connection is known by two addresses and two ports, and one of this side's some 28,000 ports goes into each: so many connections
//! there are between two addresses. Loopback has 16 million addresses of its own, so a hub on the same machine is reached from several of
//! them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::bail;
use holm_net::{Dial, Dialer, Dialing};
use tokio::net::{TcpSocket, TcpStream};

use crate::{open_files, output};

/// Files beside those of connections.
const OTHER_FILES: u64 = 128;
/// Members of a connection that is shared: fewer than there is room for, since a place that is given up is not taken at once.
const SHARE: usize = 900;
/// Addresses of loopback from which connections come.
const SOURCES: u32 = 64;
/// Where the system tells which ports it gives out.
const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// How many connections so many members need.
pub(super) const fn connections(members: usize, is_shared: bool) -> usize {
    if is_shared { members.div_ceil(SHARE) } else { members }
}

/// Makes sure that so many connections can be open: raises the limit of this process as far as it may.
///
/// # Errors
/// That they can't, with the way out.
pub(super) fn take_files(connections: usize) -> anyhow::Result<()> {
    let needed = u64::try_from(connections)
        .unwrap_or(u64::MAX)
        .saturating_add(OTHER_FILES);
    let files = open_files::raise();
    if files >= needed {
        return Ok(());
    }
    bail!(
        "{connections} connections need as many open files, and this process may have {files}: {} connections are possible; \
         allow more here and for the hub (as root `ulimit -n {needed}` in this shell; `LimitNOFILE` in the hub's unit), or let them \
         share connections by `--protocol amqp --shared`, or give fewer `--devices`",
        files.saturating_sub(OTHER_FILES)
    )
}

/// The way to the hub for so many connections; a word where they are more than this machine has ports for.
pub(super) async fn way(host: &str, port: u16, connections: usize) -> Dialer {
    let found = tokio::net::lookup_host((host, port)).await;
    let address = found.ok().and_then(|mut found| found.next());
    let is_here = address.is_some_and(|address| address.ip().is_loopback() && address.is_ipv4());
    if is_here {
        return Dialer::new(FromLoopback::default());
    }
    let ports = std::fs::read_to_string(PORT_RANGE).ok().and_then(|text| {
        let (first, last) = text.trim().split_once(char::is_whitespace)?;
        Some(
            last.trim()
                .parse::<usize>()
                .ok()?
                .saturating_sub(first.trim().parse().ok()?),
        )
    });
    if let Some(ports) = ports.filter(|ports| *ports < connections) {
        output::note(&format!(
            "holm: this machine has {ports} ports for connections to one address; the others of {connections} find none: run parts of the \
             fleet on several machines, or widen `net.ipv4.ip_local_port_range`"
        ));
    }
    Dialer::default()
}

/// Connects from one address of loopback after the other.
#[derive(Debug, Default)]
struct FromLoopback {
    count: AtomicU32,
}

impl Dial for FromLoopback {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialing<'a> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let stream = connect(host, port, source(number)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn holm_net::Stream>)
        })
    }
}

async fn connect(host: &str, port: u16, source: Ipv4Addr) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in tokio::net::lookup_host((host, port)).await? {
        let connected = if address.is_ipv4() && address.ip().is_loopback() {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::new(IpAddr::V4(source), 0))?;
            socket.connect(address).await
        } else {
            TcpStream::connect(address).await
        };
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn source(number: u32) -> Ipv4Addr {
    let low = u8::try_from(number % SOURCES).unwrap_or(0);
    Ipv4Addr::new(127, 64, 0, low + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_to_this_machine_come_from_many_addresses() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let dialer = way("127.0.0.1", port, 2).await;

        let (one, other) = (
            dialer.dial("127.0.0.1", port).await.unwrap(),
            dialer.dial("127.0.0.1", port).await.unwrap(),
        );

        let first = listener.accept().await.unwrap().1.ip();
        let second = listener.accept().await.unwrap().1.ip();
        assert_eq!(
            [first, second],
            ["127.64.0.1", "127.64.0.2"].map(|text| text.parse::<IpAddr>().unwrap())
        );
        drop((one, other));
    }

    #[test]
    fn more_connections_than_files_are_refused_with_how_many_are_possible() {
        assert!(take_files(1).is_ok());

        let refused = take_files(usize::MAX / 2);

        // Where there is no limit there is nothing to refuse.
        if open_files::raise() < u64::MAX {
            let told = refused.unwrap_err().to_string();
            assert!(told.contains("are possible") && told.contains("--shared"), "{told}");
        }
    }

    #[test]
    fn those_that_share_need_few_connections() {
        assert_eq!(
            (connections(100_000, false), connections(100_000, true)),
            (100_000, 112)
        );
    }
}
