//! The conditions of a hub's routes: the dialect in which messages are looked at together with the twin of their sender.
//!
//! | written | means |
//! |---|---|
//! | `p` | application property; text |
//! | `$p` | system property `p`, one of [`SYSTEM`]; text |
//! | `$body.a[0].b` | value of the body, where the message says that it is JSON in UTF-8, UTF-16 or UTF-32 |
//! | `$twin.tags.a`, `$twin.properties.desired.a`, `$twin.properties.reported.a` | value of the sender's twin |
//!
//! Names of properties are compared without case, keys of bodies and twins exactly. What is not there is undefined, what is there
//! without a value, or null in JSON, is null. A route fires only where its condition is true.
//!
//! It differs from the dialect of the edge (`message`) where the hub's language does: an application property never hides a system
//! property, a body or a twin; a name with `$` that means nothing is refused; arrays and objects are values that `is_defined`,
//! `is_array` and `is_object` know; texts that look like dates are texts. Source: `hub-service-api.md` §4.2.

use std::cell::OnceCell;

use holm_model::{Message, SystemProperty, Twin};
use serde_json::{Map, Value as Json};

use crate::ast::Name;
use crate::body::{self, Path};
use crate::condition::read_whole;
use crate::evaluate::{Lookup, Structure, Truth, Value};
use crate::functions::Functions;
use crate::parse::Parser;
use crate::problem::{Position, Problem};
use crate::strings::same_name;
use crate::types::{self, Dialect, Program, Type};

/// The system properties that conditions may name, without `$`.
pub const SYSTEM: &[(&str, SystemProperty)] = &[
    ("contentType", SystemProperty::ContentType),
    ("contentEncoding", SystemProperty::ContentEncoding),
    ("messageId", SystemProperty::MessageId),
    ("userId", SystemProperty::UserId),
    ("correlationId", SystemProperty::CorrelationId),
    ("connectionDeviceId", SystemProperty::ConnectionDeviceId),
    ("connectionModuleId", SystemProperty::ConnectionModuleId),
    ("enqueuedTime", SystemProperty::EnqueuedTime),
    ("dt-subject", SystemProperty::Subject),
    ("dt-dataschema", SystemProperty::ModelId),
];

/// A checked condition of a route at a hub. Made once, evaluated for each message.
#[derive(Debug)]
pub struct HubCondition {
    program: Program<HubName>,
    reads_twin: bool,
}

/// What a name in such a condition stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HubName {
    /// An application property.
    Application(Box<str>),
    /// A system property.
    System(SystemProperty),
    /// A value of the body.
    Body(Path),
    /// A value of the twin.
    Twin(TwinPath),
}

/// A way to a value of a twin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TwinPath {
    part: TwinPart,
    /// `None`: the part as a whole.
    path: Option<Path>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TwinPart {
    Tags,
    Desired,
    Reported,
}

const TWIN_PARTS: [(&str, TwinPart); 3] = [
    ("tags", TwinPart::Tags),
    ("properties.desired", TwinPart::Desired),
    ("properties.reported", TwinPart::Reported),
];

impl HubCondition {
    /// Parses and checks a condition. An empty text is `true`.
    ///
    /// # Errors
    /// Every [`Problem`] that can be found: the first of the syntax, or all of the types.
    pub fn compile(text: &str) -> Result<Self, Vec<Problem>> {
        let mut parser = Parser::new(text, &[]).map_err(|problem| vec![problem])?;
        let Some(tree) = read_whole(&mut parser).map_err(|problem| vec![problem])? else {
            let program = Program::Constant(Value::Bool(true));
            return Ok(Self {
                program,
                reads_twin: false,
            });
        };
        let dialect = HubDialect {
            reads_twin: std::cell::Cell::new(false),
        };
        let program = types::check_condition(&dialect, &tree)?;
        Ok(Self {
            program,
            reads_twin: dialect.reads_twin.get(),
        })
    }

    /// Whether it looks at the twin, so that somebody must read it.
    #[must_use]
    pub const fn reads_twin(&self) -> bool {
        self.reads_twin
    }

    /// Whether it holds.
    #[must_use]
    pub fn truth(&self, fields: &HubFields<'_>) -> Truth {
        self.program.truth(fields)
    }
}

impl TwinPath {
    /// Reads a path behind `$twin.`; `at` is the place of its first character.
    ///
    /// # Errors
    /// A [`Problem`] when it leads to nothing that a twin has.
    pub fn parse(text: &str, at: Position) -> Result<Self, Problem> {
        for (prefix, part) in TWIN_PARTS {
            let Some(rest) = text.strip_prefix(prefix) else {
                continue;
            };
            if rest.is_empty() {
                return Ok(Self { part, path: None });
            }
            if let Some(path) = rest.strip_prefix('.') {
                let columns = u32::try_from(prefix.len() + 1).unwrap_or_default();
                let path = Some(Path::parse(path, at.plus_columns(columns))?);
                return Ok(Self { part, path });
            }
        }
        Err(Problem::new(
            at,
            format!("a twin has no `{text}`"),
            "write `$twin.tags.…`, `$twin.properties.desired.…` or `$twin.properties.reported.…`",
        ))
    }

