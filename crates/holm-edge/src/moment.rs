//! Points in time as operators give them: as a time, in seconds since 1970, or as how long ago.
//!
//! Source: `edge-agent.md` §2.6 and §3.3.

use holm_model::Timestamp;

/// The forms, for whoever is to give one.
pub const FORMS: &str = "a time (2026-01-02T03:04:05Z), seconds since 1970, or how long ago (`1 day`, `10 min`)";

/// A point in time in one of the published forms; 0 means the beginning.
#[must_use]
pub fn read(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Ok(seconds) = text.parse::<i64>() {
        return Some(Timestamp::from_unix_seconds(seconds));
    }
    Timestamp::parse(text).or_else(|| Some(now.plus_millis(-ago(text)?)))
}

/// A duration in words, in milliseconds: `1d`, `2 hours`, `1 h 30 min`.
fn ago(text: &str) -> Option<i64> {
    let mut rest = text.trim();
    let mut millis: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let seconds: i64 = match unit {
            "s" | "sec" | "secs" | "second" | "seconds" => 1,
            "m" | "min" | "mins" | "minute" | "minutes" => 60,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3600,
            "d" | "day" | "days" => 86_400,
            "w" | "week" | "weeks" => 604_800,
            _ => return None,
        };
        millis = millis.checked_add(number.parse::<i64>().ok()?.checked_mul(seconds)?.checked_mul(1000)?)?;
        rest = after.trim_start();
    }
    (millis > 0).then_some(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_in_every_published_form() {
        let now = Timestamp::from_unix_seconds(1_000_000);
        for (text, seconds) in [
            ("0", Some(0)),
            ("999999", Some(999_999)),
            ("1970-01-01T00:01:00Z", Some(60)),
            ("1 day", Some(1_000_000 - 86_400)),
            ("2h30m", Some(1_000_000 - 9000)),
            ("yesterday", None),
            ("1 fortnight", None),
            ("", None),
        ] {
            assert_eq!(read(text, now).map(Timestamp::unix_seconds), seconds, "{text}");
        }
    }
}
