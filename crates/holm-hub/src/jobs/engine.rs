//! Carries jobs out. What is to be done is read from the rows each time, so a start, a crash and an ordinary round are one path:
//! whoever was called when a task of the job ended is called again, or has failed.
//!
//! Whatever is done to many rows is done to some at a time, so that the one writer of the hub is free for others between.

use std::sync::atomic::Ordering;
use std::time::Duration;

use holm_model::{DeviceId, Identity, ModuleId, ServiceError, Timestamp, TwinUpdate};
use serde_json::Value;

use super::Jobs;
use super::crew::Crew;
use super::document::{self, Order, Work};
use crate::actor::Actor;
use crate::events::notice::Operation;
use crate::queries::PageRequest;
use crate::storage::{JobDevice, JobRecord};

/// How often it is looked for a job whose time has come, if nobody says so before; and how long what was refused waits.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// Jobs that run at the same time. Source: `hub-service-api.md` §9.
const MAX_RUNNING: usize = 10;
/// Twins that are changed in one transaction.
const TWINS_AT_ONCE: u32 = 100;
/// Rows that are put into another state, or removed, in one transaction: some milliseconds.
const ROWS_AT_ONCE: u32 = 1000;
/// How often a method is called at most: once, and once more if a crash took the answer.
const MAX_ATTEMPTS: u32 = 2;
/// How long a job is remembered after its end, in milliseconds: 30 days. Source: `hub-service-api.md` §2.6.
const HISTORY_MILLIS: i64 = 30 * 24 * 3600 * 1000;
/// Why a device has failed whose answer was lost with the job's task, and no call is left.
const LOST: &str = "the hub ended while the method was called";

