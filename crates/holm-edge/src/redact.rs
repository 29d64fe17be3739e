//! Takes secrets out of what leaves a device for somebody's help: lines of logs, and the configuration.
//!
//! What is recognised are the forms in which the keys and tokens of this world are written. A module that logs a password in a
//! form of its own can't be helped; so a bundle is still to be looked at before it is given away.

use std::borrow::Cow;
use std::sync::OnceLock;

use regex_lite::Regex;
use toml_edit::{DocumentMut, Item, Value};

/// What stands in the place of a secret.
const GONE: &str = "(redacted)";

/// Words in the names of keys whose values are secrets.
const SECRET_WORDS: [&str; 6] = [
    "connection_string",
    "password",
    "secret",
    "device_id_pk",
    "symmetric_key",
    "pin",
];

/// Names before secrets: keys in connection strings, signatures in tokens and URLs, passwords and tokens in JSON and settings.
const NAMES: &str = r"(?:SharedAccessKey|AccountKey|primaryKey|secondaryKey|access[_-]?key|\bsig|(?:password|passwd|passphrase|secret|credential|token|api[_-]?key)\w*)";

/// A line without the secrets that are recognised in it.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    static SECRETS: OnceLock<Option<[Regex; 3]>> = OnceLock::new();
    let secrets = SECRETS.get_or_init(|| {
        // A value in quotes, in quotes inside of quotes, or of one word.
        let named = format!(
            r#"(?i)({NAMES}\\"\s*[=:]\s*\\")(?:[^"\\]|\\[^"])*|({NAMES}"?\s*[=:]\s*")(?:[^"\\]|\\.)*|({NAMES}\\?"?\s*[=:]\s*)[^\s"\\&;,}}]+"#
        );
        let header = r#"(?i)(authorization\\?"?\s*[=:]\s*\\?"?|\bbearer\s+)[^\s"\\][^"\\]*"#;
        let user_of_url = r#"(://)[^\s/@"]+@"#;
        Some([
            Regex::new(&named).ok()?,
            Regex::new(header).ok()?,
            Regex::new(user_of_url).ok()?,
        ])
    });
    // The patterns are constants that a test tries.
    let Some([named, header, user_of_url]) = secrets else {
        return Cow::Borrowed(GONE);
    };
    let mut shown = Cow::Borrowed(text);
    for (pattern, with) in [
        (header, format!("${{1}}{GONE}")),
        (named, format!("${{1}}${{2}}${{3}}{GONE}")),
        (user_of_url, format!("${{1}}{GONE}@")),
    ] {
        if let Cow::Owned(changed) = pattern.replace_all(&shown, with) {
            shown = Cow::Owned(changed);
        }
    }
    shown
}

/// A line longer than this is cut: one that never ends, as of a program that draws a bar, would need all the memory there is.
const LONGEST_LINE: usize = 256 << 10;

/// Puts lines together from pieces of a log, so that no secret is cut in two, and gives them without their secrets. Each byte is
/// looked at once, and a line that has no end is held up to its bound; what it has beyond is left out, and that is told.
#[derive(Debug, Default)]
pub struct Lines {
    /// The line that has begun.
    open: Vec<u8>,
    /// What it has beyond the bound.
    left_out: usize,
}

impl Lines {
    /// Takes a piece in and gives the lines that it ends.
    pub fn take(&mut self, piece: &[u8]) -> String {
        let mut shown = String::new();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let room = LONGEST_LINE - self.open.len();
            let (held, beyond) = part.split_at(part.len().min(room));
            self.open.extend_from_slice(held);
            self.left_out += beyond.len();
            if part.ends_with(b"\n") {
                shown.push_str(&self.finish());
            }
        }
        shown
    }

    /// Gives the line that was not ended.
    pub fn finish(&mut self) -> String {
        let mut shown = line(&String::from_utf8_lossy(&self.open)).into_owned();
        if self.left_out > 0 {
            shown.push_str(&format!(" … ({} bytes of this line are left out)\n", self.left_out));
        }
        self.open.clear();
        self.left_out = 0;
        shown
    }
}

