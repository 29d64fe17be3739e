//! The server's half: who may come in, what is answered, when it closes. Rows are those of `hub-device-protocols.md` §8.

use std::time::Duration;

use bytes::BytesMut;

use crate::testing::{
    Pair, connect, deliveries, epoch, events, subscription, telemetry, text, transmitted, will, wire,
};
use crate::{
    AnswerError, Closed, Config, Connack, Connect, Delivery, Event, Granted, Message, Outcome, Packet, PacketId,
    PacketKind, Publish, PublishError, Qos, Refusal, Session, Suback, Subscribe, Timer, Violation,
};

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

fn publish(number: u16, dup: bool) -> Packet {
    Packet::Publish(Publish {
        topic: text("devices/dev1/messages/events/"),
        payload: number.to_string().into(),
        retain: false,
        delivery: Delivery::AtLeastOnce { id: id(number), dup },
    })
}

fn server() -> Session {
    Session::server(epoch(), Config::default())
}

/// A server whose client is in, with nothing to tell or transmit.
fn open_server(config: Config) -> Session {
    let mut server = Session::server(epoch(), config);
    server.handle_bytes(epoch(), &wire(&[Packet::Connect(Box::new(connect()))]));
    assert_eq!(events(&mut server).len(), 1);
    assert!(server.accept(epoch(), false));
    transmitted(&mut server);
    server
}

/// The verdict on packets that reach an open server.
fn verdict(packets: &[Packet]) -> Violation {
    let mut server = open_server(Config::default());
    server.handle_bytes(epoch(), &wire(packets));
    match events(&mut server).pop() {
        Some(Event::Closed(Closed::Violation(violation))) => violation,
        other => panic!("expected a violation, got {other:?}"),
    }
}

#[test]
fn connect_carries_will_and_credentials_and_is_answered_by_the_application() {
    let wanted = Connect {
        will: Some(will()),
        ..connect()
    };
    let mut pair = Pair::new(Config::default(), Config::default(), wanted.clone());

    pair.drive();
    assert_eq!(pair.server_events, [Event::Connect(Box::new(wanted))]);
    assert!(pair.server.accept(pair.now, true));
    pair.drive();

    assert_eq!(pair.client_events, [Event::Connected { session_present: true }]);
    assert!(!pair.server.accept(pair.now, true), "one answer is enough");
}

#[test]
fn refused_client_gets_the_code_and_both_sides_end() {
    let mut pair = Pair::default();
    pair.drive();

    assert!(pair.server.refuse(Refusal::NotAuthorized));
    pair.drive();

    let closed = Closed::Refused(Refusal::NotAuthorized);
    assert_eq!(pair.server_closed(), Some(&closed));
    assert_eq!(pair.client_closed(), Some(&closed));
}

/// Row 23.
#[test]
fn other_protocol_level_gets_connack_1_and_the_end() {
    for bytes in [
        &b"\x10\x09\x00\x06MQIsdp\x03"[..],
        b"\x10\x07\x00\x04MQTT\x03",
        b"\x10\x07\x00\x04MQTT\x05",
    ] {
        let mut server = server();

        server.handle_bytes(epoch(), bytes);

        let refused = Connack::Refused(Refusal::UnacceptableProtocolVersion);
        assert_eq!(transmitted(&mut server), [Packet::Connack(refused)]);
        let level = *bytes.last().unwrap();
        let violation = Violation::ProtocolLevel(level);
        assert_eq!(events(&mut server), [Event::Closed(Closed::Violation(violation))]);
    }
}

/// Row 23.
#[test]
fn any_other_packet_before_connect_closes_without_an_answer() {
    for packet in [Packet::Pingreq, publish(1, false), Packet::Disconnect] {
        let kind = packet.kind();
        let mut server = server();

        server.handle_bytes(epoch(), &wire(&[packet]));

        let violation = Violation::NotConnect(kind);
        assert_eq!(events(&mut server), [Event::Closed(Closed::Violation(violation))]);
        assert_eq!(transmitted(&mut server), []);
    }
}

#[test]
fn empty_client_id_that_keeps_its_session_gets_connack_2() {
    let mut server = server();
    let anonymous = Connect {
        client_id: text(""),
        ..connect()
    };

    server.handle_bytes(epoch(), &wire(&[Packet::Connect(Box::new(anonymous))]));

    let refused = Connack::Refused(Refusal::IdentifierRejected);
    assert_eq!(transmitted(&mut server), [Packet::Connack(refused)]);
    assert_eq!(
        events(&mut server),
        [Event::Closed(Closed::Violation(Violation::EmptyClientId))]
    );
}

