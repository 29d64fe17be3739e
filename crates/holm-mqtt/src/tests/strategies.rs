//! Any packet that has a form on the wire.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::{
    Connack, Connect, Credentials, Delivery, Granted, Packet, PacketId, Publish, Qos, Refusal, Suback, Subscribe,
    Subscription, Text, Unsubscribe, Version, Will,
};

fn text(least: usize) -> impl Strategy<Value = Text> {
    vec(
        any::<char>().prop_filter("U+0000 is refused", |c| *c != '\0'),
        least..20,
    )
    .prop_map(|chars| Text::try_from(chars.into_iter().collect::<String>()).unwrap())
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn id() -> impl Strategy<Value = PacketId> {
    (1u16..).prop_map(|number| PacketId::new(number).unwrap())
}

fn qos() -> impl Strategy<Value = Qos> {
    prop_oneof![Just(Qos::AtMostOnce), Just(Qos::AtLeastOnce), Just(Qos::ExactlyOnce)]
}

fn delivery() -> impl Strategy<Value = Delivery> {
    prop_oneof![
        Just(Delivery::AtMostOnce),
        (id(), any::<bool>()).prop_map(|(id, dup)| Delivery::AtLeastOnce { id, dup }),
        (id(), any::<bool>()).prop_map(|(id, dup)| Delivery::ExactlyOnce { id, dup }),
    ]
}

fn connect() -> impl Strategy<Value = Connect> {
    let will = (text(1), bytes(), qos(), any::<bool>()).prop_map(|(topic, payload, qos, retain)| Will {
        topic,
        payload,
        qos,
        retain,
    });
    let credentials =
        (text(0), option::of(bytes())).prop_map(|(user_name, password)| Credentials { user_name, password });
    (
        text(0),
        any::<bool>(),
        any::<u16>(),
        option::of(will),
        option::of(credentials),
    )
        .prop_map(
            |(client_id, clean_session, keep_alive_seconds, will, credentials)| Connect {
                version: Version::V311,
                client_id,
                clean_session,
                keep_alive_seconds,
                will,
                credentials,
            },
        )
}

fn connack() -> impl Strategy<Value = Connack> {
    prop_oneof![
        any::<bool>().prop_map(|session_present| Connack::Accepted { session_present }),
        (1u8..=5).prop_map(|code| Connack::Refused(Refusal::from_code(code).unwrap())),
    ]
}

fn publish() -> impl Strategy<Value = Publish> {
    (text(1), bytes(), any::<bool>(), delivery()).prop_map(|(topic, payload, retain, delivery)| Publish {
        topic,
        payload,
        retain,
        delivery,
    })
}

fn subscription() -> impl Strategy<Value = Subscription> {
    (text(1), qos()).prop_map(|(filter, qos)| Subscription { filter, qos })
}

fn granted() -> impl Strategy<Value = Granted> {
    prop_oneof![Just(Granted::Failure), qos().prop_map(Granted::Qos)]
}

pub(super) fn packet() -> impl Strategy<Value = Packet> {
    prop_oneof![
        connect().prop_map(|connect| Packet::Connect(Box::new(connect))),
        connack().prop_map(Packet::Connack),
        publish().prop_map(Packet::Publish),
        prop_oneof![
            id().prop_map(Packet::Puback),
            id().prop_map(Packet::Pubrec),
            id().prop_map(Packet::Pubrel),
            id().prop_map(Packet::Pubcomp),
            id().prop_map(Packet::Unsuback),
        ],
        (id(), vec(subscription(), 1..6)).prop_map(|(id, filters)| Packet::Subscribe(Subscribe { id, filters })),
        (id(), vec(granted(), 1..6)).prop_map(|(id, granted)| Packet::Suback(Suback { id, granted })),
        (id(), vec(text(1), 1..6)).prop_map(|(id, filters)| Packet::Unsubscribe(Unsubscribe { id, filters })),
        prop_oneof![Just(Packet::Pingreq), Just(Packet::Pingresp), Just(Packet::Disconnect)],
    ]
}
