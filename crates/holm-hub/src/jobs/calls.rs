//! Calls the method of a job's devices: so many at a time, and the next as soon as one has answered.
//!
//! ```text
//! pending ──begun, on disk──> call ──answer──> kept ──on disk, with the rows that are begun next──> ended
//!                              ≤ 32 at a time           refused: kept, and tried again
//! ```
//!
//! - One transaction writes the answers that have come and begins with as many devices: while the disk works more come, so the
//!   quicker devices answer the more stand in one.
//! - An answer is kept until it is on disk, whatever the disk says meanwhile; a device that never answers keeps its own place and
//!   nobody else's.

use std::collections::HashMap;
use std::time::Duration;

use holm_model::{MethodRequest, MethodResponse, ServiceError, Timestamp};
use serde_json::json;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::Jobs;
use super::engine::{LOOK, end};
use crate::storage::{JobDevice, JobRecord};

/// Methods of one job that are called at the same time.
const CALLS_AT_ONCE: usize = 32;
/// How long after a start of the hub devices are waited for that were connected before it: SDKs try again after some seconds each
/// time, twice as long up to half a minute.
pub(super) const RETURN: Duration = Duration::from_secs(60);

type Answer = Result<MethodResponse, ServiceError>;

/// The calls of a job that are on their way.
#[derive(Default)]
struct Calls {
    tasks: JoinSet<Answer>,
    rows: HashMap<Id, JobDevice>,
}

impl Jobs {
    /// Calls the method of each device that is left, until the time is over, and writes down what came of each. What is not
    /// answered then has failed.
    pub(super) async fn call_methods(&self, record: &JobRecord, request: &MethodRequest, until: Timestamp) {
        let id = record.id.as_str();
        let (opened, since) = self.opened;
        let return_until = if record.created < opened { since + RETURN } else { since };
        let mut calls = Calls::default();
        let mut answered = Vec::new();
        loop {
            let now = self.clock.now();
            let places = if now < until {
                CALLS_AT_ONCE - calls.tasks.len()
            } else {
                0
            };
            match self.exchange(id, answered.clone(), places, now).await {
                Ok(begun) => {
                    answered.clear();
                    let left = Duration::from_millis(u64::try_from(until.millis_since(now)).unwrap_or(0));
                    for row in begun {
                        let mut request = request.clone();
                        request.connect_timeout =
                            request.connect_timeout.max(return_until.duration_since(Instant::now()));
                        self.call(&mut calls, row, request, left);
                    }
                }
                Err(error) => {
                    tracing::warn!(job = id, %error, answers = answered.len(), "answers wait until they can be written");
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
            }
            let Some(first) = calls.tasks.join_next_with_id().await else {
                return;
            };
            let now = self.clock.now();
            answered.extend(calls.answered(first, now));
            while let Some(next) = calls.tasks.try_join_next_with_id() {
                answered.extend(calls.answered(next, now));
            }
        }
    }

    /// Writes down who has answered, and begins with up to `most` others, unless the job has ended.
    async fn exchange(
        &self,
        id: &str,
        answered: Vec<JobDevice>,
        most: usize,
        now: Timestamp,
    ) -> Result<Vec<JobDevice>, ServiceError> {
        let id = id.to_owned();
        self.change_rows(move |rows| {
            for row in &answered {
                rows.put(row)?;
            }
            let transaction = rows.transaction;
            if most == 0 || transaction.job(&id)?.is_none_or(|job| job.ended.is_some()) {
                return Ok(Vec::new());
            }
            let mut begun = transaction.job_devices(&id, "pending", u32::try_from(most).unwrap_or(u32::MAX))?;
            for row in &mut begun {
                "running".clone_into(&mut row.status);
                row.attempts += 1;
                row.started = Some(now);
                row.updated = now;
                rows.put(row)?;
            }
            Ok(begun)
        })
        .await
    }

    fn call(&self, calls: &mut Calls, row: JobDevice, request: MethodRequest, left: Duration) {
        let (methods, identity) = (self.methods.clone(), row.identity.clone());
        let task = calls.tasks.spawn(async move {
            let call = tokio::time::timeout(left, methods.call(identity, request));
            call.await.unwrap_or_else(|_| Err(ServiceError::no_answer()))
        });
        calls.rows.insert(task.id(), row);
    }
}

impl Calls {
    /// The row of a call that has ended.
    fn answered(&mut self, ended: Result<(Id, Answer), JoinError>, now: Timestamp) -> Option<JobDevice> {
        let (task, answer) = match ended {
            Ok(answered) => answered,
            Err(error) => {
                tracing::error!(%error, "a method call of a job has broken off; this is a defect");
                (
                    error.id(),
                    Err(ServiceError::server_error("the hub broke the call off")),
                )
            }
        };
        let mut row = self.rows.remove(&task)?;
        match &answer {
            Ok(response) => {
                let outcome = json!({ "outcome": { "deviceMethodResponse": response.to_json() } });
                end(&mut row, Ok(outcome.to_string()), now);
            }
            Err(error) => end(&mut row, Err(error), now),
        }
        Some(row)
    }
}
