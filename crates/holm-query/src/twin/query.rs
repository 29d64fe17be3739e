//! A whole query: what to show of which documents.
//!
//! ```text
//! SELECT [DISTINCT] [TOP n] * | column [AS name], …   FROM devices | devices.modules | devices.jobs [[AS] alias]
//!   [WHERE condition] [GROUP BY path, …] [ORDER BY path [ASC | DESC], …]
//! column: a value, or COUNT() SUM(x) AVG(x) MIN(x) MAX(x)
//! ```
//!
//! DISTINCT and ORDER BY are not in the published language; here they are, because lists and counts of a fleet need them. A
//! column is called by its alias, else by the last word of its path, else `$1`, `$2`, … by its place.

use super::ast::Expression;
use super::condition::Condition;
use super::filter::Filter;
use super::foreign;
use super::lexer::{Keyword, Token};
use super::parse::{AGGREGATES, Parser};
use super::path::{Collection, Path, Step};
use crate::ast::Calculation;
use crate::evaluate::Truth;
use crate::problem::Problem;

/// A query, parsed and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    pub(super) collection: Collection,
    pub(super) top: Option<u64>,
    pub(super) distinct: bool,
    pub(super) select: Select,
    pub(super) condition: Option<Expression>,
    pub(super) group_by: Vec<Path>,
    pub(super) order_by: Vec<(Path, Direction)>,
}

/// Which way a result is sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The least first.
    Ascending,
    /// The greatest first.
    Descending,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Select {
    /// `*`
    Everything,
    Columns(Vec<Column>),
}

