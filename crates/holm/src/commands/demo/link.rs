//! The bad link of the demo: everything between edge and hub passes through here, is counted, and can be cut.
//!
//! A cut link is like a pulled cable with a polite switch behind it: what is open is closed, and nothing new gets through.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use holm_net::Scope;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The link.
#[derive(Clone, Debug)]
pub(super) struct Link {
    up: watch::Sender<bool>,
    sent: Arc<AtomicU64>,
}

impl Link {
    /// A link that is up and leads nowhere yet.
    pub(super) fn new() -> Self {
        Self {
            up: watch::Sender::new(true),
            sent: Arc::default(),
        }
    }

    /// Opens a way through the link to an address; gives the address at its near end.
    pub(super) async fn open(&self, scope: &Scope, far: SocketAddr) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind(SocketAddr::new(far.ip(), 0))
            .await
            .context("no port for the link")?;
        let near = listener.local_addr().context("the link has no address")?;
        let (link, connections) = (self.clone(), scope.clone());
        scope.spawn_until_stopped(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let link = link.clone();
                        connections.spawn_until_stopped(async move { link.carry(stream, far).await });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the link refused a connection");
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    }
                }
            }
        });
        Ok(near)
    }

    /// Cuts the link, or joins it again.
    pub(super) fn set_up(&self, up: bool) {
        self.up.send_replace(up);
    }

    /// Bytes that have left the edge so far, with everything that TLS adds.
    pub(super) fn bytes_sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    async fn carry(self, near: TcpStream, far: SocketAddr) {
        let mut up = self.up.subscribe();
        if !*up.borrow_and_update() {
            return;
        }
        let Ok(far) = TcpStream::connect(far).await else { return };
        if near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).is_err() {
            return;
        }
        let (near_read, near_write) = near.into_split();
        let (far_read, far_write) = far.into_split();
        let unmetered = AtomicU64::new(0);
        tokio::select! {
            () = copy(near_read, far_write, &self.sent) => {}
            () = copy(far_read, near_write, &unmetered) => {}
            _ = up.wait_for(|up| !up) => {}
        }
    }
}

/// Copies until either end is gone, which ends the whole connection.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, count: &AtomicU64) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(n) = from.read(&mut buffer).await else { return };
        let piece = buffer.get(..n).unwrap_or_default();
        if piece.is_empty() || to.write_all(piece).await.is_err() {
            return;
        }
        count.fetch_add(n as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cut_link_closes_what_is_open_and_lets_nothing_through_until_it_is_joined() {
        let scope = Scope::new();
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = Link::new();
        let near = link.open(&scope, server.local_addr().unwrap()).await.unwrap();
        let mut client = TcpStream::connect(near).await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        served.read_exact(&mut heard).await.unwrap();
        assert_eq!(link.bytes_sent(), 5);

        link.set_up(false);

        assert_eq!(client.read(&mut heard).await.unwrap_or(0), 0);
        let mut refused = TcpStream::connect(near).await.unwrap();
        assert_eq!(refused.read(&mut heard).await.unwrap_or(0), 0);
        link.set_up(true);
        let mut again = TcpStream::connect(near).await.unwrap();
        again.write_all(b"again").await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        served.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"again");
        scope.stop();
    }
}
