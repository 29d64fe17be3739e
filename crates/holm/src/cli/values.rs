//! Values of options that are more than text: read here, once, so that a wrong one is a wrong command line (exit code 2)
//! and nothing was done.

#[cfg(feature = "edge")]
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use holm_identity::Thumbprint;
use holm_model::wire::percent;
use holm_model::{Timestamp, strict_json};
use serde_json::Value;

use crate::output::WrongUse;

/// Where `holm monitor` begins to read, as the hub's interface says it: `from=…` or `time=…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Begin(pub(crate) String);

/// A property of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Property {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// Reads a place to begin.
pub(super) fn begin(text: &str) -> Result<Begin, String> {
    Ok(Begin(match text {
        "start" => "from=earliest".to_owned(),
        "latest" => "from=latest".to_owned(),
        number if number.parse::<u64>().is_ok() => format!("from={number}"),
        time => {
            let moment = Timestamp::parse(time)
                .ok_or("it is no place to begin; give `start`, `latest`, a sequence number, or a time")?;
            format!("time={}", percent::encode(&moment.to_string()))
        }
    }))
}

/// The word that stands for a value, as it is written on the command line and in documents.
#[cfg(feature = "hub")]
pub(crate) fn word(value: &impl clap::ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Reads an id or a name. An empty one is told here: within a path it would ask for something else.
pub(super) fn id(text: &str) -> Result<String, String> {
    match text {
        "" => Err("it is empty; give an id or a name".to_owned()),
        id => Ok(id.to_owned()),
    }
}

/// Reads JSON.
pub(super) fn json(text: &str) -> Result<Value, String> {
    strict_json::parse(text.as_bytes())
        .map_err(|error| format!("it is not JSON; text wants quotes of its own: {error}"))
}

/// Reads an initial twin. The service takes members that no twin has, as the original does, and no device gets them: here they are refused.
#[cfg(feature = "hub")]
pub(super) fn initial_twin(text: &str) -> Result<Value, String> {
    let form = r#"give `{"tags": {…}, "properties": {"desired": {…}}}`"#;
    let twin = json(text)?;
    if !twin.is_object() && !twin.is_null() {
        return Err(format!("it is no object; {form}"));
    }
    for (path, member, known) in [
        ("", &twin, &["tags", "properties"][..]),
        ("properties.", &twin["properties"], &["desired"]),
    ] {
        let names = member.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
        if let Some(other) = names.into_iter().find(|name| !known.contains(name)) {
            return Err(format!("no initial twin has `{path}{other}`; {form}"));
        }
    }
    Ok(twin)
}

/// Reads `NAME=VALUE`.
pub(super) fn property(text: &str) -> Result<Property, String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or("it has no name and `=`; give NAME=VALUE")?;
    Ok(Property {
        name: name.to_owned(),
        value: value.to_owned(),
    })
}

/// Reads a number of bytes, with a unit if it is not bytes.
#[cfg(feature = "hub")]
pub(super) fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u32); 4] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
    let (number, shift) = unit.map_or((text, 0), |(unit, shift)| (text.trim_end_matches(unit), *shift));
    let number: Option<u64> = number.trim().parse().ok();
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "it is no size; give a number of bytes, or one with KiB, MiB, GiB or TiB".to_owned())
}

/// Reads a time: a number with `s`, `m`, `h` or `d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 24 * 3600)];
    let read = units.iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(*seconds)
    });
    read.map(Duration::from_secs)
        .ok_or_else(|| "it is no time; give a number with `s`, `m`, `h` or `d`, such as `90s`".to_owned())
}

/// Reads a point in time.
#[cfg(feature = "hub")]
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).ok_or_else(|| "it is no time; give one as 2026-01-02T03:04:05Z".to_owned())
}

/// Reads a time, or how long ago it was; gives it as ISO 8601.
pub(super) fn since(text: &str) -> Result<String, String> {
    let moment = Timestamp::parse(text).or_else(|| {
        let ago = i64::try_from(duration(text).ok()?.as_millis()).ok()?;
        Some(Timestamp::from(std::time::SystemTime::now()).plus_millis(-ago))
    });
    let moment = moment.ok_or("it is no time; give one as 2026-01-02T03:04:05Z, or how long ago, such as `2h`")?;
    Ok(moment.to_string())
}

