//! Every row of the truth tables of `edge-broker.md` §2.7, by number. A failure lists every wrong row.

use std::collections::BTreeMap;

use holm_query::body;
use holm_query::condition::Condition;
use holm_query::evaluate::{Truth, Value};
use holm_query::message::Fields;

/// A message with any system properties, also such as no protocol has.
struct Sample {
    application: BTreeMap<&'static str, Option<&'static str>>,
    system: BTreeMap<&'static str, &'static str>,
    body: Option<serde_json::Value>,
}

impl Fields for Sample {
    fn application(&self, name: &str) -> Option<Option<&str>> {
        let mut all = self.application.iter();
        all.find_map(|(known, value)| known.eq_ignore_ascii_case(name).then_some(*value))
    }

    fn system(&self, name: &str) -> Option<&str> {
        let mut all = self.system.iter();
        all.find_map(|(known, value)| known.eq_ignore_ascii_case(name).then_some(*value))
    }

    fn body(&self) -> Option<&serde_json::Value> {
        self.body.as_ref()
    }
}

fn message_1() -> Sample {
    Sample {
        application: BTreeMap::from([
            ("key1", Some("value1")),
            ("key2", Some("3")),
            ("key3", Some("VALUE3")),
            ("null_value", None),
            ("$sys4", Some("value4")),
        ]),
        system: BTreeMap::from([("sys1", "sysvalue1"), ("sys2", "4"), ("sys4", "sysvalue4")]),
        body: None,
    }
}

fn message_2() -> Sample {
    let body = br#"{"message": {"Weather": {
        "Temperature": 50, "FreezingTemperature": -50.4, "NullValue": null,
        "Time": "2017-03-09T00:00:00.000Z", "PrevTemperatures": [20, 30, 40],
        "IsEnabled": true, "IsDisabled": false,
        "Location": {"City": "Redmond", "State": "WA"},
        "HistoricalData": [{"Month": "Feb", "Temperature": 40}, {"Month": "Jan", "Temperature": 30}],
        "Conflict": 50
    }}}"#;
    Sample {
        application: BTreeMap::from([
            ("City", Some("Redmond")),
            ("$State", Some("WA")),
            ("$body.message.Weather.Conflict", Some("100")),
        ]),
        system: BTreeMap::from([("State", "CA"), ("body.message.Weather.Location.State", "CA")]),
        body: body::read(body, Some("application/json"), Some("UTF-8")),
    }
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Condition(Truth),
    Number(f64),
    Text(&'static str),
    Refused,
}

const T: Outcome = Outcome::Condition(Truth::True);
const F: Outcome = Outcome::Condition(Truth::False);
const U: Outcome = Outcome::Condition(Truth::Undefined);
const E: Outcome = Outcome::Refused;

const fn number(value: f64) -> Outcome {
    Outcome::Number(value)
}

