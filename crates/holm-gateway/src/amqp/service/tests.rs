//! Service links between two connections joined by byte pipes, over a node of this file.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use holm_amqp::performative::Modified;
use holm_amqp::testing::Pair;
use holm_amqp::{
    AmqpError, ApplicationProperties, Body, Config, DeliveryTag, Event, Limits, LinkId, Login, Message, NewLink,
    Outbound, Outcome, Properties, SessionId, Symbol, Value, condition,
};
use holm_model::error::{ErrorCode, ServiceError};
use holm_model::{Identity, Timestamp};

use super::ServiceLinks;
use crate::backend::{Refusal, Settlement};
use crate::service::{
    EventHub, EventPosition, Mark, Notice, NoticeKind, NoticeReader, PartitionBounds, PartitionReader,
    PartitionRequest, ReadRefusal, Service, StoredEvent,
};

const EVENT_HUB: &str = "eh";
/// Opens everything.
const TOKEN: &str = "good";
/// When [`TOKEN`] ends.
const TOKEN_ENDS: Timestamp = Timestamp::from_unix_seconds(1_000);

/// What the tests look at of the node.
#[derive(Debug, Default)]
struct State {
    sent: Vec<(Identity, holm_model::Message)>,
    notices: VecDeque<Notice>,
    settled: Vec<([u8; 16], Settlement)>,
    readers_dropped: usize,
    events: Vec<StoredEvent>,
    requests: Vec<PartitionRequest>,
    is_stolen: bool,
    /// Later ends of other tokens.
    tokens: BTreeMap<String, Timestamp>,
}

#[derive(Clone, Debug, Default)]
struct Node(Arc<Mutex<State>>);

struct Reader {
    node: Node,
    next: usize,
}

struct Notices(Node);

impl Drop for Notices {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().readers_dropped += 1;
    }
}

impl NoticeReader for Notices {
    async fn receive(&self, waits: bool) -> Result<Option<Notice>, Refusal> {
        let next = self.0.0.lock().unwrap().notices.pop_front();
        match next {
            None if waits => std::future::pending().await,
            next => Ok(next),
        }
    }

    fn settle(&self, lease: [u8; 16], settlement: Settlement) {
        self.0.0.lock().unwrap().settled.push((lease, settlement));
    }
}

impl PartitionReader for Reader {
    fn try_read(&mut self) -> Result<Vec<StoredEvent>, ReadRefusal> {
        let state = self.node.0.lock().unwrap();
        let batch: Vec<_> = state.events.iter().skip(self.next).take(10).cloned().collect();
        self.next += batch.len();
        Ok(batch)
    }

    fn poll_readable(&mut self, _: &mut Context<'_>) -> Poll<()> {
        let is_there = self.node.0.lock().unwrap().events.len() > self.next;
        if is_there { Poll::Ready(()) } else { Poll::Pending }
    }

    fn poll_end(&mut self, _: &mut Context<'_>) -> Poll<ReadRefusal> {
        if self.node.0.lock().unwrap().is_stolen {
            return Poll::Ready(ReadRefusal::Stolen(
                "a reader of owner level 2 took partition 0".to_owned(),
            ));
        }
        Poll::Pending
    }

    fn bounds(&self) -> Option<PartitionBounds> {
        self.node.partition_bounds(0)
    }
}

impl Service for Node {
    type Events = Reader;
    type Notices = Notices;

    fn permit_service(&self, token: &str, path: &str) -> Result<Timestamp, Refusal> {
        let state = self.0.lock().unwrap();
        match state.tokens.get(token) {
            Some(ends) => Ok(*ends),
            None if token == TOKEN => Ok(TOKEN_ENDS),
            None if token == path => Ok(TOKEN_ENDS),
            None => Err(Refusal::NotAuthorized(format!("`{token}` does not open `{path}`"))),
        }
    }

    fn name(&self) -> String {
        "hub".to_owned()
    }

