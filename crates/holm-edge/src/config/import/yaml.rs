//! As much YAML as a `config.yaml` of IoT Edge 1.1 has: maps by indentation or in braces, plain and quoted texts on one line,
//! comments.
//!
//! What else YAML can be is no more than noticed: a list or a text over several lines is a value of a form that is not read, of
//! a key that is told. Braces that do not end on their line are refused. So no key is passed over, and none is misread.

use super::ImportError;

/// Maps in braces within each other: no configuration has more than three.
const MAX_DEPTH: usize = 16;

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
        let (name, value) = split(text).ok_or("it is no `key: value`")?;
        self.above.push((indent, name));
        if value.is_empty() {
            return Ok(());
        }
        let path = self.path();
        self.above.pop();
        if let Some(inside) = value.strip_prefix('{') {
            let rest = braces(inside, &path, MAX_DEPTH, &mut self.leaves)?.trim();
            return match rest.is_empty() {
                true => Ok(()),
                false => Err(format!("something comes after the closing brace of `{path}`")),
            };
        }
        if value != "[]" {
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

/// Reads `key: value, …}`, of the map at `path`; gives what comes after it.
fn braces<'t>(mut text: &'t str, path: &str, depth: usize, leaves: &mut Vec<Leaf>) -> Result<&'t str, String> {
    let open = || format!("the braces of `{path}` do not end on this line; write a key a line");
    if depth == 0 {
        return Err(format!("`{path}` has braces within braces, too deep"));
    }
    loop {
        text = text.trim_start();
        if let Some(rest) = text.strip_prefix('}') {
            return Ok(rest);
        }
        let (name, rest) = word(text, &[':', ',', '}'])?;
        let rest = rest.trim_start();
        let rest = rest.strip_prefix(':').ok_or_else(|| match rest.is_empty() {
            true => open(),
            false => format!("something in the braces of `{path}` is no `key: value`"),
        })?;
        let below = format!("{path}.{name}");
        text = in_braces(rest.trim_start(), &below, depth, leaves)?.trim_start();
        text = match text.strip_prefix(',') {
            Some(rest) => rest,
            None if text.starts_with('}') => text,
            None if text.is_empty() => return Err(open()),
            None => return Err(format!("something comes after the value of `{below}`")),
        };
    }
}

/// Reads a value within braces.
fn in_braces<'t>(text: &'t str, path: &str, depth: usize, leaves: &mut Vec<Leaf>) -> Result<&'t str, String> {
    if let Some(inside) = text.strip_prefix('{') {
        return braces(inside, path, depth - 1, leaves);
    }
    let (value, rest) = match text.strip_prefix('[') {
        Some(list) => {
            let (_, rest) = list
                .split_once(']')
                .ok_or_else(|| format!("the list of `{path}` does not end on this line"))?;
            (Scalar::Other, rest)
        }
        None => {
            let (value, rest) = word(text, &[',', '}'])?;
            (Scalar::Text(value), rest)
        }
    };
    leaves.push(Leaf {
        path: path.to_owned(),
        value,
    });
    Ok(rest)
}

/// A quoted text, or a plain one up to one of these signs; and what comes after it.
fn word<'t>(text: &'t str, ends: &[char]) -> Result<(String, &'t str), String> {
    let Some(quote) = text.chars().next().filter(|sign| matches!(sign, '"' | '\'')) else {
        let (plain, rest) = text.split_at(text.find(ends).unwrap_or(text.len()));
        return Ok((plain.trim_end().to_owned(), rest));
    };
    let mut read = String::new();
    let mut signs = text.char_indices().skip(1).peekable();
    while let Some((place, sign)) = signs.next() {
        let is_doubled = signs.peek().is_some_and(|(_, next)| *next == '\'');
        match sign {
            '\\' if quote == '"' => read.extend(signs.next().map(|(_, sign)| sign)),
            '\'' if quote == '\'' && is_doubled => read.extend(signs.next().map(|(_, sign)| sign)),
            _ if sign == quote => return Ok((read, text.get(place + 1..).unwrap_or_default())),
            _ => read.push(sign),
        }
    }
    Err(OPEN_QUOTES.to_owned())
}

/// Never with what stands in them: it may be a key.
const OPEN_QUOTES: &str = "its quotes do not end on this line";

fn scalar(value: &str) -> Result<Scalar, String> {
    Ok(match value.chars().next() {
        Some('"') => {
            let text = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            let text = text.filter(|_| value.len() > 1).ok_or(OPEN_QUOTES)?;
            Scalar::Text(text.replace("\\\"", "\"").replace("\\\\", "\\"))
        }
        Some('\'') => {
            let text = value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
            let text = text.filter(|_| value.len() > 1).ok_or(OPEN_QUOTES)?;
            Scalar::Text(text.replace("''", "'"))
        }
        Some('[' | '|' | '>' | '&' | '*' | '!') => Scalar::Other,
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
    fn maps_in_braces_are_read() {
        let text = "a: {b: 1, 'c': \"x, }y\", d: { e: unix:///s, f: [1, 2], g: 'it''s' } }  # note\nh: {}\ni: 2\n";

        let expected = [
            ("a.b", Some("1")),
            ("a.c", Some("x, }y")),
            ("a.d.e", Some("unix:///s")),
            ("a.d.f", None),
            ("a.d.g", Some("it's")),
            ("i", Some("2")),
        ];
        let expected = expected.map(|(path, text)| (path.to_owned(), text.map(str::to_owned)));
        assert_eq!(read(text), expected);
    }

    #[test]
    fn braces_that_are_not_understood_are_refused_with_their_line() {
        for inside in [
            "{b: 1,",
            "{b: 1",
            "{b}",
            "{b: 1} c",
            "{b: 'x}",
            "{b: [1}",
            "{b: \"x\" y}",
            &"{a: ".repeat(40),
        ] {
            match leaves(&format!("x: 1\na: {inside}\nc: 2\n")) {
                Err(ImportError::Yaml { line: 2, .. }) => {}
                other => panic!("{inside}: {other:?}"),
            }
        }
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

    #[test]
    fn what_is_wrong_is_told_without_what_stands_there() {
        for line in [
            "device_connection_string:\"HostName=h;SharedAccessKey=c2VjcmV0\"",
            "device_connection_string: \"HostName=h;SharedAccessKey=c2VjcmV0",
            "p: {key: 'c2VjcmV0}",
            "p: {key: a} c2VjcmV0",
            "p: {key: \"a\" c2VjcmV0}",
            "p: {c2VjcmV0}",
        ] {
            let error = leaves(line).unwrap_err().to_string();

            assert!(error.starts_with("line 1: ") && !error.contains("c2VjcmV0"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_leaves_or_an_error(text in "[a-c:#'\"\\[{},|> \\-\t\n]{0,60}|\\PC{0,40}") {
            let _read = leaves(&text).is_ok();
        }
    }
}
