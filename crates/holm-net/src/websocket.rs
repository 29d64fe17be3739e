//! A WebSocket as a stream of bytes: what is written leaves as binary frames, what comes in frames is read as it comes. A
//! packet may span frames, and a frame may hold several packets.
//!
//! The server never sends pings of its own: older Java clients break on them (`edge-broker.md` §1.1).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use http_body_util::Full;
use hyper::header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::http::client::{self, ClientError};

pub use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The most bytes of one message or frame from the peer. The largest packet of any protocol over it is 256 KiB.
const MAX_MESSAGE: usize = 1024 * 1024;

/// A stream of bytes over a WebSocket whose opening handshake is done.
#[derive(Debug)]
pub struct WebSocketBytes<S> {
    socket: WebSocketStream<S>,
    unread: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketBytes<S> {
    /// Takes over a stream after the opening handshake, as the server.
    pub async fn server(stream: S) -> Self {
        Self::new(stream, Role::Server).await
    }

    /// Takes over a stream after the opening handshake, as the client.
    pub async fn client(stream: S) -> Self {
        Self::new(stream, Role::Client).await
    }

    async fn new(stream: S, role: Role) -> Self {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE))
            .read_buffer_size(8 * 1024)
            .write_buffer_size(0)
            .max_write_buffer_size(2 * MAX_MESSAGE);
        Self {
            socket: WebSocketStream::from_raw_socket(stream, role, Some(config)).await,
            unread: Bytes::new(),
        }
    }
}

/// Why no WebSocket came about.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The connection broke.
    #[error("the connection broke in the opening handshake")]
    Broken(#[source] ClientError),
    /// The server answered something else.
    #[error("the server refused the WebSocket with status {0}")]
    Refused(StatusCode),
    /// The request has no form in HTTP.
    #[error("the path or the sub-protocol has no form in HTTP")]
    Malformed(#[source] hyper::http::Error),
    /// The server agreed, and then the connection was gone.
    #[error("the connection was gone after the opening handshake")]
    Gone(#[source] hyper::Error),
}

/// Does the client's opening handshake over a stream and takes it over.
///
/// # Errors
/// [`UpgradeError`].
pub async fn connect<S>(
    stream: S,
    host: &str,
    path: &str,
    subprotocol: &str,
) -> Result<WebSocketBytes<TokioIo<Upgraded>>, UpgradeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let key = tokio_tungstenite::tungstenite::handshake::client::generate_key();
    let request = Request::get(path)
        .header(HOST, host)
        .header(UPGRADE, "websocket")
        .header(CONNECTION, "Upgrade")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, key)
        .header(SEC_WEBSOCKET_PROTOCOL, subprotocol)
        .body(Full::default())
        .map_err(UpgradeError::Malformed)?;
    let response = client::send_over(stream, request).await.map_err(UpgradeError::Broken)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(UpgradeError::Refused(response.status()));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(UpgradeError::Gone)?;
    Ok(WebSocketBytes::client(TokioIo::new(upgraded)).await)
}

fn to_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::UnexpectedEof.into(),
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocketBytes<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.unread = bytes,
                Some(Ok(Message::Text(_))) => {
                    let reason = "a text frame where only binary frames are allowed";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, reason)));
                }
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return Poll::Ready(Err(to_io(error))),
            }
        }
        let n = buffer.remaining().min(self.unread.len());
        buffer.put_slice(&self.unread.split_to(n));
        if !self.unread.has_remaining() {
            self.unread = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocketBytes<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(to_io)?;
        Pin::new(&mut self.socket)
            .start_send(Message::Binary(Bytes::copy_from_slice(bytes)))
            .map_err(to_io)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(to_io)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(to_io)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_come_out_as_they_went_in_whatever_the_frames() {
        let (near, far) = tokio::io::duplex(64);
        let mut server = WebSocketBytes::server(near).await;
        let mut client = WebSocketBytes::client(far).await;
        let sent: Vec<u8> = (0..10_000_u32).map(|n| n.to_le_bytes()[0]).collect();

        let expected = sent.clone();
        let write = async move {
            for piece in sent.chunks(777) {
                client.write_all(piece).await.unwrap();
            }
            client.flush().await.unwrap();
            client.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let (_, read) = tokio::join!(write, server.read_to_end(&mut received));

        read.unwrap();
        assert_eq!(received, expected);
    }
}