    async fn send_to_device(&self, to: Identity, message: holm_model::Message) -> Result<u64, ServiceError> {
        if to.device.as_str() == "full" {
            return Err(ServiceError::new(
                ErrorCode::DeviceMaximumQueueDepthExceeded,
                "50 messages wait",
            ));
        }
        if to.device.as_str() != "d1" && to.device.as_str() != "a%23b" {
            return Err(ServiceError::device_not_found(&to.device));
        }
        let mut state = self.0.lock().unwrap();
        state.sent.push((to, message));
        Ok(1)
    }

    fn open_notices(&self, _: NoticeKind) -> Result<Notices, Refusal> {
        Ok(Notices(self.clone()))
    }

    fn event_hub(&self) -> Option<EventHub> {
        Some(EventHub {
            name: EVENT_HUB.to_owned(),
            created: Timestamp::from_unix_millis(5),
            partitions: 2,
            host: "hub.test".to_owned(),
            port: 5671,
        })
    }

    fn partition_bounds(&self, partition: u16) -> Option<PartitionBounds> {
        let next = self.0.lock().unwrap().events.len() as u64;
        (partition < 2).then_some(PartitionBounds {
            first: 0,
            next,
            last_enqueued: None,
        })
    }

    fn open_partition(&self, request: &PartitionRequest) -> Result<Reader, ReadRefusal> {
        self.0.lock().unwrap().requests.push(request.clone());
        if request.event_hub != EVENT_HUB || request.group != "$Default" {
            return Err(ReadRefusal::NotFound("there is no such group".to_owned()));
        }
        if request.partition >= 2 {
            return Err(ReadRefusal::NoPartition("there are 0 and 1".to_owned()));
        }
        if let EventPosition::Offset(mark) = request.position
            && mark.first() > 0
        {
            return Err(ReadRefusal::BehindEnd("the supplied offset is invalid".to_owned()));
        }
        Ok(Reader {
            node: self.clone(),
            next: 0,
        })
    }
}

/// A client and the node's end of its connection.
struct Front {
    pair: Pair,
    links: ServiceLinks<Node>,
    node: Node,
    session: SessionId,
    tokens: Vec<&'static str>,
}

impl Front {
    fn open() -> Self {
        Self::open_with(Config::default())
    }

    fn open_with(client: Config) -> Self {
        let mut pair = Pair::new(Config::default(), client, Login::default()).open();
        let session = pair.begin().0;
        let node = Node::default();
        let links = ServiceLinks::new(Arc::new(node.clone()));
        Self {
            pair,
            links,
            node,
            session,
            tokens: vec![TOKEN],
        }
    }

    /// Moves everything until nothing moves.
    fn drive(&mut self) {
        loop {
            self.pair.drive();
            let events = std::mem::take(&mut self.pair.server_events);
            let mut moved = !events.is_empty();
            for event in events {
                self.happened(event);
            }
            let server = &mut self.pair.server;
            while let Some(news) = self.links.next().now_or_never() {
                self.links.handle(server, news);
                moved = true;
            }
            if self.links.wait_for_room().iter().any(|link| server.can_send(*link)) {
                self.links.room(server);
                moved = true;
            }
            if !moved {
                return;
            }
        }
    }

    fn happened(&mut self, event: Event) {
        let server = &mut self.pair.server;
        match event {
            Event::Attach { link, attach } => {
                let address = self.links.address(&attach).expect("the address of a service link");
                self.links.attach(server, link, (&attach, &address), &self.tokens);
            }
            Event::Delivery(delivery) => self.links.delivery(server, delivery),
            Event::Credit { link, credit, drain } => self.links.credit(server, link, credit, drain),
            Event::Settled { token, outcome } => self.links.settled(token, outcome.as_ref()),
            Event::Detached { link, .. } => self.links.detached(link),
            Event::Ended { session, .. } => self.links.ended(session),
            _ => {}
        }
    }

    fn attach(&mut self, new: NewLink) -> LinkId {
        let link = self.pair.client.attach(self.session, new).unwrap();
        self.drive();
        link
    }

