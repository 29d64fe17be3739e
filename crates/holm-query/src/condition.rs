//! A condition on a message: an expression by itself, as routes and message filters hold it.

use crate::evaluate::{Truth, Value};
use crate::lexer::Token;
use crate::message::{Fields, MessageDialect, Property};
use crate::parse::{Parser, describe};
use crate::problem::Problem;
use crate::types::{self, Program};

/// A checked condition. Made once, evaluated for each message.
#[derive(Debug)]
pub struct Condition(Program<Property>);

impl Condition {
    /// Parses and checks a condition. An empty text is a condition that is always undefined.
    ///
    /// # Errors
    /// Every [`Problem`] that can be found: the first of the syntax, or all of the types.
    pub fn compile(text: &str) -> Result<Self, Vec<Problem>> {
        let mut parser = Parser::new(text, &[]).map_err(|problem| vec![problem])?;
        let tree = read_whole(&mut parser).map_err(|problem| vec![problem])?;
        match tree {
            None => Ok(Self(Program::Constant(Value::Undefined))),
            Some(tree) => Self::check(&tree),
        }
    }

    /// Checks a condition that has been parsed.
    pub(crate) fn check(tree: &crate::ast::Expression) -> Result<Self, Vec<Problem>> {
        Ok(Self(types::check_condition(&MessageDialect, tree)?))
    }

    /// Whether it holds.
    pub fn truth(&self, fields: &impl Fields) -> Truth {
        self.0.truth(fields)
    }

    /// The value of the expression, which need not be a truth value.
    pub fn value<'v>(&'v self, fields: &'v impl Fields) -> Value<'v> {
        self.0.evaluate(fields)
    }
}

/// Reads a text that is one expression; nothing, if it is empty.
pub(crate) fn read_whole(parser: &mut Parser<'_>) -> Result<Option<crate::ast::Expression>, Problem> {
    if parser.peek()?.token == Token::End {
        return Ok(None);
    }
    let tree = parser.expression()?;
    let next = parser.take()?;
    if next.token == Token::End {
        return Ok(Some(tree));
    }
    Err(unexpected(parser.slice(next.start, next.end), &next.token, next.at))
}

/// What stands behind a whole condition and cannot continue it.
pub(crate) fn unexpected(found: &str, token: &Token<'_>, at: crate::problem::Position) -> Problem {
    if *token == Token::CloseParenthesis {
        return Problem::new(at, "`)` closes nothing", "remove it, or open it with `(`");
    }
    let remedy = "continue the condition with an operator such as `=` or AND, or remove it";
    Problem::new(at, format!("{} cannot continue the condition", describe(found)), remedy)
}
