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

mod data_directory;

use std::sync::Arc;
use std::time::Duration;

use holm_identity::{CertificateAuthority, ReloadableCertificate};
use holm_model::ServiceError;
use holm_net::Scope;

use crate::authority::Authority;
use crate::backend::HubBackend;
use crate::backup::Backups;
use crate::blobs::{Blobs, OpenBlobsError};
use crate::c2d::Mailboxes;
use crate::config::ChangeBounds;
use crate::configurations::Configurations;
use crate::deployment::Deployments;
use crate::events::{ConnectionStates, ConsumerGroups, EventLog, Interest, LogError, Readers, Relay};
use crate::files::Files;
use crate::jobs::Jobs;
use crate::methods::Methods;
use crate::metrics::Metrics;
use crate::notices::{Notices, ReaderId};
use crate::policies::{Policies, PolicySet, default_policies};
use crate::presence::Presence;
use crate::provisioning::{Parts, Provisioning};
use crate::queries::Queries;
use crate::registry::Registry;
use crate::rest::Bodies;
use crate::routing::{self, Routing};
use crate::service::Endpoint;
use crate::storage::{OpenError, Policy, Repository, RightSet, Rights, Transaction};
use crate::transfer::Transfers;
use crate::twins::Twins;
use crate::{Clock, HubConfig, RestApi, Signals, feedback};

use data_directory::DataDirectory;
pub use data_directory::{
    DataDirectoryError, connection_string, event_hub_connection_string, host_name, id_scope,
    provisioning_connection_string,
};
pub(crate) use data_directory::{Lock, RESTORING, connection_string_of, lock_data, lock_directory};

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

fn check(config: &HubConfig) -> Result<(), OpenHubError> {
    let day = Duration::from_secs(24 * 3600);
    if !(2..=32).contains(&config.partitions) {
        let text = format!("`partitions` is {}; give 2 to 32", config.partitions);
        return Err(OpenHubError::Config(text));
    }
    if !(day..=7 * day).contains(&config.retention) {
        let text = format!("`retention` is {} s; give 1 to 7 days", config.retention.as_secs());
        return Err(OpenHubError::Config(text));
    }
    let queues = [
        (&config.c2d, "cloud-to-device messages"),
        (&config.feedback, "feedback"),
        (&config.file_notifications, "notifications of files"),
    ];
    for (bounds, of) in queues {
        bounds.check(of).map_err(OpenHubError::Config)?;
    }
    if let Some(files) = &config.files {
        files.check().map_err(OpenHubError::Config)?;
    }
    if !(1..=3650).contains(&config.issued_certificate_days) {
        let days = config.issued_certificate_days;
        let text = format!("certificates for devices are to live {days} days; give 1 to 3650");
        return Err(OpenHubError::Config(text));
    }
    if config.hostname.is_empty() {
        let text = "`hostname` is empty; give the name that clients connect to";
        return Err(OpenHubError::Config(text.to_owned()));
    }
    Ok(())
}

/// Makes the policies of a new hub.
async fn prepare(repository: &Repository) -> Result<Vec<Policy>, ServiceError> {
    repository
        .change(move |transaction| {
            if transaction.policies::<Rights>()?.is_empty() {
                for (name, rights) in default_policies() {
                    let keys = crate::registry::Keys::generate()?;
                    transaction.put_policy(&Policy {
                        name: name.to_owned(),
                        primary: keys.primary,
                        secondary: keys.secondary,
                        rights,
                    })?;
                }
            }
            transaction.policies()
        })
        .await
}

/// An earlier hub may have had connections when it ended. A full disk is no reason not to start: reads go on.
async fn say_that_nobody_is_connected(repository: &Repository, clock: &Clock) -> Result<(), ServiceError> {
    let now = clock.now();
    repository
        .change(move |transaction| transaction.disconnect_all(now))
        .await
}

