//! What is wrong with a text: where, what, and the way out.

use std::fmt;

/// A place in a text: line and column, both from 1; a column is a character, whatever its width in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

impl Position {
    /// The first character of a text.
    pub const START: Self = Self { line: 1, column: 1 };

    /// The place `columns` characters further on the same line.
    #[must_use]
    pub const fn plus_columns(self, columns: u32) -> Self {
        Self {
            line: self.line,
            column: self.column.saturating_add(columns),
        }
    }
}

/// One mistake in a text. Shown as `line 1, column 34: what is wrong; what to write instead`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub remedy: String,
}

impl Problem {
    /// A mistake at a place.
    #[must_use]
    pub fn new(at: Position, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            line: at.line,
            column: at.column,
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    /// Where the mistake is.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position {
            line: self.line,
            column: self.column,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            column,
            message,
            remedy,
        } = self;
        write!(f, "line {line}, column {column}: {message}; {remedy}")
    }
}
