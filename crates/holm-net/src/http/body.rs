//! Bodies: read whole within a limit and a deadline, written whole or as they come.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

/// How long a peer may take to send a body.
pub const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// How much of a request's body is read and dropped where it is longer than allowed, so that a client that sends all before it
/// reads gets its answer. One that announces more is answered at once, and the connection is closed on it.
pub const MAX_DROPPED: u64 = 16 * 1024 * 1024;
/// How long that may take.
const DROP_DEADLINE: Duration = Duration::from_secs(5);

/// The body of a response.
pub type ResponseBody = UnsyncBoxBody<Bytes, io::Error>;

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is longer than allowed here.
    #[error("the body has more than the {0} bytes allowed here")]
    TooLarge(usize),
    /// It did not arrive in time.
    #[error("the body did not arrive within {} s", BODY_DEADLINE.as_secs())]
    TimedOut,
    /// The connection ended before it did.
    #[error("the connection ended within the body")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A body without bytes.
#[must_use]
pub fn empty() -> ResponseBody {
    full(Bytes::new())
}

/// A body of bytes in hand.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> ResponseBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that is sent piece by piece as the pieces come; it ends when the sender is dropped. An error breaks the
/// connection, so that the receiver does not take a part for the whole.
#[must_use]
pub fn streamed(pieces: mpsc::Receiver<io::Result<Bytes>>) -> ResponseBody {
    let frames = futures_util::stream::unfold(pieces, |mut pieces| async move {
        let piece = pieces.recv().await?;
        Some((piece, pieces))
    });
    StreamBody::new(frames.map(|piece| piece.map(Frame::data))).boxed_unsync()
}

/// Reads the body of a request, of at most `limit` bytes. One whose announced length is too large is not waited for.
///
/// # Errors
/// [`BodyError`].
pub async fn read_request<B>(body: B, limit: usize) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut body = pin!(body);
    let announced = body.size_hint().lower();
    let most = u64::try_from(limit).unwrap_or(u64::MAX);
    let result = if announced > most {
        Err(BodyError::TooLarge(limit))
    } else {
        read(body.as_mut(), limit).await
    };
    if matches!(result, Err(BodyError::TooLarge(_))) && announced <= most.saturating_add(MAX_DROPPED) {
        drop_rest(body).await;
    }
    result
}

/// Reads and drops what is left of a body that nobody wants, within a bound of bytes and time, so that a client that sends all
/// before it reads gets its answer.
pub async fn drop_rest<B: Body<Data = Bytes> + Unpin>(body: B) {
    // The answer is the same whether the client goes on, stops, or leaves.
    tokio::time::timeout(DROP_DEADLINE, drop_all(body)).await.ok();
}

async fn drop_all<B: Body<Data = Bytes> + Unpin>(mut body: B) {
    let mut dropped = 0;
    while let Some(Ok(frame)) = body.frame().await {
        dropped += frame.data_ref().map_or(0, |data| data.len() as u64);
        if dropped > MAX_DROPPED {
            return;
        }
    }
}

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// [`BodyError`].
pub async fn read<B>(body: B, limit: usize) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match tokio::time::timeout(BODY_DEADLINE, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge(limit)),
        Ok(Err(error)) => Err(BodyError::Broken(error)),
        Err(_) => Err(BodyError::TimedOut),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hyper::body::Incoming;
    use hyper::{Request, Response, StatusCode};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::http::{Handler, serve_connection};
    use crate::{Peer, Scope};

    const LIMIT: usize = 1000;

    struct Reads;

    impl Handler for Reads {
        async fn handle(&self, request: Request<Incoming>, _peer: Peer) -> Response<ResponseBody> {
            let read = read_request(request.into_body(), LIMIT).await;
            let mut response = Response::new(empty());
            if let Err(error) = read {
                *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
                *response.body_mut() = full(error.to_string());
            }
            response
        }
    }

    /// A connection to a server that reads bodies.
    async fn connect() -> (Scope, TcpStream) {
        let scope = Scope::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        scope.spawn(serve_connection(
            scope.clone(),
            stream,
            Peer::default(),
            Arc::new(Reads),
        ));
        (scope, client)
    }

    async fn answer(client: &mut TcpStream) -> String {
        let mut answer = String::new();
        let read = tokio::time::timeout(BODY_DEADLINE / 2, client.read_to_string(&mut answer));
        read.await.expect("the connection is closed after the answer").unwrap();
        answer
    }

    #[tokio::test]
    async fn a_length_far_above_the_limit_is_answered_before_a_byte_came_and_the_connection_closed() {
        let (_scope, mut client) = connect().await;

        let head = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", 1_u64 << 40);
        client.write_all(head.as_bytes()).await.unwrap();

        let answer = answer(&mut client).await;
        assert!(
            answer.starts_with("HTTP/1.1 413") && answer.contains("1000 bytes"),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn a_client_that_sends_all_of_a_body_that_is_too_large_gets_its_answer() {
        let body = vec![b'x'; 8 << 20];
        let length = format!("content-length: {}\r\n\r\n", body.len());
        let chunked = format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n", body.len());
        for (framing, end) in [(length, ""), (chunked, "\r\n0\r\n\r\n")] {
            let (_scope, mut client) = connect().await;
            let head = format!("POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{framing}");

            client.write_all(head.as_bytes()).await.unwrap();
            client.write_all(&body).await.unwrap();
            client.write_all(end.as_bytes()).await.unwrap();

            let answer = answer(&mut client).await;
            assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_body_within_the_limit_is_read_whole() {
        let read = read_request(Full::new(Bytes::from(vec![1; LIMIT])), LIMIT).await;

        assert_eq!(read.unwrap().len(), LIMIT);
    }
}
