//! What a hub does by itself, each in a task until it stops.

use std::sync::Arc;
use std::time::Duration;

use holm_identity::ReloadableCertificate;
use holm_model::ServiceError;

use super::data_directory::{DataDirectory, DataDirectoryError};
use crate::Clock;
use crate::backend::HubBackend;
use crate::c2d::Mailboxes;
use crate::config::ChangeBounds;
use crate::files::Files;
use crate::notices::Notices;
use crate::policies::PolicySet;
use crate::storage::{Policy, Repository, RightSet, Transaction};

/// How often what is known of connections is written, and how much of it a crash loses.
const FLUSH_PRESENCE: Duration = Duration::from_secs(5);
/// How often a database that could not be written to is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How often messages and notices that have expired are looked for.
const SWEEP_MAIL: Duration = Duration::from_secs(15);
/// How often what is left of uploads that nobody ended is removed.
const TIDY_FILES: Duration = Duration::from_secs(3600);
/// How often the server certificate is looked at.
const LOOK_AT_CERTIFICATE: Duration = Duration::from_secs(12 * 3600);
/// How often changes that are too old to be known are forgotten.
const FORGET_CHANGES: Duration = Duration::from_secs(60);

/// An earlier hub may have had connections when it ended. A full disk is no reason not to start: reads go on.
pub(super) async fn say_that_nobody_is_connected(repository: &Repository, clock: &Clock) -> Result<(), ServiceError> {
    let now = clock.now();
    repository
        .change(move |transaction| transaction.disconnect_all(now))
        .await
}

pub(super) async fn tidy_files(files: Files) {
    loop {
        tokio::time::sleep(TIDY_FILES).await;
        if let Err(error) = files.blobs().tidy().await {
            tracing::warn!(%error, "blocks of uploads that nobody ended are not removed yet");
        }
    }
}

pub(super) async fn keep_presence(backend: HubBackend, mut nobody_is_connected: bool) {
    loop {
        tokio::time::sleep(FLUSH_PRESENCE).await;
        if !nobody_is_connected {
            // Before anything newer is written.
            let told = say_that_nobody_is_connected(&backend.repository, &backend.clock).await;
            if told.is_err() {
                continue;
            }
            nobody_is_connected = true;
        }
        if let Err(error) = backend.presence.flush(&backend.repository).await {
            tracing::warn!(%error, "when devices were last heard of is not written yet");
        }
        backend.tell_connections().await;
    }
}

pub(super) async fn keep_trying(repository: Repository) {
    loop {
        repository.in_trouble().await;
        tokio::time::sleep(TRY_AGAIN).await;
        repository.try_again().await;
    }
}

pub(super) async fn sweep_mail(mailboxes: Mailboxes, notices: Notices) {
    loop {
        tokio::time::sleep(SWEEP_MAIL).await;
        if let Err(error) = mailboxes.sweep().await {
            tracing::warn!(%error, "expired messages are not removed yet");
        }
        if let Err(error) = notices.sweep().await {
            tracing::warn!(%error, "feedback and notifications of files that are too old are not removed yet");
        }
    }
}

/// Keeps the connection string in the data directory that of a key that is good.
pub(super) async fn follow_owner<R: RightSet>(
    policies: PolicySet<R>,
    write: impl Fn(&Policy<R>) -> Result<(), DataDirectoryError> + Send + Sync + 'static,
) {
    let (mut changes, write) = (policies.follow(), Arc::new(write));
    while changes.changed().await.is_ok() {
        let Some(owner) = policies.owner() else { continue };
        let write = Arc::clone(&write);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || write(&owner)).await {
            let error = holm_net::error_chain(&error);
            tracing::error!(%error, "the file with the connection string has an old key; the next start writes it");
        }
    }
}

/// Removes what is too old, or too much, of what is known of changes.
pub(super) async fn forget_changes(repository: Repository, clock: Clock, audit: ChangeBounds, twins: ChangeBounds) {
    loop {
        tokio::time::sleep(FORGET_CHANGES).await;
        let before = |bounds: ChangeBounds| {
            let age = i64::try_from(bounds.age.as_millis()).unwrap_or(i64::MAX);
            clock.now().plus_millis(age.saturating_neg())
        };
        let since = before(audit);
        if let Err(error) = forget_audit(&repository, since, audit.records).await {
            tracing::warn!(%error, "old records of changes are not removed yet");
        }
        let since = before(twins);
        let forgotten = until_done(&repository, move |transaction| {
            transaction.forget_twin_changes(since, twins.records)
        });
        if let Err(error) = forgotten.await {
            tracing::warn!(%error, "what twins were long ago is not removed yet");
        }
    }
}

/// Removes what is older, or of one kind more.
async fn forget_audit(repository: &Repository, since: holm_model::Timestamp, most: u64) -> Result<(), ServiceError> {
    until_done(repository, move |transaction| transaction.forget_audit(since)).await?;
    for (kind, last) in repository.read_background(move |view| view.audit_excess(most)).await? {
        let mut is_more = true;
        while is_more {
            let kind = kind.clone();
            is_more = repository
                .change(move |transaction| transaction.forget_audit_of(&kind, last))
                .await?;
        }
    }
    Ok(())
}

/// Repeats a change that does a part of the work, and says whether there is more.
async fn until_done(
    repository: &Repository,
    part: impl Fn(&Transaction<'_>) -> Result<bool, ServiceError> + Copy + Send + 'static,
) -> Result<(), ServiceError> {
    while repository.change(part).await? {}
    Ok(())
}

pub(super) async fn renew_certificate(
    directory: DataDirectory,
    names: Vec<String>,
    clock: Clock,
    certificate: Arc<ReloadableCertificate>,
) {
    loop {
        tokio::time::sleep(LOOK_AT_CERTIFICATE).await;
        let renewed = directory
            .server_identity(&names, clock.now())
            .and_then(|identity| certificate.replace(&identity).map_err(DataDirectoryError::Certificate));
        if let Err(error) = renewed {
            tracing::error!(
                error = %holm_net::error_chain(&error),
                "the server certificate can't be renewed"
            );
        }
    }
}
