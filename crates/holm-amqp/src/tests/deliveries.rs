//! Deliveries and their outcomes, in both directions.

use bytes::Bytes;

use crate::performative::{Performative, ReceiverSettleMode, SenderSettleMode, Transfer};
use crate::testing::{Ends, Pair, deliveries, delivery, events, frame_with, raw_frame, transmitted_performatives};
use crate::{
    Acceptance, AmqpError, Config, DeliveryId, Event, Login, NewLink, Outbound, Outcome, SendError, condition,
};

/// A pair whose client sends to its server.
fn uplink(config: Config, window: u32) -> (Pair, Ends) {
    let mut pair = Pair::new(config.clone(), config, Login::default()).open();
    let ends = pair.link_up(NewLink::sender("up", "node"), window);
    (pair, ends)
}

/// A pair whose server sends to its client.
fn downlink(config: Config, window: u32) -> (Pair, Ends) {
    let mut pair = Pair::new(config.clone(), config, Login::default()).open();
    let ends = pair.link_up(NewLink::receiver("down", "node", window), 0);
    (pair, ends)
}

fn ids(told: &[Event]) -> Vec<DeliveryId> {
    deliveries(told).iter().filter_map(|delivery| delivery.id).collect()
}

#[test]
fn delivery_arrives_whole_and_its_outcome_comes_back() {
    let (mut pair, ends) = uplink(Config::default(), 10);

    let token = pair.client.send(ends.client, &delivery(5, "hello")).unwrap().unwrap();
    pair.drive();
    let told = deliveries(&pair.server_events)[0].clone();
    assert_eq!(
        (told.link, told.format, &told.payload[..]),
        (ends.server, 0, &b"hello"[..])
    );
    assert_eq!(told.tag, 5.into());
    assert!(pair.server.settle(told.id.unwrap(), Outcome::Accepted));
    pair.drive();

    let outcome = Some(Outcome::Accepted);
    assert_eq!(pair.client_events, [Event::Settled { token, outcome }]);
    assert!(!pair.server.settle(told.id.unwrap(), Outcome::Accepted), "once");
}

#[test]
fn every_outcome_comes_back_as_it_was_given() {
    let error = AmqpError::new(condition::NOT_FOUND, "no such device");
    let outcomes = [
        Outcome::Accepted,
        Outcome::Rejected(Some(Box::new(error))),
        Outcome::Released,
        Outcome::Modified(Box::default()),
    ];
    let (mut pair, ends) = downlink(Config::default(), 10);
    let tokens: Vec<_> = (0..4)
        .map(|number| pair.server.send(ends.server, &delivery(number, "x")).unwrap().unwrap())
        .collect();
    pair.drive();

    for (id, outcome) in ids(&pair.client_events).into_iter().zip(&outcomes) {
        assert!(pair.client.settle(id, outcome.clone()));
    }
    pair.drive();

    let expected: Vec<Event> = tokens
        .into_iter()
        .zip(outcomes.map(Some))
        .map(|(token, outcome)| Event::Settled { token, outcome })
        .collect();
    assert_eq!(pair.server_events, expected);
}

#[test]
fn large_delivery_goes_in_frames_of_the_size_that_the_peer_takes() {
    let small = Config {
        max_frame_size: 512,
        ..Config::default()
    };
    let content: Bytes = (0..5000u32).map(|number| number.to_be_bytes()[3]).collect();
    let mut pair = Pair::new(small, Config::default(), Login::default()).open();
    let ends = pair.link_up(NewLink::sender("up", "node"), 10);

    pair.client.send(ends.client, &delivery(0, content.clone())).unwrap();
    pair.client.send(ends.client, &delivery(1, "behind")).unwrap();
    pair.drive();

    let payloads: Vec<&Bytes> = deliveries(&pair.server_events)
        .iter()
        .map(|told| &told.payload)
        .collect();
    assert_eq!(payloads, [&content, &Bytes::from_static(b"behind")]);
}

#[test]
fn links_take_turns_by_the_frame() {
    let config = Config {
        max_frame_size: 512,
        ..Config::default()
    };
    let mut pair = Pair::new(config.clone(), config, Login::default()).open();
    let (session, _) = pair.begin();
    let large = pair.link_up_in(session, NewLink::sender("large", "node"), 10);
    let small = pair.link_up_in(session, NewLink::sender("small", "node"), 10);
    // The output is full at once, so that both wait.
    pair.client.send(large.client, &delivery(0, vec![1; 400_000])).unwrap();
    pair.client.send(small.client, &delivery(0, "quick")).unwrap();

    pair.drive();

    let order: Vec<usize> = deliveries(&pair.server_events)
        .iter()
        .map(|told| told.payload.len())
        .collect();
    assert_eq!(order, [5, 400_000]);
}

