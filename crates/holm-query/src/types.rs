//! Static checking: a tree becomes a [`Program`], or a list of everything in it that cannot be meant.
//!
//! Properties are text, so `temp > 100` is refused: it needs `as_number(temp) > 100`. Only body values take their kind from
//! the message. What is checked (`edge-broker.md` §2.4):
//!
//! | between | operands |
//! |---|---|
//! | `=` `<>` `<` `<=` `>` `>=` | both of one type, or one a body value |
//! | `+ - * / %`, unary `-` | numbers, body values |
//! | `\|\|` | texts, body values |
//! | AND OR NOT | truth values, `null`, `undefined`, body values |
//! | `??` | both of one type, or one a body value |
//!
//! The original refuses three things by accident that are accepted here: a body value to the right of a truth value in AND
//! and OR, `%` and unary `-` of a body value, and a number or text as the whole condition stays accepted as it is there: such
//! a condition is undefined.
//!
//! The literal `null` in logic is false, but `null AND x`, and `null OR null`, are null themselves, so that
//! `(null and true) = null` holds; both are settled here, and evaluation does not know of it.
//!
//! What a name means is the dialect's affair: [`Dialect::resolve`].

use crate::ast::{Binary, Calculation, Comparison, Expression, Kind, Name, Operator};
use crate::evaluate::Value;
use crate::functions::{self, Action, Compute, Function, Parameter};
use crate::parse::{compared, is_comparison};
use crate::problem::{Position, Problem};

/// What is known of a value before there is a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A text, null or undefined: a property, a quoted text.
    Text,
    /// A number or undefined.
    Number,
    /// A truth value or undefined.
    Bool,
    /// The literal `null`.
    Null,
    /// The literal `undefined`.
    Undefined,
    /// Known when the message is there: a body value.
    Dynamic,
}

/// Gives names their meaning.
pub trait Dialect {
    /// What a resolved name is in a program.
    type Name;

    /// What a name means, and its type.
    ///
    /// # Errors
    /// A [`Problem`] when the name can mean nothing.
    fn resolve(&self, name: &Name, at: Position) -> Result<(Self::Name, Type), Problem>;
}

/// A checked expression, ready to run: see `evaluate`.
#[derive(Debug)]
pub enum Program<N> {
    /// A value of its own.
    Constant(Value<'static>),
    /// A name of the dialect.
    Name(N),
    /// `- x`.
    Negate(Box<Self>),
    /// `NOT x`.
    Not(Box<Self>),
    /// All of them.
    And(Vec<Self>),
    /// One of them.
    Or(Vec<Self>),
    /// A comparison of two values.
    Compare(Comparison, Box<(Self, Self)>),
    /// A calculation with two numbers.
    Calculate(Calculation, Box<(Self, Self)>),
    /// The first, or the second where the first is undefined.
    Coalesce(Box<(Self, Self)>),
    /// Texts joined.
    Concat(Vec<Self>),
    /// A function of at most [`functions::MAX_PARAMETERS`] arguments.
    Call(&'static Function, Compute, Vec<Self>),
}

/// Checks a tree.
///
/// # Errors
/// Every [`Problem`] in it, in order of their places; never an empty list.
pub fn check<D: Dialect>(dialect: &D, tree: &Expression) -> Result<(Program<D::Name>, Type), Vec<Problem>> {
    let mut checker = Checker {
        dialect,
        problems: Vec::new(),
    };
    match checker.expression(tree) {
        Some(checked) if checker.problems.is_empty() => Ok(checked),
        _ => {
            checker.problems.sort_by_key(Problem::position);
            Err(checker.problems)
        }
    }
}

/// Checks a tree that is a whole condition: the literal `null` as a condition is false.
///
/// # Errors
/// As [`check`].
pub fn check_condition<D: Dialect>(dialect: &D, tree: &Expression) -> Result<Program<D::Name>, Vec<Problem>> {
    let (program, kind) = check(dialect, tree)?;
    Ok(in_logic(program, kind))
}

struct Checker<'d, D> {
    dialect: &'d D,
    problems: Vec<Problem>,
}

/// A checked node; `None` when it has a problem of its own, so that what contains it reports no second one.
type Checked<N> = Option<(Program<N>, Type)>;

impl<D: Dialect> Checker<'_, D> {
    fn expression(&mut self, tree: &Expression) -> Checked<D::Name> {
        let constant = |value, kind| Some((Program::Constant(value), kind));
        match &tree.kind {
            Kind::Undefined => constant(Value::Undefined, Type::Undefined),
            Kind::Null => constant(Value::Null, Type::Null),
            Kind::Bool(value) => constant(Value::Bool(*value), Type::Bool),
            Kind::Number(value) => constant(Value::number(*value), Type::Number),
            Kind::Text(text) => constant(Value::Text(text.clone().into()), Type::Text),
            Kind::Name(name) => match self.dialect.resolve(name, tree.at) {
                Ok((name, kind)) => Some((Program::Name(name), kind)),
                Err(problem) => self.report(problem),
            },
            Kind::Call { name, arguments } => self.call(name, tree.at, arguments),
            Kind::Negate(operand) => {
                let (program, kind) = self.expression(operand)?;
                if !matches!(kind, Type::Number | Type::Dynamic) {
                    return self.report(not_a_number("-", tree.at, operand, kind));
                }
                Some((Program::Negate(Box::new(program)), Type::Number))
            }
            Kind::Not(operand) => {
                let (program, kind) = self.truth_operand("NOT", operand)?;
                Some((Program::Not(Box::new(in_logic(program, kind))), Type::Bool))
            }
            Kind::And(terms) => {
                let terms = self.terms("AND", terms)?;
                if terms.iter().any(|(_, kind)| *kind == Type::Null) {
                    return constant(Value::Null, Type::Null);
                }
                Some((Program::And(operands(terms)), Type::Bool))
            }
            Kind::Or(terms) => {
                let terms = self.terms("OR", terms)?;
                if terms.iter().all(|(_, kind)| *kind == Type::Null) {
                    return constant(Value::Null, Type::Null);
                }
                Some((Program::Or(operands(terms)), Type::Bool))
            }
            Kind::Binary(binary) => self.binary(binary),
        }
    }

