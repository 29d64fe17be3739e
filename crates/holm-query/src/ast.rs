//! The tree of an expression as it was written, before anything is known about types.
//!
//! A tree prints as a text that parses to the same tree (places apart): problems quote corrected expressions that way.
//! AND and OR hold all their terms side by side, because conditions such as `a = 'x' OR a = 'y' OR …` get long: a thousand
//! terms are then one level, not a thousand.

use std::fmt;

use crate::problem::Position;

/// A node with the place of its first character (for an operator: of its left operand).
#[derive(Clone, Debug)]
pub struct Expression {
    /// What the node is.
    pub kind: Kind,
    /// Where its text begins.
    pub at: Position,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `undefined`.
    Undefined,
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A number; never NaN.
    Number(f64),
    /// A quoted text, without quotes and escapes.
    Text(String),
    /// The name of something that the dialect knows.
    Name(Name),
    /// `name(argument, …)`.
    Call {
        /// The function's name as written.
        name: String,
        /// Its arguments.
        arguments: Vec<Expression>,
    },
    /// `- x`.
    Negate(Box<Expression>),
    /// `NOT x`.
    Not(Box<Expression>),
    /// `a AND b AND …`; two terms or more.
    And(Vec<Expression>),
    /// `a OR b OR …`; two terms or more.
    Or(Vec<Expression>),
    /// `a op b`.
    Binary(Box<Binary>),
}

/// Two operands and what stands between them.
#[derive(Clone, Debug)]
pub struct Binary {
    /// The operator.
    pub operator: Operator,
    /// Where the operator stands.
    pub operator_at: Position,
    /// The operand before it.
    pub left: Expression,
    /// The operand after it.
    pub right: Expression,
}

/// A name as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The text, with its `$` but without braces.
    pub text: String,
    /// How it was written.
    pub form: NameForm,
}

/// How a name was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameForm {
    /// `name`.
    Plain,
    /// `$name`.
    Dollar,
    /// `{$name}`.
    Braced,
}

/// An operator between two operands, AND and OR apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `??`.
    Coalesce,
    /// A comparison.
    Compare(Comparison),
    /// `||`.
    Concat,
    /// A calculation.
    Calculate(Calculation),
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `=`.
    Equal,
    /// `!=`, `<>`.
    NotEqual,
    /// `<`.
    Less,
    /// `<=`.
    LessOrEqual,
    /// `>`.
    Greater,
    /// `>=`.
    GreaterOrEqual,
}

/// How two numbers are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calculation {
    /// `+`.
    Add,
    /// `-`.
    Subtract,
    /// `*`.
    Multiply,
    /// `/`.
    Divide,
    /// `%`.
    Remainder,
}

impl Calculation {
    /// What it makes of two numbers; not a number is what has no value.
    #[must_use]
    pub fn of(self, left: f64, right: f64) -> f64 {
        match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide => left / right,
            Self::Remainder => left % right,
        }
    }
}

/// How tightly the levels bind, loosest first. Source: `edge-broker.md` §2.1.
pub(crate) mod level {
    pub(crate) const COALESCE: u8 = 0;
    pub(crate) const OR: u8 = 1;
    pub(crate) const AND: u8 = 2;
    pub(crate) const EQUALITY: u8 = 3;
    pub(crate) const ORDER: u8 = 4;
    pub(crate) const SUM: u8 = 5;
    pub(crate) const PRODUCT: u8 = 6;
    pub(crate) const UNARY: u8 = 7;
    pub(crate) const PRIMARY: u8 = 8;
}

impl Operator {
    pub(crate) const fn level(self) -> u8 {
        match self {
            Self::Coalesce => level::COALESCE,
            Self::Compare(Comparison::Equal | Comparison::NotEqual) => level::EQUALITY,
            Self::Compare(_) => level::ORDER,
            Self::Concat | Self::Calculate(Calculation::Add | Calculation::Subtract) => level::SUM,
            Self::Calculate(_) => level::PRODUCT,
        }
    }
}

