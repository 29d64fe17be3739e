//! Keeps what is known of the children as the hub has it.
//!
//! ```text
//!   link is back ─┐
//!   every hour ───┼─> all, page by page ─> Children, state.db
//!   asked for ────┘
//!   somebody unknown, or with another proof, at the door ─┐
//!   the hub refuses one, or ended its connection ─────────┴─> one; when that is a new one, soon all
//! ```
//!
//! - What goes wrong leaves everything as it was; it is tried again after a wait that grows.
//! - Whoever comes to the door can't make the hub be asked at will: about one identity once in [`AGAIN`], and about all together
//!   [`BURST`] at once and then one a second.
//! - With the link down nothing is asked, and everybody is answered at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use holm_model::Identity;
use holm_net::error_chain;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{Ask, Changed, Child, Children, ScopeApi};
use crate::broker::LinkState;
use crate::state::State;
use crate::uplink::Refusals;

/// How often all are looked at when nothing else makes it so.
const PERIOD: Duration = Duration::from_secs(3600);
/// The first wait after a failure, and the longest; waits double in between.
const WAITS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// How long after a look at all the next is made because a new child was found.
const SETTLE: Duration = Duration::from_secs(10);
/// How often one identity is asked about.
const AGAIN: Duration = Duration::from_secs(20);
/// Questions about single identities at once.
const BURST: u32 = 32;
/// Identities of which it is known when they were asked about.
const MAX_REMEMBERED: usize = 1024;
/// The document that says that the hub has told of all.
const DOCUMENT: &str = "children";

/// What a keeper works with.
#[derive(Debug)]
pub struct KeeperParts {
    /// What it keeps.
    pub children: Arc<Children>,
    /// What is asked of it: the second of [`Children::new`].
    pub asks: mpsc::Receiver<Ask>,
    /// The hub.
    pub api: ScopeApi,
    /// Where it is kept.
    pub state: State,
    /// The link to the hub.
    pub link: watch::Receiver<LinkState>,
    /// The children that the hub refuses.
    pub refusals: Refusals,
}

/// The task that keeps children up to date.
#[derive(Debug)]
pub struct Keeper {
    parts: KeeperParts,
    next: Instant,
    last: Option<Instant>,
    wait: Duration,
    asked: HashMap<Identity, Instant>,
    /// Questions that may be asked now, and since when.
    left: (u32, Instant),
    /// Whether it is kept that the hub has told.
    is_noted: bool,
}

/// Takes in what was kept of the last run; what can't be read counts as never told.
pub async fn restore(children: &Children, state: &State) {
    let loaded = state.document(DOCUMENT).await.is_ok_and(|document| document.is_some());
    match state.children().await {
        Ok((kept, lost)) => {
            let read = |(identity, document)| Some((identity, Child::read(&document)?));
            let kept: HashMap<_, _> = kept.into_iter().filter_map(read).collect();
            if !kept.is_empty() {
                tracing::info!(children = kept.len(), "devices and modules below this edge are known");
            }
            children.restore(kept, loaded && lost == 0);
        }
        Err(error) => {
            let error = error_chain(&error);
            tracing::error!(
                error,
                "the devices below this edge can't be read; they are let in when the hub has told of them"
            );
        }
    }
}

impl Keeper {
    /// A keeper that has not looked yet.
    #[must_use]
    pub fn new(parts: KeeperParts) -> Self {
        let now = Instant::now();
        Self {
            parts,
            next: now,
            last: None,
            wait: WAITS.0,
            asked: HashMap::new(),
            left: (BURST, now),
            is_noted: false,
        }
    }

    /// Looks until nobody can ask any more.
    pub async fn run(mut self) {
        let mut refused = self.parts.refusals.attempts();
        let mut link = self.parts.link.clone();
        let mut was_up = false;
        loop {
            let is_up = link.borrow_and_update().connected;
            if is_up && !was_up {
                self.next = Instant::now();
                self.wait = WAITS.0;
            }
            was_up = is_up;
            tokio::select! {
                ask = self.parts.asks.recv() => match ask {
                    Some(ask) => self.answer(ask, is_up).await,
                    None => return,
                },
                () = tokio::time::sleep_until(self.next), if is_up => drop(self.look_at_all().await),
                changed = link.changed() => if changed.is_err() {
                    return;
                },
                changed = refused.changed(), if is_up => match changed {
                    Ok(()) => self.look_at_refused().await,
                    Err(_) => return,
                },
            }
        }
    }

