//! As much of a hub as the original clients need to do their work: it lets everybody in, takes every link, answers requests, and
//! notes what it was told.

use std::time::Instant;

use bytes::Bytes;
use holm_amqp::message::{BATCH_FORMAT, messages_of_batch};
use holm_amqp::performative::Attach;
use holm_amqp::{
    Acceptance, ApplicationProperties, Array, Body, Connection, Credentials, Delivery, DeliveryTag, Event, Fields,
    Limits, LinkId, Message, MessageId, Outbound, Outcome, Properties, Role, SaslCode, Symbol, Timestamp, Value,
};

/// A link that was taken.
struct Node {
    link: LinkId,
    role: Role,
    address: String,
    /// It got its message.
    served: bool,
}

/// The application behind one connection.
#[derive(Default)]
pub(crate) struct Hub {
    nodes: Vec<Node>,
    sent: u8,
    /// What it was told, a line each.
    pub(crate) notes: Vec<String>,
}

impl Hub {
    /// Does something about an event; false at the end.
    pub(crate) fn handle(&mut self, connection: &mut Connection, event: Event) -> bool {
        match event {
            Event::Authenticate { credentials, hostname } => {
                let name = match &credentials {
                    Credentials::Plain { user, .. } => format!("PLAIN as {user}"),
                    other => other.mechanism().to_string(),
                };
                self.notes
                    .push(format!("authenticate {name} at {}", shown(hostname.as_ref())));
                connection.authenticate(Instant::now(), SaslCode::Ok);
            }
            Event::Opened(open) => {
                let (frame, channel) = (open.max_frame_size, open.channel_max);
                let host = shown(open.hostname.as_ref());
                self.notes.push(format!(
                    "open at {host}, frames of {frame}, channels to {channel}, idle {:?}",
                    open.idle_time_out
                ));
            }
            Event::Begun(_) => self.notes.push("begin".into()),
            Event::Attach { link, attach } => self.attach(connection, link, &attach),
            Event::Credit { link, credit, drain } => self.credit(connection, link, credit, drain),
            Event::Delivery(delivery) => self.delivery(connection, &delivery),
            Event::Settled { outcome, .. } => self.notes.push(format!("settled {outcome:?}")),
            Event::Detached { by, closed, error, .. } => {
                self.notes.push(format!(
                    "detached by {by:?}, closed {closed}, {:?}",
                    error.map(|error| error.to_string())
                ));
            }
            Event::Ended { by, error, .. } => {
                self.notes
                    .push(format!("ended by {by:?}, {:?}", error.map(|error| error.to_string())));
            }
            Event::Closed(reason) => {
                let cause = std::error::Error::source(&reason).map(|cause| format!(": {cause}"));
                self.notes
                    .push(format!("closed: {reason}{}", cause.unwrap_or_default()));
                return false;
            }
            Event::Attached { .. } | Event::Drained(_) | Event::SaslResponse(_) => {}
        }
        true
    }

    fn attach(&mut self, connection: &mut Connection, link: LinkId, attach: &Attach) {
        let source = attach.source.as_ref().and_then(|source| source.address.as_ref());
        let target = attach.target.as_ref().and_then(|target| target.address.as_ref());
        let filter = attach.source.iter().flat_map(|source| source.filter.iter());
        let filter: Vec<String> = filter.map(|(name, value)| format!("{name} = {value:?}")).collect();
        let properties: Vec<&str> = attach.properties.iter().map(|(name, _)| name.as_str()).collect();
        self.notes.push(format!(
            "attach {:?} from {} to {}, settles {:?} and {:?}, properties {properties:?}, filter {filter:?}",
            attach.role,
            shown(source),
            shown(target),
            attach.snd_settle_mode,
            attach.rcv_settle_mode,
        ));
        let address = match attach.role {
            Role::Sender => target,
            Role::Receiver => source,
        };
        self.nodes.push(Node {
            link,
            role: attach.role,
            address: address.map(ToString::to_string).unwrap_or_default(),
            served: false,
        });
        assert!(connection.accept_link(link, Acceptance::of(attach)), "it waits");
    }

    /// Something for each receiver of messages and events.
    fn credit(&mut self, connection: &mut Connection, link: LinkId, credit: u32, drain: bool) {
        let address = self.address(link);
        self.notes.push(format!("credit {credit} on {address}, drain {drain}"));
        let message = if address.ends_with("/messages/devicebound") {
            Message {
                properties: Some(Box::new(Properties {
                    message_id: Some("c2d-1".into()),
                    to: Some("/devices/dev1/messages/devicebound".into()),
                    ..Properties::default()
                })),
                ..Message::of_data("to the device")
            }
        } else if address.contains("/Partitions/") {
            let annotations = Fields::new()
                .with(Symbol::from_static("x-opt-sequence-number"), 0i64)
                .with(Symbol::from_static("x-opt-offset"), "0")
                .with(Symbol::from_static("x-opt-enqueued-time"), Timestamp(1_700_000_000_000));
            Message {
                message_annotations: annotations,
                ..Message::of_data("an event")
            }
        } else if address.to_lowercase().ends_with("/feedback") {
            let feedback = r#"[{"originalMessageId":"m-1","deviceId":"dev1","statusCode":"Success"}]"#;
            Message {
                properties: Some(Box::new(Properties {
                    user_id: Some(Bytes::from_static(b"hub")),
                    content_type: Some(Symbol::from_static("application/vnd.microsoft.iothub.feedback.json")),
                    ..Properties::default()
                })),
                ..Message::of_data(feedback)
            }
        } else {
            return;
        };
        let node = self.nodes.iter_mut().find(|node| node.link == link && !node.served);
        if let Some(node) = node {
            node.served = true;
            self.send(connection, link, &message);
        }
    }

