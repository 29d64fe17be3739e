//! Sessions and links: opened, refused, closed from either side. Rows are those of `hub-device-protocols.md` §3.3.

use crate::performative::{Attach, Performative, ReceiverSettleMode, Role, SenderSettleMode, Source, Target};
use crate::testing::{Pair, delivery, events, frame, raw_frame, transmitted_performatives};
use crate::{Acceptance, AmqpError, Event, Fields, NewLink, OpenError, SendError, Side, Symbol, condition};

#[test]
fn link_that_the_peer_wants_is_taken_with_its_source_and_target() {
    let mut pair = Pair::default().open();
    let (session, _) = pair.begin();
    let new = NewLink {
        properties: Fields::new().with(Symbol::from_static("com.microsoft:client-version"), "x"),
        ..NewLink::sender("telemetry", "/devices/dev1/messages/events")
    };

    let link = pair.client.attach(session, new).unwrap();
    pair.drive();
    let [
        Event::Attach {
            link: at_server,
            attach,
        },
    ] = &pair.server_events[..]
    else {
        panic!("{:?}", pair.server_events);
    };
    assert_eq!(attach.role, Role::Sender);
    assert_eq!(
        attach.target.as_ref().unwrap().address.as_ref().unwrap(),
        &"/devices/dev1/messages/events"
    );
    assert!(attach.properties.get("com.microsoft:client-version").is_some());
    let (at_server, acceptance) = (*at_server, Acceptance::of(attach));
    assert!(pair.server.accept_link(at_server, acceptance.clone()));
    pair.drive();

    let Event::Attached { link: told, attach } = &pair.client_events[0] else {
        panic!("{:?}", pair.client_events);
    };
    assert_eq!(*told, link);
    assert_eq!(
        (attach.role, &attach.target, &attach.source),
        (Role::Receiver, &acceptance.target, &acceptance.source)
    );
    assert_eq!(attach.max_message_size, Some(1024 * 1024));
    assert_eq!(
        pair.client_events[1],
        Event::Credit {
            link,
            credit: 100,
            drain: false
        }
    );
    assert!(!pair.server.accept_link(at_server, acceptance), "one answer is enough");
}

#[test]
fn refused_link_is_attached_without_ends_and_detached_with_the_error() {
    let mut pair = Pair::default().open();
    let (session, _) = pair.begin();
    let link = pair
        .client
        .attach(session, NewLink::receiver("r", "/nowhere", 5))
        .unwrap();
    pair.drive();
    let Some(Event::Attach { link: at_server, .. }) = pair.server_events.pop() else {
        panic!("an attach");
    };

    assert!(
        pair.server
            .refuse_link(at_server, AmqpError::new(condition::NOT_FOUND, "no such node"))
    );
    let sent = transmitted_performatives(&mut pair.server);

    let [Performative::Attach(attach), Performative::Detach(detach)] = &sent[..] else {
        panic!("{sent:?}");
    };
    assert_eq!((&attach.source, &attach.target), (&None, &None));
    assert!(detach.closed);
    for performative in sent.clone() {
        pair.client.handle_bytes(pair.now, &frame(0, performative));
    }
    pair.drive();
    let error = Some(Box::new(AmqpError::new(condition::NOT_FOUND, "no such node")));
    let (by, closed) = (Side::Peer, true);
    assert_eq!(
        pair.client_events,
        [Event::Detached {
            link,
            by,
            closed,
            error
        }]
    );
    assert_eq!(pair.server_events, [], "what was refused here is not told");
}

#[test]
fn settle_modes_are_first_for_receivers_of_ours_and_as_asked_for_senders() {
    let mut pair = Pair::default().open();
    pair.begin();
    for (role, expected) in [
        (Role::Sender, ReceiverSettleMode::First),
        (Role::Receiver, ReceiverSettleMode::Second),
    ] {
        let wanted = Attach {
            rcv_settle_mode: ReceiverSettleMode::Second,
            snd_settle_mode: SenderSettleMode::Settled,
            source: Some(Box::new(Source::at(None))),
            target: Some(Box::new(Target::at(None))),
            ..Attach::new("l".into(), 7, role)
        };
        pair.server
            .handle_bytes(pair.now, &frame(0, Performative::Attach(Box::new(wanted))));
        let Some(Event::Attach { link, attach }) = events(&mut pair.server).pop() else {
            panic!("an attach");
        };
        assert!(pair.server.accept_link(link, Acceptance::of(&attach)));
        let sent = transmitted_performatives(&mut pair.server);
        let Some(Performative::Attach(answer)) = sent.iter().find(|sent| matches!(sent, Performative::Attach(_)))
        else {
            panic!("{sent:?}");
        };
        assert_eq!(
            (answer.rcv_settle_mode, answer.snd_settle_mode),
            (expected, SenderSettleMode::Settled)
        );
        pair.server
            .handle_bytes(pair.now, &raw_frame(0, 0x16, &[b"\x52\x07", b"\x41"]));
    }
}

