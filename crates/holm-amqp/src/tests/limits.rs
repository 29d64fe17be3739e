//! What a peer can make a connection hold is bounded, whoever it is; and a fault costs the least that it can.

use std::time::Duration;

use crate::performative::{Attach, Performative, Role, Transfer};
use crate::testing::{Pair, closed, deliveries, delivery, events, frame, frame_with, raw_frame, transmitted};
use crate::{Allowance, Closed, Config, Event, Login, NewLink, OpenError, Outcome, Side, Violation};

fn pair(config: Config) -> Pair {
    Pair::new(config, Config::default(), Login::default()).open()
}

fn part(number: u32, handle: u32, more: bool, bytes: usize) -> bytes::BytesMut {
    let transfer = Transfer {
        handle,
        delivery_id: Some(number),
        delivery_tag: Some(1.into()),
        message_format: Some(0),
        settled: Some(false),
        more,
        rcv_settle_mode: None,
        state: None,
        resume: false,
        aborted: false,
        batchable: false,
    };
    frame_with(0, Performative::Transfer(transfer), vec![7; bytes].into())
}

/// The condition and link of the only link that ended.
fn detached(told: &[Event]) -> String {
    match told {
        [
            Event::Detached {
                by: Side::Here,
                error: Some(error),
                ..
            },
        ] => error.to_string(),
        other => panic!("expected one detach, got {other:?}"),
    }
}

#[test]
fn sessions_beyond_the_allowance_are_ended_one_by_one_until_it_grows() {
    let allowance = Allowance { sessions: 1, links: 2 };
    let mut pair = pair(Config {
        allowance,
        ..Config::default()
    });
    let (first, _) = pair.begin();
    let second = pair.client.begin().unwrap();
    pair.drive();

    assert_eq!(pair.server_events, [], "it was none");
    let [
        Event::Begun(begun),
        Event::Ended {
            session,
            error: Some(error),
            ..
        },
    ] = &pair.client_events[..]
    else {
        panic!("{:?}", pair.client_events);
    };
    assert_eq!((*begun, *session), (second, second));
    assert_eq!(
        error.to_string(),
        "amqp:resource-limit-exceeded: the connection has 1 sessions already; end one first"
    );
    pair.client_events.clear();
    pair.link_up_in(first, NewLink::sender("s", "node"), 1);
    pair.server.set_allowance(Allowance::default());
    pair.begin();
}

#[test]
fn links_beyond_the_allowance_are_refused_one_by_one() {
    let allowance = Allowance { sessions: 4, links: 1 };
    let mut pair = pair(Config {
        allowance,
        ..Config::default()
    });
    let (session, _) = pair.begin();
    let first = pair.link_up_in(session, NewLink::sender("first", "node"), 1);

    pair.client.attach(session, NewLink::sender("second", "node")).unwrap();
    pair.drive();

    assert_eq!(pair.server_events, [], "it was none");
    let [Event::Detached { error: Some(error), .. }] = &pair.client_events[..] else {
        panic!("{:?}", pair.client_events);
    };
    assert_eq!(error.condition, "amqp:resource-limit-exceeded");
    pair.client_events.clear();
    pair.client.detach(first.client, true, None);
    pair.drive();
    pair.server_events.clear();
    pair.link_up_in(session, NewLink::sender("third", "node"), 1);
}

#[test]
fn own_sessions_and_links_are_within_the_allowance_too() {
    let config = Config {
        allowance: Allowance { sessions: 1, links: 1 },
        ..Config::default()
    };
    let mut pair = Pair::new(Config::default(), config, Login::default()).open();
    let (session, _) = pair.begin();

    assert_eq!(pair.client.begin(), Err(OpenError::TooMany));
    pair.link_up_in(session, NewLink::sender("s", "node"), 1);
    assert_eq!(
        pair.client.attach(session, NewLink::sender("t", "node")),
        Err(OpenError::TooMany)
    );
}

