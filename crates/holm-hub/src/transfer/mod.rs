//! Import and export jobs: the whole registry out of, or into, a container of the hub's own blob store.
//!
//! ```text
//! enqueued ──> running ──> completed            one at a time; a hub that starts goes on with the one that has not ended
//!     '───────────'──────> failed, cancelled
//!
//! export   devices and modules -> devices.txt, an object a line (parents before their children)
//! import   devices.txt -> a hundred lines a transaction, with how far it has come -> importErrors.log
//! either   configurations.txt after that, if it is wished
//! ```
//!
//! - Each line of an import is carried out once, whatever is killed in between: its effect and the place that was reached are one
//!   transaction. An export that is killed begins anew; its blob is there when all of it is.
//! - An export is no snapshot: a device that changes meanwhile is in it as it was or as it is.
//! - Containers hold keys. They are opened by signatures that the hub gives to who may read and write the registry.
//!
//! Source: `hub-service-api.md` §2.6.

mod configurations;
mod export;
mod import;
mod order;

use std::sync::Arc;
use std::time::Duration;

use holm_model::{ErrorCode, ServiceError, Timestamp, hex};
use tokio::sync::Notify;

use crate::actor::Actor;
use crate::blobs::Blobs;
use crate::configurations::Configurations;
use crate::presence::Presence;
use crate::storage::{Repository, Transaction, Transfer};
use crate::{Clock, Signals};

pub use order::{Kind, Order};

/// Jobs of one answer.
pub const MAX_LISTED: u32 = 1000;
/// How long a job that has ended is known. Source: `hub-service-api.md` §9.
const KNOWN_FOR_MS: i64 = 30 * 24 * 3_600_000;
/// How long until a job that the database or the store has kept from going on is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// The jobs of a hub. Clones are the same.
#[derive(Clone, Debug)]
pub struct Transfers {
    repository: Repository,
    blobs: Blobs,
    configurations: Configurations,
    signals: Signals,
    presence: Presence,
    clock: Clock,
    hub_name: String,
    ordered: Arc<Notify>,
}

/// Why a job goes no further.
enum Stop {
    /// It failed for good.
    Failed(String),
    /// Somebody has cancelled it.
    Cancelled,
    /// It can go on later.
    Later(ServiceError),
}

impl From<ServiceError> for Stop {
    fn from(error: ServiceError) -> Self {
        Self::Later(error)
    }
}

impl Transfers {
    pub(crate) fn new(
        repository: Repository,
        blobs: Blobs,
        configurations: Configurations,
        signals: Signals,
        presence: Presence,
        clock: Clock,
        hub_name: String,
    ) -> Self {
        Self {
            repository,
            blobs,
            configurations,
            signals,
            presence,
            clock,
            hub_name,
            ordered: Arc::default(),
        }
    }

    /// Orders a job.
    ///
    /// # Errors
    /// `JobQuotaExceeded` while another one has not ended.
    pub async fn create(&self, order: Order) -> Result<Transfer, ServiceError> {
        let digits = crate::random::bytes::<16>()?;
        let transfer = Transfer {
            id: hex::encode(&digits),
            order: order.to_text(),
            status: "enqueued".to_owned(),
            created: self.clock.now(),
            ended: None,
            done: 0,
            total: 0,
            lines: 0,
            failure: None,
        };
        let (ordered, now) = (transfer.clone(), self.clock.now());
        self.repository
            .change(move |transaction| {
                if let Some(other) = transaction.open_transfer()? {
                    return Err(ServiceError::new(
                        ErrorCode::JobQuotaExceeded,
                        format!(
                            "job `{}` has not ended, and one runs at a time; wait, or cancel it",
                            other.id
                        ),
                    ));
                }
                transaction.forget_transfers(now.plus_millis(-KNOWN_FOR_MS))?;
                transaction.put_transfer(&ordered)?;
                transaction.record("job.create", &ordered.id, None, now)
            })
            .await?;
        self.ordered.notify_one();
        Ok(transfer)
    }

    /// A job.
    ///
    /// # Errors
    /// `JobNotFound`.
    pub async fn get(&self, id: String) -> Result<Transfer, ServiceError> {
        self.repository
            .read(move |view| view.transfer(&id)?.ok_or_else(|| not_found(&id)))
            .await
    }