    fn report<T>(&mut self, problem: Problem) -> Option<T> {
        self.problems.push(problem);
        None
    }

    fn terms(&mut self, operator: &str, terms: &[Expression]) -> Option<Vec<(Program<D::Name>, Type)>> {
        let checked: Vec<_> = terms.iter().map(|term| self.truth_operand(operator, term)).collect();
        checked.into_iter().collect()
    }

    fn truth_operand(&mut self, operator: &str, operand: &Expression) -> Checked<D::Name> {
        let (program, kind) = self.expression(operand)?;
        match kind {
            Type::Text | Type::Number => self.report(not_a_truth(operator, operand, kind)),
            _ => Some((program, kind)),
        }
    }

    fn binary(&mut self, binary: &Binary) -> Checked<D::Name> {
        if let Some(problem) = misread_not(binary) {
            return self.report(problem);
        }
        let left = self.expression(&binary.left);
        let right = self.expression(&binary.right);
        let ((left, left_kind), (right, right_kind)) = (left?, right?);
        let kinds = (left_kind, right_kind);
        let sides = Box::new((left, right));
        match binary.operator {
            Operator::Compare(comparison) if comparable(kinds) => {
                Some((Program::Compare(comparison, sides), Type::Bool))
            }
            Operator::Coalesce if left_kind == Type::Undefined => Some((sides.1, right_kind)),
            Operator::Coalesce if left_kind == right_kind => Some((Program::Coalesce(sides), left_kind)),
            Operator::Coalesce if left_kind == Type::Dynamic || right_kind == Type::Dynamic => {
                Some((Program::Coalesce(sides), Type::Dynamic))
            }
            Operator::Compare(_) | Operator::Coalesce => self.report(mismatch(binary, kinds)),
            Operator::Concat => {
                let fits = |kind| matches!(kind, Type::Text | Type::Dynamic);
                if !fits(left_kind) || !fits(right_kind) {
                    let (side, kind) = if fits(left_kind) {
                        (&binary.right, right_kind)
                    } else {
                        (&binary.left, left_kind)
                    };
                    return self.report(not_a_text(binary.operator_at, side, kind));
                }
                Some((concat(*sides), Type::Text))
            }
            Operator::Calculate(calculation) => {
                let fits = |kind| matches!(kind, Type::Number | Type::Dynamic);
                if !fits(left_kind) || !fits(right_kind) {
                    return self.report(not_numbers(binary, kinds, fits));
                }
                Some((Program::Calculate(calculation, sides), Type::Number))
            }
        }
    }

