//! What can be said of every document for which a condition holds: tests of single places, joined by "all" and "any".
//!
//! ```text
//! tags.a = 'x' AND NOT (tags.b >= 3 OR LENGTH(tags.c) = 2)
//!    implies   All [ tags.a = 'x', tags.b < 3 ]              LENGTH says nothing that an index knows
//! ```
//!
//! A filter has no NOT: negation is carried down to the comparisons. That is exact, because a comparison with undefined is
//! undefined whichever way round it is asked. What can't be expressed is [`Filter::Always`].

use serde_json::Value as Json;

use super::ast::Expression;
use super::call::Call;
use super::path::Path;
use super::value::Value;
use crate::ast::Comparison;

/// What a document must pass.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// Every document passes.
    Always,
    /// No document passes.
    Never,
    /// All of these; two or more.
    All(Vec<Self>),
    /// One of these; two or more.
    Any(Vec<Self>),
    /// One place.
    Test(Test),
}

/// A test of one place of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Test {
    /// The place.
    pub path: Path,
    /// What must be there.
    pub is: Is,
}

/// What must be at a place.
#[derive(Clone, Debug, PartialEq)]
pub enum Is {
    /// This value.
    Equal(Scalar),
    /// A number or text, below or at the limit.
    AtMost(Scalar),
    /// A number or text, at or above the limit.
    AtLeast(Scalar),
    /// A text that begins so.
    Prefix(String),
    /// An array that holds this value.
    Holding(Scalar),
    /// Anything.
    Defined,
}

/// A value without parts.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// Never NaN.
    Number(f64),
    /// A text.
    Text(String),
}

impl Filter {
    /// Whether a document passes.
    #[must_use]
    pub fn passes(&self, document: &Json) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::All(filters) => filters.iter().all(|filter| filter.passes(document)),
            Self::Any(filters) => filters.iter().any(|filter| filter.passes(document)),
            Self::Test(test) => test.passes(document),
        }
    }

    fn all(filters: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Vec::new();
        for filter in filters {
            match filter {
                Self::Always => {}
                Self::Never => return Self::Never,
                Self::All(inner) => all.extend(inner),
                other => all.push(other),
            }
        }
        match all.len() {
            0 => Self::Always,
            1 => all.remove(0),
            _ => Self::All(all),
        }
    }

    fn any(filters: impl IntoIterator<Item = Self>) -> Self {
        let mut any = Vec::new();
        for filter in filters {
            match filter {
                Self::Never => {}
                Self::Always => return Self::Always,
                Self::Any(inner) => any.extend(inner),
                other => any.push(other),
            }
        }
        match any.len() {
            0 => Self::Never,
            1 => any.remove(0),
            _ => Self::Any(any),
        }
    }
}

impl Test {
    fn passes(&self, document: &Json) -> bool {
        let found = self.path.find(document);
        let value = Value::of(found);
        match &self.is {
            Is::Equal(scalar) => value.same(&scalar.value()) == Some(true),
            Is::AtMost(scalar) => value.order(&scalar.value()).is_some_and(|order| order.is_le()),
            Is::AtLeast(scalar) => value.order(&scalar.value()).is_some_and(|order| order.is_ge()),
            Is::Prefix(prefix) => matches!(&value, Value::Text(text) if text.starts_with(prefix.as_str())),
            Is::Holding(scalar) => found.and_then(Json::as_array).is_some_and(|items| {
                items
                    .iter()
                    .any(|item| Value::of(Some(item)).same(&scalar.value()) == Some(true))
            }),
            Is::Defined => found.is_some(),
        }
    }
}

impl Scalar {
    fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Number(number) => Value::Number(*number),
            Self::Text(text) => Value::Text(text.into()),
        }
    }
}

