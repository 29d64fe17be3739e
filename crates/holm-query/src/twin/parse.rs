//! Tokens to expressions, by recursive descent.
//!
//! ```text
//! or  : and (OR and)*            sum     : product (+ - product)*
//! and : not (AND not)*           product : sign (* / % sign)*
//! not : NOT not | compared       sign    : - sign | primary
//! compared : sum [op sum | [NOT] IN list | NIN list]
//! ```
//!
//! Bounds: a text has at most [`MAX_TEXT_CHARACTERS`]; parentheses, calls, NOT and `-` nest at most [`MAX_NESTING`] deep, and
//! at most [`MAX_CHAIN`] calculations follow each other, so no text can exhaust the stack.

use super::MAX_TEXT_CHARACTERS;
use super::ast::Expression;
use super::call::{Call, Refusal};
use super::foreign;
use super::lexer::{Keyword, Lexer, Located, Token, position};
use super::path::{Collection, Path, Step};
use super::times;
use crate::ast::Calculation;
use crate::parse::{MAX_NESTING, describe};
use crate::problem::{Position, Problem};

/// The most operators of one sum or product without parentheses.
const MAX_CHAIN: usize = 64;
/// Names of columns that count or add up.
pub(super) const AGGREGATES: &[&str] = &["COUNT", "SUM", "AVG", "MIN", "MAX"];

#[derive(Debug)]
pub(super) struct Parser<'t> {
    lexer: Lexer<'t>,
    next: Located,
    nesting: usize,
    collection: Collection,
    alias: Option<String>,
}

impl<'t> Parser<'t> {
    pub(super) fn new(text: &'t str) -> Result<Self, Problem> {
        let characters = text.chars().count();
        if characters > MAX_TEXT_CHARACTERS {
            return Err(Problem::new(
                Position::START,
                format!("the text has {characters} characters, at most {MAX_TEXT_CHARACTERS} are read"),
                "shorten it, or ask in several queries",
            ));
        }
        let mut lexer = Lexer::new(text);
        let next = lexer.next_token()?;
        Ok(Self {
            lexer,
            next,
            nesting: 0,
            collection: Collection::Devices,
            alias: None,
        })
    }

    /// Says what the paths that follow are about.
    pub(super) fn set_collection(&mut self, collection: Collection, alias: Option<String>) {
        self.collection = collection;
        self.alias = alias;
    }

    pub(super) fn peek(&self) -> &Token {
        &self.next.token
    }

    /// The byte where the next token begins.
    pub(super) fn byte(&self) -> usize {
        self.next.start
    }

    pub(super) fn take(&mut self) -> Result<Located, Problem> {
        let next = self.lexer.next_token()?;
        Ok(std::mem::replace(&mut self.next, next))
    }

    /// Takes the next token if it is this one.
    pub(super) fn accept(&mut self, token: &Token) -> Result<bool, Problem> {
        let is = self.next.token == *token;
        if is {
            self.take()?;
        }
        Ok(is)
    }

    pub(super) fn accept_keyword(&mut self, keyword: Keyword) -> Result<bool, Problem> {
        self.accept(&Token::Keyword(keyword))
    }

    /// Refuses the next token.
    pub(super) fn unexpected(&self, what: &str, remedy: impl Into<String>) -> Problem {
        let found = self
            .lexer
            .text()
            .get(self.next.start..self.next.end)
            .unwrap_or_default();
        self.problem(
            self.next.start,
            format!("{what} is missing before {}", describe(found)),
            remedy,
        )
    }

    pub(super) fn problem(&self, byte: usize, message: impl Into<String>, remedy: impl Into<String>) -> Problem {
        Problem::new(position(self.lexer.text(), byte), message, remedy)
    }

    /// The path that steps mean.
    pub(super) fn resolve(&self, steps: Vec<Step>, byte: usize) -> Result<Path, Problem> {
        let collection = self.collection;
        collection.resolve(steps, self.alias.as_deref()).ok_or_else(|| {
            let message = format!("`{}` names all of a document here", collection.name());
            self.problem(
                byte,
                message,
                format!("name a member of it: `{}.deviceId`", collection.name()),
            )
        })
    }

    pub(super) fn expression(&mut self) -> Result<Expression, Problem> {
        let first = self.conjunction()?;
        if *self.peek() != Token::Keyword(Keyword::Or) {
            return Ok(first);
        }
        let mut terms = vec![first];
        while self.accept_keyword(Keyword::Or)? {
            terms.push(self.conjunction()?);
        }
        Ok(Expression::Or(terms))
    }

