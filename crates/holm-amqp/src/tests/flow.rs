//! Credit, windows and drain: who may send how much, and what happens to who sends more.

use crate::performative::Performative;
use crate::testing::{
    Ends, Pair, deliveries, delivery, events, frame_with, raw_frame, transmitted, transmitted_performatives,
};
use crate::{Config, DeliveryId, Event, Login, NewLink, Outcome, SendError, Side};

fn uplink(config: Config, window: u32) -> (Pair, Ends) {
    let mut pair = Pair::new(config.clone(), config, Login::default()).open();
    let ends = pair.link_up(NewLink::sender("up", "node"), window);
    (pair, ends)
}

fn ids(told: &[Event]) -> Vec<DeliveryId> {
    deliveries(told).iter().filter_map(|delivery| delivery.id).collect()
}

#[test]
fn credit_is_used_up_and_filled_up_as_deliveries_are_decided() {
    let (mut pair, ends) = uplink(Config::default(), 3);
    for number in 0..3 {
        pair.client.send(ends.client, &delivery(number, "x")).unwrap();
    }
    assert_eq!(
        pair.client.send(ends.client, &delivery(3, "x")),
        Err(SendError::NoCredit)
    );
    pair.drive();
    assert!(!pair.client.can_send(ends.client), "nothing was decided");

    for id in ids(&pair.server_events) {
        pair.server.settle(id, Outcome::Accepted);
    }
    pair.drive();

    assert!(pair.client_events.contains(&Event::Credit {
        link: ends.client,
        credit: 3,
        drain: false
    }));
    assert!(pair.client.can_send(ends.client));
}

#[test]
fn transfer_without_credit_costs_the_link() {
    let (mut pair, ends) = uplink(Config::default(), 0);

    pair.server.handle_bytes(pair.now, &transfer(0));
    pair.drive();

    let [
        Event::Detached {
            link,
            by: Side::Here,
            error: Some(error),
            ..
        },
    ] = &pair.server_events[..]
    else {
        panic!("{:?}", pair.server_events);
    };
    assert_eq!(*link, ends.server);
    assert_eq!(
        error.to_string(),
        "amqp:link:transfer-limit-exceeded: a delivery came although the `link-credit` was 0; wait for a flow"
    );
    assert!(matches!(
        &pair.client_events[..],
        [Event::Detached { by: Side::Peer, .. }]
    ));
    pair.server.handle_bytes(pair.now, b"");
    assert!(pair.server.is_open());
}

fn transfer(number: u32) -> bytes::BytesMut {
    let transfer = crate::performative::Transfer {
        handle: 0,
        delivery_id: Some(number),
        delivery_tag: Some(u64::from(number).into()),
        message_format: Some(0),
        settled: Some(false),
        more: false,
        rcv_settle_mode: None,
        state: None,
        resume: false,
        aborted: false,
        batchable: false,
    };
    frame_with(0, Performative::Transfer(transfer), "x".into())
}

#[test]
fn granted_credit_comes_on_top_of_no_window() {
    let (mut pair, ends) = uplink(Config::default(), 0);
    assert!(!pair.client.can_send(ends.client));

    assert!(pair.server.grant(ends.server, 2));
    pair.drive();

    let credit = Event::Credit {
        link: ends.client,
        credit: 2,
        drain: false,
    };
    assert_eq!(pair.client_events, [credit]);
    for number in 0..2 {
        pair.client.send(ends.client, &delivery(number, "x")).unwrap();
    }
    pair.drive();
    for id in ids(&pair.server_events) {
        pair.server.settle(id, Outcome::Accepted);
    }
    pair.drive();
    assert!(!pair.client.can_send(ends.client), "it is not filled up");
}

