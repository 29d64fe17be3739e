//! As much YAML as a `config.yaml` of IoT Edge 1.1 has: maps by indentation, plain and quoted texts on one line, comments.
//!
//! What else YAML can be is no more than noticed: a list, a text over several lines or something in braces is a value of a
//! form that is not read, of a key that is told. So no key is passed over, and none is misread.

use super::ImportError;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    /// A text, without its quotes.
    Text(String),
    /// Anything else.
    Other,
}

/// A key that has a value, by its dotted path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) path: String,
    pub(super) value: Scalar,
}

/// The leaves of a text, in their order.
pub(super) fn leaves(text: &str) -> Result<Vec<Leaf>, ImportError> {
    let mut reader = Reader::default();
    for (line, text) in (1..).zip(text.lines()) {
        reader.line(text).map_err(|reason| ImportError::Yaml { line, reason })?;
    }
    Ok(reader.leaves)
}

#[derive(Default)]
struct Reader {
    /// The keys above, with their indentation.
    above: Vec<(usize, String)>,
    leaves: Vec<Leaf>,
    /// Everything indented further than this, and a list as far, belongs to the last leaf, whose form is not read.
    within: Option<usize>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let text = line.trim_start_matches(' ');
        let indent = line.len() - text.len();
        if text.starts_with('\t') {
            return Err("YAML is indented by spaces, not by tabs".to_owned());
        }
        let text = without_comment(text).trim_end();
        if text.is_empty() || text == "---" || text == "..." {
            return Ok(());
        }
        let is_list = text == "-" || text.starts_with("- ");
        let belongs_to = |key: usize| indent > key || (indent == key && is_list);
        if let Some(within) = self.within {
            if belongs_to(within) {
                return Ok(());
            }
            self.within = None;
        }
        let key = self.above.last().map(|(indent, _)| *indent);
        if let Some(key) = key.filter(|key| is_list && belongs_to(*key)) {
            let path = self.path();
            self.leaf(path, Scalar::Other);
            self.above.pop();
            self.within = Some(key);
            return Ok(());
        }
        while self.above.last().is_some_and(|(above, _)| *above >= indent) {
            self.above.pop();
        }
        let (name, value) = split(text).ok_or_else(|| format!("`{text}` is no `key: value`"))?;
        self.above.push((indent, name));
        if value.is_empty() {
            return Ok(());
        }
        let path = self.path();
        self.above.pop();
        if value != "{}" && value != "[]" {
            let value = scalar(value)?;
            self.within = (value == Scalar::Other).then_some(indent);
            self.leaf(path, value);
        }
        Ok(())
    }

    fn path(&self) -> String {
        let names: Vec<&str> = self.above.iter().map(|(_, name)| name.as_str()).collect();
        names.join(".")
    }

    fn leaf(&mut self, path: String, value: Scalar) {
        self.leaves.push(Leaf { path, value });
    }
}

/// `key: value`, where the key may be quoted.
fn split(text: &str) -> Option<(String, &str)> {
    let (name, value) = match text.chars().next()? {
        quote @ ('"' | '\'') => {
            let (name, rest) = text.get(1..)?.split_once(quote)?;
            (name, rest.trim_start().strip_prefix(':')?)
        }
        _ => match text.strip_suffix(':') {
            Some(name) if !name.contains(": ") => (name, ""),
            _ => text.split_once(": ")?,
        },
    };
    let name = name.trim();
    let is_name = !name.is_empty() && !name.starts_with(['-', '?', '&', '*', '!', '{', '[', '|', '>', '%', '@']);
    is_name.then(|| (name.to_owned(), value.trim()))
}

fn scalar(value: &str) -> Result<Scalar, String> {
    let open = || format!("the quotes of `{value}` do not end on this line");
    Ok(match value.chars().next() {
        Some('"') => {
            let text = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            let text = text.filter(|_| value.len() > 1).ok_or_else(open)?;
            Scalar::Text(text.replace("\\\"", "\"").replace("\\\\", "\\"))
        }
        Some('\'') => {
            let text = value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
            let text = text.filter(|_| value.len() > 1).ok_or_else(open)?;
            Scalar::Text(text.replace("''", "'"))
        }
        Some('{' | '[' | '|' | '>' | '&' | '*' | '!') => Scalar::Other,
        _ => Scalar::Text(value.to_owned()),
    })
}

/// Without what follows a `#` that begins a comment: the first sign, or after a space, outside of quotes.
fn without_comment(text: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (place, sign) in text.char_indices() {
        match (quote, sign) {
            (None, '#') if before.is_whitespace() => return text.get(..place).unwrap_or(text),
            // Within a word, as in `it's`, it is a sign like others.
            (None, '"' | '\'') if before.is_whitespace() || before == ':' => quote = Some(sign),
            (Some(open), _) if sign == open && before != '\\' => quote = None,
            _ => {}
        }
        before = sign;
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Vec<(String, Option<String>)> {
        let pair = |leaf: Leaf| match leaf.value {
            Scalar::Text(text) => (leaf.path, Some(text)),
            Scalar::Other => (leaf.path, None),
        };
        leaves(text).unwrap().into_iter().map(pair).collect()
    }

    #[test]
    fn maps_texts_and_comments_are_read() {
        let text = "a:\n  b: \"x # y: z\"  # note\n  c:\n    d: plain text\n# nothing\ne: 'it''s'\nf: {}\ng: a#b\n";

        let expected = [
            ("a.b", "x # y: z"),
            ("a.c.d", "plain text"),
            ("e", "it's"),
            ("g", "a#b"),
        ];
        let expected = expected.map(|(path, text)| (path.to_owned(), Some(text.to_owned())));
        assert_eq!(read(text), expected);
    }

    #[test]
    fn other_forms_are_noticed_and_end_with_their_indentation() {
        let text =
            "a:\n  - one\n  - two: 3\n    four: 5\nb: |\n  text: no key\n  more\nc: [1, 2]\nd:\n- x\n- y\ne: 1\n";

        let expected = [
            ("a", None),
            ("b", None),
            ("c", None),
            ("d", None),
            ("e", Some("1".to_owned())),
        ];
        assert_eq!(read(text), expected.map(|(path, text)| (path.to_owned(), text)));
    }

    #[test]
    fn what_is_no_yaml_is_told_by_its_line() {
        let line = |text: &str| match leaves(text) {
            Err(ImportError::Yaml { line, .. }) => line,
            other => panic!("{other:?}"),
        };

        assert_eq!(line("a: 1\nb\n"), 2);
        assert_eq!(line("a:\n\tb: 1\n"), 2);
        assert_eq!(line("a: \"open\n"), 1);
    }

    proptest! {
        #[test]
        fn any_text_gives_leaves_or_an_error(text in "[a-c:#'\"\\[{|> \\-\t\n]{0,60}|\\PC{0,40}") {
            let _read = leaves(&text).is_ok();
        }
    }
}
