//! Where a reader of events begins, as the filter of its source says it.
//!
//! ```text
//! amqp.annotation.x-opt-offset          > | >=  '-1' | '@latest' | '123'
//! amqp.annotation.x-opt-sequence-number > | >=  '5'
//! amqp.annotation.x-opt-enqueued-time   > | >=  '1700000000000'      milliseconds since 1970
//! amqp.annotation.x-opt-enqueuedtimeutc > | >=   1700000000000       the command line's
//! ```
//!
//! The filter stands under the key `apache.org:selector-filter:string`, described by that symbol or by its number; values stand
//! in quotes or not. Without a filter a reader begins at the oldest event. A selector of another form would be heeded only in part,
//! so it is refused. Source: `hub-service-api.md` §6.

use holm_amqp::{AmqpError, Fields, Value, condition};
use holm_model::Timestamp;

use crate::service::{EventPosition, Mark};

/// The name and the descriptor of the filter.
const SELECTOR: &str = "apache.org:selector-filter:string";
/// The descriptor as a number.
const SELECTOR_NUMBER: u64 = 0x0000_468c_0000_0004;

/// Reads the filters of a source.
///
/// # Errors
/// What to refuse the link with: `amqp:not-implemented` for filters that are not known here, `amqp:invalid-field` for a
/// selector whose value makes no sense.
pub(crate) fn event_position(filters: &Fields) -> Result<EventPosition, AmqpError> {
    let mut position = EventPosition::Earliest;
    for (name, filter) in filters.iter() {
        let text = selector(filter).ok_or_else(|| {
            let text = format!("the filter `{name}` is not known; give `{SELECTOR}` with a position, or none");
            AmqpError::new(condition::NOT_IMPLEMENTED, text)
        })?;
        position = read(text)?;
    }
    Ok(position)
}

/// The text of a selector; none when the filter is another one.
fn selector(filter: &Value) -> Option<&str> {
    match filter {
        Value::Described(described) => {
            let known = match &described.descriptor {
                Value::Ulong(number) => *number == SELECTOR_NUMBER,
                other => other.as_str() == Some(SELECTOR),
            };
            known.then(|| described.value.as_str()).flatten()
        }
        _ => None,
    }
}

fn read(selector: &str) -> Result<EventPosition, AmqpError> {
    let unknown = || {
        let shown: String = selector.chars().take(200).collect();
        AmqpError::new(
            condition::NOT_IMPLEMENTED,
            format!(
                "the selector `{shown}` is not known; compare one of `x-opt-offset`, `x-opt-sequence-number` and \
                 `x-opt-enqueued-time` of `amqp.annotation` by `>` or `>=` with a value"
            ),
        )
    };
    let (left, right) = selector.split_once('>').ok_or_else(unknown)?;
    let (inclusive, right) = match right.strip_prefix('=') {
        Some(right) => (true, right),
        None => (false, right),
    };
    let name = left.trim().strip_prefix("amqp.annotation.").ok_or_else(unknown)?;
    let value = unquoted(right.trim()).ok_or_else(unknown)?;
    match name {
        "x-opt-offset" if value == "@latest" => Ok(EventPosition::Latest),
        "x-opt-offset" => number(name, value).map(|number| at(number, inclusive, EventPosition::Offset)),
        "x-opt-sequence-number" => number(name, value).map(|number| at(number, inclusive, EventPosition::Sequence)),
        "x-opt-enqueued-time" | "x-opt-enqueuedtimeutc" => {
            let time = Timestamp::from_unix_millis(number(name, value)?);
            Ok(if inclusive {
                EventPosition::Since(time)
            } else {
                EventPosition::After(time)
            })
        }
        _ => Err(unknown()),
    }
}

/// What stands in quotes, or a word without any.
fn unquoted(text: &str) -> Option<&str> {
    let inner = match text.strip_prefix('\'') {
        Some(rest) => rest.strip_suffix('\'')?,
        None => text,
    };
    let is_word = !inner.is_empty() && !inner.contains(|c: char| c == '\'' || c.is_whitespace());
    is_word.then_some(inner)
}

fn number(name: &str, value: &str) -> Result<i64, AmqpError> {
    value.parse().map_err(|_| {
        let shown: String = value.chars().take(40).collect();
        let more = if name == "x-opt-offset" { ", or `@latest`" } else { "" };
        AmqpError::new(
            condition::INVALID_FIELD,
            format!("`{name}` is compared with `{shown}`; give a whole number{more}"),
        )
    })
}

/// Numbers begin at 0; -1 is what clients call the time before.
fn at(number: i64, inclusive: bool, position: fn(Mark) -> EventPosition) -> EventPosition {
    u64::try_from(number).map_or(EventPosition::Earliest, |number| position(Mark { number, inclusive }))
}

