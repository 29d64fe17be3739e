//! How routing is set, and what is in force.
//!
//! ```text
//! document --checked with all others, in one transaction, with its record in the audit log--> database
//!          --then, one change after the other--> lanes -> table (from now on messages go there) -> tasks -> lanes of what is gone
//! ```
//!
//! A change is in force when it is answered. A crash between the two steps is made good at the next start, which begins with the same
//! second step.

mod change;
mod error;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use holm_gateway::metrics::Counter;
use holm_model::ServiceError;
use holm_net::Scope;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

pub use error::RoutingError;
pub(super) use error::noun;

use super::definition::EndpointName;
use super::delivery::millis;
use super::documents::{Rules, Told, Wish, fallback_document, told};
use super::endpoint::Surroundings;
use super::live::{self, Ground, Live};
use super::rules::Destination;
use super::source::Source;
use super::table::{Lane, Table};
use super::twins::SenderTwins;
use crate::Clock;
use crate::config::EventSources;
use crate::events::{ConnectionStates, EventLog};
use crate::storage::{Repository, RoutingKind, RoutingRow};

/// Message routing of a hub. Clones are the same.
#[derive(Clone, Debug)]
pub struct Routing(Arc<Shared>);

pub(super) struct Shared {
    repository: Repository,
    pub(super) log: EventLog,
    scope: Scope,
    connections: ConnectionStates,
    defaults: EventSources,
    surroundings: Surroundings,
    pub(super) twins: SenderTwins,
    /// Whether every message of a device goes to `events` as it is.
    pub(super) is_plain: AtomicBool,
    table: RwLock<Arc<Table>>,
    told: RwLock<Arc<[Told]>>,
    live: RwLock<BTreeMap<EndpointName, Live>>,
    /// One change at a time.
    changing: Mutex<()>,
    pub(super) unrouted: Counter,
}

/// What routing needs of a hub.
#[derive(Debug)]
pub struct Parts {
    /// State.
    pub repository: Repository,
    /// Where messages go.
    pub log: EventLog,
    /// The time.
    pub clock: Clock,
    /// Owns the tasks of endpoints.
    pub scope: Scope,
    /// Told whether anybody wants to know of connections.
    pub connections: ConnectionStates,
    /// Which events of the hub go to `events` where no route is about them.
    pub defaults: EventSources,
    /// The value of `$iothubname`.
    pub hub_name: String,
    /// Below it are the files of endpoints.
    pub files: PathBuf,
}

impl Routing {
    /// What is stored, in force: lanes and table; tasks begin with [`Routing::start`].
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn open(parts: Parts) -> Result<Self, ServiceError> {
        let rows = parts.repository.read(|view| view.routing()).await?;
        let surroundings = Surroundings {
            hub_name: parts.hub_name.as_str().into(),
            lane: "".into(),
            files: Arc::new(parts.files),
            clock: parts.clock,
        };
        let nothing = Table::new(parts.hub_name, parts.defaults, &[], &[], true, Vec::new());
        let routing = Self(Arc::new(Shared {
            twins: SenderTwins::new(parts.repository.clone()),
            repository: parts.repository,
            log: parts.log,
            scope: parts.scope,
            connections: parts.connections,
            defaults: parts.defaults,
            surroundings,
            is_plain: AtomicBool::new(true),
            table: RwLock::new(Arc::new(nothing)),
            told: RwLock::new(Arc::from([])),
            live: RwLock::default(),
            changing: Mutex::default(),
            unrouted: Counter::default(),
        }));
        routing.put_in_force(&rows);
        Ok(routing)
    }