/// A configuration without its secrets; `None` when it can't be read, so that nobody knows what in it is secret.
#[must_use]
pub fn configuration(text: &str) -> Option<String> {
    let mut document: DocumentMut = text.parse().ok()?;
    for (name, item) in document.iter_mut() {
        redact_item(name.get(), item);
    }
    // Comments are an operator's own words, and may be a key that was put aside.
    let lines = document.to_string();
    let kept = lines.lines().filter(|line| !line.trim_start().starts_with('#'));
    Some(kept.map(|text| line(text).into_owned() + "\n").collect())
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

fn redact_item(name: &str, item: &mut Item) {
    let names_secret = is_secret(name);
    if let Some(table) = item.as_table_like_mut() {
        for (below, item) in table.iter_mut() {
            // `device_id_pk = { value = "…" }`: the table says that it is one. Where a key is, is none.
            let below = below.get();
            if names_secret && below == "value" {
                *item = Item::Value(Value::from(GONE));
            } else {
                redact_item(below, item);
            }
        }
    } else if let Some(array) = item.as_array_of_tables_mut() {
        for table in array.iter_mut() {
            for (below, item) in table.iter_mut() {
                redact_item(below.get(), item);
            }
        }
    } else if names_secret {
        *item = Item::Value(Value::from(GONE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_in_pieces_lose_their_secrets_and_keep_everything_else() {
        let text = "a: 1\npassword=hunter2 b\n\nlast";
        for length in 1..text.len() {
            let mut lines = Lines::default();
            let pieces = text.as_bytes().chunks(length).map(|piece| lines.take(piece));
            let shown: String = pieces.collect::<Vec<_>>().concat() + &lines.finish();

            assert_eq!(shown, "a: 1\npassword=(redacted) b\n\nlast", "{length}");
        }
    }

    #[test]
    fn a_line_without_an_end_costs_its_bound_and_no_more() {
        let mut lines = Lines::default();
        // In pieces of which each would have been looked at with all before it: hours.
        for _ in 0..1_000_000 {
            assert_eq!(lines.take(b"...................."), "");
        }
        assert!(lines.open.capacity() <= 2 * LONGEST_LINE);

        let shown = lines.take(b"\nnext password=x\n");

        let (cut, next) = shown.split_once('\n').unwrap();
        let left_out = format!("({} bytes of this line are left out)", 20_000_001 - LONGEST_LINE);
        assert!(cut.starts_with("....") && cut.ends_with(&left_out));
        assert_eq!(next, "next password=(redacted)\n");
    }

    #[test]
    fn keys_and_signatures_are_taken_out_of_lines_and_the_rest_stays() {
        for (said, shown) in [
            (
                "HostName=h;DeviceId=d;SharedAccessKey=abc+/==;x=1",
                "HostName=h;DeviceId=d;SharedAccessKey=(redacted);x=1",
            ),
            (
                "SharedAccessSignature sr=h%2Fd&sig=abcd%3D&se=17",
                "SharedAccessSignature sr=h%2Fd&sig=(redacted)&se=17",
            ),
            (
                r#"{"password": "hunter22", "user": "u"}"#,
                r#"{"password": "(redacted)", "user": "u"}"#,
            ),
            (
                r#"{"password": "correct horse \" staple", "secret":"a,b;c"}"#,
                r#"{"password": "(redacted)", "secret":"(redacted)"}"#,
            ),
            (
                r#"msg="{\"password\":\"ab cd\",\"n\":1}""#,
                r#"msg="{\"password\":\"(redacted)\",\"n\":1}""#,
            ),
            (
                "PASSWORD=abc api_key=k token: t",
                "PASSWORD=(redacted) api_key=(redacted) token: (redacted)",
            ),
            ("by http://user:pw@proxy:8080/x", "by http://(redacted)@proxy:8080/x"),
            ("Authorization: Bearer abc.def", "Authorization: (redacted)"),
            (r#""authorization":"Basic dTpw""#, r#""authorization":"(redacted)""#),
            ("the design=good of a sign", "the design=good of a sign"),
            ("SharedAccessKeyName=iothubowner", "SharedAccessKeyName=iothubowner"),
            ("nothing to hide", "nothing to hide"),
        ] {
            assert_eq!(line(said), shown);
        }
    }

    #[test]
    fn a_configuration_keeps_everything_but_its_secrets() {
        let text = "hostname = \"pump\"\n# connection_string = \"old SharedAccessKey=xyzxyz\"\n[provisioning]\nconnection_string = \"HostName=h\"\n\
                    [provisioning.authentication]\ndevice_id_pk = { value = \"a2V5\" }\n[agent.config.auth]\nusername = \"u\"\npassword = \"p\"\n";

        let shown = configuration(text).unwrap();

        assert!(
            shown.contains("hostname = \"pump\"") && shown.contains("username = \"u\""),
            "{shown}"
        );
        for secret in ["HostName=h", "a2V5", "\"p\"", "xyzxyz"] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
        assert_eq!(configuration("no [toml"), None);
    }
}