    fn conjunction(&mut self) -> Result<Expression, Problem> {
        let first = self.negation()?;
        if *self.peek() != Token::Keyword(Keyword::And) {
            return Ok(first);
        }
        let mut terms = vec![first];
        while self.accept_keyword(Keyword::And)? {
            terms.push(self.negation()?);
        }
        Ok(Expression::And(terms))
    }

    fn negation(&mut self) -> Result<Expression, Problem> {
        let at = self.byte();
        if self.accept_keyword(Keyword::Not)? {
            let operand = self.nested(at, Self::negation)?;
            return Ok(Expression::Not(Box::new(operand)));
        }
        self.compared()
    }

    fn compared(&mut self) -> Result<Expression, Problem> {
        let left = self.sum()?;
        let compared = match *self.peek() {
            Token::Compare(comparison) => {
                self.take()?;
                let mut sides = Box::new((left, self.sum()?));
                let (left, right) = &mut *sides;
                times::align(left, right);
                times::align(right, left);
                Expression::Compare(comparison, sides)
            }
            Token::Keyword(Keyword::In) => {
                self.take()?;
                self.list(left)?
            }
            Token::Keyword(Keyword::Nin) => {
                self.take()?;
                Expression::Not(Box::new(self.list(left)?))
            }
            Token::Keyword(Keyword::Not) => {
                self.take()?;
                if !self.accept_keyword(Keyword::In)? {
                    return Err(self.unexpected("`IN`", "write `NOT IN [...]`, or AND before NOT"));
                }
                Expression::Not(Box::new(self.list(left)?))
            }
            _ => return Ok(left),
        };
        if matches!(
            self.peek(),
            Token::Compare(_) | Token::Keyword(Keyword::In | Keyword::Nin)
        ) {
            let remedy = "join comparisons with AND, or put one in parentheses";
            return Err(self.problem(self.byte(), "a comparison follows a comparison", remedy));
        }
        Ok(compared)
    }

    /// The rest of `operand IN [a, b]`.
    fn list(&mut self, operand: Expression) -> Result<Expression, Problem> {
        let open = self.byte();
        if !self.accept(&Token::OpenList)? {
            return Err(self.unexpected("`[`", "write the values in brackets: `IN ['a', 'b']`"));
        }
        let mut items = Vec::new();
        if !self.accept(&Token::CloseList)? {
            loop {
                let mut item = self.nested(open, Self::sum)?;
                times::align(&operand, &mut item);
                items.push(item);
                if !self.accept(&Token::Comma)? {
                    break;
                }
            }
            if !self.accept(&Token::CloseList)? {
                return Err(self.unexpected("`]`", "separate the values with `,` and close the list with `]`"));
            }
        }
        Ok(Expression::In(Box::new(operand), items))
    }

    fn sum(&mut self) -> Result<Expression, Problem> {
        let is = |calculation| matches!(calculation, Calculation::Add | Calculation::Subtract);
        self.chain(Self::product, is)
    }

    fn product(&mut self) -> Result<Expression, Problem> {
        let is = |calculation| !matches!(calculation, Calculation::Add | Calculation::Subtract);
        self.chain(Self::signed, is)
    }

    fn chain(
        &mut self,
        operand: fn(&mut Self) -> Result<Expression, Problem>,
        is: fn(Calculation) -> bool,
    ) -> Result<Expression, Problem> {
        let mut left = operand(self)?;
        let mut length = 0;
        while let Token::Calculate(calculation) = *self.peek()
            && is(calculation)
        {
            length += 1;
            if length > MAX_CHAIN {
                let message = format!("more than {MAX_CHAIN} operators follow each other here");
                return Err(self.problem(self.byte(), message, "make groups with parentheses"));
            }
            self.take()?;
            left = Expression::Calculate(calculation, Box::new((left, operand(self)?)));
        }
        Ok(left)
    }

    fn signed(&mut self) -> Result<Expression, Problem> {
        let at = self.byte();
        if !self.accept(&Token::Calculate(Calculation::Subtract))? {
            return self.primary();
        }
        // The sign of a literal is part of it, so that an index can answer `< -4`.
        Ok(match self.nested(at, Self::signed)? {
            Expression::Number(number) => Expression::Number(-number),
            operand => Expression::Negate(Box::new(operand)),
        })
    }

