//! Text to tokens. Source: `edge-broker.md` §2.1.
//!
//! ```text
//!   `a-b = 'x' AND {$c} > -4.5`   →   Name(a-b) = Text(x) AND { Dollar($c) } > Number(-4.5)
//! ```
//!
//! A name is a run of any characters but `( ) < > @ , ; : \ " / [ ] ? = { }` and white space, and the longest token wins:
//! `a-b`, `a||b` and `3-4` are each *one name*; operators next to names and numbers need spaces. A sign directly before a
//! number belongs to it. A run that is a number, keyword or operator as a whole is that and no name.
//!
//! Where the original reads something that nobody means, this lexer refuses it with the way out: `a!='x'` (there the name
//! `a!`, `=`, a text; the condition is never true), `!a`, `a&&b`, `==`, a name that begins with a quote (`'it''s'`).
//! Names such as `e10` are names (there: a broken number). Comments `/* … */` are white space, except where a path is read:
//! [`Lexer::path`] knows that `/*` begins the path of everything.

pub(crate) mod escape;

use crate::ast::{Calculation, Comparison, Operator};
use crate::numbers;
use crate::problem::{Position, Problem};

/// One token.
#[derive(Clone, Debug, PartialEq)]
pub enum Token<'t> {
    /// A number.
    Number(f64),
    /// A quoted text, decoded.
    Text(String),
    /// `null`.
    Null,
    /// `undefined`.
    Undefined,
    /// `true`, `false`.
    Bool(bool),
    /// `AND`.
    And,
    /// `OR`.
    Or,
    /// `NOT`.
    Not,
    /// A word that the caller reserved, as the caller spells it.
    Reserved(&'static str),
    /// A name without `$`.
    Name(&'t str),
    /// A name with `$`.
    Dollar(&'t str),
    /// An operator between two operands; `-` may also stand before one.
    Operator(Operator),
    /// `(`.
    OpenParenthesis,
    /// `)`.
    CloseParenthesis,
    /// `{`.
    OpenBrace,
    /// `}`.
    CloseBrace,
    /// `,`.
    Comma,
    /// The end of the text.
    End,
}

/// A token with its place: `start..end` are bytes of the text.
#[derive(Clone, Debug)]
pub struct Located<'t> {
    /// The token.
    pub token: Token<'t>,
    /// Where it begins.
    pub at: Position,
    /// Its first byte.
    pub start: usize,
    /// The byte after it.
    pub end: usize,
}

/// A source path as it was written.
#[derive(Clone, Copy, Debug)]
pub struct PathText<'t> {
    /// The text from its first `/`.
    pub text: &'t str,
    /// Where it begins.
    pub at: Position,
}

/// Reads tokens from a text, one after the other.
#[derive(Clone, Debug)]
pub struct Lexer<'t> {
    text: &'t str,
    byte: usize,
    at: Position,
    reserved: &'static [&'static str],
}

/// Whether a name may hold this character.
pub(crate) const fn is_name_character(c: char) -> bool {
    !matches!(
        c,
        '(' | ')' | '<' | '>' | '@' | ',' | ';' | ':' | '\\' | '"' | '/' | '[' | ']' | '?' | '=' | '{' | '}'
    ) && !is_space(c)
}

const fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

impl<'t> Lexer<'t> {
    /// A lexer at the start of a text. Words in `reserved` are keywords in any case.
    #[must_use]
    pub const fn new(text: &'t str, reserved: &'static [&'static str]) -> Self {
        Self {
            text,
            byte: 0,
            at: Position::START,
            reserved,
        }
    }

    /// Reads the next token; [`Token::End`] at the end, again and again.
    ///
    /// # Errors
    /// A [`Problem`] when no token begins here. The lexer is of no use after that.
    pub fn next_token(&mut self) -> Result<Located<'t>, Problem> {
        self.skip_space()?;
        let (at, start) = (self.at, self.byte);
        let token = self.token_here()?;
        Ok(Located {
            token,
            at,
            start,
            end: self.byte,
        })
    }

