//! Turns for handshakes. When a whole fleet comes back at once, those who came first are finished first: all of them a little at
//! a time would all be late, give up, and come again.
//!
//! ```text
//!   accepted --says something--> waits for a turn, in the order of coming --> handshake --finished--> the next one's turn
//!                                                    is gone meanwhile: costs nothing
//!                                                                     '--slow, [`TURN`] is over--> goes on beside the others
//! ```
//!
//! So who says nothing, or stops in the middle, takes no turn from others, or one of a second.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{HANDSHAKE_DEADLINE, HandshakeError, TlsStream, accept};

/// Handshakes that have their turn at once: enough to keep processors busy over links of half a second, and less than a
/// second's work.
const AT_ONCE: usize = 512;
/// How long a turn lasts for one whose peer is slow.
const TURN: Duration = Duration::from_secs(1);

/// The turns of a listener.
#[derive(Debug)]
pub(super) struct Turns(Semaphore);

impl Turns {
    pub(super) const fn new() -> Self {
        Self(Semaphore::const_new(AT_ONCE))
    }

    /// Does the server's part of a handshake when its turn comes.
    ///
    /// # Errors
    /// As [`accept`].
    pub(super) async fn accept(
        &self,
        config: Arc<ServerConfig>,
        stream: TcpStream,
        peer: impl ToString,
    ) -> Result<Box<TlsStream<TcpStream>>, HandshakeError> {
        let failed = |source: io::Error| HandshakeError::Failed {
            peer: peer.to_string(),
            source,
        };
        let hello = timeout(HANDSHAKE_DEADLINE, stream.readable()).await;
        hello
            .map_err(|_| HandshakeError::TimedOut { peer: peer.to_string() })?
            .map_err(failed)?;
        let turn = self.0.acquire().await.expect("the semaphore is never closed");
        if stream.ready(Interest::READABLE).await.map_err(failed)?.is_read_closed() {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut handshake = std::pin::pin!(accept(config, stream, peer.to_string()));
        if let Ok(shaken) = timeout(TURN, handshake.as_mut()).await {
            return shaken;
        }
        drop(turn);
        handshake.await
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;
    use rustls::version::TLS13;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::serve;
    use super::super::tests::settings;
    use super::*;
    use crate::{Listener, ListenerOptions, Scope};

    #[tokio::test]
    async fn more_than_have_a_turn_stop_in_the_middle_and_one_who_comes_after_them_is_served() {
        let (server, client) = settings(vec!["localhost".to_owned()], &TLS13);
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), ListenerOptions::default());
        let listener = listener.await.unwrap();
        let (address, scope) = (listener.local_address().unwrap(), Scope::new());
        let serving = scope.clone();
        tokio::spawn(async move {
            serve(&serving, listener, server, |mut stream, _| async move {
                drop(stream.write_all(b"hello").await);
            })
            .await;
        });

        let mut stalled = Vec::new();
        for _ in 0..AT_ONCE + 50 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // The beginning of a record.
            stream.write_all(&[22]).await.unwrap();
            stalled.push(stream);
        }
        let served = async {
            let stream = TcpStream::connect(address).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream = TlsStream::connect(client, name, stream).await.unwrap();
            let mut heard = [0; 5];
            stream.read_exact(&mut heard).await.unwrap();
            heard
        };
        let heard = timeout(HANDSHAKE_DEADLINE / 2, served).await;

        assert_eq!(heard.expect("before those who stalled time out"), *b"hello");
        drop(stalled);
        scope.stop();
    }

    #[tokio::test]
    async fn who_has_gone_before_its_turn_costs_no_handshake() {
        let (server, _) = settings(vec!["localhost".to_owned()], &TLS13);
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = socket.accept().await.unwrap();
        let turns = Turns::new();
        let all = turns.0.acquire_many(u32::try_from(AT_ONCE).unwrap()).await.unwrap();
        let coming_and_going = async {
            client.write_all(&[22]).await.unwrap();
            client.shutdown().await.unwrap();
            drop(all);
        };

        let (outcome, ()) = tokio::join!(turns.accept(server, stream, peer), coming_and_going);

        let Err(HandshakeError::Failed { source, .. }) = outcome else {
            panic!("{:?}", outcome.map(drop));
        };
        assert_eq!(source.kind(), io::ErrorKind::UnexpectedEof);
    }
}
