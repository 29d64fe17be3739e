use proptest::prelude::*;

use super::*;

fn device() -> Identity {
    "dev1".parse().unwrap()
}

fn pairs(properties: &Properties) -> Vec<(&str, Option<&str>)> {
    properties.iter().collect()
}

#[test]
fn the_bag_of_the_python_sdk_reads_as_the_application_meant_it() {
    let bag = "%24.mid=mid%2B1%2F%C3%A4&%24.ct=application%2Fjson&%24.ce=utf-8&a%20key=v%2B1%26%3D%C3%A9%2F";

    let (system, properties) = from_client(bag);

    assert_eq!(system.get(SystemProperty::MessageId), Some("mid+1/ä"));
    assert_eq!(system.get(SystemProperty::ContentType), Some("application/json"));
    assert_eq!(system.get(SystemProperty::ContentEncoding), Some("utf-8"));
    assert_eq!(pairs(&properties), [("a key", Some("v+1&=é/"))]);
}

/// Acceptance row 31.
#[test]
fn java_and_python_spell_the_same_message_id() {
    let (java, _) = from_client("$.mid=m-1");
    let (python, _) = from_client("%24.mid=m-1");

    assert_eq!(java, python);
    assert_eq!(java.get(SystemProperty::MessageId), Some("m-1"));
}

/// Acceptance row 32.
#[test]
fn raw_spaces_slashes_and_question_marks_of_the_c_sdk_are_kept() {
    let (system, properties) = from_client("%24.ct=application/json&path=/a b/c?d=e&x=1");

    assert_eq!(system.get(SystemProperty::ContentType), Some("application/json"));
    assert_eq!(pairs(&properties), [("path", Some("/a b/c?d=e")), ("x", Some("1"))]);
}

/// Acceptance row 33.
#[test]
fn no_value_an_empty_value_and_plusses_are_three_things() {
    let (_, properties) = from_client("a&b=&c=%2B+");

    assert_eq!(pairs(&properties), [("a", None), ("b", Some("")), ("c", Some("++"))]);
}

#[test]
fn an_escape_in_the_middle_of_a_name_is_still_that_name() {
    let (system, properties) = from_client("%24.mi%64=a&$%2Ect=b&iothub%2Dack=full");

    assert_eq!(system.get(SystemProperty::MessageId), Some("a"));
    assert_eq!(system.get(SystemProperty::ContentType), Some("b"));
    assert_eq!(system.get(SystemProperty::Ack), Some("full"));
    assert_eq!(pairs(&properties), []);
}

#[test]
fn the_last_of_repeated_names_wins_and_empty_pairs_are_nothing() {
    let (system, properties) = from_client("&k=1&%24.mid=a&&k=2&%24.mid=b&");

    assert_eq!(system.get(SystemProperty::MessageId), Some("b"));
    assert_eq!(pairs(&properties), [("k", Some("2"))]);
}

#[test]
fn an_unknown_dollar_name_is_an_application_property() {
    let (system, properties) = from_client("$.nope=1&%24x=2&$.mid");

    assert_eq!(system.iter().count(), 0);
    assert_eq!(
        pairs(&properties),
        [("$.nope", Some("1")), ("$x", Some("2")), ("$.mid", None)]
    );
}

#[test]
fn a_client_cannot_say_who_it_is_in_the_bag() {
    let (system, properties) = from_client("%24.cdid=other&%24.cmid=m");
    let mut message = Message {
        properties,
        system,
        ..Message::default()
    };
    message.system.set(SystemProperty::ConnectionDeviceId, "dev1");

    let delivered = input(&message, &"dev1/b".parse().unwrap(), "in");

    assert_eq!(message.properties.get("$.cdid"), Some(Some("other")));
    assert_eq!(delivered, "%24.cdid=dev1");
    assert_eq!(to_server(&message), "");
}

#[test]
fn a_cloud_to_device_bag_is_exactly_what_five_sdks_read() {
    let mut message = Message::new("x");
    message.system.set(SystemProperty::MessageId, "m-1");
    message
        .system
        .set(SystemProperty::AbsoluteExpiryTime, "2027-01-15T08:00:00Z");
    message.system.set(SystemProperty::ContentType, "application/json");
    message.system.set(SystemProperty::Ack, "full");
    message.system.set(SystemProperty::SequenceNumber, "9");
    message.properties.set("k", Some("v".into()));

    let bag = cloud_to_device(&message, &device());

    assert_eq!(
        bag,
        "%24.to=%2Fdevices%2Fdev1%2Fmessages%2Fdevicebound&%24.mid=m-1&%24.exp=2027-01-15T08:00:00.0000000Z\
         &%24.ct=application%2Fjson&iothub-ack=full&k=v"
    );
}

