//! What every module here has in common: it connects as its environment says, keeps to its twin, says on standard output
//! what it sends, and stops when told.
//!
//! Standard output is the module's log. Each message that it makes is a line of JSON there *before* it is sent, and another
//! once the edge has it, so that anybody can compare what a module wrote with what arrived:
//!
//! ```text
//!   {"event":"made","output":"alerts","messageId":"alert-…"}
//!   {"event":"stored","output":"alerts","messageId":"alert-…"}
//! ```

use std::collections::VecDeque;
use std::io::Write;
use std::time::Duration;

use holm_client::edge_environment::{EdgeEnvironment, InvalidEnvironment, WorkloadError};
use holm_client::{Client, Event, Events, Interests, Sent, Transport};
use holm_model::method::MethodResponse;
use holm_model::{Message, SystemProperty};
use holm_net::Scope;
use serde_json::{Value, json};

/// How far a module's own ticks may run behind before some are left out.
const CATCH_UP: Duration = Duration::from_millis(100);
/// Messages on their way to the edge at once.
const WINDOW: usize = 32;
/// How long a module that is told to stop waits for acknowledgements.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Why a module can't run.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// There is no module of that name.
    #[error("there is no ready-made module `{0}`; there are `sensor`, `watcher` and `summary`")]
    Unknown(String),
    /// It was not started by an edge.
    #[error("the environment is not that of a module")]
    Environment(#[source] InvalidEnvironment),
    /// The edge does not answer.
    #[error("the edge can't be asked whom to trust")]
    Workload(#[source] WorkloadError),
    /// A variable has no valid value.
    #[error("the variable `{name}` has the value `{value}`; give {wanted}")]
    Variable {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// Standard output is gone.
    #[error("the log can't be written")]
    Log(#[source] std::io::Error),
    /// The client has stopped.
    #[error("the client has stopped")]
    Stopped,
}

/// What a module does with what happens.
pub trait Module: Send {
    /// What it wants to receive.
    fn interests(&self) -> Interests;

    /// Takes a message of an input; gives the messages that it makes of it, each with the output it leaves through.
    fn message(&mut self, input: &str, message: &Message) -> Vec<(&'static str, Message)>;

    /// Takes desired properties, whole or changed; gives what to report.
    fn desired(&mut self, properties: &Value) -> Value;

    /// Answers a method call.
    fn method(&mut self, name: &str, payload: &Value) -> MethodResponse {
        MethodResponse {
            status: 404,
            payload: json!({ "error": format!("there is no method `{name}`"), "payload": payload }),
        }
    }

    /// How long until it wants to make messages of its own; `None`: never.
    fn pause(&self) -> Option<Duration> {
        None
    }

    /// Makes messages of its own, when the pause is over.
    fn tick(&mut self) -> Vec<(&'static str, Message)> {
        Vec::new()
    }
}

/// A JSON message with an id.
#[must_use]
pub fn json_message(id: String, body: &Value) -> Message {
    let mut message = Message::new(body.to_string());
    message.system.set(SystemProperty::MessageId, id);
    message.system.set(SystemProperty::ContentType, "application/json");
    message.system.set(SystemProperty::ContentEncoding, "utf-8");
    message
}

/// Reads a number from a variable of this process; an empty one is none.
///
/// # Errors
/// [`ModuleError::Variable`] when it is set to something else.
pub fn number(name: &'static str, default: u64) -> Result<u64, ModuleError> {
    match std::env::var(name) {
        Err(_) => Ok(default),
        Ok(value) if value.is_empty() => Ok(default),
        Ok(value) => match value.parse() {
            Ok(number) => Ok(number),
            Err(_) => Err(ModuleError::Variable {
                name,
                value,
                wanted: "a whole number",
            }),
        },
    }
}

/// Runs a module until `stop` resolves.
///
/// # Errors
/// [`ModuleError`].
pub async fn run(mut module: impl Module, stop: impl Future<Output = ()> + Send) -> Result<(), ModuleError> {
    let scope = Scope::new();
    let environment = EdgeEnvironment::from_process().map_err(ModuleError::Environment)?;
    let port = number("HOLM_MQTT_PORT", u64::from(Transport::Mqtt.default_port()))?;
    let port = u16::try_from(port).map_err(|_| ModuleError::Variable {
        name: "HOLM_MQTT_PORT",
        value: port.to_string(),
        wanted: "a port",
    })?;
    let mut options = environment
        .options(Transport::Mqtt, Some(port))
        .await
        .map_err(ModuleError::Workload)?;
    options.interests = module.interests();
    options.window = WINDOW;
    let (client, events) = Client::start(&scope, options);

    let mut host = Host {
        client,
        events,
        unacknowledged: VecDeque::new(),
    };
    let outcome = host.serve(&mut module, stop).await;
    if tokio::time::timeout(STOP_DEADLINE, host.settle()).await.is_err() {
        tracing::warn!(
            left = host.unacknowledged.len(),
            "messages were not acknowledged before the stop"
        );
    }
    if let Err(left) = scope.drain(STOP_DEADLINE).await {
        tracing::warn!(left, "tasks were still running at the stop");
    }
    outcome
}

struct Host {
    client: Client,
    events: Events,
    unacknowledged: VecDeque<(&'static str, String, Sent)>,
}

impl Host {
    async fn serve(&mut self, module: &mut impl Module, stop: impl Future<Output = ()>) -> Result<(), ModuleError> {
        let mut stop = std::pin::pin!(stop);
        let mut next = module.pause().map(|pause| tokio::time::Instant::now() + pause);
        loop {
            tokio::select! {
                () = &mut stop => return Ok(()),
                event = self.events.next() => {
                    let before = module.pause();
                    self.handle(module, event.ok_or(ModuleError::Stopped)?).await?;
                    if module.pause() != before {
                        // A new pause counts from now: nothing more comes at the old rate.
                        next = following(None, module.pause());
                    }
                }
                () = sleep_until(next) => {
                    self.send(module.tick()).await?;
                    next = following(next, module.pause());
                }
                acknowledged = first(&mut self.unacknowledged) => self.acknowledged(acknowledged)?,
            }
        }
    }

    async fn handle(&mut self, module: &mut impl Module, event: Event) -> Result<(), ModuleError> {
        match event {
            Event::Connected => {
                tracing::info!("connected to the edge");
                match self.client.twin().await {
                    Ok(twin) => self.report(module.desired(&twin["desired"])).await,
                    Err(error) => tracing::warn!(%error, "the twin could not be read; changes will still come"),
                }
            }
            Event::Disconnected(reason) => tracing::info!(reason, "the edge is gone; coming back"),
            Event::DesiredChanged(patch) => {
                let report = module.desired(&patch);
                self.report(report).await;
            }
            Event::Method(call) => {
                let response = module.method(&call.name, &call.payload);
                call.answer(response).await;
            }
            Event::Message(received) => {
                let made = module.message(received.input.as_deref().unwrap_or_default(), &received.message);
                self.send(made).await?;
                // What was made of it must be safe before it counts as handled: a crash in between repeats it.
                self.settle().await?;
                received.complete().await;
            }
        }
        Ok(())
    }

    async fn report(&self, report: Value) {
        if report.as_object().is_some_and(serde_json::Map::is_empty) {
            return;
        }
        if let Err(error) = self.client.patch_reported(report).await {
            tracing::warn!(%error, "properties were not reported");
        }
    }

    async fn send(&mut self, messages: Vec<(&'static str, Message)>) -> Result<(), ModuleError> {
        for (output, mut message) in messages {
            message.system.set(SystemProperty::OutputName, output);
            let id = message
                .system
                .get(SystemProperty::MessageId)
                .unwrap_or_default()
                .to_owned();
            let bytes = message.body.len();
            log(&json!({ "event": "made", "output": output, "messageId": id, "bytes": bytes }))?;
            if self.unacknowledged.len() >= WINDOW {
                let acknowledged = first(&mut self.unacknowledged).await;
                self.acknowledged(acknowledged)?;
            }
            let sent = self.client.send(message).await.map_err(|_| ModuleError::Stopped)?;
            self.unacknowledged.push_back((output, id, sent));
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), ModuleError> {
        while !self.unacknowledged.is_empty() {
            let acknowledged = first(&mut self.unacknowledged).await;
            self.acknowledged(acknowledged)?;
        }
        Ok(())
    }

    fn acknowledged(&mut self, outcome: Result<(), holm_client::SendError>) -> Result<(), ModuleError> {
        let Some((output, id, _)) = self.unacknowledged.pop_front() else {
            return Ok(());
        };
        match outcome {
            Ok(()) => log(&json!({ "event": "stored", "output": output, "messageId": id })),
            Err(error) => {
                tracing::error!(%error, output, messageId = id, "a message was not sent");
                Ok(())
            }
        }
    }
}

/// When the next tick is due: a pause after the last one was, so that the rate holds whatever a tick takes. What is missed
/// is caught up with, but no more than [`CATCH_UP`] of it.
fn following(due: Option<tokio::time::Instant>, pause: Option<Duration>) -> Option<tokio::time::Instant> {
    let now = tokio::time::Instant::now();
    let due = due.unwrap_or(now).max(now.checked_sub(CATCH_UP).unwrap_or(now));
    Some(due + pause?)
}

/// The outcome of the oldest message on its way. Cancel-safe: the message stays the oldest until it is taken out.
async fn first(waiting: &mut VecDeque<(&'static str, String, Sent)>) -> Result<(), holm_client::SendError> {
    match waiting.front_mut() {
        Some((_, _, sent)) => sent.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn log(line: &Value) -> Result<(), ModuleError> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(ModuleError::Log)
}
