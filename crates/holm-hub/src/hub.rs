//! A hub, put together from its parts over one data directory.
//!
//! ```text
//! DIR/lock                 held for as long as the hub runs
//! DIR/ca.pem, ca-key.pem   the hub's own certificate authority; the key 0600
//! DIR/server.pem, server-key.pem
//! DIR/connection-string    the service connection string of `iothubowner`; 0600, so that no command opens the database
//! DIR/id-scope             what devices call the provisioning service
//! DIR/provisioning-connection-string  that of `provisioningserviceowner`; 0600
//! DIR/hub.db               state, see docs/formats/hub-database.md
//! DIR/events/              the event log, a queue
//! DIR/blobs/               files of devices, if they are not kept elsewhere
//! DIR/routed/              files of endpoints of message routing, if they are not kept elsewhere
//! ```
//!
//! Opening makes what is missing and changes nothing of what another release wrote. Listeners are the caller's.

mod assemble;
mod data_directory;
mod tasks;

use std::sync::Arc;
use std::time::Duration;

use holm_identity::ReloadableCertificate;
use holm_model::ServiceError;
use holm_net::Scope;

use crate::backend::HubBackend;
use crate::backup::Backups;
use crate::blobs::OpenBlobsError;
use crate::configurations::Configurations;
use crate::events::{EventLog, LogError, Relay};
use crate::files::Files;
use crate::policies::PolicySet;
use crate::queries::Queries;
use crate::storage::{OpenError, Policy, Repository};
use crate::{Clock, HubConfig, RestApi, Signals, feedback};

use assemble::{assemble, backups, check, open_files, prepare, transfers};
use data_directory::DataDirectory;
pub use data_directory::{
    DataDirectoryError, connection_string, event_hub_connection_string, host_name, id_scope,
    provisioning_connection_string,
};
pub(crate) use data_directory::{Lock, RESTORING, connection_string_of, lock_data, lock_directory};
use tasks::{
    follow_owner, forget_changes, keep_presence, keep_trying, renew_certificate, say_that_nobody_is_connected,
    sweep_mail, tidy_files,
};

/// How long tasks may take to end.
const DRAIN: Duration = Duration::from_secs(10);

