//! Texts with places for what a message says: topics of MQTT, subjects of NATS.
//!
//! ```text
//! site/{hub}/{device}/{module}  --parse--> Template --render(message)--> site/hub/d1/-
//! ```
//!
//! What is rendered has the levels of its template and no others: characters of a value that would begin a level, or match several,
//! are percent-encoded. A value that a message does not have is `-`, since a level may not be empty everywhere.

use std::fmt::Write as _;

use crate::routing::Routed;

/// The longest template. What is rendered of it stays far below the 65,535 bytes of a topic: ids have 128 at most, and few fit.
const MAX_BYTES: usize = 512;

/// What a text is for, and so what may not stand in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Levels divided by `/`; `+` and `#` match several. MQTT 3.1.1, 4.7.
    Topic,
    /// Tokens divided by `.`; `*` and `>` match several; no white space.
    Subject,
}

/// A text with places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    dialect: Dialect,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Place(Place),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Hub,
    Device,
    Module,
    Source,
    Partition,
}

const PLACES: [(&str, Place); 5] = [
    ("hub", Place::Hub),
    ("device", Place::Device),
    ("module", Place::Module),
    ("source", Place::Source),
    ("partition", Place::Partition),
];

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it, and the way out.
    pub(super) fn parse(text: &str, dialect: Dialect) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_BYTES {
            return Err(format!("it has {} bytes; give 1 to {MAX_BYTES}", text.len()));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((plain, after)) = rest.split_once('{') {
            let Some((name, behind)) = after.split_once('}') else {
                return Err("a `{` has no `}`; write a place as `{device}`".to_owned());
            };
            parts.push(Part::Text(plain.to_owned()));
            parts.push(Part::Place(place(name)?));
            rest = behind;
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        for part in &parts {
            if let Part::Text(text) = part {
                dialect.check(text)?;
            }
        }
        dialect.check_levels(text)?;
        Ok(Self { dialect, parts })
    }

    /// The text for a message of the hub `hub`.
    pub(super) fn render(&self, hub: &str, routed: &Routed) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Place(Place::Hub) => self.dialect.push(&mut text, hub),
                Part::Place(Place::Device) => self.dialect.push(&mut text, routed.device()),
                Part::Place(Place::Module) => self.dialect.push(&mut text, routed.module().unwrap_or_default()),
                Part::Place(Place::Source) => self.dialect.push(&mut text, routed.source.name()),
                Part::Place(Place::Partition) => self.dialect.push(&mut text, &routed.partition.to_string()),
            }
        }
        text
    }
}

fn place(name: &str) -> Result<Place, String> {
    let found = PLACES.iter().find(|(known, _)| *known == name);
    found.map(|(_, place)| *place).ok_or_else(|| {
        let known = PLACES.map(|(known, _)| format!("`{{{known}}}`")).join(", ");
        format!("`{{{name}}}` is no place; there are {known}")
    })
}

impl Dialect {
    const fn divider(self) -> char {
        match self {
            Self::Topic => '/',
            Self::Subject => '.',
        }
    }

    /// Whether a character can't stand in a level.
    fn is_special(self, character: char) -> bool {
        match self {
            Self::Topic => matches!(character, '/' | '+' | '#') || character.is_control(),
            Self::Subject => {
                matches!(character, '.' | '*' | '>') || character.is_control() || character.is_whitespace()
            }
        }
    }

    fn check(self, text: &str) -> Result<(), String> {
        let wrong = |character: &char| *character != self.divider() && self.is_special(*character);
        if let Some(character) = text.chars().find(wrong) {
            let shown = character.escape_default();
            return Err(format!("`{shown}` can't stand in it; leave it out"));
        }
        if text.contains('}') {
            return Err("a `}` has no `{`; write a place as `{device}`".to_owned());
        }
        Ok(())
    }

