//! The twins of this device's modules and of the devices below it: answered from above when the link is up, from the copy kept here when it is not.
//!
//! - A change of a copy is on disk before anybody is told of it.
//! - A reported patch is acknowledged as soon as it is kept; [`super::serving`] sends it on. So the node above sees what a
//!   module reported merged, and the module gets no version (`edge-broker.md` §4.3).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use holm_gateway::{Admission, Twins};
use holm_model::Identity;
use holm_model::error::ServiceError;
use serde_json::{Map, Value};

use super::replica::{Above, Replica};
use super::{Broker, figures, lock};
use crate::state::{State, StateError};

/// How long a module that asks for its twin waits for the node above before it gets the copy.
const PATIENCE: Duration = Duration::from_secs(5);

/// The copies in memory: of each module of this device, and of children that are connected or have a connection above.
#[derive(Debug)]
pub(super) struct Replicas {
    state: State,
    all: Mutex<HashMap<Identity, Arc<tokio::sync::Mutex<Option<Replica>>>>>,
}

impl Replicas {
    pub(super) fn new(state: State) -> Self {
        Self {
            state,
            all: Mutex::default(),
        }
    }

    fn of(&self, identity: &Identity) -> Arc<tokio::sync::Mutex<Option<Replica>>> {
        Arc::clone(lock(&self.all).entry(identity.clone()).or_default())
    }

    /// The copy of an identity's twin; an empty one when nothing is known.
    pub(super) async fn read(&self, identity: &Identity) -> Result<Replica, ServiceError> {
        self.change(identity, |replica| Ok(replica.clone())).await
    }

    /// Changes a copy; when this returns the change is on disk. A change that fails leaves the copy as it was.
    pub(super) async fn change<T>(
        &self,
        identity: &Identity,
        change: impl FnOnce(&mut Replica) -> Result<T, ServiceError>,
    ) -> Result<T, ServiceError> {
        self.change_then(identity, change, |_| ()).await
    }

    /// As [`Replicas::change`]; `then` is called when the change is on disk, before anybody else can make another: what it tells
    /// is told in the order of the changes. It must not block.
    pub(super) async fn change_then<T>(
        &self,
        identity: &Identity,
        change: impl FnOnce(&mut Replica) -> Result<T, ServiceError>,
        then: impl FnOnce(&T),
    ) -> Result<T, ServiceError> {
        let entry = self.of(identity);
        let mut entry = entry.lock().await;
        let known = match entry.take() {
            Some(known) => known,
            None => {
                let kept = match self.state.twin(identity).await {
                    // The key was lost. Nothing is overwritten by mistake: what can't be read can't be written either, unless
                    // there is another key now.
                    Err(error @ StateError::Sealed(_)) => {
                        let error = holm_net::error_chain(&error);
                        tracing::error!(%identity, error, "what was kept of a twin is lost; it is read anew from the hub");
                        None
                    }
                    kept => kept.map_err(|error| failed(identity, &error))?,
                };
                kept.unwrap_or_default()
            }
        };
        let mut changed = known.clone();
        let outcome = change(&mut changed);
        let Ok(value) = outcome else {
            *entry = Some(known);
            return outcome;
        };
        if changed == known {
            *entry = Some(known);
            then(&value);
            return Ok(value);
        }
        let kept = self.state.put_twin(identity, &changed, changed.is_pending()).await;
        // Left empty after a failure: what is on disk counts, and is read again.
        kept.map_err(|error| failed(identity, &error))?;
        *entry = Some(changed);
        then(&value);
        Ok(value)
    }

    /// Lets go of a copy that nobody uses now: it is on disk.
    pub(super) fn release(&self, identity: &Identity) {
        let mut all = lock(&self.all);
        // Whoever works with it holds a second reference, which is taken under this lock.
        if all.get(identity).is_some_and(|copy| Arc::strong_count(copy) == 1) {
            all.remove(identity);
        }
    }

