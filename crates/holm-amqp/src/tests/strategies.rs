//! Any value, performative and message that has a form on the wire.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::codec::{Frame, FrameBody};
use crate::message::Header;
use crate::performative::{
    Attach, Begin, Close, DeliveryState, DeliveryTag, Detach, Disposition, Durability, End, ExpiryPolicy, Flow,
    Modified, Open, Outcome, Performative, Received, ReceiverSettleMode, Role, SaslChallenge, SaslCode, SaslFrame,
    SaslInit, SaslMechanisms, SaslOutcome, SaslResponse, Secret, SenderSettleMode, Source, Target, Transfer,
};
use crate::{
    AmqpError, ApplicationProperties, Array, Body, Fields, Kind, Message, MessageId, Properties, Symbol, Text,
    Timestamp, Value,
};

fn text() -> BoxedStrategy<Text> {
    prop_oneof![
        9 => vec(any::<char>(), 0..12).prop_map(|chars| Text::from(chars.into_iter().collect::<String>())),
        1 => Just(Text::from("x".repeat(300))),
    ]
    .boxed()
}

fn symbol() -> BoxedStrategy<Symbol> {
    vec(0u8..128, 0..12)
        .prop_map(|bytes| Symbol::try_from(Bytes::from(bytes)).unwrap())
        .boxed()
}

fn binary() -> BoxedStrategy<Bytes> {
    prop_oneof![
        9 => vec(any::<u8>(), 0..20).prop_map(Bytes::from),
        1 => Just(Bytes::from(vec![7; 400])),
    ]
    .boxed()
}

fn primitive() -> BoxedStrategy<Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Boolean),
        prop_oneof![
            any::<u8>().prop_map(Value::Ubyte),
            any::<u16>().prop_map(Value::Ushort),
            prop_oneof![any::<u32>(), 0..300u32].prop_map(Value::Uint),
            prop_oneof![any::<u64>(), 0..300u64].prop_map(Value::Ulong),
            any::<i8>().prop_map(Value::Byte),
            any::<i16>().prop_map(Value::Short),
            prop_oneof![any::<i32>(), -200..200i32].prop_map(Value::Int),
            prop_oneof![any::<i64>(), -200..200i64].prop_map(Value::Long),
        ],
        any::<u32>().prop_map(|bits| Value::from(f32::from_bits(bits))),
        any::<u64>().prop_map(|bits| Value::from(f64::from_bits(bits))),
        any::<[u8; 4]>().prop_map(Value::Decimal32),
        any::<[u8; 8]>().prop_map(Value::Decimal64),
        any::<[u8; 16]>().prop_map(Value::Decimal128),
        any::<char>().prop_map(Value::Char),
        any::<i64>().prop_map(|time| Value::Timestamp(Timestamp(time))),
        any::<[u8; 16]>().prop_map(Value::Uuid),
        binary().prop_map(Value::Binary),
        text().prop_map(Value::String),
        symbol().prop_map(Value::Symbol),
    ]
    .boxed()
}

pub(super) fn value() -> BoxedStrategy<Value> {
    primitive()
        .prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..6).prop_map(Value::List),
                vec((inner.clone(), inner.clone()), 0..5).prop_map(Value::Map),
                (vec(inner.clone(), 0..6), option::of(symbol()))
                    .prop_map(|(items, name)| Value::Array(array(items, name))),
                (inner.clone(), inner).prop_map(|(descriptor, value)| Value::described(descriptor, value)),
            ]
        })
        .boxed()
}

/// The items that are of the kind of the first one.
fn array(items: Vec<Value>, name: Option<Symbol>) -> Array {
    let kind = items
        .iter()
        .map(Value::kind)
        .find(|kind| *kind != Kind::Described)
        .unwrap_or(Kind::Uint);
    let items = items.into_iter().filter(|item| item.kind() == kind).collect();
    Array::new(kind, name.map(Value::Symbol), items).unwrap()
}

fn fields() -> BoxedStrategy<Fields> {
    vec((symbol(), value()), 0..3).prop_map(Fields::from_iter).boxed()
}

fn symbols() -> impl Strategy<Value = Vec<Symbol>> {
    vec(symbol(), 0..3)
}

fn error() -> BoxedStrategy<AmqpError> {
    (symbol(), option::of(text()), fields())
        .prop_map(|(condition, description, info)| AmqpError {
            condition,
            description,
            info,
        })
        .boxed()
}

fn errors() -> BoxedStrategy<Option<Box<AmqpError>>> {
    option::of(error().prop_map(Box::new)).boxed()
}

fn state() -> BoxedStrategy<DeliveryState> {
    let modified = (any::<bool>(), any::<bool>(), fields()).prop_map(|(failed, here, annotations)| {
        Outcome::Modified(Box::new(Modified {
            delivery_failed: failed,
            undeliverable_here: here,
            message_annotations: annotations,
        }))
    });
    prop_oneof![
        Just(Outcome::Accepted.into()),
        Just(Outcome::Released.into()),
        errors().prop_map(|error| Outcome::Rejected(error).into()),
        modified.prop_map(DeliveryState::from),
        (any::<u32>(), any::<u64>()).prop_map(|(section_number, section_offset)| DeliveryState::Received(Received {
            section_number,
            section_offset
        })),
    ]
    .boxed()
}

