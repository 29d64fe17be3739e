//! Answers queries over twins, page by page.
//!
//! ```text
//! text ──parse──> Query ──> rows in order of their keys ──matches──> page of at most 1000, and where the next begins
//!                              │ each page is one snapshot
//!                              └ given up when the caller goes; ended when its time is over
//! ```
//!
//! - A page begins behind the identity that the page before ended with, and identities come in the order of their ids: who is
//!   there throughout is shown exactly once, however many come and go in between.
//! - A page that has read for 10 s ends where it is, with what it has found: the next one goes on from there. What can't
//!   be continued (groups, a sorted result) is refused then.
//! - Who wants to know how many there are has them counted in one pass over one snapshot.
//! - Memory is bounded: a page by [`MAX_ITEMS`] and 8 MiB, 20,000 groups, a sorted result by a page of keys.
//!
//! Queries have connections of their own to the database, so that reading a million twins does not keep a device waiting. Each is tried
//! with a few thousand rows first, on connections where nobody reads more: one that an index knows, or whose page is soon full, does
//! not wait for those that read a fleet. What that is not enough for is begun anew among those.
//!
//! Source: `hub-service-api.md` §2.7, §4.1.

mod continuation;
mod count;
mod document;
mod jobs;
mod pages;
mod source;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holm_model::ServiceError;
use holm_query::twin::{Collection, Query};
use serde_json::Value;
use tokio::time::Instant;

use crate::presence::Presence;
use crate::storage::{Effort, Repository, View};

use continuation::Continuation;
use source::Source;

/// The most results of a page, and how many there are if nobody says. Source: `hub-service-api.md` §2.7.
pub const MAX_ITEMS: usize = 1000;
/// The most bytes of JSON in a page, one result more or less: a thousand twins at their limits would be a hundred megabytes.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// How long a page reads.
const MAX_TIME: Duration = Duration::from_secs(10);
/// How long a result reads that can't be continued.
const MAX_WHOLE_TIME: Duration = Duration::from_secs(30);
/// How long a page that is full looks whether there is more behind it, before it says that there may be.
const MAX_LOOK: Duration = Duration::from_millis(100);
/// How long a query waits for others to end.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// The most groups of a result.
const MAX_GROUPS: usize = 20_000;
/// The most bytes of JSON in what groups are known by and show.
const MAX_GROUP_BYTES: usize = 16 * 1024 * 1024;

/// Queries over the fleet. Clones are the same.
#[derive(Clone, Debug)]
pub struct Queries {
    repository: Repository,
    presence: Presence,
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct PageRequest {
    /// The query.
    pub text: String,
    /// How many results at most, 1 to [`MAX_ITEMS`].
    pub most: Option<usize>,
    /// Where to go on, as an earlier page said.
    pub continuation: Option<String>,
}

/// A part of a result.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The published word for what the items are.
    pub item_type: &'static str,
    /// The results.
    pub items: Vec<Value>,
    /// Where the next page begins; `None`: there is no more.
    pub continuation: Option<String>,
}

/// How long reading may go on.
struct Limits {
    most: usize,
    until: Instant,
    look: Duration,
    /// How much may be read; with less than all, there may be no page.
    effort: Effort,
    given_up: Arc<AtomicBool>,
}

/// What is asked for, understood.
struct Asked {
    query: Query,
    from: Continuation,
    most: usize,
    presence: Presence,
    given_up: Arc<AtomicBool>,
}