    async fn answer(&mut self, ask: Ask, is_up: bool) {
        match ask {
            Ask::One(identity, answer) => {
                let told = is_up && self.look_at_one(&identity).await;
                // One that waits no more has gone away.
                answer.map(|answer| answer.send(told));
            }
            Ask::All(answer) => {
                let outcome = if is_up {
                    self.look_at_all().await
                } else {
                    Err("the link to the hub is down".to_owned())
                };
                drop(answer.send(outcome));
            }
        }
    }

    async fn look_at_all(&mut self) -> Result<(), String> {
        let outcome = self.parts.api.all().await;
        let now = Instant::now();
        match outcome {
            Ok(told) => {
                self.wait = WAITS.0;
                self.next = now + PERIOD;
                self.last = Some(now);
                let changed = self.parts.children.replace(told);
                self.keep(changed).await;
                if !self.is_noted {
                    self.is_noted = true;
                    let told = serde_json::json!({ "told": true });
                    if let Err(error) = self.parts.state.put_document(DOCUMENT, &told).await {
                        tracing::warn!(error = %error_chain(&error), "that the hub has told of its devices was not kept");
                    }
                }
                Ok(())
            }
            Err(error) => {
                let error = error_chain(&error);
                tracing::warn!(
                    error,
                    "the devices below this edge are not up to date; what is known stays in force"
                );
                self.next = now + self.wait;
                self.wait = (self.wait * 2).min(WAITS.1);
                Err(error)
            }
        }
    }

    /// Says whether the hub has told.
    async fn look_at_one(&mut self, identity: &Identity) -> bool {
        if !self.may_ask(identity) {
            // It was asked about a moment ago, or too many are: a look at all finds what has become of it since.
            self.next = self.next.min(Instant::now() + AGAIN);
            return false;
        }
        match self.parts.api.one(identity).await {
            Ok(told) => {
                let is_new = told.is_some() && !self.parts.children.contains(identity);
                let changed = self.parts.children.replace_one(identity, told);
                self.keep(changed).await;
                if is_new {
                    // Where one is new there are others.
                    let soon = self.last.map_or_else(Instant::now, |last| last + SETTLE);
                    self.next = self.next.min(soon);
                }
                true
            }
            Err(error) => {
                let error = error_chain(&error);
                tracing::warn!(%identity, error, "the hub did not tell of a device below this edge");
                self.asked.remove(identity);
                // The others would wait as long and hear the same.
                self.left = (0, Instant::now());
                false
            }
        }
    }

    async fn look_at_refused(&mut self) {
        for refused in self.parts.refusals.list() {
            if let Ok(identity) = refused.identity.parse() {
                self.look_at_one(&identity).await;
            }
        }
    }

    fn may_ask(&mut self, identity: &Identity) -> bool {
        let now = Instant::now();
        let earned = u32::try_from((now - self.left.1).as_secs()).unwrap_or(BURST);
        if earned > 0 {
            self.left = ((self.left.0 + earned).min(BURST), now);
        }
        if self.asked.len() >= MAX_REMEMBERED {
            self.asked.retain(|_, at| now - *at < AGAIN);
        }
        let is_recent = self.asked.get(identity).is_some_and(|at| now - *at < AGAIN);
        if is_recent || self.left.0 == 0 || self.asked.len() >= MAX_REMEMBERED {
            return false;
        }
        self.left.0 -= 1;
        self.asked.insert(identity.clone(), now);
        true
    }

    async fn keep(&self, changed: Changed) {
        if changed.is_nothing() {
            return;
        }
        let (put, removed) = (changed.put.len(), changed.removed.len());
        tracing::info!(
            put,
            removed,
            known = self.parts.children.count(),
            "devices and modules below this edge changed"
        );
        let put = changed
            .put
            .into_iter()
            .map(|(identity, child)| (identity, child.document()));
        if let Err(error) = self.parts.state.change_children(put.collect(), changed.removed).await {
            let error = error_chain(&error);
            tracing::error!(
                error,
                "what the hub told of devices below this edge was not kept; after a restart it is asked again"
            );
        }
    }
}

#[cfg(test)]
mod tests;