    /// Forgets an identity that is no more.
    pub(super) fn forget(&self, identity: &Identity) {
        lock(&self.all).remove(identity);
    }
}

fn failed(identity: &Identity, error: &StateError) -> ServiceError {
    tracing::error!(%identity, error = %holm_net::error_chain(error), "a twin can't be read or kept");
    ServiceError::unavailable("the edge can't read or keep the twin now; try again")
}

impl Twins for Broker {
    async fn twin(&self, of: &Admission) -> Result<Value, ServiceError> {
        let began = Instant::now();
        if let Err(reason) = self.refresh(&of.identity).await {
            tracing::debug!(identity = %of.identity, reason, "a twin is answered from the copy kept here");
        }
        let view = self.twins.read(&of.identity).await?.view();
        let id = of.identity.to_string();
        self.figures.twins.of(&[figures::EDGE_HUB, &id]).done(began);
        Ok(view)
    }

    async fn patch_reported(
        &self,
        of: &Admission,
        patch: Value,
        expected: Option<u64>,
    ) -> Result<Option<u64>, ServiceError> {
        let Value::Object(mut patch) = patch else {
            return Err(ServiceError::argument_invalid(
                "the reported properties must be a JSON object",
            ));
        };
        patch.remove("$version");
        patch.remove("$metadata");
        let began = Instant::now();
        self.twins
            .change(&of.identity, |replica| {
                replica.expect_version(expected)?;
                replica.patch_reported(&patch)
            })
            .await?;
        let id = of.identity.to_string();
        self.figures.reports.of(&[figures::EDGE_HUB, &id]).done(began);
        if !patch.is_empty() {
            if let Some(link) = self.links.ensure(&of.identity) {
                link.wake();
            }
            self.tell_twin_change(&of.identity, &Value::Object(patch)).await;
        }
        Ok(None)
    }
}

impl Broker {
    /// Reads a twin from above into the copy, if the link is up. Says why it did not.
    async fn refresh(&self, identity: &Identity) -> Result<(), String> {
        if !self.links.is_up() {
            return Err("the link is down".to_owned());
        }
        let link = self.links.ensure(identity).ok_or("the module is not known")?;
        let asking = async {
            // Just after a module's start its own connection is still being made.
            link.connected().await?;
            let began = Instant::now();
            let twin = link.client().twin().await.map_err(|error| error.to_string())?;
            let id = identity.to_string();
            self.figures.twins.of(&[figures::UPSTREAM, &id]).done(began);
            Ok::<_, String>(twin)
        };
        let twin = tokio::time::timeout(PATIENCE, asking)
            .await
            .map_err(|_| "no answer in time".to_owned())??;
        let above = Above::read(twin).ok_or("the twin from above has not the published form")?;
        self.adopt(identity, &above, false)
            .await
            .map_err(|error| error.to_string())
    }

    /// Takes over a twin read from above, and tells whom it concerns what is new.
    pub(super) async fn adopt(&self, identity: &Identity, above: &Above, is_first: bool) -> Result<(), ServiceError> {
        let news = self
            .twins
            .change_then(
                identity,
                |replica| Ok(replica.adopt(above, is_first)),
                |news| news.iter().for_each(|news| self.tell_session(identity, news)),
            )
            .await?;
        if news.is_some() {
            self.desired_changed(identity).await;
        }
        Ok(())
    }

    /// Desired properties have changed, and the copy is up to date: tells the session of the identity.
    pub(super) fn tell_session(&self, identity: &Identity, news: &Map<String, Value>) {
        if let Some(session) = self.directory.find(identity) {
            session.desired_changed(Value::Object(news.clone()));
        }
    }

    /// Desired properties have changed: puts the configuration in force, if they are those of `$edgeHub`.
    pub(super) async fn desired_changed(&self, identity: &Identity) {
        if *identity == self.edge_hub {
            self.configure().await;
        }
    }
}
