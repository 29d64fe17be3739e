//! The functions, in one table. Source: `edge-broker.md` §2.5.
//!
//! A function is run only with values of the kinds that its parameters name; with any other value (undefined, null, a body
//! value of another kind) its result is undefined. So no function here deals with them, except those that take anything.
//!
//! Texts are counted in UTF-16 units, as the original does. A `substring` that would reach beyond the text ends at its end.
//! `is_null` of a body value is true for a JSON null and, because a missing path is null everywhere else, for a missing path
//! (the original answers true for every value that is there and false for a missing one).

use std::borrow::Cow;

use crate::evaluate::{Structure, Value};
use crate::numbers;
use crate::strings;
use crate::types::Type;

/// What a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// A text.
    Text,
    /// A number.
    Number,
    /// A text or a number.
    TextOrNumber,
    /// Anything, undefined and null too.
    Any,
}

/// A function of the language.
pub struct Function {
    /// Its name in lower case; compared without case.
    pub name: &'static str,
    /// What it takes.
    pub parameters: &'static [Parameter],
    /// How many of the last parameters may be left out.
    pub optional: usize,
    /// Whether the last parameter may be repeated.
    pub repeats: bool,
    /// What it gives.
    pub result: Type,
    /// How the result comes about.
    pub(crate) action: Action,
}

/// How a result comes about.
#[derive(Clone, Copy)]
pub(crate) enum Action {
    /// From the values of the arguments.
    Compute(Compute),
    /// By joining the texts of the arguments, as `||` does; null counts as an empty text.
    Join,
}

pub(crate) type Compute = for<'v> fn(&[Value<'v>]) -> Value<'v>;

/// The most parameters of a function that does not repeat its last one.
pub const MAX_PARAMETERS: usize = 3;

const TEXT: Parameter = Parameter::Text;
const NUMBER: Parameter = Parameter::Number;

const fn function(name: &'static str, parameters: &'static [Parameter], result: Type, compute: Compute) -> Function {
    Function {
        name,
        parameters,
        optional: 0,
        repeats: false,
        result,
        action: Action::Compute(compute),
    }
}

/// Every function that all dialects have.
pub static FUNCTIONS: &[Function] = &[
    function("abs", &[NUMBER], Type::Number, |values| number(values, f64::abs)),
    function("ceiling", &[NUMBER], Type::Number, |values| number(values, f64::ceil)),
    function("exp", &[NUMBER], Type::Number, |values| number(values, f64::exp)),
    function("floor", &[NUMBER], Type::Number, |values| number(values, f64::floor)),
    function("sign", &[NUMBER], Type::Number, |values| number(values, sign)),
    function("sqrt", &[NUMBER], Type::Number, |values| number(values, f64::sqrt)),
    function("square", &[NUMBER], Type::Number, |values| number(values, |x| x * x)),
    function("power", &[NUMBER, NUMBER], Type::Number, power),
    function("as_number", &[Parameter::TextOrNumber], Type::Number, as_number),
    function("is_bool", &[Parameter::Any], Type::Bool, |values| {
        test(values, |value| matches!(value, Value::Bool(_)))
    }),
    function("is_defined", &[Parameter::Any], Type::Bool, |values| {
        test(values, |value| !matches!(value, Value::Undefined))
    }),
    function("is_null", &[Parameter::Any], Type::Bool, |values| {
        test(values, |value| matches!(value, Value::Null))
    }),
    function("is_number", &[Parameter::Any], Type::Bool, |values| {
        test(values, |value| matches!(value, Value::Number(x) if x.is_finite()))
    }),
    function("is_string", &[Parameter::Any], Type::Bool, |values| {
        test(values, |value| matches!(value, Value::Text(_)))
    }),
    Function {
        name: "concat",
        parameters: &[TEXT, TEXT],
        optional: 0,
        repeats: true,
        result: Type::Text,
        action: Action::Join,
    },
    function("length", &[TEXT], Type::Number, |values| match values {
        [Value::Text(text)] => count(strings::length(text)),
        _ => Value::Undefined,
    }),
    function("lower", &[TEXT], Type::Text, |values| match values {
        [Value::Text(text)] => Value::Text(Cow::Owned(strings::lower(text))),
        _ => Value::Undefined,
    }),
    function("upper", &[TEXT], Type::Text, |values| match values {
        [Value::Text(text)] => Value::Text(Cow::Owned(strings::upper(text))),
        _ => Value::Undefined,
    }),
    Function {
        optional: 1,
        ..function("substring", &[TEXT, NUMBER, NUMBER], Type::Text, substring)
    },
    function("index_of", &[TEXT, TEXT], Type::Number, |values| match values {
        [Value::Text(text), Value::Text(part)] => {
            strings::index_of(text, part).map_or_else(|| Value::Number(-1.0), count)
        }
        _ => Value::Undefined,
    }),
    function("starts_with", &[TEXT, TEXT], Type::Bool, |values| {
        texts(values, |text, part| text.starts_with(part))
    }),
    function("ends_with", &[TEXT, TEXT], Type::Bool, |values| {
        texts(values, |text, part| text.ends_with(part))
    }),
    function("contains", &[TEXT, TEXT], Type::Bool, |values| {
        texts(values, |text, part| text.contains(part))
    }),
];