#[test]
fn channel_beyond_the_highest_closes_the_connection() {
    let mut pair = pair(Config {
        channel_max: 3,
        ..Config::default()
    });

    pair.server.handle_bytes(
        pair.now,
        &raw_frame(4, 0x11, &[b"\x40", b"\x43", b"\x52\x0a", b"\x52\x0a"]),
    );
    pair.drive();

    let violation = Violation::ChannelMax { channel: 4, limit: 3 };
    assert_eq!(closed(&pair.server_events), Some(&Closed::Violation(violation)));
}

#[test]
fn message_beyond_the_limit_costs_the_link_as_soon_as_it_is_known() {
    let mut pair = pair(Config {
        max_message_size: 1000,
        ..Config::default()
    });
    pair.link_up(NewLink::sender("s", "node"), 10);
    let _ = transmitted(&mut pair.server);

    pair.server.handle_bytes(pair.now, &part(0, 0, true, 600));
    pair.server.handle_bytes(pair.now, &part(0, 0, true, 401));

    let text = "amqp:link:message-size-exceeded: the message has more than the 1000 bytes of `max-message-size`; \
                send less at a time";
    assert_eq!(detached(&events(&mut pair.server)), text);
    assert!(pair.server.is_open());
}

#[test]
fn unfinished_deliveries_of_many_links_are_bounded_together() {
    let mut pair = pair(Config {
        max_unfinished: 2000,
        ..Config::default()
    });
    let (session, _) = pair.begin();
    for number in 0..3 {
        pair.link_up_in(session, NewLink::sender(number.to_string(), "node"), 10);
        pair.server.handle_bytes(pair.now, &part(number, number, true, 900));
    }

    let text = "amqp:resource-limit-exceeded: unfinished deliveries of this connection have more than 200 bytes together; \
                finish one first";
    assert_eq!(detached(&events(&mut pair.server)), text);

    pair.server.handle_bytes(pair.now, &part(0, 0, false, 100));
    pair.server.handle_bytes(pair.now, &part(1, 1, true, 900));
    let told = events(&mut pair.server);
    assert_eq!(deliveries(&told)[0].payload.len(), 1000, "what was finished makes room");
}

#[test]
fn deliveries_that_break_a_rule_cost_their_link() {
    let texts = [
        (
            [part(0, 0, true, 1), part(1, 0, true, 1)],
            "amqp:not-allowed: the `delivery-id` of `transfer` is 1 while delivery 0 of this link is unfinished; finish it first",
        ),
        (
            [part(0, 0, false, 1), part(0, 0, false, 1)],
            "amqp:not-allowed: the `delivery-id` 0 of `transfer` waits for its outcome; take another number",
        ),
    ];

    for (frames, expected) in texts {
        let mut pair = pair(Config::default());
        pair.link_up(NewLink::sender("s", "node"), 10);
        for frame in frames {
            pair.server.handle_bytes(pair.now, &frame);
        }
        let mut told = events(&mut pair.server);
        told.retain(|event| !matches!(event, Event::Delivery(_)));
        assert_eq!(detached(&told), expected);
    }
}

#[test]
fn name_of_a_link_is_bounded() {
    let mut pair = pair(Config::default());
    pair.begin();
    let attach = Attach::new("x".repeat(1025).into(), 0, Role::Sender);

    pair.server
        .handle_bytes(pair.now, &frame(0, Performative::Attach(Box::new(attach))));

    assert_eq!(events(&mut pair.server), [], "it was none");
    pair.drive();
    assert!(pair.server.is_open());
}

#[test]
fn events_that_wait_hold_up_the_input_and_nothing_is_lost() {
    let config = Config {
        max_events: 2,
        ..Config::default()
    };
    let mut pair = pair(config);
    let ends = pair.link_up(NewLink::sender("s", "node"), 100);
    for number in 0..10 {
        pair.client.send(ends.client, &delivery(number, "x")).unwrap();
    }
    let bytes = transmitted(&mut pair.client);
    pair.server.handle_bytes(pair.now, &bytes);

    assert!(!pair.server.wants_input());
    let told = events(&mut pair.server);

    assert_eq!(deliveries(&told).len(), 10);
    assert!(pair.server.wants_input());
}

