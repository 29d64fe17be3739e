//! Looks at notices as they come, and takes none: for people, and for a sender that waits for the end of its message.
//!
//! ```text
//! what is kept (database, in pages) -> what arrives (memory) --too slow for it--> what is kept, behind the last seen
//! ```
//!
//! What arrives is seen also where a reader takes it at once. One that is too slow misses what was taken meanwhile.

use std::collections::VecDeque;

use bytes::Bytes;
use holm_model::ServiceError;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::{NoticeKind, Notices};

/// Notices that wait in memory for one that looks; beyond it they are read from the database.
pub(super) const MAX_AHEAD: usize = 256;
/// Notices that are read at a time.
const PAGE: u32 = 256;

/// A notice as those get it who look: its number and body.
pub(super) type Arrival = (u64, Bytes);

/// Looks at the notices of one kind, oldest first.
#[derive(Debug)]
pub struct Follower {
    notices: Notices,
    kind: NoticeKind,
    arrivals: broadcast::Receiver<Arrival>,
    page: VecDeque<Arrival>,
    /// The last that was given.
    after: u64,
    /// Whether there may be more in the database.
    is_behind: bool,
}

impl Notices {
    /// Looks at the notices of a kind: at those that are there and those that come, or only (`from_now`) at those that come
    /// after this call.
    #[must_use]
    pub fn follow(&self, kind: NoticeKind, from_now: bool) -> Follower {
        Follower {
            arrivals: self.desk(kind).arrivals.subscribe(),
            notices: self.clone(),
            kind,
            page: VecDeque::new(),
            after: 0,
            is_behind: !from_now,
        }
    }
}

impl Follower {
    /// The next of those that are kept, or `None` when all were given. Cancel-safe.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn next_kept(&mut self) -> Result<Option<Bytes>, ServiceError> {
        if self.page.is_empty() && self.is_behind {
            let (kind, after) = (self.kind, self.after);
            let page = self
                .notices
                .repository
                .read(move |view| view.notices_after(kind, after, PAGE));
            self.page = page.await?.into_iter().map(|(id, body)| (id, body.into())).collect();
            self.is_behind = !self.page.is_empty();
        }
        Ok(self.page.pop_front().map(|(id, body)| {
            self.after = id;
            body
        }))
    }

    /// Waits for the next. Cancel-safe.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn next(&mut self) -> Result<Bytes, ServiceError> {
        loop {
            if let Some(body) = self.next_kept().await? {
                return Ok(body);
            }
            match self.arrivals.recv().await {
                Ok((id, body)) if id > self.after => {
                    self.after = id;
                    return Ok(body);
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => self.is_behind = true,
                Err(RecvError::Closed) => return Err(ServiceError::unavailable("the hub is stopping")),
            }
        }
    }
}
