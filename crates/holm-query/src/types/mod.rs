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
//! The original refuses by accident what is accepted here: a body value to the right of a truth value in AND and OR, `%` and
//! unary `-` of a body value, `undefined ?? x`. A number or text as the whole condition is accepted, as there: such a condition
//! is undefined.
//!
//! The literal `null` in logic is false, but `null AND x`, and `null OR null`, are null themselves, so that
//! `(null and true) = null` holds; both are settled here, and evaluation does not know of it.
//!
//! What a name means is the dialect's affair: [`Dialect::resolve`].

mod refusal;

use crate::ast::{Binary, Calculation, Comparison, Expression, Kind, Name, Operator};
use crate::evaluate::Value;
use crate::functions::{Action, Compute, Function, Functions, Parameter};
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

    /// The functions that can be called.
    fn functions(&self) -> Functions {
        Functions::COMMON
    }
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
    /// A function of at most [`crate::functions::MAX_PARAMETERS`] arguments.
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
                    return self.report(refusal::not_a_number("-", tree.at, operand, kind));
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
            Type::Text | Type::Number => self.report(refusal::not_a_truth(operator, operand, kind)),
            _ => Some((program, kind)),
        }
    }

    fn binary(&mut self, binary: &Binary) -> Checked<D::Name> {
        if let Some(problem) = refusal::misread_not(binary) {
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
            Operator::Compare(_) | Operator::Coalesce => self.report(refusal::mismatch(binary, kinds)),
            Operator::Concat => {
                let fits = |kind| matches!(kind, Type::Text | Type::Dynamic);
                if !fits(left_kind) || !fits(right_kind) {
                    let (side, kind) = if fits(left_kind) {
                        (&binary.right, right_kind)
                    } else {
                        (&binary.left, left_kind)
                    };
                    return self.report(refusal::not_a_text(binary.operator_at, side, kind));
                }
                Some((concat(*sides), Type::Text))
            }
            Operator::Calculate(calculation) => {
                let fits = |kind| matches!(kind, Type::Number | Type::Dynamic);
                if !fits(left_kind) || !fits(right_kind) {
                    return self.report(refusal::not_numbers(binary, kinds, fits));
                }
                Some((Program::Calculate(calculation, sides), Type::Number))
            }
        }
    }

    fn call(&mut self, name: &str, at: Position, arguments: &[Expression]) -> Checked<D::Name> {
        // The arguments are checked first, so that their own problems are told as well.
        let checked: Vec<_> = arguments.iter().map(|argument| self.expression(argument)).collect();
        let functions = self.dialect.functions();
        let Some(function) = functions.find(name) else {
            return self.report(refusal::unknown_function(functions, name, at));
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
                self.problems
                    .push(refusal::wrong_argument(function, index, argument, kind));
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
    matches!(
        kinds,
        (Type::Dynamic, _)
            | (_, Type::Dynamic)
            | (Type::Text, Type::Text)
            | (Type::Number, Type::Number)
            | (Type::Bool | Type::Undefined, Type::Bool | Type::Undefined)
            | (Type::Null, Type::Null)
    )
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
