//! What a client tells the application.

use holm_model::Message;
use holm_model::method::MethodResponse;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::engine::{Answer, Call, Delivered, Verdict};

/// Events that wait for the application. Behind them a few more are kept; then no more publishes are taken, and those of
/// QoS 1 are not acknowledged.
pub(crate) const MAX_WAITING_EVENTS: usize = 32;

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// The connection is up and every interest is subscribed. What happened to the twin in between is not told: read it.
    Connected,
    /// The connection is down, with the reason; the client is coming back by itself.
    Disconnected(String),
    /// Somebody calls a method.
    Method(MethodCall),
    /// Desired properties changed: the changed keys (null: removed) and `$version`.
    DesiredChanged(Value),
    /// A message came: cloud-to-device, or to an input.
    Message(Received),
}

/// The events of one client, in order.
#[derive(Debug)]
pub struct Events(pub(crate) mpsc::Receiver<Box<Event>>);

impl Events {
    /// The next event; `None` when the client has stopped. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await.map(|event| *event)
    }
}

/// A method call to be answered.
#[derive(Debug)]
pub struct MethodCall {
    /// Which method.
    pub name: String,
    /// Its argument.
    pub payload: Value,
    pub(crate) call: Call,
    pub(crate) answers: mpsc::Sender<Box<Answer>>,
}

impl MethodCall {
    /// Answers the call. A call that is dropped is not answered, and its caller waits for its timeout.
    pub async fn answer(self, response: MethodResponse) {
        let answer = Answer::Method(self.call, response);
        if self.answers.send(Box::new(answer)).await.is_err() {
            tracing::debug!(
                method = self.name,
                "the connection that brought the call is gone; so is its caller"
            );
        }
    }
}

/// A message to be completed.
#[derive(Debug)]
pub struct Received {
    /// The message.
    pub message: Message,
    /// The input it came to; `None` for cloud-to-device messages.
    pub input: Option<String>,
    /// Whether the node above says that it was on its way before.
    pub redelivered: bool,
    /// `None` for a message of QoS 0 or one that came settled, which nobody waits for.
    pub(crate) delivery: Option<Delivered>,
    pub(crate) answers: mpsc::Sender<Box<Answer>>,
}

impl Received {
    /// Whether the connection is gone that brought it: what is said of it reaches nobody, and it comes again.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.answers.is_closed()
    }

    /// Whether [`abandon`](Self::abandon) tells the node above anything: MQTT has no word for it.
    #[must_use]
    pub const fn can_be_abandoned(&self) -> bool {
        matches!(self.delivery, Some(Delivered::Amqp(_)))
    }

    /// Says that the message is handled: it will not come again. A message that is dropped instead comes again after the
    /// next connect.
    pub async fn complete(self) {
        self.settle(Verdict::Complete).await;
    }

    /// Gives the message back: it comes again, over AMQP soon, over MQTT after the next connect.
    pub async fn abandon(self) {
        self.settle(Verdict::Abandon).await;
    }

    /// Says that nobody can make anything of the message: it will not come again. MQTT has no word for it, and the sender then
    /// hears that it is completed.
    pub async fn reject(self) {
        self.settle(Verdict::Reject).await;
    }

    async fn settle(self, verdict: Verdict) {
        let Some(delivery) = self.delivery else { return };
        let answer = Box::new(Answer::Settle(delivery, verdict));
        if self.answers.send(answer).await.is_err() {
            tracing::debug!("the connection that brought the message is gone; it will come again");
        }
    }
}
