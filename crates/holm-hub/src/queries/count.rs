//! Counts the rows of a result: one pass over one snapshot, and no row is made.

use holm_model::ServiceError;

use super::source::Source;
use super::{PageRequest, Queries};

/// How many twins a query finds; of groups, how many groups. The effort must be a full one.
///
/// # Errors
/// As [`Queries::count`]; also when it takes longer than the limits allow.
pub(super) fn count(source: &Source<'_>) -> Result<u64, ServiceError> {
    let most = source.query.top().unwrap_or(u64::MAX);
    if !source.query.is_grouped() {
        return source.matches(most);
    }
    let groups = source
        .grouped()?
        .ok_or_else(|| ServiceError::server_error("a query that may read everything was not answered"))?;
    let groups = groups.rows_after(None).count();
    Ok(u64::try_from(groups).unwrap_or(u64::MAX).min(most))
}

impl Queries {
    /// Rows of jobs are counted by pages: they are few beside twins.
    pub(super) async fn count_rows_of_jobs(&self, text: &str) -> Result<u64, ServiceError> {
        let (mut counted, mut continuation) = (0, None);
        loop {
            let request = PageRequest {
                text: text.to_owned(),
                most: None,
                continuation,
            };
            let page = self.page(request).await?;
            counted += u64::try_from(page.items.len()).unwrap_or(u64::MAX);
            continuation = page.continuation;
            if continuation.is_none() {
                return Ok(counted);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use holm_model::{Timestamp, Twin};
    use holm_query::twin::Query;
    use tokio::time::Instant;

    use super::super::Limits;
    use super::*;
    use crate::presence::Presence;
    use crate::registry::Entry;
    use crate::storage::{JobDevice, Repository};

    const DEVICES: u32 = 1200;

    async fn fleet(directory: &tempfile::TempDir) -> Repository {
        let repository = Repository::open(&directory.path().join("hub.db")).unwrap();
        let making = repository.change(|transaction| {
            for number in 0..DEVICES {
                let mut entry = Entry::new(format!("d{number:04}").parse().unwrap(), Timestamp::NEVER)?;
                entry.enabled = number % 3 != 0;
                transaction.put_entry(&entry)?;
                transaction.put_twin(&Twin::new(entry.identity.clone(), Timestamp::NEVER))?;
                transaction.add_job_device(&JobDevice::pending(
                    "j",
                    entry.identity,
                    "scheduleUpdateTwin",
                    Timestamp::NEVER,
                ))?;
            }
            Ok(())
        });
        making.await.unwrap();
        repository
    }

    #[tokio::test]
    async fn every_row_is_counted_that_pages_would_show() {
        let directory = tempfile::tempdir().unwrap();
        let queries = Queries::new(fleet(&directory).await, Presence::default());

        for (text, rows) in [
            ("SELECT deviceId FROM devices", 1200),
            ("SELECT * FROM devices WHERE status = 'disabled'", 400),
            (
                "SELECT * FROM devices WHERE ENDSWITH(deviceId, '7') ORDER BY deviceId",
                120,
            ),
            ("SELECT TOP 50 * FROM devices", 50),
            ("SELECT TOP 7 * FROM devices WHERE ENDSWITH(deviceId, '7')", 7),
            ("SELECT TOP 2000 * FROM devices", 1200),
            ("SELECT * FROM devices.modules", 0),
            ("SELECT COUNT() AS n FROM devices", 1),
            ("SELECT status, COUNT() AS n FROM devices GROUP BY status", 2),
            ("SELECT * FROM devices.jobs WHERE jobId = 'j'", 1200),
        ] {
            assert_eq!(queries.count(text).await, Ok(rows), "{text}");
        }
    }

    /// Counts without a moment left, for somebody who is still there or not.
    async fn refused(repository: &Repository, text: &str, given_up: bool, left: Duration) -> String {
        let query = Query::parse(text).unwrap();
        let limits = Limits::of_whole(Arc::new(AtomicBool::new(given_up)), Instant::now() + left);
        let counting = repository.read(move |view| count(&Source::new(view, &Presence::default(), &query, &limits)));
        counting.await.unwrap_err().message
    }

    #[tokio::test]
    async fn what_takes_too_long_or_nobody_waits_for_is_not_counted() {
        let directory = tempfile::tempdir().unwrap();
        let repository = fleet(&directory).await;

        for text in [
            "SELECT * FROM devices",
            "SELECT * FROM devices WHERE ENDSWITH(deviceId, '7')",
            "SELECT COUNT() FROM devices",
        ] {
            let late = refused(&repository, text, false, Duration::ZERO).await;
            let alone = refused(&repository, text, true, Duration::from_secs(3600)).await;

            assert!(late.contains("30 seconds"), "{text}: {late}");
            assert!(alone.contains("nobody waits"), "{text}: {alone}");
        }
    }
}
