//! A client on our engine that does all that a broker of another implementation should understand.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holm_amqp::message::Header;
use holm_amqp::performative::Secret;
use holm_amqp::{
    ApplicationProperties, Array, Config, Connection, Credentials, Event, Fields, Kind, Limits, LinkId, Login, Message,
    MessageId, NewLink, Outbound, Outcome, Properties, SessionId, Symbol, Timestamp, Value,
};

use crate::driver::Driver;

/// What is taken as PLAIN.
pub(crate) fn password() -> Credentials {
    Credentials::Plain {
        user: "user".into(),
        password: Secret(Bytes::from_static(b"secret")),
    }
}

/// Messages with a body of each type, and the plain ones.
pub(crate) fn any_values() -> Vec<Message> {
    let symbol = |name: &'static str| Value::Symbol(Symbol::from_static(name));
    let numbers = [1, 2, 70_000].map(Value::Int).to_vec();
    let values = [
        Value::Boolean(true),
        Value::Ubyte(7),
        Value::Ushort(700),
        Value::Uint(0),
        Value::Uint(255),
        Value::Uint(u32::MAX),
        Value::Ulong(0),
        Value::Ulong(u64::MAX),
        Value::Byte(-7),
        Value::Short(-700),
        Value::Int(-1),
        Value::Int(i32::MIN),
        Value::Long(-1),
        Value::Long(i64::MIN),
        1.5f32.into(),
        (-0.25f64).into(),
        f64::INFINITY.into(),
        Value::Decimal32([1, 2, 3, 4]),
        Value::Decimal64([8; 8]),
        Value::Decimal128([9; 16]),
        Value::Char('é'),
        Timestamp(-1).into(),
        Value::Uuid([7; 16]),
        Value::Binary(Bytes::from(vec![0xff; 300])),
        "é".repeat(200).into(),
        symbol("s"),
        Value::List(vec![1i32.into(), Value::List(vec![Value::Null, "x".into()])]),
        Value::List((0..1000).map(Value::Uint).collect()),
        Value::Map(vec![
            ("a".into(), 1u64.into()),
            (symbol("b"), Value::Map(vec![(3u64.into(), Value::Null)])),
        ]),
        Array::new(Kind::Int, None, numbers).unwrap().into(),
        Array::new(Kind::Boolean, None, vec![true.into(), false.into()])
            .unwrap()
            .into(),
        Array::new(Kind::String, Some(symbol("d")), vec!["a".into(), "b".into()])
            .unwrap()
            .into(),
        Value::described(Value::Ulong(1 << 40), "described".into()),
    ];
    values
        .into_iter()
        .map(Message::of_value)
        .chain(plain_messages())
        .collect()
}

/// Messages of bytes, with properties that every implementation keeps.
pub(crate) fn plain_messages() -> Vec<Message> {
    let ids = [MessageId::from("text"), MessageId::Ulong(5), MessageId::Uuid([5; 16])];
    let full = ids.into_iter().map(|id| Message {
        header: Some(Box::new(Header {
            durable: true,
            priority: 9,
            ttl: Some(60_000),
            first_acquirer: true,
            delivery_count: 3,
        })),
        message_annotations: Fields::new().with(Symbol::from_static("x-opt-text"), "k"),
        properties: Some(Box::new(Properties {
            message_id: Some(id.clone()),
            user_id: Some(Bytes::from_static(b"user")),
            to: Some("echo".into()),
            subject: Some("subject".into()),
            reply_to: Some("back".into()),
            correlation_id: Some(id),
            content_type: Some(Symbol::from_static("application/json")),
            content_encoding: Some(Symbol::from_static("utf-8")),
            absolute_expiry_time: Some(Timestamp(1_700_000_000_250)),
            creation_time: Some(Timestamp(1_700_000_000_500)),
            group_id: Some("group".into()),
            group_sequence: Some(7),
            reply_to_group_id: Some("group".into()),
        })),
        application_properties: ApplicationProperties::new()
            .with("text".into(), "value")
            .with("yes".into(), true),
        ..Message::of_data("with everything")
    });
    full.chain([Message::of_data(vec![7; 300_000]), Message::of_data("")])
        .collect()
}