    /// The newest jobs.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn list(&self) -> Result<Vec<Transfer>, ServiceError> {
        self.repository.read(|view| view.transfers(MAX_LISTED)).await
    }

    /// Cancels a job; one that has ended stays as it is. What an import has done stays done.
    ///
    /// # Errors
    /// `JobNotFound`.
    pub async fn cancel(&self, id: String) -> Result<(), ServiceError> {
        let now = self.clock.now();
        self.repository
            .change(move |transaction| {
                let mut transfer = transaction.transfer(&id)?.ok_or_else(|| not_found(&id))?;
                if transfer.ended.is_some() {
                    return Ok(());
                }
                end(transaction, &mut transfer, "cancelled", None, now)?;
                transaction.record("job.cancel", &id, None, now)
            })
            .await
    }

    /// Carries out one job after the other, for ever.
    pub(crate) async fn run(self) {
        loop {
            if let Err(error) = self.tell_errors().await {
                tracing::warn!(%error, "what an import could not do is not written yet");
            }
            match self.repository.read(|view| view.open_transfer()).await {
                Ok(None) => self.ordered.notified().await,
                Ok(Some(transfer)) => {
                    let actor = Actor::Job(transfer.id.clone());
                    if let Err(error) = actor.does(self.carry_out(transfer)).await {
                        tracing::warn!(%error, "a job goes on later");
                        tokio::time::sleep(TRY_AGAIN).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "whether there are jobs can't be seen now");
                    tokio::time::sleep(TRY_AGAIN).await;
                }
            }
        }
    }

    async fn carry_out(&self, mut transfer: Transfer) -> Result<(), ServiceError> {
        if transfer.status == "enqueued" {
            transfer = self
                .note(&transfer.id, |transfer| transfer.status = "running".to_owned())
                .await?;
            tracing::info!(job = transfer.id, "a job begins");
        } else {
            tracing::info!(
                job = transfer.id,
                done = transfer.done,
                "a job that was broken off goes on"
            );
        }
        let outcome = match Order::from_text(&transfer.order) {
            Ok(order) if order.kind == Kind::Export => self.export(&transfer, &order).await,
            Ok(order) => self.import(&transfer, &order).await,
            Err(error) => Err(Stop::Failed(error.message)),
        };
        let (status, failure) = match outcome {
            Ok(()) => ("completed", None),
            Err(Stop::Cancelled) => return Ok(()),
            Err(Stop::Later(error)) => return Err(error),
            Err(Stop::Failed(why)) => ("failed", Some(why)),
        };
        if failure.is_some() {
            self.try_to_write_errors(&transfer).await;
        }
        let (id, now) = (transfer.id.clone(), self.clock.now());
        let why = failure.clone().unwrap_or_default();
        self.repository
            .change(move |transaction| match transaction.transfer(&id)? {
                Some(mut transfer) if transfer.ended.is_none() => {
                    transaction.remove_transfer_errors(&transfer.id)?;
                    end(transaction, &mut transfer, status, failure, now)
                }
                _ => Ok(()),
            })
            .await?;
        tracing::info!(job = transfer.id, status, why, "a job has ended");
        Ok(())
    }

    /// Writes the errors of imports that were cancelled.
    async fn tell_errors(&self) -> Result<(), ServiceError> {
        while let Some(transfer) = self.repository.read(|view| view.untold_transfer()).await? {
            self.try_to_write_errors(&transfer).await;
            self.repository
                .change(move |transaction| transaction.remove_transfer_errors(&transfer.id))
                .await?;
        }
        Ok(())
    }

    async fn try_to_write_errors(&self, transfer: &Transfer) {
        let Ok(order) = Order::from_text(&transfer.order) else {
            return;
        };
        if let Err(Stop::Failed(why)) = self.write_errors(&transfer.id, &order).await {
            tracing::warn!(job = transfer.id, why, "what an import could not do can't be told");
        }
    }

    /// Changes what is known of a job.
    async fn note(
        &self,
        id: &str,
        change: impl FnOnce(&mut Transfer) + Send + 'static,
    ) -> Result<Transfer, ServiceError> {
        let id = id.to_owned();
        self.repository
            .change(move |transaction| {
                let mut transfer = transaction.transfer(&id)?.ok_or_else(|| not_found(&id))?;
                if transfer.ended.is_none() {
                    change(&mut transfer);
                    transaction.put_transfer(&transfer)?;
                }
                Ok(transfer)
            })
            .await
    }
}

fn end(
    transaction: &Transaction<'_>,
    transfer: &mut Transfer,
    status: &str,
    failure: Option<String>,
    now: Timestamp,
) -> Result<(), ServiceError> {
    transfer.status = status.to_owned();
    transfer.ended = Some(now);
    transfer.failure = failure;
    if status == "completed" {
        transfer.done = transfer.done.max(transfer.total);
    }
    transaction.put_transfer(transfer)
}

fn not_found(id: &str) -> ServiceError {
    let shown: String = id.chars().take(100).collect();
    ServiceError::new(ErrorCode::JobNotFound, format!("there is no job `{shown}`"))
}