/// Reads a point in the history of a twin: a version of it, a time, or how long ago.
pub(super) fn point(text: &str) -> Result<String, String> {
    if text.parse::<u64>().is_ok() {
        return Ok(text.to_owned());
    }
    since(text)
        .map_err(|_| "it is no point; give a version of the twin, a time, or how long ago, such as `2h`".to_owned())
}

/// Reads the thumbprint of a certificate.
pub(super) fn thumbprint(text: &str) -> Result<Thumbprint, String> {
    text.parse()
        .map_err(|error: holm_identity::x509_auth::InvalidThumbprint| error.to_string())
}

/// Reads the socket of an edge.
#[cfg(feature = "edge")]
pub(super) fn socket(text: &str) -> Result<String, String> {
    match text.strip_prefix("unix://") {
        Some(path) if !path.is_empty() => Ok(text.to_owned()),
        _ => Err("it is no socket of an edge; give `unix:///path/to/mgmt.sock`".to_owned()),
    }
}

/// Reads a point in time; the edge, whose clock it is by, reads it again.
#[cfg(feature = "edge")]
pub(super) fn moment(text: &str) -> Result<String, String> {
    use holm_edge::moment;
    match moment::read(text, Timestamp::from(std::time::SystemTime::now())) {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!("give {}", moment::FORMS)),
    }
}

/// Reads the number of a dead letter.
#[cfg(feature = "edge")]
pub(super) fn dead_letter(text: &str) -> Result<u64, String> {
    let number = text.parse();
    number.map_err(|_| "give the number of a dead letter; `holm edge dead-letters list` shows them".to_owned())
}

/// Where the configuration is, if nobody says: where the service of `packaging/` reads it, else where the original had it. In
/// this order: what is left of the original on a device that was moved is another hub's.
#[cfg(feature = "edge")]
const CONFIGURATIONS: [&str; 2] = ["/etc/holm/config.toml", "/etc/aziot/config.toml"];

/// The configuration that was named, else the usual one.
#[cfg(feature = "edge")]
pub(crate) fn configuration(named: Option<&Path>) -> PathBuf {
    named.unwrap_or_else(|| usual(CONFIGURATIONS.map(Path::new))).to_owned()
}

/// The first of two files, but the second where that alone is there.
#[cfg(feature = "edge")]
fn usual([first, second]: [&Path; 2]) -> &Path {
    if second.exists() && !first.exists() {
        second
    } else {
        first
    }
}

/// The value of a variable of the environment; an empty one is none.
pub(super) fn variable<T>(name: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, WrongUse> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => match read(&text) {
            Ok(value) => Ok(Some(value)),
            Err(why) => Err(WrongUse(format!("the variable `{name}` is `{text}`: {why}"))),
        },
        _ => Ok(None),
    }
}

/// The further authority to trust that `HOLM_CA` names.
pub(super) fn authority() -> Option<PathBuf> {
    path("HOLM_CA")
}

/// The path in a variable of the environment; an empty one is none.
pub(crate) fn path(name: &str) -> Option<PathBuf> {
    let named = std::env::var_os(name).filter(|text| !text.is_empty());
    named.map(PathBuf::from)
}

