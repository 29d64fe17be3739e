//! What is said when operands do not fit: what is wrong, and a corrected expression wherever one can be guessed.

use super::Type;
use crate::ast::{Binary, Calculation, Comparison, Expression, Kind, Operator};
use crate::functions::{Function, Functions, Parameter};
use crate::problem::{Position, Problem};

/// What a side of an operator is, for messages.
fn describe(side: &Expression, kind: Type) -> &'static str {
    match (&side.kind, kind) {
        (Kind::Name(_), Type::Text) => "a property (text)",
        (_, Type::Text) => "a text",
        (_, Type::Number) => "a number",
        (_, Type::Bool) => "a truth value",
        (_, Type::Null) => "null",
        (_, Type::Undefined) => "undefined",
        (_, Type::Dynamic) => "a body value",
    }
}

/// A copy of a tree inside a call; for remedies.
fn called(name: &str, argument: &Expression) -> Expression {
    Expression {
        at: argument.at,
        kind: Kind::Call {
            name: name.to_owned(),
            arguments: vec![argument.clone()],
        },
    }
}

fn quoted(text: String, at: Position) -> Expression {
    Expression {
        kind: Kind::Text(text),
        at,
    }
}

/// The side as a number, for remedies: a quoted number loses its quotes, anything else goes through `as_number`.
fn numeric(side: &Expression, kind: Type) -> Option<Expression> {
    match (&side.kind, kind) {
        (_, Type::Number | Type::Dynamic) => Some(side.clone()),
        (Kind::Text(text), _) => crate::numbers::literal(text).map(|value| Expression {
            kind: Kind::Number(value),
            at: side.at,
        }),
        (_, Type::Text) => Some(called("as_number", side)),
        _ => None,
    }
}

pub(super) fn mismatch(binary: &Binary, kinds: (Type, Type)) -> Problem {
    let Binary {
        operator, left, right, ..
    } = binary;
    let verb = if *operator == Operator::Coalesce {
        "chooses between"
    } else {
        "compares"
    };
    let joint = if *operator == Operator::Coalesce { "and" } else { "with" };
    let message = format!(
        "operator `{operator}` {verb} {} {joint} {}",
        describe(left, kinds.0),
        describe(right, kinds.1)
    );
    let remedy = mismatch_remedy(binary, kinds).unwrap_or_else(|| match operator {
        Operator::Coalesce => "make both sides of one type".to_owned(),
        _ => "compare values of one type".to_owned(),
    });
    Problem::new(binary.operator_at, message, remedy)
}

fn mismatch_remedy(binary: &Binary, kinds: (Type, Type)) -> Option<String> {
    let Binary {
        operator, left, right, ..
    } = binary;
    if *operator == Operator::Coalesce && is_comparison(right) {
        return coalesce_first(left, right);
    }
    match kinds {
        (Type::Text, Type::Number) | (Type::Number, Type::Text) => {
            let fixed = Binary {
                left: numeric(left, kinds.0)?,
                right: numeric(right, kinds.1)?,
                ..binary.clone()
            };
            Some(write_instead(fixed))
        }
        (Type::Text, Type::Bool) | (Type::Bool, Type::Text) => {
            let as_text = |side: &Expression| match &side.kind {
                Kind::Bool(value) => Some(quoted(value.to_string(), side.at)),
                Kind::Name(_) | Kind::Text(_) => Some(side.clone()),
                _ => None,
            };
            let fixed = Binary {
                left: as_text(left)?,
                right: as_text(right)?,
                ..binary.clone()
            };
            Some(write_instead(fixed))
        }
        (_, Type::Null) => asked(*operator, "is_null", left, false),
        (Type::Null, _) => asked(*operator, "is_null", right, false),
        (_, Type::Undefined) => asked(*operator, "is_defined", left, true),
        (Type::Undefined, _) => asked(*operator, "is_defined", right, true),
        _ => None,
    }
}

fn write_instead(binary: Binary) -> String {
    let at = binary.left.at;
    let kind = Kind::Binary(Box::new(binary));
    format!("write `{}`", Expression { kind, at })
}

/// `x = null` is `is_null(x)`; `x <> undefined` is `is_defined(x)`.
fn asked(operator: Operator, function: &str, side: &Expression, when_equal_not: bool) -> Option<String> {
    let negated = match operator {
        Operator::Compare(Comparison::Equal) => when_equal_not,
        Operator::Compare(Comparison::NotEqual) => !when_equal_not,
        _ => return None,
    };
    let not = if negated { "NOT " } else { "" };
    Some(format!("write `{not}{}`", called(function, side)))
}

/// `a ?? b = c` means `a ?? (b = c)`.
fn coalesce_first(left: &Expression, comparison: &Expression) -> Option<String> {
    let Kind::Binary(inner) = &comparison.kind else {
        return None;
    };
    Some(format!(
        "`??` binds loosest of all: write `({left} ?? {}) {} {}`",
        inner.left, inner.operator, inner.right
    ))
}

