use super::*;

fn session() -> Session {
    let mut session = Session::new(&Secret::new("{}"), &[0xab], 100, 2);
    take(&mut session);
    session
}

fn open() -> Session {
    let mut session = session();
    hear(&mut session, b"+OK\r\nPONG\r\n");
    assert_eq!(next(&mut session), Some(Event::Open));
    session
}

fn hear(session: &mut Session, bytes: &[u8]) {
    session.input_buffer().extend_from_slice(bytes);
    session.handle_input(instant());
}

fn next(session: &mut Session) -> Option<Event> {
    session.poll_event(&|_| true)
}

fn take(session: &mut Session) -> String {
    let mut out = BytesMut::new();
    session.poll_transmit(&mut out);
    String::from_utf8(out.to_vec()).unwrap()
}

#[test]
fn a_connection_begins_with_connect_and_is_open_when_the_ping_is_answered() {
    let mut session = Session::new(&Secret::new("{\"a\":1}"), &[1, 0xff], 0, 1);

    assert_eq!(
        take(&mut session),
        "CONNECT {\"a\":1}\r\nPING\r\nSUB _INBOX.01ff.* 1\r\n"
    );
    assert_eq!(session.publish("s", b"", b""), Err(PublishError::Closed));
    hear(&mut session, b"PONG\r\n");
    assert_eq!(next(&mut session), Some(Event::Open));
}

#[test]
fn a_message_is_answered_by_its_ticket_however_the_bytes_come() {
    let mut session = open();

    let first = session.publish("in.d1", b"NATS/1.0\r\n\r\n", b"hi").unwrap();
    let second = session.publish("in.d1", b"NATS/1.0\r\n\r\n", b"").unwrap();
    assert_eq!(session.publish("in.d1", b"", b""), Err(PublishError::Full));
    assert_eq!(
        take(&mut session),
        "HPUB in.d1 _INBOX.ab.0 12 14\r\nNATS/1.0\r\n\r\nhi\r\nHPUB in.d1 _INBOX.ab.1 12 12\r\nNATS/1.0\r\n\r\n\r\n"
    );
    let answers = b"PING\r\nMSG _INBOX.ab.1 1 25\r\n{\"stream\":\"S\",\"seq\":1234}\r\nHMSG _INBOX.ab.0 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n";
    for byte in answers {
        hear(&mut session, &[*byte]);
    }

    assert_eq!(take(&mut session), "PONG\r\n");
    let stored = Event::Answered {
        ticket: second,
        answer: Answer::Stored,
    };
    assert_eq!(next(&mut session), Some(stored));
    assert!(matches!(
        next(&mut session),
        Some(Event::Answered { ticket, answer: Answer::Refused(_) }) if ticket == first
    ));
    assert_eq!(next(&mut session), None);
    assert!(session.publish("in.d1", b"", b"").is_ok());
}

#[test]
fn what_is_too_large_for_the_server_is_not_sent() {
    let mut session = open();

    let refused = session.publish("s", &[b'h'; 60], &[b'p'; 41]);

    assert_eq!(refused, Err(PublishError::TooLarge { bytes: 101, limit: 100 }));
    assert_eq!(take(&mut session), "");
}

#[test]
fn every_fault_of_the_server_ends_the_connection_once() {
    for (said, why) in [
        (&b"-ERR 'Authorization Violation'\r\n"[..], "check `user`"),
        (
            b"-ERR 'Permissions Violation for Publish to \"a\"'\r\n",
            "publish there",
        ),
        (b"HTTP/1.1 400 Bad Request\r\n", "no NATS"),
        (b"MSG _INBOX.ab.0 1 99999999\r\n", "can't be"),
        (b"MSG _INBOX.ab.0 1 x\r\n", "can't be"),
        (b"HMSG _INBOX.ab.0 1 9 8\r\n", "can't be"),
        (b"MSG\r\n", "can't be"),
        (b"MSG _INBOX.ab.0 1 2\r\n{}}\r\n", "another length"),
        (&[b'x'; MAX_LINE + 1], "without an end"),
    ] {
        let mut session = open();

        hear(&mut session, said);
        session.handle_end();

        let Some(Event::Closed(told)) = next(&mut session) else {
            panic!("no end for {:?}", String::from_utf8_lossy(said));
        };
        assert!(told.contains(why), "{told}");
        assert_eq!(next(&mut session), None);
        assert!(!session.wants_input());
    }
}

#[test]
fn an_answer_to_nothing_that_was_asked_is_passed_over() {
    let mut session = open();

    hear(
        &mut session,
        b"MSG _INBOX.ab.7 1 2\r\n{}\r\nMSG other 1 2\r\n{}\r\nINFO {}\r\nMSG _INBOX.ab.x 1 0\r\n\r\n",
    );

    assert_eq!(next(&mut session), None);
    assert!(session.wants_input());
}
