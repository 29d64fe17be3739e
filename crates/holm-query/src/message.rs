//! What names mean in conditions on messages. Source: `edge-broker.md` §2.4.
//!
//! | written | means |
//! |---|---|
//! | `p` | application property; text |
//! | `$p` | application property called `$p`, else system property `p`; text |
//! | `$body.a.b` | application property called `$body.a.b`, else the body's value |
//! | `$body.a[0]` | the body's value |
//! | `{$p}`, `{$body.a.b}` | the system property, the body's value |
//!
//! Names of properties and the prefix `$body.` are compared without case, keys of a body exactly. A missing property is
//! undefined; one without a value is null. The body is read once per message and only when a condition asks for it.
//!
//! A name with brackets that is no path into the body is refused (the original takes it as undefined, so that the condition
//! can never hold).

use std::cell::OnceCell;

use holm_model::{Message, SystemProperty};
use serde_json::Value as Json;

use crate::ast::{Name, NameForm};
use crate::body::{self, Path};
use crate::evaluate::{Lookup, Value};
use crate::problem::{Position, Problem};
use crate::strings::same_name;
use crate::types::{Dialect, Type};

const BODY: &str = "$body.";

/// The dialect of messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct MessageDialect;

/// What a name in a condition stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Property {
    /// An application property.
    Application(Box<str>),
    /// A system property, by its name without `$`.
    System(Box<str>),
    /// An application property whose name begins with `$`, else the system property of the rest of the name.
    ApplicationOrSystem(Box<str>),
    /// A value of the body.
    Body(Path),
    /// An application property, else a value of the body.
    ApplicationOrBody(Box<str>, Path),
}

/// What conditions look at: the parts of a message.
pub trait Fields {
    /// An application property in any case; `Some(None)` when it is there without a value.
    fn application(&self, name: &str) -> Option<Option<&str>>;
    /// A system property in any case, by its name without `$`.
    fn system(&self, name: &str) -> Option<&str>;
    /// The root object of the body, when it is readable JSON.
    fn body(&self) -> Option<&Json>;
}

impl Dialect for MessageDialect {
    type Name = Property;

    fn resolve(&self, name: &Name, at: Position) -> Result<(Property, Type), Problem> {
        let text = name.text.as_str();
        if name.form == NameForm::Plain {
            return Ok((Property::Application(text.into()), Type::Text));
        }
        if let Some(path) = strip_body(text) {
            let brace = u32::from(name.form == NameForm::Braced);
            let prefix = u32::try_from(BODY.len()).unwrap_or_default();
            let path = Path::parse(path, at.plus_columns(brace + prefix))?;
            let property = if name.form == NameForm::Braced || text.contains(['[', ']']) {
                Property::Body(path)
            } else {
                Property::ApplicationOrBody(text.into(), path)
            };
            return Ok((property, Type::Dynamic));
        }
        if text.contains(['[', ']']) {
            return Err(Problem::new(
                at,
                format!("`{text}` has brackets but is no path into the body"),
                "only paths into the body have indexes: `$body.values[0]`",
            ));
        }
        let property = match name.form {
            NameForm::Braced => Property::System(text.trim_start_matches('$').into()),
            NameForm::Plain | NameForm::Dollar => Property::ApplicationOrSystem(text.into()),
        };
        Ok((property, Type::Text))
    }
}

fn strip_body(text: &str) -> Option<&str> {
    let (prefix, path) = text.split_at_checked(BODY.len())?;
    prefix.eq_ignore_ascii_case(BODY).then_some(path)
}

impl<F: Fields> Lookup<Property> for F {
    fn value<'v>(&'v self, name: &'v Property) -> Value<'v> {
        match name {
            Property::Application(name) => self.application(name).map_or(Value::Undefined, property),
            Property::System(name) => system(self, name),
            Property::ApplicationOrSystem(name) => match self.application(name) {
                Some(value) => property(value),
                None => name
                    .strip_prefix('$')
                    .map_or(Value::Undefined, |name| system(self, name)),
            },
            Property::Body(path) => in_body(self, path),
            Property::ApplicationOrBody(name, path) => {
                self.application(name).map_or_else(|| in_body(self, path), property)
            }
        }
    }
}

fn property(value: Option<&str>) -> Value<'_> {
    value.map_or(Value::Null, |text| Value::Text(text.into()))
}

fn system<'v>(fields: &'v impl Fields, name: &str) -> Value<'v> {
    fields
        .system(name)
        .map_or(Value::Undefined, |text| Value::Text(text.into()))
}

fn in_body<'v>(fields: &'v impl Fields, path: &Path) -> Value<'v> {
    fields.body().map_or(Value::Undefined, |root| path.find(root))
}

/// A message whose body has not been read yet.
#[derive(Debug)]
pub struct MessageFields<'m> {
    message: &'m Message,
    body: OnceCell<Option<Json>>,
}

impl<'m> MessageFields<'m> {
    /// The fields of a message.
    #[must_use]
    pub const fn new(message: &'m Message) -> Self {
        Self {
            message,
            body: OnceCell::new(),
        }
    }
}

impl Fields for MessageFields<'_> {
    fn application(&self, name: &str) -> Option<Option<&str>> {
        self.message
            .properties
            .iter()
            .find_map(|(known, value)| same_name(known, name).then_some(value))
    }

    fn system(&self, name: &str) -> Option<&str> {
        self.message
            .system
            .iter()
            .find_map(|(known, value)| known.route_name().eq_ignore_ascii_case(name).then_some(value))
    }

    fn body(&self) -> Option<&Json> {
        let Self { message, body } = self;
        let system = &message.system;
        let read = || {
            body::read(
                &message.body,
                system.get(SystemProperty::ContentType),
                system.get(SystemProperty::ContentEncoding),
            )
        };
        body.get_or_init(read).as_ref()
    }
}
