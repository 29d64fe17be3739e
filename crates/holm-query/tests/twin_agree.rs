//! Whatever the documents and the query: what the evaluator lets through, the filter and the database let through as well; no
//! text makes the parser panic; no text gets into the SQL.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

use holm_query::twin::{Condition, Parameter, Place, Query, Roots, Step, json_path, successor};
use proptest::prelude::*;
use rusqlite::Connection;
use rusqlite::types::Value as Bound;
use serde_json::{Map, Value, json};

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned),
        1 => prop::sample::select(vec!["", "it's", "q\"q", "b\\s", "ü", "%_", "$metadata"]).prop_map(str::to_owned),
    ]
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        prop::sample::select(vec![
            0.0,
            1.0,
            -1.0,
            2.0,
            0.1,
            0.3,
            1e21,
            4_503_599_627_370_495.0,
            5e-324,
            1.797e308
        ]),
        -3.0..3.0,
        any::<f64>().prop_filter("JSON has no others", |number| number.is_finite()),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "",
            "a",
            "b",
            "ab",
            "1",
            "true",
            "null",
            "Ä",
            "'; DROP TABLE t; --",
            "\u{10ffff}",
            "a\u{0}b"
        ])
        .prop_map(str::to_owned),
        "[a-c]{0,3}",
    ]
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3..3_i64).prop_map(Value::from),
        number().prop_map(|number| json!(number)),
        text().prop_map(Value::from),
    ]
}

fn tree() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((key(), inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn document() -> impl Strategy<Value = Value> {
    (text(), tree(), tree(), any::<bool>()).prop_map(|(id, tags, reported, edge)| {
        json!({"deviceId": id, "tags": tags, "properties": {"reported": reported},
            "status": if edge { "enabled" } else { "disabled" }, "capabilities": {"iotEdge": edge}})
    })
}

fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\'', "''").replace('\0', "\\u0000");
    format!("'{escaped}'")
}

fn path() -> impl Strategy<Value = String> {
    let step = prop_oneof![
        4 => key().prop_filter("an empty name can't be written", |key| !key.is_empty()).prop_map(|key| format!(".[[{key}]]")),
        1 => (0..3).prop_map(|index| format!("[{index}]")),
    ];
    prop_oneof![
        5 => (prop::sample::select(vec!["tags", "properties.reported"]), prop::collection::vec(step, 0..3))
            .prop_map(|(root, steps)| format!("{root}{}", steps.concat())),
        1 => prop::sample::select(vec!["deviceId", "status", "capabilities.iotEdge"]).prop_map(str::to_owned),
    ]
}

fn column() -> impl Strategy<Value = String> {
    let whole = prop::sample::select(vec![
        "properties",
        "properties.desired",
        "properties.reported",
        "properties.reported.$metadata",
        "tags",
        "deviceId",
        "status",
        "capabilities",
    ]);
    prop_oneof![whole.prop_map(str::to_owned), path()]
}

/// A document with nothing but what is read of it.
fn read_only(document: &Value, roots: &Roots) -> Value {
    let mut read = Map::new();
    for (name, value) in document.as_object().unwrap() {
        if name == "properties" {
            let sections = value.as_object().unwrap().iter();
            let kept = sections.filter(|(section, _)| roots.has(&format!("properties.{section}")));
            let kept = kept.map(|(section, value)| {
                let mut value = value.clone();
                if !roots.has(&format!("properties.{section}.$metadata"))
                    && let Some(members) = value.as_object_mut()
                {
                    members.remove("$metadata");
                }
                (section.clone(), value)
            });
            read.insert(name.clone(), kept.collect());
        } else if roots.has(name) {
            read.insert(name.clone(), value.clone());
        }
    }
    Value::Object(read)
}

fn literal() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec!["null", "true", "false", "undefined", "1e999", "'enabled'"]).prop_map(str::to_owned),
        number().prop_map(|number| format!("{number}")),
        (-3..3).prop_map(|number: i32| number.to_string()),
        text().prop_map(|text| quoted(&text)),
    ]
}

/// A calculation of a place and a number, many of which have no value.
fn calculation() -> impl Strategy<Value = String> {
    let operand = prop_oneof![
        path(),
        (-2..3).prop_map(|number: i32| number.to_string()),
        Just("1e308".to_owned())
    ];
    (
        operand.clone(),
        prop::sample::select(vec!["+", "-", "*", "/", "%"]),
        operand,
    )
        .prop_map(|(left, operator, right)| format!("{left} {operator} {right}"))
}