impl Kind {
    const fn level(&self) -> u8 {
        match self {
            Self::Or(_) => level::OR,
            Self::And(_) => level::AND,
            Self::Binary(binary) => binary.operator.level(),
            Self::Negate(_) | Self::Not(_) => level::UNARY,
            _ => level::PRIMARY,
        }
    }
}

/// Equal trees, wherever they stand in their texts.
impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

impl PartialEq for Binary {
    fn eq(&self, other: &Self) -> bool {
        self.operator == other.operator && self.left == other.left && self.right == other.right
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Coalesce => "??",
            Self::Concat => "||",
            Self::Compare(Comparison::Equal) => "=",
            Self::Compare(Comparison::NotEqual) => "<>",
            Self::Compare(Comparison::Less) => "<",
            Self::Compare(Comparison::LessOrEqual) => "<=",
            Self::Compare(Comparison::Greater) => ">",
            Self::Compare(Comparison::GreaterOrEqual) => ">=",
            Self::Calculate(Calculation::Add) => "+",
            Self::Calculate(Calculation::Subtract) => "-",
            Self::Calculate(Calculation::Multiply) => "*",
            Self::Calculate(Calculation::Divide) => "/",
            Self::Calculate(Calculation::Remainder) => "%",
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.form {
            NameForm::Plain | NameForm::Dollar => f.write_str(&self.text),
            NameForm::Braced => write!(f, "{{{}}}", self.text),
        }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Undefined => f.write_str("undefined"),
            Kind::Null => f.write_str("null"),
            Kind::Bool(value) => write!(f, "{value}"),
            // The only way to write an infinite number is one too large.
            Kind::Number(value) if value.is_infinite() => f.write_str(if *value > 0.0 { "1e999" } else { "-1e999" }),
            Kind::Number(value) => write!(f, "{value}"),
            Kind::Text(text) => write_quoted(f, text),
            Kind::Name(name) => write!(f, "{name}"),
            Kind::Call { name, arguments } => {
                write!(f, "{name}(")?;
                write_joined(f, arguments, ", ", level::COALESCE)?;
                f.write_str(")")
            }
            Kind::Negate(operand) => {
                f.write_str("- ")?;
                write_operand(f, operand, level::UNARY)
            }
            Kind::Not(operand) => {
                f.write_str("NOT ")?;
                write_operand(f, operand, level::UNARY)
            }
            Kind::And(terms) => write_joined(f, terms, " AND ", level::AND + 1),
            Kind::Or(terms) => write_joined(f, terms, " OR ", level::OR + 1),
            Kind::Binary(binary) => {
                let own = binary.operator.level();
                write_operand(f, &binary.left, own)?;
                write!(f, " {} ", binary.operator)?;
                write_operand(f, &binary.right, own + 1)
            }
        }
    }
}

fn write_joined(f: &mut fmt::Formatter<'_>, terms: &[Expression], between: &str, lowest: u8) -> fmt::Result {
    for (index, term) in terms.iter().enumerate() {
        if index > 0 {
            f.write_str(between)?;
        }
        write_operand(f, term, lowest)?;
    }
    Ok(())
}

fn write_operand(f: &mut fmt::Formatter<'_>, operand: &Expression, lowest: u8) -> fmt::Result {
    if operand.kind.level() < lowest {
        write!(f, "({operand})")
    } else {
        write!(f, "{operand}")
    }
}

/// Escapes that survive the lexer's two passes: a backslash before `u` would be taken by the first one.
fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("'")?;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\'' => f.write_str("\\'")?,
            '\\' if characters.peek() == Some(&'u') => f.write_str("\\u005c\\u005c")?,
            '\\' => f.write_str("\\\\")?,
            other => write!(f, "{other}")?,
        }
    }
    f.write_str("'")
}
