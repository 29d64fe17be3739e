//! Accepts TCP connections: a permit is taken before `accept` and returned when the connection is dropped, so a flood waits
//! in the kernel's queue and costs this process nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ListeningSockets;

/// How a listener admits connections.
#[derive(Clone, Copy, Debug)]
pub struct ListenerOptions {
    /// The most connections open at once. At the limit, further ones wait in the kernel's queue. Each idle TLS connection
    /// costs 9 KiB at the edge. Default 20,000.
    pub max_connections: usize,
}

impl Default for ListenerOptions {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
        }
    }
}

/// A bound TCP socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    permits: Arc<Semaphore>,
}

/// A connection and its permit, which returns when this is dropped.
#[derive(Debug)]
pub struct Admitted {
    /// The socket, with `TCP_NODELAY`.
    pub stream: TcpStream,
    /// Who connected.
    pub peer: SocketAddr,
    /// Keep it as long as the connection lives.
    pub permit: OwnedSemaphorePermit,
}

impl Listener {
    /// Binds an address; port 0 lets the system choose.
    ///
    /// # Errors
    /// The address is in use, is not of this machine, or needs more rights; the message names the address.
    pub async fn bind(address: SocketAddr, options: ListenerOptions) -> io::Result<Self> {
        Self::open(&ListeningSockets::default(), address, options)
    }

    /// As [`Listener::bind`], with a socket of the process before if it left one for this address.
    ///
    /// # Errors
    /// As there.
    pub fn open(sockets: &ListeningSockets, address: SocketAddr, options: ListenerOptions) -> io::Result<Self> {
        let socket = sockets.tcp(address).and_then(|socket| {
            socket.set_nonblocking(true)?;
            TcpListener::from_std(socket)
        });
        let socket =
            socket.map_err(|error| io::Error::new(error.kind(), format!("can't listen on `{address}`: {error}")))?;
        Ok(Self {
            socket,
            permits: Arc::new(Semaphore::new(options.max_connections)),
        })
    }

    /// Takes its permits from those of another: both together have as many connections open as that one alone may.
    #[must_use]
    pub fn sharing(self, other: &Self) -> Self {
        Self {
            permits: Arc::clone(&other.permits),
            ..self
        }
    }

    /// The address that was bound.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Waits for a free permit and a connection. Cancel-safe.
    pub async fn accept(&self) -> Admitted {
        loop {
            let permit = Arc::clone(&self.permits)
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            match self.socket.accept().await {
                Ok((stream, peer)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%peer, %error, "a connection was gone before it was set up");
                        continue;
                    }
                    return Admitted { stream, peer, permit };
                }
                Err(error) => {
                    // Out of file descriptors or memory: the next try may succeed, at once trying again would spin.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn listeners_that_share_have_as_many_connections_together_as_one_may() {
        let options = ListenerOptions { max_connections: 1 };
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let one = Listener::bind(free, options).await.unwrap();
        let other = Listener::bind(free, options).await.unwrap().sharing(&one);
        let addresses = [&one, &other].map(|listener| listener.local_address().unwrap());
        let _first = TcpStream::connect(addresses[0]).await.unwrap();
        let _second = TcpStream::connect(addresses[1]).await.unwrap();

        let admitted = one.accept().await;
        let refused = other.accept().now_or_never().is_none();
        drop(admitted);
        let taken = other.accept().await;

        assert!(refused);
        assert_eq!(taken.permit.num_permits(), 1);
    }
}
