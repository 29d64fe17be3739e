//! Conditions of a hub's routes: every row of `hub-service-api.md` §4.2, the rules about what is missing, and what is refused where.

use holm_model::{Message, SystemProperty, Timestamp, Twin, TwinUpdate};
use holm_query::evaluate::Truth;
use holm_query::{HubCondition, HubFields};

fn message() -> Message {
    let mut message = Message::new(
        r#"{"temp": 31.5, "alarm": null, "ok": true, "when": "2017-03-09T00:00:00Z", "items": [{"id": "a"}, {"id": "b"}], "big": {"n": 1}, "none": []}"#,
    );
    let system = [
        (SystemProperty::ContentType, "application/json"),
        (SystemProperty::ContentEncoding, "utf-8"),
        (SystemProperty::MessageId, "m-1"),
        (SystemProperty::CorrelationId, "c-1"),
        (SystemProperty::UserId, "u-1"),
        (SystemProperty::ConnectionDeviceId, "line1-07"),
        (SystemProperty::ConnectionModuleId, "filter"),
        (SystemProperty::EnqueuedTime, "2026-11-22T02:30:00.000Z"),
        (SystemProperty::Subject, "pump"),
        (SystemProperty::ModelId, "dtmi:a;1"),
    ];
    for (name, value) in system {
        message.system.set(name, value);
    }
    message.properties.set("level", Some("critical".to_owned()));
    message.properties.set("number", Some("12".to_owned()));
    message.properties.set("Mixed-Case_1", Some("x".to_owned()));
    message.properties.set("nothing", None);
    // A sender can't hide what the hub knows.
    message
        .properties
        .set("$connectionDeviceId", Some("somebody else".to_owned()));
    message
}

fn twin() -> Twin {
    let mut twin = Twin::new(
        "line1-07/filter".parse().expect("an id"),
        Timestamp::from_unix_seconds(1),
    );
    let update = br#"{"tags": {"site": "x", "floor": 3, "area": {"a": 1}}, "properties": {"desired": {"mode": "fast", "list": [7]}}}"#;
    let update = TwinUpdate::from_json(update).expect("an update");
    let changed = twin.patch(&update, Timestamp::from_unix_seconds(2));
    changed.expect("it can be applied");
    twin
}

fn truth_of(text: &str, message: &Message, twin: Option<&Twin>) -> Truth {
    let condition = HubCondition::compile(text).unwrap_or_else(|problems| panic!("`{text}`: {}", problems[0]));
    condition.truth(&HubFields::new(message, twin))
}