#[cfg(test)]
mod tests {
    use holm_amqp::Symbol;

    use super::*;

    fn filter(descriptor: Value, text: &str) -> Fields {
        Fields::new().with(Symbol::from_static(SELECTOR), Value::described(descriptor, text.into()))
    }

    fn by_name(text: &str) -> Result<EventPosition, AmqpError> {
        event_position(&filter(Symbol::from_static(SELECTOR).into(), text))
    }

    #[test]
    fn every_published_form_of_a_position_is_read() {
        let at = |millis| Timestamp::from_unix_millis(millis);
        let mark = |number, inclusive| Mark { number, inclusive };
        for (text, position) in [
            ("amqp.annotation.x-opt-offset > '-1'", EventPosition::Earliest),
            ("amqp.annotation.x-opt-offset > '@latest'", EventPosition::Latest),
            (
                "amqp.annotation.x-opt-offset > '123'",
                EventPosition::Offset(mark(123, false)),
            ),
            (
                "amqp.annotation.x-opt-offset >= '123'",
                EventPosition::Offset(mark(123, true)),
            ),
            ("amqp.annotation.x-opt-sequence-number > '-1'", EventPosition::Earliest),
            (
                "amqp.annotation.x-opt-sequence-number > '5'",
                EventPosition::Sequence(mark(5, false)),
            ),
            (
                "amqp.annotation.x-opt-sequence-number >= '5'",
                EventPosition::Sequence(mark(5, true)),
            ),
            (
                "amqp.annotation.x-opt-enqueued-time > '1795225981687'",
                EventPosition::After(at(1_795_225_981_687)),
            ),
            (
                "amqp.annotation.x-opt-enqueued-time >= '1795225981687'",
                EventPosition::Since(at(1_795_225_981_687)),
            ),
            (
                "amqp.annotation.x-opt-enqueuedtimeutc > 1795225981687",
                EventPosition::After(at(1_795_225_981_687)),
            ),
        ] {
            assert_eq!(by_name(text), Ok(position), "{text}");
            let by_number = event_position(&filter(Value::Ulong(SELECTOR_NUMBER), text));
            assert_eq!(by_number, Ok(position), "{text}");
        }
    }

    #[test]
    fn without_a_filter_a_reader_begins_at_the_oldest_event() {
        assert_eq!(event_position(&Fields::new()), Ok(EventPosition::Earliest));
    }

    #[test]
    fn the_largest_number_is_taken_and_a_larger_one_refused() {
        assert_eq!(
            by_name("amqp.annotation.x-opt-sequence-number > '9223372036854775807'"),
            Ok(EventPosition::Sequence(Mark {
                number: 9_223_372_036_854_775_807,
                inclusive: false
            }))
        );
        let refused = by_name("amqp.annotation.x-opt-sequence-number > '9223372036854775808'").unwrap_err();
        assert_eq!(refused.condition, condition::INVALID_FIELD);
    }

    #[test]
    fn a_value_that_makes_no_sense_is_named() {
        for text in [
            "amqp.annotation.x-opt-offset > '@first'",
            "amqp.annotation.x-opt-sequence-number > '@latest'",
            "amqp.annotation.x-opt-enqueued-time > '2026-01-02'",
        ] {
            let refused = by_name(text).unwrap_err();
            assert_eq!(refused.condition, condition::INVALID_FIELD, "{text}");
            assert!(refused.to_string().contains("give a whole number"), "{refused}");
        }
    }

    #[test]
    fn what_would_be_heeded_only_in_part_is_refused() {
        for text in [
            "",
            "amqp.annotation.x-opt-offset = '1'",
            "amqp.annotation.x-opt-offset > '1' AND level = 'high'",
            "amqp.annotation.x-opt-offset > ''",
            "amqp.annotation.x-opt-offset > '1",
            "amqp.annotation.x-opt-publisher > '1'",
            "x-opt-offset > '1'",
        ] {
            let refused = by_name(text).unwrap_err();
            assert_eq!(refused.condition, condition::NOT_IMPLEMENTED, "{text}");
        }
        for other in [
            Value::from("amqp.annotation.x-opt-offset > '-1'"),
            Value::described(
                Symbol::from_static("apache.org:legacy-amqp-topic-binding:string").into(),
                "x".into(),
            ),
            Value::described(Value::Ulong(1), "amqp.annotation.x-opt-offset > '-1'".into()),
        ] {
            let filters = Fields::new().with(Symbol::from_static(SELECTOR), other);
            let refused = event_position(&filters).unwrap_err();
            assert_eq!(refused.condition, condition::NOT_IMPLEMENTED);
        }
    }
}
