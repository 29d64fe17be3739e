//! Tokens to a tree, by precedence climbing.
//!
//! Bounds: a text has at most [`MAX_TEXT_BYTES`]; parentheses, functions and signs nest at most [`MAX_NESTING`] deep; a chain
//! such as `a || b || c` leans on its left side and so makes a tree as high as it is long, at most [`MAX_HEIGHT`]. AND and OR
//! chains are flat and have no bound but the text's. So no text from outside can exhaust the stack, here or in any later
//! stage.

use crate::ast::{Binary, Calculation, Expression, Kind, Name, NameForm, Operator, level};
use crate::lexer::{Lexer, Located, PathText, Token};
use crate::problem::{Position, Problem};

/// The most bytes of a text. The desired properties that hold all routes may have 32 KiB.
pub const MAX_TEXT_BYTES: usize = 32 * 1024;
/// The most levels of parentheses, function calls, NOT and `-` around each other.
pub const MAX_NESTING: usize = 64;
/// The most levels of the whole tree.
pub const MAX_HEIGHT: usize = 128;

/// Reads expressions, and the tokens around them.
#[derive(Debug)]
pub struct Parser<'t> {
    text: &'t str,
    lexer: Lexer<'t>,
    peeked: Option<Located<'t>>,
    nesting: usize,
}

/// An expression and the height of its tree.
struct Tree {
    expression: Expression,
    height: usize,
}

