//! How a hub is put together: from a configuration and a database to the parts that share them.

use std::time::Duration;

use holm_identity::CertificateAuthority;
use holm_model::ServiceError;
use holm_net::Scope;

use super::OpenHubError;
use super::data_directory::DataDirectory;
use crate::authority::Authority;
use crate::backend::HubBackend;
use crate::backup::Backups;
use crate::blobs::Blobs;
use crate::c2d::Mailboxes;
use crate::configurations::Configurations;
use crate::deployment::Deployments;
use crate::events::{ConnectionStates, ConsumerGroups, EventLog, Interest, Readers};
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
use crate::storage::{Policy, Repository, Rights};
use crate::transfer::Transfers;
use crate::twins::Twins;
use crate::{Clock, HubConfig, RestApi, Signals};

/// Whether a configuration can work.
///
/// # Errors
/// [`OpenHubError::Config`]: which value cannot, and what to give.
pub(super) fn check(config: &HubConfig) -> Result<(), OpenHubError> {
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
pub(super) async fn prepare(repository: &Repository) -> Result<Vec<Policy>, ServiceError> {
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

/// The parts over a database and an event log, with what they share.
pub(super) async fn assemble(
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
    let readers = Readers::default();
    let groups = ConsumerGroups::open(repository.clone(), clock.clone(), readers.clone()).await?;
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
            readers,
            connections,
            endpoint: Endpoint::new(config, service_scope),
            provisioning,
            routing,
        },
    })
}

pub(super) async fn open_files(
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

pub(super) fn transfers(config: &HubConfig, rest: &RestApi, files: &Files) -> Transfers {
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

pub(super) fn backups(config: &HubConfig, directory: &DataDirectory, rest: &RestApi) -> Backups {
    let blobs = rest.files.as_ref().map(|files| files.blobs().clone());
    let backend = &rest.backend;
    Backups::new(
        (directory.path(), blobs),
        (backend.repository.clone(), backend.log.clone(), backend.clock.clone()),
        (config.service_host(), config.hub_name()),
    )
}