/// The connection string in `HOLM_HUB`. It is read where it is used: what is wrong with it must not be shown with it.
pub(crate) fn hub() -> Option<String> {
    let text = std::env::var("HOLM_HUB").ok();
    text.filter(|text| !text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_to_begin_is_a_word_a_number_or_a_time() {
        let read = |text: &str| begin(text).map(|begin| begin.0);

        assert_eq!(read("start").as_deref(), Ok("from=earliest"));
        assert_eq!(read("17").as_deref(), Ok("from=17"));
        assert!(read("2026-01-02T03:04:05Z").is_ok_and(|query| query.starts_with("time=2026-01-02T03")));
        assert!(read("yesterday").is_err_and(|error| error.contains("`latest`")));
    }

    #[test]
    #[cfg(feature = "edge")]
    fn what_is_no_time_and_no_number_is_told_with_what_would_be() {
        assert!(moment("1 day").is_ok() && moment("2026-01-02T03:04:05Z").is_ok());
        assert!(moment("garbage").is_err_and(|error| error.contains("how long ago")));
        assert_eq!(dead_letter("7"), Ok(7));
        assert!(dead_letter("x").is_err_and(|error| error.contains("number of a dead letter")));
    }

    #[test]
    #[cfg(feature = "edge")]
    fn the_configuration_of_the_service_comes_before_what_the_original_left() {
        let folder = tempfile::tempdir().unwrap();
        let [ours, theirs] = ["ours", "theirs"].map(|name| folder.path().join(name));
        let found = || usual([&ours, &theirs]).to_owned();

        let none = found();
        std::fs::write(&theirs, "").unwrap();
        let moved = found();
        std::fs::write(&ours, "").unwrap();
        let both = found();

        assert_eq!([&none, &moved, &both], [&ours, &theirs, &ours]);
        assert_eq!(configuration(Some(&theirs)), theirs);
    }

    #[test]
    #[cfg(feature = "edge")]
    fn an_empty_id_and_json_where_there_is_none_to_give_are_wrong_command_lines() {
        let is_taken = |line: &str| crate::iotedge::parse(line.split(' ').map(Into::into)).is_ok();

        for line in ["holm edge list --json", "holm edge logs m", "holm edge restart m"] {
            assert!(is_taken(line), "{line}");
        }
        for line in [
            "holm edge logs m --json",
            "holm edge restart m --json",
            "holm edge upgrade --json",
            "holm edge logs ",
            "holm edge restart ",
        ] {
            assert!(!is_taken(line), "{line}");
        }
    }

    #[test]
    fn a_time_has_a_unit() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("15m", 900), ("1h", 3600), ("2d", 172_800)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "s", "5", "1.5h", "1w", "-1s", "99999999999999999d"] {
            assert!(duration(text).is_err_and(|error| error.contains("`90s`")), "{text}");
        }
    }

    #[test]
    fn a_point_is_a_version_a_time_or_how_long_ago() {
        assert_eq!(point("17").as_deref(), Ok("17"));
        assert_eq!(
            point("2026-01-02T03:04:05Z").as_deref(),
            Ok("2026-01-02T03:04:05.0000000Z")
        );
        assert!(point("2h").is_ok_and(|time| Timestamp::parse(&time).is_some()));
        assert!(point("yesterday").is_err_and(|error| error.contains("version")));
        assert!(since("17").is_err());
    }

    #[test]
    #[cfg(feature = "hub")]
    fn an_initial_twin_has_tags_and_desired_properties_and_nothing_else() {
        for good in [
            r#"{"tags": {"a": 1}, "properties": {"desired": {"b": 2}}}"#,
            r#"{"properties": {}}"#,
            "{}",
            "null",
        ] {
            assert!(initial_twin(good).is_ok(), "{good}");
        }
        for (wrong, named) in [
            (r#"{"tag": {"a": 1}}"#, "`tag`"),
            (r#"{"desired": {"a": 1}}"#, "`desired`"),
            (r#"{"tags": {}, "properties.desired": {}}"#, "`properties.desired`"),
            (r#"{"properties": {"reported": {}}}"#, "`properties.reported`"),
            ("7", "no object"),
        ] {
            let told = initial_twin(wrong).unwrap_err();
            assert!(
                told.contains(named) && told.contains(r#""properties": {"desired""#),
                "{wrong}: {told}"
            );
        }
    }

    #[test]
    fn a_property_has_a_name() {
        assert_eq!(property("a=b=c").map(|property| property.value).as_deref(), Ok("b=c"));
        assert!(property("a").is_err() && property("=b").is_err());
    }
}

/// `--tail`: a number of lines; `None` is all.
#[cfg(feature = "edge")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogTail(pub(crate) Option<u64>);

/// Reads `--tail`, with the published word for all.
#[cfg(feature = "edge")]
pub(crate) fn tail(text: &str) -> Result<LogTail, String> {
    if text == "all" {
        return Ok(LogTail(None));
    }
    let lines = text.parse().map(|lines| LogTail(Some(lines)));
    lines.map_err(|_| "give a number of lines, or `all`".to_owned())
}
