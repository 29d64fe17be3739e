//! One member of a simulated fleet: a client, and what it does with what comes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holm_client::client::State;
use holm_client::{Client, Event, Events, Interests, Options, TwinError};
use holm_identity::SymmetricKey;
use holm_model::method::MethodResponse;
use holm_model::{Message, SystemProperty};
use holm_net::Scope;
use serde_json::{Map, Value, json};

use super::behaviour::{Behaviour, filled};
use super::counts::{Counts, count};
use super::registration::Member;

/// How long after a report that the hub has not taken it is told again.
const AGAIN: Duration = Duration::from_secs(5);

/// What a member is.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// A device, with its key.
    Device(SymmetricKey),
    /// The `$edgeAgent` of an edge; it logs in by the policy that registered it.
    Edge,
}

struct Running {
    client: Client,
    number: u32,
    is_edge: bool,
    is_targeted: bool,
    behaviour: Arc<Behaviour>,
    counts: Arc<Counts>,
    has_reported: bool,
    has_deployed: bool,
    /// When it reports once more what the hub has not taken.
    again: Option<tokio::time::Instant>,
}

/// Starts a member in a scope.
pub(super) fn start(
    scope: &Scope,
    mut options: Options,
    member: &Member,
    behaviour: Arc<Behaviour>,
    counts: Arc<Counts>,
    offset: Duration,
) {
    let is_edge = matches!(member.kind, Kind::Edge);
    options.interests = Interests {
        methods: true,
        desired_properties: true,
        cloud_to_device: !is_edge,
        inputs: false,
    };
    // It is a light one: a few messages on their way.
    options.window = 4;
    let (client, events) = Client::start(scope, options);
    let running = Running {
        client,
        number: member.number,
        is_edge,
        is_targeted: member.is_targeted,
        behaviour,
        counts,
        has_reported: false,
        has_deployed: false,
        again: None,
    };
    scope.spawn_until_stopped(running.live(events, offset));
}

impl Running {
    async fn live(mut self, mut events: Events, offset: Duration) {
        let is_silent = self.is_edge || self.behaviour.every.is_zero();
        let every = if is_silent {
            Duration::from_secs(3600)
        } else {
            self.behaviour.every
        };
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + offset, every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut state = self.client.state();
        let (mut is_connected, mut was_connected, mut sent) = (false, false, 0);
        loop {
            tokio::select! {
                _ = ticks.tick(), if !is_silent && is_connected => {
                    sent += 1;
                    self.send(sent).await;
                }
                Ok(()) = state.changed(), if !was_connected => {
                    if let State::Refused(reason) | State::Disconnected(reason) = &*state.borrow_and_update() {
                        self.counts.trouble(reason);
                    }
                }
                () = until(self.again), if is_connected => self.is_there().await,
                event = events.next() => match event {
                    None => return,
                    Some(Event::Connected) => {
                        if !is_connected {
                            self.counts.is_connected();
                        }
                        if !was_connected {
                            self.counts.arrived.reach();
                        }
                        (is_connected, was_connected) = (true, true);
                        self.is_there().await;
                    }
                    Some(Event::Disconnected(_)) => {
                        if is_connected {
                            self.counts.is_disconnected();
                        }
                        is_connected = false;
                    }
                    Some(other) => self.handle(other).await,
                }
            }
        }
    }

    async fn send(&self, number: u64) {
        if self.counts.is_ending() {
            return;
        }
        let mut message = Message::new(filled(&self.behaviour.body, self.number, number).to_string());
        message.system.set(SystemProperty::ContentType, "application/json");
        message.system.set(SystemProperty::ContentEncoding, "utf-8");
        let begin = Instant::now();
        count(&self.counts.sent);
        let Ok(sent) = self.client.send(message).await else {
            count(&self.counts.failed);
            return;
        };
        let counts = Arc::clone(&self.counts);
        // It ends with the client, which answers what it drops.
        tokio::spawn(async move {
            match sent.await {
                Ok(()) => {
                    count(&counts.acknowledged);
                    counts.took(begin.elapsed());
                }
                Err(_) => count(&counts.failed),
            }
        });
    }

    /// Connected: reports what it is, or what it runs.
    async fn is_there(&mut self) {
        self.again = None;
        if self.is_edge {
            self.follow_deployment().await;
        } else if self.behaviour.reports() {
            self.report(filled(&self.behaviour.report, self.number, 0)).await;
        }
    }