fn source() -> BoxedStrategy<Source> {
    let policy = prop_oneof![
        Just(ExpiryPolicy::Never),
        Just(ExpiryPolicy::SessionEnd),
        Just(ExpiryPolicy::LinkDetach)
    ];
    let durable = prop_oneof![Just(Durability::None), Just(Durability::UnsettledState)];
    (
        option::of(text()),
        durable,
        policy,
        any::<u32>(),
        any::<bool>(),
        fields(),
        option::of(state()),
        symbols(),
    )
        .prop_map(
            |(address, durable, expiry_policy, timeout, dynamic, filter, default_outcome, outcomes)| Source {
                durable,
                expiry_policy,
                timeout,
                dynamic,
                filter,
                default_outcome,
                outcomes,
                ..Source::at(address)
            },
        )
        .boxed()
}

fn target() -> BoxedStrategy<Target> {
    (option::of(text()), any::<u32>(), fields(), symbols())
        .prop_map(|(address, timeout, dynamic_node_properties, capabilities)| Target {
            timeout,
            dynamic_node_properties,
            capabilities,
            ..Target::at(address)
        })
        .boxed()
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Sender), Just(Role::Receiver)]
}

fn receiver_mode() -> impl Strategy<Value = ReceiverSettleMode> {
    prop_oneof![Just(ReceiverSettleMode::First), Just(ReceiverSettleMode::Second)]
}

fn open() -> BoxedStrategy<Open> {
    (
        text(),
        option::of(text()),
        any::<u32>(),
        any::<u16>(),
        option::of(any::<u32>()),
        symbols(),
        fields(),
    )
        .prop_map(
            |(container_id, hostname, max_frame_size, channel_max, idle_time_out, locales, properties)| Open {
                container_id,
                hostname,
                max_frame_size,
                channel_max,
                idle_time_out,
                outgoing_locales: locales.clone(),
                incoming_locales: Vec::new(),
                offered_capabilities: Vec::new(),
                desired_capabilities: locales,
                properties,
            },
        )
        .boxed()
}

fn begin() -> BoxedStrategy<Begin> {
    (option::of(any::<u16>()), any::<[u32; 4]>(), fields())
        .prop_map(|(remote_channel, numbers, properties)| Begin {
            remote_channel,
            next_outgoing_id: numbers[0],
            incoming_window: numbers[1],
            outgoing_window: numbers[2],
            handle_max: numbers[3],
            offered_capabilities: Vec::new(),
            desired_capabilities: Vec::new(),
            properties,
        })
        .boxed()
}

fn attach() -> BoxedStrategy<Attach> {
    let sender_mode = prop_oneof![
        Just(SenderSettleMode::Unsettled),
        Just(SenderSettleMode::Settled),
        Just(SenderSettleMode::Mixed)
    ];
    (
        (text(), any::<u32>(), role(), sender_mode, receiver_mode()),
        option::of(source().prop_map(Box::new)),
        option::of(target().prop_map(Box::new)),
        option::of(any::<u64>()),
        fields(),
    )
        .prop_map(
            |((name, handle, role, snd, rcv), source, target, max_message_size, properties)| Attach {
                snd_settle_mode: snd,
                rcv_settle_mode: rcv,
                source,
                target,
                max_message_size,
                properties,
                ..Attach::new(name, handle, role)
            },
        )
        .boxed()
}

fn flow() -> BoxedStrategy<Flow> {
    (
        any::<[Option<u32>; 5]>(),
        any::<[u32; 3]>(),
        any::<bool>(),
        any::<bool>(),
        fields(),
    )
        .prop_map(|(optional, numbers, drain, echo, properties)| Flow {
            next_incoming_id: optional[0],
            incoming_window: numbers[0],
            next_outgoing_id: numbers[1],
            outgoing_window: numbers[2],
            handle: optional[1],
            delivery_count: optional[2],
            link_credit: optional[3],
            available: optional[4],
            drain,
            echo,
            properties,
        })
        .boxed()
}

fn transfer() -> BoxedStrategy<Transfer> {
    (
        any::<u32>(),
        any::<[Option<u32>; 2]>(),
        option::of(vec(any::<u8>(), 0..=32)),
        any::<[bool; 4]>(),
        option::of(any::<bool>()),
        option::of(receiver_mode()),
        option::of(state()),
    )
        .prop_map(
            |(handle, optional, tag, flags, settled, rcv_settle_mode, state)| Transfer {
                handle,
                delivery_id: optional[0],
                delivery_tag: tag.map(|tag| DeliveryTag::try_from(Bytes::from(tag)).unwrap()),
                message_format: optional[1],
                settled,
                more: flags[0],
                rcv_settle_mode,
                state,
                resume: flags[1],
                aborted: flags[2],
                batchable: flags[3],
            },
        )
        .boxed()
}

