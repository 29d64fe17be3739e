//! The engine of a client: connects, serves the connection, and comes back after loss, for ever.
//!
//! ```text
//!   connecting --let in, subscribed--> connected --lost, refused, token renewed (MQTT)--> waiting --> connecting
//!        \____________ Carrier ____________/
//!              Mqtt: a connection for each     Amqp: a session of a connection that clients may share
//! ```
//!
//! What was sent and not acknowledged when a connection ends is kept by its carrier, in order, and sent first on the next one.
//! Memory: the window of messages, twice at worst (kept and waiting).

mod amqp;
mod backoff;
mod dial;
mod mqtt;
mod renewal;
mod requests;

use holm_model::Message;
use holm_model::method::MethodResponse;
use holm_net::Scope;
use serde_json::Value;
use tokio::sync::{SemaphorePermit, mpsc, oneshot, watch};

use crate::client::{SendError, State, TwinError};
use crate::event::Event;
use crate::options::{Interests, Options};
pub use amqp::Connections;
use backoff::Backoff;

/// A connection that lasted this long was a good one: the next attempt follows at once.
const GOOD_CONNECTION: std::time::Duration = std::time::Duration::from_secs(5);

/// Who waits for an acknowledgement.
type Acknowledged = oneshot::Sender<Result<(), SendError>>;

/// A message and who waits for its acknowledgement.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// In a box: a channel keeps room for dozens, and most clients send seldom.
    pub(crate) message: Box<Message>,
    pub(crate) acknowledged: Acknowledged,
}

/// A request of the application.
#[derive(Debug)]
pub(crate) enum Command {
    Twin(oneshot::Sender<Result<Value, TwinError>>),
    PatchReported(Value, oneshot::Sender<Result<Option<u64>, TwinError>>),
}

impl Command {
    fn fail(self, error: TwinError) {
        let gone = match self {
            Self::Twin(answer) => answer.send(Err(error)).is_err(),
            Self::PatchReported(_, answer) => answer.send(Err(error)).is_err(),
        };
        if gone {
            tracing::trace!("nobody waits for a twin request any more");
        }
    }
}

/// What the application makes of an event of this connection.
#[derive(Debug)]
pub(crate) enum Answer {
    Method(Call, MethodResponse),
    Settle(Delivered, Verdict),
}

/// A method call, as its carrier names it.
#[derive(Debug)]
pub(crate) enum Call {
    Mqtt(String),
    Amqp(holm_amqp::MessageId),
}

/// A message that waits for its verdict, as its carrier names it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Delivered {
    Mqtt(holm_mqtt::DeliveryId),
    Amqp(holm_amqp::DeliveryId),
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict {
    Complete,
    Abandon,
    Reject,
}

/// The engine's ends of a client's channels. What goes through them is in boxes: a channel makes room for 32 items at once, and
/// an edge has a client for each of thousands.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) outgoing: mpsc::Receiver<Outgoing>,
    pub(crate) requests: mpsc::Receiver<Box<Command>>,
    pub(crate) events: mpsc::Sender<Box<Event>>,
    pub(crate) wanted: watch::Receiver<Interests>,
    pub(crate) state: watch::Sender<State>,
}

/// A protocol below a client: how it connects, and how it serves what is connected.
pub(crate) trait Carrier: Send {
    type Link: Send;

    /// From nothing to a link that is let in, or about to be.
    fn connect(&mut self, options: &Options) -> impl Future<Output = Result<Self::Link, End>> + Send;

    /// Serves a link until its end. What was not acknowledged is then kept for the next one.
    fn serve(&mut self, options: &Options, ends: &mut Ends, link: Self::Link) -> impl Future<Output = End> + Send;
}

/// Why a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The client is no longer wanted.
    Stopped,
    /// The token was about to end; the next connection has a new one.
    Renewing,
    /// The hub does not accept who we say we are.
    Refused(String),
    /// Anything else, in words.
    Lost(String),
}

