//! Whatever the text, the message and the tree: no panic, and what is printed reads back.

use holm_model::{Message, SystemProperty};
use holm_query::ast::{Binary, Calculation, Comparison, Expression, Kind, Name, NameForm, Operator};
use holm_query::condition::Condition;
use holm_query::message::MessageFields;
use holm_query::parse::Parser;
use holm_query::problem::Position;
use holm_query::{MessageSource, RouteSet, RouteSpec};
use proptest::prelude::*;

fn node(kind: Kind) -> Expression {
    Expression {
        kind,
        at: Position::START,
    }
}

fn leaf() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Undefined),
        Just(Kind::Null),
        any::<bool>().prop_map(Kind::Bool),
        any::<f64>()
            .prop_filter("NaN cannot be written", |x| !x.is_nan())
            .prop_map(Kind::Number),
        any::<String>().prop_map(Kind::Text),
        r#"[\\u0-9a-f'"]{0,12}"#.prop_map(Kind::Text),
        "[a-z][a-z.*%-]{0,6}x".prop_map(|text| Kind::Name(Name {
            text,
            form: NameForm::Plain
        })),
        r"\$[a-z\[\].]{1,6}".prop_map(|text| Kind::Name(Name {
            text,
            form: NameForm::Dollar
        })),
        r"\$[a-z.]{1,6}".prop_map(|text| Kind::Name(Name {
            text,
            form: NameForm::Braced
        })),
    ]
}

fn operator() -> impl Strategy<Value = Operator> {
    prop::sample::select(vec![
        Operator::Coalesce,
        Operator::Concat,
        Operator::Compare(Comparison::Equal),
        Operator::Compare(Comparison::NotEqual),
        Operator::Compare(Comparison::Less),
        Operator::Compare(Comparison::LessOrEqual),
        Operator::Compare(Comparison::Greater),
        Operator::Compare(Comparison::GreaterOrEqual),
        Operator::Calculate(Calculation::Add),
        Operator::Calculate(Calculation::Subtract),
        Operator::Calculate(Calculation::Multiply),
        Operator::Calculate(Calculation::Divide),
        Operator::Calculate(Calculation::Remainder),
    ])
}

fn tree() -> impl Strategy<Value = Expression> {
    leaf().prop_map(node).prop_recursive(6, 40, 4, |inner| {
        let binary = (operator(), inner.clone(), inner.clone()).prop_map(|(operator, left, right)| {
            let operator_at = Position::START;
            Kind::Binary(Box::new(Binary {
                operator,
                operator_at,
                left,
                right,
            }))
        });
        let call = ("[a-z_]{1,8}z", prop::collection::vec(inner.clone(), 0..4))
            .prop_map(|(name, arguments)| Kind::Call { name, arguments });
        prop_oneof![
            binary,
            call,
            inner.clone().prop_map(|operand| Kind::Negate(Box::new(operand))),
            inner.clone().prop_map(|operand| Kind::Not(Box::new(operand))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Kind::And),
            prop::collection::vec(inner, 2..4).prop_map(Kind::Or),
        ]
        .prop_map(node)
    })
}

/// Texts of tokens that the language knows, so that many of them get far.
fn nearly_a_condition() -> impl Strategy<Value = String> {
    let words = vec![
        "a",
        "$b",
        "{$c}",
        "$body.x[0].y",
        "'t'",
        "\"t\"",
        "3",
        "-4.5",
        "0xF",
        "true",
        "null",
        "undefined",
        "(",
        ")",
        ",",
        "AND",
        "OR",
        "NOT",
        "=",
        "<>",
        "<",
        ">=",
        "+",
        "-",
        "*",
        "/",
        "%",
        "||",
        "??",
        "as_number(",
        "concat(",
        "is_null(",
        "substring(",
        "/*",
        "*/",
        "WHERE",
        "INTO",
        "$upstream",
        "'",
        "\\",
        "[",
        "ü",
    ];
    prop::collection::vec(prop::sample::select(words), 0..20).prop_map(|words| words.join(" "))
}

fn evaluate_everywhere(route: &str) {
    let Ok(routes) = RouteSet::compile([("r", RouteSpec::from(route))]) else {
        return;
    };
    let mut message = Message::new(r#"{"x":[{"y":1}],"a":"t"}"#);
    message.properties.set("a", Some("5".to_owned()));
    message.properties.set("$b", None);
    message.system.set(SystemProperty::ContentType, "application/json");
    message.system.set(SystemProperty::ContentEncoding, "utf-8");
    assert!(routes.evaluate(&MessageSource::DeviceTelemetry, &message).count() <= 1);
}

proptest! {
    #[test]
    fn any_text_compiles_or_is_refused(text in any::<String>()) {
        evaluate_everywhere(&text);
        evaluate_everywhere(&format!("FROM /* WHERE {text} INTO $upstream"));
        evaluate_everywhere(&format!("FROM {text}"));
    }

    #[test]
    fn any_bytes_compile_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        evaluate_everywhere(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_tokens_compile_or_are_refused_at_a_place_inside_the_text(condition in nearly_a_condition()) {
        let route = format!("FROM /* WHERE {condition} INTO $upstream");
        evaluate_everywhere(&route);
        if let Err(problems) = holm_query::Route::compile(&route) {
            prop_assert!(!problems.is_empty());
            for problem in problems {
                prop_assert!(problem.column as usize <= route.chars().count() + 1, "{}", problem);
            }
        }
    }

    #[test]
    fn any_body_gives_a_value(body in prop::collection::vec(any::<u8>(), 0..100), encoding in "utf-(8|16|32)") {
        let condition = Condition::compile("is_defined($body.a[0].b) OR true").unwrap();
        let mut message = Message::new(body);
        message.system.set(SystemProperty::ContentType, "application/json");
        message.system.set(SystemProperty::ContentEncoding, encoding);
        prop_assert_eq!(condition.truth(&MessageFields::new(&message)), holm_query::evaluate::Truth::True);
    }

    #[test]
    fn a_printed_tree_reads_back(tree in tree()) {
        let text = tree.to_string();
        let read = Parser::new(&text, &[]).and_then(|mut parser| parser.expression());
        prop_assert_eq!(read, Ok(tree), "{}", text);
    }
}
