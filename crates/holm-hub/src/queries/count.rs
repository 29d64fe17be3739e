//! Counts the rows of a result: one pass over one snapshot, and no row is made.

use std::ops::ControlFlow;

use holm_model::ServiceError;
use holm_query::twin::{Collection, Groups, Query, Roots};
use serde_json::Value;
use tokio::time::Instant;

use super::document::{document, needs_twin};
use super::{MAX_GROUP_BYTES, MAX_GROUPS, PageRequest, Queries, too_much};
use crate::presence::Presence;
use crate::storage::{Effort, Scan, View};

/// How many twins a query finds; of groups, how many groups.
///
/// # Errors
/// As [`Queries::count`]; also when it takes longer than `until`.
pub(super) fn count(view: &View<'_>, presence: &Presence, query: &Query, until: Instant) -> Result<u64, ServiceError> {
    let most = query.top().unwrap_or(u64::MAX);
    if query.is_grouped() {
        let mut groups = Groups::new(query, MAX_GROUPS, MAX_GROUP_BYTES);
        each_match(view, presence, query, &query.roots(), until, &mut |document| {
            let added = groups.add(document);
            added.map_err(|error| ServiceError::argument_invalid(error.to_string()))?;
            Ok(ControlFlow::Continue(()))
        })?;
        let groups = groups.rows_after(None).count();
        return Ok(u64::try_from(groups).unwrap_or(u64::MAX).min(most));
    }
    let mut counted = 0;
    if most > 0 {
        each_match(view, presence, query, &query.condition_roots(), until, &mut |_| {
            counted += 1;
            Ok(match counted < most {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            })
        })?;
    }
    Ok(counted)
}

/// Shows each twin that matches, with the members that are asked for at least, until `show` has enough.
fn each_match(
    view: &View<'_>,
    presence: &Presence,
    query: &Query,
    shown: &Roots,
    until: Instant,
    show: &mut dyn FnMut(&Value) -> Result<ControlFlow<()>, ServiceError>,
) -> Result<(), ServiceError> {
    let (filter, condition) = (query.filter(), query.condition_roots());
    let scan = Scan {
        filter: &filter,
        modules: query.collection() == Collection::Modules,
        after: None,
        twins: needs_twin(&condition) || needs_twin(shown),
        effort: Effort::Full,
    };
    view.scan(scan, &mut |key, row| {
        if Instant::now() >= until {
            return Err(too_much());
        }
        let Some(row) = row else {
            return Ok(ControlFlow::Continue(()));
        };
        let read = document(view, presence, &key, &row, &condition)?;
        if !query.matches(&read) {
            Ok(ControlFlow::Continue(()))
        } else if *shown == condition {
            show(&read)
        } else {
            show(&document(view, presence, &key, &row, shown)?)
        }
    })?;
    Ok(())
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
    use holm_model::{Timestamp, Twin};

    use super::*;
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
                transaction.add_job_device(&JobDevice {
                    job: "j".to_owned(),
                    identity: entry.identity,
                    kind: "scheduleUpdateTwin".to_owned(),
                    status: "pending".to_owned(),
                    attempts: 0,
                    created: Timestamp::NEVER,
                    started: None,
                    ended: None,
                    updated: Timestamp::NEVER,
                    outcome: String::new(),
                })?;
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
            ("SELECT TOP 2000 * FROM devices", 1200),
            ("SELECT * FROM devices.modules", 0),
            ("SELECT COUNT() AS n FROM devices", 1),
            ("SELECT status, COUNT() AS n FROM devices GROUP BY status", 2),
            ("SELECT * FROM devices.jobs WHERE jobId = 'j'", 1200),
        ] {
            assert_eq!(queries.count(text).await, Ok(rows), "{text}");
        }
    }

    #[tokio::test]
    async fn what_takes_too_long_is_not_counted() {
        let directory = tempfile::tempdir().unwrap();
        let repository = fleet(&directory).await;

        for text in ["SELECT * FROM devices", "SELECT COUNT() FROM devices"] {
            let query = Query::parse(text).unwrap();
            let counting = repository.read(move |view| count(view, &Presence::default(), &query, Instant::now()));
            let refused = counting.await;
            assert!(
                refused.is_err_and(|error| error.message.contains("30 seconds")),
                "{text}"
            );
        }
    }
}