/// What only a dialect with arrays and objects has. Source: `hub-service-api.md` §4.2.
pub static STRUCTURE_FUNCTIONS: &[Function] = &[
    function("is_array", &[Parameter::Any], Type::Bool, |values| {
        test(values, |value| matches!(value, Value::Structure(Structure::Array)))
    }),
    function("is_object", &[Parameter::Any], Type::Bool, |values| {
        test(values, |value| matches!(value, Value::Structure(Structure::Object)))
    }),
    function("is_primitive", &[Parameter::Any], Type::Bool, |values| {
        test(values, |value| !matches!(value, Value::Structure(_) | Value::Undefined))
    }),
];

/// The functions of a dialect.
#[derive(Clone, Copy, Debug)]
pub struct Functions(&'static [&'static [Function]]);

impl Functions {
    /// Those that all dialects have.
    pub const COMMON: Self = Self(&[FUNCTIONS]);
    /// Those of a dialect with arrays and objects.
    pub const WITH_STRUCTURES: Self = Self(&[FUNCTIONS, STRUCTURE_FUNCTIONS]);

    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = &'static Function> {
        self.0.iter().copied().flatten()
    }

    /// The function of a name in any case.
    #[must_use]
    pub fn find(self, name: &str) -> Option<&'static Function> {
        self.iter().find(|function| function.name.eq_ignore_ascii_case(name))
    }

    /// The function whose name is spelt nearly like this one.
    #[must_use]
    pub fn nearest(self, name: &str) -> Option<&'static Function> {
        nearest(self, name)
    }
}

fn nearest(functions: Functions, name: &str) -> Option<&'static Function> {
    let name = name.to_ascii_lowercase();
    let (distance, function) = functions
        .iter()
        .map(|function| (strings::distance(&name, function.name), function))
        .min_by_key(|&(distance, _)| distance)?;
    (distance <= 2).then_some(function)
}

impl Function {
    /// Whether it can be called with this many arguments.
    #[must_use]
    pub const fn takes(&self, arguments: usize) -> bool {
        let most = self.parameters.len();
        arguments >= most - self.optional && (self.repeats || arguments <= most)
    }

    /// The parameter that an argument stands for, by its index.
    #[must_use]
    pub fn parameter(&self, index: usize) -> Parameter {
        let last = self.parameters.last().copied().unwrap_or(Parameter::Any);
        self.parameters.get(index).copied().unwrap_or(last)
    }

    /// How it is called, such as `substring(text, number[, number])`.
    #[must_use]
    pub fn usage(&self) -> String {
        let required = self.parameters.len() - self.optional;
        let mut usage = format!("{}(", self.name);
        for (index, parameter) in self.parameters.iter().enumerate() {
            let optional = index >= required;
            usage.push_str(if optional { "[" } else { "" });
            usage.push_str(if index > 0 { ", " } else { "" });
            usage.push_str(parameter.word());
            usage.push_str(if optional { "]" } else { "" });
        }
        usage.push_str(if self.repeats { ", …)" } else { ")" });
        usage
    }

    /// Computes the result; undefined when a value is of a kind that its parameter does not take.
    pub(crate) fn compute<'v>(&self, compute: Compute, values: &[Value<'v>]) -> Value<'v> {
        let fits = values
            .iter()
            .enumerate()
            .all(|(index, value)| self.parameter(index).fits(value));
        if fits { compute(values) } else { Value::Undefined }
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.usage())
    }
}

impl Parameter {
    /// Its kind in one word, for messages.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Number => "number",
            Self::TextOrNumber => "text or number",
            Self::Any => "anything",
        }
    }

    const fn fits(self, value: &Value<'_>) -> bool {
        match self {
            Self::Text => matches!(value, Value::Text(_)),
            Self::Number => matches!(value, Value::Number(_)),
            Self::TextOrNumber => matches!(value, Value::Text(_) | Value::Number(_)),
            Self::Any => true,
        }
    }
}

fn number<'v>(values: &[Value<'v>], compute: fn(f64) -> f64) -> Value<'v> {
    match values {
        [Value::Number(x)] => Value::number(compute(*x)),
        _ => Value::Undefined,
    }
}

fn power<'v>(values: &[Value<'v>]) -> Value<'v> {
    match values {
        [Value::Number(base), Value::Number(exponent)] => Value::number(base.powf(*exponent)),
        _ => Value::Undefined,
    }
}

/// Unlike the sign bit, the sign of zero is zero.
fn sign(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

fn as_number<'v>(values: &[Value<'v>]) -> Value<'v> {
    match values {
        [Value::Number(x)] => Value::Number(*x),
        [Value::Text(text)] => numbers::from_text(text).map_or(Value::Undefined, Value::number),
        _ => Value::Undefined,
    }
}

fn test<'v>(values: &[Value<'v>], holds: fn(&Value<'v>) -> bool) -> Value<'v> {
    match values {
        [value] => Value::Bool(holds(value)),
        _ => Value::Undefined,
    }
}

fn substring<'v>(values: &[Value<'v>]) -> Value<'v> {
    let part = match values {
        [Value::Text(text), Value::Number(start)] => strings::substring(text, *start, None),
        [Value::Text(text), Value::Number(start), Value::Number(length)] => {
            strings::substring(text, *start, Some(*length))
        }
        _ => None,
    };
    part.map_or(Value::Undefined, |part| Value::Text(Cow::Owned(part)))
}

fn texts<'v>(values: &[Value<'v>], holds: fn(&str, &str) -> bool) -> Value<'v> {
    match values {
        [Value::Text(text), Value::Text(part)] => Value::Bool(holds(text, part)),
        _ => Value::Undefined,
    }
}

/// A count as a number. A text that counts beyond `u32::MAX` units does not fit in a message.
fn count<'v>(count: usize) -> Value<'v> {
    Value::Number(f64::from(u32::try_from(count).unwrap_or(u32::MAX)))
}
