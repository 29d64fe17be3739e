//! Acknowledgements of inbound publishes: in the order of arrival, after the application, once.

use proptest::prelude::*;

use crate::testing::{Pair, deliveries, events, telemetry, transmitted, wire};
use crate::{Closed, Config, Delivery, DeliveryId, Event, Message, Outcome, Packet, PacketId, Publish, Qos, Violation};

/// A connected pair whose windows hold `window` messages.
fn pair(window: u16) -> Pair {
    let config = Config {
        inbound_window: usize::from(window),
        outbound_window: window,
        max_events: 1000,
        ..Config::default()
    };
    Pair::new(config.clone(), config, crate::testing::connect()).connected()
}

fn publish(pair: &mut Pair, count: usize) {
    for number in 0..count {
        pair.client.publish(pair.now, &telemetry(number.to_string())).unwrap();
    }
    pair.drive();
}

fn packet_ids(packets: &[Packet]) -> Vec<u16> {
    packets
        .iter()
        .map(|packet| match packet {
            Packet::Puback(id) => id.get(),
            other => panic!("a PUBACK, not {other:?}"),
        })
        .collect()
}

/// Row 42.
fn settled_in(order: &[usize]) -> Vec<u16> {
    let mut pair = pair(100);
    publish(&mut pair, 100);
    let deliveries = pair.server_deliveries();
    assert_eq!(deliveries.len(), 100);

    let mut sent = Vec::new();
    for index in order {
        assert!(pair.server.acknowledge(deliveries[*index], Outcome::Accept));
        sent.extend(packet_ids(&transmitted(&mut pair.server)));
    }
    sent
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    /// Row 42.
    #[test]
    fn hundred_publishes_settled_in_any_order_are_acknowledged_in_the_order_of_arrival(
        order in Just((0..100).collect::<Vec<usize>>()).prop_shuffle()
    ) {
        let expected: Vec<u16> = (1..=100).collect();
        prop_assert_eq!(settled_in(&order), expected);
    }
}

#[test]
fn nothing_is_acknowledged_before_the_application_settles_it() {
    let mut pair = pair(3);
    publish(&mut pair, 3);
    let deliveries = pair.server_deliveries();

    assert_eq!(transmitted(&mut pair.server), []);
    pair.server.acknowledge(deliveries[1], Outcome::Accept);
    assert_eq!(transmitted(&mut pair.server), []);
    pair.server.acknowledge(deliveries[0], Outcome::Accept);

    assert_eq!(packet_ids(&transmitted(&mut pair.server)), [1, 2]);
}

#[test]
fn delivery_is_settled_once() {
    let mut pair = pair(3);
    publish(&mut pair, 2);
    let deliveries = pair.server_deliveries();

    assert!(pair.server.acknowledge(deliveries[1], Outcome::Accept));
    assert!(!pair.server.acknowledge(deliveries[1], Outcome::Close));
    assert!(pair.server.acknowledge(deliveries[0], Outcome::Accept));
    assert!(!pair.server.acknowledge(deliveries[0], Outcome::Accept));

    assert_eq!(packet_ids(&transmitted(&mut pair.server)), [1, 2]);
}

#[test]
fn sixteen_unacknowledged_publishes_stop_the_reading_by_default() {
    let client = Config {
        outbound_window: 40,
        ..Config::default()
    };
    let mut pair = Pair::new(Config::default(), client, crate::testing::connect()).connected();

    publish(&mut pair, 40);
    assert_eq!(pair.server_deliveries().len(), 16);
    assert!(!pair.server.wants_input());
    pair.server.acknowledge(pair.server_deliveries()[0], Outcome::Accept);
    pair.drive();

    assert_eq!(pair.server_deliveries().len(), 17, "room for one");
    assert!(!pair.server.wants_input());
}

#[test]
fn publish_at_qos_0_needs_no_acknowledgement_and_no_room() {
    let mut pair = pair(1);
    publish(&mut pair, 1);
    let quiet = Message {
        qos: Qos::AtMostOnce,
        ..telemetry("quiet")
    };
    let bytes = wire(&[Packet::Publish(Publish {
        topic: quiet.topic.clone(),
        payload: quiet.payload.clone(),
        retain: false,
        delivery: Delivery::AtMostOnce,
    })]);

    pair.server.handle_bytes(pair.now, &bytes);

    let expected = Event::Publish {
        message: quiet,
        delivery: None,
    };
    assert_eq!(events(&mut pair.server), [expected]);
}

#[test]
fn refusal_takes_effect_in_its_turn_and_what_comes_later_is_not_taken_in() {
    let mut pair = pair(3);
    publish(&mut pair, 3);
    let deliveries = pair.server_deliveries();

    pair.server.acknowledge(deliveries[1], Outcome::Close);
    assert!(!pair.server.wants_input());
    assert_eq!(events(&mut pair.server), []);
    pair.server.acknowledge(deliveries[0], Outcome::Accept);

    assert_eq!(packet_ids(&transmitted(&mut pair.server)), [1]);
    assert_eq!(events(&mut pair.server), [Event::Closed(Closed::ByApplication)]);
    assert!(
        !pair.server.acknowledge(deliveries[2], Outcome::Accept),
        "the session has ended"
    );
}

/// Two PUBACKs for one id could acknowledge a later message that took over the id.
#[test]
fn repeat_of_a_waiting_publish_is_told_and_acknowledged_once() {
    let mut pair = pair(3);
    let again = |dup| {
        wire(&[Packet::Publish(Publish {
            topic: telemetry("x").topic,
            payload: "x".into(),
            retain: false,
            delivery: Delivery::AtLeastOnce {
                id: PacketId::new(7).unwrap(),
                dup,
            },
        })])
    };
    pair.server.handle_bytes(pair.now, &again(false));
    pair.server.handle_bytes(pair.now, &again(true));
    let told: Vec<DeliveryId> = deliveries(&events(&mut pair.server));
    assert_eq!(told.len(), 1);

    pair.server.acknowledge(told[0], Outcome::Accept);
    assert_eq!(packet_ids(&transmitted(&mut pair.server)), [7]);
    pair.server.handle_bytes(pair.now, &again(false));
    pair.server.handle_bytes(pair.now, &again(false));

    let violation = Violation::PacketIdInUse(PacketId::new(7).unwrap());
    assert_eq!(
        events(&mut pair.server).last(),
        Some(&Event::Closed(Closed::Violation(violation)))
    );
}
