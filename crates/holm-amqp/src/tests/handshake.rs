//! The beginning: protocol headers, SASL of each kind, open. Rows are those of `hub-device-protocols.md` §3.1.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::codec::{Frame, FrameBody, ProtocolHeader, encode_frame};
use crate::performative::{Open, Performative, SaslCode, SaslFrame, SaslInit, SaslResponse, Secret};
use crate::testing::{
    Pair, closed, epoch, events, frame, raw_frame, transmitted, transmitted_frames, transmitted_performatives,
};
use crate::{Closed, Config, Connection, Credentials, Event, Login, Symbol, Timer, Violation};

fn server() -> Connection {
    Connection::server(epoch(), Arc::new(Config::default()))
}

fn login(credentials: Credentials) -> Login {
    Login {
        hostname: Some("hub.test".into()),
        credentials: Some(credentials),
        ..Login::default()
    }
}

fn plain() -> Credentials {
    Credentials::Plain {
        user: "dev1@sas.hub".into(),
        password: Secret(Bytes::from_static(b"SharedAccessSignature sr=hub.test")),
    }
}

#[test]
fn client_without_sasl_is_let_in_without_a_question() {
    let mut pair = Pair::default();

    pair.drive();

    assert!(
        matches!(&pair.server_events[..], [Event::Opened(_)]),
        "{:?}",
        pair.server_events
    );
    assert!(
        matches!(&pair.client_events[..], [Event::Opened(_)]),
        "{:?}",
        pair.client_events
    );
}

#[test]
fn every_mechanism_is_told_to_the_application_with_its_credentials() {
    for credentials in [
        plain(),
        Credentials::Anonymous,
        Credentials::Mssbcbs,
        Credentials::External,
    ] {
        let mut pair = Pair::new(Config::default(), Config::default(), login(credentials.clone()));
        pair.drive();

        let hostname = Some("hub.test".into());
        assert_eq!(pair.server_events, [Event::Authenticate { credentials, hostname }]);
        assert!(pair.server.authenticate(pair.now, SaslCode::Ok));
        pair.drive();

        assert!(pair.server.is_open() && pair.client.is_open());
        assert!(
            !pair.server.authenticate(pair.now, SaslCode::Ok),
            "one answer is enough"
        );
    }
}

#[test]
fn a_client_that_is_challenged_answers_before_it_is_decided_on() {
    let config = Config {
        mechanisms: vec![Symbol::from_static("TPM")],
        ..Config::default()
    };
    let mut server = Connection::server(epoch(), Arc::new(config));
    let init = SaslFrame::Init(SaslInit {
        mechanism: Symbol::from_static("TPM"),
        initial_response: Some(Secret(Bytes::from_static(b"\0scope\0reg\0key"))),
        hostname: None,
    });
    let of_sasl = |frame: SaslFrame| {
        let (mut out, body) = (BytesMut::new(), FrameBody::Sasl(frame));
        encode_frame(&Frame { channel: 0, body }, &mut out);
        out
    };
    let answer = || {
        of_sasl(SaslFrame::Response(SaslResponse {
            response: Secret(Bytes::from_static(b"\0answer")),
        }))
    };

    server.handle_bytes(epoch(), &ProtocolHeader::Sasl.bytes());
    server.handle_bytes(epoch(), &of_sasl(init));
    assert!(matches!(events(&mut server)[..], [Event::Authenticate { .. }]));
    for _ in 0..2 {
        assert!(server.challenge(epoch(), Bytes::from_static(&[0])));
        assert!(!server.challenge(epoch(), Bytes::from_static(&[0])), "one at a time");
        assert!(!server.authenticate(epoch(), SaslCode::Ok), "it has yet to answer");
        let sent = transmitted_frames(&mut server);
        let Some(FrameBody::Sasl(SaslFrame::Challenge(asked))) = sent.last().map(|frame| &frame.body) else {
            panic!("{sent:?}");
        };
        assert_eq!(asked.challenge.0.as_ref(), [0]);
        server.handle_bytes(epoch(), &answer());
        assert_eq!(
            events(&mut server),
            [Event::SaslResponse(Secret(Bytes::from_static(b"\0answer")))]
        );
    }

    assert!(server.authenticate(epoch(), SaslCode::Ok));
    let mut other = Connection::server(epoch(), Arc::new(Config::default()));
    other.handle_bytes(epoch(), &ProtocolHeader::Sasl.bytes());
    other.handle_bytes(epoch(), &answer());
    assert!(closed(&events(&mut other)).is_some(), "an answer to nothing is none");
}