impl Select {
    /// The path of the column that a name means behind GROUP BY and ORDER BY, where no member of the collection has that name.
    fn path_called(&self, name: &Path, collection: Collection) -> Option<Path> {
        let (Self::Columns(columns), [Step::Key(name)]) = (self, name.steps()) else {
            return None;
        };
        let column = columns.iter().find(|column| column.name == *name)?;
        match &column.shows {
            Shows::Value(Expression::Path(path)) if !collection.has(name) => Some(path.clone()),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) shows: Shows,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shows {
    Value(Expression),
    Aggregate(Aggregate, Option<Expression>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aggregate {
    Count,
    Sum,
    Average,
    Least,
    Greatest,
}

/// A column with the byte where it stands, before it has a name.
struct Written {
    at: usize,
    alias: Option<String>,
    shows: Shows,
}

impl Query {
    /// Parses and checks a query.
    ///
    /// # Errors
    /// The first [`Problem`] of the text.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let collection = collection_of(text)?;
        let mut parser = Parser::new(text)?;
        parser.set_collection(collection.0, collection.1);
        parser.query()
    }

    /// What it reads.
    #[must_use]
    pub const fn collection(&self) -> Collection {
        self.collection
    }

    /// How many results there are at most, where it says so.
    #[must_use]
    pub const fn top(&self) -> Option<u64> {
        self.top
    }

    /// The value of the header `x-ms-item-type`. Source: `hub-service-api.md` §2.7.
    #[must_use]
    pub const fn item_type(&self) -> &'static str {
        match (&self.select, self.collection) {
            (Select::Columns(_), _) => "Raw",
            (Select::Everything, Collection::Jobs) => "DeviceJob",
            (Select::Everything, Collection::Devices | Collection::Modules) => "Twin",
        }
    }

    /// Whether the results are groups of documents, or different ones, and not a result for each document.
    #[must_use]
    pub fn is_grouped(&self) -> bool {
        let aggregates = match &self.select {
            Select::Everything => false,
            Select::Columns(columns) => columns
                .iter()
                .any(|column| matches!(column.shows, Shows::Aggregate(..))),
        };
        self.distinct || !self.group_by.is_empty() || aggregates
    }

    /// Whether it has a condition, and does not take every document.
    #[must_use]
    pub const fn has_condition(&self) -> bool {
        self.condition.is_some()
    }

    /// Whether it says in which order the results come.
    #[must_use]
    pub fn is_sorted(&self) -> bool {
        !self.order_by.is_empty()
    }

    /// Whether a document matches.
    #[must_use]
    pub fn matches(&self, document: &serde_json::Value) -> bool {
        let holds = |condition: &Expression| condition.truth(document) == Truth::True;
        self.condition.as_ref().is_none_or(holds)
    }

    /// What every document passes that matches.
    #[must_use]
    pub fn filter(&self) -> Filter {
        self.condition
            .as_ref()
            .map_or(Filter::Always, |condition| super::filter::implied(condition, true))
    }

    /// The condition by itself.
    #[must_use]
    pub fn condition(&self) -> Option<Condition> {
        let condition = self.condition.clone()?;
        Some(Condition::of(self.collection, condition))
    }
}

/// The collection stands behind the columns, which need it: it is read first.
fn collection_of(text: &str) -> Result<(Collection, Option<String>), Problem> {
    let mut parser = Parser::new(text)?;
    if *parser.peek() != Token::Keyword(Keyword::Select) {
        return Err(parser.unexpected("`SELECT`", "write `SELECT * FROM devices`"));
    }
    loop {
        match parser.peek() {
            Token::Keyword(Keyword::From) => break,
            Token::End => return Err(parser.unexpected("`FROM`", "say what to read: `FROM devices`")),
            _ => parser.take()?,
        };
    }
    parser.take()?;
    let collection = parser.collection()?;
    let alias = parser.alias_of_collection()?;
    Ok((collection, alias))
}

impl Parser<'_> {
    /// `devices`, `devices.modules` or `devices.jobs`.
    pub(super) fn collection(&mut self) -> Result<Collection, Problem> {
        let at = self.byte();
        let known = "the collections are `devices`, `devices.modules` and `devices.jobs`";
        let Token::Path(steps) = self.peek().clone() else {
            return Err(self.unexpected("a collection", known));
        };
        let collection = Collection::of_steps(&steps);
        let collection = collection.ok_or_else(|| self.problem(at, "there is no such collection", known))?;
        self.take()?;
        Ok(collection)
    }

    fn alias_of_collection(&mut self) -> Result<Option<String>, Problem> {
        let said = self.accept_keyword(Keyword::As)?;
        match self.peek().clone() {
            // `FROM devices LIMIT 10` has no alias.
            ref word if !said && foreign::remedy(word).is_some() => Ok(None),
            Token::Path(steps) => match steps.as_slice() {
                [Step::Key(alias)] => {
                    self.take()?;
                    Ok(Some(alias.clone()))
                }
                _ => Err(self.unexpected("a plain name", "write `FROM devices AS d`")),
            },
            _ if said => Err(self.unexpected("a name", "write `FROM devices AS d`")),
            _ => Ok(None),
        }
    }

    fn query(&mut self) -> Result<Query, Problem> {
        self.take()?;
        let mut distinct = self.accept_keyword(Keyword::Distinct)?;
        let top = self.top()?;
        distinct |= self.accept_keyword(Keyword::Distinct)?;
        let columns_at = self.byte();
        let written = self.columns()?;
        if !self.accept_keyword(Keyword::From)? {
            let remedy = "put `,` between columns, then say what to read: `FROM devices`";
            return Err(self.unexpected("`FROM`", remedy));
        }
        let collection = self.collection()?;
        self.alias_of_collection()?;
        let condition = match self.accept_keyword(Keyword::Where)? {
            true => Some(self.expression()?),
            false => None,
        };
        let group_by = match self.accept_keyword(Keyword::Group)? {
            true => self.group_by()?,
            false => Vec::new(),
        };
        let order_at = self.byte();
        let order_by = match self.accept_keyword(Keyword::Order)? {
            true => self.order_by()?,
            false => Vec::new(),
        };
        self.end("behind the collection come WHERE, GROUP BY and ORDER BY, in that order")?;
        let select = match written {
            None => Select::Everything,
            Some(written) => Select::Columns(self.named(written)?),
        };
        let meant = |path: Path| select.path_called(&path, collection).unwrap_or(path);
        let group_by = group_by.into_iter().map(meant).collect();
        let order_by = order_by.into_iter().map(|(path, way)| (meant(path), way)).collect();
        let query = Query {
            collection,
            top,
            distinct,
            select,
            condition,
            group_by,
            order_by,
        };
        self.check(&query, columns_at, order_at)?;
        Ok(query)
    }

    fn top(&mut self) -> Result<Option<u64>, Problem> {
        if !self.accept_keyword(Keyword::Top)? {
            return Ok(None);
        }
        let whole = |number: f64| number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
        match *self.peek() {
            Token::Number(number) if whole(number) => {
                self.take()?;
                // The value is whole and between the two bounds, so the conversion keeps it.
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                Ok(Some(number as u64))
            }
            _ => Err(self.unexpected("a whole number", "write `TOP 10`")),
        }
    }

    /// `None` is `*`.
    fn columns(&mut self) -> Result<Option<Vec<Written>>, Problem> {
        if self.accept(&Token::Calculate(Calculation::Multiply))? {
            if *self.peek() == Token::Comma {
                return Err(self.problem(self.byte(), "`*` stands alone", "remove the other columns, or `*`"));
            }
            return Ok(None);
        }
        let mut columns = vec![self.column()?];
        while self.accept(&Token::Comma)? {
            columns.push(self.column()?);
        }
        Ok(Some(columns))
    }

    fn column(&mut self) -> Result<Written, Problem> {
        let at = self.byte();
        let shows = match self.aggregate()? {
            Some((aggregate, argument)) => Shows::Aggregate(aggregate, argument),
            None => Shows::Value(self.expression()?),
        };
        let alias = if self.accept_keyword(Keyword::As)? {
            Some(self.name()?)
        } else {
            None
        };
        Ok(Written { at, alias, shows })
    }

    fn name(&mut self) -> Result<String, Problem> {
        match self.peek().clone() {
            Token::Path(steps) => match steps.as_slice() {
                [Step::Key(name)] => {
                    self.take()?;
                    Ok(name.clone())
                }
                _ => Err(self.unexpected("a plain name", "write `AS name`")),
            },
            _ => Err(self.unexpected(
                "a name",
                "write `AS name`, or `AS [[name]]` for a name that is a keyword",
            )),
        }
    }

    fn aggregate(&mut self) -> Result<Option<(Aggregate, Option<Expression>)>, Problem> {
        let Token::Path(steps) = self.peek() else {
            return Ok(None);
        };
        let [Step::Key(name)] = steps.as_slice() else {
            return Ok(None);
        };
        let name = name.to_ascii_uppercase();
        if !AGGREGATES.contains(&name.as_str()) {
            return Ok(None);
        }
        let aggregate = match name.as_str() {
            "COUNT" => Aggregate::Count,
            "SUM" => Aggregate::Sum,
            "AVG" => Aggregate::Average,
            "MIN" => Aggregate::Least,
            _ => Aggregate::Greatest,
        };
        self.take()?;
        let open = self.byte();
        if !self.accept(&Token::Open)? {
            return Err(self.unexpected("`(`", format!("write `{name}(…)`")));
        }
        let argument = match self.peek() {
            Token::Close => None,
            Token::Calculate(Calculation::Multiply) => {
                self.take()?;
                None
            }
            _ => Some(self.expression()?),
        };
        if argument.is_none() && aggregate != Aggregate::Count {
            return Err(self.problem(
                open,
                format!("`{name}` needs a value"),
                format!("write `{name}(properties.reported.x)`"),
            ));
        }
        self.close(open)?;
        Ok(Some((aggregate, argument)))
    }

    fn group_by(&mut self) -> Result<Vec<Path>, Problem> {
        if !self.accept_keyword(Keyword::By)? {
            return Err(self.unexpected("`BY`", "write `GROUP BY tags.site`"));
        }
        let mut paths = vec![self.path_of("GROUP BY")?];
        while self.accept(&Token::Comma)? {
            paths.push(self.path_of("GROUP BY")?);
        }
        Ok(paths)
    }

    fn order_by(&mut self) -> Result<Vec<(Path, Direction)>, Problem> {
        if !self.accept_keyword(Keyword::By)? {
            return Err(self.unexpected("`BY`", "write `ORDER BY deviceId`"));
        }
        let mut order = Vec::new();
        loop {
            let path = self.path_of("ORDER BY")?;
            let descending = self.accept_keyword(Keyword::Desc)?;
            if !descending {
                self.accept_keyword(Keyword::Asc)?;
            }
            let direction = if descending {
                Direction::Descending
            } else {
                Direction::Ascending
            };
            order.push((path, direction));
            if !self.accept(&Token::Comma)? {
                return Ok(order);
            }
        }
    }

    fn path_of(&mut self, clause: &str) -> Result<Path, Problem> {
        let at = self.byte();
        let Token::Path(steps) = self.peek().clone() else {
            return Err(self.unexpected("a path", format!("write `{clause} tags.site`")));
        };
        self.take()?;
        self.resolve(steps, at)
    }

    fn named(&self, written: Vec<Written>) -> Result<Vec<Column>, Problem> {
        let mut columns: Vec<Column> = Vec::with_capacity(written.len());
        for (index, Written { at, alias, shows }) in written.into_iter().enumerate() {
            let own = match &shows {
                Shows::Value(Expression::Path(path)) => path.last_key().map(str::to_owned),
                _ => None,
            };
            let name = alias.or(own).unwrap_or_else(|| format!("${}", index + 1));
            if columns.iter().any(|column| column.name == name) {
                let message = format!("two columns are called `{name}`");
                return Err(self.problem(at, message, "give one another name: `tags.x AS other`"));
            }
            columns.push(Column { name, shows });
        }
        Ok(columns)
    }

    fn check(&self, query: &Query, columns_at: usize, order_at: usize) -> Result<(), Problem> {
        let grouped = query.is_grouped();
        if query.collection == Collection::Jobs && (grouped || query.select != Select::Everything) {
            let remedy = "write `SELECT * FROM devices.jobs`";
            return Err(self.problem(columns_at, "rows of jobs are shown whole", remedy));
        }
        if query.collection == Collection::Jobs && query.is_sorted() {
            let remedy = "remove ORDER BY: they come in the order of jobs, and of devices in each";
            return Err(self.problem(order_at, "rows of jobs can't be sorted", remedy));
        }
        if !grouped {
            return Ok(());
        }
        if query.is_sorted() {
            let remedy = "remove ORDER BY: groups have an order of their own, the same on every page";
            return Err(self.problem(order_at, "groups can't be sorted", remedy));
        }
        let Select::Columns(columns) = &query.select else {
            let remedy = "name the columns: `SELECT tags.site, COUNT() AS n`";
            return Err(self.problem(columns_at, "`*` can't be grouped, nor be distinct", remedy));
        };
        let aggregates = columns
            .iter()
            .any(|column| matches!(column.shows, Shows::Aggregate(..)));
        if query.distinct && (aggregates || !query.group_by.is_empty()) {
            let remedy = "remove DISTINCT: each group is there once";
            return Err(self.problem(columns_at, "DISTINCT can't stand with groups", remedy));
        }
        for column in columns {
            if let Shows::Value(expression) = &column.shows
                && !query.distinct
                && !matches!(expression, Expression::Path(path) if query.group_by.contains(path))
            {
                let message = format!("column `{}` is not the same in all documents of a group", column.name);
                let remedy = "add it to GROUP BY, or count or add it up: `COUNT()`, `MAX(…)`";
                return Err(self.problem(columns_at, message, remedy));
            }
        }
        Ok(())
    }
}
