//! A hub, put together from its parts over one data directory.
//!
//! ```text
//! DIR/lock                 held for as long as the hub runs
//! DIR/ca.pem, ca-key.pem   the hub's own certificate authority; the key 0600
//! DIR/server.pem, server-key.pem
//! DIR/connection-string    the service connection string of `iothubowner`; 0600, so that no command opens the database
//! DIR/hub.db               state, see docs/formats/hub-database.md
//! DIR/events/              the event log, a queue
//! DIR/blobs/               files of devices, if they are not kept elsewhere
//! ```
//!
//! Opening makes what is missing and changes nothing of what another release wrote. Listeners are the caller's.

mod data_directory;

use std::sync::Arc;
use std::time::Duration;

use holm_identity::{ReloadableCertificate, SymmetricKey};
use holm_model::ServiceError;
use holm_net::Scope;

use crate::authority::Authority;
use crate::backend::HubBackend;
use crate::blobs::{Blobs, OpenBlobsError};
use crate::c2d::Mailboxes;
use crate::deployment::Deployments;
use crate::events::{EventLog, LogError, Relay};
use crate::files::Files;
use crate::methods::Methods;
use crate::metrics::Metrics;
use crate::notices::{Notices, ReaderId};
use crate::presence::Presence;
use crate::registry::Registry;
use crate::storage::{OpenError, Policy, Repository, Rights};
use crate::twins::Twins;
use crate::{Clock, HubConfig, RestApi, Signals, feedback};

use data_directory::DataDirectory;
pub use data_directory::{DataDirectoryError, connection_string};

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
    owner: SymmetricKey,
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
        let policies = prepare(&repository).await.map_err(OpenHubError::State)?;
        let identity = directory.server_identity(&config.names(), clock.now())?;
        let certificate = Arc::new(ReloadableCertificate::new(&identity).map_err(DataDirectoryError::Certificate)?);
        let owner = policies
            .iter()
            .find(|policy| policy.name == OWNER)
            .map(|policy| policy.primary.clone());
        let owner = owner.ok_or_else(|| OpenHubError::Config(format!("the policy `{OWNER}` is missing")))?;
        directory.write_connection_string(&config.service_host(), OWNER, &owner)?;
        let is_told = say_that_nobody_is_connected(&repository, &clock).await;
        if let Err(error) = &is_told {
            tracing::warn!(%error, "devices that were connected to an earlier hub are shown as connected until it is written that they are not");
        }
        if let Err(error) = feedback::adopt_old_outcomes(&repository).await {
            tracing::warn!(%error, "feedback that an earlier release has kept is not given out before the next start");
        }
        let rest = assemble(&config, repository, log, policies, clock);
        let mut rest = rest.await.map_err(OpenHubError::State)?;
        rest.files = open_files(&config, &directory, &rest.backend, &rest.scope).await?;
        let hub = Self {
            rest,
            scope: Scope::new(),
            config,
            directory,
            certificate,
            owner,
        };
        Ok(hub.start(is_told.is_ok()))
    }

    fn start(mut self, nobody_is_connected: bool) -> Self {
        self.scope = self.rest.scope.clone();
        let backend = self.rest.backend.clone();
        let relay = Relay::new(backend.repository.clone(), backend.log.clone(), backend.signals.clone());
        self.scope.spawn_until_stopped(relay.run());
        self.scope
            .spawn_until_stopped(keep_presence(backend.clone(), nobody_is_connected));
        self.scope.spawn_until_stopped(keep_trying(backend.repository.clone()));
        self.scope
            .spawn_until_stopped(sweep_mail(backend.mailboxes.clone(), backend.notices.clone()));
        if let Some(files) = &self.rest.files {
            self.scope.spawn_until_stopped(tidy_files(files.clone()));
        }
        let renewal = renew_certificate(
            self.directory.clone(),
            self.config.names(),
            backend.clock.clone(),
            Arc::clone(&self.certificate),
        );
        self.scope.spawn_until_stopped(renewal);
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

    /// Files of devices; `None` where the hub takes none.
    #[must_use]
    pub const fn files(&self) -> Option<&Files> {
        self.rest.files.as_ref()
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

    /// The service connection string of `iothubowner`.
    #[must_use]
    pub fn connection_string(&self) -> holm_identity::Secret {
        data_directory::connection_string_of(&self.config.service_host(), OWNER, &self.owner)
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

/// The policy whose connection string is handed out.
const OWNER: &str = "iothubowner";

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
            if transaction.policies()?.is_empty() {
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

/// Source: `hub-service-api.md` §1.
const fn default_policies() -> [(&'static str, Rights); 5] {
    let registry = Rights::REGISTRY_READ.with(Rights::REGISTRY_WRITE);
    let all = registry.with(Rights::SERVICE_CONNECT).with(Rights::DEVICE_CONNECT);
    [
        (OWNER, all),
        ("service", Rights::SERVICE_CONNECT),
        ("device", Rights::DEVICE_CONNECT),
        ("registryRead", Rights::REGISTRY_READ),
        ("registryReadWrite", registry),
    ]
}

async fn assemble(
    config: &HubConfig,
    repository: Repository,
    log: EventLog,
    policies: Vec<Policy>,
    clock: Clock,
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
        policies,
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
        methods: Methods::new(repository.clone(), signals.clone()),
        deployments: Deployments::new(repository.clone(), signals.clone(), clock.clone(), hub_name),
        files: None,
        streams: scope.child(),
        notice_reader: ReaderId::next(),
        scope,
        backend: HubBackend {
            authority,
            repository,
            log,
            twins,
            mailboxes,
            notices,
            presence,
            signals,
            clock,
            metrics,
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
        files.quota,
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
