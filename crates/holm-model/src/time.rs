//! Points in time as the published interfaces write them.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// A point in time, in whole milliseconds since 1970-01-01T00:00:00Z.
///
/// Shown as `2026-01-02T03:04:05.1230000Z` (seven decimals: C# parses exactly that form). [`Timestamp::NEVER`] is how the
/// published interfaces say "has not happened yet"; they never use null for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timestamp(i64);

/// The first millisecond of the year 1, in milliseconds since 1970.
const YEAR_ONE: i64 = -62_135_596_800_000;
/// The last millisecond of the year 9999.
const YEAR_9999: i64 = 253_402_300_799_999;

impl Timestamp {
    /// "Never": `0001-01-01T00:00:00Z`.
    pub const NEVER: Self = Self(YEAR_ONE);

    /// From milliseconds since 1970-01-01T00:00:00Z; values outside the years 1 to 9999 are moved to the nearer end.
    #[must_use]
    pub const fn from_unix_millis(millis: i64) -> Self {
        if millis < YEAR_ONE {
            Self(YEAR_ONE)
        } else if millis > YEAR_9999 {
            Self(YEAR_9999)
        } else {
            Self(millis)
        }
    }

    /// From seconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_unix_seconds(seconds: i64) -> Self {
        Self::from_unix_millis(seconds.saturating_mul(1000))
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn unix_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970-01-01T00:00:00Z, rounded down.
    #[must_use]
    pub const fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This point moved by `millis` milliseconds (negative: back).
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self::from_unix_millis(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this point; negative when `earlier` is in fact later.
    #[must_use]
    pub const fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Reads an ISO 8601 / RFC 3339 point in time; a text without an offset is taken as UTC.
    ///
    /// Returns `None` when the text is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let parsed = OffsetDateTime::parse(text, &Rfc3339)
            .or_else(|_| OffsetDateTime::parse(&format!("{text}Z"), &Rfc3339))
            .ok()?;
        let millis = parsed
            .to_offset(UtcOffset::UTC)
            .unix_timestamp_nanos()
            .div_euclid(1_000_000);
        i64::try_from(millis).ok().map(Self::from_unix_millis)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self::from_unix_millis(match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => millis(since),
            Err(before) => -millis(before.duration()),
        })
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NEVER {
            return f.write_str("0001-01-01T00:00:00Z");
        }
        let moment = OffsetDateTime::from_unix_timestamp(self.unix_seconds()).map_err(|_| fmt::Error)?;
        let ((year, month, day), (hour, minute, second)) = (moment.to_calendar_date(), moment.to_hms());
        let year = u32::try_from(year).map_err(|_| fmt::Error)?;
        let millis = u32::try_from(self.0.rem_euclid(1000)).map_err(|_| fmt::Error)?;
        // Written by hand: every message has its time, and the general formatter takes half a microsecond.
        let mut text = *b"0000-00-00T00:00:00.0000000Z";
        let fields = [
            (0..4, year),
            (5..7, u32::from(u8::from(month))),
            (8..10, day.into()),
            (11..13, hour.into()),
            (14..16, minute.into()),
            (17..19, second.into()),
            (20..23, millis),
        ];
        for (place, mut number) in fields {
            for digit in text.get_mut(place).into_iter().flatten().rev() {
                *digit = b"0123456789"[number as usize % 10];
                number /= 10;
            }
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not an ISO 8601 point in time")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_shown_with_seven_decimals_in_utc() {
        assert_eq!(
            Timestamp::from_unix_millis(1_767_323_045_123).to_string(),
            "2026-01-02T03:04:05.1230000Z"
        );
    }

    #[test]
    fn moments_of_all_ages_are_read_back_as_they_are_shown() {
        let moments = [
            1,
            -1,
            -999,
            951_782_400_000,
            253_402_300_799_999,
            YEAR_ONE + 1,
            -12_219_292_800_000,
        ];
        for moment in moments.map(Timestamp::from_unix_millis) {
            assert_eq!(Timestamp::parse(&moment.to_string()), Some(moment), "{moment}");
        }
        assert_eq!(
            Timestamp::from_unix_millis(-1).to_string(),
            "1969-12-31T23:59:59.9990000Z"
        );
    }

    #[test]
    fn never_is_the_first_moment_of_year_one() {
        assert_eq!(Timestamp::NEVER.to_string(), "0001-01-01T00:00:00Z");
        assert_eq!(Timestamp::parse("0001-01-01T00:00:00Z"), Some(Timestamp::NEVER));
    }

    #[test]
    fn offsets_and_missing_offsets_are_read() {
        let noon = Timestamp::from_unix_millis(1_767_355_200_000);
        assert_eq!(Timestamp::parse("2026-01-02T12:00:00Z"), Some(noon));
        assert_eq!(Timestamp::parse("2026-01-02T14:00:00+02:00"), Some(noon));
        assert_eq!(Timestamp::parse("2026-01-02T12:00:00.0000000"), Some(noon));
        assert_eq!(Timestamp::parse("yesterday"), None);
    }
}