#[test]
fn credit_that_came_before_the_answer_is_told_after_it() {
    let mut pair = Pair::default().open();
    let (session, _) = pair.begin();
    pair.client.attach(session, NewLink::receiver("r", "node", 10)).unwrap();
    pair.drive();
    let Some(Event::Attach { link, attach }) = pair.server_events.pop() else {
        panic!("an attach");
    };
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
                b"\x70\0\0\x03\xe8",
            ],
        ),
    );
    assert_eq!(events(&mut pair.server), [], "the application has not answered");
    assert_eq!(pair.server.send(link, &delivery(0, "x")), Err(SendError::NotAttached));

    assert!(pair.server.accept_link(link, Acceptance::of(&attach)));

    assert_eq!(
        events(&mut pair.server),
        [Event::Credit {
            link,
            credit: 1000,
            drain: false
        }]
    );
}

#[test]
fn detach_of_either_side_is_answered_and_told_to_the_other() {
    let mut pair = Pair::default().open();
    let ends = pair.link_up(NewLink::sender("s", "node"), 10);

    assert!(pair.server.detach(
        ends.server,
        true,
        Some(AmqpError::new(condition::LINK_STOLEN, "elsewhere"))
    ));
    assert!(!pair.server.detach(ends.server, true, None), "once");
    pair.drive();

    let error = Some(Box::new(AmqpError::new(condition::LINK_STOLEN, "elsewhere")));
    let (link, by, closed) = (ends.client, Side::Peer, true);
    assert_eq!(
        pair.client_events,
        [Event::Detached {
            link,
            by,
            closed,
            error
        }]
    );
    assert_eq!(pair.server_events, []);
    assert_eq!(
        pair.client.send(ends.client, &delivery(0, "x")),
        Err(SendError::NotAttached)
    );
}

#[test]
fn handle_and_name_are_free_again_after_a_detach() {
    let mut pair = Pair::default().open();
    let (session, _) = pair.begin();
    for _ in 0..3 {
        let ends = pair.link_up_in(session, NewLink::sender("same", "node"), 1);
        assert_eq!((ends.client.handle, ends.server.handle), (0, 0));
        assert_eq!(
            pair.client.attach(session, NewLink::sender("same", "node")),
            Err(OpenError::NameInUse)
        );
        assert!(pair.client.detach(ends.client, true, None));
        pair.drive();
        assert!(matches!(pair.server_events[..], [Event::Detached { .. }]));
        pair.server_events.clear();
    }
}

#[test]
fn one_name_may_stand_for_a_link_in_each_direction_and_in_each_session() {
    let mut pair = Pair::default().open();
    let (session, _) = pair.begin();

    let there = pair.link_up_in(session, NewLink::sender("twin", "node"), 1);
    let back = pair.link_up_in(session, NewLink::receiver("twin", "node", 1), 1);
    let elsewhere = pair.link_up(NewLink::sender("twin", "node"), 1);

    assert_eq!(there.server.session(), back.server.session());
    assert_ne!(there.server.session(), elsewhere.server.session());
}

#[test]
fn second_attach_under_the_name_of_a_link_steals_it() {
    let mut pair = Pair::default().open();
    let ends = pair.link_up(NewLink::sender("same", "node"), 1);
    let again = Attach::new("same".into(), 9, Role::Sender);

    pair.server
        .handle_bytes(pair.now, &frame(0, Performative::Attach(Box::new(again))));

    let told = events(&mut pair.server);
    let [
        Event::Detached {
            link,
            by: Side::Here,
            error: Some(error),
            ..
        },
        Event::Attach { .. },
    ] = &told[..]
    else {
        panic!("{told:?}");
    };
    assert_eq!((*link, error.condition.as_str()), (ends.server, "amqp:link:stolen"));
}