#[test]
fn connect_that_is_too_large_for_a_stranger_is_refused_by_its_header() {
    let mut server = server();

    server.handle_bytes(epoch(), &[0x10, 0x80, 0x80, 0x08]);

    assert!(matches!(
        events(&mut server)[..],
        [Event::Closed(Closed::Violation(Violation::PacketTooLarge {
            packet: PacketKind::Connect,
            ..
        }))]
    ));
}

#[test]
fn connect_that_does_not_come_within_the_deadline_closes() {
    let start = epoch();
    let mut server = Session::server(start, Config::default());
    assert_eq!(server.poll_timeout(), Some(start + Duration::from_secs(60)));

    server.handle_bytes(start + Duration::from_secs(59), b"\x10");
    server.handle_timeout(start + Duration::from_secs(60));

    assert_eq!(events(&mut server), [Event::Closed(Closed::TimedOut(Timer::Connect))]);
}

#[test]
fn client_is_told_to_come_later_when_the_application_does_not_decide() {
    let mut pair = Pair::default();

    pair.advance(Duration::from_secs(60));

    assert_eq!(pair.server_closed(), Some(&Closed::TimedOut(Timer::Decision)));
    assert!(!pair.server.accept(pair.now, false), "too late");
}

#[test]
fn what_comes_with_connect_waits_for_the_decision_and_none_of_it_is_lost() {
    let mut server = server();
    let subscribe = Subscribe {
        id: id(9),
        filters: vec![subscription("a", Qos::AtLeastOnce)],
    };
    let packets = [
        Packet::Connect(Box::new(connect())),
        publish(1, false),
        Packet::Subscribe(subscribe),
        Packet::Pingreq,
    ];

    server.handle_bytes(epoch(), &wire(&packets));
    assert_eq!(events(&mut server), [Event::Connect(Box::new(connect()))]);
    assert!(!server.wants_input());
    assert_eq!(transmitted(&mut server), []);
    server.accept(epoch(), false);

    let told = events(&mut server);
    assert!(
        matches!(told[..], [Event::Publish { .. }, Event::Subscribe { .. }]),
        "{told:?}"
    );
    let connack = Packet::Connack(Connack::Accepted { session_present: false });
    assert_eq!(transmitted(&mut server), [connack, Packet::Pingresp]);
    assert!(server.wants_input());
}

#[test]
fn second_connect_closes() {
    assert_eq!(
        verdict(&[Packet::Connect(Box::new(connect()))]),
        Violation::SecondConnect
    );
}

#[test]
fn packets_that_only_a_server_sends_close() {
    let suback = Suback {
        id: id(1),
        granted: vec![Granted::Failure],
    };

    assert_eq!(
        verdict(&[Packet::Pingresp]),
        Violation::Unexpected(PacketKind::Pingresp)
    );
    assert_eq!(
        verdict(&[Packet::Suback(suback)]),
        Violation::Unexpected(PacketKind::Suback)
    );
    assert_eq!(
        verdict(&[Packet::Pubrel(id(1))]),
        Violation::Unexpected(PacketKind::Pubrel)
    );
}

/// Row 24.
#[test]
fn silence_of_one_and_a_half_keep_alives_closes() {
    let client = Connect {
        keep_alive_seconds: 10,
        ..connect()
    };
    let mut pair = Pair::new(Config::default(), Config::default(), client).connected();
    // The client is there but its line is dead: nothing that it sends arrives.
    let start = pair.now;
    assert_eq!(pair.server.poll_timeout(), Some(start + Duration::from_secs(15)));

    pair.server.handle_timeout(start + Duration::from_millis(14_999));
    assert_eq!(events(&mut pair.server), []);
    pair.server.handle_timeout(start + Duration::from_secs(15));

    assert_eq!(
        events(&mut pair.server),
        [Event::Closed(Closed::TimedOut(Timer::KeepAlive))]
    );
}

#[test]
fn any_byte_puts_the_silence_off() {
    let mut server = open_server(Config::default());
    let later = epoch() + Duration::from_secs(1000);

    server.handle_bytes(later, b"\xc0");

    assert_eq!(server.poll_timeout(), Some(later + Duration::from_secs(90)));
}

#[test]
fn idle_cap_holds_for_long_keep_alives_and_for_none() {
    for keep_alive_seconds in [0, 1740, u16::MAX] {
        let client = Connect {
            keep_alive_seconds,
            ..connect()
        };
        let pair = Pair::new(Config::default(), Config::default(), client).connected();

        let deadline = pair.server.poll_timeout().unwrap();
        assert_eq!(deadline - pair.now, Duration::from_secs(1767));
    }
}

