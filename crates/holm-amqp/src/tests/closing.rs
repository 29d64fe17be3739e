//! The end of a connection, silence, and the beats against it.

use std::time::Duration;

use bytes::BytesMut;

use crate::codec::FrameBody;
use crate::performative::Performative;
use crate::testing::{Pair, closed, delivery, events, raw_frame, transmitted, transmitted_frames};
use crate::{AmqpError, Closed, Config, Event, Login, NewLink, Timer, Violation, condition};

#[test]
fn close_of_either_side_is_answered_and_both_end() {
    let mut pair = Pair::default().open();
    let error = AmqpError::new(condition::CONNECTION_FORCED, "restart");

    pair.server.close(pair.now, Some(error.clone()));
    pair.drive();

    assert_eq!(
        pair.client_events,
        [Event::Closed(Closed::ByPeer(Some(Box::new(error))))]
    );
    assert_eq!(pair.server_events, [Event::Closed(Closed::ByApplication)]);
    assert!(!pair.server.wants_input());
}

#[test]
fn close_that_is_not_answered_ends_in_time_and_drops_what_comes() {
    let mut pair = Pair::default().open();
    pair.server.close(pair.now, None);
    let _ = transmitted(&mut pair.server);
    pair.server.handle_bytes(pair.now, b"\0\0\0\x08\x02\0\0\0 what is this");
    assert_eq!(events(&mut pair.server), []);

    pair.server.handle_timeout(pair.now + Duration::from_secs(5));

    assert_eq!(events(&mut pair.server), [Event::Closed(Closed::ByApplication)]);
}

#[test]
fn violation_is_told_to_the_peer_with_its_condition_and_field() {
    let cases = [
        (
            BytesMut::from(&b"\0\0\0\x07"[..]),
            "amqp:connection:framing-error: the frame has a size of 7; the least is 8",
        ),
        (
            raw_frame(0, 0x14, &[b"\x42"]),
            "amqp:decode-error: the `handle` of `transfer` is of type boolean; send uint",
        ),
        (
            BytesMut::from(&b"\0\0\0\x0d\x02\0\0\x05\0\x53\x17\x45\x40"[..]),
            "amqp:decode-error: the `list of fields` of `end` has 1 bytes after its end; make sizes and counts agree",
        ),
        (
            raw_frame(5, 0x12, &[b"\xa1\x01x", b"\x43", b"\x42"]),
            "amqp:connection:framing-error: attach came on channel 5, which has no session; begin one first",
        ),
        (
            raw_frame(0, 0x10, &[b"\xa1\x01c"]),
            "amqp:illegal-state: open came where any other performative was expected",
        ),
        (
            raw_frame(0, 0x11, &[b"\x60\0\x09", b"\x43", b"\x43", b"\x43\x43"]),
            "amqp:decode-error: the `list of fields` of `begin` does not end where its size says; make size and count agree",
        ),
    ];

    for (bytes, expected) in cases {
        let mut pair = Pair::default().open();
        pair.server.handle_bytes(pair.now, &bytes);
        pair.drive();

        let Some(Closed::ByPeer(Some(error))) = closed(&pair.client_events) else {
            panic!("{:?}", pair.client_events);
        };
        assert_eq!(error.to_string(), expected);
        assert!(matches!(closed(&pair.server_events), Some(Closed::Violation(_))));
    }
}

#[test]
fn end_of_the_transport_is_told_after_what_came_before_it() {
    let config = Config {
        max_events: 1,
        ..Config::default()
    };
    let mut pair = Pair::new(config, Config::default(), Login::default()).open();
    let ends = pair.link_up(NewLink::sender("s", "node"), 10);
    for number in 0..3 {
        pair.client.send(ends.client, &delivery(number, "x")).unwrap();
    }
    let bytes = transmitted(&mut pair.client);

    pair.server.handle_bytes(pair.now, &bytes);
    pair.server.handle_end();
    let told = events(&mut pair.server);

    assert_eq!(told.len(), 4, "{told:?}");
    assert_eq!(closed(&told), Some(&Closed::Lost));
    assert!(!pair.server.settle(
        crate::testing::deliveries(&told)[0].id.unwrap(),
        crate::Outcome::Accepted
    ));
}