    async fn handle(&mut self, event: Event) {
        match event {
            Event::DesiredChanged(_) => {
                count(&self.counts.changes);
                if self.is_edge {
                    self.follow_deployment().await;
                }
            }
            Event::Method(call) => {
                let payload = call.payload.clone();
                let status = self.behaviour.method_status;
                call.answer(MethodResponse { status, payload }).await;
                count(&self.counts.methods);
            }
            Event::Message(received) => {
                received.complete().await;
                count(&self.counts.messages);
            }
            Event::Connected | Event::Disconnected(_) => {}
        }
    }

    async fn follow_deployment(&mut self) {
        let twin = match self.client.twin().await {
            Ok(twin) => twin,
            Err(error) => return self.not_taken(&error),
        };
        if !self.report(deployment_report(&twin)).await {
            return;
        }
        count(&self.counts.deployments);
        if has_deployment(&twin) && self.is_targeted && !std::mem::replace(&mut self.has_deployed, true) {
            self.counts.deployed.reach();
        }
    }

    async fn report(&mut self, patch: Value) -> bool {
        if let Err(error) = self.client.patch_reported(patch).await {
            self.not_taken(&error);
            return false;
        }
        count(&self.counts.reports);
        if !std::mem::replace(&mut self.has_reported, true) {
            self.counts.reported.reach();
        }
        true
    }

    /// What the hub has not answered, or not taken now, it is told again; with a new connection that is done anyway.
    fn not_taken(&mut self, error: &TwinError) {
        self.counts.trouble(&error.to_string());
        let is_passing = match error {
            TwinError::NoAnswer => true,
            TwinError::Refused { status, .. } => *status == 429 || *status >= 500,
            TwinError::NotConnected | TwinError::Stopped => false,
        };
        self.again = is_passing.then(|| tokio::time::Instant::now() + AGAIN);
    }
}

async fn until(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Whether there is something in the twin that an edge shall run.
fn has_deployment(twin: &Value) -> bool {
    twin["desired"].get("schemaVersion").is_some()
}

/// What an edge says of the deployment in its twin when all of it runs; modules that are gone are taken back.
fn deployment_report(twin: &Value) -> Value {
    let (desired, before) = (&twin["desired"], &twin["reported"]["modules"]);
    let wanted: HashMap<&str, &Value> = desired["modules"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, entry)| (name.as_str(), entry))
        .collect();
    let mut modules = Map::new();
    for (name, _) in before.as_object().into_iter().flatten() {
        if !wanted.contains_key(name.as_str()) {
            modules.insert(name.clone(), Value::Null);
        }
    }
    for (name, entry) in wanted {
        let status = if entry["status"] == "stopped" {
            "stopped"
        } else {
            "running"
        };
        modules.insert(
            name.to_owned(),
            json!({ "runtimeStatus": status, "exitCode": 0, "type": entry["type"], "settings": { "image": entry["settings"]["image"] } }),
        );
    }
    json!({
        "schemaVersion": "1.1",
        "lastDesiredVersion": desired["$version"],
        "lastDesiredStatus": { "code": if has_deployment(twin) { 200 } else { 417 }, "description": "" },
        "modules": modules,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_reports_what_its_deployment_lists_and_takes_back_the_rest() {
        let twin = json!({
            "desired": {"$version": 7, "schemaVersion": "1.1", "modules": {
                "a": {"type": "docker", "status": "running", "settings": {"image": "a:1"}},
                "b": {"type": "docker", "status": "stopped", "settings": {"image": "b:1"}},
            }},
            "reported": {"modules": {"old": {"runtimeStatus": "running"}}},
        });

        let report = deployment_report(&twin);

        assert_eq!(
            (&report["lastDesiredVersion"], &report["lastDesiredStatus"]["code"]),
            (&json!(7), &json!(200))
        );
        assert_eq!(report["modules"]["a"]["runtimeStatus"], "running");
        assert_eq!(report["modules"]["b"]["runtimeStatus"], "stopped");
        assert_eq!(report["modules"]["old"], Value::Null);
        let nothing = deployment_report(&json!({"desired": {"$version": 1}, "reported": {}}));
        assert_eq!(nothing["lastDesiredStatus"]["code"], 417);
    }
}