    /// What the client was told since it was last asked.
    fn told(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.pair.client_events)
    }

    /// With which error the client's link ended.
    fn error_of(&mut self, link: LinkId) -> AmqpError {
        let told = self.told();
        let error = told.iter().find_map(|event| match event {
            Event::Detached { link: other, error, .. } if *other == link => error.clone(),
            _ => None,
        });
        *error.unwrap_or_else(|| panic!("no error: {told:?}"))
    }

    fn send(&mut self, link: LinkId, message: &Message) -> Option<Outcome> {
        let delivery = Outbound {
            tag: DeliveryTag::from(1),
            format: 0,
            payload: message.to_bytes(),
            settled: false,
        };
        self.pair.client.send(link, &delivery).unwrap();
        self.drive();
        self.told().into_iter().find_map(|event| match event {
            Event::Settled { outcome, .. } => outcome,
            _ => None,
        })
    }

    fn received(&mut self) -> Vec<holm_amqp::Delivery> {
        let told = self.told().into_iter();
        told.filter_map(|event| match event {
            Event::Delivery(delivery) => Some(delivery),
            _ => None,
        })
        .collect()
    }

    fn put_events(&self, count: u64, body: usize) {
        let mut state = self.node.0.lock().unwrap();
        let first = state.events.len() as u64;
        for sequence in first..first + count {
            state.events.push(StoredEvent {
                sequence,
                enqueued: Timestamp::from_unix_millis(7),
                message: holm_model::Message::new(vec![b'x'; body]).encode(),
            });
        }
    }
}

fn to(device: &str) -> Message {
    Message {
        properties: Some(Box::new(Properties {
            to: Some(format!("/devices/{device}/messages/devicebound").into()),
            ..Properties::default()
        })),
        ..Message::of_data("hello")
    }
}

fn condition_of(outcome: Option<Outcome>) -> String {
    match outcome {
        Some(Outcome::Rejected(Some(error))) => error.condition.to_string(),
        other => panic!("not rejected: {other:?}"),
    }
}

fn reader(partition: u16, window: u32) -> NewLink {
    let address = format!("{EVENT_HUB}/ConsumerGroups/$Default/Partitions/{partition}");
    NewLink::receiver("reader", address, window)
}

fn sequences(deliveries: &[holm_amqp::Delivery]) -> Vec<i64> {
    let sequence = |delivery: &holm_amqp::Delivery| {
        let message = Message::decode(&delivery.payload, Limits::default()).unwrap();
        message
            .message_annotations
            .get("x-opt-sequence-number")
            .and_then(Value::as_i64)
            .unwrap()
    };
    deliveries.iter().map(sequence).collect()
}

#[test]
fn a_message_to_a_device_is_accepted_when_it_is_in_its_mailbox() {
    let mut front = Front::open();
    let sender = front.attach(NewLink::sender("s", "amqps://hub.test/messages/deviceBound"));

    let outcome = front.send(sender, &to("d1"));

    assert_eq!(outcome, Some(Outcome::Accepted));
    let sent = &front.node.0.lock().unwrap().sent;
    assert_eq!(sent.len(), 1);
    assert_eq!(
        (&sent[0].0, &sent[0].1.body[..]),
        (&"d1".parse().unwrap(), &b"hello"[..])
    );
}

#[test]
fn a_message_that_no_mailbox_takes_is_rejected_with_the_published_condition() {
    let mut front = Front::open();
    let sender = front.attach(NewLink::sender("s", "/messages/devicebound"));

    // Rows 73 and 74 of the reference.
    for (device, condition) in [
        ("nobody", condition::NOT_FOUND),
        ("full", condition::RESOURCE_LIMIT_EXCEEDED),
        ("bad id", "com.microsoft:argument-error"),
    ] {
        let outcome = front.send(sender, &to(device));
        assert_eq!(condition_of(outcome), condition, "{device}");
    }
    assert_eq!(front.send(sender, &to("d1")), Some(Outcome::Accepted));
}

#[test]
fn an_id_that_nobody_has_decoded_is_tried_as_it_stands() {
    let mut front = Front::open();
    let sender = front.attach(NewLink::sender("s", "/messages/devicebound"));

    let outcome = front.send(sender, &to("a%23b"));

    assert_eq!(outcome, Some(Outcome::Accepted));
    assert_eq!(front.node.0.lock().unwrap().sent[0].0, "a%23b".parse().unwrap());
}