    fn call(&mut self, name: &str, at: Position, arguments: &[Expression]) -> Checked<D::Name> {
        // The arguments are checked first, so that their own problems are told as well.
        let checked: Vec<_> = arguments.iter().map(|argument| self.expression(argument)).collect();
        let Some(function) = functions::find(name) else {
            return self.report(unknown_function(name, at));
        };
        if !function.takes(arguments.len()) {
            let message = format!("`{}` cannot take {} arguments", function.name, arguments.len());
            return self.report(Problem::new(at, message, format!("call it as `{}`", function.usage())));
        }
        let mut programs = Vec::with_capacity(arguments.len());
        for (index, (argument, checked)) in arguments.iter().zip(checked).enumerate() {
            let Some((program, kind)) = checked else { continue };
            let parameter = function.parameter(index);
            if accepts(parameter, kind) {
                programs.push(program);
            } else {
                self.problems.push(wrong_argument(function, index, argument, kind));
            }
        }
        if programs.len() < arguments.len() {
            return None;
        }
        Some(match function.action {
            Action::Compute(compute) => (Program::Call(function, compute, programs), function.result),
            Action::Join => (Program::Concat(programs), function.result),
        })
    }
}

const fn comparable(kinds: (Type, Type)) -> bool {
    match kinds {
        (Type::Dynamic, _)
        | (_, Type::Dynamic)
        | (Type::Text, Type::Text)
        | (Type::Number, Type::Number)
        | (Type::Bool | Type::Undefined, Type::Bool | Type::Undefined)
        | (Type::Null, Type::Null) => true,
        _ => false,
    }
}

const fn accepts(parameter: Parameter, kind: Type) -> bool {
    match (parameter, kind) {
        (Parameter::Any, _) | (_, Type::Dynamic) => true,
        (Parameter::Text, kind) => matches!(kind, Type::Text),
        (Parameter::Number, kind) => matches!(kind, Type::Number),
        (Parameter::TextOrNumber, kind) => matches!(kind, Type::Text | Type::Number),
    }
}

/// The literal `null` as an operand of logic is false.
fn in_logic<N>(program: Program<N>, kind: Type) -> Program<N> {
    if kind == Type::Null {
        Program::Constant(Value::Bool(false))
    } else {
        program
    }
}

fn operands<N>(terms: Vec<(Program<N>, Type)>) -> Vec<Program<N>> {
    terms
        .into_iter()
        .map(|(program, kind)| in_logic(program, kind))
        .collect()
}

/// `a || b || c` as one node.
fn concat<N>(sides: (Program<N>, Program<N>)) -> Program<N> {
    let mut parts = match sides.0 {
        Program::Concat(parts) => parts,
        left => vec![left],
    };
    parts.push(sides.1);
    Program::Concat(parts)
}

// ---- what is wrong, and the way out ----

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

fn mismatch(binary: &Binary, kinds: (Type, Type)) -> Problem {
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
fn misread_not(binary: &Binary) -> Option<Problem> {
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

fn not_a_truth(operator: &str, operand: &Expression, kind: Type) -> Problem {
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

fn not_a_number(operator: &str, at: Position, operand: &Expression, kind: Type) -> Problem {
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

fn not_numbers(binary: &Binary, kinds: (Type, Type), fits: impl Fn(Type) -> bool) -> Problem {
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

fn not_a_text(at: Position, side: &Expression, kind: Type) -> Problem {
    let message = format!("`||` joins texts, and `{side}` is {}", describe(side, kind));
    let remedy = match &side.kind {
        Kind::Number(_) | Kind::Bool(_) => format!("put it in quotes: `'{side}'`"),
        _ if kind == Type::Number => "use `+` to add numbers".to_owned(),
        _ => "give a text".to_owned(),
    };
    Problem::new(at, message, remedy)
}

fn wrong_argument(function: &Function, index: usize, argument: &Expression, kind: Type) -> Problem {
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

fn unknown_function(name: &str, at: Position) -> Problem {
    let remedy = functions::nearest(name).map_or_else(
        || {
            let names: Vec<&str> = functions::FUNCTIONS.iter().map(|function| function.name).collect();
            format!("the functions are {}", names.join(", "))
        },
        |function| format!("write `{}`", function.usage()),
    );
    Problem::new(at, format!("there is no function `{name}`"), remedy)
}