#[test]
fn each_published_query_routes_what_it_says() {
    let (message, twin) = (message(), twin());
    for (text, holds) in [
        ("true", true),
        ("", true),
        (r#"level = "critical""#, true),
        ("level = 'critical'", true),
        ("LEVEL = 'critical'", true),
        ("mixed-case_1 = 'x'", true),
        ("level = 'Critical'", false),
        ("level = 'critical' AND $contentType = 'application/json'", true),
        ("level = 'critical' AND $contentType = 'text/plain'", false),
        ("$connectionModuleId = 'filter'", true),
        ("$connectionModuleId = 'other'", false),
        ("$body.temp > 30", true),
        ("$body.temp > 32", false),
        ("$body.items[0].id = 'a'", true),
        ("$body.items[1].id = 'a'", false),
        ("IS_DEFINED($body.alarm) OR $twin.tags.site = 'x'", true),
        ("IS_DEFINED($body.nowhere) OR $twin.tags.site = 'y'", false),
        ("STARTS_WITH($connectionDeviceId,'line1-')", true),
        ("STARTS_WITH($connectionDeviceId,'line2-')", false),
    ] {
        assert_eq!(truth_of(text, &message, Some(&twin)) == Truth::True, holds, "{text}");
    }
}

#[test]
fn every_system_property_can_be_named_and_none_can_be_hidden() {
    let message = message();
    for text in [
        "$contentType = 'application/json'",
        "$contentEncoding = 'utf-8'",
        "$messageId = 'm-1'",
        "$correlationId = 'c-1'",
        "$userId = 'u-1'",
        "$connectionDeviceId = 'line1-07'",
        "$CONNECTIONDEVICEID = 'line1-07'",
        "$connectionModuleId = 'filter'",
        "$enqueuedTime > '2026-11-22T02:00:00.000Z'",
        "$dt-subject = 'pump'",
        "$dt-dataschema = 'dtmi:a;1'",
        "{$messageId} = 'm-1'",
    ] {
        assert_eq!(truth_of(text, &message, None), Truth::True, "{text}");
    }
}

#[test]
fn each_function_is_known_in_any_case() {
    let (message, twin) = (message(), twin());
    for text in [
        "ABS(-3) = 3 AND EXP(0) = 1 AND POWER(2, 3) = 8 AND SQUARE(3) = 9",
        "CEILING(1.2) = 2 AND FLOOR(1.8) = 1 AND SIGN(-2) = -1 AND SQRT(9) = 3",
        "AS_NUMBER(number) > 11",
        "IS_ARRAY($body.items) AND IS_ARRAY($body.none) AND NOT IS_ARRAY($body.big)",
        "IS_ARRAY($twin.properties.desired.list)",
        "IS_BOOL($body.ok) AND NOT IS_BOOL($body.temp)",
        "IS_DEFINED($body.big) AND IS_DEFINED($body.items) AND IS_DEFINED($body.alarm) AND NOT IS_DEFINED($body.nowhere)",
        "IS_DEFINED($twin.tags) AND IS_DEFINED($twin.tags.area) AND NOT IS_DEFINED($twin.tags.nowhere)",
        "IS_NULL($body.alarm) AND NOT IS_NULL($body.nowhere) AND IS_NULL(nothing)",
        "IS_NUMBER($body.temp) AND IS_STRING($body.when) AND $body.when = '2017-03-09T00:00:00Z'",
        "IS_OBJECT($body.big) AND IS_OBJECT($twin.tags) AND NOT IS_OBJECT($body.items)",
        "IS_PRIMITIVE($body.temp) AND IS_PRIMITIVE($body.alarm) AND NOT IS_PRIMITIVE($body.big) AND NOT IS_PRIMITIVE($body.nowhere)",
        "CONCAT('a', level) = 'acritical' AND LENGTH(level) = 8 AND LOWER('A') = 'a' AND upper('a') = 'A'",
        "SUBSTRING(level, 0, 4) = 'crit' AND INDEX_OF(level, 't') = 3",
        "STARTS_WITH(level, 'crit') AND ENDS_WITH(level, 'cal') AND CONTAINS(level, 'tic')",
    ] {
        assert_eq!(truth_of(text, &message, Some(&twin)), Truth::True, "{text}");
    }
}

#[test]
fn what_is_missing_null_or_a_structure_never_routes() {
    let (message, twin) = (message(), twin());
    for text in [
        "missing = 'x'",
        "NOT (missing = 'x')",
        "missing <> 'x'",
        "nothing = 'x'",
        "$body.nowhere = 1",
        "NOT ($body.nowhere = 1)",
        "$body.alarm",
        "$body.temp",
        "$body.big = 1",
        "$body.big = $body.big",
        "$body.items = $body.none",
        "$twin.tags = 'x'",
        "$twin.tags.nowhere = 'x'",
        "$twin.properties.reported.mode = 'fast'",
        "null",
        "undefined",
    ] {
        assert_ne!(truth_of(text, &message, Some(&twin)), Truth::True, "{text}");
    }
    assert_eq!(truth_of("$body.ok", &message, None), Truth::True);
    assert_ne!(truth_of("$twin.tags.site = 'x'", &message, None), Truth::True);
}

#[test]
fn a_body_is_looked_into_only_as_what_it_says_it_is() {
    let of = |content_type: Option<&str>, encoding: Option<&str>, body: Vec<u8>| {
        let mut message = Message::new(body);
        let said = [
            (SystemProperty::ContentType, content_type),
            (SystemProperty::ContentEncoding, encoding),
        ];
        for (name, value) in said {
            if let Some(value) = value {
                message.system.set(name, value);
            }
        }
        truth_of("$body.a = 1", &message, None)
    };
    let text = r#"{"a":1}"#;
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let utf32: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
    let (json, utf8) = (Some("application/json"), text.as_bytes().to_vec());

    assert_eq!(of(json, Some("utf-8"), utf8.clone()), Truth::True);
    assert_eq!(of(json, Some("UTF-8"), utf8.clone()), Truth::True);
    assert_eq!(of(json, Some("utf-16"), utf16), Truth::True);
    assert_eq!(of(json, Some("utf-32"), utf32), Truth::True);
    assert_eq!(of(json, None, utf8.clone()), Truth::Undefined);
    assert_eq!(of(None, Some("utf-8"), utf8.clone()), Truth::Undefined);
    assert_eq!(of(Some("text/plain"), Some("utf-8"), utf8.clone()), Truth::Undefined);
    assert_eq!(of(json, Some("ascii"), utf8), Truth::Undefined);
    assert_eq!(of(json, Some("utf-8"), b"{\"a\":".to_vec()), Truth::Undefined);
}

#[test]
fn what_can_not_be_meant_is_refused_at_its_place_with_a_way_out() {
    for (text, column, remedy) in [
        ("level ==", 7, "write `=`"),
        ("level = ", 9, "add a value"),
        ("level = 'a", 9, "close it"),
        ("(level = 'a'", 13, "close the parenthesis"),
        ("level = 'a' )", 13, "remove it"),
        ("level = 'a' level", 13, "AND"),
        ("level > 5", 7, "as_number(level)"),
        ("$body = 'x'", 1, "$body.a"),
        ("a = 'b' AND $twin = 'x'", 13, "$twin.tags.a"),
        ("$deviceId = 'x'", 1, "$connectionDeviceId"),
        ("$twin.deviceId = 'x'", 7, "$twin.tags"),
        ("$twin.tagsx.a = 'x'", 7, "$twin.tags"),
        ("$body.a..b = 1", 9, "separated by `.`"),
        ("$body.a[x] = 1", 8, "counted from 0"),
        ("IS_DEFINE($body.a)", 1, "is_defined"),
        ("NO_SUCH(level)", 1, "is_array"),
        ("LENGTH(level, 1) = 1", 1, "length(text)"),
    ] {
        let problems = HubCondition::compile(text).expect_err(text);
        assert_eq!(
            (problems[0].line, problems[0].column),
            (1, column),
            "{text}: {}",
            problems[0]
        );
        assert!(problems[0].remedy.contains(remedy), "{text}: {}", problems[0]);
    }
}

#[test]
fn a_condition_has_limits_in_length_and_depth() {
    let long = format!("level = '{}'", "x".repeat(40_000));
    let deep = format!("{}true{}", "(".repeat(100), ")".repeat(100));
    let many = vec!["level = 'a'"; 1000].join(" OR ");

    assert!(HubCondition::compile(&long).is_err());
    assert!(HubCondition::compile(&deep).is_err());
    assert_eq!(truth_of(&many, &message(), None), Truth::False);
}

#[test]
fn only_a_condition_that_names_a_twin_asks_for_one() {
    assert!(
        !HubCondition::compile("$body.a = 1 AND level = 'x'")
            .unwrap()
            .reads_twin()
    );
    assert!(
        HubCondition::compile("level = 'x' OR IS_DEFINED($twin.tags.a)")
            .unwrap()
            .reads_twin()
    );
}