#[test]
fn a_link_without_a_token_that_opens_it_is_refused() {
    for tokens in [vec![], vec!["bad"]] {
        for new in [
            NewLink::sender("s", "/messages/devicebound"),
            NewLink::receiver("f", "/messages/serviceBound/feedback", 1),
            NewLink::receiver("r", "/messages/events/$management", 1),
            NewLink::receiver("m", "$management", 1),
            reader(0, 1),
        ] {
            let mut front = Front::open();
            front.tokens = tokens.clone();

            let link = front.attach(new);

            assert_eq!(front.error_of(link).condition, condition::UNAUTHORIZED_ACCESS);
            assert!(front.links.is_empty());
        }
    }
}

#[test]
fn a_token_for_the_partition_alone_opens_it() {
    let mut front = Front::open();
    front.tokens = vec!["eh/ConsumerGroups/$Default/Partitions/0"];

    front.attach(reader(0, 1));

    assert!(!front.links.is_empty(), "{:?}", front.told());
}

#[test]
fn a_notice_is_leased_while_it_is_delivered_and_settled_by_its_outcome() {
    let outcomes = [
        (Outcome::Accepted, Settlement::Complete),
        (Outcome::Rejected(None), Settlement::Reject),
        (Outcome::Released, Settlement::Abandon),
        (Outcome::Modified(Box::<Modified>::default()), Settlement::Abandon),
    ];
    for (outcome, settlement) in outcomes {
        let mut front = Front::open();
        front.node.0.lock().unwrap().notices.push_back(notice(3));
        front.attach(NewLink::receiver("f", "/messages/serviceBound/feedback", 10));

        let received = front.received();
        let [delivery] = &received[..] else {
            panic!("one delivery: {received:?}");
        };
        assert_eq!(&delivery.tag.bytes()[..], [3; 16]);
        assert!(front.node.0.lock().unwrap().settled.is_empty());
        front.pair.client.settle(delivery.id.unwrap(), outcome);
        front.drive();

        assert_eq!(front.node.0.lock().unwrap().settled, [([3; 16], settlement)]);
    }
}

fn notice(number: u8) -> Notice {
    Notice {
        lease: [number; 16],
        enqueued: Timestamp::from_unix_millis(5),
        body: Bytes::from_static(b"[]"),
    }
}

#[test]
fn notices_are_given_out_as_far_as_there_is_credit() {
    let mut front = Front::open();
    front.node.0.lock().unwrap().notices.extend((0..5).map(notice));

    let link = front.attach(NewLink::receiver("f", "/messages/serviceBound/filenotifications", 0));
    assert!(front.received().is_empty());
    front.pair.client.grant(link, 2);
    front.drive();

    assert_eq!(front.received().len(), 2);
    assert_eq!(front.node.0.lock().unwrap().notices.len(), 3);
}

#[test]
fn a_receiver_of_notices_that_leaves_gives_back_what_it_holds() {
    let mut front = Front::open();
    front.node.0.lock().unwrap().notices.push_back(notice(1));
    let link = front.attach(NewLink::receiver("f", "/messages/serviceBound/feedback", 10));

    front.pair.client.detach(link, true, None);
    front.drive();

    assert_eq!(front.node.0.lock().unwrap().readers_dropped, 1);
    assert!(front.links.is_empty());
}

#[test]
fn a_receiver_of_notices_that_drains_gets_its_credit_back() {
    let mut front = Front::open();
    front.node.0.lock().unwrap().notices.push_back(notice(1));
    let link = front.attach(NewLink::receiver("f", "/messages/serviceBound/feedback", 10));
    assert_eq!(front.received().len(), 1);

    front.pair.client.drain(link);
    front.drive();

    assert!(front.told().contains(&Event::Drained(link)));
}

#[test]
fn the_hubs_own_address_of_its_events_is_attached_and_then_sent_on() {
    let mut front = Front::open();

    // Row 77 of the reference.
    let link = front.attach(NewLink::receiver(
        "r",
        "amqps://hub.test/messages/events/$management",
        1,
    ));

    let told = front.told();
    let [
        Event::Attached { attach, .. },
        Event::Detached {
            closed: true, error, ..
        },
    ] = &told[..]
    else {
        panic!("an attach and a detach of link {link:?}: {told:?}");
    };
    assert!(attach.source.is_some());
    let error = error.as_ref().unwrap();
    assert_eq!(error.condition, condition::LINK_REDIRECT);
    assert_eq!(
        error.info.get("address"),
        Some(&"amqps://hub.test:5671/eh/$management".into())
    );
}

