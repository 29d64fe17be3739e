//! The reference manual of the configuration, from the table of keys.

use super::keys::{KEYS, Key, Treatment};

/// `docs/configuration.md`, whole.
#[must_use]
pub fn reference_markdown() -> String {
    let mut text = String::from(
        "# Configuration of the edge\n\n\
         <!-- Made from the code by `holm_edge::config::reference_markdown()`; change `config/keys.rs`, not this file. -->\n\n\
         `holm edge run --config FILE` reads TOML with the key names of the original `/etc/aziot/config.toml`; what is our own \
         stands under `[holm]`. A key that is not in this file is refused, with the nearest known one. A file that holds a \
         key or a connection string must have mode 0600.\n\n\
         `file` values are URIs (`file:///path`) or absolute paths.\n",
    );
    section(&mut text, "Used", "", |treatment| matches!(treatment, Treatment::Used));
    section(
        &mut text,
        "Accepted without effect",
        "They may stay in a file that is moved here; the log says once that they do nothing.\n\n",
        |treatment| matches!(treatment, Treatment::NoEffect(_)),
    );
    section(
        &mut text,
        "Not yet supported",
        "They are refused by name, since a device would not do what its file says.\n\n",
        |treatment| matches!(treatment, Treatment::NotYet(_)),
    );
    text
}

fn section(text: &mut String, title: &str, intro: &str, belongs: impl Fn(Treatment) -> bool) {
    text.push_str(&format!("\n## {title}\n\n{intro}"));
    text.push_str("| key | type | default | meaning |\n| --- | --- | --- | --- |\n");
    for key in KEYS.iter().filter(|key| belongs(key.treatment)) {
        text.push_str(&row(key));
    }
}

fn row(key: &Key) -> String {
    let more = match key.treatment {
        Treatment::Used => String::new(),
        Treatment::NoEffect(why) => format!(" Here: {why}."),
        Treatment::NotYet(instead) => format!(" Instead: {instead}."),
    };
    format!(
        "| `{}` | {} | {} | {}{more} |\n",
        key.path, key.kind, key.default, key.meaning
    )
}
