//! Points in time are texts in a document. The hub writes its own in one form, in which the order of the texts is the order of
//! the times; a literal beside such a member is brought into that form, so `lastActivityTime < '2026-01-01T00:00:00Z'` and
//! `… < '2026-01-01T01:00:00+01:00'` say the same. Texts that are no whole time stay, and compare as texts: `'2026-01'`.

use holm_model::Timestamp;

use super::ast::Expression;
use super::path::{Path, Step};

const MEMBERS: &[&str] = &[
    "statusUpdateTime",
    "lastActivityTime",
    "startTimeUtc",
    "endTimeUtc",
    "createdDateTimeUtc",
    "lastUpdatedDateTimeUtc",
];

fn is_time(path: &Path) -> bool {
    match path.steps() {
        [Step::Key(member)] => MEMBERS.contains(&member.as_str()),
        [.., Step::Key(last)] => last == "$lastUpdated",
        _ => false,
    }
}

/// Brings a literal into the hub's form where it is compared with a time of the hub's.
pub(super) fn align(path: &Expression, literal: &mut Expression) {
    if let (Expression::Path(path), Expression::Text(text)) = (path, literal)
        && is_time(path)
        && let Some(time) = Timestamp::parse(text)
    {
        *text = time.to_string();
    }
}
