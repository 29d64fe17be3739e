//! Text to tokens.
//!
//! ```text
//!   tags.[[a b]]>=-4.5 AND deviceId IN['x']   →   Path(tags, "a b") >= - 4.5 AND Path(deviceId) IN [ Text(x) ]
//! ```
//!
//! A path is one token: nothing may stand between its words. A word is letters, digits, `_` and `$`; any other name stands in
//! `[[ ]]`. Keywords are known in any case, and are plain names after a point. In a text, a doubled quote is one quote.

use super::path::Step;
use crate::ast::{Calculation, Comparison};
use crate::lexer::escape;
use crate::numbers;
use crate::problem::{Position, Problem};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Number(f64),
    Text(String),
    Path(Vec<Step>),
    Keyword(Keyword),
    Compare(Comparison),
    Calculate(Calculation),
    Comma,
    Open,
    Close,
    OpenList,
    CloseList,
    End,
}

macro_rules! keywords {
    ($($name:ident, $word:literal;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Keyword { $($name,)* }

        const KEYWORDS: &[(&str, Keyword)] = &[$(($word, Keyword::$name),)*];
    };
}

keywords! {
    Select, "SELECT";
    Top, "TOP";
    Distinct, "DISTINCT";
    From, "FROM";
    Where, "WHERE";
    Group, "GROUP";
    Order, "ORDER";
    By, "BY";
    As, "AS";
    Asc, "ASC";
    Desc, "DESC";
    Join, "JOIN";
    And, "AND";
    Or, "OR";
    Not, "NOT";
    In, "IN";
    Nin, "NIN";
    True, "TRUE";
    False, "FALSE";
    Null, "NULL";
    Undefined, "UNDEFINED";
}

/// A token with the bytes `start..end` where it stands.
#[derive(Clone, Debug)]
pub(super) struct Located {
    pub(super) token: Token,
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(Debug)]
pub(super) struct Lexer<'t> {
    text: &'t str,
    byte: usize,
}

pub(super) fn begins_word(c: char) -> bool {
    c.is_alphabetic() || matches!(c, '_' | '$')
}

pub(super) fn continues_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '$')
}

/// The place of a byte of a text.
pub(super) fn position(text: &str, byte: usize) -> Position {
    let before = text.get(..byte).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Position {
        line: count(before.matches('\n').count()).saturating_add(1),
        column: count(before.get(line_start..).map_or(0, |line| line.chars().count())).saturating_add(1),
    }
}

impl<'t> Lexer<'t> {
    pub(super) const fn new(text: &'t str) -> Self {
        Self { text, byte: 0 }
    }

