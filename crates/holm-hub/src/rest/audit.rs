//! Who changed what: an interface of our own.
//!
//! ```text
//! GET /holm/v1/audit?target=&since=&after=&before=&top=
//! [{"sequenceNumber":7,"time":"…","actor":"policy:iothubowner","operation":"device.update","target":"d1","etag":"…"}]
//! ```
//!
//! Oldest first; the next page begins `after` the last number of this one. With `before` (a number, or `end`) it is the last records
//! before that one instead of the first, again oldest first; the page before it is `before` the first number of this one.

use holm_model::{ServiceError, Timestamp};
use hyper::Method;
use serde_json::{Value, json};

use super::answer::{self, Answer, Failure};
use super::{Call, RestApi, not_allowed, page_size};
use crate::storage::{AuditFilter, AuditRecord};

/// The most records of one answer.
const MAX_LISTED: u32 = 1000;

impl RestApi {
    pub(super) async fn audit(&self, call: Call) -> Result<Answer, Failure> {
        if call.method != Method::GET {
            return Err(not_allowed(&call, "GET"));
        }
        const KNOWN: [&str; 6] = ["target", "since", "after", "before", "top", "api-version"];
        if let Some(name) = call.query.names().find(|name| !KNOWN.contains(name)) {
            let text = format!("there is no parameter `{name}`; give `target`, `since`, `after`, `before`, `top`");
            return Err(ServiceError::argument_invalid(text).into());
        }
        let text = |name: &str| call.query.get(name).filter(|text| !text.is_empty());
        let wrong = |name: &str, form: &str| ServiceError::argument_invalid(format!("`{name}` must be {form}"));
        let since = text("since").map(|text| Timestamp::parse(text).ok_or_else(|| wrong("since", "a time, ISO 8601")));
        let after = text("after").map(|text| text.parse().map_err(|_| wrong("after", "a sequence number")));
        let before = text("before").map(|text| match text {
            "end" => Ok(u64::MAX),
            text => text.parse().map_err(|_| wrong("before", "a sequence number, or `end`")),
        });
        let filter = AuditFilter {
            target: text("target").map(str::to_owned),
            since: since.transpose()?,
            after: after.transpose()?.unwrap_or(0),
            before: before.transpose()?,
        };
        let most = page_size(&call, MAX_LISTED)?;
        let found = self
            .backend
            .repository
            .read_list(move |view| view.audit(&filter, most))
            .await?;
        Ok(answer::json(&Value::Array(found.iter().map(shown).collect())))
    }
}

fn shown(record: &AuditRecord) -> Value {
    let mut document = json!({
        "sequenceNumber": record.sequence,
        "time": record.at,
        "actor": record.actor,
        "operation": record.operation,
        "target": record.target,
    });
    if let Some(mark) = &record.mark {
        match mark
            .parse::<u64>()
            .ok()
            .filter(|_| record.operation.starts_with("twin."))
        {
            Some(version) => document["version"] = json!(version),
            None => document["etag"] = json!(mark),
        }
    }
    document
}
