//! Bodies: read whole within a limit and a deadline, written whole or as they come.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

/// How long a peer may take to send a body.
pub const BODY_DEADLINE: Duration = Duration::from_secs(30);

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
