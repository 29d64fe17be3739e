//! `$cbs`: where tokens are given, one for each identity. `hub-device-protocols.md` §3.2.

use holm_amqp::condition::UNAUTHORIZED_ACCESS;
use holm_amqp::message::Properties;
use holm_amqp::{
    ApplicationProperties, Connection, Delivery, Event, Limits, LinkId, Message, MessageId, NewLink, OpenError,
    Outbound, Outcome, SessionId, Text, Token,
};
use holm_model::wire::amqp;
use tokio::sync::oneshot;

const ADDRESS: &str = "$cbs";
/// The node's kind of token.
const TOKEN_TYPE: &str = "servicebus.windows.net:sastoken";
/// Tokens that may be on their way: more than clients that connect in turns ask for at a time.
pub(super) const MOST_TOKENS: usize = WINDOW as usize;
/// Their answers.
const WINDOW: u32 = 100;

/// Why a token was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// It is of no use, now and later.
    Refused(String),
    /// It may be taken another time.
    Failed(String),
}

impl NotTaken {
    /// The connection is.
    pub(super) fn gone() -> Self {
        Self::Failed("the connection was lost before the token was taken".to_owned())
    }
}

type Answer = Result<(), NotTaken>;

/// A token that was given and is not answered.
#[derive(Debug)]
struct Asked {
    id: u64,
    /// None once the node took the request; its answer follows.
    delivery: Option<Token>,
    answer: oneshot::Sender<Answer>,
}

/// The links with `$cbs`.
#[derive(Debug)]
pub(super) struct Cbs {
    session: SessionId,
    sender: LinkId,
    receiver: LinkId,
    attached: u8,
    last: u64,
    asked: Vec<Asked>,
}

impl Cbs {
    pub(super) fn attach(connection: &mut Connection) -> Result<Self, OpenError> {
        let session = connection.begin()?;
        let sender = connection.attach(session, NewLink::sender("cbs-requests", ADDRESS))?;
        let receiver = connection.attach(session, NewLink::receiver("cbs-answers", ADDRESS, WINDOW))?;
        Ok(Self {
            session,
            sender,
            receiver,
            attached: 0,
            last: 0,
            asked: Vec::new(),
        })
    }

    pub(super) const fn session(&self) -> SessionId {
        self.session
    }

    /// Gives a token; what comes back resolves with the answer.
    pub(super) fn ask(
        &mut self,
        connection: &mut Connection,
        audience: &str,
        token: &str,
        auth_chain: Option<&str>,
    ) -> Result<oneshot::Receiver<Answer>, NotTaken> {
        self.last += 1;
        let mut about = ApplicationProperties::new()
            .with(Text::from_static("operation"), "put-token")
            .with(Text::from_static("type"), TOKEN_TYPE)
            .with(Text::from_static("name"), audience);
        if let Some(chain) = auth_chain {
            // Who signed for whom: the links say it again. A node that judges a token when it comes can't do without.
            about.push(Text::from_static(amqp::AUTH_CHAIN), chain);
        }
        let message = Message {
            properties: Some(Box::new(Properties {
                message_id: Some(MessageId::String(Text::from(self.last.to_string()))),
                to: Some(Text::from_static(ADDRESS)),
                reply_to: Some(Text::from_static("cbs")),
                ..Properties::default()
            })),
            application_properties: about,
            ..Message::of_value(token)
        };
        let request = Outbound {
            tag: self.last.into(),
            format: 0,
            payload: message.to_bytes(),
            settled: false,
        };
        let delivery = connection.send_later(self.sender, &request);
        let delivery = delivery.map_err(|error| NotTaken::Failed(format!("the token was not sent: {error}")))?;
        let (answer, answered) = oneshot::channel();
        // Whoever gave up waiting is forgotten here.
        self.asked.retain(|asked| !asked.answer.is_closed());
        self.asked.push(Asked {
            id: self.last,
            delivery,
            answer,
        });
        Ok(answered)
    }

    /// Takes what happened on the links; tells when they stand, and when they are lost.
    pub(super) fn handle(&mut self, connection: &mut Connection, event: Event) -> Option<Result<(), String>> {
        match event {
            Event::Attached { .. } => {
                self.attached += 1;
                (self.attached == 2).then_some(Ok(()))
            }
            Event::Delivery(delivery) => {
                self.answered(connection, &delivery);
                None
            }
            Event::Settled { token, outcome } => {
                self.settled(token, outcome);
                None
            }
            Event::Detached { error, .. } | Event::Ended { error, .. } => {
                let error = error.map(|error| format!(": {error}")).unwrap_or_default();
                Some(Err(format!("the node above takes no tokens any more{error}")))
            }
            _ => None,
        }
    }

    fn answered(&mut self, connection: &mut Connection, delivery: &Delivery) {
        if let Some(id) = delivery.id {
            connection.settle(id, Outcome::Accepted);
        }
        if delivery.link != self.receiver {
            return;
        }
        let message = match Message::decode(&delivery.payload, Limits::default()) {
            Ok(message) => message,
            Err(error) => return tracing::warn!(%error, "an answer of `$cbs` can't be read"),
        };
        let correlation = message.properties.and_then(|properties| properties.correlation_id);
        let id = correlation.and_then(|id| id.to_string().parse().ok());
        let Some(index) = self.asked.iter().position(|asked| Some(asked.id) == id) else {
            return tracing::debug!("an answer of `$cbs` came that nobody waits for (any more)");
        };
        let properties = &message.application_properties;
        let status = properties.get("status-code").and_then(holm_amqp::Value::as_i64);
        let description = properties
            .get("status-description")
            .and_then(holm_amqp::Value::as_str)
            .unwrap_or("without a reason");
        let told = match status {
            Some(200..=299) => Ok(()),
            Some(status @ (401 | 403 | 404)) => Err(NotTaken::Refused(format!(
                "the token is refused with status {status}: {description}"
            ))),
            Some(status) => Err(NotTaken::Failed(format!(
                "the token is not taken, with status {status}: {description}"
            ))),
            None => Err(NotTaken::Failed("an answer of `$cbs` has no status".to_owned())),
        };
        self.asked.swap_remove(index).tell(told);
    }

    /// A node may refuse the request instead of answering it.
    fn settled(&mut self, token: Token, outcome: Option<Outcome>) {
        let Some(index) = self.asked.iter().position(|asked| asked.delivery == Some(token)) else {
            return;
        };
        let told = match outcome {
            Some(Outcome::Rejected(Some(error))) if error.condition.as_str() == UNAUTHORIZED_ACCESS => {
                NotTaken::Refused(format!("the token is refused: {error}"))
            }
            Some(Outcome::Rejected(Some(error))) => NotTaken::Failed(format!("the token is not taken: {error}")),
            Some(Outcome::Rejected(None) | Outcome::Released | Outcome::Modified(_)) => {
                NotTaken::Failed("the token is not taken".to_owned())
            }
            Some(Outcome::Accepted) | None => {
                if let Some(asked) = self.asked.get_mut(index) {
                    asked.delivery = None;
                }
                return;
            }
        };
        self.asked.swap_remove(index).tell(Err(told));
    }
}

impl Asked {
    fn tell(self, answer: Answer) {
        if self.answer.send(answer).is_err() {
            tracing::trace!("nobody waits for a token any more");
        }
    }
}
