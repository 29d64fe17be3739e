//! Reads a route, collecting what is wrong with it.

use holm_model::ModuleId;

use super::{Route, Sink, SourcePattern};
use crate::ast::{Calculation, Operator};
use crate::condition::{Condition, unexpected};
use crate::lexer::{Located, Token};
use crate::parse::{Parser, describe};
use crate::problem::{Position, Problem};

const SELECT: &str = "SELECT";
const FROM: &str = "FROM";
const WHERE: &str = "WHERE";
const INTO: &str = "INTO";
const KEYWORDS: &[&str] = &[SELECT, FROM, WHERE, INTO];

const EXAMPLE_PATH: &str = "FROM /messages/* INTO $upstream";
const EXAMPLE_SINKS: &str = "write `INTO $upstream` or `INTO BrokeredEndpoint(\"/modules/name/inputs/name\")`";

/// The most characters of a route that a remedy quotes as a whole.
const MAX_QUOTED: usize = 240;

pub(super) fn route(text: &str) -> Result<Route, Vec<Problem>> {
    let mut problems = Vec::new();
    match whole(text, &mut problems) {
        Ok(route) if problems.is_empty() => return Ok(route),
        Ok(_) => {}
        Err(problem) => problems.push(problem),
    }
    problems.sort_by_key(Problem::position);
    Err(problems)
}

/// Returns the first problem of the syntax; puts those of types, after which reading goes on, into `problems`.
fn whole(text: &str, problems: &mut Vec<Problem>) -> Result<Route, Problem> {
    let mut parser = Parser::new(text, KEYWORDS)?;
    select_from(&mut parser)?;
    let path = parser.take_path(EXAMPLE_PATH)?;
    let path_end = parser.peek()?.start;
    let mut condition = None;
    if parser.peek()?.token == Token::Reserved(WHERE) {
        parser.take()?;
        let tree = parser.expression()?;
        match Condition::check(&tree) {
            Ok(checked) => condition = Some(checked),
            Err(found) => problems.extend(found),
        }
    }
    let has_condition = condition.is_some() || !problems.is_empty();
    into(&mut parser, has_condition)?;
    let sink_start = parser.peek()?.start;
    let (sink, sink_end) = sink(&mut parser)?;
    end(&mut parser, text, (path_end, sink_start, sink_end), has_condition)?;
    Ok(Route {
        pattern: SourcePattern::new(path.text),
        condition,
        sink,
    })
}

fn select_from(parser: &mut Parser<'_>) -> Result<(), Problem> {
    let mut first = parser.take()?;
    if first.token == Token::Reserved(SELECT) {
        let star = parser.take()?;
        if star.token != Token::Operator(Operator::Calculate(Calculation::Multiply)) {
            let message = format!("`*` must follow SELECT, and {} does", found(parser, &star));
            return Err(Problem::new(
                star.at,
                message,
                "write `SELECT * FROM …`, or begin with FROM",
            ));
        }
        first = parser.take()?;
    }
    if first.token == Token::Reserved(FROM) {
        return Ok(());
    }
    let message = format!("a route begins with FROM, and {} stands here", found(parser, &first));
    Err(Problem::new(
        first.at,
        message,
        format!("write for example `{EXAMPLE_PATH}`"),
    ))
}

fn into(parser: &mut Parser<'_>, behind_condition: bool) -> Result<(), Problem> {
    let next = parser.take()?;
    match next.token {
        Token::Reserved(INTO) => Ok(()),
        Token::End => Err(Problem::new(next.at, "INTO and the sink are missing", EXAMPLE_SINKS)),
        _ if behind_condition => Err(unexpected(parser.slice(next.start, next.end), &next.token, next.at)),
        _ => {
            let message = format!("WHERE or INTO must follow the path, and {} does", found(parser, &next));
            let remedy = "write `WHERE` and a condition, or `INTO` and a sink; a path has no spaces in it";
            Err(Problem::new(next.at, message, remedy))
        }
    }
}