#[test]
fn mechanisms_are_offered_in_the_order_of_the_configuration() {
    let mut server = server();

    server.handle_bytes(epoch(), &ProtocolHeader::Sasl.bytes());
    let frames = transmitted_frames(&mut server);

    let [frame] = &frames[..] else { panic!("{frames:?}") };
    let FrameBody::Sasl(SaslFrame::Mechanisms(offered)) = &frame.body else {
        panic!("{frame:?}");
    };
    assert_eq!(
        offered.mechanisms,
        ["MSSBCBS", "ANONYMOUS", "PLAIN", "EXTERNAL"].map(Symbol::from_static)
    );
}

#[test]
fn refused_client_gets_the_code_and_both_sides_end() {
    for code in [SaslCode::Auth, SaslCode::SysTemp] {
        let mut pair = Pair::new(Config::default(), Config::default(), login(plain()));
        pair.drive();

        assert!(pair.server.authenticate(pair.now, code));
        pair.drive();

        assert_eq!(closed(&pair.server_events), Some(&Closed::Refused(code)));
        assert_eq!(closed(&pair.client_events), Some(&Closed::Refused(code)));
    }
}

#[test]
fn mechanism_that_is_not_offered_is_not_taken() {
    let config = Config {
        mechanisms: vec![Symbol::from_static("EXTERNAL")],
        ..Config::default()
    };
    let mut honest = Pair::new(config.clone(), Config::default(), login(plain()));
    honest.drive();
    let not_offered = Closed::NotOffered("PLAIN".into(), "EXTERNAL".into());
    assert_eq!(closed(&honest.client_events), Some(&not_offered));

    let mut server = Connection::server(epoch(), Arc::new(config));
    server.handle_bytes(epoch(), &ProtocolHeader::Sasl.bytes());
    server.handle_bytes(
        epoch(),
        b"\0\0\0\x1b\x02\x01\0\0\0\x53\x41\xc0\x0e\x03\xa3\x09ANONYMOUS\x40\x40",
    );
    assert_eq!(closed(&events(&mut server)), Some(&Closed::Refused(SaslCode::Auth)));
}

#[test]
fn application_that_does_not_decide_tells_the_client_to_come_later() {
    let mut pair = Pair::new(Config::default(), Config::default(), login(plain()));
    pair.drive();
    assert!(!pair.server.wants_input(), "what comes meanwhile waits");

    pair.advance(Duration::from_secs(60));

    assert_eq!(closed(&pair.server_events), Some(&Closed::Refused(SaslCode::SysTemp)));
    assert!(closed(&pair.client_events).is_some());
}

#[test]
fn client_that_says_nothing_is_closed_in_time() {
    let mut server = server();
    let deadline = server.poll_timeout().unwrap();

    server.handle_timeout(deadline);

    assert_eq!(events(&mut server), [Event::Closed(Closed::TimedOut(Timer::Handshake))]);
}

#[test]
fn foreign_headers_are_answered_with_our_own_and_closed() {
    let headers: [&[u8]; 4] = [
        b"AMQP\x02\x01\0\0",
        b"AMQP\0\0\x09\x01",
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03",
    ];

    for header in headers {
        let mut server = server();
        server.handle_bytes(epoch(), header);

        assert_eq!(transmitted(&mut server), ProtocolHeader::Sasl.bytes()[..], "{header:?}");
        assert!(
            matches!(
                events(&mut server)[..],
                [Event::Closed(Closed::Violation(Violation::Header(_)))]
            ),
            "{header:?}"
        );
    }
}

