//! `devices.jobs`: what jobs did, a row for each device of a job, in the order of jobs and devices.
//!
//! The rows of one job, or of one device, are read by an index. A page that is full, or whose time is over, ends where it is.

use holm_model::ServiceError;
use holm_query::twin::{Filter, Is, Query, Scalar};
use serde_json::Value;

use super::Limits;
use super::continuation::Continuation;
use super::pages::Items;
use crate::jobs::device_document;
use crate::storage::{RowKey, View};

/// Rows that are read at once.
const PAGE: u32 = 500;

/// Between job and device in the key of a continuation: neither can hold it.
const BETWEEN: char = '\u{0}';

/// Reads the page of rows that begins at `from`.
///
/// # Errors
/// As [`super::Queries::page`].
pub(super) fn read(
    view: &View<'_>,
    query: &Query,
    from: &Continuation,
    wanted: usize,
    limits: &Limits,
) -> Result<(Vec<Value>, Option<Continuation>), ServiceError> {
    let filter = query.filter();
    let (job, device) = (only(&filter, "jobId"), only(&filter, "deviceId"));
    let mut after = from.key.clone().map(apart);
    let mut items = Items::default();
    let next = |after: Option<(String, RowKey)>, given: usize| {
        let given = u64::try_from(given).unwrap_or(u64::MAX);
        after.map(|(job, key)| Continuation {
            left: from.left.map(|left| left.saturating_sub(given)),
            key: Some((format!("{job}{BETWEEN}{}", key.0), key.1)),
            ..Continuation::default()
        })
    };
    loop {
        limits.check()?;
        let rows = view.all_job_devices(job, device, after.as_ref(), PAGE)?;
        let is_last = rows.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
        for row in rows {
            let document = device_document(&row);
            if query.matches(&document) {
                if items.is_full(wanted) {
                    let next = next(after, items.items.len()).filter(|next| next.left != Some(0));
                    return Ok((items.items, next));
                }
                items.push(query.show(&document));
            }
            let module = row.identity.module.as_ref().map_or("", |module| module.as_str());
            after = Some((row.job, (row.identity.device.as_str().to_owned(), module.to_owned())));
        }
        if is_last {
            return Ok((items.items, None));
        }
        if limits.is_over() {
            let next = next(after, items.items.len()).filter(|next| next.left != Some(0));
            return Ok((items.items, next));
        }
    }
}

/// What a member is in every match, where it is one text.
fn only<'f>(filter: &'f Filter, member: &str) -> Option<&'f str> {
    match filter {
        Filter::All(filters) => filters.iter().find_map(|filter| only(filter, member)),
        Filter::Test(test) => match (test.path.keys().as_deref(), &test.is) {
            (Some([key]), Is::Equal(Scalar::Text(text))) if *key == member => Some(text),
            _ => None,
        },
        _ => None,
    }
}

fn apart(key: RowKey) -> (String, RowKey) {
    match key.0.split_once(BETWEEN) {
        Some((job, device)) => (job.to_owned(), (device.to_owned(), key.1)),
        None => (key.0, RowKey::default()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use holm_model::Timestamp;
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;
    use crate::storage::{Effort, JobDevice, Repository};

    /// `jobs` jobs of `devices` devices each; what came of each row has some bytes.
    async fn rows(directory: &tempfile::TempDir, jobs: u32, devices: u32, bytes: usize) -> Repository {
        let repository = Repository::open(&directory.path().join("hub.db")).unwrap();
        let making = repository.change(move |transaction| {
            let outcome = json!({"outcome": "x".repeat(bytes)}).to_string();
            for (job, device) in (0..jobs).flat_map(|job| (0..devices).map(move |device| (job, device))) {
                let identity = format!("d{device:04}").parse().unwrap();
                transaction.add_job_device(&JobDevice {
                    status: "completed".to_owned(),
                    attempts: 1,
                    outcome: outcome.clone(),
                    ..JobDevice::pending(format!("j{job}"), identity, "scheduleDeviceMethod", Timestamp::NEVER)
                })?;
            }
            Ok(())
        });
        making.await.unwrap();
        repository
    }

    /// Every page of a query: job and device of each row.
    async fn pages(repository: &Repository, text: &str, time: Duration) -> Vec<Vec<String>> {
        let query = Query::parse(text).unwrap();
        let mut from = Continuation::start(&query);
        let mut pages = Vec::new();
        loop {
            let (query, begin) = (query.clone(), from.clone());
            let reading = repository.read(move |view| {
                let limits = Limits {
                    most: 1000,
                    look: Duration::ZERO,
                    until: Instant::now() + time,
                    effort: Effort::Full,
                    given_up: Arc::new(AtomicBool::new(false)),
                };
                read(view, &query, &begin, 1000, &limits)
            });
            let (items, next) = reading.await.unwrap();
            let shown = |row: &Value| {
                format!(
                    "{} {}",
                    row["jobId"].as_str().unwrap(),
                    row["deviceId"].as_str().unwrap()
                )
            };
            pages.push(items.iter().map(shown).collect());
            match next {
                Some(next) => from = next,
                None => return pages,
            }
        }
    }

    #[tokio::test]
    async fn a_page_ends_when_it_has_many_bytes_or_its_time_is_over_and_the_next_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let repository = rows(&directory, 2, 450, 12_000).await;
        let long = Duration::from_secs(600);

        let all = pages(&repository, "SELECT * FROM devices.jobs", long).await;
        let hasty = pages(&repository, "SELECT * FROM devices.jobs", Duration::ZERO).await;
        let one = pages(&repository, "SELECT * FROM devices.jobs WHERE deviceId = 'd0007'", long).await;

        // 11 MB in pages of 8 MiB; 900 rows in pages of the 500 that are read at once.
        assert_eq!((all.len(), hasty.len()), (2, 2));
        let whole: Vec<String> = all.concat();
        let expected = (0..2).flat_map(|job| (0..450).map(move |device| format!("j{job} d{device:04}")));
        assert_eq!(whole, expected.collect::<Vec<_>>());
        assert_eq!(hasty.concat(), whole);
        assert_eq!(one, [["j0 d0007", "j1 d0007"]]);
    }
}