/// What every document passes on which `expression` is `wanted`.
pub(super) fn implied(expression: &Expression, wanted: bool) -> Filter {
    match expression {
        Expression::Bool(value) if *value == wanted => Filter::Always,
        Expression::Bool(_)
        | Expression::Undefined
        | Expression::Null
        | Expression::Number(_)
        | Expression::Text(_)
        | Expression::Negate(_)
        | Expression::Calculate(..) => Filter::Never,
        Expression::Path(path) => test(path, Is::Equal(Scalar::Bool(wanted))),
        Expression::Not(operand) => implied(operand, !wanted),
        Expression::And(terms) if wanted => Filter::all(terms.iter().map(|term| implied(term, true))),
        Expression::Or(terms) if !wanted => Filter::all(terms.iter().map(|term| implied(term, false))),
        Expression::And(terms) | Expression::Or(terms) => Filter::any(terms.iter().map(|term| implied(term, wanted))),
        Expression::Compare(comparison, sides) => {
            let comparison = if wanted { *comparison } else { opposite(*comparison) };
            match (&sides.0, &sides.1) {
                (Expression::Path(path), other) if literal(other).is_some() => compared(path, comparison, other),
                (other, Expression::Path(path)) if literal(other).is_some() => {
                    compared(path, turned(comparison), other)
                }
                (Expression::Path(one), Expression::Path(other)) => {
                    Filter::all([test(one, Is::Defined), test(other, Is::Defined)])
                }
                _ => Filter::Always,
            }
        }
        Expression::In(operand, list) => match &**operand {
            Expression::Path(path) if wanted && list.iter().all(|item| literal(item).is_some()) => {
                Filter::any(list.iter().map(|item| compared(path, Comparison::Equal, item)))
            }
            Expression::Path(path) => test(path, Is::Defined),
            _ => Filter::Always,
        },
        Expression::Call(call, arguments) => called(*call, arguments, wanted),
    }
}

fn test(path: &Path, is: Is) -> Filter {
    Filter::Test(Test { path: path.clone(), is })
}

fn literal(expression: &Expression) -> Option<Scalar> {
    match expression {
        Expression::Null => Some(Scalar::Null),
        Expression::Bool(value) => Some(Scalar::Bool(*value)),
        Expression::Number(number) => Some(Scalar::Number(*number)),
        Expression::Text(text) => Some(Scalar::Text(text.clone())),
        _ => None,
    }
}

fn compared(path: &Path, comparison: Comparison, other: &Expression) -> Filter {
    let Some(scalar) = literal(other) else {
        return Filter::Always;
    };
    match (comparison, &scalar) {
        (Comparison::Equal, _) => test(path, Is::Equal(scalar)),
        (Comparison::NotEqual, _) => test(path, Is::Defined),
        // Nulls have no order.
        (_, Scalar::Null) => Filter::Never,
        (Comparison::Less | Comparison::LessOrEqual, _) => test(path, Is::AtMost(scalar)),
        (Comparison::Greater | Comparison::GreaterOrEqual, _) => test(path, Is::AtLeast(scalar)),
    }
}

fn called(call: Call, arguments: &[Expression], wanted: bool) -> Filter {
    match (call, arguments) {
        // Of a path only: the others are always defined or never.
        (
            Call::IsDefined | Call::IsString | Call::IsNumber | Call::IsObject | Call::IsArray,
            [Expression::Path(path)],
        ) if wanted => test(path, Is::Defined),
        (Call::StartsWith, [Expression::Path(path), Expression::Text(prefix)]) => {
            let is = if wanted {
                Is::Prefix(prefix.clone())
            } else {
                Is::Defined
            };
            test(path, is)
        }
        (Call::ArrayContains, [Expression::Path(path), item]) => match literal(item) {
            Some(scalar) if wanted => test(path, Is::Holding(scalar)),
            _ => test(path, Is::Defined),
        },
        _ => Filter::Always,
    }
}

/// The comparison that holds exactly where this one is false.
const fn opposite(comparison: Comparison) -> Comparison {
    match comparison {
        Comparison::Equal => Comparison::NotEqual,
        Comparison::NotEqual => Comparison::Equal,
        Comparison::Less => Comparison::GreaterOrEqual,
        Comparison::LessOrEqual => Comparison::Greater,
        Comparison::Greater => Comparison::LessOrEqual,
        Comparison::GreaterOrEqual => Comparison::Less,
    }
}

/// The comparison with its sides changed.
const fn turned(comparison: Comparison) -> Comparison {
    match comparison {
        Comparison::Less => Comparison::Greater,
        Comparison::LessOrEqual => Comparison::GreaterOrEqual,
        Comparison::Greater => Comparison::Less,
        Comparison::GreaterOrEqual => Comparison::LessOrEqual,
        same => same,
    }
}