#[test]
fn what_java_and_csharp_throw_on_is_left_out() {
    let mut message = Message::new("x");
    message.system.set(SystemProperty::AbsoluteExpiryTime, "tomorrow");
    message.system.set(SystemProperty::ContentType, "");
    message.properties.set("none", None);
    message.properties.set("empty", Some(String::new()));
    message.properties.set("a b", Some("1+1 =".into()));

    let bag = cloud_to_device(&message, &device());

    assert_eq!(
        bag,
        "%24.to=%2Fdevices%2Fdev1%2Fmessages%2Fdevicebound&a%20b=1%2B1%20%3D"
    );
}

#[test]
fn an_input_bag_names_the_sender_first_and_not_the_output() {
    let mut message = Message::new("x");
    message.system.set(SystemProperty::MessageId, "m");
    message.system.set(SystemProperty::OutputName, "alerts");
    message.system.set(SystemProperty::ConnectionDeviceId, "edge1");
    message.system.set(SystemProperty::ConnectionModuleId, "sensor");

    let bag = input(&message, &"edge1/watcher".parse().unwrap(), "readings");

    assert_eq!(bag, "%24.cdid=edge1&%24.mid=m&%24.cmid=sensor");
    let (system, _) = from_server(&bag);
    assert_eq!(system.get(SystemProperty::ConnectionModuleId), Some("sensor"));
}

#[test]
fn an_input_bag_is_never_empty() {
    let bag = input(&Message::new("x"), &"edge1/watcher".parse().unwrap(), "in");

    assert_eq!(bag, "%24.to=%2Fdevices%2Fedge1%2Fmodules%2Fwatcher%2Finputs%2Fin");
}

#[test]
fn telemetry_keeps_absent_and_empty_values() {
    let mut message = Message::new("x");
    message.system.set(SystemProperty::OutputName, "out");
    message.properties.set("none", None);
    message.properties.set("empty", Some(String::new()));

    assert_eq!(to_server(&message), "%24.on=out&none&empty=");
}

fn any_message() -> impl Strategy<Value = Message> {
    let system = proptest::collection::vec((0..NAMES.len(), ".*"), 0..6);
    let properties = proptest::collection::vec((".+", proptest::option::of(".*")), 0..6);
    (system, properties).prop_map(|(system, properties)| {
        let mut message = Message::default();
        for (index, value) in system {
            let (_, property, down) = NAMES[index];
            if down != Down::Only {
                message.system.set(property, value);
            }
        }
        for (name, value) in properties {
            if !is_reserved(&name) {
                message.properties.set(name, value);
            }
        }
        message
    })
}

proptest! {
    #[test]
    fn any_bag_is_read_without_panic(bag in any::<String>()) {
        let (_, properties) = from_client(&bag);
        prop_assert!(properties.len() <= bag.len());
        let (_, properties) = from_server(&bag);
        prop_assert!(properties.len() <= bag.len());
    }

    #[test]
    fn a_bag_in_a_packet_reads_as_it_does_alone(
        pairs in proptest::collection::vec(("(%24|\\$|%|)\\.?(mid|ct|on|mi%64|k)", "(%2F|a|%|ä)*"), 0..6)
    ) {
        let bag = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
        let packet = Bytes::from(format!("topic/{bag}"));
        let part = std::str::from_utf8(&packet).unwrap().split_once('/').unwrap().1;

        prop_assert_eq!(from_packet(part, &packet), from_client(&bag));
    }

    #[test]
    fn telemetry_reads_back_what_was_written(message in any_message()) {
        let (system, properties) = from_client(&to_server(&message));
        prop_assert_eq!(system, message.system);
        prop_assert_eq!(properties, message.properties);
    }

    #[test]
    fn every_pair_to_a_client_has_a_name_and_a_value(message in any_message()) {
        for pair in cloud_to_device(&message, &device()).split('&') {
            let (name, value) = pair.split_once('=').unwrap();
            prop_assert!(!name.is_empty() && !value.is_empty());
        }
    }

    #[test]
    fn no_bag_is_longer_than_was_said(message in any_message()) {
        let longest = longest(&message);
        let slack = 2_048;
        prop_assert!(to_server(&message).len() <= longest);
        prop_assert!(cloud_to_device(&message, &device()).len() <= longest + slack);
        prop_assert!(input(&message, &device(), "in").len() <= longest + slack);
    }
}

#[test]
fn signs_that_are_written_in_three_bytes_are_counted_so() {
    let mut message = Message::new("");
    message.properties.set("a", Some("/".repeat(30_000)));

    assert_eq!(longest(&message), 90_002);
    assert!(longest(&message) > MAX_BYTES);
    message.properties.set("a", Some("x".repeat(60_000)));
    assert_eq!(longest(&message), 60_002);
}
