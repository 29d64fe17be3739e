//! Values of a document, and how they compare.
//!
//! | | `=` | `!=` | `<` `<=` `>` `>=` |
//! |---|---|---|---|
//! | one is undefined | undefined | undefined | undefined |
//! | both numbers, texts or truth values | equal | different | their order; false is before true |
//! | both null | true | false | undefined |
//! | of two kinds | false | true | undefined |
//! | an object or array with null | false | true | undefined |
//! | an object or array with anything else | undefined | undefined | undefined |
//!
//! So a device that reports `"battery": "low"` is not among those with `battery < 20`, nor among those with `NOT battery < 20`.
//! (In a route values of two kinds have an order; there it is fixed by the original.)
//!
//! What a calculation gives is a value only where JSON has it: `1 / 0`, `0 % 0` and `1e300 * 1e300` are undefined. (In a route
//! `1 / 0` is infinite and defined, as its truth table says: `edge-broker.md` §2.7, rows 43 and 59.)

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::ast::Comparison;
use crate::evaluate::Truth;

/// What an expression gives.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'v> {
    Undefined,
    Null,
    Bool(bool),
    /// Never NaN; infinite only as a literal (`1e999`).
    Number(f64),
    Text(Cow<'v, str>),
    /// An object or an array.
    Tree(&'v serde_json::Value),
}

impl<'v> Value<'v> {
    pub(super) fn of(json: Option<&'v serde_json::Value>) -> Self {
        use serde_json::Value as Json;
        match json {
            None => Self::Undefined,
            Some(Json::Null) => Self::Null,
            Some(Json::Bool(value)) => Self::Bool(*value),
            Some(Json::Number(number)) => number.as_f64().map_or(Self::Undefined, Self::number),
            Some(Json::String(text)) => Self::Text(Cow::Borrowed(text)),
            Some(tree) => Self::Tree(tree),
        }
    }

    /// A number that was read or calculated; undefined where JSON has none such.
    pub(super) const fn number(number: f64) -> Self {
        if number.is_finite() {
            Self::Number(number)
        } else {
            Self::Undefined
        }
    }

    pub(super) const fn of_truth(truth: Truth) -> Self {
        match truth {
            Truth::True => Self::Bool(true),
            Truth::False => Self::Bool(false),
            Truth::Undefined => Self::Undefined,
        }
    }

    pub(super) const fn truth(&self) -> Truth {
        match self {
            Self::Bool(true) => Truth::True,
            Self::Bool(false) => Truth::False,
            _ => Truth::Undefined,
        }
    }

    /// As it stands in a result; `None` leaves it out. Numbers that are whole are written as such.
    pub(super) fn into_json(self) -> Option<serde_json::Value> {
        Some(match self {
            Self::Undefined => return None,
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => value.into(),
            Self::Number(number) => json_number(number)?,
            Self::Text(text) => text.into_owned().into(),
            Self::Tree(tree) => tree.clone(),
        })
    }

    /// The order of two numbers, texts or truth values.
    pub(super) fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(one), Self::Bool(other)) => Some(one.cmp(other)),
            (Self::Number(one), Self::Number(other)) => one.partial_cmp(other),
            (Self::Text(one), Self::Text(other)) => Some(one.cmp(other)),
            _ => None,
        }
    }

    /// Whether two values are the same; `None` where that can't be said.
    pub(super) fn same(&self, other: &Self) -> Option<bool> {
        match (self, other) {
            (Self::Undefined, _) | (_, Self::Undefined) => None,
            (Self::Null, Self::Null) => Some(true),
            (Self::Null, _) | (_, Self::Null) => Some(false),
            (Self::Tree(_), _) | (_, Self::Tree(_)) => None,
            _ => Some(self.order(other) == Some(Ordering::Equal)),
        }
    }

    pub(super) fn compare(&self, comparison: Comparison, other: &Self) -> Truth {
        let holds = match comparison {
            Comparison::Equal => self.same(other),
            Comparison::NotEqual => self.same(other).map(|same| !same),
            Comparison::Less => self.order(other).map(Ordering::is_lt),
            Comparison::LessOrEqual => self.order(other).map(Ordering::is_le),
            Comparison::Greater => self.order(other).map(Ordering::is_gt),
            Comparison::GreaterOrEqual => self.order(other).map(Ordering::is_ge),
        };
        truth_of(holds)
    }
}

pub(super) const fn truth_of(holds: Option<bool>) -> Truth {
    match holds {
        Some(true) => Truth::True,
        Some(false) => Truth::False,
        None => Truth::Undefined,
    }
}

/// A number as JSON; `None` for an infinite one, which JSON does not have.
pub(super) fn json_number(number: f64) -> Option<serde_json::Value> {
    /// Beyond it a double is not exact to the unit.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT {
        // The value is whole and within the bounds, so the conversion keeps it.
        #[allow(clippy::cast_possible_truncation)]
        return Some((number as i64).into());
    }
    serde_json::Number::from_f64(number).map(serde_json::Value::Number)
}