    pub(super) const fn text(&self) -> &'t str {
        self.text
    }

    /// The next token; [`Token::End`] at the end, again and again.
    pub(super) fn next_token(&mut self) -> Result<Located, Problem> {
        self.byte = self.text.len() - self.rest().trim_start().len();
        let start = self.byte;
        let token = self.token_here()?;
        let end = self.byte;
        Ok(Located { token, start, end })
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.byte..).unwrap_or_default()
    }

    fn problem(&self, byte: usize, message: impl Into<String>, remedy: impl Into<String>) -> Problem {
        Problem::new(position(self.text, byte), message, remedy)
    }

    fn token_here(&mut self) -> Result<Token, Problem> {
        let mut characters = self.rest().chars();
        let Some(first) = characters.next() else {
            return Ok(Token::End);
        };
        let second = characters.next();
        let (token, bytes) = match (first, second) {
            ('"' | '\'', _) => return self.quoted(first),
            ('.', Some('0'..='9')) | ('0'..='9', _) => return self.number(),
            ('[', Some('[')) => return self.path(),
            (c, _) if begins_word(c) => return self.path(),
            ('=', Some('=')) => return Err(self.problem(self.byte, "`==` is no operator", "write `=`")),
            ('=', _) => (Token::Compare(Comparison::Equal), 1),
            ('!', Some('=')) | ('<', Some('>')) => (Token::Compare(Comparison::NotEqual), 2),
            ('<', Some('=')) => (Token::Compare(Comparison::LessOrEqual), 2),
            ('<', _) => (Token::Compare(Comparison::Less), 1),
            ('>', Some('=')) => (Token::Compare(Comparison::GreaterOrEqual), 2),
            ('>', _) => (Token::Compare(Comparison::Greater), 1),
            ('+', _) => (Token::Calculate(Calculation::Add), 1),
            ('-', Some('-')) => {
                let remedy = "remove what follows: there are no comments; put a space between two minus signs";
                return Err(self.problem(self.byte, "`--` means nothing here", remedy));
            }
            ('-', _) => (Token::Calculate(Calculation::Subtract), 1),
            ('*', _) => (Token::Calculate(Calculation::Multiply), 1),
            ('/', _) => (Token::Calculate(Calculation::Divide), 1),
            ('%', _) => (Token::Calculate(Calculation::Remainder), 1),
            (',', _) => (Token::Comma, 1),
            ('(', _) => (Token::Open, 1),
            (')', _) => (Token::Close, 1),
            ('[', _) => (Token::OpenList, 1),
            (']', _) => (Token::CloseList, 1),
            (c, _) => return Err(self.stray(c)),
        };
        self.byte += bytes;
        Ok(token)
    }

    fn stray(&self, c: char) -> Problem {
        let remedy = match c {
            '!' => "write `NOT`, or `!=`",
            '&' => "write `AND`",
            '|' => "write `OR`",
            ';' => "remove it: nothing ends with `;` here",
            '`' => "write names that are no words as `[[name]]`",
            _ => "remove it, put it in quotes if it belongs to a text, or write a name that holds it as `[[name]]`",
        };
        self.problem(self.byte, format!("`{c}` means nothing here"), remedy)
    }

    fn number(&mut self) -> Result<Token, Problem> {
        let rest = self.rest();
        let mut before = ' ';
        let length = rest
            .find(|c: char| {
                let sign_of_exponent = matches!(c, '+' | '-') && matches!(before, 'e' | 'E') && !rest.starts_with("0x");
                before = c;
                !(c.is_alphanumeric() || matches!(c, '.' | '_') || sign_of_exponent)
            })
            .unwrap_or(rest.len());
        let word = rest.get(..length).unwrap_or_default();
        let value = numbers::literal(word).ok_or_else(|| {
            let remedy = "write a number such as `-4.5`, `1e3` or `0xFF`, or put a text in quotes";
            self.problem(self.byte, format!("`{word}` is no number"), remedy)
        })?;
        self.byte += length;
        Ok(Token::Number(value))
    }

    fn quoted(&mut self, quote: char) -> Result<Token, Problem> {
        let start = self.byte;
        let inside = self.rest().get(1..).unwrap_or_default();
        let mut raw = String::new();
        let mut characters = inside.char_indices().peekable();
        let length = loop {
            let Some((at, c)) = characters.next() else {
                let remedy = format!("close it with `{quote}`; inside it, write `{quote}{quote}` for the character");
                return Err(self.problem(start, "the text that begins here has no end", remedy));
            };
            if c == '\\' {
                raw.push(c);
                raw.extend(characters.next().map(|(_, escaped)| escaped));
            } else if c == quote {
                match characters.peek() {
                    Some((_, next)) if *next == quote => {
                        characters.next();
                        raw.extend(['\\', quote]);
                    }
                    _ => break at,
                }
            } else {
                raw.push(c);
            }
        };
        if escape::first_unknown(&raw).is_some() {
            let remedy =
                "write `\\\\` for a backslash; known are `\\\"`, `\\'`, `\\\\` and `\\u` with four hexadecimal digits";
            return Err(self.problem(start, "a `\\` in this text begins no known escape", remedy));
        }
        let text = escape::decode(&raw).ok_or_else(|| {
            let remedy = "write both halves, or the character itself";
            self.problem(start, "a `\\u` escape in this text is half of a pair", remedy)
        })?;
        self.byte = start + length + 2;
        Ok(Token::Text(text))
    }

    /// A path, or a keyword where that stands alone.
    fn path(&mut self) -> Result<Token, Problem> {
        let first = self.step(false)?;
        if let Step::Key(word) = &first
            && self.text.as_bytes().get(self.byte.saturating_sub(1)) != Some(&b']')
            && let Some((_, keyword)) = KEYWORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word))
        {
            return Ok(Token::Keyword(*keyword));
        }
        let mut steps = vec![first];
        loop {
            let rest = self.rest();
            if rest.starts_with("[[") {
                steps.push(self.bracketed()?);
            } else if let Some(index) = rest.strip_prefix('[').and_then(index) {
                self.byte += index.1;
                steps.push(Step::Index(index.0));
            } else if rest.starts_with('.') {
                self.byte += 1;
                steps.push(self.step(true)?);
            } else {
                break;
            }
        }
        self.refuse_hyphen(&steps)?;
        Ok(Token::Path(steps))
    }

    fn step(&mut self, after_point: bool) -> Result<Step, Problem> {
        let rest = self.rest();
        if rest.starts_with("[[") {
            return self.bracketed();
        }
        let length = rest.find(|c| !continues_word(c)).unwrap_or(rest.len());
        let word = rest.get(..length).unwrap_or_default();
        if word.is_empty() && after_point {
            return Err(self.problem(
                self.byte,
                "a name is missing after this `.`",
                "write `tags.name`, or `tags.[[name]]` for a name with other characters",
            ));
        }
        self.byte += length;
        Ok(Step::Key(word.to_owned()))
    }

    fn bracketed(&mut self) -> Result<Step, Problem> {
        let inside = self.rest().get(2..).unwrap_or_default();
        match inside.find("]]") {
            Some(length) if length > 0 => {
                self.byte += length + 4;
                Ok(Step::Key(inside.get(..length).unwrap_or_default().to_owned()))
            }
            _ => Err(self.problem(self.byte, "the name that begins here has no end", "write `[[name]]`")),
        }
    }

    /// `tags.my-tag` is a subtraction that nobody means.
    fn refuse_hyphen(&self, steps: &[Step]) -> Result<(), Problem> {
        let Some(after) = self.rest().strip_prefix('-') else {
            return Ok(());
        };
        let length = after.find(|c| !continues_word(c)).unwrap_or(after.len());
        let word = after.get(..length).unwrap_or_default();
        let (Some(Step::Key(last)), true) = (steps.last(), word.starts_with(begins_word)) else {
            return Ok(());
        };
        Err(self.problem(
            self.byte,
            "`-` between two words is a subtraction",
            format!("write `[[{last}-{word}]]` for the name, or put spaces around `-`"),
        ))
    }
}

/// An index and the bytes of `[index]`, of a text behind its `[`.
fn index(rest: &str) -> Option<(usize, usize)> {
    let length = rest.find(|c: char| !c.is_ascii_digit())?;
    let digits = rest
        .get(..length)
        .filter(|_| rest.as_bytes().get(length) == Some(&b']'))?;
    Some((digits.parse().ok()?, length + 2))
}