#[test]
fn outcomes_of_neighbours_are_told_in_one_disposition() {
    let (mut pair, ends) = uplink(Config::default(), 10);
    for number in 0..4 {
        pair.client.send(ends.client, &delivery(number, "x")).unwrap();
    }
    pair.drive();

    for id in ids(&pair.server_events) {
        pair.server.settle(id, Outcome::Accepted);
    }
    let sent = transmitted_performatives(&mut pair.server);

    let [Performative::Disposition(disposition)] = &sent[..] else {
        panic!("{sent:?}");
    };
    assert_eq!(
        (disposition.first, disposition.last, disposition.settled),
        (0, Some(3), true)
    );
}

#[test]
fn settled_delivery_wants_no_outcome_and_leaves_no_trace() {
    let (mut pair, ends) = uplink(Config::default(), 10);
    let settled = Outbound {
        settled: true,
        ..delivery(0, "x")
    };

    assert_eq!(pair.client.send(ends.client, &settled), Ok(None));
    pair.drive();

    assert_eq!(deliveries(&pair.server_events)[0].id, None);
}

#[test]
fn mode_of_the_link_decides_for_its_deliveries() {
    let mut pair = Pair::default().open();
    let (session, _) = pair.begin();
    for (mode, with_token) in [(SenderSettleMode::Settled, false), (SenderSettleMode::Unsettled, true)] {
        let new = NewLink {
            snd_settle_mode: mode,
            ..NewLink::sender(with_token.to_string(), "node")
        };
        let ends = pair.link_up_in(session, new, 10);
        let asked = Outbound {
            settled: with_token,
            ..delivery(0, "x")
        };

        let token = pair.client.send(ends.client, &asked).unwrap();

        assert_eq!(token.is_some(), with_token);
    }
}

#[test]
fn receiver_that_settles_second_hears_that_the_sender_has_settled() {
    let mut pair = Pair::default().open();
    let (session, _) = pair.begin();
    let new = NewLink {
        rcv_settle_mode: ReceiverSettleMode::Second,
        ..NewLink::receiver("down", "node", 10)
    };
    let ends = pair.link_up_in(session, new, 0);
    let token = pair.server.send(ends.server, &delivery(0, "x")).unwrap().unwrap();
    pair.drive();

    // Role receiver, delivery 0, not settled, accepted: as the C# SDK says it.
    pair.server.handle_bytes(
        pair.now,
        &raw_frame(0, 0x15, &[b"\x41", b"\x43", b"\x40", b"\x42", b"\0\x53\x24\x45"]),
    );

    let outcome = Some(Outcome::Accepted);
    assert_eq!(
        events(&mut pair.server),
        [Event::Settled {
            token,
            outcome: outcome.clone()
        }]
    );
    let sent = transmitted_performatives(&mut pair.server);
    let [Performative::Disposition(disposition)] = &sent[..] else {
        panic!("{sent:?}");
    };
    assert!(disposition.settled && disposition.role == crate::Role::Sender);
    assert_eq!(disposition.state, outcome.map(Into::into));
}

#[test]
fn called_off_delivery_is_not_told_and_takes_its_credit() {
    let (mut pair, ends) = uplink(Config::default(), 10);
    let transfer = |delivery_id, more, aborted| {
        Performative::Transfer(Transfer {
            handle: 0,
            delivery_id,
            delivery_tag: Some(1.into()),
            message_format: Some(0),
            settled: None,
            more,
            rcv_settle_mode: None,
            state: None,
            resume: false,
            aborted,
            batchable: false,
        })
    };

    for (performative, payload) in [
        (transfer(Some(0), true, false), "half of"),
        (transfer(None, false, true), ""),
        (transfer(Some(1), true, false), "wh"),
        (transfer(None, false, false), "ole"),
    ] {
        pair.server.handle_bytes(
            pair.now,
            &frame_with(0, performative, Bytes::from_static(payload.as_bytes())),
        );
    }

    let told = events(&mut pair.server);
    let payloads: Vec<&[u8]> = deliveries(&told).iter().map(|told| &told.payload[..]).collect();
    assert_eq!(payloads, [b"whole"]);
    assert_eq!(deliveries(&told)[0].link, ends.server);
}

#[test]
fn message_larger_than_the_peer_takes_is_refused_before_it_is_sent() {
    let config = Config {
        max_message_size: 100,
        ..Config::default()
    };
    let (mut pair, ends) = uplink(config, 10);

    let error = pair.client.send(ends.client, &delivery(0, vec![0; 101])).unwrap_err();

    assert_eq!(error, SendError::TooLarge { bytes: 101, limit: 100 });
    assert_eq!(
        error.to_string(),
        "the message has 101 bytes; the peer takes at most 100"
    );
    assert!(pair.client.send(ends.client, &delivery(0, vec![0; 100])).is_ok());
}