/// `NOT a = b` means `(NOT a) = b`.
pub(super) fn misread_not(binary: &Binary) -> Option<Problem> {
    let (Operator::Compare(comparison), Kind::Not(inner)) = (binary.operator, &binary.left.kind) else {
        return None;
    };
    if !matches!(inner.kind, Kind::Name(_) | Kind::Text(_) | Kind::Number(_)) {
        return None;
    }
    // A body value may be a truth value, so `NOT $body.a = true` is meant as it stands.
    if matches!(&inner.kind, Kind::Name(name) if name.text.starts_with('$')) {
        return None;
    }
    let meant = compared(comparison, (**inner).clone(), binary.right.clone());
    Some(Problem::new(
        binary.left.at,
        format!(
            "NOT binds tighter than `{}` and has no truth value here",
            binary.operator
        ),
        format!("write `NOT ({meant})`"),
    ))
}

pub(super) fn not_a_truth(operator: &str, operand: &Expression, kind: Type) -> Problem {
    let what = describe(operand, kind);
    let remedy = match (&operand.kind, kind) {
        (Kind::Name(_), Type::Text) => {
            format!("compare it, such as `{operand} = 'true'`, or ask `is_defined({operand})`")
        }
        _ => "compare it with something".to_owned(),
    };
    let message = format!("`{operator}` needs a truth value, and `{operand}` is {what}");
    Problem::new(operand.at, message, remedy)
}

pub(super) fn not_a_number(operator: &str, at: Position, operand: &Expression, kind: Type) -> Problem {
    let message = format!(
        "`{operator}` needs a number, and `{operand}` is {}",
        describe(operand, kind)
    );
    let remedy = numeric(operand, kind).map_or_else(
        || "give a number".to_owned(),
        |number| format!("write `{operator} {number}`"),
    );
    Problem::new(at, message, remedy)
}

pub(super) fn not_numbers(binary: &Binary, kinds: (Type, Type), fits: impl Fn(Type) -> bool) -> Problem {
    let Binary {
        operator,
        operator_at,
        left,
        right,
    } = binary;
    let joins = kinds == (Type::Text, Type::Text) && *operator == Operator::Calculate(Calculation::Add);
    let (side, kind) = if fits(kinds.0) {
        (right, kinds.1)
    } else {
        (left, kinds.0)
    };
    let message = format!("`{operator}` needs numbers, and `{side}` is {}", describe(side, kind));
    let remedy = match (numeric(left, kinds.0), numeric(right, kinds.1)) {
        _ if joins => format!("write `{left} || {right}` to join texts"),
        (Some(left), Some(right)) => write_instead(Binary {
            left,
            right,
            ..binary.clone()
        }),
        _ => "give a number".to_owned(),
    };
    Problem::new(*operator_at, message, remedy)
}

pub(super) fn not_a_text(at: Position, side: &Expression, kind: Type) -> Problem {
    let message = format!("`||` joins texts, and `{side}` is {}", describe(side, kind));
    let remedy = match &side.kind {
        Kind::Number(_) | Kind::Bool(_) => format!("put it in quotes: `'{side}'`"),
        _ if kind == Type::Number => "use `+` to add numbers".to_owned(),
        _ => "give a text".to_owned(),
    };
    Problem::new(at, message, remedy)
}

pub(super) fn wrong_argument(function: &Function, index: usize, argument: &Expression, kind: Type) -> Problem {
    let wanted = match function.parameter(index) {
        Parameter::Text => "a text",
        Parameter::Number => "a number",
        Parameter::TextOrNumber | Parameter::Any => "a text or a number",
    };
    let message = format!(
        "argument {} of `{}` must be {wanted}, and `{argument}` is {}",
        index + 1,
        function.name,
        describe(argument, kind)
    );
    let remedy = match (function.parameter(index), numeric(argument, kind)) {
        (Parameter::Number, Some(number)) => format!("write `{number}`"),
        (Parameter::Text, _) if matches!(argument.kind, Kind::Number(_) | Kind::Bool(_)) => {
            format!("put it in quotes: `'{argument}'`")
        }
        _ => format!("call it as `{}`", function.usage()),
    };
    Problem::new(argument.at, message, remedy)
}

pub(super) fn unknown_function(functions: Functions, name: &str, at: Position) -> Problem {
    let remedy = functions.nearest(name).map_or_else(
        || {
            let names: Vec<&str> = functions.iter().map(|function| function.name).collect();
            format!("the functions are {}", names.join(", "))
        },
        |function| format!("write `{}`", function.usage()),
    );
    Problem::new(at, format!("there is no function `{name}`"), remedy)
}

/// Whether this is a comparison.
fn is_comparison(expression: &Expression) -> bool {
    matches!(&expression.kind, Kind::Binary(binary) if matches!(binary.operator, Operator::Compare(_)))
}

/// The comparison `left op right` as a new tree.
fn compared(comparison: Comparison, left: Expression, right: Expression) -> Expression {
    let at = left.at;
    let binary = Binary {
        operator: Operator::Compare(comparison),
        operator_at: at,
        left,
        right,
    };
    Expression {
        kind: Kind::Binary(Box::new(binary)),
        at,
    }
}
