//! What finished files are called.
//!
//! ```text
//! {iothub}/{partition}/{YYYY}/{MM}/{DD}/{HH}/{mm}  -->  hub/0/2026/01/02/03/04.json, and 04_1.json where that is there already
//! ```
//!
//! As published: each of the seven places must be there, in any order; the time is that of the first message of the file, in UTC. A pattern
//! whose last name has no extension gets that of the format.

use std::path::PathBuf;

use holm_model::Timestamp;

/// The places that a pattern must have. Source: the rule of the original's storage endpoints.
const PLACES: [(&str, Place); 7] = [
    ("iothub", Place::Hub),
    ("partition", Place::Partition),
    ("YYYY", Place::Year),
    ("MM", Place::Month),
    ("DD", Place::Day),
    ("HH", Place::Hour),
    ("mm", Place::Minute),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Hub,
    Partition,
    Year,
    Month,
    Day,
    Hour,
    Minute,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Place(Place),
}

/// The names of the files of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    hub: String,
    parts: Vec<Part>,
    /// With its dot.
    extension: String,
}

impl Names {
    /// Reads a pattern. `extension` is that of the format, without a dot.
    ///
    /// # Errors
    /// What is wrong with it, and the way out.
    pub(super) fn parse(text: &str, hub: &str, extension: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((plain, after)) = rest.split_once('{') {
            let (name, behind) = after
                .split_once('}')
                .ok_or("a `{` has no `}`; write a place as `{YYYY}`")?;
            let place = PLACES.iter().find(|(known, _)| *known == name);
            let (_, place) = place.ok_or_else(|| format!("`{{{name}}}` is no place; there are {}", all_places()))?;
            parts.push(Part::Text(plain.to_owned()));
            parts.push(Part::Place(*place));
            rest = behind;
        }
        let missing = PLACES.iter().find(|(_, place)| !parts.contains(&Part::Place(*place)));
        if let Some((name, _)) = missing {
            return Err(format!(
                "has no `{{{name}}}`; it must have all of {}, in any order",
                all_places()
            ));
        }
        let (rest, extension) = match rest.rsplit_once('.') {
            Some((before, given)) if !given.contains('/') && !given.is_empty() => (before, format!(".{given}")),
            _ => (rest, format!(".{extension}")),
        };
        parts.push(Part::Text(rest.to_owned()));
        check(text)?;
        Ok(Self {
            hub: hub.to_owned(),
            parts,
            extension,
        })
    }

    /// The name of a file, below the folder: its partition, when its first message was written, and how many have that name already.
    pub(super) fn path(&self, partition: u16, at: Timestamp, repeat: u32) -> PathBuf {
        // 2026-01-02T03:04:05.1230000Z
        let time = at.to_string();
        let digits = |from: usize, to: usize| time.get(from..to).unwrap_or_default();
        let mut path = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => path.push_str(text),
                Part::Place(Place::Hub) => path.push_str(&self.hub),
                Part::Place(Place::Partition) => path.push_str(&partition.to_string()),
                Part::Place(Place::Year) => path.push_str(digits(0, 4)),
                Part::Place(Place::Month) => path.push_str(digits(5, 7)),
                Part::Place(Place::Day) => path.push_str(digits(8, 10)),
                Part::Place(Place::Hour) => path.push_str(digits(11, 13)),
                Part::Place(Place::Minute) => path.push_str(digits(14, 16)),
            }
        }
        if repeat > 0 {
            path.push_str(&format!("_{repeat}"));
        }
        path.push_str(&self.extension);
        path.into()
    }
}

fn all_places() -> String {
    PLACES.map(|(name, _)| format!("`{{{name}}}`")).join(", ")
}

/// Names that every file system takes, below the folder and nowhere else.
fn check(text: &str) -> Result<(), String> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.=/{}".contains(&byte);
    if let Some(wrong) = text
        .chars()
        .find(|character| !u8::try_from(*character).is_ok_and(is_good))
    {
        let shown = wrong.escape_default();
        return Err(format!(
            "`{shown}` can't stand in it; use A-Z, a-z, 0-9, `-`, `_`, `.`, `=`, `/` and places"
        ));
    }
    if text.split('/').any(|name| name.is_empty() || name.starts_with('.')) {
        return Err("has a name that is empty or begins with `.`; write names joined by `/`".to_owned());
    }
    // Places make names longer by a few bytes; the hub's own name has 63 at most.
    if text.split('/').any(|name| name.len() > 128) {
        return Err("has a name of more than 128 bytes; make it shorter".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::definition::FileSettings;

    fn path(pattern: &str, repeat: u32) -> String {
        let names = Names::parse(pattern, "hub", "json").unwrap();
        let path = names.path(2, Timestamp::from_unix_millis(1_767_323_045_123), repeat);
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn files_have_the_published_names() {
        assert_eq!(path(FileSettings::NAMES, 0), "hub/2/2026/01/02/03/04.json");
        assert_eq!(path(FileSettings::NAMES, 1), "hub/2/2026/01/02/03/04_1.json");
        assert_eq!(
            path("y={YYYY}/{mm}-{HH}-{DD}-{MM}/p{partition}_{iothub}.ndjson.log", 3),
            "y=2026/04-03-02-01/p2_hub.ndjson_3.log"
        );
        assert_eq!(
            path("{YYYY}{MM}{DD}{HH}{mm}/{iothub}.{partition}", 0),
            "202601020304/hub.2.json"
        );
    }

    #[test]
    fn a_pattern_must_have_every_place_and_stay_in_its_folder() {
        let all = "{iothub}{partition}{YYYY}{MM}{DD}{HH}{mm}";
        for (pattern, said) in [
            ("{iothub}/{partition}/{YYYY}/{MM}/{DD}/{HH}".to_owned(), "has no `{mm}`"),
            (String::new(), "has no `{iothub}`"),
            (format!("{all}/{{mM}}"), "no place"),
            (format!("{all}/{{mm"), "no `}`"),
            (format!("../{all}"), "begins with `.`"),
            (format!("a/../{all}"), "begins with `.`"),
            (format!("/{all}"), "is empty"),
            (format!("{all}/"), "is empty"),
            (format!("a\\{all}"), "can't stand"),
            (format!("ü{all}"), "can't stand"),
            (format!("{}{all}", "n".repeat(120)), "128 bytes"),
        ] {
            let refused = Names::parse(&pattern, "hub", "json").unwrap_err();

            assert!(refused.contains(said), "{pattern}: {refused}");
        }
    }
}
