//! A condition by itself: what chooses the devices of a deployment or a job.
//!
//! ```
//! use holm_query::twin::Condition;
//! use serde_json::json;
//!
//! let condition = Condition::parse("tags.site = 'x' AND properties.reported.battery < 20")?;
//! let twin = json!({"deviceId": "d1", "tags": {"site": "x"}, "properties": {"reported": {"battery": 7}}});
//! assert!(condition.holds(&twin));
//! let named: Vec<String> = condition.paths().iter().map(|path| path.to_string()).collect();
//! assert_eq!(named, ["tags.site", "properties.reported.battery"]);
//! # Ok::<(), holm_query::Problem>(())
//! ```

use serde_json::Value;

use super::ast::Expression;
use super::filter::{self, Filter};
use super::lexer::{Keyword, Token};
use super::parse::Parser;
use super::path::{Collection, Path};
use crate::ast::Calculation;
use crate::evaluate::Truth;
use crate::problem::Problem;

/// A condition on the documents of a collection.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    collection: Collection,
    expression: Expression,
}

impl Condition {
    /// Parses what could stand behind WHERE. `*` holds for every document, an empty text for none; a condition on modules
    /// begins with `FROM devices.modules WHERE`, and `FROM devices.modules` alone is all of them. Source: `hub-service-api.md` §3.1, §3.2, §2.6.
    ///
    /// # Errors
    /// The first [`Problem`] of the text.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let mut parser = Parser::new(text)?;
        let (collection, alone) = parser.collection_of_condition()?;
        if let Some(holds) = alone
            && *parser.peek() == Token::End
        {
            return Ok(Self::constant(collection, holds));
        }
        if parser.accept(&Token::Calculate(Calculation::Multiply))? {
            parser.end("write `*` alone for every device")?;
            return Ok(Self::constant(collection, true));
        }
        let expression = parser.expression()?;
        parser.end("continue the condition with an operator such as `=` or AND, or remove it")?;
        Ok(Self { collection, expression })
    }

    const fn constant(collection: Collection, holds: bool) -> Self {
        Self {
            collection,
            expression: Expression::Bool(holds),
        }
    }

    pub(super) const fn of(collection: Collection, expression: Expression) -> Self {
        Self { collection, expression }
    }

    /// What it chooses among: [`Collection::Devices`], or [`Collection::Modules`] where it says so.
    #[must_use]
    pub const fn collection(&self) -> Collection {
        self.collection
    }

    /// Whether it holds for a document: a twin in the form in which services read it. Undefined is not holding.
    #[must_use]
    pub fn holds(&self, document: &Value) -> bool {
        self.expression.truth(document) == Truth::True
    }

    /// Every place of a document that it reads, in the order of the text. A change elsewhere can't change what it says.
    #[must_use]
    pub fn paths(&self) -> Vec<&Path> {
        let mut paths = Vec::new();
        self.expression.paths(&mut paths);
        paths
    }

    /// What every document passes for which it holds; for an index or a database.
    #[must_use]
    pub fn filter(&self) -> Filter {
        filter::implied(&self.expression, true)
    }
}

impl Parser<'_> {
    /// `FROM devices.modules WHERE`, or nothing; also whether what there is holds for all or for none when nothing follows. `None`:
    /// something must follow.
    fn collection_of_condition(&mut self) -> Result<(Collection, Option<bool>), Problem> {
        if !self.accept_keyword(Keyword::From)? {
            return Ok((Collection::Devices, Some(false)));
        }
        let collection = self.collection()?;
        if collection == Collection::Jobs {
            let remedy = "a condition chooses among `devices` or `devices.modules`";
            return Err(self.problem(0, "a condition can't be about `devices.jobs`", remedy));
        }
        self.set_collection(collection, None);
        if self.accept_keyword(Keyword::Where)? {
            return Ok((collection, None));
        }
        if *self.peek() != Token::End {
            return Err(self.unexpected("`WHERE`", "write `FROM devices.modules WHERE …`"));
        }
        Ok((collection, Some(true)))
    }
}
