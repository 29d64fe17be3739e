//! Configurations: what many devices or modules shall be, and that they are it.
//!
//! ```text
//! PUT, DELETE /configurations/{id} ──► table ──commit──► evaluator ──► lanes: who matches ──► intent ──► twins + row, a transaction
//! tags, reported properties, identities ──commit──►──┘     (a lane for each kind)         (merged once for each set of matches)
//! ```
//!
//! - Whom a configuration is for is known within milliseconds of the commit that decides it, not every five minutes.
//! - `fleet`, `lane` and what they use are in memory and hold nothing that can't be read again; `storage` holds the rest.
//! - What is asked about one device ([`Configurations::explain`]) or about a configuration that is not there yet
//!   ([`Configurations::plan`]) is worked out from the database alone, and so also tells what the evaluator has still to do.
//!
//! Source: `hub-service-api.md` §3.

mod apply;
mod evaluator;
mod explain;
mod facts;
mod fleet;
mod intent;
mod lane;
mod matcher;
mod metrics;
mod outcome;
mod preview;
mod terms;
mod unsettled;

pub(crate) use apply::module_settings;
pub use preview::Change;

use std::sync::Arc;
use std::time::Duration;

use holm_model::configuration::{Configuration, ConfigurationId, ConfigurationKind, ConfigurationWish, MetricResults};
use holm_model::{ErrorCode, Identity, ServiceError, etag};
use holm_query::twin::Query;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::queries::Queries;
use crate::storage::Repository;
use crate::{Clock, Signals, random};

use evaluator::{Evaluator, SharedFleet};
use explain::Refusals;
use matcher::Matcher;
use metrics::CustomMetrics;
use unsettled::Unsettled;

/// The most configurations of a hub: a place among them has 16 bits in memory, and all are compared with all.
pub const MAX_CONFIGURATIONS: u64 = 10_000;

/// How long a plan takes, with the time that it waits for others.
const MAX_PLAN_TIME: Duration = Duration::from_secs(60);

/// The configurations of a hub. Clones are the same.
#[derive(Clone, Debug)]
pub struct Configurations {
    repository: Repository,
    signals: Signals,
    clock: Clock,
    hub_name: String,
    unsettled: Unsettled,
    fleet: SharedFleet,
    custom: CustomMetrics,
    /// Held by the one who plans.
    planning: Arc<Semaphore>,
}

/// A configuration with its figures.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The configuration.
    pub configuration: Configuration,
    /// Its figures.
    pub results: MetricResults,
}

impl Measured {
    /// The published form.
    #[must_use]
    pub fn to_json(&self) -> Value {
        self.configuration.to_json(&self.results)
    }
}

impl Configurations {
    /// Configurations over a repository. Nothing is applied before its `run` is started.
    #[must_use]
    pub fn new(repository: Repository, signals: Signals, queries: Queries, clock: Clock, hub_name: String) -> Self {
        let unsettled = Unsettled::default();
        let told = unsettled.clone();
        repository.watch(move |touched| told.told(touched));
        unsettled.begin();
        Self {
            repository,
            signals,
            clock,
            hub_name,
            unsettled,
            fleet: SharedFleet::default(),
            custom: CustomMetrics::new(queries),
            planning: Arc::new(Semaphore::new(1)),
        }
    }

