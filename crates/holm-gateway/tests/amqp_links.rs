//! Links of devices and back ends on one connection: when they end, what their peers are told, and what waits for room.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod support;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use holm_amqp::message::{BATCH_FORMAT, Batch};
use holm_amqp::performative::{Secret, SenderSettleMode};
use holm_amqp::{
    AmqpError, Closed, Config, Credentials, Delivery, Event, LinkId, Login, Message, NewLink, Outbound, Outcome,
    SaslCode, SessionId, condition,
};
use holm_gateway::{Profile, Settlement, Subscriptions};
use holm_model::Timestamp;
use holm_model::method::MethodRequest;
use holm_net::clock::instant;
use holm_net::{Connection, Peer};
use support::{Fixture, PATIENCE, POLICY_TOKEN};
use tokio::io::DuplexStream;

/// For how long a token is honoured behind its end.
const SKEW: i64 = 300_000;

struct Client {
    connection: Connection<holm_amqp::Connection, DuplexStream>,
    session: SessionId,
}

impl Client {
    /// Logs in over a pipe that holds so many bytes.
    async fn log_in(fixture: &Fixture, user: &'static str, pipe: usize) -> Self {
        Self::log_in_by(fixture, (user, "good"), pipe).await
    }

    async fn log_in_by(fixture: &Fixture, login: (&'static str, &str), pipe: usize) -> Self {
        let (mut connection, answer) = Self::try_log_in(fixture, login, pipe).await;
        assert!(matches!(answer, Event::Opened(_)), "{answer:?}");
        let session = connection.session_mut().begin().unwrap();
        Self { connection, session }
    }

    /// Logs in by a user with a password; gives what is answered.
    async fn try_log_in(
        fixture: &Fixture,
        (user, password): (&'static str, &str),
        pipe: usize,
    ) -> (Connection<holm_amqp::Connection, DuplexStream>, Event) {
        let (near, far) = tokio::io::duplex(pipe);
        let gateway = fixture.gateway.clone();
        fixture
            .scope
            .spawn(async move { gateway.serve_amqp_stream(far, Peer::default()).await });
        let credentials = Credentials::Plain {
            user: user.into(),
            password: Secret(password.as_bytes().to_vec().into()),
        };
        let login = Login {
            hostname: Some("hub.test".into()),
            credentials: Some(credentials),
            ..Login::default()
        };
        let session = holm_amqp::Connection::client(instant(), Arc::new(Config::default()), login);
        let mut connection = Connection::new(session, near);
        let answer = tokio::time::timeout(PATIENCE, connection.next_event()).await;
        (connection, answer.expect("an answer"))
    }

    async fn event(&mut self) -> Event {
        // More than any deadline of a node, for tests that have a clock of their own.
        let event = tokio::time::timeout(PATIENCE * 10, self.connection.next_event()).await;
        event.expect("something happens")
    }

    async fn attach(&mut self, new: NewLink) -> LinkId {
        let link = self.connection.session_mut().attach(self.session, new).unwrap();
        loop {
            match self.event().await {
                Event::Attached { link: taken, .. } if taken == link => return link,
                Event::Detached { error, .. } => panic!("the link was refused: {error:?}"),
                _ => {}
            }
        }
    }

    async fn detached(&mut self) -> AmqpError {
        loop {
            if let Event::Detached { error, .. } = self.event().await {
                return *error.expect("a reason");
            }
        }
    }

    async fn delivery(&mut self) -> Delivery {
        loop {
            if let Event::Delivery(delivery) = self.event().await {
                return delivery;
            }
        }
    }
}

#[tokio::test]
async fn a_link_of_a_back_end_is_detached_when_its_token_has_ended() {
    let fixture = Fixture::hub();
    let ends = Timestamp::from(SystemTime::now()).plus_millis(500 - SKEW);
    *fixture.node.policies.lock().unwrap() = Some(ends);
    let mut service = Client::log_in(&fixture, "service@sas.root.hub", 64 * 1024).await;
    service.attach(NewLink::sender("c2d", "/messages/devicebound")).await;

    let error = service.detached().await;

    assert_eq!(error.condition, condition::UNAUTHORIZED_ACCESS);
    assert!(Timestamp::from(SystemTime::now()) >= ends.plus_millis(SKEW));
}

#[tokio::test]
async fn the_links_of_a_back_end_are_detached_when_its_policy_opens_them_no_more() {
    let fixture = Fixture::hub();
    let ends = Timestamp::from(SystemTime::now()).plus_millis(3_600_000);
    fixture.node.set_policies(Some(ends));
    let mut service = Client::log_in_by(&fixture, ("service@sas.root.hub", POLICY_TOKEN), 64 * 1024).await;
    service.attach(NewLink::sender("c2d", "/messages/devicebound")).await;

    // Another policy: this one opens them still, or attaching would meet an end.
    fixture.node.set_policies(Some(ends));
    service
        .attach(NewLink::sender("more-c2d", "/messages/devicebound"))
        .await;
    fixture.node.set_policies(None);
    let errors = [service.detached().await, service.detached().await];
    let late = NewLink::sender("late", "/messages/devicebound");
    service.connection.session_mut().attach(service.session, late).unwrap();
    let refused = service.detached().await;

    for error in errors.iter().chain([&refused]) {
        assert_eq!(error.condition, condition::UNAUTHORIZED_ACCESS);
    }
    assert!(errors[0].to_string().contains("policy"), "{}", errors[0]);
}

#[tokio::test]
async fn devices_that_a_policy_has_let_in_go_with_it_and_no_others() {
    let fixture = Fixture::hub();
    let ends = Timestamp::from(SystemTime::now()).plus_millis(3_600_000);
    fixture.node.set_policies(Some(ends));
    let telemetry = |device: &str| NewLink::sender(device, format!("/devices/{device}/messages/events"));
    let mut own = Client::log_in(&fixture, "dev1@sas.hub.test", 64 * 1024).await;
    own.attach(telemetry("dev1")).await;
    let mut plain = Client::log_in_by(&fixture, ("dev2@sas.hub.test", POLICY_TOKEN), 64 * 1024).await;
    plain.attach(telemetry("dev2")).await;
    let mut crowd = Client::log_in_by(&fixture, ("service@sas.root.hub", POLICY_TOKEN), 64 * 1024).await;
    crowd.attach(telemetry("dev3")).await;

    fixture.node.set_policies(Some(ends));
    crowd.attach(telemetry("dev4")).await;
    fixture.node.set_policies(None);
    let errors = [plain.detached().await, crowd.detached().await, crowd.detached().await];
    fixture.node.until(|state| state.closed == 3).await;

    for error in errors {
        assert_eq!(error.condition, condition::UNAUTHORIZED_ACCESS);
    }
    assert_eq!(fixture.directory.count(), 1);
    own.attach(NewLink::receiver("mail", "/devices/dev1/messages/devicebound", 1))
        .await;
}

#[tokio::test]
async fn a_device_whose_policy_goes_while_it_is_let_in_does_not_stay() {
    let fixture = Fixture::hub();
    // A device's own log-in is not looked at before its first link.
    let mut device = Client::log_in_by(&fixture, ("dev1@sas.hub.test", POLICY_TOKEN), 64 * 1024).await;

    let telemetry = NewLink::sender("telemetry", "/devices/dev1/messages/events");
    device
        .connection
        .session_mut()
        .attach(device.session, telemetry)
        .unwrap();
    device.detached().await;

    fixture.node.until(|state| state.closed == 1).await;
    assert_eq!(fixture.directory.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn links_of_identities_beyond_what_the_node_lets_in_are_refused_as_throttled() {
    const DEVICES: usize = 40;
    let fixture = Fixture::hub_with_logins(1);
    let ends = Timestamp::from(SystemTime::now()).plus_millis(3_600_000);
    *fixture.node.policies.lock().unwrap() = Some(ends);
    let mut crowd = Client::log_in(&fixture, "service@sas.root.hub", 64 * 1024).await;

    for number in 0..DEVICES {
        let address = format!("/devices/dev{number}/messages/events");
        let link = NewLink::sender(format!("telemetry-{number}"), address);
        crowd.connection.session_mut().attach(crowd.session, link).unwrap();
    }
    let mut refused = 0;
    let mut taken = 0;
    while refused + taken < DEVICES {
        match crowd.event().await {
            Event::Attached { .. } => taken += 1,
            Event::Detached { error, .. } => {
                let error = error.expect("a reason");
                assert_eq!(error.condition, "com.microsoft:device-container-throttled");
                refused += 1;
            }
            _ => {}
        }
    }

    // A burst of two, and ten that wait.
    assert_eq!((taken, refused), (12, DEVICES - 12));
}

#[tokio::test]
async fn a_batch_of_which_one_message_was_not_stored_is_not_accepted() {
    let fixture = Fixture::hub();
    *fixture.node.lost.lock().unwrap() = Some(1);
    let mut device = Client::log_in(&fixture, "dev1@sas.hub.test", 64 * 1024).await;
    let link = device
        .attach(NewLink::sender("telemetry", "/devices/dev1/messages/events"))
        .await;
    let mut batch = Batch::new(&Message::default(), 64 * 1024);
    for body in ["a", "b"] {
        assert!(batch.try_push(&Message::of_data(body)));
    }
    let delivery = Outbound {
        tag: 1u64.into(),
        format: BATCH_FORMAT,
        payload: batch.into_bytes(),
        settled: false,
    };

    while !device.connection.session().can_send(link) {
        device.event().await;
    }
    device.connection.session_mut().send(link, &delivery).unwrap();

    let outcome = loop {
        if let Event::Settled { outcome, .. } = device.event().await {
            break outcome;
        }
    };
    assert!(matches!(outcome, Some(Outcome::Rejected(_))), "{outcome:?}");
    assert_eq!(device.detached().await.condition, condition::INTERNAL_ERROR);
}

#[tokio::test]
async fn messages_that_found_no_room_follow_when_there_is_room_though_the_client_says_nothing() {
    const COUNT: u64 = 12;
    let fixture = Fixture::hub();
    let mut device = Client::log_in(&fixture, "dev1@sas.hub.test", 4 * 1024).await;
    let link = device
        .attach(NewLink::receiver("c2d", "/devices/dev1/messages/devicebound", 0))
        .await;
    device.connection.session_mut().grant(link, 100);
    for lease in 0..COUNT {
        let message = holm_model::Message::new(vec![b'x'; 60 * 1024]);
        fixture.node.put(lease, None, message);
    }
    // More than may wait for a client that does not read.
    let mut count = 0;
    device.delivery().await;
    count += 1;
    fixture.node.until(|state| state.leased.len() == 12).await;

    while count < COUNT {
        tokio::time::timeout(Duration::from_secs(10), device.delivery())
            .await
            .expect("the others come too");
        count += 1;
    }

    assert!(fixture.node.lock().settled.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_not_settled_in_time_ends_its_link_and_waits_again() {
    let fixture = Fixture::hub();
    let mut device = Client::log_in(&fixture, "dev1@sas.hub.test", 64 * 1024).await;
    let link = device
        .attach(NewLink::receiver("c2d", "/devices/dev1/messages/devicebound", 0))
        .await;
    device.connection.session_mut().grant(link, 10);
    fixture.node.put(1, None, holm_model::Message::new("x"));
    let began = instant();

    device.delivery().await;
    let error = device.detached().await;

    assert!(instant() - began >= Profile::hub().acknowledge_deadline);
    assert_eq!(error.condition, condition::DETACH_FORCED);
    assert_eq!(fixture.node.lock().settled, [(1, Settlement::Release)]);
}

#[tokio::test]
async fn a_client_that_asks_for_settled_messages_gets_each_once_and_settles_none() {
    let fixture = Fixture::hub();
    let mut device = Client::log_in(&fixture, "dev1@sas.hub.test", 64 * 1024).await;
    let at_most_once = NewLink {
        snd_settle_mode: SenderSettleMode::Settled,
        ..NewLink::receiver("c2d", "/devices/dev1/messages/devicebound", 0)
    };
    let link = device.attach(at_most_once).await;
    device.connection.session_mut().grant(link, 10);
    fixture.node.put(1, None, holm_model::Message::new("x"));
    fixture.node.put(2, None, holm_model::Message::new("y"));

    let deliveries = [device.delivery().await, device.delivery().await];

    assert_eq!(deliveries.map(|delivery| delivery.id), [None, None]);
    let complete = [(1, Settlement::Complete), (2, Settlement::Complete)];
    fixture.node.until(|state| state.settled == complete).await;
    assert!(fixture.node.lock().leased.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_link_was_ended_listens_on_what_it_has_left() {
    let fixture = Fixture::hub();
    let mut device = Client::log_in(&fixture, "dev1@sas.hub.test", 64 * 1024).await;
    device
        .attach(NewLink::receiver("methods", "/devices/dev1/methods/devicebound", 0))
        .await;
    let mailbox = device
        .attach(NewLink::receiver("c2d", "/devices/dev1/messages/devicebound", 0))
        .await;
    let methods = Subscriptions::NONE.with(Subscriptions::METHODS);
    let both = methods.with(Subscriptions::CLOUD_TO_DEVICE);
    fixture.node.until(|state| state.listens == both).await;
    device.connection.session_mut().grant(mailbox, 10);
    fixture.node.put(1, None, holm_model::Message::new("x"));

    // It is not settled.
    device.delivery().await;
    device.detached().await;

    fixture.node.until(|state| state.listens == methods).await;
    assert_eq!(fixture.node.lock().closed, 0);
}

#[tokio::test]
async fn a_policy_logs_in_by_a_token_of_its_own_and_by_no_other() {
    let fixture = Fixture::hub();
    let ends = Timestamp::from(SystemTime::now()).plus_millis(3_600_000);
    *fixture.node.policies.lock().unwrap() = Some(ends);
    let token = |signer: &str| {
        format!(
            "SharedAccessSignature sr=hub.test&sig=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA%3D&se=1800000000{signer}"
        )
    };
    let answer = async |token: String| {
        let login = ("service@sas.root.hub", token.as_str());
        Client::try_log_in(&fixture, login, 4096).await.1
    };

    let own = answer(token("&skn=service")).await;
    let of_another = answer(token("&skn=iothubowner")).await;
    let of_none = answer(token("")).await;

    assert!(matches!(own, Event::Opened(_)), "{own:?}");
    for refused in [of_another, of_none] {
        assert!(
            matches!(refused, Event::Closed(Closed::Refused(SaslCode::Auth))),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn messages_to_devices_whose_sender_wants_no_outcome_are_bounded_over_all_links() {
    const LINKS: usize = 20;
    const EACH: usize = 100;
    let fixture = Fixture::hub();
    let ends = Timestamp::from(SystemTime::now()).plus_millis(3_600_000);
    *fixture.node.policies.lock().unwrap() = Some(ends);
    let (room, has_room) = tokio::sync::watch::channel(false);
    *fixture.node.room.lock().unwrap() = Some(has_room);
    let mut service = Client::log_in(&fixture, "service@sas.root.hub", 64 * 1024).await;
    let mut links = Vec::new();
    for number in 0..LINKS {
        let name = format!("c2d-{number}");
        links.push(service.attach(NewLink::sender(name, "/messages/devicebound")).await);
    }
    let properties = holm_amqp::Properties {
        to: Some("/devices/dev1/messages/devicebound".into()),
        ..holm_amqp::Properties::default()
    };
    let payload = Message {
        properties: Some(Box::new(properties)),
        ..Message::of_data("x")
    }
    .to_bytes();

    for number in 0..EACH {
        for link in &links {
            while !service.connection.session().can_send(*link) {
                service.event().await;
            }
            let delivery = Outbound {
                tag: u64::try_from(number).unwrap().into(),
                format: 0,
                payload: payload.clone(),
                settled: true,
            };
            service.connection.session_mut().send(*link, &delivery).unwrap();
        }
    }
    let sending = tokio::spawn(async move {
        loop {
            service.event().await;
        }
    });
    fixture.node.until(|state| state.sent >= 1000).await;
    // A mark behind all: whoever asks the node has been heard.
    let mut other = Client::log_in(&fixture, "service@sas.root.hub", 64 * 1024).await;
    other.attach(NewLink::sender("c2d", "/messages/devicebound")).await;
    let sent_without_room = fixture.node.lock().sent;
    room.send(true).unwrap();

    fixture.node.until(|state| state.sent == LINKS * EACH).await;
    assert_eq!(sent_without_room, 1000);
    sending.abort();
}

#[tokio::test]
async fn a_crowd_on_a_connection_that_is_full_is_told_later_and_nobody_is_sent_away() {
    const DEVICES: usize = 40;
    const EACH: usize = 2;
    let fixture = Fixture::hub();
    let ends = Timestamp::from(SystemTime::now()).plus_millis(3_600_000);
    *fixture.node.policies.lock().unwrap() = Some(ends);
    let mut crowd = Client::log_in(&fixture, "service@sas.root.hub", 4 * 1024).await;
    for number in 0..DEVICES {
        let address = format!("/devices/dev{number}/methods/devicebound");
        let link = crowd
            .attach(NewLink::receiver(format!("methods-{number}"), address, 0))
            .await;
        crowd.connection.session_mut().grant(link, 100);
    }
    // Twice what may wait on one connection.
    let request = MethodRequest::new("tell", "x".repeat(100 * 1024).into()).unwrap();

    for session in fixture.gateway.directory().all() {
        for _ in 0..EACH {
            let (session, request) = (session.clone(), request.clone());
            tokio::spawn(async move { session.invoke(request, PATIENCE).await });
        }
    }
    let mut told = 0;
    while told < DEVICES * EACH {
        match crowd.event().await {
            Event::Delivery(_) => told += 1,
            Event::Detached { error, .. } => panic!("sent away after {told} calls: {error:?}"),
            _ => {}
        }
    }

    assert_eq!(fixture.gateway.directory().count(), DEVICES);
}
