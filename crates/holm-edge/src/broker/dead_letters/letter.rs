//! A dead letter as it is stored and as it is shown.
//!
//! ```text
//!   record of the lane `dead-letters`:   length of heading (4 bytes, little endian) │ heading (JSON) │ payload as it was
//! ```
//!
//! The payload is the message as `holm-model` encodes it, byte for byte as it was stored before, so that it can be sent again.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use holm_model::{Message, ModuleId, Timestamp};
use holm_query::Sink;
use holm_queue::Record;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Burial;

/// Why a message came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// Its sender is no identity any more, and nobody else may send it.
    UnknownSender,
    /// It has no form in the protocol of the node above.
    Unsendable,
    /// Its bytes are whole and no message: a newer release wrote them.
    Undecodable,
    /// The receiving module rejected it.
    Rejected,
    /// The quota was reached, and it was the oldest of the least urgent.
    Quota,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownSender => "unknownSender",
            Self::Unsendable => "unsendable",
            Self::Undecodable => "undecodable",
            Self::Rejected => "rejected",
            Self::Quota => "quota",
        })
    }
}

/// What stands before the payload.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Heading {
    reason: Reason,
    detail: String,
    /// `None`: upstream.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    module: Option<ModuleId>,
    #[serde(skip_serializing_if = "String::is_empty", default)]
    input: String,
    pub(super) priority: u32,
    enqueued_at: u64,
    /// 0: never.
    expires_at: u64,
}

impl Heading {
    pub(super) fn of(burial: &Burial) -> Self {
        let (module, input) = match &burial.endpoint {
            Sink::Upstream => (None, String::new()),
            Sink::Module { module, input } => (Some(module.clone()), input.clone()),
        };
        Self {
            reason: burial.reason,
            detail: burial.detail.clone(),
            module,
            input,
            priority: burial.priority,
            enqueued_at: burial.record.enqueued_at,
            expires_at: burial.record.expires_at,
        }
    }

    /// The heading and the payload in one.
    pub(super) fn join(&self, payload: &[u8]) -> Bytes {
        let heading = serde_json::to_vec(self).expect("text and numbers have a form in JSON");
        let mut joined = BytesMut::with_capacity(4 + heading.len() + payload.len());
        joined.put_u32_le(u32::try_from(heading.len()).expect("a heading is short"));
        joined.put_slice(&heading);
        joined.put_slice(payload);
        joined.freeze()
    }

    fn split(joined: &Bytes) -> Option<(Self, Bytes)> {
        let length = joined.get(..4)?.try_into().ok()?;
        let length = usize::try_from(u32::from_le_bytes(length)).ok()?;
        let end = length.checked_add(4)?;
        let heading = serde_json::from_slice(joined.get(4..end)?).ok()?;
        Some((heading, joined.slice(end..)))
    }
}

/// A dead letter.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Its number; never given to another.
    pub id: u64,
    /// Who sent it.
    pub sender: String,
    pub(super) heading: Heading,
    pub(super) payload: Bytes,
    buried_at: u64,
}

impl DeadLetter {
    /// Reads a record; `None` if it is none of ours.
    pub(super) fn read(record: &Record) -> Option<Self> {
        let (heading, payload) = Heading::split(&record.payload())?;
        Some(Self {
            id: record.position,
            sender: record.sender().to_owned(),
            heading,
            payload,
            buried_at: record.enqueued_at,
        })
    }

    pub(super) fn endpoint(&self) -> Sink {
        match &self.heading.module {
            None => Sink::Upstream,
            Some(module) => Sink::Module {
                module: module.clone(),
                input: self.heading.input.clone(),
            },
        }
    }

    /// When it expires if it is sent again now: it gets the time that it had; 0: never.
    pub(super) fn expiry(&self, now: u64) -> u64 {
        match self.heading.expires_at {
            0 => 0,
            at => now.saturating_add(at.saturating_sub(self.heading.enqueued_at)),
        }
    }

    pub(super) fn message(&self) -> Option<Message> {
        Message::decode(self.payload.clone()).ok()
    }

    /// What a list shows of it.
    #[must_use]
    pub fn summary(&self) -> Value {
        let endpoint = match &self.heading.module {
            None => "$upstream".to_owned(),
            Some(module) => format!("{module}/{}", self.heading.input),
        };
        json!({
            "id": self.id,
            "reason": self.heading.reason,
            "detail": self.heading.detail,
            "sender": self.sender,
            "endpoint": endpoint,
            "priority": self.heading.priority,
            "time": moment(self.buried_at),
            "enqueuedTime": moment(self.heading.enqueued_at),
            "bytes": self.payload.len(),
        })
    }

    /// All of it, with the message: `body` as text where it is text, else `bodyBase64`.
    #[must_use]
    pub fn show(&self) -> Value {
        let mut shown = self.summary();
        let Some(message) = self.message() else {
            shown["payloadBase64"] = json!(STANDARD.encode(&self.payload));
            return shown;
        };
        let system: serde_json::Map<_, _> = message
            .system
            .iter()
            .map(|(name, value)| (name.route_name().to_owned(), json!(value)))
            .collect();
        let properties: serde_json::Map<_, _> = message
            .properties
            .iter()
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
        shown["systemProperties"] = Value::Object(system);
        shown["properties"] = Value::Object(properties);
        match std::str::from_utf8(&message.body) {
            Ok(text) => shown["body"] = json!(text),
            Err(_) => shown["bodyBase64"] = json!(STANDARD.encode(&message.body)),
        }
        shown
    }
}

fn moment(millis: u64) -> Option<Timestamp> {
    Some(Timestamp::from_unix_millis(i64::try_from(millis).ok()?))
}
