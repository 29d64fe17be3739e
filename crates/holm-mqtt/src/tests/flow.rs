//! What this side sent: windows, packet ids, what is given back when the line is cut.

use std::collections::HashSet;

use bytes::Bytes;

use crate::flow::{Flow, Requests};
use crate::testing::{Pair, deliveries, telemetry, transmitted, wire};
use crate::{Config, Connect, Delivery, Event, Message, Outcome, Packet, PacketId, PublishError, Qos, Token};

#[test]
fn window_full_is_refused_until_an_acknowledgement_makes_room() {
    let config = Config {
        outbound_window: 2,
        ..Config::default()
    };
    let mut pair = Pair::new(config.clone(), config, crate::testing::connect()).connected();
    let tokens: Vec<Option<Token>> = (0..2)
        .map(|_| pair.server.publish(pair.now, &telemetry("x")).unwrap())
        .collect();

    assert!(!pair.server.can_publish());
    assert_eq!(
        pair.server.publish(pair.now, &telemetry("x")),
        Err(PublishError::WindowFull)
    );
    let quiet = Message {
        qos: Qos::AtMostOnce,
        ..telemetry("quiet")
    };
    assert_eq!(pair.server.publish(pair.now, &quiet), Ok(None), "QoS 0 needs no room");
    pair.drive();
    let told = deliveries(&pair.client_events);
    pair.client.acknowledge(told[0], Outcome::Accept);
    pair.drive();

    assert_eq!(pair.server_events, [Event::Acknowledged(tokens[0].unwrap())]);
    assert!(pair.server.can_publish());
}

#[test]
fn lost_line_gives_back_what_was_not_acknowledged_and_it_goes_again_with_dup() {
    let mut pair = Pair::default().connected();
    let messages: Vec<Message> = (0..3).map(|number| telemetry(number.to_string())).collect();
    for message in &messages {
        pair.client.publish(pair.now, message).unwrap();
    }
    pair.drive();
    pair.server.acknowledge(pair.server_deliveries()[0], Outcome::Accept);
    pair.drive();
    pair.cut();

    let back = pair.client.into_unacknowledged();
    let payloads: Vec<&Bytes> = back.iter().map(|(_, message)| &message.payload).collect();
    assert_eq!(payloads, ["1", "2"]);

    let mut next = Pair::default().connected();
    next.client.publish(next.now, &back[0].1).unwrap();
    let sent = transmitted(&mut next.client);
    assert!(
        matches!(&sent[..], [Packet::Publish(publish)]
            if matches!(publish.delivery, Delivery::AtLeastOnce { dup: true, .. }) && publish.payload == "1"),
        "{sent:?}"
    );
}

#[test]
fn acknowledgement_of_nothing_is_harmless_and_one_out_of_order_counts() {
    let mut pair = Pair::default().connected();
    let tokens: Vec<Token> = (0..3)
        .filter_map(|_| pair.server.publish(pair.now, &telemetry("x")).unwrap())
        .collect();
    let puback = |number| Packet::Puback(PacketId::new(number).unwrap());

    pair.server
        .handle_bytes(pair.now, &wire(&[puback(3), puback(99), puback(1), puback(1)]));
    pair.drive();

    let expected = [Event::Acknowledged(tokens[2]), Event::Acknowledged(tokens[0])];
    assert_eq!(pair.server_events, expected);
    assert_eq!(pair.server.into_unacknowledged().len(), 1);
}

#[test]
fn message_without_a_form_on_the_wire_is_refused_and_takes_no_room() {
    let config = Config {
        outbound_window: 1,
        ..Config::default()
    };
    let mut pair = Pair::new(
        config.clone(),
        config,
        Connect {
            keep_alive_seconds: 0,
            ..crate::testing::connect()
        },
    );
    assert_eq!(
        pair.client.publish(pair.now, &telemetry("early")),
        Err(PublishError::NotOpen)
    );
    pair = pair.connected();

    let nowhere = Message {
        qos: Qos::AtLeastOnce,
        ..Message::default()
    };
    assert!(matches!(
        pair.client.publish(pair.now, &nowhere),
        Err(PublishError::Encode(_))
    ));
    let twice = Message {
        qos: Qos::ExactlyOnce,
        ..telemetry("x")
    };
    assert_eq!(pair.client.publish(pair.now, &twice), Err(PublishError::ExactlyOnce));

    assert_eq!(transmitted(&mut pair.client), []);
    assert!(pair.client.can_publish());
}

#[test]
fn packet_ids_in_flight_are_never_given_out_again() {
    let mut flow = Flow::starting_at(4, u16::MAX - 1);
    let requests = Requests::new(1);
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let id = flow.allocate(&requests);
        flow.sent(id, Message::default());
        waiting.push(id);
    }
    assert_eq!(
        waiting.iter().map(|id| id.get()).collect::<Vec<_>>(),
        [65_534, 65_535, 1, 2]
    );

    // One stays for ever, the others come and go through all ids more than twice.
    let stays = waiting[1];
    for id in [waiting[0], waiting[2], waiting[3]] {
        assert!(flow.acknowledged(id).is_some());
    }
    let mut seen = HashSet::new();
    for _ in 0..150_000 {
        let id = flow.allocate(&requests);
        assert_ne!(id, stays);
        seen.insert(id);
        flow.sent(id, Message::default());
        assert!(flow.acknowledged(id).is_some());
    }

    assert_eq!(seen.len(), 65_534, "every other id is used");
}