impl<'t> Parser<'t> {
    /// A parser at the start of a text. Words in `reserved` are keywords in any case, and end an expression.
    ///
    /// # Errors
    /// A [`Problem`] when the text is longer than [`MAX_TEXT_BYTES`].
    pub fn new(text: &'t str, reserved: &'static [&'static str]) -> Result<Self, Problem> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(Problem::new(
                Position::START,
                format!("the text has {} bytes, at most {MAX_TEXT_BYTES} are read", text.len()),
                "shorten it or split it",
            ));
        }
        Ok(Self {
            text,
            lexer: Lexer::new(text, reserved),
            peeked: None,
            nesting: 0,
        })
    }

    /// The text between two bytes.
    #[must_use]
    pub fn slice(&self, start: usize, end: usize) -> &'t str {
        self.text.get(start..end).unwrap_or_default()
    }

    /// The next token, without taking it.
    ///
    /// # Errors
    /// A [`Problem`] when no token begins there.
    pub fn peek(&mut self) -> Result<&Located<'t>, Problem> {
        let next = match self.peeked.take() {
            Some(token) => token,
            None => self.lexer.next_token()?,
        };
        Ok(self.peeked.insert(next))
    }

    /// Takes the next token.
    ///
    /// # Errors
    /// A [`Problem`] when no token begins there.
    pub fn take(&mut self) -> Result<Located<'t>, Problem> {
        match self.peeked.take() {
            Some(token) => Ok(token),
            None => self.lexer.next_token(),
        }
    }

    /// Takes a path. Must directly follow [`Parser::take`], so that no token has been read ahead.
    ///
    /// # Errors
    /// A [`Problem`] when no whole path begins there.
    pub fn take_path(&mut self, example: &str) -> Result<PathText<'t>, Problem> {
        debug_assert!(self.peeked.is_none(), "a path cannot be read from a token");
        self.lexer.path(example)
    }

    /// Takes an expression, up to a token that cannot continue it.
    ///
    /// # Errors
    /// The first [`Problem`] of the syntax.
    pub fn expression(&mut self) -> Result<Expression, Problem> {
        Ok(self.level(level::COALESCE)?.expression)
    }

    /// Everything that binds at least as tightly as `lowest`.
    fn level(&mut self, lowest: u8) -> Result<Tree, Problem> {
        let mut left = self.unary()?;
        loop {
            let next = self.peek()?;
            let at = next.at;
            match next.token {
                Token::And if lowest <= level::AND => left = self.chain(left, level::AND)?,
                Token::Or if lowest <= level::OR => left = self.chain(left, level::OR)?,
                Token::Operator(operator) if lowest <= operator.level() => {
                    self.take()?;
                    let right = self.level(operator.level() + 1)?;
                    left = combine(operator, at, left, right)?;
                }
                _ => return Ok(left),
            }
        }
    }

    /// `first AND b AND c …` or the same with OR, as one node.
    fn chain(&mut self, first: Tree, level: u8) -> Result<Tree, Problem> {
        let at = first.expression.at;
        let mut height = first.height;
        let mut terms = vec![first.expression];
        let joins = |token: &Token<'_>| match level {
            level::AND => matches!(token, Token::And),
            _ => matches!(token, Token::Or),
        };
        while joins(&self.peek()?.token) {
            self.take()?;
            let term = self.level(level + 1)?;
            height = height.max(term.height);
            terms.push(term.expression);
        }
        let kind = if level == level::AND {
            Kind::And(terms)
        } else {
            Kind::Or(terms)
        };
        tree(kind, at, height + 1)
    }

    fn unary(&mut self) -> Result<Tree, Problem> {
        let at = self.peek()?.at;
        let wrap: fn(Box<Expression>) -> Kind = match self.peek()?.token {
            Token::Not => Kind::Not,
            Token::Operator(Operator::Calculate(Calculation::Subtract)) => Kind::Negate,
            _ => return self.primary(),
        };
        self.take()?;
        let operand = self.nested(at, Self::unary)?;
        tree(wrap(Box::new(operand.expression)), at, operand.height + 1)
    }

    fn primary(&mut self) -> Result<Tree, Problem> {
        let Located { token, at, start, end } = self.take()?;
        let kind = match token {
            Token::Number(value) => Kind::Number(value),
            Token::Text(text) => Kind::Text(text),
            Token::Null => Kind::Null,
            Token::Undefined => Kind::Undefined,
            Token::Bool(value) => Kind::Bool(value),
            Token::Dollar(name) => Kind::Name(named(name, NameForm::Dollar)),
            Token::OpenBrace => self.braced(at)?,
            Token::OpenParenthesis => {
                let inside = self.nested(at, |parser| parser.level(level::COALESCE))?;
                self.close(at)?;
                return Ok(inside);
            }
            Token::Name(name) if matches!(self.peek()?.token, Token::OpenParenthesis) => return self.call(name, at),
            Token::Name(name) => Kind::Name(named(name, NameForm::Plain)),
            _ => return Err(missing_operand(self.slice(start, end), at)),
        };
        self.refuse_second_operand(end)?;
        tree(kind, at, 1)
    }

    /// The rest of `{$name}`.
    fn braced(&mut self, open: Position) -> Result<Kind, Problem> {
        let name = self.take()?;
        let Token::Dollar(text) = name.token else {
            return Err(Problem::new(
                name.at,
                "a name that begins with `$` must follow `{`",
                "write `{$name}`",
            ));
        };
        let close = self.take()?;
        if close.token != Token::CloseBrace {
            return Err(Problem::new(
                open,
                "this `{` is not closed",
                format!("write `{{{text}}}`"),
            ));
        }
        Ok(Kind::Name(named(text, NameForm::Braced)))
    }

    /// The rest of `name(argument, …)`.
    fn call(&mut self, name: &str, at: Position) -> Result<Tree, Problem> {
        let open = self.take()?.at;
        let mut arguments = Vec::new();
        let mut height = 0;
        if self.peek()?.token == Token::CloseParenthesis {
            self.take()?;
        } else {
            loop {
                let argument = self.nested(at, |parser| parser.level(level::COALESCE))?;
                height = height.max(argument.height);
                arguments.push(argument.expression);
                if self.peek()?.token != Token::Comma {
                    break;
                }
                self.take()?;
            }
            self.close(open)?;
        }
        let name = name.to_owned();
        tree(Kind::Call { name, arguments }, at, height + 1)
    }

    fn close(&mut self, open: Position) -> Result<(), Problem> {
        let next = self.take()?;
        if next.token == Token::CloseParenthesis {
            return Ok(());
        }
        let found = describe(self.slice(next.start, next.end));
        Err(Problem::new(
            next.at,
            format!(
                "`)` is missing before {found}, for the `(` in line {}, column {}",
                open.line, open.column
            ),
            "close the parenthesis",
        ))
    }

    fn nested<T>(&mut self, at: Position, read: impl FnOnce(&mut Self) -> Result<T, Problem>) -> Result<T, Problem> {
        if self.nesting >= MAX_NESTING {
            return Err(Problem::new(
                at,
                format!("this is nested more than {MAX_NESTING} levels deep"),
                "remove parentheses, NOT or `-`, or split the condition",
            ));
        }
        self.nesting += 1;
        let result = read(self);
        self.nesting -= 1;
        result
    }

    /// After an operand, what looks like a second one nearly always means a missing space or a doubled quote.
    fn refuse_second_operand(&mut self, end: usize) -> Result<(), Problem> {
        let Located {
            token,
            at,
            start,
            end: next_end,
        } = self.peek()?.clone();
        let word = self.slice(start, next_end);
        let remedy = match token {
            Token::Text(_) if start == end => {
                "write `\\'` or `\\\"` for a quote inside a text; doubled quotes mean nothing".to_owned()
            }
            Token::Number(_) if word.starts_with('-') => {
                format!("put a space behind the sign: `- {}`", word.trim_start_matches('-'))
            }
            Token::Name(_) | Token::Dollar(_) if start == end => "put spaces around operators".to_owned(),
            Token::Text(_)
            | Token::Number(_)
            | Token::Name(_)
            | Token::Dollar(_)
            | Token::Null
            | Token::Undefined
            | Token::Bool(_)
            | Token::Not
            | Token::OpenBrace => "put an operator between them, such as `=` or AND, with spaces around it".to_owned(),
            _ => return Ok(()),
        };
        Err(Problem::new(
            at,
            format!("`{word}` stands directly behind another operand"),
            remedy,
        ))
    }
}

