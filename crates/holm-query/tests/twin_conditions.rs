//! Conditions by themselves, as deployments and jobs hold them, and what they imply.

use holm_query::twin::{Collection, Condition, Filter};
use serde_json::{Value, json};

fn holds(text: &str, document: &Value) -> bool {
    Condition::parse(text)
        .unwrap_or_else(|problem| panic!("{text}: {problem}"))
        .holds(document)
}

#[test]
fn a_star_holds_for_all_and_an_empty_text_for_nobody() {
    let twin = json!({"deviceId": "d1"});

    assert!(holds("*", &twin) && holds(" * ", &twin));
    assert!(!holds("", &twin) && !holds("  ", &twin));
    assert_eq!(Condition::parse("").unwrap().filter(), Filter::Never);
    assert_eq!(Condition::parse("*").unwrap().filter(), Filter::Always);
}

#[test]
fn a_condition_on_modules_says_so() {
    let condition =
        Condition::parse("from devices.modules where moduleId = 'm' and devices.modules.tags.a = 1").unwrap();

    assert_eq!(condition.collection(), Collection::Modules);
    assert!(condition.holds(&json!({"moduleId": "m", "tags": {"a": 1.0}})));
    assert_eq!(
        Condition::parse("tags.a = 1").unwrap().collection(),
        Collection::Devices
    );
    assert!(Condition::parse("FROM devices.jobs WHERE true").is_err());
    let everything = Condition::parse("from devices.modules").unwrap();
    assert_eq!(
        (everything.collection(), everything.filter()),
        (Collection::Modules, Filter::Always)
    );
    assert_eq!(
        Condition::parse("from devices where *").unwrap().filter(),
        Filter::Always
    );
    assert!(Condition::parse("from devices.modules where").is_err());
}

#[test]
fn the_paths_that_are_read_are_told() {
    let text = "NOT tags.a.[[b c]] = 1 AND (properties.reported.x[2] IN [tags.y, 3] OR IS_DEFINED(properties.desired.$version))";
    let condition = Condition::parse(text).unwrap();

    let paths: Vec<String> = condition.paths().iter().map(ToString::to_string).collect();

    let wanted = [
        "tags.a.[[b c]]",
        "properties.reported.x[2]",
        "tags.y",
        "properties.desired.$version",
    ];
    assert_eq!(paths, wanted);
    assert_eq!(condition.paths()[0].keys().unwrap(), ["tags", "a", "b c"]);
    assert_eq!(condition.paths()[1].keys(), None);
}

#[test]
fn a_condition_that_does_not_parse_tells_where() {
    for (text, column) in [
        ("tags.a = ", 10),
        ("tags.a = 'x' tags.b", 14),
        ("* AND 1", 3),
        ("a = 1)", 6),
    ] {
        assert_eq!(Condition::parse(text).expect_err(text).column, column, "{text}");
    }
}

#[test]
fn values_of_two_kinds_are_different_and_have_no_order() {
    let twin = json!({"tags": {"n": 1, "t": "1", "z": null, "o": {}, "l": [1, "a", null], "b": true}});
    for (text, wanted) in [
        ("tags.n = '1'", false),
        ("tags.n != '1'", true),
        ("tags.n < '2'", false),
        ("NOT tags.n < '2'", false),
        ("tags.z = null", true),
        ("tags.z != 1", true),
        ("tags.z < 1 OR tags.z >= null", false),
        ("tags.o = tags.o OR tags.o != tags.o", false),
        ("tags.o != null AND tags.l != null", true),
        ("tags.n IN ['1', 2, 1.0]", true),
        ("tags.o IN [1] OR tags.o NIN [1]", false),
        ("tags.missing NIN [1]", false),
        (
            "ARRAY_CONTAINS(tags.l, 1) AND ARRAY_CONTAINS(tags.l, null) AND NOT ARRAY_CONTAINS(tags.l, '1')",
            true,
        ),
        ("ARRAY_CONTAINS(tags.t, '1') OR NOT ARRAY_CONTAINS(tags.t, '1')", false),
        ("tags.b", true),
        ("tags.n", false),
        ("NOT tags.missing", false),
        ("tags.b OR tags.missing", true),
        ("tags.b = true AND true >= false", true),
        ("-tags.n = -1 AND tags.n / 4 = 0.25 AND tags.n % 4 = 1", true),
        ("tags.n / 0 > 5 OR NOT tags.n / 0 > 5", false),
        ("-tags.n / 0 < 5 OR tags.n / 0 = 1e999 OR tags.n / 0 != 1", false),
        ("tags.n / 0 IN [1e999] OR tags.n / 0 NIN [1]", false),
        ("tags.n % 0 = 0 OR NOT tags.n % 0 = 0", false),
        (
            "IS_DEFINED(tags.n / 0) OR IS_NUMBER(tags.n / 0) OR IS_NULL(tags.n / 0)",
            false,
        ),
        ("NOT IS_DEFINED(tags.n / 0) OR tags.n / 0 > 1", true),
        (
            "tags.n + 1e308 + 1e308 > 0 OR EXP(1000) > 0 OR ABS(tags.n / 0) > 0",
            false,
        ),
        ("tags.t + 1 = 2", false),
    ] {
        assert_eq!(holds(text, &twin), wanted, "{text}");
    }
}