/// Sends the messages to `echo` and compares what comes back; then tries every outcome, a refusal, a drain and an end of a session.
pub(crate) fn tell_the_story(port: u16, credentials: Option<Credentials>, messages: Vec<Message>) {
    let mut story = Story::begin(port, credentials);
    let echo = story.attach(NewLink::sender("to", "echo"));
    story.attach(NewLink::receiver("from", "echo", 10));
    for message in messages {
        assert_eq!(story.send(echo, &message), Some(Outcome::Accepted));
        assert_eq!(plain(story.receive()), plain(message));
    }
    for (node, expected) in [
        ("rejected", "rejected with `test:rejected`"),
        ("released", "released"),
        ("modified", "modified"),
    ] {
        let link = story.attach(NewLink::sender(node, node));
        let outcome = story.send(link, &Message::of_data(node));
        assert_eq!(name(outcome.as_ref()), expected);
    }
    for new in [
        NewLink::sender("no-sender", "refused"),
        NewLink::receiver("no-receiver", "refused", 1),
    ] {
        let link = story.driver.connection.attach(story.session, new).unwrap();
        let error = story.driver.wait_for("the refusal", |event| match event {
            Event::Detached { link: told, error, .. } if told == link => Some(error),
            _ => None,
        });
        assert_eq!(error.unwrap().to_string(), "amqp:not-found: no node `refused`");
    }
    story.drain_three();
    assert!(story.driver.connection.end(story.session, None), "it is there");
    story.driver.connection.close(Instant::now(), None);
    story
        .driver
        .wait_for("the end", |event| matches!(event, Event::Closed(_)).then_some(()));
}

struct Story {
    driver: Driver,
    session: SessionId,
    sent: u64,
}

impl Story {
    fn begin(port: u16, credentials: Option<Credentials>) -> Self {
        let config = Config {
            max_frame_size: 4096,
            idle_timeout: Duration::from_secs(2),
            ..Config::default()
        };
        let login = Login {
            hostname: Some("localhost".into()),
            credentials,
            ..Login::default()
        };
        let connection = Connection::client(Instant::now(), Arc::new(config), login);
        let mut driver = Driver::new(connection, TcpStream::connect(("127.0.0.1", port)).unwrap());
        driver.wait_for("open", |event| matches!(event, Event::Opened(_)).then_some(()));
        let session = driver.connection.begin().unwrap();
        driver.wait_for("begin", |event| matches!(event, Event::Begun(_)).then_some(()));
        Self {
            driver,
            session,
            sent: 0,
        }
    }

    fn attach(&mut self, new: NewLink) -> LinkId {
        let link = self.driver.connection.attach(self.session, new).unwrap();
        self.driver.wait_for("attach", |event| match event {
            Event::Attached { link: told, .. } if told == link => Some(()),
            _ => None,
        });
        link
    }

    fn send(&mut self, link: LinkId, message: &Message) -> Option<Outcome> {
        while !self.driver.connection.can_send(link) {
            self.driver.turn();
        }
        self.sent += 1;
        let delivery = Outbound {
            tag: self.sent.into(),
            format: 0,
            payload: message.to_bytes(),
            settled: false,
        };
        let token = self.driver.connection.send(link, &delivery).unwrap().unwrap();
        loop {
            while let Some(event) = self
                .driver
                .connection
                .poll_event_where(|event| !matches!(event, Event::Delivery(_)))
            {
                match event {
                    Event::Settled { token: told, outcome } if told == token => return outcome,
                    Event::Closed(reason) => panic!("{reason:?}"),
                    _ => {}
                }
            }
            self.driver.turn();
        }
    }

    fn receive(&mut self) -> Message {
        let delivery = self.driver.wait_for("the echo", |event| match event {
            Event::Delivery(delivery) => Some(delivery),
            _ => None,
        });
        if let Some(id) = delivery.id {
            assert!(self.driver.connection.settle(id, Outcome::Accepted), "it waits");
        }
        Message::decode(&delivery.payload, Limits::default()).unwrap()
    }

    fn drain_three(&mut self) {
        let three = self.attach(NewLink::receiver("three", "three", 0));
        assert!(self.driver.connection.grant(three, 10) && self.driver.connection.drain(three));
        for _ in 0..3 {
            self.receive();
        }
        self.driver.wait_for("the end of the drain", |event| {
            (event == Event::Drained(three)).then_some(())
        });
    }
}

fn name(outcome: Option<&Outcome>) -> String {
    match outcome {
        Some(Outcome::Accepted) => "accepted".into(),
        Some(Outcome::Rejected(error)) => {
            format!(
                "rejected with `{}`",
                error.as_ref().map_or("", |error| error.condition.as_str())
            )
        }
        Some(Outcome::Released) => "released".into(),
        Some(Outcome::Modified(_)) => "modified".into(),
        None => "nothing".into(),
    }
}

/// Sections without content are the same as none: implementations differ in whether they write them.
fn plain(message: Message) -> Message {
    Message {
        header: message.header.filter(|header| **header != Header::default()),
        properties: message
            .properties
            .filter(|properties| **properties != Properties::default()),
        ..message
    }
}