#[test]
fn silence_that_the_application_caused_is_not_held_against_the_client() {
    let config = Config {
        inbound_window: 1,
        ..Config::default()
    };
    let start = epoch();
    let mut server = open_server(config);
    server.handle_bytes(start, &wire(&[publish(1, false)]));
    let delivery = deliveries(&events(&mut server))[0];
    assert!(!server.wants_input());

    server.handle_timeout(start + Duration::from_secs(90));
    assert!(server.is_open(), "nobody read what the client may have sent");
    server.acknowledge(delivery, Outcome::Accept);
    server.handle_timeout(start + Duration::from_secs(180));
    server.handle_timeout(start + Duration::from_secs(270));

    assert_eq!(events(&mut server), [Event::Closed(Closed::TimedOut(Timer::KeepAlive))]);
}

#[test]
fn client_that_takes_nothing_in_does_not_hold_its_session_for_ever() {
    let config = Config {
        max_output: 100,
        ..Config::default()
    };
    let start = epoch();
    let mut server = open_server(config);
    let message = Message {
        qos: Qos::AtMostOnce,
        ..telemetry(vec![0; 200])
    };
    assert_eq!(server.publish(start, &message), Ok(None));
    assert_eq!(server.publish(start, &message), Err(PublishError::OutputFull));
    assert!(!server.wants_input());

    server.handle_timeout(start + Duration::from_secs(91));

    assert_eq!(events(&mut server), [Event::Closed(Closed::TimedOut(Timer::KeepAlive))]);
}

/// Row 28.
#[test]
fn packets_arrive_in_any_pieces() {
    for fragment in 1..40 {
        let mut pair = Pair {
            fragment,
            ..Pair::default()
        }
        .connected();
        let filters = vec![subscription("a/#", Qos::AtLeastOnce)];

        pair.client.subscribe(pair.now, filters).unwrap();
        pair.client.publish(pair.now, &telemetry("1")).unwrap();
        pair.client.publish(pair.now, &telemetry("2")).unwrap();
        pair.drive();

        let told = &pair.server_events;
        assert!(
            matches!(
                told[..],
                [Event::Subscribe { .. }, Event::Publish { .. }, Event::Publish { .. }]
            ),
            "{told:?}"
        );
    }
}

/// Row 35.
#[test]
fn publish_at_qos_2_closes() {
    let publish = Publish {
        topic: text("devices/dev1/messages/events/"),
        payload: "x".into(),
        retain: false,
        delivery: Delivery::ExactlyOnce { id: id(1), dup: false },
    };

    assert_eq!(verdict(&[Packet::Publish(publish)]), Violation::ExactlyOnce);
}

/// Rows 36 and 37.
#[test]
fn three_filters_get_three_codes_in_order_and_qos_2_shows_as_1() {
    let mut server = open_server(Config::default());
    let filters = vec![
        subscription("a", Qos::ExactlyOnce),
        subscription("b", Qos::AtMostOnce),
        subscription("c", Qos::AtLeastOnce),
    ];

    server.handle_bytes(epoch(), &wire(&[Packet::Subscribe(Subscribe { id: id(7), filters })]));
    let Some(Event::Subscribe { request, filters }) = server.poll_event() else {
        panic!("a SUBSCRIBE");
    };
    let asked: Vec<Qos> = filters.iter().map(|subscription| subscription.qos).collect();
    assert_eq!(asked, [Qos::AtLeastOnce, Qos::AtMostOnce, Qos::AtLeastOnce]);
    let granted = [
        Granted::Qos(Qos::AtLeastOnce),
        Granted::Failure,
        Granted::Qos(Qos::AtMostOnce),
    ];
    assert_eq!(
        server.suback(request, &granted[..2]),
        Err(AnswerError::CodeCount { filters: 3, given: 2 })
    );
    assert_eq!(server.unsuback(request), Err(AnswerError::UnknownRequest));
    assert_eq!(server.suback(request, &granted), Ok(()));

    let suback = Suback {
        id: id(7),
        granted: granted.to_vec(),
    };
    assert_eq!(transmitted(&mut server), [Packet::Suback(suback)]);
    assert_eq!(server.suback(request, &granted), Err(AnswerError::UnknownRequest));
}