/// How problems name the token that was found.
pub(crate) fn describe(text: &str) -> String {
    if text.is_empty() {
        "the end of the text".to_owned()
    } else {
        format!("`{text}`")
    }
}

fn named(text: &str, form: NameForm) -> Name {
    Name {
        text: text.to_owned(),
        form,
    }
}

fn tree(kind: Kind, at: Position, height: usize) -> Result<Tree, Problem> {
    if height > MAX_HEIGHT {
        return Err(Problem::new(
            at,
            format!("more than {MAX_HEIGHT} operators are chained here"),
            "use parentheses to make groups, or `concat(…)` to join texts",
        ));
    }
    let expression = Expression { kind, at };
    Ok(Tree { expression, height })
}

fn combine(operator: Operator, operator_at: Position, left: Tree, right: Tree) -> Result<Tree, Problem> {
    let at = left.expression.at;
    let height = left.height.max(right.height) + 1;
    let binary = Binary {
        operator,
        operator_at,
        left: left.expression,
        right: right.expression,
    };
    tree(Kind::Binary(Box::new(binary)), at, height)
}

fn missing_operand(found: &str, at: Position) -> Problem {
    let remedy = match found {
        "" => "add a value, a name or a condition".to_owned(),
        ")" => "add what belongs between the parentheses, or remove them".to_owned(),
        "=" | "<" | ">" => "operators for comparison are `=` `!=` `<>` `<` `<=` `>` `>=`".to_owned(),
        _ => format!("add a value, a name or a condition before `{found}`"),
    };
    Problem::new(at, format!("a value is missing before {}", describe(found)), remedy)
}
