//! Jobs: one change of twins, or one method, for all devices or modules that meet a condition, now or at a time.
//!
//! ```text
//! PUT ──> scheduled ──its time──> queued ──devices are written down──> running ──none is left──> completed
//!             └──────────────────────┴──────────── cancel ──────────────┴─────> cancelled    too long: failed
//! a device:  pending ──> running (methods) ──> completed | failed        pending ──cancel──> canceled
//! ```
//!
//! - Who is in a job is decided once, when it begins, and written down; from then on the rows say what is to be done, also after
//!   a crash.
//! - A twin is changed in the transaction that notes it: exactly once. A method is called after it is noted that it is, so one
//!   whose answer a crash took is called once more, and never a third time. An answer that came is kept until it is on disk.
//! - A start of the hub cuts every device off. Methods of a job that was made before it wait for devices to come back, for
//!   a minute from the start.
//! - A job has ended when each of its devices has: those that it did not come to have failed, or are canceled, with it.
//! - A device that fails fails by itself; the job goes on.
//!
//! Source: `hub-service-api.md` §2.6.

mod calls;
mod crew;
mod document;
mod engine;
mod events;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use holm_model::{ErrorCode, ServiceError, Timestamp};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::methods::Methods;
use crate::queries::Queries;
use crate::storage::{JobCounts, JobRecord, Repository};
use crate::twins::Twins;
use crate::{Clock, Signals};

pub(crate) use document::device as device_document;
use document::{Order, check_id};

/// The most jobs that have not ended. Source: `hub-service-api.md` §9 says ten at once; what begins later waits here.
const MAX_OPEN: usize = 100;

/// The jobs of a hub. Clones are the same.
#[derive(Clone, Debug)]
pub struct Jobs {
    repository: Repository,
    twins: Twins,
    methods: Methods,
    queries: Queries,
    signals: Signals,
    clock: Clock,
    hub_name: Arc<str>,
    /// When the hub was started: by the clock, and for what is measured.
    opened: (Timestamp, Instant),
    /// Something is to be done: a job came or was cancelled.
    changed: Arc<Notify>,
    /// There may be rows that have not ended in jobs that have: at a start, after a job was cancelled, or broke off.
    is_left: Arc<AtomicBool>,
}

/// What of the jobs to list.
#[derive(Clone, Debug, Default)]
pub struct JobList {
    /// Of this kind alone.
    pub kind: Option<String>,
    /// In this state alone.
    pub status: Option<String>,
    /// Behind this id.
    pub after: String,
    /// At most so many.
    pub most: usize,
}

impl Jobs {
    /// Jobs over a repository; [`Jobs::run`] carries them out.
    #[must_use]
    pub fn new(
        repository: Repository,
        twins: Twins,
        methods: Methods,
        queries: Queries,
        signals: Signals,
        clock: Clock,
        hub_name: &str,
    ) -> Self {
        let opened = (clock.now(), Instant::now());
        Self {
            repository,
            twins,
            methods,
            queries,
            signals,
            clock,
            hub_name: hub_name.into(),
            opened,
            changed: Arc::default(),
            is_left: Arc::new(AtomicBool::new(true)),
        }
    }

    /// Makes a job.
    ///
    /// # Errors
    /// `ArgumentInvalid`, `DeviceModelMaxPropertiesExceeded`, `JobAlreadyExists`, `ThrottlingMaxActiveJobCountExceeded`.
    pub async fn create(&self, id: String, body: &[u8]) -> Result<Value, ServiceError> {
        check_id(&id)?;
        let order = Order::from_json(body)?;
        order.work.check()?;
        let now = self.clock.now();
        let start = order.start.unwrap_or(now).max(now);
        let record = JobRecord {
            id,
            created: now,
            start,
            ended: None,
            status: (if start > now { "scheduled" } else { "queued" }).to_owned(),
            failure: None,
            document: document::kept(body, &order)?,
        };
        let made = self
            .repository
            .change(move |transaction| {
                if transaction.job(&record.id)?.is_some() {
                    let text = format!("there is a job `{}`; give another id", record.id);
                    return Err(ServiceError::new(ErrorCode::JobAlreadyExists, text));
                }
                if transaction.open_jobs()?.len() >= MAX_OPEN {
                    let text = format!("{MAX_OPEN} jobs wait or run; wait until one has ended, or cancel one");
                    return Err(ServiceError::new(ErrorCode::ThrottlingMaxActiveJobCountExceeded, text));
                }
                transaction.put_job(&record)?;
                transaction.record("job.create", &record.id, None, now)?;
                Ok(record)
            })
            .await?;
        self.changed.notify_one();
        Ok(document::job(&made, JobCounts::default()))
    }

    /// A job with its progress.
    ///
    /// # Errors
    /// `JobNotFound`.
    pub async fn get(&self, id: String) -> Result<Value, ServiceError> {
        self.repository
            .read_list(move |view| {
                let record = view.job(&id)?.ok_or_else(|| not_found(&id))?;
                Ok(document::job(&record, view.job_counts(&id)?))
            })
            .await
    }

    /// Jobs in order of their ids, and the id behind which there are more.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn list(&self, wanted: JobList) -> Result<(Vec<Value>, Option<String>), ServiceError> {
        self.repository
            .read_list(move |view| {
                let is = |wanted: &Option<String>, is: &str| {
                    wanted.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(is))
                };
                let (mut after, mut found) = (wanted.after.clone(), Vec::new());
                loop {
                    let page = view.jobs(&after, PAGE)?;
                    for record in &page {
                        let document = document::job(record, JobCounts::default());
                        let kind = document["type"].as_str().unwrap_or_default();
                        if is(&wanted.kind, kind) && is(&wanted.status, &record.status) {
                            if found.len() == wanted.most {
                                return Ok((found, Some(after)));
                            }
                            found.push(document::job(record, view.job_counts(&record.id)?));
                        }
                        after.clone_from(&record.id);
                    }
                    if page.is_empty() {
                        return Ok((found, None));
                    }
                }
            })
            .await
    }

    /// Cancels a job: devices that it has not begun with are left alone. One that has ended stays as it is.
    ///
    /// # Errors
    /// `JobNotFound`.
    pub async fn cancel(&self, id: String) -> Result<Value, ServiceError> {
        let (of, now) = (id.clone(), self.clock.now());
        let is_cancelled = self
            .repository
            .change(move |transaction| {
                let mut record = transaction.job(&of)?.ok_or_else(|| not_found(&of))?;
                if record.ended.is_some() {
                    return Ok(false);
                }
                "cancelled".clone_into(&mut record.status);
                record.ended = Some(now);
                transaction.put_job(&record)?;
                transaction.record("job.cancel", &record.id, None, now)?;
                Ok(true)
            })
            .await?;
        if is_cancelled {
            // Should nobody wait here any more, it is done all the same.
            self.leave();
            self.changed.notify_one();
            self.settle(&id, false).await?;
        }
        self.get(id).await
    }
}

/// Jobs that are read at once.
const PAGE: u32 = 100;

fn not_found(id: &str) -> ServiceError {
    ServiceError::new(ErrorCode::JobNotFound, format!("there is no job `{id}`"))
}