#[test]
fn session_ended_by_either_side_takes_its_links_along_and_leaves_others() {
    let mut pair = Pair::default().open();
    let (gone, gone_at_server) = pair.begin();
    let lost = pair.link_up_in(gone, NewLink::sender("s", "node"), 1);
    let kept = pair.link_up(NewLink::sender("s", "node"), 1);

    assert!(pair.client.end(gone, None));
    pair.drive();

    let (session, by, error) = (gone_at_server, Side::Peer, None);
    assert_eq!(pair.server_events, [Event::Ended { session, by, error }]);
    assert_eq!(pair.client_events, []);
    assert_eq!(
        pair.client.send(lost.client, &delivery(0, "x")),
        Err(SendError::NotAttached)
    );
    assert!(pair.client.send(kept.client, &delivery(0, "x")).is_ok());
    assert!(!pair.server.detach(lost.server, true, None), "it is gone");
}

#[test]
fn faults_of_a_session_cost_the_session_and_are_named() {
    let faults = [
        (
            raw_frame(0, 0x16, &[b"\x52\x63", b"\x41"]),
            "amqp:session:unattached-handle: a detach names the `handle` 99, which has no link; attach it first",
        ),
        (
            raw_frame(0, 0x14, &[b"\x52\x63"]),
            "amqp:session:unattached-handle: a transfer names the `handle` 99, which has no link; attach it first",
        ),
        (
            raw_frame(0, 0x12, &[b"\xa1\x01x", b"\x52\0", b"\x42"]),
            "amqp:session:handle-in-use: the `handle` 0 of `attach` has a link; detach it first, or take another handle",
        ),
        (
            raw_frame(0, 0x12, &[b"\xa1\x01x", b"\x70\0\0\x01\0", b"\x42"]),
            "amqp:not-allowed: the `handle` of `attach` is 256, beyond the `handle-max` of 255",
        ),
    ];

    for (bytes, expected) in faults {
        let mut pair = Pair::default().open();
        let ends = pair.link_up(NewLink::sender("s", "node"), 1);
        pair.server.handle_bytes(pair.now, &bytes);
        pair.drive();

        let session = ends.server.session();
        let [
            Event::Ended {
                session: told,
                by: Side::Here,
                error: Some(error),
            },
        ] = &pair.server_events[..]
        else {
            panic!("{:?}", pair.server_events);
        };
        assert_eq!((*told, error.to_string()), (session, expected.to_owned()));
        assert!(matches!(&pair.client_events[..], [Event::Ended { by: Side::Peer, .. }]));
        assert!(pair.server.is_open() && pair.client.is_open(), "the connection goes on");
    }
}

#[test]
fn detach_of_ours_that_crosses_the_answer_ends_the_link() {
    let mut pair = Pair::default().open();
    let (session, _) = pair.begin();
    let link = pair.client.attach(session, NewLink::sender("s", "node")).unwrap();
    assert!(pair.client.detach(link, true, None), "before the answer");
    pair.drive();
    let Some(Event::Attach {
        link: at_server,
        attach,
    }) = pair.server_events.first().cloned()
    else {
        panic!("an attach");
    };
    assert!(
        !pair.server.accept_link(at_server, Acceptance::of(&attach)),
        "it is gone again"
    );
    assert!(matches!(pair.server_events[1], Event::Detached { .. }));
    pair.server_events.clear();

    let ends = pair.link_up_in(session, NewLink::sender("s", "node"), 1);

    assert_eq!(ends.client.handle, 0, "the handle is free");
}

#[test]
fn leftovers_of_a_session_that_the_peer_ended_cost_nothing() {
    let mut pair = Pair::default().open();
    let ends = pair.link_up(NewLink::sender("s", "node"), 1);
    pair.client.end(ends.client.session(), None);
    pair.drive();

    for bytes in [raw_frame(0, 0x16, &[b"\x43", b"\x41"]), raw_frame(0, 0x17, &[])] {
        pair.server.handle_bytes(pair.now, &bytes);
    }

    assert!(pair.server.is_open());
    pair.client_events.clear();
    pair.server_events.clear();
    pair.begin();
}
