//! The local broker: what the edge's modules talk through, and what stores and forwards for them.
//!
//! ```text
//!   modules ──gateway──> ingest ──routes──> queue ──inbox──> modules      at once, ahead of the commit
//!                          │                  '────forward──links──> hub  when it is on disk, each as its sender
//!                          '<── acknowledged when the commit is done
//!   modules <──twins (copy kept here)──links──> hub        desired down, reported up, methods down
//! ```
//!
//! It implements the capabilities of the gateway, so the protocol front is the hub's. Each capability is a file of its own;
//! they share [`Broker`] and change only their own part of it.
//!
//! Invariants: a message that was acknowledged to its sender reaches every endpoint that its routes named, at least once, in
//! order per sender and priority, until its time-to-live ends; what ends otherwise is counted under its reason
//! ([`Counts`]), and kept as a dead letter where there is something to keep. Nothing here waits for the node above but what asks it.

mod abandoned;
mod aside;
mod authority;
mod counters;
mod dead_letters;
mod done;
mod feed;
mod figures;
mod forward;
mod inbox;
mod ingest;
mod lanes;
mod leases;
mod leaving;
mod links;
mod mail;
mod presence;
mod quota;
mod reading;
mod receipt;
mod rehome;
mod replica;
mod report;
mod routes;
mod senders;
mod serving;
mod space;
mod stamps;
mod status;
mod together;
mod twins;

#[cfg(test)]
pub(crate) mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holm_gateway::Directory;
use holm_model::manifest::BuildVersion;
use holm_model::{Identity, ModuleId, Timestamp};
use holm_net::{Clock, Scope};
use holm_query::Sink;
use holm_queue::{Clock as QueueClock, FileSystem, OpenError, OpenReport, Options as QueueOptions, Queue, Volatile};
use serde_json::Value;
use tokio::sync::watch;

pub use counters::Counts;
pub use dead_letters::{DeadLetter, DeadLetterError, Reason};
pub use links::LinkState;
pub use quota::Quota;
pub use receipt::Receipt;
pub use status::{BrokerStatus, ConfigurationStatus, Depth, EndpointDepth, QuotaStatus, Writes};

use crate::children::Children;
use crate::keys::ModuleKeys;
use crate::state::{State, StateError};
use crate::uplink::Uplink;
use counters::Counters;
use dead_letters::DeadLetters;
use figures::Figures;
use forward::{Forwarder, HeldUpstream};
use inbox::Inboxes;
use lanes::Lanes;
use leaving::Leaving;
use links::Links;
use mail::Mail;
use presence::Sessions;
use quota::QuotaState;
use report::Report;
use routes::{Routes, Table};
use stamps::MessageIds;
use twins::Replicas;

/// The document that holds the configuration in force.
const CONFIGURATION: &str = "broker.configuration";
/// How often a state that could not be written is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Separate ranges that a lane may have acknowledged beyond its oldest message: more than are ever read ahead.
const MAX_RANGES: usize = 2 * forward::LOOK_AHEAD;

/// Lanes of all endpoints and priorities, and of senders that were set aside.
const MAX_LANES: usize = 4096;

/// How soon space comes back that nothing needs any more.
const MAINTAIN_INTERVAL: Duration = Duration::from_secs(1);

/// Why the broker did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenBrokerError {
    /// The queue did not open.
    #[error("the edge's messages in `{path}` can't be opened", path = path.display())]
    Queue {
        /// Its directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: OpenError,
    },
    /// The state can't be read.
    #[error("the broker's configuration can't be read")]
    State(#[source] StateError),
    /// There is no randomness to be had.
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
}

/// How a broker is set up.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// The edge's own host name, which tokens may name instead of the hub's.
    pub hostname: String,
    /// What `$edgeHub` reports as its version.
    pub version: BuildVersion,
    /// The devices below this edge.
    pub children: Arc<Children>,
    /// How the queue behaves; by its clock messages live. Its bounds are the broker's to set.
    pub queue: QueueOptions,
    /// Messages are kept in memory, at most so many bytes of them, and end with the process; `None`: on disk.
    pub memory_bytes: Option<u64>,
    /// Owns the broker's tasks.
    pub scope: Scope,
    /// Tells the time of day.
    pub clock: Clock,
}

