//! Files of the blob store in another place than the hub's disk: what such a place must be able to do.
//!
//! ```text
//! body -> file in the directory -> copied away -> named in the database -> kept; the file in the directory goes at once
//!                                        '-- not named after all --> removed there
//! ```
//!
//! The directory comes first in any case: the length and digest of a body are known when it is there, a sender that stalls holds no
//! connection to the other place, and a file that was stored before there was one is still read.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use holm_net::Scope;
use holm_net::http::ResponseBody;

/// Why the other place did not do what it was asked; the text is for the log.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct AwayError(pub(super) String);

/// What is being done there.
pub(super) type Doing<'a, T> = Pin<Box<dyn Future<Output = Result<T, AwayError>> + Send + 'a>>;

/// Another place for files.
pub(super) trait Away: Send + Sync + fmt::Debug {
    /// Stores what is in the file at `path`, of `size` bytes. Resolves when it is safe there.
    fn put<'a>(&'a self, file: &'a str, path: &'a Path, size: u64) -> Doing<'a, ()>;

    /// Reads `length` bytes, at least one, from `from` on.
    fn read<'a>(&'a self, file: &'a str, from: u64, length: u64) -> Doing<'a, ResponseBody>;

    /// Removes a file; one that is not there is removed already.
    fn remove<'a>(&'a self, file: &'a str) -> Doing<'a, ()>;

    /// The names of all files.
    fn names(&self) -> Doing<'_, Vec<String>>;
}

/// A file that was copied away, and goes there with this value unless it is kept.
#[derive(Debug)]
pub(super) struct Copied {
    away: Arc<dyn Away>,
    file: String,
    scope: Scope,
    is_kept: bool,
}

impl Copied {
    pub(super) const fn new(away: Arc<dyn Away>, file: String, scope: Scope) -> Self {
        Self {
            away,
            file,
            scope,
            is_kept: false,
        }
    }

    /// The database has it now.
    pub(super) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        let (away, file) = (Arc::clone(&self.away), std::mem::take(&mut self.file));
        self.scope.spawn(async move { remove(away.as_ref(), &file).await });
    }
}

/// Removes a file, or says that it stays.
pub(super) async fn remove(away: &dyn Away, file: &str) {
    if let Err(error) = away.remove(file).await {
        tracing::warn!(file, %error, "a file of the blob store stays where it is until the next start");
    }
}