    /// What stands there in a twin.
    #[must_use]
    pub fn find<'t>(&self, twin: &'t Twin) -> Option<Found<'t>> {
        let root = match self.part {
            TwinPart::Tags => twin.tags(),
            TwinPart::Desired => twin.desired().properties(),
            TwinPart::Reported => twin.reported().properties(),
        };
        match &self.path {
            None => Some(Found::Part(root)),
            Some(path) => path.reach(root).map(Found::Value),
        }
    }
}

/// What a path into a twin leads to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Found<'t> {
    /// A whole part of the twin.
    Part(&'t Map<String, Json>),
    /// A value in it.
    Value(&'t Json),
}

/// The dialect; notes on its way what a condition asks for.
struct HubDialect {
    reads_twin: std::cell::Cell<bool>,
}

impl Dialect for HubDialect {
    type Name = HubName;

    fn resolve(&self, name: &Name, at: Position) -> Result<(HubName, Type), Problem> {
        let brace = u32::from(name.form == crate::ast::NameForm::Braced);
        let Some(text) = name.text.strip_prefix('$') else {
            return Ok((HubName::Application(name.text.as_str().into()), Type::Text));
        };
        if let Some(path) = behind(text, "body") {
            let path = Path::parse(path, at.plus_columns(brace + 6))?;
            return Ok((HubName::Body(path), Type::Dynamic));
        }
        if let Some(path) = behind(text, "twin") {
            let path = TwinPath::parse(path, at.plus_columns(brace + 6))?;
            self.reads_twin.set(true);
            return Ok((HubName::Twin(path), Type::Dynamic));
        }
        let mut known = SYSTEM.iter();
        if let Some((_, property)) = known.find(|(known, _)| known.eq_ignore_ascii_case(text)) {
            return Ok((HubName::System(*property), Type::Text));
        }
        Err(unknown(text, at))
    }

    fn functions(&self) -> Functions {
        Functions::WITH_STRUCTURES
    }
}

/// The path behind `body.` or `twin.`.
fn behind<'t>(text: &'t str, what: &str) -> Option<&'t str> {
    let (found, path) = text.split_once('.')?;
    found.eq_ignore_ascii_case(what).then_some(path)
}

fn unknown(text: &str, at: Position) -> Problem {
    if text.eq_ignore_ascii_case("body") || text.eq_ignore_ascii_case("twin") {
        return Problem::new(
            at,
            format!("`${text}` as a whole can't be compared"),
            format!(
                "name a value in it, such as `${}`",
                if text.eq_ignore_ascii_case("body") {
                    "body.a"
                } else {
                    "twin.tags.a"
                }
            ),
        );
    }
    let names: Vec<_> = SYSTEM.iter().map(|(name, _)| format!("`${name}`")).collect();
    Problem::new(
        at,
        format!("there is no system property `${text}`"),
        format!(
            "the names with `$` are {}, `$body.…` and `$twin.…`; application properties have none",
            names.join(", ")
        ),
    )
}

/// A message with the twin of its sender. The body is read once, and only when a condition asks for it.
#[derive(Debug)]
pub struct HubFields<'m> {
    message: &'m Message,
    twin: Option<&'m Twin>,
    body: OnceCell<Option<Json>>,
}

impl<'m> HubFields<'m> {
    /// The fields of a message; without a twin all paths into it are undefined.
    #[must_use]
    pub const fn new(message: &'m Message, twin: Option<&'m Twin>) -> Self {
        Self {
            message,
            twin,
            body: OnceCell::new(),
        }
    }

    fn body(&self) -> Option<&Map<String, Json>> {
        let system = &self.message.system;
        let read = || {
            body::read(
                &self.message.body,
                system.get(SystemProperty::ContentType),
                system.get(SystemProperty::ContentEncoding),
            )
        };
        self.body.get_or_init(read).as_ref()?.as_object()
    }
}

impl Lookup<HubName> for HubFields<'_> {
    fn value<'v>(&'v self, name: &'v HubName) -> Value<'v> {
        match name {
            HubName::Application(name) => {
                let mut all = self.message.properties.iter();
                let found = all.find(|(known, _)| same_name(known, name));
                found.map_or(Value::Undefined, |(_, value)| {
                    value.map_or(Value::Null, |text| Value::Text(text.into()))
                })
            }
            HubName::System(name) => {
                let value = self.message.system.get(*name);
                value.map_or(Value::Undefined, |text| Value::Text(text.into()))
            }
            HubName::Body(path) => {
                let found = self.body().and_then(|body| path.reach(body));
                found.map_or(Value::Undefined, of_json)
            }
            HubName::Twin(path) => match self.twin.and_then(|twin| path.find(twin)) {
                None => Value::Undefined,
                Some(Found::Part(_)) => Value::Structure(Structure::Object),
                Some(Found::Value(value)) => of_json(value),
            },
        }
    }
}

fn of_json(value: &Json) -> Value<'_> {
    match value {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => number.as_f64().map_or(Value::Undefined, Value::number),
        Json::String(text) => Value::Text(text.as_str().into()),
        Json::Array(_) => Value::Structure(Structure::Array),
        Json::Object(_) => Value::Structure(Structure::Object),
    }
}
