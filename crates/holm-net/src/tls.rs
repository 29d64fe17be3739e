//! TLS over TCP, for servers and clients: handshakes with a deadline, and streams that cost little while they are idle
//! ([`TlsStream`]).

mod session;
mod stream;
mod turns;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

pub use stream::TlsStream;
use turns::Turns;

use crate::{Dialer, Listener, Peer, Scope, Stream, error_chain};

/// How long a handshake may take before the connection is dropped.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(30);

/// Why no TLS connection came about.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer's handshake was wrong, or it did not trust us, or we not it.
    #[error("the TLS handshake with `{peer}` failed")]
    Failed {
        /// Address or name of the peer.
        peer: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The handshake was not finished in time.
    #[error("the TLS handshake with `{peer}` took longer than {} s", HANDSHAKE_DEADLINE.as_secs())]
    TimedOut {
        /// Address or name of the peer.
        peer: String,
    },
    /// There is no connection to the host.
    #[error("can't connect to `{peer}`")]
    Unreachable {
        /// Host and port.
        peer: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The host name can't stand in a certificate.
    #[error("`{0}` is neither a host name nor an IP address")]
    BadName(String),
}

/// Does the server's part of a handshake.
///
/// # Errors
/// [`HandshakeError::Failed`], [`HandshakeError::TimedOut`].
pub async fn accept<S>(
    config: Arc<ServerConfig>,
    stream: S,
    peer: impl ToString,
) -> Result<Box<TlsStream<S>>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match tokio::time::timeout(HANDSHAKE_DEADLINE, TlsStream::accept(config, stream)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(source)) => Err(HandshakeError::Failed {
            peer: peer.to_string(),
            source,
        }),
        Err(_) => Err(HandshakeError::TimedOut { peer: peer.to_string() }),
    }
}

/// Serves TLS connections of a listener until the scope stops, each in a task of the scope. Streams come in boxes: each hand
/// that a task passes one through by value would add its size to the task.
pub async fn serve<F, W>(scope: &Scope, listener: Listener, config: Arc<ServerConfig>, serve: F)
where
    F: Fn(Box<TlsStream<TcpStream>>, Peer) -> W + Clone + Send + 'static,
    W: Future<Output = ()> + Send,
{
    let turns = Arc::new(Turns::new());
    loop {
        let admitted = tokio::select! {
            admitted = listener.accept() => admitted,
            () = scope.stopping() => return,
        };
        let (config, serve, stopping) = (Arc::clone(&config), serve.clone(), scope.clone());
        let turns = Arc::clone(&turns);
        scope.spawn(async move {
            let _permit = admitted.permit;
            let shaken = tokio::select! {
                shaken = Box::pin(turns.accept(config, admitted.stream, admitted.peer)) => shaken,
                // Nobody has proved anything yet; who is slow, or silent, must not hold up the end.
                () = stopping.stopping() => return,
            };
            match shaken {
                Ok(stream) => {
                    let peer = Peer {
                        address: Some(admitted.peer),
                        certificates: stream.peer_certificates().into(),
                        unix: None,
                    };
                    serve(stream, peer).await;
                }
                Err(error) => tracing::debug!(error = %error_chain(&error), "no TLS connection"),
            }
        });
    }
}

/// Connects to `host:port` by `dialer` and does the client's part of a handshake, asking for a certificate for `host`.
///
/// # Errors
/// [`HandshakeError`].
pub async fn connect(
    config: Arc<ClientConfig>,
    dialer: &Dialer,
    host: &str,
    port: u16,
) -> Result<Box<TlsStream<Box<dyn Stream>>>, HandshakeError> {
    let attempt = async {
        let stream = dialer.dial(host, port).await;
        let stream = stream.map_err(|source| HandshakeError::Unreachable {
            peer: format!("{host}:{port}"),
            source,
        })?;
        shake_hands(config, stream, host, port).await
    };
    in_time(attempt, host, port).await
}

/// Does the client's part of a handshake over a stream in hand, for protocols that begin without TLS: the certificate must be
/// for `host`.
///
/// # Errors
/// [`HandshakeError`], but for [`HandshakeError::Unreachable`].
pub async fn connect_over<S: Stream>(
    config: Arc<ClientConfig>,
    stream: S,
    host: &str,
    port: u16,
) -> Result<Box<TlsStream<S>>, HandshakeError> {
    in_time(shake_hands(config, stream, host, port), host, port).await
}

async fn shake_hands<S: Stream>(
    config: Arc<ClientConfig>,
    stream: S,
    host: &str,
    port: u16,
) -> Result<Box<TlsStream<S>>, HandshakeError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| HandshakeError::BadName(host.to_owned()))?;
    let shaken = TlsStream::connect(config, name, stream).await;
    shaken.map_err(|source| HandshakeError::Failed {
        peer: format!("{host}:{port}"),
        source,
    })
}

async fn in_time<T>(
    attempt: impl Future<Output = Result<T, HandshakeError>>,
    host: &str,
    port: u16,
) -> Result<T, HandshakeError> {
    let late = |_| {
        Err(HandshakeError::TimedOut {
            peer: format!("{host}:{port}"),
        })
    };
    tokio::time::timeout(HANDSHAKE_DEADLINE, attempt)
        .await
        .unwrap_or_else(late)
}

#[cfg(test)]
mod tests;
