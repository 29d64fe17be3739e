use proptest::prelude::*;

use super::*;

fn id(text: &str) -> Identity {
    text.parse().unwrap()
}

fn bag_of(topic: &str, own: &str) -> String {
    match ClientTopic::parse(topic, &id(own)) {
        Ok(ClientTopic::Telemetry { bag, .. }) => bag.to_owned(),
        other => panic!("{other:?}"),
    }
}

/// Acceptance rows 30 and 32.
#[test]
fn a_telemetry_bag_is_everything_after_events_less_one_slash() {
    assert_eq!(bag_of("devices/dev1/messages/events/a=b", "dev1"), "a=b");
    assert_eq!(bag_of("devices/dev1/messages/events/a=b/", "dev1"), "a=b");
    assert_eq!(bag_of("devices/dev1/messages/events/a=b//", "dev1"), "a=b/");
    assert_eq!(bag_of("devices/dev1/messages/events/a=/b c/d", "dev1"), "a=/b c/d");
    assert_eq!(bag_of("devices/dev1/messages/events/", "dev1"), "");
    assert_eq!(bag_of("devices/dev1/messages/events", "dev1"), "");
    assert_eq!(
        bag_of("devices/e/modules/m/messages/events/%24.on=out/", "e/m"),
        "%24.on=out"
    );
}

#[test]
fn ids_are_compared_as_text_and_never_decoded() {
    assert_eq!(bag_of("devices/a%2Bb/messages/events/", "a%2Bb"), "");
    assert_eq!(bag_of("devices/a+#$/messages/events/", "a+#$"), "");
    for topic in ["devices/a%2Bb/messages/events/", "devices/A+b/messages/events/"] {
        assert!(matches!(
            ClientTopic::parse(topic, &id("a+b")),
            Err(TopicError::Foreign { .. })
        ));
    }
}

/// Acceptance row 39.
#[test]
fn the_topic_of_another_identity_is_foreign() {
    for topic in [
        "devices/dev2/messages/events/",
        "devices/dev10/messages/events/",
        "devices/dev1/modules/m/messages/events/",
    ] {
        assert!(matches!(
            ClientTopic::parse(topic, &id("dev1")),
            Err(TopicError::Foreign { .. })
        ));
    }
    let of_device = ClientTopic::parse("devices/dev1/messages/events/", &id("dev1/m"));
    assert!(matches!(of_device, Err(TopicError::Foreign { .. })));
}

#[test]
fn a_connection_for_several_identities_reads_any_owner() {
    let parsed = ClientTopic::parse_any("devices/leaf/modules/m/messages/events/a=1").unwrap();

    assert_eq!(
        parsed,
        ClientTopic::Telemetry {
            device: "leaf",
            module: Some("m"),
            bag: "a=1"
        }
    );
}

#[test]
fn other_topics_do_not_exist() {
    for topic in [
        "",
        "a/b",
        "devices/dev1",
        "devices/dev1/messages/eventsx",
        "devices/dev1/messages/devicebound/",
        "$iothub/",
        "$iothub/twin/GETx",
        "$iothub/twin/POST/?$rid=1",
        "$SYS/x",
    ] {
        assert_eq!(
            ClientTopic::parse(topic, &id("dev1")),
            Err(TopicError::Unknown(topic.to_owned())),
            "{topic}"
        );
    }
}

#[test]
fn a_request_for_a_certificate_has_its_rid_behind_the_published_path() {
    let parse = |topic| ClientTopic::parse(topic, &id("d"));

    assert_eq!(
        parse("$iothub/credentials/POST/issueCertificate/?$rid=r-01"),
        Ok(ClientTopic::IssueCertificate { rid: Some("r-01") })
    );
    assert_eq!(
        parse("$iothub/credentials/POST/issueCertificate/"),
        Ok(ClientTopic::IssueCertificate { rid: None })
    );
    assert!(matches!(
        parse("$iothub/credentials/POST/other/?$rid=r-01"),
        Err(TopicError::Unknown(_))
    ));
    assert_eq!(
        ServerTopic::certificate_response(202, "r-01"),
        "$iothub/credentials/res/202/?$rid=r-01"
    );
}

/// Acceptance row 48.
#[test]
fn a_rid_is_opaque_and_may_be_missing() {
    let get = |topic| ClientTopic::parse(topic, &id("d"));

    assert_eq!(
        get("$iothub/twin/GET/?$rid=A%2f-9/x"),
        Ok(ClientTopic::TwinGet { rid: Some("A%2f-9/x") })
    );
    for topic in [
        "$iothub/twin/GET/?",
        "$iothub/twin/GET/",
        "$iothub/twin/GET",
        "$iothub/twin/GET/?x=1",
    ] {
        assert_eq!(get(topic), Ok(ClientTopic::TwinGet { rid: None }), "{topic}");
    }
}

#[test]
fn java_may_state_the_version_that_it_patches() {
    let patch = |topic| ClientTopic::parse(topic, &id("d"));

    assert_eq!(
        patch("$iothub/twin/PATCH/properties/reported/?$rid=1&$version=7"),
        Ok(ClientTopic::TwinPatchReported {
            rid: Some("1"),
            version: Some(7)
        })
    );
    assert_eq!(
        patch("$iothub/twin/PATCH/properties/reported/?$rid=1"),
        Ok(ClientTopic::TwinPatchReported {
            rid: Some("1"),
            version: None
        })
    );
    assert!(matches!(
        patch("$iothub/twin/PATCH/properties/reported/?$rid=1&$version=x"),
        Err(TopicError::Number { part: "$version", .. })
    ));
}