/// Why a hub did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenHubError {
    /// The configuration has a value that cannot work.
    #[error("{0}")]
    Config(String),
    /// The data directory can't be used.
    #[error("the data directory can't be used")]
    Directory(#[from] DataDirectoryError),
    /// The database can't be used.
    #[error("the hub's database can't be used")]
    Database(#[source] OpenError),
    /// The event log can't be used.
    #[error("the hub's event log can't be used")]
    Log(#[source] LogError),
    /// The blob store can't be used.
    #[error("the files of devices can't be kept")]
    Blobs(#[source] OpenBlobsError),
    /// What every hub needs could not be read or written.
    #[error("the hub's state can't be prepared")]
    State(#[source] ServiceError),
}

/// A running hub. Its tasks end with [`Hub::close`].
#[derive(Debug)]
pub struct Hub {
    config: HubConfig,
    rest: RestApi,
    directory: DataDirectory,
    certificate: Arc<ReloadableCertificate>,
    scope: Scope,
    policies: PolicySet,
}

impl Hub {
    /// Opens the data directory and starts the hub's own tasks. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`OpenHubError`]; data of another release, or a directory that another hub uses, is not touched.
    pub async fn open(config: HubConfig) -> Result<Self, OpenHubError> {
        Self::open_with_clock(config, Clock::system()).await
    }

    /// As [`Hub::open`], with a clock of the caller's.
    ///
    /// # Errors
    /// As [`Hub::open`].
    pub async fn open_with_clock(config: HubConfig, clock: Clock) -> Result<Self, OpenHubError> {
        check(&config)?;
        let directory = DataDirectory::lock(&config.data)?;
        let repository = Repository::open(&directory.database()).map_err(OpenHubError::Database)?;
        let retention = (config.retention, config.retention_bytes);
        let log = EventLog::open(&directory.events(), config.partitions, retention.0, retention.1, &clock)
            .map_err(OpenHubError::Log)?;
        repository.keep_history(!config.twin_history.age.is_zero());
        let policies = PolicySet::new(prepare(&repository).await.map_err(OpenHubError::State)?);
        let certificates = directory.authority(&config.names(), clock.now())?;
        let identity = directory.server_identity(&config.names(), clock.now())?;
        let certificate = Arc::new(ReloadableCertificate::new(&identity).map_err(DataDirectoryError::Certificate)?);
        let owner = policies.owner();
        let owner = owner.ok_or_else(|| OpenHubError::Config("no policy has all rights".to_owned()))?;
        directory.write_connection_string(&config.service_host(), &owner.name, &owner.primary)?;
        let is_told = say_that_nobody_is_connected(&repository, &clock).await;
        if let Err(error) = &is_told {
            tracing::warn!(%error, "devices that were connected to an earlier hub are shown as connected until it is written that they are not");
        }
        if let Err(error) = feedback::adopt_old_outcomes(&repository).await {
            tracing::warn!(%error, "feedback that an earlier release has kept is not given out before the next start");
        }
        let rest = assemble(&config, repository, log, policies.clone(), clock, certificates);
        let mut rest = rest.await.map_err(OpenHubError::State)?;
        directory.write_provisioning(&rest.backend.provisioning)?;
        rest.files = open_files(&config, &directory, &rest.backend, &rest.scope).await?;
        rest.transfers = rest.files.as_ref().map(|files| transfers(&config, &rest, files));
        rest.backups = Some(backups(&config, &directory, &rest));
        // Last: its tasks would keep a hub that does not open.
        rest.backend.routing.start().await.map_err(OpenHubError::State)?;
        let hub = Self {
            rest,
            scope: Scope::new(),
            config,
            directory,
            certificate,
            policies,
        };
        Ok(hub.start(is_told.is_ok()))
    }

    fn start(mut self, nobody_is_connected: bool) -> Self {
        self.scope = self.rest.scope.clone();
        let backend = self.rest.backend.clone();
        let relay = Relay::new(
            backend.repository.clone(),
            backend.routing.clone(),
            backend.signals.clone(),
        );
        self.scope.spawn_until_stopped(relay.run());
        self.scope
            .spawn_until_stopped(keep_presence(backend.clone(), nobody_is_connected));
        self.scope.spawn_until_stopped(self.rest.configurations.run());
        self.scope.spawn_until_stopped(keep_trying(backend.repository.clone()));
        self.scope
            .spawn_until_stopped(sweep_mail(backend.mailboxes.clone(), backend.notices.clone()));
        self.scope.spawn_until_stopped(self.rest.jobs.clone().run());
        self.scope.spawn_until_stopped(backend.provisioning.clone().run());
        if let Some(files) = &self.rest.files {
            self.scope.spawn_until_stopped(tidy_files(files.clone()));
        }
        if let Some(transfers) = &self.rest.transfers {
            self.scope.spawn_until_stopped(transfers.clone().run());
        }
        let renewal = renew_certificate(
            self.directory.clone(),
            self.config.names(),
            backend.clock.clone(),
            Arc::clone(&self.certificate),
        );
        self.scope.spawn_until_stopped(renewal);
        let (directory, host) = (self.directory.clone(), self.config.service_host());
        let writing = follow_owner(self.policies.clone(), move |owner: &Policy| {
            directory.write_connection_string(&host, &owner.name, &owner.primary)
        });
        self.scope.spawn_until_stopped(writing);
        let (directory, service) = (self.directory.clone(), backend.provisioning.clone());
        let policies = service.policy_set().clone();
        let writing = follow_owner(policies, move |_| directory.write_provisioning(&service));
        self.scope.spawn_until_stopped(writing);
        self.scope.spawn_until_stopped(forget_changes(
            backend.repository.clone(),
            backend.clock.clone(),
            self.config.audit,
            self.config.twin_history,
        ));
        self
    }

    /// What the protocol fronts ask; share [`Hub::signals`]' directory with them.
    #[must_use]
    pub const fn backend(&self) -> &HubBackend {
        &self.rest.backend
    }

    /// The service API, to be served over HTTPS.
    #[must_use]
    pub const fn rest_handler(&self) -> &RestApi {
        &self.rest
    }

    /// Queries over the fleet.
    #[must_use]
    pub const fn queries(&self) -> &Queries {
        &self.rest.queries
    }

    /// Files of devices; `None` where the hub takes none.
    #[must_use]
    pub const fn files(&self) -> Option<&Files> {
        self.rest.files.as_ref()
    }

    /// What many devices or modules shall be.
    #[must_use]
    pub const fn configurations(&self) -> &Configurations {
        &self.rest.configurations
    }

    /// Backups of this hub.
    ///
    /// # Panics
    /// Never: a hub that is open has them.
    #[must_use]
    pub const fn backups(&self) -> &Backups {
        self.rest
            .backups
            .as_ref()
            .expect("they are made when the hub is opened")
    }

    /// The event log.
    #[must_use]
    pub const fn events(&self) -> &EventLog {
        &self.rest.backend.log
    }

    /// The sessions that live here; the gateway enters them.
    #[must_use]
    pub const fn signals(&self) -> &Signals {
        &self.rest.backend.signals
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &HubConfig {
        &self.config
    }

    /// The server's certificate; it is renewed in place at 80 % of its life.
    #[must_use]
    pub const fn certificate(&self) -> &Arc<ReloadableCertificate> {
        &self.certificate
    }

    /// The certificate authority of the hub as PEM, for those who connect.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn ca_pem(&self) -> Result<String, DataDirectoryError> {
        self.directory.ca_pem()
    }

    /// The service connection string of `iothubowner`, or of another policy with all rights where that has not got them.
    ///
    /// # Panics
    /// Never: a policy with all rights is always left.
    #[must_use]
    pub fn connection_string(&self) -> holm_identity::Secret {
        let owner = self.policies.owner().expect("a policy with all rights is always left");
        connection_string_of(&self.config.service_host(), &owner.name, &owner.primary)
    }

    /// The shared access policies with their keys.
    ///
    /// # Errors
    /// `ServiceUnavailable` when the database can't be read.
    pub async fn policies(&self) -> Result<Vec<Policy>, ServiceError> {
        self.rest.backend.repository.read(|view| view.policies()).await
    }

    /// Reads the server certificate anew from the data directory, as after SIGHUP.
    ///
    /// # Errors
    /// When the files can't be used; then the certificate stays what it was.
    pub fn reload_certificate(&self) -> Result<(), DataDirectoryError> {
        let now = self.rest.backend.clock.now();
        let identity = self.directory.server_identity(&self.config.names(), now)?;
        self.certificate
            .replace(&identity)
            .map_err(DataDirectoryError::Certificate)
    }

    /// Ends the answers that follow the event log, which would never end by themselves: the first step of a stop in good
    /// order.
    pub fn end_streams(&self) {
        self.rest.streams.stop();
    }

    /// Ends the hub's tasks and commits what waits. Close the listeners and sessions first.
    pub async fn close(self) {
        self.scope.stop();
        if let Err(left) = self.scope.drain(DRAIN).await {
            tracing::warn!(left, "tasks of the hub did not end in time");
        }
        let backend = &self.rest.backend;
        if let Err(error) = backend.presence.flush(&backend.repository).await {
            tracing::warn!(%error, "when devices were last heard of was not written");
        }
        backend.log.clone().close().await;
        backend.repository.close().await;
    }
}
