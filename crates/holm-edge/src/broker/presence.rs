//! Who is connected: what sessions leave behind, and what follows from a module's coming and going.
//!
//! ```text
//!   opened ----> uplink of the module opens; the report of `$edgeHub` names it
//!   subscribed > filters are kept (unless the session is clean); methods are subscribed upstream while they are here
//!   closed ----> leases go back; methods upstream end
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use holm_gateway::{Admission, CloseReason, Presence, Refusal, Resumed, SessionHandle, SessionId, Subscriptions};
use holm_model::manifest::{ClientReported, client_key};
use holm_model::wire::Subscription;
use holm_model::{Identity, ModuleId, Timestamp};

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

    /// Closes the sessions of identities that are no more, or are others of the same name.
    fn revoke(&self, generation: impl Fn(&ModuleId) -> Option<String>) {
        let mut state = lock(&self.state);
        for (handle, admitted) in state.open.values() {
            let now = handle.identity().module.as_ref().and_then(&generation);
            if now.as_ref() != Some(admitted) {
                tracing::info!(identity = %handle.identity(), "the identity is no more; closing its session");
                handle.close(CloseReason::Revoked);
            }
        }
        state
            .clients
            .retain(|identity, times| times.sessions > 0 || identity.module.as_ref().and_then(&generation).is_some());
    }
}

fn unavailable(error: &StateError) -> Refusal {
    Refusal::Unavailable(error.to_string())
}

impl Presence for Broker {
    async fn opened(&self, session: &SessionHandle, of: &Admission, clean: bool) -> Result<Resumed, Refusal> {
        let kept = if clean {
            self.state.put_session(&of.identity, None).await.map(|()| None)
        } else {
            self.state.session(&of.identity).await
        };
        let kept = kept.map_err(|error| unavailable(&error))?;
        self.sessions.opened(session, &of.generation_id, super::now());
        let filters = kept.as_deref().unwrap_or_default();
        // The front takes these up by itself, and does not tell again.
        let resumes_methods = filters
            .iter()
            .any(|(filter, _)| Subscription::parse(filter, &of.identity) == Ok(Subscription::Methods));
        if let Some(link) = self.links.ensure(&of.identity) {
            link.listen_to_methods(resumes_methods);
        }
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
        if let Some(link) = self.links.ensure(&of.identity) {
            link.listen_to_methods(all.contains(Subscriptions::METHODS));
        }
        Ok(())
    }

    async fn closed(&self, session: SessionId, of: &Admission) {
        if let Some(module) = &of.identity.module {
            self.inboxes.close(session, module);
        }
        self.leaving.forget(&of.identity);
        self.sessions.closed(session, super::now());
        if let Some(link) = self.links.find(&of.identity) {
            // A newer session of the identity may be here already.
            let now = self.directory.find(&of.identity);
            let all = now.map_or(Subscriptions::NONE, |newer| newer.subscriptions());
            link.listen_to_methods(all.contains(Subscriptions::METHODS));
        }
        self.report.wake();
    }
}

impl Broker {
    /// Follows the set of modules: sessions and uplinks of those that are gone end.
    pub(super) async fn follow_identities(&self, mut changes: watch::Receiver<u64>) {
        while changes.changed().await.is_ok() {
            self.sessions.revoke(|module| self.keys.generation(module));
            for identity in self.links.without_keys() {
                self.links.close(&identity);
                if let Err(error) = self.state.forget(&identity).await {
                    tracing::warn!(%identity, %error, "what was kept of a removed module stays");
                }
                self.twins.forget(&identity);
            }
            self.links.changed();
            self.report.wake();
        }
    }
}
