//! Functions of the language: those on the shape of a value, which routes do not have or name otherwise, and those of routes.

use super::value::{Value, truth_of};
use crate::evaluate;
use crate::functions::{Action, Function, Functions};

/// A function that is known, with the right number of arguments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Call {
    IsDefined,
    IsNull,
    IsBool,
    IsNumber,
    IsString,
    IsPrimitive,
    IsObject,
    IsArray,
    StartsWith,
    EndsWith,
    Contains,
    ArrayContains,
    /// One that routes have too.
    Shared(Shared),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Shared(&'static Function);

impl PartialEq for Shared {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

const OWN: &[(&str, Call, usize)] = &[
    ("IS_DEFINED", Call::IsDefined, 1),
    ("IS_NULL", Call::IsNull, 1),
    ("IS_BOOL", Call::IsBool, 1),
    ("IS_NUMBER", Call::IsNumber, 1),
    ("IS_STRING", Call::IsString, 1),
    ("IS_PRIMITIVE", Call::IsPrimitive, 1),
    ("IS_OBJECT", Call::IsObject, 1),
    ("IS_ARRAY", Call::IsArray, 1),
    ("STARTSWITH", Call::StartsWith, 2),
    ("STARTS_WITH", Call::StartsWith, 2),
    ("ENDSWITH", Call::EndsWith, 2),
    ("ENDS_WITH", Call::EndsWith, 2),
    ("CONTAINS", Call::Contains, 2),
    ("ARRAY_CONTAINS", Call::ArrayContains, 2),
];

/// What is wrong with a call.
pub(super) enum Refusal {
    /// With the name that was probably meant.
    Unknown(Option<&'static str>),
    /// With how it is called.
    Arguments(String),
}

impl Call {
    /// The function of a name in any case, called with this many arguments.
    pub(super) fn find(name: &str, arguments: usize) -> Result<Self, Refusal> {
        if let Some((name, call, takes)) = OWN.iter().find(|(own, ..)| own.eq_ignore_ascii_case(name)) {
            let usage = ["", "value", "value, value"];
            return if arguments == *takes {
                Ok(*call)
            } else {
                Err(Refusal::Arguments(format!(
                    "{name}({})",
                    usage.get(*takes).unwrap_or(&"")
                )))
            };
        }
        let Some(function) = Functions::COMMON.find(name) else {
            let upper = name.to_ascii_uppercase();
            let own = OWN
                .iter()
                .map(|(own, ..)| *own)
                .find(|own| crate::strings::distance(own, &upper) <= 2);
            return Err(Refusal::Unknown(
                own.or_else(|| Functions::COMMON.nearest(name).map(|near| near.name)),
            ));
        };
        if function.takes(arguments) {
            Ok(Self::Shared(Shared(function)))
        } else {
            Err(Refusal::Arguments(function.usage()))
        }
    }

    pub(super) fn compute<'v>(self, values: &[Value<'v>]) -> Value<'v> {
        match (self, values) {
            (Self::IsDefined, [value]) => Value::Bool(!matches!(value, Value::Undefined)),
            (Self::IsNull, [value]) => Value::Bool(matches!(value, Value::Null)),
            (Self::IsBool, [value]) => Value::Bool(matches!(value, Value::Bool(_))),
            (Self::IsNumber, [value]) => Value::Bool(matches!(value, Value::Number(_))),
            (Self::IsString, [value]) => Value::Bool(matches!(value, Value::Text(_))),
            (Self::IsPrimitive, [value]) => Value::Bool(!matches!(value, Value::Undefined | Value::Tree(_))),
            (Self::IsObject, [value]) => Value::Bool(matches!(value, Value::Tree(tree) if tree.is_object())),
            (Self::IsArray, [value]) => Value::Bool(matches!(value, Value::Tree(tree) if tree.is_array())),
            (Self::StartsWith, [Value::Text(text), Value::Text(part)]) => Value::Bool(text.starts_with(&**part)),
            (Self::EndsWith, [Value::Text(text), Value::Text(part)]) => Value::Bool(text.ends_with(&**part)),
            (Self::Contains, [Value::Text(text), Value::Text(part)]) => Value::Bool(text.contains(&**part)),
            (Self::ArrayContains, [Value::Tree(tree), wanted]) => array_contains(tree, wanted),
            (Self::Shared(Shared(function)), values) => shared(function, values),
            _ => Value::Undefined,
        }
    }
}

fn array_contains<'v>(tree: &serde_json::Value, wanted: &Value<'_>) -> Value<'v> {
    let holds = |items: &Vec<serde_json::Value>| match wanted {
        Value::Undefined => None,
        Value::Tree(wanted) => Some(items.iter().any(|item| item == *wanted)),
        wanted => Some(
            items
                .iter()
                .any(|item| Value::of(Some(item)).same(wanted) == Some(true)),
        ),
    };
    Value::of_truth(truth_of(tree.as_array().and_then(holds)))
}

/// A function of routes. An object or an array is undefined to it.
fn shared<'v>(function: &'static Function, values: &[Value<'v>]) -> Value<'v> {
    let inputs: Vec<evaluate::Value<'_>> = values
        .iter()
        .map(|value| match value {
            Value::Undefined | Value::Tree(_) => evaluate::Value::Undefined,
            Value::Null => evaluate::Value::Null,
            Value::Bool(value) => evaluate::Value::Bool(*value),
            Value::Number(value) => evaluate::Value::Number(*value),
            Value::Text(text) => evaluate::Value::Text(text.clone()),
        })
        .collect();
    let result = match function.action {
        Action::Compute(compute) => function.compute(compute, &inputs),
        Action::Join => joined(&inputs),
    };
    match result {
        evaluate::Value::Undefined | evaluate::Value::Structure(_) => Value::Undefined,
        evaluate::Value::Null => Value::Null,
        evaluate::Value::Bool(value) => Value::Bool(value),
        evaluate::Value::Number(value) => Value::number(value),
        evaluate::Value::Text(text) => Value::Text(text.into_owned().into()),
    }
}

fn joined<'v>(parts: &[evaluate::Value<'_>]) -> evaluate::Value<'v> {
    let mut text = String::new();
    for part in parts {
        match part {
            evaluate::Value::Text(part) => text.push_str(part),
            evaluate::Value::Null => {}
            _ => return evaluate::Value::Undefined,
        }
    }
    evaluate::Value::Text(text.into())
}