fn condition() -> impl Strategy<Value = String> {
    let operator = || prop::sample::select(vec!["=", "!=", "<", "<=", ">", ">=", "<>"]);
    let function = prop::sample::select(vec!["IS_DEFINED", "IS_STRING", "IS_NULL", "IS_OBJECT", "IS_PRIMITIVE"]);
    let pair = prop::sample::select(vec!["STARTSWITH", "ENDSWITH", "CONTAINS", "ARRAY_CONTAINS"]);
    let simple = prop_oneof![
        4 => (path(), operator(), literal()).prop_map(|(path, operator, literal)| format!("{path} {operator} {literal}")),
        1 => (literal(), operator(), path()).prop_map(|(literal, operator, path)| format!("{literal}{operator}{path}")),
        1 => (path(), operator(), path()).prop_map(|(one, operator, other)| format!("{one} {operator} {other}")),
        1 => (path(), prop::sample::select(vec!["IN", "NIN"]), prop::collection::vec(literal(), 0..3))
            .prop_map(|(path, word, list)| format!("{path} {word} [{}]", list.join(","))),
        1 => (function, path()).prop_map(|(function, path)| format!("{function}({path})")),
        1 => (pair, path(), literal()).prop_map(|(function, path, literal)| format!("{function}({path}, {literal})")),
        1 => (calculation(), operator(), literal()).prop_map(|(left, operator, literal)| format!("{left} {operator} {literal}")),
        1 => (path(), operator(), calculation()).prop_map(|(path, operator, right)| format!("{path} {operator} {right}")),
        1 => path(),
        1 => literal(),
    ];
    simple.prop_recursive(3, 10, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|operand| format!("NOT ({operand})")),
            prop::collection::vec(inner.clone(), 2..4).prop_map(|terms| format!("({})", terms.join(" AND "))),
            prop::collection::vec(inner, 2..4).prop_map(|terms| format!("({})", terms.join(" OR "))),
        ]
    })
}

/// The documents in a table: some members in columns, as a hub has them, the rest as JSON.
fn database(documents: &[Value]) -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection
        .execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY, id TEXT NOT NULL, enabled INTEGER NOT NULL, edge INTEGER NOT NULL, document TEXT NOT NULL)")
        .unwrap();
    for (n, document) in documents.iter().enumerate() {
        let row = (
            i64::try_from(n).unwrap(),
            document["deviceId"].as_str().unwrap(),
            document["status"] == "enabled",
            document["capabilities"]["iotEdge"].as_bool().unwrap(),
            document.to_string(),
        );
        connection.execute("INSERT INTO t VALUES (?, ?, ?, ?, ?)", row).unwrap();
    }
    connection
}

