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

/// A line without the secrets that are recognised in it.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    static SECRETS: OnceLock<Option<Regex>> = OnceLock::new();
    let secrets = SECRETS.get_or_init(|| {
        // Keys in connection strings; signatures in tokens and URLs; passwords in JSON and settings.
        let pattern = r#"(?i)((?:SharedAccessKey|AccountKey|primaryKey|secondaryKey|password|passwd|secret|\bsig)"?\s*[=:]\s*"?)[^\s"&;,}]{4,}"#;
        Regex::new(pattern).ok()
    });
    match secrets {
        Some(secrets) => secrets.replace_all(text, format!("${{1}}{GONE}")),
        // The pattern is a constant that a test tries.
        None => Cow::Borrowed(GONE),
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
            ("the design=good of a sign", "the design=good of a sign"),
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