impl Jobs {
    /// Carries jobs out for as long as the hub runs. Dropping the future at any time loses nothing.
    pub async fn run(self) {
        let mut crew = Crew::default();
        loop {
            if let Err(error) = self.look(&mut crew).await {
                tracing::warn!(%error, "jobs can't be looked after; it is tried again");
            }
            tokio::select! {
                broken = crew.ended() => if let Some(job) = broken {
                    self.break_off(&job).await;
                },
                () = self.changed.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Begins with the jobs whose time has come, and ends what others have left.
    async fn look(&self, crew: &mut Crew) -> Result<(), ServiceError> {
        for record in self.repository.read(|view| view.open_jobs()).await? {
            let is_due = record.start <= self.clock.now() && !crew.has(&record.id);
            if is_due && crew.len() < MAX_RUNNING {
                let jobs = self.clone();
                crew.begin(record.id.clone(), async move {
                    let id = record.id.clone();
                    if let Err(error) = jobs.carry_out(record).await {
                        tracing::warn!(job = %id, %error, "a job was interrupted; it goes on");
                        jobs.leave();
                        tokio::time::sleep(LOOK).await;
                    }
                });
            }
        }
        if self.is_left.swap(false, Ordering::SeqCst)
            && let Err(error) = self.settle_all(crew).await
        {
            self.leave();
            return Err(error);
        }
        self.forget_old().await
    }

    /// Says that there may be rows that have not ended in jobs that have.
    pub(super) fn leave(&self) {
        self.is_left.store(true, Ordering::SeqCst);
    }

    /// A job whose task has broken off would do so again.
    async fn break_off(&self, id: &str) {
        tracing::error!(job = id, "a job has broken off; this is a defect");
        self.leave();
        let text = "a defect of the hub has ended the job; its log tells more".to_owned();
        if let Err(error) = self.end(id, "failed", Some(text)).await {
            tracing::warn!(job = id, %error, "that a job has broken off can't be written; it is begun again");
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn settle_all(&self, crew: &Crew) -> Result<(), ServiceError> {
        for id in self.repository.read(|view| view.unsettled_jobs()).await? {
            // While its task is there it writes down what devices answer; then it is looked at again.
            let is_over = !crew.has(&id);
            self.settle(&id, is_over).await?;
            if !is_over {
                self.leave();
            }
        }
        Ok(())
    }

    /// Ends the rows of a job that has ended: what it has not begun with, and where `is_over` also whoever was called.
    pub(super) async fn settle(&self, id: &str, is_over: bool) -> Result<(), ServiceError> {
        loop {
            let (of, now) = (id.to_owned(), self.clock.now());
            let settling = self.change_rows(move |rows| {
                let Some(record) = rows.transaction.job(&of)?.filter(|job| job.ended.is_some()) else {
                    return Ok(false);
                };
                let failed = |why: &str| document::failure(&ServiceError::server_error(why));
                let (status, outcome) = match (record.status.as_str(), &record.failure) {
                    ("cancelled", _) => ("canceled", String::new()),
                    (_, why) => ("failed", failed(why.as_deref().unwrap_or(LOST))),
                };
                if rows.end(&of, ("pending", status), &outcome, now, ROWS_AT_ONCE)? {
                    return Ok(true);
                }
                Ok(is_over && rows.end(&of, ("running", "failed"), &failed(LOST), now, ROWS_AT_ONCE)?)
            });
            if !settling.await? {
                return Ok(());
            }
        }
    }

    async fn forget_old(&self) -> Result<(), ServiceError> {
        let before = self.clock.now().plus_millis(-HISTORY_MILLIS);
        if self.repository.read(move |view| view.old_job(before)).await?.is_none() {
            return Ok(());
        }
        while self
            .repository
            .change(move |transaction| transaction.forget_job(before, ROWS_AT_ONCE))
            .await?
        {}
        Ok(())
    }

    /// Takes up those who were called when the job's last task ended.
    async fn take_up(&self, id: &str) -> Result<(), ServiceError> {
        loop {
            let (of, now) = (id.to_owned(), self.clock.now());
            let taking = self.change_rows(move |rows| {
                let called = rows.transaction.job_devices(&of, "running", ROWS_AT_ONCE)?;
                let count = called.len();
                for mut row in called {
                    row.updated = now;
                    if row.attempts < MAX_ATTEMPTS {
                        "pending".clone_into(&mut row.status);
                        rows.transaction.put_job_device(&row)?;
                    } else {
                        end(&mut row, Err(&ServiceError::server_error(LOST)), now);
                        rows.put(&row)?;
                    }
                }
                Ok(count)
            });
            if taking.await? == 0 {
                return Ok(());
            }
        }
    }

    async fn carry_out(&self, record: JobRecord) -> Result<(), ServiceError> {
        let order = match Order::from_json(record.document.as_bytes()) {
            Ok(order) => order,
            Err(error) => return self.end(&record.id, "failed", Some(error.message)).await,
        };
        self.take_up(&record.id).await?;
        let seconds = i64::try_from(order.seconds).unwrap_or(i64::MAX);
        let until = record.start.plus_millis(seconds.saturating_mul(1000));
        if record.status != "running"
            && let Err(error) = self.write_down(&record, &order).await
        {
            // What can't be asked now may be asked later; what can't be asked at all has failed.
            return match error.code.status() {
                400 => self.end(&record.id, "failed", Some(error.message)).await,
                _ => Err(error),
            };
        }
        loop {
            if self.clock.now() >= until {
                let text = format!("the job did not end within {} seconds", order.seconds);
                return self.end(&record.id, "failed", Some(text)).await;
            }
            let went_on = match &order.work {
                Work::UpdateTwin(update) => {
                    let changing = self.update_twins(&record.id, update);
                    Actor::Job(record.id.clone()).does(changing).await?
                }
                Work::CallMethod(request) => {
                    self.call_methods(&record, request, until).await;
                    // A device may be left only where the time is over: that is told above.
                    self.clock.now() >= until
                }
            };
            if !went_on {
                return self.end(&record.id, "completed", None).await;
            }
        }
    }

    /// Notes who is in the job. Begun again after a crash, it notes nobody twice.
    async fn write_down(&self, record: &JobRecord, order: &Order) -> Result<(), ServiceError> {
        let mut continuation = None;
        loop {
            let request = PageRequest {
                text: order.query.clone(),
                most: None,
                continuation,
            };
            let page = self.queries.page(request).await?;
            let (id, kind, now) = (record.id.clone(), order.work.kind(), self.clock.now());
            let is_last = page.continuation.is_none();
            self.change_rows(move |rows| {
                let Some(mut job) = rows.transaction.job(&id)?.filter(|job| job.ended.is_none()) else {
                    return Ok(());
                };
                for item in &page.items {
                    rows.add(&JobDevice::pending(id.as_str(), found(item)?, kind, now))?;
                }
                if is_last {
                    "running".clone_into(&mut job.status);
                    rows.transaction.put_job(&job)?;
                }
                Ok(())
            })
            .await?;
            continuation = page.continuation;
            if continuation.is_none() {
                return Ok(());
            }
        }
    }

    /// Changes some twins, each in one with its row; whether there were any.
    async fn update_twins(&self, id: &str, update: &TwinUpdate) -> Result<bool, ServiceError> {
        let (id, update, now) = (id.to_owned(), update.clone(), self.clock.now());
        let (twins, signals) = (self.twins.clone(), self.signals.clone());
        let changed = self
            .change_rows_then(
                move |rows| {
                    let transaction = rows.transaction;
                    if transaction.job(&id)?.is_none_or(|job| job.ended.is_some()) {
                        return Ok((0, Vec::new()));
                    }
                    let waiting = transaction.job_devices(&id, "pending", TWINS_AT_ONCE)?;
                    let count = waiting.len();
                    let mut told = Vec::new();
                    for mut row in waiting {
                        row.attempts += 1;
                        row.started = Some(now);
                        // Decided before anything is written: a twin that refuses leaves nothing behind.
                        let changed = twins.change_within(transaction, &row.identity, &update, Operation::Update, now);
                        match &changed {
                            Ok(_) => end(&mut row, Ok(String::new()), now),
                            // The disk, not the device.
                            Err(error) if error.code.status() >= 500 => return Err(error.clone()),
                            Err(error) => end(&mut row, Err(error), now),
                        }
                        told.extend(changed.ok().flatten().map(|desired| (row.identity.clone(), desired)));
                        rows.put(&row)?;
                    }
                    Ok((count, told))
                },
                move |(_, told)| {
                    for (identity, desired) in told {
                        signals.desired_changed(identity, desired);
                    }
                    signals.outbox_filled();
                },
            )
            .await?;
        Ok(changed.0 > 0)
    }

    /// Ends a job that nobody has ended. Whoever has not ended has failed with it.
    async fn end(&self, id: &str, status: &'static str, failure: Option<String>) -> Result<(), ServiceError> {
        let why = failure.clone().unwrap_or_else(|| LOST.to_owned());
        let outcome = document::failure(&ServiceError::argument_invalid(why));
        loop {
            let (of, outcome, failure, now) = (id.to_owned(), outcome.clone(), failure.clone(), self.clock.now());
            let ending = self.change_rows(move |rows| {
                let transaction = rows.transaction;
                let Some(mut record) = transaction.job(&of)?.filter(|job| job.ended.is_none()) else {
                    return Ok(false);
                };
                for from in ["pending", "running"] {
                    if rows.end(&of, (from, "failed"), &outcome, now, ROWS_AT_ONCE)? {
                        return Ok(true);
                    }
                }
                status.clone_into(&mut record.status);
                record.failure = failure;
                record.ended = Some(now);
                transaction.put_job(&record)?;
                Ok(false)
            });
            if !ending.await? {
                return Ok(());
            }
        }
    }
}

/// Whom a query has found.
fn found(item: &Value) -> Result<Identity, ServiceError> {
    let damaged = |_| ServiceError::server_error("a query has found a damaged id");
    let device = DeviceId::new(item["deviceId"].as_str().unwrap_or_default()).map_err(damaged)?;
    let module = item["moduleId"]
        .as_str()
        .map(ModuleId::new)
        .transpose()
        .map_err(damaged)?;
    Ok(Identity { device, module })
}

/// Writes down what came of a device.
pub(super) fn end(row: &mut JobDevice, result: Result<String, &ServiceError>, now: Timestamp) {
    let (status, outcome) = match result {
        Ok(outcome) => ("completed", outcome),
        Err(error) => ("failed", document::failure(error)),
    };
    status.clone_into(&mut row.status);
    row.outcome = outcome;
    row.ended = Some(now);
    row.updated = now;
}