async fn assemble(
    config: &HubConfig,
    repository: Repository,
    log: EventLog,
    policies: PolicySet,
    clock: Clock,
    certificates: CertificateAuthority,
) -> Result<RestApi, ServiceError> {
    let (signals, presence, scope) = (Signals::default(), Presence::default(), Scope::new());
    let metrics = Metrics::default();
    let hub_name = config.hub_name();
    let registry = Registry::new(
        repository.clone(),
        presence.clone(),
        signals.clone(),
        clock.clone(),
        hub_name.clone(),
    );
    let twins = Twins::new(
        repository.clone(),
        presence.clone(),
        signals.clone(),
        clock.clone(),
        hub_name.clone(),
    );
    let authority = Authority::new(
        repository.clone(),
        signals.clone(),
        clock.clone(),
        config.token_hosts(),
        policies.clone(),
        metrics.clone(),
    );
    let notices = Notices::open(
        repository.clone(),
        clock.clone(),
        scope.clone(),
        config.feedback,
        config.file_notifications,
    );
    let notices = notices.await?;
    let groups = ConsumerGroups::open(repository.clone(), clock.clone()).await?;
    let service_scope = scope.clone();
    let methods = Methods::new(repository.clone(), signals.clone());
    let queries = Queries::new(repository.clone(), presence.clone());
    let parts = Parts {
        repository: repository.clone(),
        presence: presence.clone(),
        signals: signals.clone(),
        clock: clock.clone(),
        authority: authority.clone(),
        issuer: certificates,
    };
    let provisioning = Provisioning::open(config, parts).await?;
    repository.follow(Interest::new(presence.clone()));
    let connections = ConnectionStates::new(config.event_sources.connection_states);
    let parts = routing::Parts {
        repository: repository.clone(),
        log: log.clone(),
        clock: clock.clone(),
        scope: scope.clone(),
        connections: connections.clone(),
        defaults: config.event_sources,
        hub_name: hub_name.clone(),
        files: config.routed_files(),
    };
    let routing = Routing::open(parts).await?;
    let mailboxes = Mailboxes::open(
        repository.clone(),
        signals.clone(),
        clock.clone(),
        scope.clone(),
        notices.clone(),
        config.c2d,
    )?;
    Ok(RestApi {
        registry,
        jobs: Jobs::new(
            repository.clone(),
            twins.clone(),
            methods.clone(),
            queries.clone(),
            signals.clone(),
            clock.clone(),
            &hub_name,
        ),
        methods,
        queries: queries.clone(),
        deployments: Deployments::new(repository.clone(), signals.clone(), clock.clone(), hub_name.clone()),
        configurations: Configurations::new(repository.clone(), signals.clone(), queries, clock.clone(), hub_name),
        files: None,
        transfers: None,
        backups: None,
        hosts: config.token_hosts().into(),
        streams: scope.child(),
        notice_reader: ReaderId::next(),
        bodies: Bodies::default(),
        scope,
        backend: HubBackend {
            authority,
            policies: Policies::new(repository.clone(), clock.clone(), policies),
            repository,
            log,
            twins,
            mailboxes,
            notices,
            presence,
            signals,
            clock,
            metrics,
            groups,
            readers: Readers::default(),
            connections,
            endpoint: Endpoint::new(config, service_scope),
            provisioning,
            routing,
        },
    })
}

async fn open_files(
    config: &HubConfig,
    directory: &DataDirectory,
    backend: &HubBackend,
    scope: &Scope,
) -> Result<Option<Files>, OpenHubError> {
    let Some(files) = &config.files else {
        return Ok(None);
    };
    let path = files.directory.clone().unwrap_or_else(|| directory.blobs());
    let blobs = Blobs::open(
        &path,
        files,
        backend.repository.clone(),
        backend.authority.clone(),
        backend.clock.clone(),
        scope.clone(),
    );
    Ok(Some(Files::new(
        backend.repository.clone(),
        blobs.await.map_err(OpenHubError::Blobs)?,
        backend.notices.clone(),
        backend.clock.clone(),
        files.clone(),
        &config.service_host(),
    )))
}

fn transfers(config: &HubConfig, rest: &RestApi, files: &Files) -> Transfers {
    let backend = &rest.backend;
    Transfers::new(
        backend.repository.clone(),
        files.blobs().clone(),
        rest.configurations.clone(),
        backend.signals.clone(),
        backend.presence.clone(),
        backend.clock.clone(),
        config.hub_name(),
    )
}

fn backups(config: &HubConfig, directory: &DataDirectory, rest: &RestApi) -> Backups {
    let blobs = rest.files.as_ref().map(|files| files.blobs().clone());
    let backend = &rest.backend;
    Backups::new(
        (directory.path(), blobs),
        (backend.repository.clone(), backend.log.clone(), backend.clock.clone()),
        (config.service_host(), config.hub_name()),
    )
}

async fn tidy_files(files: Files) {
    loop {
        tokio::time::sleep(TIDY_FILES).await;
        if let Err(error) = files.blobs().tidy().await {
            tracing::warn!(%error, "blocks of uploads that nobody ended are not removed yet");
        }
    }
}

async fn keep_presence(backend: HubBackend, mut nobody_is_connected: bool) {
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

async fn keep_trying(repository: Repository) {
    loop {
        repository.in_trouble().await;
        tokio::time::sleep(TRY_AGAIN).await;
        repository.try_again().await;
    }
}

async fn sweep_mail(mailboxes: Mailboxes, notices: Notices) {
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
async fn follow_owner<R: RightSet>(
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
async fn forget_changes(repository: Repository, clock: Clock, audit: ChangeBounds, twins: ChangeBounds) {
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

async fn renew_certificate(
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