#[test]
fn a_method_answer_has_any_int_as_its_status() {
    let answer = |topic| ClientTopic::parse(topic, &id("d"));

    assert_eq!(
        answer("$iothub/methods/res/-1/?$rid=1f"),
        Ok(ClientTopic::MethodResponse {
            status: -1,
            rid: Some("1f")
        })
    );
    assert!(matches!(
        answer("$iothub/methods/res/ok/?$rid=1f"),
        Err(TopicError::Number { part: "status", .. })
    ));
}

#[test]
fn topics_to_clients_are_byte_exact() {
    assert_eq!(
        ServerTopic::input(&id("e/m"), "in", "%24.cdid=e"),
        "devices/e/modules/m/inputs/in/%24.cdid=e"
    );
    assert_eq!(
        ServerTopic::cloud_to_device(&id("d"), "a=b"),
        "devices/d/messages/devicebound/a=b"
    );
    assert_eq!(
        ServerTopic::method("reboot", "1f"),
        "$iothub/methods/POST/reboot/?$rid=1f"
    );
    assert_eq!(
        ServerTopic::twin_response(200, "R", None),
        "$iothub/twin/res/200/?$rid=R"
    );
    assert_eq!(
        ServerTopic::twin_response(204, "R", Some(4)),
        "$iothub/twin/res/204/?$rid=R&$version=4"
    );
    assert_eq!(
        ServerTopic::desired_patch(8),
        "$iothub/twin/PATCH/properties/desired/?$version=8"
    );
}

#[test]
fn our_client_reads_what_our_server_writes() {
    let own = id("e/m");
    let input = ServerTopic::input(&own, "in", "%24.cdid=e");
    let c2d = ServerTopic::cloud_to_device(&own, "a=b");
    let method = ServerTopic::method("a/b", "1");
    let answer = ServerTopic::twin_response(204, "R", Some(4));
    let patch = ServerTopic::desired_patch(8);

    let read = |topic| ServerTopic::parse(topic, &own).unwrap();
    assert_eq!(
        read(&input),
        ServerTopic::Input {
            input: "in",
            bag: "%24.cdid=e"
        }
    );
    assert_eq!(read(&c2d), ServerTopic::CloudToDevice { bag: "a=b" });
    assert_eq!(read(&method), ServerTopic::Method { name: "a/b", rid: "1" });
    assert_eq!(
        read(&answer),
        ServerTopic::TwinResponse {
            status: 204,
            rid: "R",
            version: Some(4)
        }
    );
    assert_eq!(read(&patch), ServerTopic::DesiredPatch { version: Some(8) });
    assert!(matches!(
        ServerTopic::parse(&input, &id("e/x")),
        Err(TopicError::Foreign { .. })
    ));
}

#[test]
fn our_server_reads_what_our_client_writes() {
    let own = id("e/m");
    let get = ClientTopic::twin_get("1");
    let patch = ClientTopic::twin_patch_reported("2");
    let answer = ClientTopic::method_response(200, "1f");

    let read = |topic| ClientTopic::parse(topic, &own).unwrap();
    assert_eq!(bag_of(&ClientTopic::telemetry(&own, "a=b"), "e/m"), "a=b");
    assert_eq!(read(&get), ClientTopic::TwinGet { rid: Some("1") });
    assert_eq!(
        read(&patch),
        ClientTopic::TwinPatchReported {
            rid: Some("2"),
            version: None
        }
    );
    assert_eq!(
        read(&answer),
        ClientTopic::MethodResponse {
            status: 200,
            rid: Some("1f")
        }
    );
}

#[test]
fn a_refused_topic_is_not_repeated_at_length() {
    let error = ClientTopic::parse_any(&"é".repeat(60_000)).unwrap_err();

    assert!(error.to_string().len() < 600);
}

proptest! {
    #[test]
    fn any_topic_is_read_or_refused_without_panic(
        topic in "(devices/|\\$iothub/)?(d/|twin/|methods/)?(messages/|modules/|res/|POST/|PATCH/properties/)?.*"
    ) {
        let own = id("d");
        if let Ok(read) = ClientTopic::parse(&topic, &own) {
            prop_assert_eq!(ClientTopic::parse_any(&topic), Ok(read));
        }
        if let Err(TopicError::Unknown(refused)) = ServerTopic::parse(&topic, &own) {
            prop_assert!(topic.starts_with(&refused));
        }
    }

    #[test]
    fn any_bag_travels_as_it_is(bag in ".*[^/]") {
        let own = id("d/m");
        let up = ClientTopic::telemetry(&own, &bag);
        let down = ServerTopic::input(&own, "in", &bag);

        prop_assert_eq!(bag_of(&up, "d/m"), bag.clone());
        prop_assert_eq!(ServerTopic::parse(&down, &own), Ok(ServerTopic::Input { input: "in", bag: &bag }));
    }
}
