//! The client's half: CONNECT and its answer, pings, subscriptions, messages from the server.

use std::time::Duration;

use crate::testing::{Pair, connect, deliveries, epoch, events, subscription, telemetry, text, transmitted, wire};
use crate::{
    Closed, Config, Connack, Connect, Credentials, EncodeError, Event, Granted, Outcome, Packet, PacketId, PacketKind,
    Qos, RequestError, Session, Suback, Timer, Violation,
};

fn open_client(connect: Connect) -> Session {
    let mut client = Session::client(epoch(), Config::default(), connect).unwrap();
    let connack = Connack::Accepted { session_present: false };
    client.handle_bytes(epoch(), &wire(&[Packet::Connack(connack)]));
    events(&mut client);
    transmitted(&mut client);
    client
}

fn verdict(packets: &[Packet]) -> Violation {
    let mut client = open_client(connect());
    client.handle_bytes(epoch(), &wire(packets));
    match events(&mut client).pop() {
        Some(Event::Closed(Closed::Violation(violation))) => violation,
        other => panic!("expected a violation, got {other:?}"),
    }
}

#[test]
fn connect_is_the_first_packet() {
    let mut client = Session::client(epoch(), Config::default(), connect()).unwrap();

    assert_eq!(transmitted(&mut client), [Packet::Connect(Box::new(connect()))]);
    assert_eq!(client.subscribe(epoch(), vec![]), Err(RequestError::NotOpen));
}

#[test]
fn connect_without_a_form_on_the_wire_is_refused() {
    let password = Some(vec![0; 70_000].into());
    let credentials = Some(Credentials {
        user_name: text("u"),
        password,
    });

    let client = Session::client(
        epoch(),
        Config::default(),
        Connect {
            credentials,
            ..connect()
        },
    );

    let error = EncodeError::FieldTooLong {
        field: "password",
        bytes: 70_000,
    };
    assert_eq!(client.err(), Some(error));
}

#[test]
fn connack_that_does_not_come_within_the_deadline_closes() {
    let start = epoch();
    let config = Config {
        connect_timeout: Duration::from_secs(5),
        ..Config::default()
    };
    let mut client = Session::client(start, config, connect()).unwrap();

    client.handle_timeout(start + Duration::from_secs(5));

    assert_eq!(events(&mut client), [Event::Closed(Closed::TimedOut(Timer::Connack))]);
}

#[test]
fn idle_client_pings_at_its_keep_alive_and_both_sides_stay() {
    let mut pair = Pair::default().connected();

    pair.advance(Duration::from_secs(3600));

    assert_eq!((pair.server_closed(), pair.client_closed()), (None, None));
    assert!(pair.server.is_open() && pair.client.is_open());
}

#[test]
fn busy_client_that_hears_from_the_server_does_not_ping() {
    let mut pair = Pair::default().connected();
    for number in 0..10 {
        pair.client.publish(pair.now, &telemetry("x")).unwrap();
        pair.drive();
        let delivery = pair.server_deliveries()[number];
        pair.server.acknowledge(delivery, Outcome::Accept);
        pair.drive();
        pair.now += Duration::from_secs(50);
        pair.client.handle_timeout(pair.now);

        assert_eq!(transmitted(&mut pair.client), []);
    }
}

#[test]
fn ping_without_an_answer_closes() {
    let start = epoch();
    let mut client = open_client(connect());

    client.handle_timeout(start + Duration::from_secs(61));
    assert_eq!(transmitted(&mut client), [Packet::Pingreq]);
    client.handle_timeout(start + Duration::from_secs(92));

    assert_eq!(events(&mut client), [Event::Closed(Closed::TimedOut(Timer::Pingresp))]);
}

#[test]
fn anything_that_comes_while_a_ping_waits_keeps_a_slow_link() {
    let start = epoch();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut client = open_client(connect());
    for _ in 0..3 {
        client.publish(start, &telemetry("small")).unwrap();
    }
    client.handle_timeout(at(61));

    // Pings wait behind messages: their acknowledgements come first, one in 25 s.
    for (number, second) in [(1, 85), (2, 110), (3, 135)] {
        client.handle_bytes(at(second), &wire(&[Packet::Puback(PacketId::new(number).unwrap())]));
        client.handle_timeout(at(second + 24));
    }
    let meanwhile = events(&mut client);
    client.handle_timeout(at(135 + 31));

    assert!(
        meanwhile.iter().all(|event| matches!(event, Event::Acknowledged(_))),
        "{meanwhile:?}"
    );
    assert_eq!(events(&mut client), [Event::Closed(Closed::TimedOut(Timer::Pingresp))]);
}

