//! Whole routes: what is accepted and refused (`edge-broker.md` §2.7), which sources match (§2.2), and what is said.

use holm_model::ModuleId;
use holm_query::{MessageSource, Route, Sink};

fn refusal(text: &str) -> String {
    let problems = Route::compile(text)
        .err()
        .unwrap_or_else(|| panic!("`{text}` is accepted"));
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
}

#[test]
fn the_accepted_routes_are_accepted() {
    for text in [
        r#"FROM /* INTO brokeredEndpoint("/modules/a/inputs/i")"#,
        r#"FROM /* INTO brokeredEndpoint('/modules/a/inputs/i')"#,
        r#"FROM /* INTO brokeredEndpoint("/modules/a'b/inputs/i'j")"#,
        r#"FROM /* INTO brokeredEndpoint('/modules/a/inputs/i"j')"#,
        "FROM /messages INTO $upstream",
        "select * from /messages into $UPSTREAM",
        r#"FROM /messages/modules/a/outputs/o WHERE messageType = "alert" AND ( as_number(temp) > 100 OR as_number(humidity) = 50 OR place = "basement") INTO $upstream"#,
        "FROM /messages/modules/from/outputs/123 INTO $upstream",
        "FROM /*/b/* INTO $upstream",
        "FROM /a/*/b INTO $upstream /* a note */",
        "FROM /* all of it */ /messages/* INTO $upstream",
        "FROM /* WHERE a = 'x' /* a note */ INTO $upstream",
        "\r\n FROM\t/messages/*\nWHERE\n  a = 'x'\nINTO\n  $upstream \n",
    ] {
        if let Err(problems) = Route::compile(text) {
            panic!("`{text}`: {}", problems[0]);
        }
    }
}

#[test]
fn the_refused_routes_are_refused_at_their_places_with_a_way_out() {
    let module = r#"BrokeredEndpoint("/modules/a/inputs/i")"#;
    for (text, place, remedy) in [
        ("", "1, column 1", "write for example"),
        (
            "FORM /* INTO $upstream",
            "1, column 1",
            "FROM /messages/* INTO $upstream",
        ),
        ("SELECT FROM /* INTO $upstream", "1, column 8", "SELECT * FROM"),
        ("FROM INTO $upstream", "1, column 6", "write for example"),
        (
            "FROM /* INTO BrokeredEndpoint(\"/modules/a/inputs/i')",
            "1, column 31",
            "close it with `\"`",
        ),
        (
            "FROM /* INTO BrokeredEndpoint(\"\"/modules/a/inputs/i\"\")",
            "1, column 33",
            "write `BrokeredEndpoint",
        ),
        ("FROM /* WHERE temp == 100 INTO $upstream", "1, column 20", "write `=`"),
        ("FROM /* WHERE INTO $upstream", "1, column 15", "add a value"),
        ("FROM /* INTO", "1, column 13", "write `INTO $upstream`"),
        ("FROM /*", "1, column 8", "write `INTO $upstream`"),
        (
            "FROM /* INTO BrokeredEndpoint\"/modules/a/inputs/i\")",
            "1, column 30",
            "write `BrokeredEndpoint(",
        ),
        (
            "FROM /* INTO BrokeredEndpoint(\"/modules/a/inputs/i\"",
            "1, column 52",
            "write `BrokeredEndpoint(",
        ),
        (
            "FROM /* INTO BrokeredEndpoint(/modules/a/inputs/i)",
            "1, column 31",
            "write `BrokeredEndpoint(",
        ),
        ("FROM /* INTO \"/modules/a/inputs/i\"", "1, column 14", module),
        (
            "FROM /* INTO /modules/a/inputs/i",
            "1, column 14",
            "write `BrokeredEndpoint(",
        ),
        ("FROM /* INTO upstream", "1, column 14", "write `$upstream`"),
        ("FROM /* INTO $downstream", "1, column 14", "write `INTO $upstream`"),
        ("FROM /messages/ INTO $upstream", "1, column 6", "write `/messages`"),
        ("FROM /a/*/b/*/ INTO $upstream", "1, column 6", "write `/a/*/b/*`"),
        ("FROM / INTO $upstream", "1, column 6", "write `/*`"),
        ("FROM /messages; INTO $upstream", "1, column 15", "remove it"),
        ("FROM /messages /modules INTO $upstream", "1, column 16", "no spaces"),
        (
            "FROM /* INTO $upstream WHERE a = 'b'",
            "1, column 24",
            "`FROM /* WHERE a = 'b' INTO $upstream`",
        ),
        (
            "FROM /* WHERE b = 'c' INTO $upstream WHERE a = 'b'",
            "1, column 38",
            "with AND before INTO",
        ),
        ("FROM /* INTO $upstream;", "1, column 23", "nothing ends with `;`"),
        (
            "FROM /* INTO $upstream $upstream",
            "1, column 24",
            "remove everything behind the sink",
        ),
        (
            "FROM /* INTO BrokeredEndpoint('/modules/a/i')",
            "1, column 31",
            "/modules/name/inputs/name",
        ),
        (
            "FROM /* INTO BrokeredEndpoint('/modules//inputs/i')",
            "1, column 31",
            "name a module",
        ),
        (
            "FROM /* WHERE (a = 'b' INTO $upstream",
            "1, column 24",
            "close the parenthesis",
        ),
        ("FROM /* WHERE a = 'b') INTO $upstream", "1, column 22", "remove it"),
        (
            "FROM /*\nWHERE x = 'it''s'\nINTO $upstream",
            "2, column 15",
            "write `\\'`",
        ),
    ] {
        let said = refusal(text);
        assert!(said.starts_with(&format!("line {place}:")), "`{text}` says: {said}");
        assert!(said.contains(remedy), "`{text}` says: {said}");
    }
}

