//! Rewrites a text that is nearly JSON to JSON, as far as the original's reader takes it: texts in single quotes, names
//! without quotes, comments, a comma behind the last member, line breaks within texts.
//!
//! ```text
//! {'Env': ['A=1',], /* note */ Cmd: ["x"]}   ->   {"Env": ["A=1"],  "Cmd": ["x"]}
//! ```
//!
//! It judges nothing: what it makes of a text that is broken otherwise is refused by the reader behind it.

use std::iter::Peekable;
use std::str::Chars;

/// The text as JSON; `None` where a text or a comment does not end.
pub(super) fn to_json(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    // A comma waits until it is clear that it is not the last.
    let mut comma = false;
    while let Some(next) = rest.next() {
        if next.is_whitespace() || (next == '/' && skip_comment(&mut rest)?) {
            continue;
        }
        if std::mem::take(&mut comma) && !matches!(next, '}' | ']') {
            out.push(',');
        }
        match next {
            ',' => comma = true,
            '"' | '\'' => quoted(next, &mut rest, &mut out)?,
            _ if is_word(next) => {
                let mut word = String::from(next);
                while let Some(next) = rest.next_if(|next| is_word(*next)) {
                    word.push(next);
                }
                while rest.next_if(|next| next.is_whitespace()).is_some() {}
                if rest.peek() == Some(&':') {
                    word = format!("\"{word}\"");
                }
                out.push_str(&word);
            }
            _ => out.push(next),
        }
    }
    Some(out)
}

/// What stands in names, numbers and the words `true`, `false`, `null`.
fn is_word(next: char) -> bool {
    next.is_alphanumeric() || matches!(next, '_' | '$' | '-' | '+' | '.')
}

/// Passes over a comment behind its first `/`; false if it is none.
fn skip_comment(rest: &mut Peekable<Chars<'_>>) -> Option<bool> {
    match rest.peek() {
        Some('/') => {
            rest.by_ref().find(|next| *next == '\n');
            Some(true)
        }
        Some('*') => {
            rest.next();
            let mut star = false;
            rest.by_ref()
                .find(|next| std::mem::replace(&mut star, *next == '*') && *next == '/')?;
            Some(true)
        }
        _ => Some(false),
    }
}

/// Writes a text behind its first quotation mark, in double quotes.
fn quoted(mark: char, rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Option<()> {
    out.push('"');
    loop {
        match rest.next()? {
            end if end == mark => break,
            '\\' => match rest.next()? {
                '\'' => out.push('\''),
                escaped => out.extend(['\\', escaped]),
            },
            '"' => out.push_str("\\\""),
            control if control.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
    Some(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(text: &str) -> Option<Value> {
        serde_json::from_str(&to_json(text)?).ok()
    }

    #[test]
    fn what_the_original_takes_is_taken() {
        for (text, expected) in [
            (
                r#"{'Env': ['A=1', 'B="2"', 'C=it\'s']}"#,
                json!({"Env": ["A=1", "B=\"2\"", "C=it's"]}),
            ),
            ("{Cmd : [1.5, -2, true, null,],}", json!({"Cmd": [1.5, -2, true, null]})),
            ("{\"a\": 1, // one\n \"b\": /* two */ 2}", json!({"a": 1, "b": 2})),
            ("{\"a\": \"http://x/*y*/\"}", json!({"a": "http://x/*y*/"})),
            (
                "{\"a\": \"two\nlines\", 'C:\\\\data': 1}",
                json!({"a": "two\nlines", "C:\\data": 1}),
            ),
        ] {
            assert_eq!(read(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn json_stays_what_it_is() {
        let text = r#"{"a":{"b":[],"c\"\\":"\u00e4'//"},"d":[1e5,-0.5,false]}"#;

        assert_eq!(to_json(text).as_deref(), Some(text));
    }

    #[test]
    fn what_is_broken_stays_broken() {
        for text in [
            "{'a: 1}",
            "{\"a\": 1 /* }",
            "{\"a\" 1}",
            "{\"a\": 1,, \"b\": 2}",
            "{a b: 1}",
            "\\",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
