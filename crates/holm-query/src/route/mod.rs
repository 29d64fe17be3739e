//! One route: which messages, under which condition, go where. Source: `edge-broker.md` §2.
//!
//! ```text
//!   [SELECT *] FROM /messages/modules/sensor/* WHERE as_number(temp) > 40 INTO BrokeredEndpoint("/modules/alarm/inputs/in")
//!                   └─ SourcePattern ────────┘       └─ Condition ──────┘      └─ Sink ────────────────────────────────┘
//! ```
//!
//! A route that exists is whole: syntax, types, function names, body paths and sink have been checked. The original checks
//! types only after it has reported success, and then drops the whole set silently; here [`Route::compile`] tells everything.
//!
//! Decisions where the original stops at accidents:
//! - A condition behind INTO is refused; the original ignores it (Azure/iotedge#4353). So is any other text behind the sink.
//! - A path is read as a path: `/*/b/*` holds no comment, and keywords and numbers may be names in it
//!   (`/messages/modules/from`). White space inside a path is refused.
//! - A path that ends in `/` is refused, as there, but told how to write it.
//! - The words `modules` and `inputs` of a `BrokeredEndpoint` are not checked, as there; the module's id is.
//! - What is decided about expressions stands in `lexer`, `types`, `functions`, `evaluate`, `body` and `message`.

mod read;
mod sink;
mod source;

use crate::condition::Condition;
use crate::evaluate::Truth;
use crate::message::Fields;
use crate::problem::Problem;

pub use sink::Sink;
pub use source::{MessageSource, SourcePattern};

/// One mistake in a route. Shown as `line 1, column 34: what is wrong; what to write instead`.
pub type RouteProblem = Problem;

/// A checked route.
#[derive(Debug)]
pub struct Route {
    pattern: SourcePattern,
    condition: Option<Condition>,
    sink: Sink,
}

impl Route {
    /// Parses and checks a route.
    ///
    /// # Errors
    /// Every problem that can be found, in order of their places: all of the types, and the first of the syntax.
    pub fn compile(text: &str) -> Result<Self, Vec<RouteProblem>> {
        read::route(text)
    }

    /// Which messages it looks at.
    #[must_use]
    pub const fn pattern(&self) -> &SourcePattern {
        &self.pattern
    }

    /// Where it sends them.
    #[must_use]
    pub const fn sink(&self) -> &Sink {
        &self.sink
    }

    /// Whether its condition holds; what comes from where is [`MessageSource::matches`].
    pub fn holds(&self, fields: &impl Fields) -> bool {
        self.condition
            .as_ref()
            .is_none_or(|condition| condition.truth(fields) == Truth::True)
    }
}