/// The sink and the byte behind it.
fn sink(parser: &mut Parser<'_>) -> Result<(Sink, usize), Problem> {
    let name = parser.take()?;
    match name.token {
        Token::Dollar(text) if text.eq_ignore_ascii_case("$upstream") => Ok((Sink::Upstream, name.end)),
        Token::Name(text) if text.eq_ignore_ascii_case("BrokeredEndpoint") => brokered(parser),
        Token::Name(text) if text.eq_ignore_ascii_case("upstream") => {
            let message = format!("there is no sink `{text}`");
            Err(Problem::new(name.at, message, "write `$upstream`"))
        }
        Token::Text(text) => {
            let message = "a text alone is no sink";
            Err(Problem::new(
                name.at,
                message,
                format!("write `BrokeredEndpoint(\"{text}\")`"),
            ))
        }
        Token::Operator(Operator::Calculate(Calculation::Divide)) => {
            let message = "a path alone is no sink";
            let remedy = "write `BrokeredEndpoint(\"/modules/name/inputs/name\")`";
            Err(Problem::new(name.at, message, remedy))
        }
        Token::End => Err(Problem::new(name.at, "the sink is missing behind INTO", EXAMPLE_SINKS)),
        _ => {
            let message = format!("there is no sink {}", found(parser, &name));
            Err(Problem::new(name.at, message, EXAMPLE_SINKS))
        }
    }
}

/// The rest of `BrokeredEndpoint("…")`.
fn brokered(parser: &mut Parser<'_>) -> Result<(Sink, usize), Problem> {
    let wrong =
        |at, message: String| Problem::new(at, message, "write `BrokeredEndpoint(\"/modules/name/inputs/name\")`");
    let open = parser.take()?;
    if open.token != Token::OpenParenthesis {
        let message = format!("`(` must follow `BrokeredEndpoint`, and {} does", found(parser, &open));
        return Err(wrong(open.at, message));
    }
    let address = parser.take()?;
    let Token::Text(text) = &address.token else {
        let message = format!("the address must be in quotes, and {} is not", found(parser, &address));
        return Err(wrong(address.at, message));
    };
    let close = parser.take()?;
    if close.token != Token::CloseParenthesis {
        let message = format!("`)` must follow the address, and {} does", found(parser, &close));
        return Err(wrong(close.at, message));
    }
    Ok((module_input(text, address.at)?, close.end))
}

fn module_input(address: &str, at: Position) -> Result<Sink, Problem> {
    let parts: Vec<&str> = address.trim_matches('/').split('/').collect();
    let [_, module, _, input] = parts.as_slice() else {
        let message = format!("the address `{address}` has {} parts instead of 4", parts.len());
        return Err(Problem::new(at, message, "write `/modules/name/inputs/name`"));
    };
    let module = ModuleId::new(module).map_err(|invalid| {
        Problem::new(
            at,
            format!("the address names no module: {invalid}"),
            "name a module by its id",
        )
    })?;
    if input.is_empty() {
        return Err(Problem::new(
            at,
            "the address names no input",
            "write `/modules/name/inputs/name`",
        ));
    }
    let input = (*input).to_owned();
    Ok(Sink::Module { module, input })
}

/// Refuses what stands behind the sink. The places are bytes: behind the path, at the sink, behind the sink.
fn end(
    parser: &mut Parser<'_>,
    text: &str,
    (path_end, sink_start, sink_end): (usize, usize, usize),
    has_condition: bool,
) -> Result<(), Problem> {
    let next = parser.take()?;
    if next.token == Token::End {
        return Ok(());
    }
    if next.token != Token::Reserved(WHERE) {
        let message = format!("{} stands behind the sink", found(parser, &next));
        return Err(Problem::new(next.at, message, "remove everything behind the sink"));
    }
    let message = "WHERE stands behind INTO, where it would be ignored";
    let front = parser.slice(0, path_end).trim_end();
    let (sink, condition) = (
        parser.slice(sink_start, sink_end),
        parser.slice(next.start, text.len()).trim(),
    );
    let moved = format!("{front} {condition} INTO {sink}");
    let remedy = if has_condition {
        "join both conditions with AND before INTO".to_owned()
    } else if moved.chars().count() <= MAX_QUOTED {
        format!("move it before INTO: `{moved}`")
    } else {
        "move it before INTO".to_owned()
    };
    Err(Problem::new(next.at, message, remedy))
}

fn found(parser: &Parser<'_>, token: &Located<'_>) -> String {
    describe(parser.slice(token.start, token.end))
}