#[test]
fn drain_brings_what_is_there_and_the_rest_of_the_credit_back() {
    let mut pair = Pair::default().open();
    let ends = pair.link_up(NewLink::receiver("down", "node", 0), 0);
    assert!(pair.client.grant(ends.client, 10));
    pair.drive();
    pair.server_events.clear();

    assert!(pair.client.drain(ends.client));
    pair.drive();
    let link = ends.server;
    let asked = Event::Credit {
        link,
        credit: 10,
        drain: true,
    };
    assert_eq!(pair.server_events, [asked]);
    pair.server.send(link, &delivery(0, "the only one")).unwrap();
    assert!(pair.server.give_credit_back(link));
    pair.drive();

    assert!(
        matches!(&pair.client_events[..], [Event::Delivery(_), Event::Drained(drained)] if *drained == ends.client),
        "{:?}",
        pair.client_events
    );
    assert_eq!(pair.server.send(link, &delivery(1, "x")), Err(SendError::NoCredit));
}

#[test]
fn drain_ends_also_when_all_the_credit_is_used() {
    let mut pair = Pair::default().open();
    let ends = pair.link_up(NewLink::receiver("down", "node", 0), 0);
    pair.client.grant(ends.client, 1);
    pair.client.drain(ends.client);
    pair.drive();

    pair.server.send(ends.server, &delivery(0, "x")).unwrap();
    pair.drive();

    assert_eq!(pair.client_events.last(), Some(&Event::Drained(ends.client)));
}

#[test]
fn session_window_holds_transfers_back_until_a_flow() {
    let narrow = Config {
        incoming_window: 4,
        max_frame_size: 512,
        ..Config::default()
    };
    let mut pair = Pair::new(narrow, Config::default(), Login::default()).open();
    let ends = pair.link_up(NewLink::sender("up", "node"), 10);
    pair.client.send(ends.client, &delivery(0, vec![7; 10_000])).unwrap();

    let first = transmitted(&mut pair.client);
    assert!(first.len() < 4 * 520, "four frames at most: {}", first.len());
    assert!(transmitted(&mut pair.client).is_empty(), "all else waits");
    pair.to_server.extend_from_slice(&first);
    pair.drive();

    assert_eq!(deliveries(&pair.server_events)[0].payload.len(), 10_000);
}

#[test]
fn transfers_beyond_the_session_window_cost_the_session() {
    let narrow = Config {
        incoming_window: 2,
        max_events: 1,
        ..Config::default()
    };
    let (mut pair, _) = uplink(narrow, 100);

    let mut told = Vec::new();
    for number in 0..3 {
        pair.server.handle_bytes(pair.now, &transfer(number));
        told.extend(events(&mut pair.server));
    }

    let Some(Event::Ended {
        by: Side::Here,
        error: Some(error),
        ..
    }) = told.last()
    else {
        panic!("{told:?}");
    };
    assert_eq!(
        error.to_string(),
        "amqp:session:window-violation: a transfer came although the `incoming-window` was 0; wait for a flow"
    );
}

#[test]
fn unsettled_deliveries_are_bounded_on_each_link() {
    let config = Config {
        max_unsettled: 2,
        ..Config::default()
    };
    let (mut pair, ends) = uplink(config, 100);
    for number in 0..2 {
        pair.client.send(ends.client, &delivery(number, "x")).unwrap();
    }
    assert_eq!(
        pair.client.send(ends.client, &delivery(2, "x")),
        Err(SendError::WindowFull)
    );

    pair.drive();
    pair.server.settle(ids(&pair.server_events)[0], Outcome::Accepted);
    pair.drive();

    assert!(pair.client.can_send(ends.client));
}