#[test]
fn large_frame_before_open_is_refused_by_its_size() {
    let mut server = crate::Connection::server(crate::testing::epoch(), Config::default().into());

    server.handle_bytes(crate::testing::epoch(), b"AMQP\0\x01\0\0\0\0\x40\x01");
    let _ = transmitted(&mut server);
    server.handle_end();

    let told = events(&mut server);
    assert!(
        matches!(closed(&told), Some(Closed::Violation(Violation::Frame(_)))),
        "{told:?}"
    );
}

#[test]
fn driver_that_reads_on_regardless_is_stopped() {
    let mut pair = pair(Config {
        max_events: 1,
        max_input: 1000,
        max_frame_size: 512,
        ..Config::default()
    });
    let ends = pair.link_up(NewLink::sender("s", "node"), 1000);
    for number in 0..60 {
        pair.client.send(ends.client, &delivery(number, vec![7; 100])).unwrap();
    }
    let bytes = transmitted(&mut pair.client);

    pair.server.handle_bytes(pair.now, &bytes);

    pair.advance(Duration::from_secs(10));
    let told = closed(&pair.server_events);
    assert!(
        matches!(told, Some(Closed::Violation(Violation::InputOverflow { .. }))),
        "{told:?}"
    );
}

#[test]
fn thousand_devices_share_a_connection_and_one_that_fails_costs_the_others_nothing() {
    let mut pair = pair(Config::default());
    let links: Vec<_> = (0..1000)
        .map(|_| pair.link_up(NewLink::sender("TelemetrySenderLink", "node"), 4))
        .collect();

    for (number, ends) in (0..).zip(&links) {
        pair.client.send(ends.client, &delivery(number, "x")).unwrap();
    }
    pair.drive();
    assert_eq!(deliveries(&pair.server_events).len(), 1000);
    let session = links[500].server.session();
    pair.server.end(session, None);
    for id in deliveries(&pair.server_events.clone())
        .iter()
        .filter_map(|told| told.id)
    {
        assert_eq!(
            pair.server.settle(id, Outcome::Accepted),
            id.link().session() != session
        );
    }
    pair.drive();

    let settled = pair
        .client_events
        .iter()
        .filter(|event| matches!(event, Event::Settled { .. }))
        .count();
    assert_eq!(settled, 999);
}

#[test]
fn peer_that_does_not_read_is_no_longer_read() {
    let mut pair = pair(Config {
        max_output: 10_000,
        ..Config::default()
    });
    pair.begin();
    // Each asks for an answer.
    let flow = raw_frame(
        0,
        0x13,
        &[
            b"\x43",
            b"\x52\x0a",
            b"\x43",
            b"\x52\x0a",
            b"\x40",
            b"\x40",
            b"\x40",
            b"\x40",
            b"\x42",
            b"\x41",
        ],
    );

    let mut sent = 0;
    while pair.server.wants_input() {
        pair.server.handle_bytes(pair.now, &flow);
        sent += flow.len();
        assert!(sent < 1_000_000, "it is read on");
    }

    assert!(pair.server.held_bytes() < 11_000, "{}", pair.server.held_bytes());
    assert!(!transmitted(&mut pair.server).is_empty());
    assert!(pair.server.wants_input(), "it reads again");
}

#[test]
fn long_fields_that_wait_for_the_application_hold_up_the_input() {
    let mut pair = pair(Config {
        max_event_bytes: 100_000,
        ..Config::default()
    });
    pair.begin();

    let mut handle = 0;
    while pair.server.wants_input() {
        let attach = Attach {
            properties: crate::Fields::new().with(crate::Symbol::from_static("long"), "x".repeat(50_000)),
            ..Attach::new(handle.to_string().into(), handle, Role::Sender)
        };
        pair.server
            .handle_bytes(pair.now, &frame(0, Performative::Attach(Box::new(attach))));
        handle += 1;
    }

    assert_eq!(handle, 2, "100,000 bytes and one more");
}