#[test]
fn idle_sides_keep_each_other_alive_and_silence_ends_it() {
    let mut pair = Pair::default().open();
    pair.advance(Duration::from_secs(3600));
    assert!(pair.server.is_open() && pair.client.is_open());

    // The client's bytes stop reaching the server.
    let deadline = pair.server.poll_timeout().unwrap();
    let mut now = deadline;
    while pair.server.is_open() {
        pair.server.handle_timeout(now);
        now = pair.server.poll_timeout().unwrap_or(now);
        assert!(now < pair.now + Duration::from_secs(361));
    }

    let told = events(&mut pair.server);
    assert_eq!(told, [Event::Closed(Closed::TimedOut(Timer::Silence))]);
    let frames = transmitted_frames(&mut pair.server);
    assert!(matches!(
        &frames.last().unwrap().body,
        FrameBody::Amqp(Performative::Close(_), _)
    ));
}

#[test]
fn empty_frame_comes_before_half_of_the_time_out_of_the_peer() {
    let impatient = Config {
        idle_timeout: Duration::from_secs(1),
        ..Config::default()
    };
    let mut pair = Pair::new(Config::default(), impatient, Login::default()).open();
    let _ = transmitted(&mut pair.server);

    let mut gap = Duration::ZERO;
    let mut last = pair.now;
    while gap < Duration::from_secs(60) {
        let deadline = pair.server.poll_timeout().unwrap();
        pair.server.handle_timeout(deadline);
        if !transmitted(&mut pair.server).is_empty() {
            assert!(deadline - last <= Duration::from_millis(500), "{:?}", deadline - last);
            last = deadline;
        }
        gap = deadline - pair.now;
    }
}

#[test]
fn silence_of_our_own_making_is_not_held_against_the_peer() {
    let config = Config {
        max_events: 1,
        idle_timeout: Duration::from_secs(10),
        ..Config::default()
    };
    let mut pair = Pair::new(config, Config::default(), Login::default()).open();
    let ends = pair.link_up(NewLink::sender("s", "node"), 10);
    pair.client.send(ends.client, &delivery(0, "x")).unwrap();
    let bytes = transmitted(&mut pair.client);
    pair.server.handle_bytes(pair.now, &bytes);
    assert!(!pair.server.wants_input(), "the application is slow");

    let later = pair.now + Duration::from_secs(16);
    pair.server.handle_timeout(later);

    assert!(pair.server.is_open());
    assert_eq!(events(&mut pair.server).len(), 1);
    pair.server.handle_timeout(later + Duration::from_secs(16));
    assert!(!pair.server.is_open(), "now it is the peer's");
}

#[test]
fn nothing_is_taken_from_the_application_after_the_end() {
    let mut pair = Pair::default().open();
    let ends = pair.link_up(NewLink::sender("s", "node"), 10);
    pair.client.close(pair.now, None);
    pair.drive();

    assert!(pair.client.begin().is_err());
    assert!(pair.client.send(ends.client, &delivery(0, "x")).is_err());
    assert!(!pair.client.detach(ends.client, true, None));
    assert!(!pair.client.end(ends.client.session(), None));
    pair.client.close(pair.now, None);
    assert!(events(&mut pair.client).is_empty(), "told once");
}

#[test]
fn violations_have_a_way_out_in_one_line() {
    let violations = [
        Violation::Header(*b"GET / HT"),
        Violation::MaxFrameSize(5),
        Violation::ChannelInUse(5),
        Violation::RemoteChannel(3),
    ];
    for violation in violations {
        let text = violation.to_string();
        assert!(!text.contains('\n') && !text.ends_with('.'), "{text}");
    }
}