#[test]
#[cfg(target_pointer_width = "64")]
fn message_whose_length_has_no_form_is_refused_though_the_peer_takes_any() {
    let config = Config {
        max_message_size: 0,
        ..Config::default()
    };
    let (mut pair, ends) = uplink(config, 10);
    // Pages that nobody writes to take no memory.
    let whole = vec![0; 1 << 32];

    let error = pair.client.send(ends.client, &delivery(0, whole)).unwrap_err();

    let limit = u64::from(u32::MAX);
    assert_eq!(error, SendError::TooLarge { bytes: 1 << 32, limit });
    assert_eq!(crate::codec::write::length(1 << 32), u32::MAX);
}

#[test]
fn outcome_said_before_the_end_of_its_link_session_or_connection_is_told() {
    let ends: [fn(&mut Pair, Ends); 3] = [
        |pair, ends| assert!(pair.server.detach(ends.server, true, None)),
        |pair, ends| assert!(pair.server.end(ends.server.session(), None)),
        |pair, _| pair.server.close(pair.now, None),
    ];
    for end in ends {
        let (mut pair, ends) = uplink(Config::default(), 10);
        let token = pair.client.send(ends.client, &delivery(0, "x")).unwrap().unwrap();
        pair.drive();
        let id = ids(&pair.server_events)[0];

        assert!(pair.server.settle(id, Outcome::Accepted));
        end(&mut pair, ends);
        pair.drive();

        let outcome = Some(Outcome::Accepted);
        assert!(
            pair.client_events.contains(&Event::Settled { token, outcome }),
            "{:?}",
            pair.client_events
        );
    }
}

#[test]
fn outcome_after_the_link_is_gone_has_no_effect() {
    let (mut pair, ends) = uplink(Config::default(), 10);
    pair.client.send(ends.client, &delivery(0, "x")).unwrap();
    pair.drive();
    let id = ids(&pair.server_events)[0];

    pair.client.detach(ends.client, true, None);
    pair.drive();

    assert!(!pair.server.settle(id, Outcome::Accepted));
    pair.server_events.clear();
    let again = pair.link_up_in(ends.client.session(), NewLink::sender("up", "node"), 10);
    assert!(
        !pair.server.settle(id, Outcome::Accepted),
        "nor on a later link with its handle"
    );
    assert_eq!(again.server.handle, id.link().handle);
}

#[test]
fn outcome_of_a_link_that_was_taken_over_costs_nothing() {
    let (mut pair, ends) = downlink(Config::default(), 10);
    pair.server.send(ends.server, &delivery(0, "x")).unwrap();
    pair.drive();
    let id = ids(&pair.client_events)[0];

    pair.server.detach(ends.server, true, None);
    assert!(pair.client.settle(id, Outcome::Accepted), "the detach is on its way");
    pair.drive();

    assert_eq!(pair.server_events, [], "nobody waits for it");
    assert!(pair.server.is_open());
}

#[test]
fn acceptance_with_another_mode_holds() {
    let mut pair = Pair::default().open();
    let (session, _) = pair.begin();
    pair.client
        .attach(session, NewLink::receiver("events", "node", 10))
        .unwrap();
    pair.drive();
    let Some(Event::Attach { link, attach }) = pair.server_events.pop() else {
        panic!("an attach");
    };

    let acceptance = Acceptance {
        snd_settle_mode: SenderSettleMode::Settled,
        ..Acceptance::of(&attach)
    };
    assert!(pair.server.accept_link(link, acceptance));
    pair.drive();

    assert_eq!(pair.server.send(link, &delivery(0, "x")), Ok(None), "sent settled");
}

#[test]
fn numbers_on_the_wire_have_no_gap_whatever_waited_or_was_given_up() {
    let mut pair = Pair::new(Config::default(), Config::default(), Login::default()).open();
    let (session, _) = pair.begin();
    let waiting = pair.link_up_in(session, NewLink::receiver("waiting", "node", 0), 0);
    let other = pair.link_up_in(session, NewLink::receiver("other", "node", 10), 0);
    let numbers = |pair: &mut Pair| -> Vec<Option<u32>> {
        let sent = transmitted_performatives(&mut pair.server);
        let transfers = sent.into_iter().filter_map(|performative| match performative {
            Performative::Transfer(transfer) => Some(transfer.delivery_id),
            _ => None,
        });
        transfers.collect()
    };

    // These wait for credit, and what comes after them does not.
    for number in 0..3 {
        pair.server
            .send_later(waiting.server, &delivery(number, "later"))
            .unwrap();
    }
    pair.server.send(other.server, &delivery(0, "now")).unwrap();
    let first = numbers(&mut pair);
    pair.server.detach(waiting.server, true, None);
    pair.server.send(other.server, &delivery(1, "after")).unwrap();
    let second = numbers(&mut pair);

    assert_eq!((first, second), (vec![Some(0)], vec![Some(1)]));
}
