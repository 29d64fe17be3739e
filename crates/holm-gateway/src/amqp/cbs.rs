//! Claims-based security: tokens that come as messages to `$cbs`, and the answers.
//!
//! ```text
//!   client                                             node
//!   to $cbs: message-id 7, put-token, the token  --->  checks it
//!            correlation-id 7, status-code 200   <---  or 401 it is no good, 400 the request makes no sense, 503 can't tell now
//! ```
//!
//! The answer has the request's id, of the same type: Java casts to UUID and C reads only ulong. `status-code` is an int and for
//! success exactly 200. What the token opens is read from its `sr`: the `name` of a request is unreliable. An edge that gives the
//! token of a child, signed with its own key, says so by the application property that its links have too, `com.microsoft:auth-chain`.
//!
//! Source: `hub-device-protocols.md` §3.2, `libraries.md`, AMQP facts 5 and 6.

use holm_amqp::{
    ApplicationProperties, Body, Delivery, DeliveryId, DeliveryTag, Limits, LinkId, Message, MessageId, Outbound,
    Properties, Text, Value,
};
use holm_model::wire::amqp;

/// The address of both links.
pub(super) const NODE: &str = "$cbs";
/// Requests that may wait for their answer on one link: each has its outcome when it is answered.
pub(super) const WINDOW: u32 = 16;
/// Requests of one connection that may be checked at a time, also where their sender wants no outcome.
pub(super) const MAX_CHECKED: usize = 256;
/// The largest request: a token, and what belongs to it.
pub(super) const MAX_REQUEST: u64 = 16 * 1024;
/// Answers that may wait for the link on which they go.
const MAX_WAITING: usize = 64;

/// A request to take a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PutToken {
    /// Where the answer goes.
    pub(super) asker: Asker,
    /// The token as it came.
    pub(super) token: String,
    /// For whom, and through whom, its sender speaks, if not for itself.
    pub(super) auth_chain: Option<String>,
}

/// What the answer to a request needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) id: Option<MessageId>,
    pub(super) reply_to: Option<Text>,
    /// The link on which it came.
    pub(super) link: LinkId,
    /// The request, if its sender waits for the outcome.
    pub(super) request: Option<DeliveryId>,
}

/// How a request came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) status: i32,
    pub(super) text: String,
}

impl Verdict {
    pub(super) fn good() -> Self {
        Self {
            status: 200,
            text: "OK".to_owned(),
        }
    }

    pub(super) fn new(status: i32, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { status, text }
    }
}

/// Reads a request.
///
/// # Errors
/// The verdict on it, with whom to tell.
pub(super) fn read(delivery: &Delivery) -> Result<PutToken, Box<(Asker, Verdict)>> {
    let (link, request) = (delivery.link, delivery.id);
    let nobody = Asker {
        id: None,
        reply_to: None,
        link,
        request,
    };
    let message = Message::decode(&delivery.payload, Limits::default())
        .map_err(|error| Box::new((nobody, Verdict::new(400, format!("the request can't be read: {error}")))))?;
    let properties = message.properties.map(|properties| *properties).unwrap_or_default();
    let asker = Asker {
        id: properties.message_id,
        reply_to: properties.reply_to,
        link,
        request,
    };
    let said = |name: &str| message.application_properties.get(name).and_then(Value::as_str);
    let wrong = |text: String| Box::new((asker.clone(), Verdict::new(400, text)));
    match said("operation") {
        Some("put-token") => {}
        Some(other) => {
            return Err(wrong(format!(
                "the operation `{other}` is not known here; send `put-token`"
            )));
        }
        None => {
            return Err(wrong(
                "the application property `operation` is missing; send `put-token`".to_owned(),
            ));
        }
    }
    let kind = said("type").unwrap_or("servicebus.windows.net:sastoken");
    if kind.eq_ignore_ascii_case("jwt") || kind.eq_ignore_ascii_case("bearer") {
        let text = "bearer tokens are not accepted: no issuer is configured; send a shared access signature";
        return Err(Box::new((asker, Verdict::new(401, text))));
    }
    if !kind.eq_ignore_ascii_case("servicebus.windows.net:sastoken") {
        return Err(wrong(format!(
            "the `type` `{kind}` is not known; send `servicebus.windows.net:sastoken`"
        )));
    }
    let token = match &message.body {
        Body::Value(Value::String(text)) => Some(text.as_str().to_owned()),
        Body::Data(sections) if sections.len() == 1 => sections
            .first()
            .and_then(|bytes| String::from_utf8(bytes.to_vec()).ok()),
        _ => None,
    };
    match token {
        Some(token) => {
            let auth_chain = said(amqp::AUTH_CHAIN).map(str::to_owned);
            Ok(PutToken {
                asker,
                token,
                auth_chain,
            })
        }
        None => Err(wrong(
            "the body is not one string; send the whole token as an AMQP value".to_owned(),
        )),
    }
}

/// The links on which answers go, and answers that wait for one.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Each with its target address, by which a request may name it.
    links: Vec<(LinkId, Option<Text>)>,
    waiting: Vec<(Asker, Verdict)>,
    sent: u64,
}

impl Answers {
    /// A receiver attached; gives the answers that wait.
    pub(super) fn attached(&mut self, link: LinkId, address: Option<Text>) -> Vec<(Asker, Verdict)> {
        self.links
            .push((link, address.map(|address| address.to_owned_buffer())));
        std::mem::take(&mut self.waiting)
    }

    /// A link is gone.
    pub(super) fn detached(&mut self, link: LinkId) {
        self.links.retain(|(known, _)| *known != link);
    }

    /// The link for an answer: the one that the request names, else one of the request's session, else the first.
    pub(super) fn link_for(&self, asker: &Asker) -> Option<LinkId> {
        let named = self
            .links
            .iter()
            .find(|(_, address)| asker.reply_to.is_some() && *address == asker.reply_to);
        let near = || {
            self.links
                .iter()
                .find(|(link, _)| link.session() == asker.link.session())
        };
        named
            .or_else(near)
            .or_else(|| self.links.first())
            .map(|(link, _)| *link)
    }

    /// Keeps an answer until there is a link for it; SDKs send the token as soon as the sender is open. False when too many wait.
    pub(super) fn keep(&mut self, asker: Asker, verdict: Verdict) -> bool {
        let room = self.waiting.len() < MAX_WAITING;
        if room {
            self.waiting.push((asker, verdict));
        }
        room
    }

    /// An answer, to be sent.
    pub(super) fn outbound(&mut self, asker: Asker, verdict: Verdict) -> Outbound {
        self.sent += 1;
        let message = Message {
            properties: Some(Box::new(Properties {
                correlation_id: asker.id,
                to: asker.reply_to,
                ..Properties::default()
            })),
            application_properties: ApplicationProperties::new()
                .with(Text::from_static("status-code"), verdict.status)
                .with(Text::from_static("status-description"), verdict.text.as_str()),
            body: Body::Value(Value::Null),
            ..Message::default()
        };
        Outbound {
            tag: DeliveryTag::from(self.sent),
            format: 0,
            payload: message.to_bytes(),
            settled: true,
        }
    }
}