    fn primary(&mut self) -> Result<Expression, Problem> {
        let missing = match self.peek() {
            Token::Number(_) | Token::Text(_) | Token::Path(_) | Token::Open => false,
            Token::Keyword(keyword) => !matches!(
                keyword,
                Keyword::True | Keyword::False | Keyword::Null | Keyword::Undefined
            ),
            _ => true,
        };
        if missing {
            let remedy = match self.peek() {
                Token::OpenList => "a list stands behind IN only; a name with other characters is written `[[name]]`",
                Token::Keyword(_) => {
                    "add a value, a name or a condition; a name that is a keyword is written `[[name]]`"
                }
                _ => "add a value, a name or a condition",
            };
            return Err(self.unexpected("a value", remedy));
        }
        let Located { token, start, .. } = self.take()?;
        Ok(match token {
            Token::Number(number) => Expression::Number(number),
            Token::Text(text) => Expression::Text(text),
            Token::Keyword(Keyword::True) => Expression::Bool(true),
            Token::Keyword(Keyword::False) => Expression::Bool(false),
            Token::Keyword(Keyword::Null) => Expression::Null,
            Token::Open => {
                let inside = self.nested(start, Self::expression)?;
                self.close(start)?;
                inside
            }
            Token::Path(steps) => match (steps.as_slice(), self.peek()) {
                ([Step::Key(name)], Token::Open) => self.call(name, start)?,
                _ => Expression::Path(self.resolve(steps, start)?),
            },
            _ => Expression::Undefined,
        })
    }

    /// The rest of `name(argument, …)`.
    fn call(&mut self, name: &str, start: usize) -> Result<Expression, Problem> {
        if AGGREGATES.iter().any(|aggregate| aggregate.eq_ignore_ascii_case(name)) {
            let remedy = "aggregates are whole columns behind SELECT: `SELECT COUNT() AS n FROM devices`";
            return Err(self.problem(start, format!("`{name}` can't stand here"), remedy));
        }
        let open = self.take()?.start;
        let mut arguments = Vec::new();
        if *self.peek() != Token::Close {
            loop {
                arguments.push(self.nested(start, Self::expression)?);
                if !self.accept(&Token::Comma)? {
                    break;
                }
            }
        }
        self.close(open)?;
        match Call::find(name, arguments.len()) {
            Ok(call) => Ok(Expression::Call(call, arguments)),
            Err(Refusal::Arguments(usage)) => {
                let message = format!("`{name}` can't take {} arguments", arguments.len());
                Err(self.problem(start, message, format!("call it as `{usage}`")))
            }
            Err(Refusal::Unknown(near)) => {
                let remedy = near.map_or_else(
                    || "known are IS_DEFINED, STARTSWITH, ENDSWITH, CONTAINS, ARRAY_CONTAINS and others".to_owned(),
                    |near| format!("did you mean `{near}`?"),
                );
                Err(self.problem(start, format!("there is no function `{name}`"), remedy))
            }
        }
    }

    pub(super) fn close(&mut self, open: usize) -> Result<(), Problem> {
        if self.accept(&Token::Close)? {
            return Ok(());
        }
        let at = position(self.lexer.text(), open);
        let what = format!("`)` for the `(` in line {}, column {}", at.line, at.column);
        Err(self.unexpected(
            &what,
            "close the parenthesis, or put an operator between the two values",
        ))
    }

    fn nested<T>(&mut self, at: usize, read: impl FnOnce(&mut Self) -> Result<T, Problem>) -> Result<T, Problem> {
        if self.nesting >= MAX_NESTING {
            let message = format!("this is nested more than {MAX_NESTING} levels deep");
            return Err(self.problem(at, message, "remove parentheses, NOT or `-`"));
        }
        self.nesting += 1;
        let result = read(self);
        self.nesting -= 1;
        result
    }

    /// That nothing is left of the text.
    pub(super) fn end(&self, remedy: &str) -> Result<(), Problem> {
        match self.peek() {
            Token::End => Ok(()),
            Token::Close => Err(self.problem(self.byte(), "`)` closes nothing", "remove it, or open it with `(`")),
            Token::Keyword(Keyword::Join) => Err(self.problem(
                self.byte(),
                "collections can't be joined",
                "ask for each collection by itself",
            )),
            _ => {
                let found = self
                    .lexer
                    .text()
                    .get(self.next.start..self.next.end)
                    .unwrap_or_default();
                let remedy = foreign::remedy(self.peek()).unwrap_or(remedy);
                Err(self.problem(self.byte(), format!("{} can't follow here", describe(found)), remedy))
            }
        }
    }
}