#[test]
fn type_errors_say_what_to_write_instead() {
    for (condition, said) in [
        (
            "temp = 100",
            "line 1, column 29: operator `=` compares a property (text) with a number; write `as_number(temp) = 100`",
        ),
        ("100 <= temp", "write `100 <= as_number(temp)`"),
        ("'100' < length(a)", "write `100 < length(a)`"),
        ("alert = true", "write `alert = 'true'`"),
        ("a = null", "write `is_null(a)`"),
        ("a <> null", "write `NOT is_null(a)`"),
        ("a != undefined", "write `is_defined(a)`"),
        ("NOT a = 'b'", "write `NOT (a = 'b')`"),
        ("a ?? 'b' = 'c'", "write `(a ?? 'b') = 'c'`"),
        ("alert AND true", "compare it, such as `alert = 'true'`"),
        ("a + 1 > 2", "write `as_number(a) + 1`"),
        ("'a' + b = 'c'", "write `'a' || b` to join texts"),
        ("a || 1 = 'c'", "put it in quotes: `'1'`"),
        ("lenght(a) = 3", "write `length(text)`"),
        ("substring(a) = 'b'", "call it as `substring(text, number[, number])`"),
        ("abs(a) = 1", "write `as_number(a)`"),
        ("nothing_like_it(a)", "the functions are abs, "),
        ("$body.a[x] = 1", "line 1, column 31: `[x]` is no index"),
    ] {
        let text = format!("FROM /messages/* WHERE {condition} INTO $upstream");
        let found = refusal(&text);
        assert!(found.contains(said), "{condition}: {found}");
    }
}

#[test]
fn all_type_errors_and_the_first_syntax_error_are_told_in_order() {
    let text = "FROM /messages/*\nWHERE temp > 100\n  OR abs('x') = 1 OR foo(b = 1)\nINTO upstream";

    let problems = Route::compile(text).unwrap_err();

    let places: Vec<(u32, u32)> = problems.iter().map(|problem| (problem.line, problem.column)).collect();
    assert_eq!(places, [(2, 12), (3, 10), (3, 22), (3, 28), (4, 6)], "{problems:#?}");
}

#[test]
fn columns_count_characters() {
    let said = refusal("FROM /messages/* WHERE a = 'größer😀' AND b = 1 INTO $upstream");

    assert!(said.starts_with("line 1, column 44:"), "{said}");
}