type Read = (&'static str, Vec<Value>, Option<Continuation>);

/// Tells the thread that reads that nobody waits any more.
struct GiveUpOnDrop(Arc<AtomicBool>);

impl Drop for GiveUpOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Queries {
    /// Queries over a repository.
    #[must_use]
    pub const fn new(repository: Repository, presence: Presence) -> Self {
        Self { repository, presence }
    }

    /// Reads one page. Dropping the future ends the reading.
    ///
    /// # Errors
    /// `ArgumentInvalid` with the place where the text is wrong, where the continuation is not one of this query, and where
    /// the result is too large to be made; `ThrottlingBacklogTimeout` when too many queries are running.
    pub async fn page(&self, request: PageRequest) -> Result<Page, ServiceError> {
        let query = Query::parse(&request.text)
            .map_err(|problem| ServiceError::argument_invalid(format!("the query can't be read: {problem}")))?;
        let from = match &request.continuation {
            None => Continuation::start(&query),
            Some(text) => Continuation::parse(text, &request.text)?,
        };
        let given_up = Arc::new(AtomicBool::new(false));
        let _end = GiveUpOnDrop(Arc::clone(&given_up));
        let asked = Arc::new(Asked {
            query,
            from,
            most: request.most.unwrap_or(MAX_ITEMS).clamp(1, MAX_ITEMS),
            presence: self.presence.clone(),
            given_up,
        });
        let first = Arc::clone(&asked);
        let quick = match asked.is_quick() {
            true => self.repository.read_list(move |view| first.read(view, true)).await?,
            false => None,
        };
        let whole = match quick {
            Some(read) => Some(read),
            None => {
                self.repository
                    .read_long(MAX_WAIT, move |view| asked.read(view, false))
                    .await?
            }
        };
        let (item_type, items, next) =
            whole.ok_or_else(|| ServiceError::server_error("a query that may read everything was not answered"))?;
        Ok(Page {
            item_type,
            items,
            continuation: next.map(|next| next.to_text(&request.text)),
        })
    }

    /// Counts the rows of a result in one pass, and makes none of them. Dropping the future ends the counting.
    ///
    /// # Errors
    /// `ArgumentInvalid` with the place where the text is wrong, and where the counting takes too long; `ThrottlingBacklogTimeout`
    /// when too many queries are running.
    pub async fn count(&self, text: &str) -> Result<u64, ServiceError> {
        let query = Query::parse(text)
            .map_err(|problem| ServiceError::argument_invalid(format!("the query can't be read: {problem}")))?;
        if query.collection() == Collection::Jobs {
            return self.count_rows_of_jobs(text).await;
        }
        let presence = self.presence.clone();
        let given_up = Arc::new(AtomicBool::new(false));
        let _end = GiveUpOnDrop(Arc::clone(&given_up));
        self.repository
            .read_long(MAX_WAIT, move |view| {
                let limits = Limits::of_whole(given_up, Instant::now() + MAX_WHOLE_TIME);
                count::count(&Source::new(view, &presence, &query, &limits))
            })
            .await
    }
}

impl Asked {
    /// Whether it is tried with a few thousand rows first.
    fn is_quick(&self) -> bool {
        self.query.collection() != Collection::Jobs
    }

    /// The page; `None` where a short read is not enough for it.
    fn read(&self, view: &View<'_>, is_short: bool) -> Result<Option<Read>, ServiceError> {
        let query = &self.query;
        let is_whole = query.is_grouped() || query.is_sorted();
        let limits = Limits {
            most: self.most,
            until: Instant::now() + if is_whole { MAX_WHOLE_TIME } else { MAX_TIME },
            look: MAX_LOOK,
            effort: match (is_short, is_whole) {
                (false, _) => Effort::Full,
                (true, false) => Effort::Short,
                (true, true) => Effort::ShortByKeys,
            },
            given_up: Arc::clone(&self.given_up),
        };
        let made = pages::read(view, &self.presence, query, &self.from, &limits)?;
        Ok(made.map(|(items, next)| (query.item_type(), items, next)))
    }
}

impl Limits {
    /// Of a result that is made at once.
    const fn of_whole(given_up: Arc<AtomicBool>, until: Instant) -> Self {
        Self {
            most: MAX_ITEMS,
            until,
            look: Duration::ZERO,
            effort: Effort::Full,
            given_up,
        }
    }

    /// Whether the caller is still there.
    fn check(&self) -> Result<(), ServiceError> {
        if self.given_up.load(Ordering::Relaxed) {
            return Err(ServiceError::unavailable("nobody waits for this query any more"));
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }
}

/// A result that is made as a whole took too long.
fn too_much() -> ServiceError {
    ServiceError::argument_invalid(format!(
        "the query reads more than {} seconds can; add a condition on tags or `deviceId`, or leave out GROUP BY and ORDER BY",
        MAX_WHOLE_TIME.as_secs()
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::sync_channel;

    use holm_model::{Timestamp, Twin, TwinUpdate};
    use serde_json::json;

    use super::*;
    use crate::registry::Entry;

    /// Keeps every connection of long reads busy until the sender is dropped.
    async fn occupy(repository: &Repository) -> (std::sync::mpsc::SyncSender<()>, Vec<tokio::task::JoinHandle<()>>) {
        let (end, ended) = sync_channel::<()>(1);
        let ended = Arc::new(Mutex::new(ended));
        let mut reads = Vec::new();
        loop {
            let (repository, ended) = (repository.clone(), Arc::clone(&ended));
            let (begun, has_begun) = tokio::sync::oneshot::channel();
            let read = tokio::spawn(async move {
                let read = move |_: &View<'_>| {
                    begun.send(()).ok();
                    ended.lock().unwrap().recv().ok();
                    Ok(())
                };
                // Refused where all are busy.
                drop(repository.read_long(Duration::from_millis(1), read).await);
            });
            if has_begun.await.is_err() {
                read.await.unwrap();
                return (end, reads);
            }
            reads.push(read);
        }
    }

    #[tokio::test]
    async fn queries_that_read_little_wait_for_nobody_who_reads_a_fleet() {
        let directory = tempfile::tempdir().unwrap();
        let repository = Repository::open(&directory.path().join("hub.db")).unwrap();
        let make = repository.change(|transaction| {
            for n in 0..600 {
                let entry = Entry::new(format!("d{n:03}").parse().unwrap(), Timestamp::NEVER)?;
                let mut twin = Twin::new(entry.identity.clone(), Timestamp::NEVER);
                let tags = json!({"site": if n < 400 { "x" } else { "y" }, "n": n});
                let update = TwinUpdate {
                    tags: tags.as_object().cloned(),
                    desired: None,
                };
                twin.patch(&update, Timestamp::NEVER)?;
                transaction.put_entry(&entry)?;
                transaction.put_twin(&twin)?;
            }
            Ok(())
        });
        make.await.unwrap();
        let queries = Queries::new(repository.clone(), Presence::default());
        let (end, reads) = occupy(&repository).await;
        assert!(!reads.is_empty());

        let mut found = Vec::new();
        for text in [
            "SELECT * FROM devices WHERE tags.n = 7",
            "SELECT * FROM devices WHERE tags.site = 'x' AND tags.n % 100 = 3",
            "SELECT * FROM devices WHERE tags.site = 'x' AND version > 1 ORDER BY tags.n DESC",
            "SELECT COUNT() AS n FROM devices",
            "SELECT tags.site, COUNT() AS n FROM devices GROUP BY tags.site",
            "SELECT COUNT() AS n FROM devices WHERE tags.site = 'x' AND version > 1",
            "SELECT * FROM devices WHERE LENGTH(deviceId) = 4",
        ] {
            let request = PageRequest {
                text: text.to_owned(),
                most: Some(3),
                continuation: None,
            };
            found.push(queries.page(request).await.unwrap().items.len());
        }

        assert_eq!(found, [1, 3, 3, 1, 2, 1, 3]);
        drop(end);
        for read in reads {
            read.await.unwrap();
        }
    }
}
