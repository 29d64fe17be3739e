//! Running an expression on a document.

use serde_json::Value as Json;

use super::ast::Expression;
use super::value::Value;
use crate::ast::Calculation;
use crate::evaluate::Truth;

impl Expression {
    /// What it gives on a document.
    pub(super) fn value<'v>(&'v self, document: &'v Json) -> Value<'v> {
        match self {
            Self::Undefined => Value::Undefined,
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Number(value) => Value::Number(*value),
            Self::Text(text) => Value::Text(text.into()),
            Self::Path(path) => Value::of(path.find(document)),
            Self::Negate(operand) => match operand.value(document) {
                Value::Number(number) => Value::Number(-number),
                _ => Value::Undefined,
            },
            Self::Calculate(calculation, sides) => {
                calculate(*calculation, &sides.0.value(document), &sides.1.value(document))
            }
            Self::Call(call, arguments) => {
                let values: Vec<Value<'_>> = arguments.iter().map(|argument| argument.value(document)).collect();
                call.compute(&values)
            }
            Self::Not(_) | Self::And(_) | Self::Or(_) | Self::Compare(..) | Self::In(..) => {
                Value::of_truth(self.truth(document))
            }
        }
    }

    /// What it gives as a condition.
    pub(super) fn truth(&self, document: &Json) -> Truth {
        match self {
            Self::Not(operand) => match operand.truth(document) {
                Truth::True => Truth::False,
                Truth::False => Truth::True,
                Truth::Undefined => Truth::Undefined,
            },
            Self::And(terms) => decide(terms, document, Truth::False, Truth::True),
            Self::Or(terms) => decide(terms, document, Truth::True, Truth::False),
            Self::Compare(comparison, sides) => sides.0.value(document).compare(*comparison, &sides.1.value(document)),
            Self::In(operand, list) => is_in(&operand.value(document), list, document),
            _ => self.value(document).truth(),
        }
    }
}

/// AND with `decides` false, OR with `decides` true: one term can decide; otherwise an undefined one leaves it open.
fn decide(terms: &[Expression], document: &Json, decides: Truth, otherwise: Truth) -> Truth {
    let mut result = otherwise;
    for term in terms {
        match term.truth(document) {
            truth if truth == decides => return decides,
            Truth::Undefined => result = Truth::Undefined,
            _ => {}
        }
    }
    result
}

/// Undefined when the value is, or is an object or an array; then nothing in the list is equal to it.
fn is_in(value: &Value<'_>, list: &[Expression], document: &Json) -> Truth {
    if matches!(value, Value::Undefined | Value::Tree(_)) {
        return Truth::Undefined;
    }
    let found = list.iter().any(|item| value.same(&item.value(document)) == Some(true));
    if found { Truth::True } else { Truth::False }
}

fn calculate<'v>(calculation: Calculation, left: &Value<'_>, right: &Value<'_>) -> Value<'v> {
    let (Value::Number(left), Value::Number(right)) = (left, right) else {
        return Value::Undefined;
    };
    Value::number(calculation.of(*left, *right))
}
