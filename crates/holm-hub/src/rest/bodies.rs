//! Bodies of requests: read when it is known that the caller may send one, within the limit of the call and a bound over all.
//!
//! ```text
//! head ──refused──> what comes of the body is dropped as it comes ──> answer
//!   └───allowed──> room for what is announced ──> read ──> the room of what came is kept until the call is carried out
//! ```
//!
//! A caller without permission fills no memory, and those with permission together no more than [`MAX_TOGETHER_KIB`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holm_model::{ErrorCode, ServiceError};
use holm_net::http::BodyError;
use holm_net::http::body::{MAX_DROPPED, drop_rest, read_request};
use hyper::body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The room for the bodies of all requests at the same time, in KiB: four of the largest. What is made of a body may take several
/// times its bytes while it is carried out.
const MAX_TOGETHER_KIB: u32 = 32 * 1024;
/// How long a request waits for room.
const MAX_WAIT: Duration = Duration::from_secs(20);

/// The room for bodies. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Bodies(Arc<Semaphore>);

/// The body of one request, until it is read.
pub(super) struct Unread<B> {
    room: Bodies,
    body: Option<B>,
}

/// The room that a body takes; given back by dropping it.
pub(super) struct Room {
    _room: OwnedSemaphorePermit,
}

impl Default for Bodies {
    fn default() -> Self {
        Self::of_kib(MAX_TOGETHER_KIB)
    }
}

impl Bodies {
    fn of_kib(kib: u32) -> Self {
        Self(Arc::new(Semaphore::new(usize::try_from(kib).unwrap_or(usize::MAX))))
    }

    pub(super) fn unread<B>(&self, body: B) -> Unread<B> {
        Unread {
            room: self.clone(),
            body: Some(body),
        }
    }
}

impl<B> Unread<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Reads the body, of at most `limit` bytes; once.
    ///
    /// # Errors
    /// `MessageTooLarge`; `IotHubFormatError` where it does not arrive; `ThrottlingBacklogTimeout` where there is no room for it.
    pub(super) async fn read(&mut self, limit: usize) -> Result<(Bytes, Room), ServiceError> {
        let Some(body) = self.body.take() else {
            return Err(ServiceError::server_error("the body was read before"));
        };
        let announced = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
        let most = kib(announced.unwrap_or(limit).min(limit));
        let waiting = tokio::time::timeout(MAX_WAIT, Arc::clone(&self.room.0).acquire_many_owned(most));
        let Ok(Ok(mut room)) = waiting.await else {
            self.body = Some(body);
            let text =
                "too many large requests are being carried out; try again, with smaller bodies or one after the other";
            return Err(ServiceError::new(ErrorCode::ThrottlingBacklogTimeout, text));
        };
        let bytes = read_request(body, limit).await.map_err(unreadable)?;
        let spare = most.saturating_sub(kib(bytes.len()));
        drop(room.split(usize::try_from(spare).unwrap_or(0)));
        Ok((bytes, Room { _room: room }))
    }

    /// Drops what comes of a body that was not read, within a bound, so that a client that sends all before it reads gets its
    /// answer.
    pub(super) async fn drop_rest(self) {
        if let Some(body) = self.body
            && body.size_hint().lower() <= MAX_DROPPED
        {
            drop_rest(body).await;
        }
    }
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

fn unreadable(error: BodyError) -> ServiceError {
    let code = match error {
        BodyError::TooLarge(_) => ErrorCode::MessageTooLarge,
        BodyError::TimedOut | BodyError::Broken(_) => ErrorCode::IotHubFormatError,
    };
    ServiceError::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_for_which_there_is_no_room_is_refused_until_another_is_carried_out() {
        let bodies = Bodies::of_kib(4);
        let body = || Full::new(Bytes::from(vec![b' '; 3 * 1024]));

        let (first, room) = bodies.unread(body()).read(1 << 20).await.unwrap();
        let refused = bodies.unread(body()).read(1 << 20).await;
        drop(room);
        let after = bodies.unread(body()).read(1 << 20).await;

        assert_eq!(first.len(), 3 * 1024);
        assert!(refused.is_err_and(|error| error.code == ErrorCode::ThrottlingBacklogTimeout));
        assert!(after.is_ok());
    }
}