    /// Keeps twins as configurations want them, and counts; runs until it is dropped.
    pub(crate) fn run(&self) -> impl Future<Output = ()> + Send + 'static {
        let evaluator = Evaluator {
            repository: self.repository.clone(),
            signals: self.signals.clone(),
            clock: self.clock.clone(),
            hub_name: self.hub_name.clone(),
            unsettled: self.unsettled.clone(),
            fleet: self.fleet.clone(),
        };
        let counting = self.custom.clone().run();
        async {
            tokio::join!(evaluator.run(), counting);
        }
    }

    /// A configuration.
    ///
    /// # Errors
    /// `ConfigurationNotFound`.
    pub async fn get(&self, id: ConfigurationId) -> Result<Measured, ServiceError> {
        let found = self
            .repository
            .read(move |view| view.configuration(&id)?.ok_or_else(|| not_found(&id)))
            .await?;
        self.measured(vec![found]).await?.pop().ok_or_else(gone)
    }

    /// The first configurations in order of their ids, at most `most`; `None`: all.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn list(&self, most: Option<usize>) -> Result<Vec<Measured>, ServiceError> {
        let mut all = self.repository.read(|view| view.configurations()).await?;
        all.truncate(most.unwrap_or(usize::MAX));
        self.measured(all).await
    }

    /// Creates or (with `if_match`) changes a configuration.
    ///
    /// # Errors
    /// `ConfigurationAlreadyExists`, `ConfigurationNotFound`, `PreconditionFailed`, `ConfigurationCountLimitExceeded`,
    /// `CannotModifyImmutableConfigurationContent`, `InvalidConfigurationTargetCondition`,
    /// `InvalidConfigurationCustomMetricsQuery`, `InvalidConfigurationContent`.
    pub async fn put(
        &self,
        id: ConfigurationId,
        wish: ConfigurationWish,
        if_match: Option<String>,
    ) -> Result<Measured, ServiceError> {
        for (name, query) in wish.metrics.iter().flatten() {
            check_metric(query).map_err(|why| {
                let text = format!("the metric `{name}` is wrong: {why}");
                ServiceError::new(ErrorCode::InvalidConfigurationCustomMetricsQuery, text)
            })?;
        }
        let (now, etag) = (self.clock.now(), new_etag()?);
        let kept = self
            .repository
            .change(move |transaction| {
                let current = transaction.configuration(&id)?;
                let operation = match &current {
                    None => "configuration.create",
                    Some(_) => "configuration.update",
                };
                let configuration = match (current, if_match) {
                    (Some(_), None) => {
                        let text = format!("Configuration with id '{id}' already exist on IotHub.");
                        return Err(ServiceError::new(ErrorCode::ConfigurationAlreadyExists, text));
                    }
                    (None, Some(_)) => return Err(not_found(&id)),
                    (None, None) => {
                        if transaction.configuration_count()? >= MAX_CONFIGURATIONS {
                            let text = format!("there are {MAX_CONFIGURATIONS} configurations; delete one first");
                            return Err(ServiceError::new(ErrorCode::ConfigurationCountLimitExceeded, text));
                        }
                        // Of two of one priority the newer wins, also where both were made in one millisecond.
                        let newest = transaction.newest_configuration()?;
                        let created = newest.map_or(now, |newest| now.max(newest.plus_millis(1)));
                        Configuration::create(id, wish, created, etag)?
                    }
                    (Some(current), Some(if_match)) => {
                        check_etag(&current, &if_match)?;
                        current.changed(wish, now, etag)?
                    }
                };
                Matcher::new(Arc::new(configuration.clone()))?;
                transaction.put_configuration(&configuration)?;
                transaction.record(operation, configuration.id(), Some(&configuration.etag()), now)?;
                Ok(configuration)
            })
            .await?;
        self.measured(vec![kept]).await?.pop().ok_or_else(gone)
    }

    /// Removes a configuration; what it has set is taken back as published.
    ///
    /// # Errors
    /// `ConfigurationNotFound`, `PreconditionFailed`.
    pub async fn remove(&self, id: ConfigurationId, if_match: Option<String>) -> Result<(), ServiceError> {
        let now = self.clock.now();
        self.repository
            .change(move |transaction| {
                let current = transaction.configuration(&id)?.ok_or_else(|| not_found(&id))?;
                if let Some(if_match) = if_match {
                    check_etag(&current, &if_match)?;
                }
                transaction.remove_configuration(&id)?;
                transaction.record("configuration.delete", &id, Some(&current.etag()), now)
            })
            .await
    }

    /// What is wrong with a target condition of devices or modules; `None`: nothing.
    #[must_use]
    pub fn check_condition(text: &str) -> Option<String> {
        matcher::check(text).err().map(|error| error.message)
    }

    /// What is wrong with the query of a metric; `None`: nothing.
    #[must_use]
    pub fn check_metric(query: &str) -> Option<String> {
        check_metric(query).err()
    }

    /// Why a device or module has what it has: every configuration that matches, what it is and why, and whose each module, route
    /// and setting is.
    ///
    /// # Errors
    /// `DeviceNotFound`, `ModuleNotFound`.
    pub async fn explain(&self, identity: Identity) -> Result<Value, ServiceError> {
        let refusals = self.refusals(&identity).await;
        self.repository
            .read(move |view| explain::explain(view, &refusals, &identity))
            .await
    }

    /// Why what is wanted at an identity, and for the modules of its device, is not applied, as far as it was refused. Asked before
    /// the database is read: no connection waits for a fleet that is read.
    async fn refusals(&self, identity: &Identity) -> Refusals {
        let identity = identity.clone();
        let looking = self.fleet.look(move |fleet| {
            let device = Identity::of_device(identity.device.clone());
            let refused = ConfigurationKind::ALL.into_iter().filter_map(|kind| {
                let of = match kind {
                    ConfigurationKind::Edge | ConfigurationKind::Device => &device,
                    ConfigurationKind::Module => &identity,
                };
                Some((kind, fleet.refusal(kind, of)?.to_string()))
            });
            refused.collect()
        });
        looking.await.unwrap_or_default()
    }

    /// What a change would do: to how many, to whom for example, and what would be different there. Nothing is changed. One is
    /// worked out at a time, because it has the whole fleet in memory; dropping the future ends the reading.
    ///
    /// # Errors
    /// What the change itself would be refused with; `ConfigurationNotFound` for the removal of what is not there;
    /// `ThrottlingBacklogTimeout` when it takes too long.
    pub async fn plan(&self, change: Change) -> Result<Value, ServiceError> {
        let now = self.clock.now();
        let planning = async {
            let turn = Arc::clone(&self.planning).acquire_owned().await;
            let turn = turn.map_err(|_| ServiceError::unavailable("the hub is stopping"))?;
            self.repository
                .read_long(MAX_PLAN_TIME, move |view| {
                    // It goes with the thread, which a caller that gives up leaves behind.
                    let _turn = turn;
                    preview::preview(view, change, now)
                })
                .await
        };
        tokio::time::timeout(MAX_PLAN_TIME, planning).await.map_err(|_| {
            let text = format!(
                "others are planning, or the plan takes more than {} s; try again, with a condition that fewer meet",
                MAX_PLAN_TIME.as_secs()
            );
            ServiceError::new(ErrorCode::ThrottlingBacklogTimeout, text)
        })?
    }

    /// Whether every target is known and has what it shall have, as far as its twin takes it. For those who wait for it.
    pub async fn is_settled(&self) -> bool {
        let unsettled = self.unsettled.clone();
        let looking = self
            .fleet
            .look(move |fleet| unsettled.is_empty() && fleet.pending() == 0 && fleet.steps() > 0);
        looking.await.unwrap_or(false)
    }

    /// Whether every target is known; what follows may still be on its way to twins.
    pub async fn is_evaluated(&self) -> bool {
        let unsettled = self.unsettled.clone();
        let looking = self.fleet.look(move |fleet| unsettled.is_empty() && fleet.steps() > 0);
        looking.await.unwrap_or(false)
    }

    async fn measured(&self, all: Vec<Configuration>) -> Result<Vec<Measured>, ServiceError> {
        let counts = self.fleet.counts().await;
        let custom = self.custom.results(&all).await;
        let measured = all.into_iter().zip(custom).map(|(configuration, custom)| {
            let system = counts.as_ref().map(|counts| {
                let counted = counts.get(configuration.id()).copied().unwrap_or_default();
                metrics::system(configuration.kind(), counted)
            });
            let system = system.unwrap_or_default();
            let results = MetricResults { system, custom };
            Measured { configuration, results }
        });
        Ok(measured.collect())
    }
}