    fn check_levels(self, text: &str) -> Result<(), String> {
        // Kept by servers for themselves, as are values at the beginning: see `push`.
        if text.starts_with('$') {
            return Err("it begins with `$`, which servers keep for themselves; begin it otherwise".to_owned());
        }
        if self == Self::Subject && text.split('.').any(str::is_empty) {
            return Err("it has an empty token; write something between the dots".to_owned());
        }
        if self == Self::Subject && text.starts_with("_INBOX.") {
            return Err("it begins with `_INBOX.`, where answers go; begin it otherwise".to_owned());
        }
        Ok(())
    }

    /// Appends a value as a part of a level. `%` is encoded too, so that what was encoded can be told from what was not.
    fn push(self, text: &mut String, value: &str) {
        if value.is_empty() {
            return text.push('-');
        }
        for character in value.chars() {
            let begins = text.is_empty() && character == '$';
            if !begins && character != '%' && !self.is_special(character) {
                text.push(character);
                continue;
            }
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                write!(text, "%{byte:02X}").expect("writing to a string does not fail");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use holm_model::{Message, SystemProperty, Timestamp};

    use super::*;
    use crate::routing::Source;

    fn routed(device: &str, module: Option<&str>) -> Routed {
        let mut message = Message::new("x");
        message.system.set(SystemProperty::ConnectionDeviceId, device);
        if let Some(module) = module {
            message.system.set(SystemProperty::ConnectionModuleId, module);
        }
        Routed {
            sequence: 1,
            enqueued: Timestamp::from_unix_millis(0),
            source: Source::DeviceMessages,
            partition: 3,
            message,
        }
    }

    fn render(template: &str, dialect: Dialect, device: &str, module: Option<&str>) -> String {
        let template = Template::parse(template, dialect).unwrap();
        template.render("hub", &routed(device, module))
    }

    #[test]
    fn places_are_filled_and_what_is_missing_is_a_dash() {
        let text = "a/{hub}/{device}/{module}/{source}/{partition}";

        assert_eq!(
            render(text, Dialect::Topic, "d1", Some("m")),
            "a/hub/d1/m/DeviceMessages/3"
        );
        assert_eq!(render(text, Dialect::Topic, "d1", None), "a/hub/d1/-/DeviceMessages/3");
    }

    #[test]
    fn a_value_never_makes_levels_or_matches_several() {
        assert_eq!(
            render("{device}/x", Dialect::Topic, "$a+b#c.d%", None),
            "%24a%2Bb%23c.d%25/x"
        );
        assert_eq!(
            render("x.{device}", Dialect::Subject, "$a*b>c.d#", None),
            "x.$a%2Ab%3Ec%2Ed#"
        );
        let by_address = Template::parse("x.{hub}", Dialect::Subject).unwrap();
        assert_eq!(by_address.render("10.0.0.5", &routed("d1", None)), "x.10%2E0%2E0%2E5");
    }

    #[test]
    fn what_no_server_would_take_is_refused_with_the_way_out() {
        for (text, dialect, said) in [
            ("", Dialect::Topic, "0 bytes"),
            ("a/+/b", Dialect::Topic, "`+` can't"),
            ("a/#", Dialect::Topic, "`#` can't"),
            ("a\0b", Dialect::Topic, "`\\u{0}` can't"),
            ("$SYS/a", Dialect::Topic, "begins with `$`"),
            ("a/{nosuch}", Dialect::Topic, "there are `{hub}`, `{device}`"),
            ("a/{device", Dialect::Topic, "has no `}`"),
            ("a/device}", Dialect::Topic, "has no `{`"),
            ("a.*", Dialect::Subject, "`*` can't"),
            ("a.>", Dialect::Subject, "`>` can't"),
            ("a b", Dialect::Subject, "` ` can't"),
            ("a..b", Dialect::Subject, "empty token"),
            ("a.", Dialect::Subject, "empty token"),
            ("_INBOX.a", Dialect::Subject, "answers go"),
        ] {
            let refused = Template::parse(text, dialect).unwrap_err();

            assert!(refused.contains(said), "{text:?}: {refused}");
        }
        assert!(Template::parse(&"a".repeat(513), Dialect::Topic).is_err());
    }
}