fn place(path: &holm_query::twin::Path) -> Place {
    match path.keys().as_deref() {
        Some(["deviceId"]) => Place::Text("id"),
        Some(["status"]) => Place::Choice("enabled", &[("enabled", 1), ("disabled", 0)]),
        Some(["capabilities", "iotEdge"]) => Place::Bool("edge"),
        _ => json_path(path.steps()).map_or(Place::Unknown, |path| Place::Json("document", path)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_database_and_the_filter_lose_no_match(documents in prop::collection::vec(document(), 1..6), text in condition()) {
        let condition = Condition::parse(&text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
        let filter = condition.filter();
        let sql = filter.to_sql(&place);
        let connection = database(&documents);

        let mut statement = connection.prepare(&format!("SELECT n FROM t WHERE {} ORDER BY n", sql.text)).unwrap();
        let bound = sql.parameters.iter().map(|parameter| match parameter {
            Parameter::Text(text) => Bound::Text(text.clone()),
            Parameter::Number(number) => Bound::Real(*number),
            Parameter::Integer(number) => Bound::Integer(*number),
        });
        let passed: Vec<i64> = statement
            .query_map(rusqlite::params_from_iter(bound), |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let passed: Vec<usize> = passed.into_iter().map(|n| usize::try_from(n).unwrap()).collect();

        for (n, document) in documents.iter().enumerate() {
            if condition.holds(document) {
                prop_assert!(filter.passes(document), "{text}: {filter:?} loses {document}");
                prop_assert!(passed.contains(&n), "{text}: {} loses {document}", sql.text);
            }
        }
        // Both together are the evaluator.
        let both: Vec<usize> = passed.into_iter().filter(|n| condition.holds(&documents[*n])).collect();
        let alone: Vec<usize> = (0..documents.len()).filter(|n| condition.holds(&documents[*n])).collect();
        prop_assert_eq!(both, alone);
    }

    #[test]
    fn what_a_query_reads_is_enough_for_what_it_shows(
        document in document(),
        desired in tree(),
        columns in prop::collection::vec(column(), 1..4),
        text in condition(),
    ) {
        let mut document = document;
        document["properties"]["desired"] = desired;
        let shown: Vec<_> = columns.iter().enumerate().map(|(n, column)| format!("{column} AS c{n}")).collect();
        let text = format!("SELECT {} FROM devices WHERE {text}", shown.join(", "));
        let query = Query::parse(&text).unwrap_or_else(|problem| panic!("{text}: {problem}"));

        let read = read_only(&document, &query.roots());
        let to_match = read_only(&document, &query.condition_roots());

        prop_assert_eq!(query.show(&read), query.show(&document), "{}", text);
        prop_assert_eq!(query.matches(&to_match), query.matches(&document), "{}", text);
    }

    #[test]
    fn not_is_false_where_it_was_true_and_true_where_it_was_false(document in document(), text in condition()) {
        let holds = |text: &str| Condition::parse(text).unwrap().holds(&document);
        let (plain, negated) = (holds(&text), holds(&format!("NOT ({text})")));

        prop_assert!(!(plain && negated), "{}", text);
        prop_assert_eq!(holds(&format!("NOT NOT ({text})")), plain);
    }

    #[test]
    fn no_text_breaks_the_parser(text in any::<String>(), words in prop::collection::vec(prop::sample::select(vec![
        "SELECT", "*", "FROM", "devices", ".modules", "WHERE", "GROUP", "BY", "ORDER", "TOP", "1", "AS", "x", "(", ")", "[", "]",
        "[[", "]]", "'", "\"", "\\", ".", ",", "=", "<", "-", "NOT", "IN", "NIN", "AND", "COUNT(", "tags.a", "$", "0x", "1e+",
    ]), 0..20)) {
        for text in [text, words.concat(), words.join(" ")] {
            let parsed = Query::parse(&text);
            Condition::parse(&text).ok();
            if let Err(problem) = parsed {
                prop_assert!(problem.line >= 1 && problem.column >= 1 && !problem.remedy.is_empty());
            }
        }
    }

    #[test]
    fn what_is_bound_is_not_in_the_sql(needle in "[A-Z]{6}") {
        let text = format!("tags.[[{needle}]] = '{needle}' OR STARTSWITH(deviceId, '{needle}') OR status = '{needle}'");

        let sql = Condition::parse(&text).unwrap().filter().to_sql(&place);

        prop_assert!(!sql.text.contains(&needle), "{}", sql.text);
        prop_assert_eq!(sql.text.matches('?').count(), sql.parameters.len());
    }

    #[test]
    fn a_successor_ends_a_range(prefix in text(), rest in any::<String>()) {
        if let Some(end) = successor(&prefix) {
            let longer = format!("{prefix}{rest}");
            prop_assert!(longer < end);
            prop_assert!(end > prefix);
        } else {
            prop_assert!(prefix.chars().all(|c| c == char::MAX));
        }
    }

    #[test]
    fn a_path_reads_back_as_it_is_printed(keys in prop::collection::vec("[a-zA-Z0-9 .$-]{1,4}", 1..4), index in 0..9_usize) {
        let text: String = keys.iter().map(|key| format!(".[[{key}]]")).collect();
        let condition = Condition::parse(&format!("IS_DEFINED(tags{text}[{index}])")).unwrap();
        let path = condition.paths()[0].clone();

        let again = Condition::parse(&format!("IS_DEFINED({path})")).unwrap();

        prop_assert_eq!(again.paths()[0], &path);
        let wanted: Vec<Step> = std::iter::once("tags".to_owned()).chain(keys).map(Step::Key).chain([Step::Index(index)]).collect();
        prop_assert_eq!(path.steps(), wanted.as_slice());
    }
}

#[test]
fn a_condition_as_long_as_a_text_may_be_is_one_that_the_database_takes() {
    let documents: Vec<_> = ["a", "b7", "c"]
        .map(|id| json!({"deviceId": id, "tags": {"a": id, "n": 5}, "status": "enabled", "capabilities": {"iotEdge": true}}))
        .to_vec();
    let connection = database(&documents);
    let texts: Vec<_> = (0..1100).map(|n| format!("'b{n:x}'")).collect();
    let numbers: Vec<_> = (0..1100).map(|n| n.to_string()).collect();
    let (others, texts, numbers) = (numbers[6..].join(","), texts.join(","), numbers.join(","));
    let conditions = [
        (format!("deviceId IN [{texts}]"), vec![1]),
        (format!("tags.a IN [{texts}]"), vec![1]),
        (format!("tags.n IN [{numbers}]"), vec![0, 1, 2]),
        (format!("tags.n NIN [{others}]"), vec![0, 1, 2]),
    ];

    for (text, expected) in conditions {
        let condition = Condition::parse(&text).unwrap();
        let sql = condition.filter().to_sql(&place);
        let select = format!("SELECT n FROM t WHERE {} ORDER BY n", sql.text);
        let mut statement = connection.prepare(&select).unwrap();
        let bound = sql.parameters.iter().map(|parameter| match parameter {
            Parameter::Text(text) => Bound::Text(text.clone()),
            Parameter::Number(number) => Bound::Real(*number),
            Parameter::Integer(number) => Bound::Integer(*number),
        });
        let rows = statement
            .query_map(rusqlite::params_from_iter(bound), |row| row.get(0))
            .unwrap();
        let found: Vec<i64> = rows.map(Result::unwrap).collect();

        assert_eq!(found, expected, "{text}");
    }
}