fn check_metric(query: &str) -> Result<(), String> {
    Query::parse(query).map(|_| ()).map_err(|problem| problem.to_string())
}

fn check_etag(current: &Configuration, if_match: &str) -> Result<(), ServiceError> {
    let etag = current.etag();
    if etag::matches(if_match, &etag) {
        return Ok(());
    }
    Err(ServiceError::precondition_failed(format!(
        "configuration `{}` was changed by somebody else: its etag is `{etag}`; read it and try again",
        current.id()
    )))
}

fn not_found(id: &ConfigurationId) -> ServiceError {
    ServiceError::new(
        ErrorCode::ConfigurationNotFound,
        format!("there is no configuration `{id}` at this hub"),
    )
}

fn gone() -> ServiceError {
    ServiceError::server_error("a configuration was read and is not there")
}

/// Random and not counted: an etag from before a configuration was deleted and made again must not match.
fn new_etag() -> Result<u64, ServiceError> {
    Ok(u64::from_be_bytes(random::bytes()?) >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::Presence;

    #[tokio::test(start_paused = true)]
    async fn one_plan_is_worked_out_at_a_time_and_the_next_waits_only_so_long() {
        let directory = tempfile::tempdir().unwrap();
        let repository = Repository::open(&directory.path().join("hub.db")).unwrap();
        let queries = Queries::new(repository.clone(), Presence::default());
        let configurations = Configurations::new(
            repository,
            Signals::default(),
            queries,
            Clock::system(),
            "hub".to_owned(),
        );
        let remove = || configurations.plan(Change::Remove("none".parse().unwrap()));

        let other = configurations.planning.clone().acquire_owned().await.unwrap();
        let late = remove().await;
        drop(other);
        let in_time = remove().await;

        assert!(late.is_err_and(|error| error.code == ErrorCode::ThrottlingBacklogTimeout));
        assert!(in_time.is_err_and(|error| error.code == ErrorCode::ConfigurationNotFound));
    }
}