fn question(reply_to: Option<&str>) -> Message {
    Message {
        properties: Some(Box::new(Properties {
            message_id: Some("q".into()),
            reply_to: reply_to.map(Into::into),
            ..Properties::default()
        })),
        application_properties: ApplicationProperties::new()
            .with("operation".into(), "READ")
            .with("type".into(), "com.microsoft:eventhub")
            .with("name".into(), EVENT_HUB),
        ..Message::default()
    }
}

#[test]
fn a_question_is_answered_where_it_says_and_else_in_its_session() {
    for (reply_to, target, other) in [
        (Some("mine"), Some("mine"), Some("other")),
        (Some("$management"), Some("$management"), None),
        (None, None, None),
    ] {
        let mut front = Front::open();
        let mut receivers = Vec::new();
        for (name, target) in [("first", target), ("second", other)] {
            let mut new = NewLink::receiver(name, "$management", 10);
            new.target = Some(Box::new(holm_amqp::performative::Target::at(target.map(Into::into))));
            receivers.push(front.attach(new));
            if other.is_none() {
                break;
            }
        }
        let sender = front.attach(NewLink::sender("ask", "$management"));
        front.told();

        let delivery = Outbound {
            tag: DeliveryTag::from(1),
            format: 0,
            payload: question(reply_to).to_bytes(),
            settled: false,
        };
        front.pair.client.send(sender, &delivery).unwrap();
        front.drive();

        let received = front.received();
        assert_eq!(received.len(), 1, "{reply_to:?}");
        assert_eq!(received[0].link, receivers[0], "{reply_to:?}");
        let answer = Message::decode(&received[0].payload, Limits::default()).unwrap();
        assert_eq!(answer.application_properties.get("status-code"), Some(&Value::Int(200)));
        assert!(matches!(answer.body, Body::Value(Value::Map(_))));
    }
}

#[test]
fn a_question_that_nobody_waits_for_is_rejected() {
    let mut front = Front::open();
    let sender = front.attach(NewLink::sender("ask", "$management"));

    let outcome = front.send(sender, &question(None));

    assert_eq!(condition_of(outcome), condition::PRECONDITION_FAILED);
}

#[test]
fn events_come_in_order_and_settled_as_far_as_there_is_credit() {
    let mut front = Front::open();
    front.put_events(25, 10);

    let link = front.attach(reader(0, 0));
    front.pair.client.grant(link, 12);
    front.drive();
    let first = front.received();
    front.pair.client.grant(link, 100);
    front.drive();
    let rest = front.received();
    front.put_events(1, 10);
    front.drive();
    let new = front.received();

    assert_eq!(sequences(&first), (0..12).collect::<Vec<_>>());
    assert_eq!(sequences(&rest), (12..25).collect::<Vec<_>>());
    assert_eq!(sequences(&new), [25]);
    assert!(first.iter().all(|delivery| delivery.id.is_none()));
}

#[test]
fn a_reader_that_drains_gets_what_there_is_and_its_credit_back() {
    let mut front = Front::open();
    front.put_events(3, 10);
    let link = front.attach(reader(0, 0));

    front.pair.client.grant(link, 10);
    front.pair.client.drain(link);
    front.drive();

    let told = front.told();
    let deliveries = told.iter().filter(|event| matches!(event, Event::Delivery(_))).count();
    assert_eq!(deliveries, 3);
    assert!(told.contains(&Event::Drained(link)), "{told:?}");
    front.put_events(1, 10);
    front.drive();
    assert!(front.received().is_empty());
}