    /// Reads a path: `/` and a word, once or more, without spaces. `example` goes into the remedy of a missing path.
    ///
    /// # Errors
    /// A [`Problem`] when no whole path begins here.
    pub fn path(&mut self, example: &str) -> Result<PathText<'t>, Problem> {
        self.skip_space_before_path();
        let at = self.at;
        let text = run(self.rest(), |c| c == '/' || is_name_character(c));
        if !text.starts_with('/') {
            return Err(Problem::new(
                at,
                "a path that begins with `/` is missing here",
                format!("write for example `{example}`"),
            ));
        }
        if text == "/" || text.ends_with('/') || text.contains("//") {
            let without = format!("/{}", join_segments(text));
            let remedy = match without.as_str() {
                "/" => "write `/*` for all messages".to_owned(),
                whole => format!("write `{whole}`"),
            };
            return Err(Problem::new(at, format!("the path `{text}` has an empty part"), remedy));
        }
        self.advance(text.len());
        match self.rest().chars().next() {
            Some(c) if !is_space(c) => Err(Problem::new(
                self.at,
                format!("a path cannot hold `{c}`"),
                "remove it, or name a shorter path: a path stands for all that begins with it",
            )),
            _ => Ok(PathText { text, at }),
        }
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.byte..).unwrap_or_default()
    }

    fn advance(&mut self, bytes: usize) {
        let passed = self.rest().get(..bytes).unwrap_or_default();
        for c in passed.chars() {
            if c == '\n' {
                self.at.line = self.at.line.saturating_add(1);
                self.at.column = 1;
            } else {
                self.at.column = self.at.column.saturating_add(1);
            }
        }
        self.byte += passed.len();
    }

    fn skip_space(&mut self) -> Result<(), Problem> {
        loop {
            self.advance(run(self.rest(), is_space).len());
            match comment(self.rest()) {
                Comment::None => return Ok(()),
                Comment::Of(bytes) => self.advance(bytes),
                Comment::Open => {
                    return Err(Problem::new(
                        self.at,
                        "the comment that begins here has no end",
                        "close it with `*/`",
                    ));
                }
            }
        }
    }

    /// `/*` is a comment here only when a path follows the comment's end; otherwise it is itself the path.
    fn skip_space_before_path(&mut self) {
        loop {
            self.advance(run(self.rest(), is_space).len());
            let Comment::Of(bytes) = comment(self.rest()) else {
                return;
            };
            let behind = self.rest().get(bytes..).unwrap_or_default();
            if !behind.trim_start_matches(is_space).starts_with('/') {
                return;
            }
            self.advance(bytes);
        }
    }

    fn token_here(&mut self) -> Result<Token<'t>, Problem> {
        let rest = self.rest();
        let mut characters = rest.chars();
        let Some(first) = characters.next() else {
            return Ok(Token::End);
        };
        let second = characters.next();
        let (token, bytes) = match (first, second) {
            ('"' | '\'', _) => return self.quoted(first),
            ('$', Some(c)) if is_query_character(c) => {
                let name = run(rest, is_query_character);
                (Token::Dollar(name), name.len())
            }
            ('(', _) => (Token::OpenParenthesis, 1),
            (')', _) => (Token::CloseParenthesis, 1),
            ('{', _) => (Token::OpenBrace, 1),
            ('}', _) => (Token::CloseBrace, 1),
            (',', _) => (Token::Comma, 1),
            ('=', Some('=')) => return Err(Problem::new(self.at, "`==` is no operator", "write `=`")),
            ('=', _) => (comparison(Comparison::Equal), 1),
            ('<', Some('>')) => (comparison(Comparison::NotEqual), 2),
            ('<', Some('=')) => (comparison(Comparison::LessOrEqual), 2),
            ('<', _) => (comparison(Comparison::Less), 1),
            ('>', Some('=')) => (comparison(Comparison::GreaterOrEqual), 2),
            ('>', _) => (comparison(Comparison::Greater), 1),
            ('?', Some('?')) => (Token::Operator(Operator::Coalesce), 2),
            ('/', _) => (calculation(Calculation::Divide), 1),
            ('!', Some('=')) => (comparison(Comparison::NotEqual), 2),
            (c, _) if !is_name_character(c) => return Err(stray(c, self.at)),
            _ => {
                let word = run(rest, is_name_character);
                (self.word(word)?, word.len())
            }
        };
        self.advance(bytes);
        Ok(token)
    }

    /// What a run of name characters is.
    fn word(&self, word: &'t str) -> Result<Token<'t>, Problem> {
        let after = self.rest().get(word.len()..).and_then(|rest| rest.chars().next());
        if let Some(token) = fixed_word(word) {
            return Ok(token);
        }
        if let Some(value) = numbers::literal(word) {
            return Ok(Token::Number(value));
        }
        if let Some(keyword) = self.reserved.iter().find(|keyword| keyword.eq_ignore_ascii_case(word)) {
            return Ok(Token::Reserved(keyword));
        }
        if let Some(name) = word.strip_suffix('!').filter(|_| after == Some('=')) {
            return Err(Problem::new(
                self.at,
                format!("`{word}=` reads as the name `{word}` and `=`, because a name may hold `!`"),
                format!("put spaces around the operator: `{name} != …`"),
            ));
        }
        match (word.strip_prefix('!'), after) {
            (Some(name), _) => Err(Problem::new(
                self.at,
                "`!` is no operator",
                format!("write `NOT {name}`"),
            )),
            _ if word == "&&" => Err(Problem::new(self.at, "`&&` is no operator", "write `AND`")),
            (None, Some('[')) => Err(Problem::new(
                self.at.plus_columns(columns(word)),
                format!("`[` cannot follow the property `{word}`"),
                format!("only paths into the body have indexes: `$body.{word}[0]`"),
            )),
            (None, _) => Ok(Token::Name(word)),
        }
    }

    fn quoted(&mut self, quote: char) -> Result<Token<'t>, Problem> {
        let rest = self.rest();
        let inside = rest.get(1..).unwrap_or_default();
        let mut escaped = false;
        let close = inside.char_indices().find(|&(_, c)| {
            let closes = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        });
        let Some((length, _)) = close else {
            return Err(Problem::new(
                self.at,
                "the text that begins here has no end",
                format!("close it with `{quote}`; inside it, write `\\{quote}` for the character"),
            ));
        };
        let raw = inside.get(..length).unwrap_or_default();
        if let Some(index) = escape::first_unknown(raw) {
            let before = raw.get(..index).unwrap_or_default();
            let mut place = self.clone();
            place.advance(1 + before.len());
            return Err(Problem::new(
                place.at,
                "`\\` begins no known escape here",
                "write `\\\\` for a backslash; known are `\\\"`, `\\'`, `\\\\` and `\\u` with four hexadecimal digits",
            ));
        }
        let text = escape::decode(raw).ok_or_else(|| {
            Problem::new(
                self.at,
                "a `\\u` escape in this text is half of a pair",
                "write both halves, or the character itself",
            )
        })?;
        self.advance(length + 2);
        Ok(Token::Text(text))
    }
}

