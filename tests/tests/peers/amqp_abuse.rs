//! What a client must not say over AMQP, and far too much of what it may: it costs that client its link or its connection, and
//! nobody else anything.
#![allow(clippy::print_stderr, reason = "a test tells what it measured")]

use anyhow::Result;
use holm_e2e::amqp::{address, token};
use holm_e2e::wire::amqp::{
    self, Client, HEADER, SASL, TLS, attach, begin, binary, code, credit, described, frame, list, null, open, plain,
    sasl_frame, string, symbol, transfer, uint,
};
use holm_e2e::{Amqp, Device, Hub, Need, patience};
use serde_json::json;

const NEEDS: &[Need] = &[Need::Node, Need::LowPorts];
/// Connections that all do the same harm.
const MANY: usize = 40;
/// What all of them together may cost a hub that has 10 MB without them.
const MOST_KIB: u64 = 128 * 1024;
/// The most messages of a delivery: four batches of 8,192.
const MOST_MESSAGES: u32 = 32_768;

/// A hub, and a well-behaved client with a device.
struct Scene {
    client: Amqp,
    hub: Hub,
    device: Device,
}

impl Scene {
    #[track_caller]
    fn start() -> Self {
        let hub = Hub::start();
        let device = hub.create_device("good");
        let mut client = Amqp::start(&hub);
        client.log_in("c", &hub, &device);
        client.sender("c", "events", &address(&device, "messages/events"));
        client.receiver("c", "mail", &address(&device, "messages/devicebound"), 10);
        Self { client, hub, device }
    }

    /// Opened, with no proof of anything.
    fn stranger(&self) -> Result<Client> {
        let mut client = self.hub.amqp()?;
        client.send(&[HEADER, &open()].concat())?;
        client.header()?;
        client.frame()?;
        Ok(client)
    }

    /// Opened as a device that has proved itself, with a session and, as handle 0, a link for telemetry.
    fn known(&self, id: &str) -> Result<Client> {
        let mut client = self.proved(id)?;
        client.send(&[begin(0), attach(0, 0, false, &format!("/devices/{id}/messages/events"))].concat())?;
        client.next(code::FLOW)?;
        Ok(client)
    }

    /// Opened as a device that has proved itself.
    fn proved(&self, id: &str) -> Result<Client> {
        let device = self.hub.create_device(id);
        let mut client = self.hub.amqp()?;
        let user = format!("{id}@sas.{}", self.hub.host());
        client.send(&plain(&user, &token(&self.hub, &device, 3600)))?;
        client.send(&open())?;
        client.header()?;
        // What SASL offers, and how it came out.
        client.frame()?;
        client.frame()?;
        client.header()?;
        client.frame()?;
        Ok(client)
    }

    /// The others go on.
    #[track_caller]
    fn assert_served(&mut self) {
        self.client.send("events", &json!({"body": "{}"}));
        let path = format!("/devices/{}/messages/deviceBound", self.device.id);
        let answer = self
            .hub
            .service()
            .try_call("POST", &path, &[], Some(&json!("still there")));
        assert_eq!(answer.expect("the hub answers").status, 204);
        let message = self.client.message("mail");
        self.client.settle(&message, "accepted");
        self.client.run("credit", json!({"link": "mail", "credit": 1}));
        assert_eq!(self.hub.daemon().health().0, 200);
        let log = self.hub.daemon().log();
        assert!(!log.contains("panicked"), "{log}");
        assert!(
            self.client
                .left()
                .iter()
                .all(|event| event["event"] != "detached" && event["event"] != "closed")
        );
    }
}

/// A list in a list in a list.
fn nested(levels: usize) -> Vec<u8> {
    (0..levels).fold(null(), |inner, _| list(&[inner]))
}

