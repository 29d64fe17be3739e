//! Who is connected: what sessions leave behind, and what follows from a module's coming and going.
//!
//! ```text
//!   opened ----> uplink of the module opens, if the hub answers; the report of `$edgeHub` names it
//!   subscribed > filters are kept (unless the session is clean); methods are subscribed upstream while they are here
//!   closed ----> leases go back; methods upstream end
//! ```

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Mutex;

use holm_gateway::{
    Admission, CloseReason, Earlier, Presence, Provisioning, Refusal, Resumed, Service, SessionHandle, SessionId,
    Subscriptions,
};
use holm_model::manifest::{ClientReported, client_key};
use holm_model::wire::Subscription;
use holm_model::{Identity, Timestamp};

use tokio::sync::watch;

use super::{Broker, lock};
use crate::state::StateError;

/// Clients that the report of `$edgeHub` names: a twin has room for a few hundred, and routes must fit beside them.
const MAX_REPORTED_CLIENTS: usize = 100;

/// The sessions that are open, and when each client came and went.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    state: Mutex<SessionsState>,
}

#[derive(Debug, Default)]
struct SessionsState {
    open: HashMap<SessionId, (SessionHandle, String)>,
    clients: BTreeMap<Identity, Times>,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    sessions: usize,
    connected: Timestamp,
    disconnected: Timestamp,
}

impl Sessions {
    fn opened(&self, session: &SessionHandle, generation: &str, now: Timestamp) {
        let mut state = lock(&self.state);
        let identity = session.identity().clone();
        state
            .open
            .insert(session.id(), (session.clone(), generation.to_owned()));
        let times = state.clients.entry(identity).or_insert(Times {
            sessions: 0,
            connected: now,
            disconnected: Timestamp::NEVER,
        });
        times.sessions += 1;
        times.connected = now;
    }

    fn closed(&self, session: SessionId, now: Timestamp) {
        let mut state = lock(&self.state);
        let Some((handle, _)) = state.open.remove(&session) else {
            return;
        };
        if let Some(times) = state.clients.get_mut(handle.identity()) {
            times.sessions = times.sessions.saturating_sub(1);
            times.disconnected = now;
            // As published: a module that has gone is named on, a device is not.
            if times.sessions == 0 && !handle.identity().is_module() {
                state.clients.remove(handle.identity());
            }
        }
    }

    /// How many sessions are open.
    pub(super) fn count(&self) -> usize {
        lock(&self.state).open.len()
    }

    /// What the report says of clients: the published form.
    pub(super) fn report(&self) -> BTreeMap<String, ClientReported> {
        let state = lock(&self.state);
        let of = |(identity, times): (&Identity, &Times)| {
            let status = if times.sessions > 0 {
                "Connected"
            } else {
                "Disconnected"
            };
            let client = ClientReported {
                status: status.to_owned(),
                last_connected_time_utc: times.connected,
                last_disconnected_time_utc: times.disconnected,
            };
            (client_key(identity), client)
        };
        state.clients.iter().take(MAX_REPORTED_CLIENTS).map(of).collect()
    }

    /// Closes the sessions of identities that are no more, or are others of the same name, or prove themselves otherwise now.
    fn revoke(&self, grant: impl Fn(&Identity) -> Option<String>) {
        let mut state = lock(&self.state);
        for (handle, admitted) in state.open.values() {
            if grant(handle.identity()).as_ref() != Some(admitted) {
                tracing::info!(identity = %handle.identity(), "the identity is no more, or not as it was; closing its session");
                handle.close(CloseReason::Revoked);
            }
        }
        state
            .clients
            .retain(|identity, times| times.sessions > 0 || grant(identity).is_some());
    }
}

fn unavailable(error: &StateError) -> Refusal {
    Refusal::Unavailable(error.to_string())
}

/// Back ends connect to the hub.
impl Service for Broker {
    type Events = Infallible;
    type Notices = Infallible;

    const SERVES_BACK_ENDS: bool = false;
}

/// A hub issues certificates; what an edge has is signed by a hub.
impl holm_gateway::Credentials for Broker {}

/// Devices are told by a hub where they belong.
impl Provisioning for Broker {
    const PROVISIONS: bool = false;
}

impl Presence for Broker {
    async fn opened(&self, session: &SessionHandle, of: &Admission, earlier: Earlier) -> Result<Resumed, Refusal> {
        let kept = match earlier {
            Earlier::Resumed => self.state.session(&of.identity).await,
            Earlier::Discarded => self.state.put_session(&of.identity, None).await.map(|()| None),
            Earlier::LeftAlone => Ok(None),
        };
        let kept = kept.map_err(|error| unavailable(&error))?;
        self.sessions.opened(session, &of.generation_id, self.now());
        self.figures.connected.of(&[&of.identity.to_string()]).increment();
        let filters = kept.as_deref().unwrap_or_default();
        // The front takes these up by itself, and does not tell again.
        let resumed = filters
            .iter()
            .filter_map(|(filter, _)| subscription(filter, &of.identity));
        self.listen_above(&of.identity, resumed.fold(Subscriptions::NONE, Subscriptions::with));
        self.report.wake();
        Ok(Resumed {
            present: kept.is_some(),
            filters: kept.unwrap_or_default(),
        })
    }

