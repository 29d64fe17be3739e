//! The hub's state in SQLite: identities, twins, policies, waiting cloud-to-device messages, notices for
//! back ends, the outbox of events, enrollments and registrations.
//!
//! ```text
//! registry, twins, c2d, …  --change(|transaction| …)-->  writer thread: savepoint each, one commit for all that wait
//!                          --read(|view| …)----------->  reader connections, a snapshot each
//! ```
//!
//! - No SQL outside this folder: a [`View`] reads nouns, a [`Transaction`] also writes them.
//! - Every change is one transaction, which also writes the events that it causes ([`Transaction::emit`]).
//! - Who was changed is told after each commit to the one who watches ([`Repository::watch`]), whoever changed it.
//! - What a change answers is on disk (WAL, `synchronous = FULL`).
//!
//! Rules are decided by the callers on what they read *inside* the transaction, so that they hold whoever else writes. An
//! engine for many nodes can stand behind the same two types.

mod activities;
mod audit;
mod blobs;
mod c2d;
mod configurations;
mod consumer_groups;
mod family;
mod identities;
mod jobs;
mod kept_certificates;
mod linked_hubs;
mod notices;
mod outbox;
mod policies;
mod provisioned;
mod provisioning;
mod queries;
mod repository;
mod routing;
mod schema;
mod sessions;
mod snapshot;
mod transaction;
mod transfers;
mod twin_changes;
mod twins;
mod writer;

pub use activities::Activity;
pub use audit::{AuditFilter, AuditRecord};
pub use blobs::{Blob, OpenUpload, Part};
pub use c2d::Waiting;
pub use configurations::{Candidate, TwinConfigurations, row_identity};
pub use jobs::{JobCounts, JobDevice, JobRecord};
pub use kept_certificates::KeptCertificate;
pub use linked_hubs::{Leftover, LinkedHub, MoveRow};
pub use notices::NoticeHead;
pub use outbox::{Emitted, Event};
pub use policies::{Policy, RightSet, Rights};
pub use provisioned::{OWN_HUB, Provisioned};
pub use provisioning::ProvisioningSettings;
pub use queries::{Effort, FleetRow, RowKey, Scan, Scanned, Show, Tallied, Tally};
pub use repository::Repository;
pub use routing::{RoutingKind, RoutingRow};
pub use schema::{FORMAT_VERSION, OpenError};
pub use snapshot::{Snapshot, SnapshotError};
pub use transaction::{Touched, Transaction, View};
pub use transfers::Transfer;
pub use twin_changes::TwinChangeRow;

use holm_model::{DeviceId, Identity, ModuleId, ServiceError};
use rusqlite::ErrorCode;

/// What the database could not do, told without internals; the cause goes to the log. A disk that is full, failing or
/// read-only is named: whoever asked can do nothing about it, but can tell who can.
fn fault(error: &rusqlite::Error) -> ServiceError {
    if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) {
        return given_up();
    }
    tracing::error!(%error, "the database refused an operation");
    ServiceError::unavailable(match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "the hub's disk is full; free space on it, changes then go on by themselves",
        Some(ErrorCode::SystemIoFailure) => "the hub's disk fails; see that it works, changes then go on by themselves",
        Some(ErrorCode::ReadOnly) => "the hub's disk is read-only; make it writable and restart the hub",
        _ => "the hub's database can't be used now; try again",
    })
}

/// A read was ended because its caller has gone away.
fn given_up() -> ServiceError {
    ServiceError::unavailable("nobody waits for this read any more")
}

/// What is stored but can't be read back: a defect or a damaged file.
fn damaged(what: &str) -> ServiceError {
    tracing::error!(what, "the database holds what it must not hold");
    ServiceError::server_error(format!("the hub's database holds a damaged {what}"))
}

/// The module as it stands in a key column.
fn module_key(identity: &Identity) -> &str {
    identity.module.as_ref().map_or("", ModuleId::as_str)
}

fn identity_of(device: &str, module: &str) -> Result<Identity, ServiceError> {
    let module = (!module.is_empty()).then(|| ModuleId::new(module)).transpose();
    match (DeviceId::new(device), module) {
        (Ok(device), Ok(module)) => Ok(Identity { device, module }),
        _ => Err(damaged("identity")),
    }
}

fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn to_u64(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