impl Ends {
    /// Resolves when nobody is there any more: every clone of the client and the events were dropped.
    fn abandoned(&self) -> impl Future<Output = ()> + Send + use<> {
        let (events, mut wanted) = (self.events.clone(), self.wanted.clone());
        async move {
            events.closed().await;
            while wanted.changed().await.is_ok() {}
        }
    }
}

impl Options {
    /// Waits for the turn to connect. The semaphore is never closed.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        match &self.turns {
            Some(turns) => turns.acquire().await.ok(),
            None => None,
        }
    }
}

/// Runs a client until the application has dropped it and its events.
pub(crate) async fn run(options: Options, ends: Ends, scope: Scope) {
    if options.transport.is_amqp() {
        let carrier = amqp::Amqp::new(&options, scope);
        run_on(carrier, options, ends).await;
    } else {
        run_on(mqtt::Mqtt::default(), options, ends).await;
    }
}

/// Runs until the application has dropped the client and its events; whoever waits for an acknowledgement then learns at once
/// that there will be none, wherever the connection stands.
async fn run_on(mut carrier: impl Carrier, options: Options, mut ends: Ends) {
    let mut backoff = Backoff::new(options.longest_retry_wait);
    // Whether the application was told that there is a connection, and not yet that there is none: a token is renewed without a
    // word, but what follows may fail.
    let mut is_told = false;
    loop {
        ends.state.send_replace(State::Connecting);
        // In a box, which is gone when the connection stands: a client that has none, or has had it for long, is small.
        let abandoned = ends.abandoned();
        let connecting = Box::pin(unless(abandoned, carrier.connect(&options)));
        let Some(linked) = refusing_requests(&mut ends.requests, connecting).await else {
            return;
        };
        // A failed attempt that took long was no good connection.
        let began = holm_net::clock::instant();
        let end = match linked {
            Ok(link) => Box::pin(carrier.serve(&options, &mut ends, link)).await,
            Err(end) => end,
        };
        is_told |= *ends.state.borrow() == State::Connected;
        let (state, reason) = match end {
            End::Stopped => return,
            End::Renewing => continue,
            End::Refused(reason) => (State::Refused(reason.clone()), reason),
            End::Lost(reason) => (State::Disconnected(reason.clone()), reason),
        };
        let lasted = holm_net::clock::instant().duration_since(began);
        if lasted > GOOD_CONNECTION {
            backoff.reset();
        }
        let was_told = std::mem::take(&mut is_told);
        if disconnected(&mut ends, state, reason, was_told).await.is_err() {
            return;
        }
        let waiting = unless(ends.abandoned(), tokio::time::sleep(backoff.next()));
        if refusing_requests(&mut ends.requests, waiting).await.is_none() {
            return;
        }
    }
}

/// Does something that takes time; `None` when the end came first.
async fn unless<T>(end: impl Future<Output = ()>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        () = end => None,
        done = work => Some(done),
    }
}

/// Tells the state and, if the application was told that the connection was up, the event.
async fn disconnected(ends: &mut Ends, state: State, reason: String, was_connected: bool) -> Result<(), ()> {
    ends.state.send_replace(state);
    tracing::debug!(reason, was_connected, "not connected");
    if was_connected {
        let event = Box::new(Event::Disconnected(reason));
        refusing_requests(&mut ends.requests, ends.events.send(event))
            .await
            .map_err(|_| ())?;
    }
    if ends.events.is_closed() && ends.requests.is_closed() {
        Err(())
    } else {
        Ok(())
    }
}

/// Does something that takes time while there is no connection: requests meanwhile fail at once.
async fn refusing_requests<T>(requests: &mut mpsc::Receiver<Box<Command>>, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            Some(request) = requests.recv() => request.fail(TwinError::NotConnected),
        }
    }
}

fn tell(acknowledged: Acknowledged, outcome: Result<(), SendError>) {
    if acknowledged.send(outcome).is_err() {
        tracing::trace!("nobody waits for an acknowledgement any more");
    }
}

async fn sleep_until(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