    async fn subscribed(
        &self,
        _session: SessionId,
        of: &Admission,
        all: Subscriptions,
        filters: Option<Vec<(String, u8)>>,
    ) -> Result<(), Refusal> {
        if let Some(filters) = filters {
            let kept = self.state.put_session(&of.identity, Some(&filters)).await;
            kept.map_err(|error| unavailable(&error))?;
        }
        self.listen_above(&of.identity, all);
        Ok(())
    }

    async fn closed(&self, session: SessionId, of: &Admission) {
        if let Some(module) = &of.identity.module {
            self.inboxes.close(session, module);
        }
        self.mail.close(session, &of.identity);
        self.leaving.forget(&of.identity);
        self.sessions.closed(session, self.now());
        self.figures.disconnected.of(&[&of.identity.to_string()]).increment();
        if let Some(link) = self.links.find(&of.identity) {
            // A newer session of the identity may be here already.
            let now = self.directory.find(&of.identity);
            let all = now.map_or(Subscriptions::NONE, |newer| newer.subscriptions());
            link.listen(all);
        } else if self.links.is_child(&of.identity) {
            self.twins.release(&of.identity);
        }
        self.report.wake();
    }
}

/// What a filter brings from above.
fn subscription(filter: &str, of: &Identity) -> Option<Subscriptions> {
    match Subscription::parse(filter, of) {
        Ok(Subscription::Methods) => Some(Subscriptions::METHODS),
        Ok(Subscription::CloudToDevice) => Some(Subscriptions::CLOUD_TO_DEVICE),
        Ok(Subscription::DesiredPatches) => Some(Subscriptions::DESIRED_PROPERTIES),
        _ => None,
    }
}

/// What needs a connection above.
pub(super) const fn needs_link(all: Subscriptions) -> bool {
    all.contains(Subscriptions::METHODS)
        || all.contains(Subscriptions::CLOUD_TO_DEVICE)
        || all.contains(Subscriptions::DESIRED_PROPERTIES)
}

impl Broker {
    /// Listens above to what somebody here listens to.
    fn listen_above(&self, identity: &Identity, all: Subscriptions) {
        let link = if self.links.is_child(identity) && !needs_link(all) {
            self.links.find(identity)
        } else {
            self.links.ensure(identity)
        };
        if let Some(link) = link {
            link.listen(all);
        }
    }

    /// A connection was closed that somebody may have asked for in the same moment: opens another for whoever needs one. What
    /// an identity listens to is told here, what it sends is the forwarder's.
    pub(super) async fn open_again(&self, identity: &Identity) {
        if let Some(session) = self.directory.find(identity) {
            self.listen_above(identity, session.subscriptions());
        }
        self.links.changed();
        // One that can't be read is sent at the next start.
        if self.twins.read(identity).await.is_ok_and(|twin| twin.is_pending()) {
            self.links.ensure(identity);
        }
    }

    /// The node above answers: opens what modules and children need there. Those that wait to send are opened by the forwarder.
    pub(super) async fn open_above(&self) {
        for session in self.directory.all() {
            self.listen_above(session.identity(), session.subscriptions());
        }
        self.links.changed();
        match self.state.pending_twins().await {
            Ok(pending) => pending.iter().for_each(|identity| drop(self.links.ensure(identity))),
            Err(error) => tracing::warn!(%error, "reported properties wait until their devices connect"),
        }
    }

    /// Follows the set of modules and children: sessions and uplinks of those that are gone end.
    pub(super) async fn follow_identities(&self, mut changes: watch::Receiver<u64>) {
        let mut children = self.children.changes();
        // What changed between the opening and now is looked at first.
        children.mark_changed();
        loop {
            let changed = tokio::select! {
                changed = changes.changed() => changed,
                changed = children.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
            self.sessions.revoke(|identity| self.grant(identity));
            for identity in self.links.without_keys() {
                self.links.close(&identity);
            }
            if let Err(error) = self.forget_gone().await {
                tracing::warn!(error = %holm_net::error_chain(&error), "what was kept of removed identities stays for now");
            }
            self.links.changed();
            self.report.wake();
        }
    }

    /// Forgets twins and sessions of those that the hub does not have any more, also of those that were not connected.
    async fn forget_gone(&self) -> Result<(), StateError> {
        for identity in self.state.remembered().await? {
            if self.is_gone(&identity) {
                self.forget(&identity).await?;
            }
        }
        Ok(())
    }

    /// Forgets one if the hub does not have it any more: at the end of what may have written it after it was forgotten.
    pub(super) async fn forget_if_gone(&self, identity: &Identity) {
        if self.is_gone(identity)
            && let Err(error) = self.forget(identity).await
        {
            tracing::warn!(%identity, error = %holm_net::error_chain(&error), "what was kept of a removed identity stays for now");
        }
    }

    async fn forget(&self, identity: &Identity) -> Result<(), StateError> {
        self.state.forget(identity).await?;
        self.twins.forget(identity);
        self.mail.forget(identity);
        Ok(())
    }
}