#[test]
fn a_large_message_on_its_way_gets_the_time_that_a_slow_link_takes_for_it() {
    let start = epoch();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut client = open_client(connect());
    client.publish(start, &telemetry(vec![0; 120_000])).unwrap();

    client.handle_timeout(at(61));
    // 120,000 bytes at 600 a second, and the 30 s for the answer.
    client.handle_timeout(at(61 + 229));
    let meanwhile = events(&mut client);
    client.handle_timeout(at(61 + 231));

    assert_eq!(meanwhile, []);
    assert_eq!(events(&mut client), [Event::Closed(Closed::TimedOut(Timer::Pingresp))]);
}

#[test]
fn client_without_a_keep_alive_never_pings() {
    let client = open_client(Connect {
        keep_alive_seconds: 0,
        ..connect()
    });

    assert_eq!(client.poll_timeout(), None);
}

#[test]
fn subscriptions_are_answered_by_request_in_any_order() {
    let mut pair = Pair::default().connected();
    let two = vec![subscription("a", Qos::AtLeastOnce), subscription("b", Qos::AtMostOnce)];
    let first = pair.client.subscribe(pair.now, two).unwrap();
    let second = pair.client.unsubscribe(pair.now, vec![text("c")]).unwrap();
    pair.drive();
    let [
        Event::Subscribe {
            request: asked,
            filters,
        },
        Event::Unsubscribe { request: left, .. },
    ] = &pair.server_events[..]
    else {
        panic!("two requests: {:?}", pair.server_events);
    };
    assert_eq!(filters.len(), 2);

    pair.server.unsuback(*left).unwrap();
    let granted = vec![Granted::Qos(Qos::AtLeastOnce), Granted::Failure];
    pair.server.suback(*asked, &granted).unwrap();
    pair.drive();

    let expected = [
        Event::Unsubscribed { request: second },
        Event::Subscribed {
            request: first,
            granted,
        },
    ];
    assert_eq!(pair.client_events, expected);
}

#[test]
fn too_many_requests_are_refused() {
    let mut client = open_client(connect());
    for _ in 0..16 {
        client.unsubscribe(epoch(), vec![text("a")]).unwrap();
    }

    assert_eq!(client.unsubscribe(epoch(), vec![text("a")]), Err(RequestError::TooMany));
    let twice = vec![subscription("a", Qos::ExactlyOnce)];
    assert_eq!(client.subscribe(epoch(), twice), Err(RequestError::ExactlyOnce));
}

#[test]
fn answers_that_nobody_asked_for_close() {
    let id = PacketId::new(1).unwrap();
    let suback = Suback {
        id,
        granted: vec![Granted::Failure],
    };

    assert_eq!(verdict(&[Packet::Suback(suback)]), Violation::UnaskedAnswer(id));
    assert_eq!(verdict(&[Packet::Unsuback(id)]), Violation::UnaskedAnswer(id));
    let connack = Connack::Accepted { session_present: false };
    assert_eq!(
        verdict(&[Packet::Connack(connack)]),
        Violation::Unexpected(PacketKind::Connack)
    );
    assert_eq!(verdict(&[Packet::Pingreq]), Violation::Unexpected(PacketKind::Pingreq));
}

#[test]
fn answer_with_another_number_of_codes_closes() {
    let mut client = open_client(connect());
    client
        .subscribe(epoch(), vec![subscription("a", Qos::AtMostOnce)])
        .unwrap();
    let Some(Packet::Subscribe(sent)) = transmitted(&mut client).pop() else {
        panic!("a SUBSCRIBE");
    };

    let suback = Suback {
        id: sent.id,
        granted: vec![Granted::Failure; 2],
    };
    client.handle_bytes(epoch(), &wire(&[Packet::Suback(suback)]));

    let violation = Violation::UnaskedAnswer(sent.id);
    assert_eq!(events(&mut client), [Event::Closed(Closed::Violation(violation))]);
}

#[test]
fn messages_from_the_server_are_acknowledged_by_the_application_in_order() {
    let mut pair = Pair::default().connected();
    let tokens: Vec<_> = (0..3)
        .filter_map(|_| pair.server.publish(pair.now, &telemetry("x")).unwrap())
        .collect();
    pair.drive();
    let told = deliveries(&pair.client_events);

    for index in [2, 0, 1] {
        pair.client.acknowledge(told[index], Outcome::Accept);
    }
    pair.drive();

    let expected: Vec<Event> = tokens.into_iter().map(Event::Acknowledged).collect();
    assert_eq!(pair.server_events, expected);
}

#[test]
fn closing_client_says_disconnect() {
    let mut pair = Pair::default().connected();

    pair.client.close();
    pair.drive();

    assert_eq!(pair.client_closed(), Some(&Closed::ByApplication));
    assert_eq!(pair.server_closed(), Some(&Closed::Disconnected));
}