/// The broker of one edge.
pub struct Broker {
    keys: Arc<dyn ModuleKeys>,
    children: Arc<Children>,
    /// The names that tokens may name: the hub's and the edge's own.
    hosts: [String; 2],
    edge_hub: Identity,
    state: State,
    lanes: Lanes,
    routes: Routes,
    twins: Replicas,
    inboxes: Inboxes,
    sessions: Sessions,
    links: Links,
    mail: Mail,
    directory: Arc<Directory>,
    report: Report,
    counters: Counters,
    figures: Figures,
    message_ids: MessageIds,
    /// By which messages live: the queue's clock.
    lives: QueueClock,
    leaving: Leaving,
    dead_letters: DeadLetters,
    quota_state: QuotaState,
    /// Written by the forwarder; held for a copy.
    held: Mutex<HeldUpstream>,
    scope: Scope,
    clock: Clock,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("edge_hub", &self.edge_hub)
            .finish_non_exhaustive()
    }
}

/// Locks what is held for a few operations on memory, never across a wait; a panic elsewhere leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Broker {
    /// Opens the broker over its queue in `directory`, with the routes that were last in force, and starts its tasks. It
    /// needs nothing of the node above: that is asked for as soon as it answers.
    ///
    /// # Errors
    /// [`OpenBrokerError`].
    pub async fn open(
        directory: &Path,
        keys: Arc<dyn ModuleKeys>,
        uplink: Uplink,
        state: State,
        options: BrokerOptions,
    ) -> Result<Arc<Self>, OpenBrokerError> {
        let store = options.memory_bytes.map(|max_bytes| Arc::new(Volatile::new(max_bytes)));
        let open = |queue| {
            let opened = match store {
                Some(store) => {
                    if directory.exists() {
                        tracing::warn!(directory = %directory.display(), "messages are kept in memory; those on disk wait until they are kept there again");
                    }
                    Queue::open_on(store, queue)
                }
                None => Queue::open(directory, queue),
            };
            opened.map_err(|source| OpenBrokerError::Queue {
                path: directory.to_owned(),
                source,
            })
        };
        Self::open_with(open, keys, uplink, state, options).await
    }

    /// [`Broker::open`] over a file system of the caller's choice.
    ///
    /// # Errors
    /// [`OpenBrokerError`].
    pub async fn open_on(
        files: Arc<dyn FileSystem>,
        keys: Arc<dyn ModuleKeys>,
        uplink: Uplink,
        state: State,
        options: BrokerOptions,
    ) -> Result<Arc<Self>, OpenBrokerError> {
        let path = files.path();
        let open = |queue| Queue::open_on(files, queue).map_err(|source| OpenBrokerError::Queue { path, source });
        Self::open_with(open, keys, uplink, state, options).await
    }

    /// [`Broker::open`] over a queue of the caller's choice.
    async fn open_with(
        open_queue: impl FnOnce(QueueOptions) -> Result<(Queue, OpenReport), OpenBrokerError>,
        keys: Arc<dyn ModuleKeys>,
        uplink: Uplink,
        state: State,
        options: BrokerOptions,
    ) -> Result<Arc<Self>, OpenBrokerError> {
        let in_force = configuration_in_force(&state).await?;
        let lives = options.queue.clock.clone();
        let queue_options = QueueOptions {
            maintain_interval: MAINTAIN_INTERVAL,
            max_ranges: MAX_RANGES,
            max_lanes: MAX_LANES,
            ..options.queue
        };
        let (queue, report) = open_queue(queue_options)?;
        tracing::info!(
            segments = report.segments,
            records = report.records_scanned,
            disk_bytes = queue.stats().disk_bytes,
            irregular = report.irregularities(),
            "messages are open"
        );
        let counters = Counters::default();
        if report.is_damaged() {
            counters.dropped_unreadable.add(report.records_lost());
            tracing::error!(
                found = report.irregularities(),
                "what the edge keeps of messages is damaged: the disk is failing? The messages in the damaged places are lost, the others are not"
            );
        }
        queue.set_max_bytes(in_force.as_ref().and_then(|table| table.quota.max_bytes));
        let dead_letters = DeadLetters::open(&queue);
        let is_wanted = |sink: &Sink| in_force.as_ref().is_some_and(|table| table.set.sinks().contains(sink));
        let lanes = Lanes::open(queue, is_wanted);
        let message_ids = MessageIds::new().map_err(OpenBrokerError::Random)?;
        let broker = Arc::new_cyclic(|broker| Self {
            hosts: [keys.hub_host().to_owned(), options.hostname],
            edge_hub: Identity::of_module(keys.device().clone(), ModuleId::edge_hub()),
            twins: Replicas::new(state.clone()),
            links: Links::new(
                uplink,
                Arc::clone(&keys),
                Arc::clone(&options.children),
                options.scope.clone(),
                options.clock.clone(),
                broker.clone(),
            ),
            keys,
            children: options.children,
            mail: Mail::default(),
            state,
            lanes,
            routes: Routes::default(),
            inboxes: Inboxes::default(),
            sessions: Sessions::default(),
            directory: Arc::default(),
            report: Report::default(),
            counters,
            figures: Figures::default(),
            message_ids,
            lives,
            leaving: Leaving::default(),
            dead_letters,
            quota_state: QuotaState::default(),
            held: Mutex::default(),
            scope: options.scope,
            clock: options.clock,
        });
        if let Some(table) = in_force {
            broker.routes.put(table);
        }
        broker.configure().await;
        broker.start(options.version);
        Ok(broker)
    }

    /// The time of day.
    fn now(&self) -> Timestamp {
        self.clock.now().into()
    }

    /// The time by which messages live, in milliseconds since 1970.
    fn millis(&self) -> u64 {
        self.lives.now()
    }

    fn start(self: &Arc<Self>, version: BuildVersion) {
        let scope = &self.scope;
        scope.spawn_until_stopped(Forwarder::new(self).run());
        let broker = Arc::clone(self);
        scope.spawn_until_stopped(async move { broker.keep_reporting(version).await });
        let broker = Arc::clone(self);
        scope.spawn_until_stopped(async move { broker.keep_links().await });
        let broker = Arc::clone(self);
        scope.spawn_until_stopped(async move { broker.keep_dead_letters().await });
        let broker = Arc::clone(self);
        scope.spawn_until_stopped(async move { broker.keep_space().await });
        scope.spawn_until_stopped(keep_trying(self.state.clone()));
    }

    /// Opens what must be open, and follows the set of modules.
    async fn keep_links(&self) {
        let mut changes = self.keys.changes();
        // Without identities there is nobody to connect as; they come with the first contact, or from disk.
        if changes.wait_for(|count| *count > 0).await.is_err() {
            return;
        }
        self.links.ensure(&self.edge_hub);
        match self.state.pending_twins().await {
            Ok(pending) => pending.iter().for_each(|identity| drop(self.links.ensure(identity))),
            Err(error) => tracing::warn!(%error, "reported properties wait until their modules connect"),
        }
        self.links.changed();
        self.follow_identities(changes).await;
    }

    /// The sessions of this node, shared with the gateway in front of the broker.
    #[must_use]
    pub const fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// The state of the link to the node above, and how it changes.
    #[must_use]
    pub fn link(&self) -> watch::Receiver<LinkState> {
        self.links.state()
    }

    /// Commits what waits and releases the queue's directory. To be called when the scope has been drained.
    pub async fn close(&self) {
        self.lanes.queue().clone().close().await;
    }
}

async fn keep_trying(state: State) {
    loop {
        state.in_trouble().await;
        tokio::time::sleep(TRY_AGAIN).await;
        state.try_again().await;
    }
}

async fn configuration_in_force(state: &State) -> Result<Option<Table>, OpenBrokerError> {
    let document = state.document(CONFIGURATION).await.map_err(OpenBrokerError::State)?;
    let desired = document.as_ref().and_then(|document| document.get("desired"));
    let Some(desired) = desired.and_then(Value::as_object) else {
        return Ok(None);
    };
    match Table::compile(desired) {
        Ok(table) => Ok(Some(table)),
        Err(status) => {
            // It was in force once: an older release was more lenient, or the document was changed by hand.
            tracing::error!(
                description = status.description,
                "the routes that were in force are refused now"
            );
            Ok(None)
        }
    }
}