type Row = (u32, &'static str, Outcome);

/// What is wrong with a row; `None` when it is as it should be.
fn difference(sample: &Sample, text: &str, expected: &Outcome) -> Option<String> {
    let condition = match (Condition::compile(text), expected) {
        (Err(_), Outcome::Refused) => return None,
        (Ok(_), Outcome::Refused) => return Some("is accepted".to_owned()),
        (Err(problems), _) => return Some(format!("is refused: {}", problems[0])),
        (Ok(condition), _) => condition,
    };
    let found = match (condition.value(sample), expected) {
        (Value::Number(value), Outcome::Number(_)) => Outcome::Number(value),
        (Value::Text(value), Outcome::Text(expected)) if value == *expected => return None,
        _ => Outcome::Condition(condition.truth(sample)),
    };
    (found != *expected).then(|| format!("gives {found:?} instead of {expected:?}"))
}

#[track_caller]
fn check(sample: &Sample, rows: &[Row], numbers: impl IntoIterator<Item = u32>) {
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|(row, text, expected)| {
            difference(sample, text, expected).map(|what| format!("row {row}: `{text}` {what}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let missing: Vec<u32> = numbers
        .into_iter()
        .filter(|number| rows.iter().all(|(row, ..)| row != number))
        .collect();
    assert!(missing.is_empty(), "rows without a test: {missing:?}");
}

#[test]
fn rows_1_to_82_hold_for_the_message_of_properties() {
    check(&message_1(), ROWS_1, 1..=82);
}

#[test]
fn rows_83_to_110_hold_for_the_message_with_a_body() {
    check(&message_2(), ROWS_2, 83..=110);
}

const ROWS_1: &[Row] = &[
    (1, "", U),
    (2, "3", U),
    (3, "true", T),
    (4, "null", F),
    (5, "3 = 3", T),
    (6, "'3' = '4'", F),
    (7, "3 <> 4", T),
    (8, "key2 = '3'", T),
    (9, "is_defined(3 = none)", E),
    (9, "is_defined(3 != null_value)", E),
    (10, "as_number(key2) = 3", T),
    (11, "as_number(key1) = 3", U),
    (12, "KEY1 = \"value1\"", T),
    (13, "none = \"value1\"", U),
    (14, "none != \"4\"", U),
    (15, "is_defined(none = \"4\")", F),
    (16, "$sys2 = '4'", T),
    (17, "$sys4 = \"value4\"", T),
    (18, "{$sys4} = \"sysvalue4\"", T),
    (19, "{ $sys1 } = \"sysvalue1\"", T),
    (20, "true AND not true", F),
    (21, "not (true and false)", T),
    (22, "undefined or true", T),
    (23, "undefined or false", U),
    (24, "false and undefined", F),
    (25, "true and undefined", U),
    (26, "true or none = 'true'", T),
    (27, "false and none = 'true'", F),
    (28, "not (none = 'true')", U),
    (29, "undefined < undefined", U),
    (30, "none and true", E),
    (31, "(key1 ?? \"hello\") = \"value1\"", T),
    (32, "(none ?? \"hello\") = \"hello\"", T),
    (33, "key1 ?? \"hello\" = \"value1\"", E),
    (34, "(key1 ?? 12.34)", E),
    (34, "(key1 ?? null)", E),
    (35, "(as_number(key1) ?? 12.34) = 12.34", T),
    (36, "(3 % 0 ?? 12.34) = 12.34", T),
    (37, "not null", T),
    (38, "null and null", F),
    (39, "(null and true) = null", T),
    (39, "(null and false) = null", T),
    (39, "(null or null) = null", T),
    (40, "null or true", T),
    (41, "3 + 4 * 5", number(23.0)),
    (41, "3 - (4 + 0x10)", number(-17.0)),
    (42, "3 - 4 = -1", T),
    (43, "1 - -2", number(3.0)),
    (43, "-3 / 0", number(f64::NEG_INFINITY)),
    (44, "3 / 4 = 0.75", T),
    (45, "-(3 + 4) = -7", T),
    (46, "- (key1)", E),
    (47, "is_defined(3 % 0)", F),
    (48, "is_number(3 / 0)", F),
    (49, "is_defined(3 + none)", E),
    (50, "is_defined(true + 3)", E),
    (51, "is_defined('a' + 'b')", E),
    (52, "is_defined(undefined + 3)", E),
    (53, "is_defined(3 + as_number(none))", F),
    (54, "'a' < 'b'", T),
    (55, "'a' < none", U),
    (56, "is_defined(3 < none)", E),
    (56, "is_defined(3 <= none.key1)", E),
    (57, "3 < as_number(none)", U),
    (58, "AS_NUMBER('10e10') = 10e10", T),
    (59, "AS_NUMBER('10e1000') = 1/0", T),
    (60, "0xDEADBEEF", number(3_735_928_559.0)),
    (60, "1.234e+1", number(12.34)),
    (61, "is_bool(true)", T),
    (62, "is_bool(none)", F),
    (63, "is_defined(null_value)", T),
    (64, "is_defined(key4)", F),
    (65, "is_null(null_value)", T),
    (66, "is_null(none)", F),
    (67, "is_string('a' || 'b')", T),
    (68, "is_string(null_value)", F),
    (69, "'a' || null_value || 'd' = 'ad'", T),
    (70, "is_defined('a' || none || 'd')", F),
    (71, "concat('a') = 'avalue1d'", E),
    (71, "concat('a', null) = 'avalue1d'", E),
    (72, "length(key3) = 6", T),
    (73, "SUBSTRING('abc', 3) = 'c'", F),
    (73, "SUBSTRING('abc', 3)", Outcome::Text("")),
    (74, "SUBSTRING('abc', 4) = 'c'", U),
    (74, "substring('abc', -1) = ''", U),
    (75, "substring('hello', 4, 0) = ''", T),
    (76, "index_of('abc', 'xz') = -1", T),
    (77, "starts_with(null_value, '1')", U),
    (78, "starts_with('hello', 12.34)", E),
    (79, "test == true", E),
    (80, "32 = [32]", E),
    (80, "@32 = 32", E),
    (80, "3 $ 4", E),
    (80, "none = \"", E),
    (
        81,
        r#""he said, \"Tch\u00FCss!\"""#,
        Outcome::Text("he said, \"Tchüss!\""),
    ),
    (82, "x = 'it''s'", E),
];

const ROWS_2: &[Row] = &[
    (83, "$BODY.message.Weather.Temperature >= 50", T),
    (84, "$body.message.Weather.Temperature = 40 + 10", T),
    (85, "$body.message.Weather.Temperature = '50'", F),
    (86, "$body.message.Weather.Temperature <> '100'", T),
    (
        87,
        "$body.message.Weather.PrevTemperatures[0] + $body.message.Weather.PrevTemperatures[1] = 50",
        T,
    ),
    (88, "$body.message.Weather.HistoricalData[0].Month = 'Feb'", T),
    (89, "$body.message.Weather.Location.City = City", T),
    (90, "$body.message.Weather.Location.State = $State", T),
    (91, "$body.message.Weather.IsEnabled", T),
    (92, "NOT $body.message.Weather.IsDisabled", T),
    (93, "$body.message.Weather.InvalidKey <> '100'", T),
    (94, "$body.message.Weather.InvalidProperty = null", T),
    (95, "$body.message.Weather.NullValue = null", T),
    (96, "NOT ($body.message.Weather.InvalidProperty != null)", T),
    (97, "$body.message.Weather.Temperature != null", T),
    (98, "$body.message.Weather <> null", U),
    (99, "$body", U),
    (100, "$City <> $body.message.Weather.InvalidKey", U),
    (101, "$body.message.Weather.Time <> '100'", U),
    (102, "$body.message.Weather.Temperature.InvalidKey", U),
    (103, "$body.message.Weather.Conflict = '100'", T),
    (104, "{$body.message.Weather.Conflict} <> 100", T),
    (105, "{$body.message.Weather.Location.State} <> 'CA'", T),
    (106, "abs($body.message.Weather.FreezingTemperature) = 50.4", T),
    (107, "power($body.message.Weather.Temperature, 2) = 2500.0", T),
    (
        108,
        "concat($body.message.Weather.Location.City, ', ', $body.message.Weather.Location.State) = 'Redmond, WA'",
        T,
    ),
    (109, "is_null($body.message.Weather.NullValue)", T),
    (110, "$body.properties[]", E),
    (110, "$body.properties[1:2]", E),
    (110, "$body;@", E),
];

/// What was decided beyond the tables; the reasons stand in the module docs.
#[test]
fn decisions_beyond_the_tables_hold() {
    let rows: &[Row] = &[
        (0, "true and $body.message.Weather.IsEnabled", T),
        (0, "false or $body.message.Weather.IsDisabled", F),
        (0, "$body.message.Weather.Temperature % 7 = 1", T),
        (0, "- $body.message.Weather.Temperature = -50", T),
        (0, "is_null($body.message.Weather.Missing)", T),
        (0, "is_null($body.message.Weather.Temperature)", F),
        (0, "NOT $body.message.Weather.Missing", U),
        (
            0,
            "$body.message.Weather.IsEnabled < $body.message.Weather.Temperature",
            T,
        ),
        (0, "$body.message.Weather.Temperature < 'a'", T),
        (0, "'a' < $body.message.Weather.Missing", T),
        (0, "$body.message.Weather.Location.City + 1 = 1", U),
        (0, "/* a */ true /* b */", T),
        (0, "true /* open", E),
        (0, "$other[0] = 'x'", E),
        (0, "City!='x'", E),
        (0, "City != 'x'", T),
        (0, "!$body.message.Weather.IsDisabled", E),
        (0, "true && true", E),
        (0, "City is null", E),
        (0, "'a\\nb' = City", E),
        (0, "'\\u005c\\u0027'", Outcome::Text("'")),
        (0, "'\\ud83d\\ude00'", Outcome::Text("😀")),
        (0, "'\\ud83d'", E),
        (0, "a-b = 'x'", U),
        (0, "3 -4", E),
        (0, "twin_change_includes(a)", E),
        (0, "sign(0) = 0", T),
        (0, "as_number('12,5')", U),
    ];
    check(&message_2(), rows, []);
}
