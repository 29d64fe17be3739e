//! The steps of a rollout: each is on disk before anything is done by it.

use std::collections::BTreeSet;

use holm_client::Transport;
use holm_model::ModuleId;
use serde_json::json;

use super::rollout::{Event, Rollout};
use super::{BOOKKEEPING, Inner, deployment, unheeded};

/// Goes one step. Says whether there was one to go, and it was gone.
pub(super) async fn advance(agent: &Inner, event: Event) -> bool {
    // One step at a time: the next one is reckoned from the record that this one leaves.
    let _turn = agent.turn.lock().await;
    let is_wish = matches!(event, Event::Deployed { .. });
    let before = agent.memory().deployment.rollout.clone();
    let Some(after) = before.after(event) else { return false };
    if let Err(error) = write(agent, &after).await {
        // What is in force may not change without a record: a restart would not know it. A wish may be heard, and is asked
        // of the hub again.
        let changes_nothing = match (before.in_force(), after.in_force()) {
            (Some(before), Some(after)) => before.says_the_same(after),
            (before, _) => before.is_none(),
        };
        tracing::error!(%error, "a step of the deployment can't be kept; a restart without hub would not know it");
        if !(is_wish && changes_nothing) {
            return false;
        }
    }
    let bookkeeping = {
        let mut memory = agent.memory();
        if before.in_force() != after.in_force() {
            memory
                .bookkeeping
                .begin_deployment(&after.modules().unwrap_or_default());
        }
        memory.deployment.rollout = after.clone();
        json!(memory.bookkeeping)
    };
    if let Err(error) = agent.state.put_document(BOOKKEEPING, &bookkeeping).await {
        tracing::warn!(%error, "restarts of modules are not kept over a restart of the edge");
    }
    tell(&before, &after, agent.surroundings.hub_protocol);
    if is_wish {
        agent.figures.deployed();
    }
    want(agent, after.modules());
    if before.next() != after.next() {
        agent.next_changed.notify_one();
    }
    agent.prepare_due.notify_one();
    agent.wake.notify_one();
    true
}

async fn write(agent: &Inner, record: &Rollout) -> Result<(), crate::state::StateError> {
    match record.to_document() {
        Some(document) => agent.state.put_document(deployment::DOCUMENT, &document).await,
        None => Ok(()),
    }
}

/// The identities that are to be there.
fn want(agent: &Inner, modules: Option<BTreeSet<ModuleId>>) {
    agent.wanted.send_if_modified(|known| {
        let is_new = *known != modules;
        *known = modules;
        is_new
    });
}

fn tell(before: &Rollout, after: &Rollout, protocol: Transport) {
    let in_force = after.in_force().map(|edition| edition.version);
    if let Some(refused) = after.refused().filter(|_| before.refused().is_none()) {
        let reasons = refused.told();
        tracing::error!(
            version = refused.edition.version,
            in_force,
            reasons,
            "the deployment was taken back"
        );
    } else if after.phase() != before.phase() {
        tracing::info!(phase = after.phase().as_str(), in_force, "deployment");
    }
    let of = |rollout: &Rollout| {
        rollout
            .in_force()
            .map(|edition| unheeded::of(&edition.desired, protocol))
    };
    let (known, all) = (of(before).unwrap_or_default(), of(after).unwrap_or_default());
    if !all.is_empty() && all != known {
        let settings: Vec<String> = all.iter().map(ToString::to_string).collect();
        tracing::warn!(
            in_force,
            settings = settings.join("; "),
            "what the deployment sets of agent and broker has no effect here"
        );
    }
}