#[test]
fn a_reader_that_does_not_read_is_sent_no_more_than_the_engine_queues() {
    let mut front = Front::open();
    front.put_events(1000, 10_000);
    let link = front.attach(reader(0, 0));
    front.pair.client.grant(link, 1000);
    // Only the client's words go over: what the node has to say stays where it is.
    let mut bytes = bytes::BytesMut::new();
    while front.pair.client.poll_transmit(&mut bytes) {}
    front.pair.server.handle_bytes(front.pair.now, &bytes);
    while let Some(event) = front.pair.server.poll_event() {
        front.happened(event);
    }

    assert_eq!(front.links.wait_for_room().len(), 1);
    let mut sent = bytes::BytesMut::new();
    while front.pair.server.poll_transmit(&mut sent) {}
    assert!(sent.len() < 1024 * 1024, "{}", sent.len());
    front.pair.to_client = sent;
    front.drive();
    assert_eq!(front.received().len(), 1000);
}

#[test]
fn a_reader_that_closes_its_window_is_not_asked_for_room_over_and_over() {
    let mut front = Front::open_with(Config {
        incoming_window: 4,
        ..Config::default()
    });
    front.put_events(200, 10_000);
    let link = front.attach(reader(0, 0));
    front.pair.client.grant(link, 1000);
    let mut bytes = bytes::BytesMut::new();
    while front.pair.client.poll_transmit(&mut bytes) {}
    front.pair.server.handle_bytes(front.pair.now, &bytes);
    while let Some(event) = front.pair.server.poll_event() {
        front.happened(event);
    }

    // Everything that may be written is, and the window is used up.
    let mut sent = bytes::BytesMut::new();
    while front.pair.server.poll_transmit(&mut sent) {}
    let waiting = front.links.wait_for_room();
    assert_eq!(waiting.len(), 1);
    assert!(!front.pair.server.can_send(waiting[0]));

    front.pair.to_client = sent;
    front.drive();
    assert_eq!(front.received().len(), 200);
}

#[test]
fn the_owner_level_position_and_name_of_a_reader_reach_the_node() {
    let mut front = Front::open();
    let mut new = reader(1, 1);
    let selector = Symbol::from_static("apache.org:selector-filter:string");
    if let Some(source) = &mut new.source {
        let text = "amqp.annotation.x-opt-sequence-number > '41'";
        source
            .filter
            .push(selector.clone(), Value::described(selector.into(), text.into()));
    }
    new.properties.push(Symbol::from_static("com.microsoft:epoch"), 3i64);
    new.properties
        .push(Symbol::from_static("com.microsoft:receiver-name"), "me");
    let asked = new.source.clone().unwrap().filter;

    front.attach(new);

    let told = front.told();
    let Some(Event::Attached { attach, .. }) = told.first() else {
        panic!("an attach: {told:?}");
    };
    // Clients look for their filter in the answer.
    assert_eq!(attach.source.as_ref().unwrap().filter, asked);
    assert_eq!(
        attach.snd_settle_mode,
        holm_amqp::performative::SenderSettleMode::Settled
    );
    assert_eq!(
        front.node.0.lock().unwrap().requests,
        [PartitionRequest {
            event_hub: EVENT_HUB.to_owned(),
            group: "$Default".to_owned(),
            partition: 1,
            position: EventPosition::Sequence(Mark {
                number: 41,
                inclusive: false,
            }),
            owner_level: Some(3),
            reader: "me".to_owned(),
        }]
    );
}

#[test]
fn a_reader_that_would_begin_behind_the_end_is_refused_so_that_it_does_not_try_again() {
    let mut front = Front::open();
    let mut new = reader(0, 1);
    let selector = Symbol::from_static("apache.org:selector-filter:string");
    if let Some(source) = &mut new.source {
        let text = "amqp.annotation.x-opt-offset > '7'";
        source
            .filter
            .push(selector.clone(), Value::described(selector.into(), text.into()));
    }

    let link = front.attach(new);

    assert_eq!(front.error_of(link).condition, "com.microsoft:argument-error");
    assert!(front.links.is_empty());
}

