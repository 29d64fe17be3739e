//! The tree of a condition or a column, with its paths resolved.

use super::call::Call;
use super::path::Path;
use crate::ast::{Calculation, Comparison};

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expression {
    Undefined,
    Null,
    Bool(bool),
    /// Never NaN.
    Number(f64),
    Text(String),
    Path(Path),
    Negate(Box<Self>),
    Not(Box<Self>),
    /// Two terms or more.
    And(Vec<Self>),
    /// Two terms or more.
    Or(Vec<Self>),
    Compare(Comparison, Box<(Self, Self)>),
    Calculate(Calculation, Box<(Self, Self)>),
    In(Box<Self>, Vec<Self>),
    Call(Call, Vec<Self>),
}

impl Expression {
    /// Every path in it, in the order of the text.
    pub(super) fn paths<'e>(&'e self, into: &mut Vec<&'e Path>) {
        match self {
            Self::Undefined | Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) => {}
            Self::Path(path) => into.push(path),
            Self::Negate(operand) | Self::Not(operand) => operand.paths(into),
            Self::And(terms) | Self::Or(terms) | Self::Call(_, terms) => {
                terms.iter().for_each(|term| term.paths(into));
            }
            Self::Compare(_, sides) | Self::Calculate(_, sides) => {
                sides.0.paths(into);
                sides.1.paths(into);
            }
            Self::In(operand, list) => {
                operand.paths(into);
                list.iter().for_each(|item| item.paths(into));
            }
        }
    }
}
