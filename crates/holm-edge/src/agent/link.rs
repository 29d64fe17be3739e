//! The agent's end of its connection to the hub: desired properties come in, methods are answered.

use std::sync::Arc;
use std::time::Duration;

use holm_client::{Client, Event as ClientEvent, Events, MethodCall};
use holm_model::ModuleId;
use holm_model::manifest::DesiredStatus;
use holm_model::method::MethodResponse;
use holm_net::Scope;
use serde_json::{Value, json};

use super::deployment::Taken;
use super::figures::Method;
use super::methods::{self, Call};
use super::rollout::Event;
use super::{Agent, Inner, advance};

/// The published period of reading the whole twin.
const REFRESH_PERIOD: Duration = Duration::from_secs(3600);
/// How long to wait after a twin could not be read.
const RETRY: Duration = Duration::from_secs(5);
/// How long the last word may take when the edge stops.
const GOODBYE: Duration = Duration::from_secs(2);

pub(super) async fn run(agent: &Arc<Inner>, scope: &Scope, client: &Client, mut events: Events) {
    let mut next_read = tokio::time::Instant::now() + REFRESH_PERIOD;
    loop {
        let must_read = tokio::select! {
            event = events.next() => match event {
                None => return,
                Some(event) => handle(agent, scope, event).await,
            },
            () = agent.refresh.notified() => true,
            () = tokio::time::sleep_until(next_read) => true,
        };
        if must_read && client.is_connected() {
            let is_read = read_twin(agent, client).await;
            let pause = if is_read { REFRESH_PERIOD } else { RETRY };
            next_read = tokio::time::Instant::now() + pause;
        } else if must_read {
            next_read = tokio::time::Instant::now() + REFRESH_PERIOD;
        }
    }
}

/// Handles an event; says whether the whole twin must be read.
async fn handle(agent: &Arc<Inner>, scope: &Scope, event: ClientEvent) -> bool {
    match event {
        ClientEvent::Connected => {
            agent.reachable.notify_one();
            true
        }
        ClientEvent::Disconnected(reason) => {
            tracing::info!(
                reason,
                "the agent has no connection to the hub; modules go on as deployed"
            );
            agent.memory().reported = None;
            false
        }
        ClientEvent::DesiredChanged(patch) => {
            agent.figures.syncs.increment();
            let taken = agent.memory().deployment.take_patch(&patch);
            !take(agent, taken).await
        }
        ClientEvent::Method(call) => {
            let agent = Agent {
                inner: Arc::clone(agent),
            };
            scope.spawn_until_stopped(answer(agent, scope.clone(), call));
            false
        }
        ClientEvent::Message(message) => {
            // The agent has no inputs; what is sent to it all the same must not come for ever.
            message.complete().await;
            false
        }
    }
}

async fn read_twin(agent: &Inner, client: &Client) -> bool {
    agent.figures.syncs.increment();
    let twin = match client.twin().await {
        Ok(twin) => twin,
        Err(error) => {
            agent.figures.failed_syncs.increment();
            tracing::warn!(%error, "the agent's twin can't be read");
            return false;
        }
    };
    let mut reported = twin
        .get("reported")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    reported.retain(|name, _| !name.starts_with('$'));
    {
        let mut memory = agent.memory();
        memory.reported = Some(reported);
        memory.refused = None;
    }
    let taken = agent
        .memory()
        .deployment
        .take_twin(twin.get("desired").unwrap_or(&Value::Null));
    take(agent, taken).await;
    agent.wake.notify_one();
    true
}

/// Does what is to be done about desired properties. `false`: the whole twin must be read first.
async fn take(agent: &Inner, taken: Taken) -> bool {
    match taken {
        Taken::Known => {}
        Taken::Gap => return false,
        Taken::Unreadable => agent.wake.notify_one(),
        Taken::Edition(edition) => {
            advance::advance(
                agent,
                Event::Deployed {
                    edition,
                    at: agent.now(),
                },
            )
            .await;
        }
    }
    true
}

async fn answer(agent: Agent, scope: Scope, call: MethodCall) {
    let logs = &agent.inner.logs;
    let read = methods::read(&call.name, &call.payload);
    let called = read.as_ref().map_or(Method::Refused, Call::figure);
    agent.inner.figures.methods.of(called).increment();
    let response = match read {
        Err(response) => response,
        Ok(Call::Ping) => methods::done(),
        Ok(Call::RestartModule(id)) => restart(&agent.inner, &id).await,
        Ok(Call::GetModuleLogs) => methods::of_logs(logs.get(&call.payload).await),
        Ok(Call::UploadModuleLogs) => methods::of_logs(logs.upload(&scope, &call.payload).await),
        Ok(Call::UploadSupportBundle) => {
            let facts = agent.bundle_facts();
            methods::of_logs(logs.upload_bundle(&scope, &call.payload, facts).await)
        }
        Ok(Call::GetTaskStatus) => methods::of_logs(logs.task(&call.payload)),
    };
    call.answer(response).await;
}

async fn restart(agent: &Inner, id: &ModuleId) -> MethodResponse {
    tracing::info!(module = %id, "restart asked by a method");
    let restarted = async {
        let (runtime, _) = agent.runtimes.find(id).await?;
        runtime.stop(id, None).await?;
        runtime.start(id).await
    };
    match restarted.await {
        Ok(()) => methods::done(),
        Err(error) => methods::refusal(500, error.chain()),
    }
}

/// Tells the hub that the agent stops. Modules go on, so nothing is said of them.
pub(super) async fn say_goodbye(client: &Client) {
    if !client.is_connected() {
        return;
    }
    let patch = json!({"lastDesiredStatus": DesiredStatus::not_running()});
    match tokio::time::timeout(GOODBYE, client.patch_reported(patch)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the hub was not told that the agent stops"),
        Err(_) => tracing::debug!("the hub was not told in time that the agent stops"),
    }
}