#[test]
fn a_partition_that_there_is_not_is_refused_by_what_is_wrong() {
    for (address, condition) in [
        (
            "eh/ConsumerGroups/$Default/Partitions/9",
            "com.microsoft:argument-out-of-range",
        ),
        (
            "eh/ConsumerGroups/$Default/Partitions/x",
            "com.microsoft:argument-out-of-range",
        ),
        ("eh/ConsumerGroups/other/Partitions/0", condition::NOT_FOUND),
        ("he/ConsumerGroups/$Default/Partitions/0", condition::NOT_FOUND),
        ("he/$management", condition::NOT_FOUND),
    ] {
        let mut front = Front::open();

        let link = front.attach(NewLink::receiver("r", address, 1));

        assert_eq!(front.error_of(link).condition, condition, "{address}");
    }
}

#[test]
fn notices_that_find_no_room_follow_when_there_is_room() {
    let mut front = Front::open();
    for number in 0..20 {
        front.node.0.lock().unwrap().notices.push_back(Notice {
            lease: [number; 16],
            enqueued: Timestamp::from_unix_millis(7),
            body: Bytes::from(vec![b'x'; 100 * 1024]),
        });
    }

    front.attach(NewLink::receiver("f", "/messages/serviceBound/feedback", 20));

    assert_eq!(front.received().len(), 20);
    assert!(!front.links.is_empty());
    assert!(front.node.0.lock().unwrap().settled.is_empty());
}

#[test]
fn a_reader_whose_partition_was_taken_is_told_so() {
    let mut front = Front::open();
    let link = front.attach(reader(0, 10));
    front.told();

    front.node.0.lock().unwrap().is_stolen = true;
    front.drive();

    // Row 80 of the reference.
    assert_eq!(front.error_of(link).condition, condition::LINK_STOLEN);
    assert!(front.links.is_empty());
}

#[test]
fn events_are_not_taken_from_back_ends() {
    let mut front = Front::open();

    let link = front.attach(NewLink::sender("p", format!("amqps://hub.test/{EVENT_HUB}")));

    assert_eq!(front.error_of(link).condition, condition::NOT_ALLOWED);
}

#[test]
fn a_link_ends_with_its_token_unless_another_one_takes_its_place() {
    let mut front = Front::open();
    let link = front.attach(reader(0, 1));
    front.told();
    let skew = i64::try_from(crate::profile::CLOCK_SKEW.as_millis()).unwrap();
    let end = TOKEN_ENDS.plus_millis(skew);
    assert_eq!(front.links.next_end(), Some(end));

    front
        .links
        .expire(&mut front.pair.server, end.plus_millis(-1), &[TOKEN]);
    assert!(!front.links.is_empty());
    let later = TOKEN_ENDS.plus_millis(60_000);
    front.node.0.lock().unwrap().tokens.insert("newer".to_owned(), later);
    front.links.expire(&mut front.pair.server, end, &[TOKEN, "newer"]);
    assert_eq!(front.links.next_end(), Some(later.plus_millis(skew)));
    front
        .links
        .expire(&mut front.pair.server, later.plus_millis(skew), &[TOKEN, "newer"]);
    front.drive();

    assert_eq!(front.error_of(link).condition, condition::UNAUTHORIZED_ACCESS);
    assert!(front.links.is_empty());
}

#[test]
fn only_links_that_no_token_opens_any_more_end_when_policies_change() {
    let mut front = Front::open();
    let (all, one) = ("newer", "eh/ConsumerGroups/$Default/Partitions/0");
    front.node.0.lock().unwrap().tokens.insert(all.to_owned(), TOKEN_ENDS);
    front.tokens = vec![all, one];
    let stays = front.attach(reader(0, 1));
    let goes = front.attach(NewLink::sender("c2d", "/messages/devicebound"));
    front.told();
    let check = |front: &mut Front| {
        let tokens = front.tokens.clone();
        front
            .links
            .check_again(&mut front.pair.server, TOKEN_ENDS.plus_millis(-1), &tokens);
        front.drive();
    };

    check(&mut front);
    let none = front.told();
    front.node.0.lock().unwrap().tokens.clear();
    check(&mut front);
    let told = front.told();

    assert_eq!(none, []);
    let ended: Vec<_> = told
        .iter()
        .filter_map(|event| match event {
            Event::Detached { link, error, .. } => Some((*link, error.as_ref().unwrap().condition.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(ended, [(goes, condition::UNAUTHORIZED_ACCESS)]);
    assert!(!front.links.is_empty(), "{stays:?}");
}