const fn comparison<'t>(comparison: Comparison) -> Token<'t> {
    Token::Operator(Operator::Compare(comparison))
}

const fn calculation<'t>(calculation: Calculation) -> Token<'t> {
    Token::Operator(Operator::Calculate(calculation))
}

const fn is_query_character(c: char) -> bool {
    is_name_character(c) || matches!(c, '[' | ']')
}

fn run(text: &str, belongs: impl Fn(char) -> bool) -> &str {
    let end = text.find(|c| !belongs(c)).unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

/// How many columns a text takes.
pub(crate) fn columns(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX)
}

fn join_segments(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    parts.join("/")
}

enum Comment {
    None,
    Of(usize),
    Open,
}

fn comment(rest: &str) -> Comment {
    match rest.strip_prefix("/*") {
        None => Comment::None,
        Some(inside) => inside
            .find("*/")
            .map_or(Comment::Open, |length| Comment::Of(length + 4)),
    }
}

/// Keywords and operators that are spelt with name characters.
fn fixed_word<'t>(word: &str) -> Option<Token<'t>> {
    Some(match word {
        "true" => Token::Bool(true),
        "false" => Token::Bool(false),
        "null" => Token::Null,
        "undefined" => Token::Undefined,
        "+" => calculation(Calculation::Add),
        "-" => calculation(Calculation::Subtract),
        "*" => calculation(Calculation::Multiply),
        "%" => calculation(Calculation::Remainder),
        "||" => Token::Operator(Operator::Concat),
        _ if word.eq_ignore_ascii_case("and") => Token::And,
        _ if word.eq_ignore_ascii_case("or") => Token::Or,
        _ if word.eq_ignore_ascii_case("not") => Token::Not,
        _ => return None,
    })
}

fn stray(c: char, at: Position) -> Problem {
    let remedy = match c {
        '[' | ']' => "only paths into the body have indexes: `$body.values[0]`",
        '?' => "the operator for a missing value is `??`",
        ';' => "remove it: nothing ends with `;` here",
        _ => "remove it, or put it in quotes if it belongs to a text",
    };
    Problem::new(at, format!("`{c}` means nothing here"), remedy)
}