    fn send(&mut self, connection: &mut Connection, link: LinkId, message: &Message) {
        self.sent += 1;
        let delivery = Outbound {
            tag: DeliveryTag::from([self.sent; 16]),
            format: 0,
            payload: message.to_bytes(),
            settled: false,
        };
        if let Err(error) = connection.send_later(link, &delivery) {
            self.notes.push(format!("not sent: {error}"));
        }
    }

    fn delivery(&mut self, connection: &mut Connection, delivery: &Delivery) {
        let address = self.address(delivery.link);
        let Delivery {
            tag, format, payload, ..
        } = delivery;
        let message = Message::decode(payload, Limits::default()).unwrap();
        let tag = tag.bytes().len();
        self.notes.push(format!(
            "delivery to {address}, tag of {tag} bytes, format {format:#x}: {}",
            describe(&message)
        ));
        if *format == BATCH_FORMAT {
            for inner in messages_of_batch(&message, Limits::default()).unwrap() {
                self.notes.push(format!("  of a batch: {}", describe(&inner.unwrap())));
            }
        }
        if let Some(id) = delivery.id {
            connection.settle(id, Outcome::Accepted);
        }
        let answer = if address == "$cbs" {
            Some(with_status(
                Message::of_value(Value::Null),
                "status-code",
                "status-description",
            ))
        } else if address.ends_with("$management") {
            Some(with_status(
                Message::of_value(event_hub()),
                "status-code",
                "status-description",
            ))
        } else if address.ends_with("/twin") {
            let annotations = Fields::new().with(Symbol::from_static("status"), 200i32);
            let twin = r#"{"desired":{"$version":1},"reported":{"$version":1}}"#;
            Some(Message {
                message_annotations: annotations,
                ..Message::of_data(twin)
            })
        } else {
            None
        };
        if let Some(answer) = answer {
            self.answer(connection, &address, &message, answer);
        }
    }

    /// Answers a request on the receiving link of its node, with the id as it came.
    fn answer(&mut self, connection: &mut Connection, address: &str, request: &Message, answer: Message) {
        let receives = |node: &&Node| {
            node.role == Role::Receiver && node.address.trim_end_matches('/') == address.trim_end_matches('/')
        };
        let Some(link) = self.nodes.iter().find(receives).map(|node| node.link) else {
            self.notes.push(format!("nobody receives from {address}"));
            return;
        };
        let asked = request.properties.as_ref();
        let correlation_id = asked.and_then(|asked| asked.message_id.clone().or_else(|| asked.correlation_id.clone()));
        let answer = Message {
            properties: Some(Box::new(Properties {
                correlation_id,
                ..Properties::default()
            })),
            ..answer
        };
        self.send(connection, link, &answer);
    }

    fn address(&self, link: LinkId) -> String {
        let node = self.nodes.iter().find(|node| node.link == link);
        node.map(|node| node.address.clone()).unwrap_or_default()
    }
}

fn with_status(message: Message, code: &'static str, description: &'static str) -> Message {
    Message {
        application_properties: ApplicationProperties::new()
            .with(code.into(), 200i32)
            .with(description.into(), "OK"),
        ..message
    }
}

fn event_hub() -> Value {
    Value::Map(vec![
        ("type".into(), "com.microsoft:eventhub".into()),
        ("name".into(), "hub".into()),
        ("created_at".into(), Timestamp(1_700_000_000_000).into()),
        ("partition_count".into(), 1i32.into()),
        ("partition_ids".into(), Array::of_strings(["0".into()]).into()),
    ])
}

/// What a message says, without what differs each time.
fn describe(message: &Message) -> String {
    let id = message
        .properties
        .as_ref()
        .and_then(|properties| properties.message_id.as_ref());
    let id = match id {
        None => "none",
        Some(MessageId::Ulong(_)) => "ulong",
        Some(MessageId::Uuid(_)) => "uuid",
        Some(MessageId::Binary(_)) => "binary",
        Some(MessageId::String(_)) => "string",
    };
    let names = |map: &Fields| map.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>();
    let application: Vec<&str> = message
        .application_properties
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    let body = match &message.body {
        Body::Data(sections) => {
            let bytes: Vec<Bytes> = sections
                .iter()
                .map(|section| section.slice(..section.len().min(16)))
                .collect();
            format!("data {bytes:?}")
        }
        Body::Value(Value::String(text)) => format!("a string of {} bytes", text.len()),
        other => format!("{other:?}"),
    };
    let annotations = names(&message.message_annotations);
    format!("message id {id}, annotations {annotations:?}, application properties {application:?}, body {body}")
}

fn shown(text: Option<&holm_amqp::Text>) -> String {
    text.map_or_else(|| "nothing".into(), |text| format!("`{text}`"))
}