/// Row 40.
#[test]
fn publish_over_the_limit_closes_before_it_has_arrived() {
    let config = Config {
        max_packet: 262_144,
        ..Config::default()
    };
    let mut server = open_server(config);

    server.handle_bytes(epoch(), &[0x32, 0xfd, 0xff, 0x0f]);

    let violation = Violation::PacketTooLarge {
        packet: PacketKind::Publish,
        bytes: 262_145,
        limit: 262_144,
    };
    assert_eq!(events(&mut server), [Event::Closed(Closed::Violation(violation))]);
}

#[test]
fn ping_is_answered_at_once_though_the_window_is_full() {
    let mut server = open_server(Config {
        inbound_window: 1,
        ..Config::default()
    });

    server.handle_bytes(epoch(), &wire(&[publish(1, false), Packet::Pingreq]));

    assert_eq!(transmitted(&mut server), [Packet::Pingresp]);
}

#[test]
fn disconnect_is_clean_and_every_other_end_is_not() {
    let mut said = open_server(Config::default());
    said.handle_bytes(
        epoch(),
        &wire(&[publish(1, false), Packet::Disconnect, publish(2, false)]),
    );
    let mut cut = open_server(Config::default());
    cut.handle_end();

    let told = events(&mut said);
    assert!(matches!(
        told[..],
        [Event::Publish { .. }, Event::Closed(Closed::Disconnected)]
    ));
    assert_eq!(events(&mut cut), [Event::Closed(Closed::Lost)]);
    assert!(Closed::Disconnected.is_clean() && !Closed::Lost.is_clean() && !Closed::ByApplication.is_clean());
}

#[test]
fn what_arrived_before_the_line_was_cut_is_handled_first() {
    let mut server = open_server(Config {
        inbound_window: 1,
        ..Config::default()
    });
    server.handle_bytes(
        epoch(),
        &wire(&[publish(1, false), publish(2, false), Packet::Disconnect]),
    );
    server.handle_end();

    let first = events(&mut server);
    assert!(server.acknowledge(deliveries(&first)[0], Outcome::Accept));
    let second = events(&mut server);

    assert_eq!(first.len(), 1);
    assert!(matches!(
        second[..],
        [Event::Publish { .. }, Event::Closed(Closed::Disconnected)]
    ));
    assert_eq!(transmitted(&mut server), [], "there is nobody to send to");
}

#[test]
fn bytes_after_the_end_are_dropped() {
    let mut server = open_server(Config::default());
    server.close();

    server.handle_bytes(epoch(), &wire(&[publish(1, false)]));
    server.handle_end();

    assert_eq!(events(&mut server), [Event::Closed(Closed::ByApplication)]);
    assert_eq!(server.poll_timeout(), None);
    assert_eq!(server.publish(epoch(), &telemetry("x")), Err(PublishError::NotOpen));
}

#[test]
fn events_and_requests_that_nobody_takes_stop_the_reading() {
    let mut server = open_server(Config {
        max_events: 2,
        ..Config::default()
    });
    let quiet = Packet::Publish(Publish {
        topic: text("t"),
        payload: "x".into(),
        retain: false,
        delivery: Delivery::AtMostOnce,
    });

    server.handle_bytes(epoch(), &wire(&vec![quiet; 5]));
    assert!(!server.wants_input());

    assert_eq!(events(&mut server).len(), 5);
    assert!(server.wants_input());
}

#[test]
fn driver_that_reads_on_regardless_is_stopped_at_the_limit() {
    let config = Config {
        inbound_window: 1,
        max_packet: 1000,
        max_input: 1000,
        ..Config::default()
    };
    let mut server = open_server(config);

    for number in 1..200 {
        server.handle_bytes(epoch(), &wire(&[publish(number, false)]));
    }

    let told = events(&mut server);
    assert!(
        matches!(
            told.last(),
            Some(Event::Closed(Closed::Violation(Violation::InputOverflow {
                limit: 2000,
                ..
            })))
        ),
        "{told:?}"
    );
}

#[test]
fn transmit_exchanges_an_empty_buffer_and_appends_to_a_full_one() {
    let mut server = open_server(Config::default());
    server.handle_bytes(epoch(), &wire(&[Packet::Pingreq]));
    let mut out = BytesMut::new();
    assert!(server.poll_transmit(&mut out));
    server.handle_bytes(epoch(), &wire(&[Packet::Pingreq]));

    assert!(server.poll_transmit(&mut out));

    assert_eq!(out, &b"\xd0\x00\xd0\x00"[..]);
    assert!(!server.poll_transmit(&mut out));
}