    /// Begins to deliver.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn start(&self) -> Result<(), ServiceError> {
        let _one = self.0.changing.lock().await;
        let rows = self.0.repository.read(|view| view.routing()).await?;
        self.bring_about(&Rules::of(&rows)).await;
        Ok(())
    }

    /// Every document of a kind, by name.
    #[must_use]
    pub fn list(&self, kind: RoutingKind) -> Vec<Map<String, Value>> {
        let told = self.told();
        let mine = told.iter().filter(|told| told.kind == kind);
        mine.map(|told| self.with_health(told)).collect()
    }

    /// A document.
    ///
    /// # Errors
    /// [`RoutingError::NotFound`].
    pub fn get(&self, kind: RoutingKind, name: &str) -> Result<Map<String, Value>, RoutingError> {
        let told = self.told();
        let mut all = told.iter();
        match all.find(|told| told.kind == kind && told.name.eq_ignore_ascii_case(name)) {
            Some(found) => Ok(self.with_health(found)),
            None if kind == RoutingKind::Fallback => Ok(fallback_document(true)),
            None => Err(RoutingError::NotFound {
                kind,
                name: name.to_owned(),
            }),
        }
    }

    /// Makes or (with `if_match`) changes a document; it is in force when this returns. Not cancelled by dropping the future.
    ///
    /// # Errors
    /// [`RoutingError`].
    pub async fn put(
        &self,
        kind: RoutingKind,
        name: &str,
        document: Map<String, Value>,
        if_match: Option<String>,
    ) -> Result<Map<String, Value>, RoutingError> {
        self.change(kind, name, Wish::Put(document), if_match).await?;
        self.get(kind, name)
    }

    /// Removes a document; of an endpoint, with what waits for it.
    ///
    /// # Errors
    /// [`RoutingError`].
    pub async fn remove(&self, kind: RoutingKind, name: &str, if_match: Option<String>) -> Result<(), RoutingError> {
        self.change(kind, name, Wish::Remove, if_match).await
    }

    /// The table in force.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.0.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Each endpoint with its figures: name, counts, status, messages and bytes that wait.
    #[must_use]
    pub fn figures(&self) -> Vec<(String, super::Counts, super::Status, (u64, u64))> {
        let now = self.0.surroundings.clock.now();
        let live = self.0.live.read().unwrap_or_else(PoisonError::into_inner);
        let figures = live.iter().map(|(name, live)| {
            let counts = live.health.read();
            let status = counts.status(live.definition.max_waiting, now);
            let depth = self.0.log.queue().depth(live.lane).unwrap_or_default();
            (name.to_string(), counts, status, (depth.records, depth.bytes))
        });
        figures.collect()
    }

    /// Messages of devices that no route took, while `$fallback` was off.
    #[must_use]
    pub fn unrouted(&self) -> u64 {
        self.0.unrouted.get()
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }

    fn told(&self) -> Arc<[Told]> {
        Arc::clone(&self.0.told.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn with_health(&self, told: &Told) -> Map<String, Value> {
        let mut document = told.document.clone();
        if told.kind == RoutingKind::Endpoint {
            let mut figures = self.figures().into_iter();
            let mine = figures.find(|(name, ..)| *name == told.name);
            let health = mine.map(|(_, counts, status, waiting)| counts.to_json(status, waiting));
            document.insert("health".to_owned(), health.unwrap_or(Value::Null));
        }
        document
    }

    /// From now on messages go where these rows say.
    fn put_in_force(&self, rows: &[RoutingRow]) -> Rules {
        let rules = Rules::of(rows);
        let lanes = rules.endpoints.iter().filter_map(|endpoint| {
            let lane = Lane {
                id: endpoint.lane(self.0.log.queue()).ok()?,
                max_waiting_millis: millis(endpoint.definition.max_waiting),
            };
            Some((Destination::Endpoint(endpoint.definition.name.clone()), lane))
        });
        let table = Table::new(
            self.0.surroundings.hub_name.to_string(),
            self.0.defaults,
            &rules.routes,
            &rules.enrichments,
            rules.fallback,
            lanes.collect(),
        );
        let table = Arc::new(table);
        *self.0.told.write().unwrap_or_else(PoisonError::into_inner) = rows.iter().filter_map(told).collect();
        *self.0.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&table);
        self.0.is_plain.store(table.is_plain(), Ordering::Release);
        let is_wanted = |source: Source| self.0.defaults.has(source.message_source()) || table.has_route_for(source);
        self.0.connections.turn(is_wanted(Source::DeviceConnectionStateEvents));
        self.0.repository.interest().turn(is_wanted);
        if !Source::ALL.into_iter().any(|source| table.reads_twin(source)) {
            self.0.twins.clear();
        }
        rules
    }

    async fn bring_about(&self, rules: &Rules) {
        let ground = Ground {
            log: &self.0.log,
            scope: &self.0.scope,
            surroundings: &self.0.surroundings,
        };
        live::bring_about(&self.0.live, &rules.endpoints, &ground).await;
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}
