//! Values, three-valued logic, and running a checked program.
//!
//! - A comparison with undefined is undefined; a calculation with anything but numbers is undefined; a number is never NaN:
//!   what would be NaN is undefined (`3 % 0`), while `3 / 0` is infinite and defined.
//! - Values of different kinds are never equal; their order is that of their kinds: truth values, numbers, texts, null.
//! - `undefined OR true` is true, `undefined AND false` is false; otherwise undefined in, undefined out. A body value that is no
//!   truth value is undefined in logic, JSON null too. (The literal `null` is false in logic: `types` replaces it.)

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::ast::{Calculation, Comparison};
use crate::functions::MAX_PARAMETERS;
use crate::types::Program;

/// What an expression gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value<'v> {
    /// Nothing is known: a missing property, an object, a calculation that cannot be done.
    #[default]
    Undefined,
    /// Nothing is there: a property without a value, a JSON null, a missing path of a body.
    Null,
    /// A truth value.
    Bool(bool),
    /// A number, never NaN.
    Number(f64),
    /// A text.
    Text(Cow<'v, str>),
    /// An array or object of a dialect that knows them: it is there, and can be compared with nothing.
    Structure(Structure),
}

/// What holds other values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    /// A list of values.
    Array,
    /// Values with names.
    Object,
}

/// What a condition gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It holds. A route fires on this only.
    True,
    /// It does not hold.
    False,
    /// It cannot be said.
    Undefined,
}

/// Finds the value of a name, whose type `N` the dialect chose when the program was checked.
pub trait Lookup<N> {
    /// The value that the name has now.
    fn value<'v>(&'v self, name: &'v N) -> Value<'v>;
}

impl<'v> Value<'v> {
    /// A number, or undefined for NaN.
    #[must_use]
    pub const fn number(number: f64) -> Self {
        if number.is_nan() {
            Self::Undefined
        } else {
            Self::Number(number)
        }
    }

    /// The same value without a copy of its text.
    #[must_use]
    pub fn borrowed(&'v self) -> Self {
        match self {
            Self::Undefined => Self::Undefined,
            Self::Null => Self::Null,
            Self::Bool(value) => Self::Bool(*value),
            Self::Number(value) => Self::Number(*value),
            Self::Text(text) => Self::Text(Cow::Borrowed(text)),
            Self::Structure(structure) => Self::Structure(*structure),
        }
    }

    /// What it means as a condition.
    #[must_use]
    pub const fn truth(&self) -> Truth {
        match self {
            Self::Bool(true) => Truth::True,
            Self::Bool(false) => Truth::False,
            _ => Truth::Undefined,
        }
    }

    const fn rank(&self) -> u8 {
        match self {
            Self::Undefined | Self::Structure(_) => 0,
            Self::Bool(_) => 1,
            Self::Number(_) => 2,
            Self::Text(_) => 3,
            Self::Null => 4,
        }
    }

    /// How two values are ordered; `None` when one is undefined or a structure.
    fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Undefined | Self::Structure(_), _) | (_, Self::Undefined | Self::Structure(_)) => None,
            (Self::Bool(one), Self::Bool(other)) => Some(one.cmp(other)),
            (Self::Number(one), Self::Number(other)) => one.partial_cmp(other),
            (Self::Text(one), Self::Text(other)) => Some(one.cmp(other)),
            (one, other) => Some(one.rank().cmp(&other.rank())),
        }
    }
}

impl Truth {
    const fn of(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }

    const fn not(self) -> Self {
        match self {
            Self::True => Self::False,
            Self::False => Self::True,
            Self::Undefined => Self::Undefined,
        }
    }

    const fn value<'v>(self) -> Value<'v> {
        match self {
            Self::True => Value::Bool(true),
            Self::False => Value::Bool(false),
            Self::Undefined => Value::Undefined,
        }
    }
}

impl<N> Program<N> {
    /// Runs the program.
    pub fn evaluate<'v>(&'v self, names: &'v impl Lookup<N>) -> Value<'v> {
        match self {
            Self::Constant(value) => value.borrowed(),
            Self::Name(name) => names.value(name),
            Self::Negate(operand) => match operand.evaluate(names) {
                Value::Number(x) => Value::Number(-x),
                _ => Value::Undefined,
            },
            Self::Calculate(calculation, sides) => {
                calculate(*calculation, &sides.0.evaluate(names), &sides.1.evaluate(names))
            }
            Self::Coalesce(sides) => match sides.0.evaluate(names) {
                Value::Undefined => sides.1.evaluate(names),
                value => value,
            },
            Self::Concat(parts) => join(parts, names),
            Self::Call(function, compute, arguments) => {
                let mut values: [Value<'v>; MAX_PARAMETERS] = Default::default();
                for (value, argument) in values.iter_mut().zip(arguments) {
                    *value = argument.evaluate(names);
                }
                function.compute(*compute, values.get(..arguments.len()).unwrap_or_default())
            }
            Self::Not(_) | Self::And(_) | Self::Or(_) | Self::Compare(..) => self.truth(names).value(),
        }
    }

    /// Runs the program as a condition.
    pub fn truth(&self, names: &impl Lookup<N>) -> Truth {
        match self {
            Self::Not(operand) => operand.truth(names).not(),
            Self::And(terms) => combine(terms, names, Truth::False, Truth::True),
            Self::Or(terms) => combine(terms, names, Truth::True, Truth::False),
            Self::Compare(comparison, sides) => {
                compare(*comparison, &sides.0.evaluate(names), &sides.1.evaluate(names))
            }
            _ => self.evaluate(names).truth(),
        }
    }
}

/// AND with `decides` false, OR with `decides` true: one term can decide; otherwise an undefined one leaves it open.
fn combine<N>(terms: &[Program<N>], names: &impl Lookup<N>, decides: Truth, otherwise: Truth) -> Truth {
    let mut result = otherwise;
    for term in terms {
        match term.truth(names) {
            truth if truth == decides => return decides,
            Truth::Undefined => result = Truth::Undefined,
            _ => {}
        }
    }
    result
}

fn compare(comparison: Comparison, left: &Value<'_>, right: &Value<'_>) -> Truth {
    let Some(order) = left.order(right) else {
        return Truth::Undefined;
    };
    Truth::of(match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    })
}

fn calculate<'v>(calculation: Calculation, left: &Value<'_>, right: &Value<'_>) -> Value<'v> {
    let (Value::Number(left), Value::Number(right)) = (left, right) else {
        return Value::Undefined;
    };
    Value::number(calculation.of(*left, *right))
}

/// Joins texts: null counts as an empty one, anything else makes the result undefined.
fn join<'v, N>(parts: &'v [Program<N>], names: &'v impl Lookup<N>) -> Value<'v> {
    let mut joined = String::new();
    for part in parts {
        match part.evaluate(names) {
            Value::Text(text) => joined.push_str(&text),
            Value::Null => {}
            _ => return Value::Undefined,
        }
    }
    Value::Text(Cow::Owned(joined))
}
