//! Words of other query languages, and how what they ask for is asked here.

use super::lexer::Token;
use super::path::Step;

const WORDS: &[(&str, &str)] = &[
    (
        "LIKE",
        "write `STARTSWITH(path, 'text')`, `ENDSWITH(path, 'text')` or `CONTAINS(path, 'text')`",
    ),
    ("BETWEEN", "write `path >= 1 AND path <= 10`"),
    ("IS", "write `path = null`, `IS_NULL(path)` or `IS_DEFINED(path)`"),
    ("COLLATE", "write `LOWER(path) = 'text'` to compare without case"),
    ("LIMIT", "write `SELECT TOP 10 …`"),
    (
        "OFFSET",
        "leave it out: results come page by page, and each page says where the next begins",
    ),
    (
        "HAVING",
        "leave it out: groups can't be chosen among; WHERE chooses what is counted",
    ),
    ("UNION", "ask for each by itself, or join the conditions with OR"),
];

/// The way out where a token is a word of another language, or begins what is written otherwise there.
pub(super) fn remedy(token: &Token) -> Option<&'static str> {
    match token {
        Token::OpenList => {
            Some("write `.[[name]]` for a name with other characters, and `[0]` for a place in an array")
        }
        Token::Path(steps) => match steps.as_slice() {
            [Step::Key(word)] => {
                let mut words = WORDS.iter();
                words
                    .find(|(foreign, _)| foreign.eq_ignore_ascii_case(word))
                    .map(|(_, remedy)| *remedy)
            }
            _ => None,
        },
        _ => None,
    }
}