/// Frames that are none, and frames that make no sense on an open connection with a session on channel 0.
fn nonsense() -> Vec<(&'static str, Vec<u8>)> {
    let attach_named = |name: Vec<u8>| frame(0, &described(code::ATTACH, &[name, uint(9), amqp::boolean(false)]));
    vec![
        ("a frame of 7 bytes", vec![0, 0, 0, 7, 2, 0, 0, 0]),
        ("a frame of 4 GB", vec![0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0]),
        ("a frame larger than allowed", vec![0, 2, 0, 0, 2, 0, 0, 0]),
        ("an offset before the header's end", vec![0, 0, 0, 8, 1, 0, 0, 0]),
        ("an offset behind the end", vec![0, 0, 0, 8, 9, 0, 0, 0]),
        ("a type that there is not", vec![0, 0, 0, 8, 2, 7, 0, 0]),
        ("text", b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n".to_vec()),
        ("no performative", frame(0, &[0x40])),
        ("a performative that there is not", frame(0, &described(0x7f, &[]))),
        (
            "a list that is longer than its frame",
            frame(0, &[0, 0x53, code::BEGIN, 0xd0, 0, 1, 0, 0, 0, 0, 0, 4]),
        ),
        (
            "a count without values",
            frame(0, &[0, 0x53, code::BEGIN, 0xd0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]),
        ),
        ("a number as a name", attach_named(uint(1))),
        ("no name", attach_named(null())),
        ("a name that is no text", attach_named(vec![0xa1, 2, 0xff, 0xfe])),
        ("deep lists", frame(0, &described(code::BEGIN, &[null(), nested(1000)]))),
        (
            "a deep descriptor",
            frame(0, &[vec![0; 1000], described(code::BEGIN, &[])].concat()),
        ),
        ("another open", open()),
        ("a link in a session that is not there", attach(77, 0, false, "$cbs")),
        ("a link that is not there", transfer(0, 99, 0, false, b"x")),
    ]
}

#[test]
fn frames_that_make_no_sense_end_their_session_or_connection_before_a_token_and_after() -> Result<()> {
    if !Need::all(NEEDS) {
        return Ok(());
    }
    let mut scene = Scene::start();

    for (number, (what, bytes)) in nonsense().into_iter().enumerate() {
        for is_known in [false, true] {
            let mut client = if is_known {
                scene.known(&format!("d{number}"))?
            } else {
                let mut stranger = scene.stranger()?;
                stranger.send(&begin(0))?;
                stranger
            };
            client.send(&bytes)?;
            // Its session or the connection ends, and says why.
            let told = loop {
                match client.frame() {
                    Ok(Some(frame)) if matches!(frame.code, Some(code::END | code::CLOSE)) => break frame,
                    Ok(Some(_)) => {}
                    end => panic!("{what}, {is_known}: {end:?} without a word"),
                }
            };
            assert!(told.says("amqp:"), "{what}, {is_known}: {told:?}");
        }
    }
    scene.assert_served();
    Ok(())
}

#[test]
fn a_peer_that_is_no_amqp_or_wants_tls_within_is_answered_with_a_header_and_closed() -> Result<()> {
    if !Need::all(NEEDS) {
        return Ok(());
    }
    let mut scene = Scene::start();

    for hello in [
        TLS,
        b"AMQP\0\0\x09\x01",
        b"AMQP\x07\x01\0\0",
        b"GET / HT",
        b"\x10\x10\0\x04MQTT",
    ] {
        let mut client = scene.hub.amqp()?;
        client.send(hello)?;

        let header = client.header()?;
        assert!([HEADER, SASL].contains(&header.as_slice()), "{header:?}");
        assert_eq!(client.end()?, []);
    }
    scene.assert_served();
    Ok(())
}

#[test]
fn what_makes_no_sense_in_sasl_ends_the_connection() -> Result<()> {
    if !Need::all(NEEDS) {
        return Ok(());
    }
    let mut scene = Scene::start();
    let init = |mechanism: Vec<u8>, response: Vec<u8>| sasl_frame(&described(0x41, &[mechanism, response]));

    for (what, bytes) in [
        (
            "a mechanism that is not offered",
            init(symbol("SCRAM-SHA-1"), binary(b"")),
        ),
        ("no mechanism", init(null(), null())),
        ("PLAIN without parts", init(symbol("PLAIN"), binary(b"nobody"))),
        ("PLAIN that is no text", init(symbol("PLAIN"), binary(b"\0\xff\0\xfe"))),
        ("a user without a hub", init(symbol("PLAIN"), binary(b"\0dev1\0secret"))),
        ("a deep value", sasl_frame(&described(0x41, &[nested(500)]))),
        ("an open", open()),
        ("a frame of 1 MB", vec![0, 0x10, 0, 0, 2, 1, 0, 0]),
        (
            "a password of 15 KB",
            init(
                symbol("PLAIN"),
                binary(&[&b"\0good@sas.hub\0"[..], &[b'x'; 15_000]].concat()),
            ),
        ),
    ] {
        let mut client = scene.hub.amqp()?;
        client.send(&[SASL, &bytes].concat())?;
        client.header()?;

        let frames = client.end().unwrap_or_else(|error| panic!("{what}: {error:#}"));
        assert!(frames.len() <= 2, "{what}: {frames:?}");
    }
    scene.assert_served();
    Ok(())
}

#[test]
fn a_flood_of_sessions_and_links_is_refused_one_by_one_and_what_was_taken_stays() -> Result<()> {
    if !Need::all(NEEDS) {
        return Ok(());
    }
    let mut scene = Scene::start();

    for is_known in [false, true] {
        let mut client = if is_known {
            scene.known("flood")?
        } else {
            scene.stranger()?
        };
        for channel in 1..1000 {
            client.send(&begin(channel))?;
        }
        for handle in 0..1000 {
            client.send(&attach(
                1,
                handle % 256,
                true,
                if is_known { "/devices/flood/twin" } else { "$cbs" },
            ))?;
        }
        client.send(&frame(0, &described(code::CLOSE, &[])))?;
        let frames = client.end()?;

        let refused = frames
            .iter()
            .filter(|frame| frame.says("amqp:resource-limit-exceeded"))
            .count();
        if is_known {
            assert_eq!(refused, 0, "a thousand sessions are what a pool has");
        } else {
            assert!(refused >= 990, "{refused} of 1,000 sessions were refused");
        }
    }
    scene.assert_served();
    Ok(())
}

#[test]
fn tokens_by_the_thousand_without_a_link_for_answers_cost_their_sender_only() -> Result<()> {
    if !Need::all(NEEDS) {
        return Ok(());
    }
    let mut scene = Scene::start();
    let before = scene.hub.daemon().resident_kib();
    let filling = "x".repeat(8000);
    let wrong = format!("SharedAccessSignature sr=hub%2Fdevices%2Fgood&sig={filling}&se=9999999999");
    let operation = [string("operation"), string("put-token")];
    let map = list(&operation);
    // A map is a list of another kind.
    let properties = [&[0, 0x53, 0x74, 0xd1][..], &map[1..]].concat();
    let request = [properties, [&[0, 0x53, 0x77][..], &string(&wrong)].concat()].concat();

    for _ in 0..MANY {
        let mut client = scene.stranger()?;
        client.send(&[begin(0), attach(0, 0, false, "$cbs")].concat())?;
        client.next(code::FLOW)?;
        let mut delivery = 0;
        // For as long as it is given credit, or takes it.
        while delivery < 200 && client.send(&transfer(0, 0, delivery, false, &request)).is_ok() {
            delivery += 1;
        }
        client.send(&frame(0, &described(code::CLOSE, &[]))).ok();
        client.end()?;
    }

    let after = scene.hub.daemon().resident_kib();
    eprintln!("{} requests: from {before} to {after} KiB", MANY * 200);
    assert!(after < before + MOST_KIB, "from {before} to {after} KiB");
    scene.assert_served();
    Ok(())
}

#[test]
fn deliveries_that_never_end_are_bounded_for_all_connections_together() -> Result<()> {
    if !Need::all(NEEDS) {
        return Ok(());
    }
    let mut scene = Scene::start();
    let part = vec![b'x'; 60_000];
    let before = scene.hub.daemon().resident_kib();

    let mut open = Vec::new();
    for number in 0..MANY {
        // Without a proof: as much as the links of `$cbs` take.
        let mut stranger = scene.stranger()?;
        stranger.send(&begin(0))?;
        for handle in 0..14 {
            stranger.send(&attach(0, handle, false, "$cbs"))?;
            stranger.next(code::FLOW)?;
            stranger.send(&transfer(0, handle, handle, true, &part[..15_000]))?;
        }
        open.push(stranger);
        // With one: a message that is almost whole on a link.
        let mut known = scene.known(&format!("d{number}"))?;
        for _ in 0..16 {
            known.send(&transfer(0, 0, 0, true, &part))?;
        }
        open.push(known);
    }
    scene.assert_served();
    let after = scene.hub.daemon().resident_kib();
    eprintln!("{MANY} and {MANY} connections: from {before} to {after} KiB");

    assert!(after < before + MOST_KIB, "from {before} to {after} KiB");
    drop(open);
    scene.assert_served();
    Ok(())
}

#[test]
fn links_and_sessions_that_go_while_their_device_is_let_in_leave_nothing_behind() -> Result<()> {
    if !Need::all(NEEDS) {
        return Ok(());
    }
    let mut scene = Scene::start();
    let mut client = scene.proved("hasty")?;
    let (events, mail) = ("/devices/hasty/messages/events", "/devices/hasty/messages/devicebound");
    let detach = |handle| frame(0, &described(code::DETACH, &[uint(handle), amqp::boolean(true)]));
    let end = |channel| frame(channel, &described(code::END, &[]));

    // In one write, so that nobody is let in before all of it has come.
    let hasty = [
        attach(0, 1, true, mail),
        detach(1),
        begin(1),
        attach(1, 0, false, events),
        end(1),
    ];
    client.send(&[begin(0), hasty.concat()].concat())?;
    client.next(code::DETACH)?;
    client.next(code::END)?;
    patience::wait("a device that is gone", patience::short(), || {
        match &scene.hub.service().call("GET", "/devices/hasty", None)["connectionState"] {
            state if state == "Disconnected" => Ok(()),
            state => Err(state.to_string()),
        }
    });
    client.send(&[attach(0, 2, true, mail), detach(2), attach(0, 3, false, events)].concat())?;

    let message = [&[0, 0x53, 0x75][..], &binary(b"{}")].concat();
    client.next(code::FLOW)?;
    client.send(&transfer(0, 3, 0, false, &message))?;
    let outcome = client.next(0x15)?;
    assert!(!outcome.says("amqp:"), "{outcome:?}");
    scene.assert_served();
    Ok(())
}

#[test]
fn more_than_was_given_credit_for_and_credit_for_everything_cost_their_link_only() -> Result<()> {
    if !Need::all(NEEDS) {
        return Ok(());
    }
    let mut scene = Scene::start();

    // More than there is credit for, without waiting.
    let mut client = scene.known("eager")?;
    let message = [&[0, 0x53, 0x75][..], &binary(b"{}")].concat();
    for delivery in 0..2000 {
        if client.send(&transfer(0, 0, delivery, false, &message)).is_err() {
            break;
        }
    }
    client.send(&frame(0, &described(code::CLOSE, &[]))).ok();
    let frames = client.end()?;
    let refused = frames
        .iter()
        .any(|frame| frame.says("amqp:link:transfer-limit-exceeded"));
    let is_taken = frames.iter().filter(|frame| frame.code == Some(0x15)).count() > 0;
    assert!(refused || is_taken, "{frames:?}");

    // Credit without end, credit taken back, and credit for links that send or are not there.
    let mut client = scene.known("credits")?;
    client.send(&attach(0, 1, true, "/devices/credits/messages/devicebound"))?;
    client.next(code::ATTACH)?;
    for count in [u32::MAX, 0, 1, u32::MAX - 1, 5] {
        client.send(&credit(0, 1, count))?;
    }
    let answer = scene
        .hub
        .service()
        .try_call("POST", "/devices/credits/messages/deviceBound", &[], Some(&json!("x")));
    assert_eq!(answer.expect("the hub answers").status, 204);
    client.next(0x14)?;
    client.send(&credit(0, 77, 5))?;
    client.send(&frame(0, &described(code::CLOSE, &[])))?;
    let frames = client.end()?;
    assert!(
        frames.iter().any(|frame| frame.says("amqp:session:unattached-handle")),
        "{frames:?}"
    );
    scene.assert_served();
    Ok(())
}

#[test]
fn a_receiver_that_never_reads_costs_the_hub_no_memory_and_the_others_nothing() -> Result<()> {
    if !Need::all(NEEDS) {
        return Ok(());
    }
    let mut scene = Scene::start();
    let before = scene.hub.daemon().resident_kib();
    let mut stalled = Vec::new();
    for number in 0..8 {
        let id = format!("deaf{number}");
        let mut client = scene.known(&id)?;
        let mail = format!("/devices/{id}/messages/devicebound");
        let twin = format!("/devices/{id}/twin");
        client.send(
            &[
                attach(0, 1, true, &mail),
                attach(0, 2, true, &twin),
                attach(0, 3, false, &twin),
            ]
            .concat(),
        )?;
        for _ in 0..3 {
            client.next(code::ATTACH)?;
        }
        client.send(&credit(0, 1, 1000))?;
        stalled.push(client);
    }

    let text = "x".repeat(60_000);
    for number in 0..8 {
        let path = format!("/devices/deaf{number}/messages/deviceBound");
        // As many as wait for one device.
        for _ in 0..20 {
            let answer = scene.hub.service().try_call("POST", &path, &[], Some(&json!(text)));
            assert_eq!(answer.expect("the hub answers").status, 204);
        }
    }
    scene.assert_served();

    let after = scene.hub.daemon().resident_kib();
    eprintln!("8 receivers that do not read: from {before} to {after} KiB");
    assert!(after < before + MOST_KIB, "from {before} to {after} KiB");
    drop(stalled);
    // What they were sent waits for them again.
    patience::wait("the messages of a receiver that has gone", patience::short(), || {
        let found = scene.hub.service().call("GET", "/devices/deaf0", None);
        match found["cloudToDeviceMessageCount"].as_u64() {
            Some(20) => Ok(()),
            other => Err(format!("{other:?} messages wait")),
        }
    });
    Ok(())
}

#[test]
fn changes_for_a_twin_link_without_credit_end_it_and_the_device_comes_back() -> Result<()> {
    if !Need::all(NEEDS) {
        return Ok(());
    }
    let mut scene = Scene::start();
    let device = scene.hub.create_device("slow");
    let mut client = Amqp::start(&scene.hub);
    client.log_in("c", &scene.hub, &device);
    let twin = address(&device, "twin");
    client.sender("c", "ask", &twin);
    client.receiver("c", "answers", &twin, 1);
    let put = json!({"operation": "PUT", "resource": "/notifications/twin/properties/desired"});
    client.ask_twin(["ask", "answers"], &json!("put"), &put, " ");

    // The only credit is used; each change has 20 KB.
    for number in 0..40 {
        let parts: serde_json::Map<_, _> = (0..6)
            .map(|part| (format!("p{part}"), json!("x".repeat(3500))))
            .collect();
        let mut desired = json!(parts);
        desired["number"] = json!(number);
        let change = json!({"properties": {"desired": desired}});
        scene.hub.service().call("PATCH", "/twins/slow", Some(&change));
    }

    let detached = client.detached("answers");
    assert_eq!(detached["condition"], "amqp:resource-limit-exceeded", "{detached}");
    client.detached("ask");
    client.sender("c", "ask", &twin);
    client.receiver("c", "answers", &twin, 5);
    let got = client.ask_twin(["ask", "answers"], &json!("get"), &json!({"operation": "GET"}), " ");
    assert!(
        got["body"]["text"]
            .as_str()
            .is_some_and(|text| text.contains("\"number\":39")),
        "{got}"
    );
    scene.assert_served();
    Ok(())
}

#[test]
fn a_batch_of_as_many_messages_as_may_be_is_taken_and_the_others_are_served() -> Result<()> {
    if !Need::all(NEEDS) {
        return Ok(());
    }
    let mut scene = Scene::start();
    let device = scene.hub.create_device("many");
    let mut client = Amqp::start(&scene.hub);
    client.log_in("c", &scene.hub, &device);
    client.sender("c", "events", &address(&device, "messages/events"));
    let before = scene.hub.daemon().resident_kib();

    let began = std::time::Instant::now();
    for _ in 0..4 {
        client.run("send", json!({"link": "events", "tiny": MOST_MESSAGES, "wait": false}));
    }
    scene.assert_served();
    let served = began.elapsed();
    for _ in 0..4 {
        let outcome = client.event("outcome", |_| true);
        assert_eq!(outcome["outcome"], "accepted", "{outcome}");
    }

    let after = scene.hub.daemon().resident_kib();
    eprintln!(
        "another client was served after {served:?}, all was taken after {:?}; from {before} to {after} KiB",
        began.elapsed()
    );
    assert!(after < before + MOST_KIB, "from {before} to {after} KiB");
    client.run(
        "send",
        json!({"link": "events", "tiny": MOST_MESSAGES + 1, "wait": false}),
    );
    let outcome = client.event("outcome", |_| true);
    assert_eq!(
        (&outcome["outcome"], &outcome["condition"]),
        (&json!("rejected"), &json!("amqp:link:message-size-exceeded")),
        "{outcome}"
    );
    Ok(())
}
