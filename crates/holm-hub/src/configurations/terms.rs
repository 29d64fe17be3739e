//! The values of a fleet, each once: a twin is known by small numbers, and two that say the same have the same.
//!
//! Numbers are kept as the language compares them: `1` and `1.0` are one term.

use std::collections::HashMap;

use serde_json::Value;

/// The term of what is not there.
pub(super) const UNDEFINED: u32 = 0;

/// Values by term and terms by value.
#[derive(Debug)]
pub(super) struct Terms {
    values: Vec<Value>,
    ids: HashMap<Value, u32>,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            // The place of the undefined; nobody reads it.
            values: vec![Value::Null],
            ids: HashMap::new(),
        }
    }
}

impl Terms {
    /// The term of a value, new or known.
    pub(super) fn intern(&mut self, value: &Value) -> u32 {
        let number = match value {
            Value::Number(number) => number.as_f64().map(whole),
            _ => None,
        };
        let value = number.as_ref().unwrap_or(value);
        if let Some(id) = self.ids.get(value) {
            return *id;
        }
        // Beyond 2^32 values nothing would fit into memory; the undefined is the safe answer.
        let Ok(id) = u32::try_from(self.values.len()) else {
            return UNDEFINED;
        };
        self.values.push(value.clone());
        self.ids.insert(value.clone(), id);
        id
    }

    /// The value of a term; `None` for what is not there.
    pub(super) fn value(&self, term: u32) -> Option<&Value> {
        if term == UNDEFINED {
            return None;
        }
        self.values.get(usize::try_from(term).ok()?)
    }

    /// How many values are known.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }
}

/// A number in the one form that stands for all that are equal to it.
fn whole(number: f64) -> Value {
    /// Up to here doubles are exact to the unit.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT {
        // The value is whole and within the bounds, so the conversion keeps it.
        #[allow(clippy::cast_possible_truncation)]
        return (number as i64).into();
    }
    number.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_compares_equal_is_one_term() {
        let mut terms = Terms::default();

        let [one, same, text, tree] = [json!(1), json!(1.0), json!("1"), json!([1])].map(|value| terms.intern(&value));

        assert_eq!(one, same);
        assert!(one != text && text != tree && one != UNDEFINED);
        assert_eq!(terms.value(tree), Some(&json!([1])));
        assert_eq!(terms.value(UNDEFINED), None);
    }
}