#[test]
fn slow_reader_is_felt_by_the_link_that_sends_much_and_no_other() {
    let config = Config {
        max_output: 10_000,
        max_link_queue: 10_000,
        ..Config::default()
    };
    let mut pair = Pair::new(config.clone(), config, Login::default()).open();
    let (session, _) = pair.begin();
    let much = pair.link_up_in(session, NewLink::sender("much", "node"), 1000);
    let little = pair.link_up_in(session, NewLink::sender("little", "node"), 1000);

    let mut sent = 0;
    while pair.client.can_send(much.client) {
        pair.client.send(much.client, &delivery(sent, vec![7; 1000])).unwrap();
        sent += 1;
    }

    assert!((18..=26).contains(&sent), "{sent} of 1000 bytes fill 20,000");
    assert_eq!(
        pair.client.send(much.client, &delivery(sent, "x")),
        Err(SendError::QueueFull)
    );
    assert!(pair.client.can_send(little.client));
    pair.drive();
    assert_eq!(deliveries(&pair.server_events).len() as u64, sent);
}

#[test]
fn flow_that_asks_for_an_answer_gets_one() {
    let (mut pair, _) = uplink(Config::default(), 5);

    // Of the session, then of the link, each with echo.
    pair.server.handle_bytes(
        pair.now,
        &raw_frame(
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
        ),
    );
    pair.server.handle_bytes(
        pair.now,
        &raw_frame(
            0,
            0x13,
            &[
                b"\x43",
                b"\x52\x0a",
                b"\x43",
                b"\x52\x0a",
                b"\x43",
                b"\x43",
                b"\x40",
                b"\x40",
                b"\x42",
                b"\x41",
            ],
        ),
    );
    let sent = transmitted_performatives(&mut pair.server);

    let [Performative::Flow(session), Performative::Flow(link)] = &sent[..] else {
        panic!("{sent:?}");
    };
    assert_eq!(
        (session.handle, link.handle, link.link_credit),
        (None, Some(0), Some(5))
    );
}

#[test]
fn window_made_smaller_is_no_breach_for_what_is_on_its_way() {
    let (mut pair, ends) = uplink(Config::default(), 4);
    for number in 0..4 {
        pair.client.send(ends.client, &delivery(number, "x")).unwrap();
    }

    assert!(pair.server.set_window(ends.server, 1));
    pair.drive();
    assert_eq!(deliveries(&pair.server_events).len(), 4);
    for id in ids(&pair.server_events) {
        pair.server.settle(id, Outcome::Accepted);
    }
    pair.drive();

    assert!(pair.client.send(ends.client, &delivery(4, "x")).is_ok());
    assert_eq!(
        pair.client.send(ends.client, &delivery(5, "x")),
        Err(SendError::NoCredit)
    );
}

#[test]
fn answer_waits_for_the_credit_of_who_asked() {
    let mut pair = Pair::default().open();
    let ends = pair.link_up(NewLink::receiver("down", "$cbs", 0), 0);

    assert_eq!(
        pair.server.send(ends.server, &delivery(0, "x")),
        Err(SendError::NoCredit)
    );
    for number in 0..2 {
        assert!(
            pair.server
                .send_later(ends.server, &delivery(number, number.to_string()))
                .is_ok()
        );
    }
    pair.drive();
    assert!(pair.client_events.is_empty(), "{:?}", pair.client_events);
    pair.client.grant(ends.client, 1);
    pair.drive();
    assert_eq!(deliveries(&pair.client_events)[0].payload, "0");
    pair.client.grant(ends.client, 5);
    pair.drive();

    assert_eq!(deliveries(&pair.client_events)[1].payload, "1");
    let told: Vec<u32> = pair
        .server_events
        .iter()
        .filter_map(|event| match event {
            Event::Credit { credit, .. } => Some(*credit),
            _ => None,
        })
        .collect();
    assert_eq!(told, [0, 4], "what waits has taken its part");
}

#[test]
fn drain_without_credit_is_at_its_end_at_once() {
    let mut pair = Pair::default().open();
    let ends = pair.link_up(NewLink::receiver("down", "node", 0), 0);

    assert!(pair.client.drain(ends.client));

    assert_eq!(events(&mut pair.client), [Event::Drained(ends.client)]);
    assert!(transmitted(&mut pair.client).is_empty());
}
