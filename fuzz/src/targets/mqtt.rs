//! Targets of `holm-mqtt`.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use holm_mqtt::{Config, Connect, Event, Granted, Outcome, Packet, Session};

/// The most bytes of a packet here.
const MAX_PACKET: usize = 32 * 1024;
/// The most that a session may hold to give out, whatever it is told: its limits with room for one packet more.
const MAX_OUTPUT: usize = 4 * 1024 * 1024;

pub(super) fn decode(bytes: &[u8]) {
    let whole = packets(&mut BytesMut::from(bytes), bytes);
    let mut pieces = BytesMut::new();
    let mut piecewise = Vec::new();
    for piece in bytes.chunks(7) {
        pieces.extend_from_slice(piece);
        piecewise.extend(packets(&mut pieces, bytes));
        if piecewise.last().is_some_and(Option::is_none) {
            break;
        }
    }
    let good = |all: &[Option<Packet>]| all.iter().flatten().cloned().collect::<Vec<_>>();
    assert_eq!(good(&whole), good(&piecewise), "whole and in pieces differ");
    for packet in good(&whole) {
        let mut out = BytesMut::new();
        if holm_mqtt::encode(&packet, &mut out).is_ok() {
            assert_eq!(
                holm_mqtt::decode(&mut out, usize::MAX).ok().flatten().as_ref(),
                Some(&packet)
            );
        }
    }
}

/// The packets at the front of the input; `None` at the end when it broke a rule.
fn packets(input: &mut BytesMut, all: &[u8]) -> Vec<Option<Packet>> {
    let mut packets = Vec::new();
    loop {
        match holm_mqtt::decode(input, MAX_PACKET) {
            Ok(Some(packet)) => packets.push(Some(packet)),
            Ok(None) => return packets,
            Err(_) => {
                packets.push(None);
                return packets;
            }
        }
        assert!(packets.len() <= all.len(), "more packets than bytes");
    }
}

pub(super) fn server(bytes: &[u8]) {
    let now = Instant::now();
    drive(Session::server(now, Config::default()), now, bytes);
}

pub(super) fn client(bytes: &[u8]) {
    let now = Instant::now();
    let mut connect = BytesMut::from(&b"\x10\x11\0\x04MQTT\x04\xc2\0\x3c\0\x01d\0\0\0\0"[..]);
    let Ok(Some(Packet::Connect(connect))) = holm_mqtt::decode(&mut connect, MAX_PACKET) else {
        unreachable!("the CONNECT of this program is one");
    };
    let connect: Connect = *connect;
    if let Ok(session) = Session::client(now, Config::default(), connect) {
        drive(session, now, bytes);
    }
}

/// Gives the bytes in pieces, answers what the session asks, lets time pass, takes what it sends.
fn drive(mut session: Session, mut now: Instant, bytes: &[u8]) {
    let mut out = BytesMut::new();
    for piece in bytes.chunks(257) {
        session.handle_bytes(now, piece);
        let mut late = Vec::new();
        while let Some(event) = session.poll_event() {
            match event {
                Event::Connect(_) => drop(session.accept(now, false)),
                Event::Publish {
                    delivery: Some(delivery),
                    ..
                } => late.push(delivery),
                Event::Subscribe { request, filters } => {
                    let granted = vec![Granted::Failure; filters.len()];
                    session.suback(request, &granted).ok();
                }
                Event::Unsubscribe { request, .. } => drop(session.unsuback(request).ok()),
                _ => {}
            }
        }
        // Acknowledged in the wrong order on purpose: the session must put them right.
        for delivery in late.into_iter().rev() {
            session.acknowledge(delivery, Outcome::Accept);
        }
        now += Duration::from_millis(100);
        session.handle_timeout(now);
        while session.poll_transmit(&mut out) {}
        assert!(out.len() <= MAX_OUTPUT, "{} bytes to send", out.len());
        out.clear();
    }
    session.handle_end();
    while session.poll_event().is_some() {}
}