fn disposition() -> BoxedStrategy<Disposition> {
    (
        role(),
        any::<u32>(),
        option::of(any::<u32>()),
        any::<bool>(),
        option::of(state()),
    )
        .prop_map(|(role, first, last, settled, state)| Disposition {
            role,
            first,
            last,
            settled,
            state,
            batchable: settled,
        })
        .boxed()
}

pub(super) fn performative() -> BoxedStrategy<Performative> {
    prop_oneof![
        open().prop_map(|open| Performative::Open(Box::new(open))),
        begin().prop_map(|begin| Performative::Begin(Box::new(begin))),
        attach().prop_map(|attach| Performative::Attach(Box::new(attach))),
        flow().prop_map(|flow| Performative::Flow(Box::new(flow))),
        transfer().prop_map(Performative::Transfer),
        disposition().prop_map(Performative::Disposition),
        (any::<u32>(), any::<bool>(), errors()).prop_map(|(handle, closed, error)| Performative::Detach(Detach {
            handle,
            closed,
            error
        })),
        errors().prop_map(|error| Performative::End(End { error })),
        errors().prop_map(|error| Performative::Close(Close { error })),
    ]
    .boxed()
}

fn sasl() -> BoxedStrategy<SaslFrame> {
    let secret = || binary().prop_map(Secret);
    prop_oneof![
        symbols().prop_map(|mechanisms| SaslFrame::Mechanisms(SaslMechanisms { mechanisms })),
        (symbol(), option::of(secret()), option::of(text())).prop_map(|(mechanism, initial_response, hostname)| {
            SaslFrame::Init(SaslInit {
                mechanism,
                initial_response,
                hostname,
            })
        }),
        secret().prop_map(|challenge| SaslFrame::Challenge(SaslChallenge { challenge })),
        secret().prop_map(|response| SaslFrame::Response(SaslResponse { response })),
        option::of(secret()).prop_map(|additional_data| SaslFrame::Outcome(SaslOutcome {
            code: SaslCode::SysTemp,
            additional_data
        })),
    ]
    .boxed()
}

pub(super) fn frame() -> BoxedStrategy<Frame> {
    let with_payload = (transfer(), binary());
    let body = prop_oneof![
        1 => Just(FrameBody::Empty),
        2 => with_payload.prop_map(|(transfer, payload)| FrameBody::Amqp(Performative::Transfer(transfer), payload)),
        8 => performative().prop_map(|performative| FrameBody::Amqp(performative, Bytes::new())),
        2 => sasl().prop_map(FrameBody::Sasl),
    ];
    (any::<u16>(), body)
        .prop_map(|(channel, body)| Frame { channel, body })
        .boxed()
}

fn message_id() -> BoxedStrategy<MessageId> {
    prop_oneof![
        any::<u64>().prop_map(MessageId::Ulong),
        any::<[u8; 16]>().prop_map(MessageId::Uuid),
        binary().prop_map(MessageId::Binary),
        text().prop_map(MessageId::String),
    ]
    .boxed()
}

fn properties() -> BoxedStrategy<Properties> {
    (
        option::of(message_id()),
        option::of(message_id()),
        option::of(binary()),
        option::of(text()),
        option::of(symbol()),
        option::of(any::<i64>()),
        option::of(any::<u32>()),
    )
        .prop_map(
            |(message_id, correlation_id, user_id, to, content_type, time, group_sequence)| Properties {
                message_id,
                correlation_id,
                user_id,
                to: to.clone(),
                reply_to: to,
                content_type: content_type.clone(),
                content_encoding: content_type,
                absolute_expiry_time: time.map(Timestamp),
                creation_time: time.map(Timestamp),
                group_sequence,
                ..Properties::default()
            },
        )
        .boxed()
}

pub(super) fn message() -> BoxedStrategy<Message> {
    let body = prop_oneof![
        Just(Body::Empty),
        vec(binary(), 1..4).prop_map(Body::Data),
        vec(vec(value(), 0..3), 1..3).prop_map(Body::Sequence),
        value().prop_map(Body::Value),
    ];
    let header = (any::<bool>(), any::<u8>(), option::of(any::<u32>()), any::<u32>()).prop_map(
        |(durable, priority, ttl, delivery_count)| Header {
            durable,
            priority,
            ttl,
            first_acquirer: durable,
            delivery_count,
        },
    );
    (
        option::of(header.prop_map(Box::new)),
        fields(),
        fields(),
        option::of(properties().prop_map(Box::new)),
        vec((text(), value()), 0..3),
        body,
        fields(),
    )
        .prop_map(
            |(header, delivery_annotations, message_annotations, properties, application_properties, body, footer)| {
                Message {
                    header,
                    delivery_annotations,
                    message_annotations,
                    properties,
                    application_properties: ApplicationProperties::from_iter(application_properties),
                    body,
                    footer,
                }
            },
        )
        .boxed()
}