#[test]
fn half_a_header_is_waited_for() {
    let mut server = server();

    server.handle_bytes(epoch(), b"AMQ");

    assert_eq!(events(&mut server), []);
    server.handle_bytes(epoch(), b"P\0\x01\0\0");
    assert_eq!(transmitted(&mut server), ProtocolHeader::Amqp.bytes()[..]);
}

#[test]
fn open_has_every_limit_as_a_number() {
    let mut pair = Pair::default();

    pair.drive();

    let Some(Event::Opened(open)) = pair.client_events.first() else {
        panic!("{:?}", pair.client_events);
    };
    let limits = (open.max_frame_size, open.channel_max, open.idle_time_out);
    assert_eq!(limits, (65_536, 1023, Some(240_000)));
    assert_eq!(open.container_id, "holm");
}

#[test]
fn frame_before_open_is_refused_after_our_open() {
    let mut server = server();
    server.handle_bytes(epoch(), &ProtocolHeader::Amqp.bytes());

    server.handle_bytes(
        epoch(),
        &raw_frame(0, 0x11, &[b"\x40", b"\x43", b"\x52\x0a", b"\x52\x0a"]),
    );

    let sent = transmitted_performatives(&mut server);
    let [Performative::Open(_), Performative::Close(close)] = &sent[..] else {
        panic!("{sent:?}");
    };
    let error = close.error.as_ref().unwrap();
    assert_eq!(
        error.to_string(),
        "amqp:illegal-state: begin came where open was expected"
    );
}

#[test]
fn fields_of_open_that_make_no_sense_are_refused() {
    type Change = fn(&mut Open);
    let cases: [(Change, &str); 2] = [
        (
            |open| open.max_frame_size = 511,
            "the `max-frame-size` of `open` is 511; send at least 512",
        ),
        (
            |open| open.idle_time_out = Some(5),
            "the `idle-time-out` of `open` is 5 ms; send at least 100, or none",
        ),
    ];

    for (change, expected) in cases {
        let mut pair = Pair::default();
        pair.drive();
        let Some(Event::Opened(mut open)) = pair.client_events.pop() else {
            panic!("the client is open");
        };
        change(&mut open);
        let mut server = server();
        server.handle_bytes(epoch(), &ProtocolHeader::Amqp.bytes());
        server.handle_bytes(epoch(), &frame(0, Performative::Open(open)));

        let sent = transmitted_performatives(&mut server);
        let Some(Performative::Close(close)) = sent.last() else {
            panic!("{sent:?}");
        };
        let error = close.error.as_ref().unwrap();
        assert_eq!(error.condition, "amqp:invalid-field");
        assert_eq!(error.description.as_ref().unwrap(), &expected);
    }
}

#[test]
fn passwords_do_not_show_when_printed() {
    let printed = format!("{:?}", login(plain()));

    assert!(
        printed.contains("dev1@sas.hub") && !printed.contains("SharedAccessSignature"),
        "{printed}"
    );
}

#[test]
fn client_that_waits_for_nothing_is_understood() {
    // Header, init, header and open in one piece, as some clients send them to save round trips.
    let open = usual_open();
    let mut bytes = BytesMut::from(&ProtocolHeader::Sasl.bytes()[..]);
    bytes.extend_from_slice(b"\0\0\0\x1b\x02\x01\0\0\0\x53\x41\xc0\x0e\x03\xa3\x09ANONYMOUS\x40\x40");
    bytes.extend_from_slice(&ProtocolHeader::Amqp.bytes());
    bytes.extend_from_slice(&frame(0, Performative::Open(Box::new(open.clone()))));
    let mut server = server();

    server.handle_bytes(epoch(), &bytes);
    assert!(
        matches!(events(&mut server)[..], [Event::Authenticate { .. }]),
        "all else waits"
    );
    assert!(server.authenticate(epoch(), SaslCode::Ok));

    assert_eq!(events(&mut server), [Event::Opened(Box::new(open))]);
}

/// The open of a connection like any other.
fn usual_open() -> Open {
    let mut pair = Pair::default();
    pair.drive();
    match pair.client_events.pop() {
        Some(Event::Opened(open)) => *open,
        other => panic!("{other:?}"),
    }
}