#[test]
fn sources_match_as_published() {
    let module: ModuleId = "ModId1".parse().unwrap();
    let device = MessageSource::DeviceTelemetry;
    let silent = MessageSource::ModuleOutput {
        module: &module,
        output: None,
    };
    let output = MessageSource::ModuleOutput {
        module: &module,
        output: Some("Op1"),
    };
    let twin = MessageSource::TwinChange;
    let facts: [(&str, [bool; 4]); 25] = [
        // path, and whether it means: a device, a module, a module's output, a twin change
        ("/*", [true, true, true, true]),
        ("/messages", [true, true, true, false]),
        ("/messages/*", [true, true, true, false]),
        ("/MESSAGES/*", [true, true, true, false]),
        ("/message", [false; 4]),
        ("/*/messages/*", [false; 4]),
        ("/messages/event", [false; 4]),
        ("/messages/events", [false; 4]),
        ("/messages/modules", [false, true, true, false]),
        ("/messages/modules/*", [false, true, true, false]),
        ("/messages/modules/ModId1", [false, true, true, false]),
        ("/messages/modules/modid1", [false, true, true, false]),
        ("/messages/modules/ModId1/*", [false, true, true, false]),
        ("/messages/modules/ModId1/outputs", [false, false, true, false]),
        ("/messages/modules/ModId1/outputs/*", [false, false, true, false]),
        ("/messages/modules/ModId1/outputs/Op1", [false, false, true, false]),
        ("/messages/modules/ModId1/outputs/Op1/*", [false, false, true, false]),
        ("/messages/modules/ModId1/outputs/Op2", [false; 4]),
        ("/messages/modules/ModId1/outputs/Op", [false; 4]),
        ("/messages/modules/ModId2", [false; 4]),
        ("/messages/modules/ModId2/*", [false; 4]),
        ("/messages/modules/Mod*", [false; 4]),
        ("/twinChangeNotifications", [false, false, false, true]),
        ("/twinChangeNotifications/*", [false, false, false, true]),
        ("/twinChange", [false; 4]),
    ];

    let wrong: Vec<String> = facts
        .iter()
        .filter_map(|(path, expected)| {
            let route = Route::compile(&format!("FROM {path} INTO $upstream")).unwrap();
            let found = [device, silent, output, twin].map(|source| source.matches(route.pattern()));
            (found != *expected).then(|| format!("{path}: {found:?} instead of {expected:?}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_address_is_read_without_its_outer_slashes_and_fixed_words() {
    let route = Route::compile("FROM /* INTO BrokeredEndpoint('//x/alarm/y/in 1/')").unwrap();

    let expected = Sink::Module {
        module: "alarm".parse().unwrap(),
        input: "in 1".to_owned(),
    };
    assert_eq!(*route.sink(), expected);
}

#[test]
fn deep_nesting_and_long_chains_are_refused_and_long_conditions_are_not() {
    let route = |condition: String| format!("FROM /* WHERE {condition} INTO $upstream");
    let nested = |levels: usize| route(format!("{}true{}", "(".repeat(levels), ")".repeat(levels)));
    let negated = |levels: usize| route(format!("{}true", "NOT ".repeat(levels)));
    let chain = |terms: usize| route(format!("'a'{} = 'a'", " || 'a'".repeat(terms)));
    let either = |terms: usize| route(format!("a = 'b'{}", " OR a = 'b'".repeat(terms)));

    assert!(Route::compile(&nested(64)).is_ok());
    assert!(refusal(&nested(65)).contains("nested more than 64 levels"));
    assert!(refusal(&nested(10_000)).contains("nested more than 64 levels"));
    assert!(Route::compile(&negated(64)).is_ok());
    assert!(refusal(&negated(65)).contains("nested more than 64 levels"));
    assert!(Route::compile(&chain(120)).is_ok());
    assert!(refusal(&chain(2_000)).contains("more than 128 operators are chained"));
    assert!(Route::compile(&either(2_000)).is_ok());
    assert!(refusal(&either(20_000)).contains("at most 32768 are read"));
}
