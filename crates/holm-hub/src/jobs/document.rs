//! The published forms of a job and of a device's row in it. Source: `hub-service-api.md` §2.6.

use std::collections::BTreeMap;

use holm_model::{MethodRequest, ServiceError, Timestamp, TwinUpdate, strict_json};
use holm_query::twin::{Collection, Condition, Query};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::storage::{JobCounts, JobDevice, JobRecord};

/// The longest id of a job. Source: as ids of devices.
const MAX_ID: usize = 128;
/// How long a job may go on if nobody says, and at most, in seconds.
const DEFAULT_SECONDS: u64 = 3600;
const MAX_SECONDS: u64 = 3600 * 24 * 30;

/// What a job does to each of its devices.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Work {
    /// Changes the twin.
    UpdateTwin(TwinUpdate),
    /// Calls a method.
    CallMethod(MethodRequest),
}

/// What was asked for, checked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Order {
    /// What to do.
    pub(super) work: Work,
    /// To whom: the query that finds them.
    pub(super) query: String,
    /// When; `None`: now.
    pub(super) start: Option<Timestamp>,
    /// How long it may go on after that.
    pub(super) seconds: u64,
}

impl Work {
    /// The published word for it.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::UpdateTwin(_) => "scheduleUpdateTwin",
            Self::CallMethod(_) => "scheduleDeviceMethod",
        }
    }

    /// Checks what no twin could hold: it would fail at each device.
    ///
    /// # Errors
    /// As [`TwinUpdate::check_initial`]; what fits in no empty twin fits in none.
    pub(super) fn check(&self) -> Result<(), ServiceError> {
        match self {
            Self::UpdateTwin(update) => update.check_initial("updateTwin"),
            Self::CallMethod(_) => Ok(()),
        }
    }
}

/// Checks an id: it becomes part of a path.
pub(super) fn check_id(id: &str) -> Result<(), ServiceError> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || "-:.+%_#*?!(),=@;$'".contains(c);
    if id.is_empty() || id.len() > MAX_ID || !id.chars().all(is_good) {
        return Err(ServiceError::argument_invalid(format!(
            "the job id `{id}` can't be used; give 1 to {MAX_ID} letters, digits and `- : . _`"
        )));
    }
    Ok(())
}

impl Order {
    /// Reads the body of `PUT /jobs/v2/{id}`, or what [`kept`] has made of it. What is done to twins is read as the body of a change of
    /// one twin would be, from the same bytes.
    ///
    /// # Errors
    /// `ArgumentInvalid` naming the member that breaks a rule.
    pub(super) fn from_json(body: &[u8]) -> Result<Self, ServiceError> {
        let invalid = |text: String| ServiceError::argument_invalid(text);
        let document = strict_json::parse(body).map_err(|error| invalid(format!("the job can't be read: {error}")))?;
        let Value::Object(document) = document else {
            return Err(invalid("the job must be a JSON object".to_owned()));
        };
        let raw = members(body)?;
        let part = |name: &str| document.get(name).filter(|value| !value.is_null());
        let bytes = |name: &str| {
            let found = raw.get(name).filter(|_| part(name).is_some());
            found
                .map(|raw| raw.get().as_bytes())
                .ok_or_else(|| invalid(format!("`{name}` is missing")))
        };
        let kind = part("type").and_then(Value::as_str).unwrap_or_default();
        let work = if kind.eq_ignore_ascii_case("scheduleUpdateTwin") {
            let update = TwinUpdate::from_json(bytes("updateTwin")?)?;
            let etag = part("updateTwin").and_then(|twin| twin.get("etag"));
            match etag.filter(|etag| !etag.is_null()).map(Value::as_str) {
                None | Some(Some("*" | "\"*\"" | "")) => {}
                _ => {
                    return Err(invalid(
                        "`updateTwin.etag` must be `*`: a job changes many twins".to_owned(),
                    ));
                }
            }
            Work::UpdateTwin(update)
        } else if kind.eq_ignore_ascii_case("scheduleDeviceMethod") {
            Work::CallMethod(MethodRequest::from_json(bytes("cloudToDeviceMethod")?)?)
        } else {
            let text = format!("`type` is `{kind}`; give `scheduleUpdateTwin` or `scheduleDeviceMethod`");
            return Err(invalid(text));
        };
        Ok(Self {
            work,
            query: query(part("queryCondition").and_then(Value::as_str).unwrap_or_default())?,
            start: start(part("startTime"))?,
            seconds: seconds(part("maxExecutionTimeInSeconds"))?,
        })
    }
}

/// The members of a body as they stand there.
fn members(body: &[u8]) -> Result<BTreeMap<String, &RawValue>, ServiceError> {
    serde_json::from_slice(body)
        .map_err(|error| ServiceError::argument_invalid(format!("the job can't be read: {error}")))
}

/// The query for those whom a condition is about: what stands behind WHERE, with or without `FROM devices WHERE`, for modules with
/// `FROM devices.modules WHERE`, or `*`. It is read here, where its author is told, as it will be asked.
fn query(condition: &str) -> Result<String, ServiceError> {
    let invalid = |text: String| ServiceError::argument_invalid(text);
    if condition.trim().is_empty() {
        return Err(invalid(
            "`queryCondition` is missing; give `*` for all devices".to_owned(),
        ));
    }
    let parsed =
        Condition::parse(condition).map_err(|problem| invalid(format!("`queryCondition` can't be read: {problem}")))?;
    let (columns, collection) = match parsed.collection() {
        Collection::Modules => ("deviceId, moduleId", "devices.modules"),
        _ => ("deviceId", "devices"),
    };
    let condition = condition.trim();
    let says_from = condition
        .split_whitespace()
        .next()
        .is_some_and(|word| word.eq_ignore_ascii_case("from"));
    // `*` is what a condition may be and a query not.
    let condition = match condition.strip_suffix('*') {
        Some(before) => format!("{before}true"),
        None => condition.to_owned(),
    };
    let query = if says_from {
        format!("SELECT {columns} {condition}")
    } else {
        format!("SELECT {columns} FROM devices WHERE {condition}")
    };
    Query::parse(&query).map(|_| query).map_err(|problem| {
        let asked = format!("SELECT {columns} FROM {collection} WHERE …");
        invalid(format!("`queryCondition` can't be asked, as `{asked}`: {problem}"))
    })
}

fn start(value: Option<&Value>) -> Result<Option<Timestamp>, ServiceError> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(value) => {
            let time = value.as_str().and_then(Timestamp::parse);
            time.map(Some).ok_or_else(|| {
                ServiceError::argument_invalid("`startTime` must be a time such as `2026-01-02T03:04:05Z`")
            })
        }
    }
}

fn seconds(value: Option<&Value>) -> Result<u64, ServiceError> {
    let Some(value) = value else { return Ok(DEFAULT_SECONDS) };
    match value.as_u64() {
        // Zero is what clients send that have no wish.
        Some(0) => Ok(DEFAULT_SECONDS),
        Some(seconds) if seconds <= MAX_SECONDS => Ok(seconds),
        _ => Err(ServiceError::argument_invalid(format!(
            "`maxExecutionTimeInSeconds` must be a whole number up to {MAX_SECONDS}"
        ))),
    }
}

/// A job as services read it. Members that are not known are left out: C# has no room for null.
pub(super) fn job(record: &JobRecord, counts: JobCounts) -> Value {
    let mut document: Map<String, Value> = serde_json::from_str(&record.document).unwrap_or_default();
    document.insert("jobId".to_owned(), json!(record.id));
    document.insert("createdTime".to_owned(), json!(record.created));
    document.insert("startTime".to_owned(), json!(record.start));
    if let Some(ended) = record.ended {
        document.insert("endTime".to_owned(), json!(ended));
    }
    document.insert("status".to_owned(), json!(record.status));
    if let Some(failure) = &record.failure {
        document.insert("failureReason".to_owned(), json!(failure));
        document.insert("statusMessage".to_owned(), json!(failure));
    }
    let count = counts.pending + counts.running + counts.completed + counts.failed + counts.canceled;
    let statistics = json!({
        "deviceCount": count,
        "failedCount": counts.failed,
        "succeededCount": counts.completed,
        "runningCount": counts.running,
        "pendingCount": counts.pending,
    });
    document.insert("deviceJobStatistics".to_owned(), statistics);
    Value::Object(document)
}

/// What of a body is kept: what says what to do, as it stands there.
///
/// # Errors
/// `ArgumentInvalid` when the body is no JSON object.
pub(super) fn kept(body: &[u8], order: &Order) -> Result<String, ServiceError> {
    let mut kept = members(body)?;
    kept.retain(|name, _| matches!(name.as_str(), "cloudToDeviceMethod" | "updateTwin" | "queryCondition"));
    kept.retain(|_, value| value.get() != "null");
    let written = |error: serde_json::Error| ServiceError::argument_invalid(format!("the job can't be kept: {error}"));
    let kind = serde_json::value::to_raw_value(order.work.kind()).map_err(written)?;
    let seconds = serde_json::value::to_raw_value(&order.seconds).map_err(written)?;
    kept.insert("type".to_owned(), &kind);
    kept.insert("maxExecutionTimeInSeconds".to_owned(), &seconds);
    serde_json::to_string(&kept).map_err(written)
}

/// A device's row, as `SELECT * FROM devices.jobs` shows it.
pub(crate) fn device(row: &JobDevice) -> Value {
    let mut document: Map<String, Value> = serde_json::from_str(&row.outcome).unwrap_or_default();
    document.insert("deviceId".to_owned(), json!(row.identity.device));
    if let Some(module) = &row.identity.module {
        document.insert("moduleId".to_owned(), json!(module));
    }
    document.insert("jobId".to_owned(), json!(row.job));
    document.insert("jobType".to_owned(), json!(row.kind));
    document.insert("status".to_owned(), json!(row.status));
    document.insert("createdDateTimeUtc".to_owned(), json!(row.created));
    document.insert("lastUpdatedDateTimeUtc".to_owned(), json!(row.updated));
    if let Some(started) = row.started {
        document.insert("startTimeUtc".to_owned(), json!(started));
    }
    if let Some(ended) = row.ended {
        document.insert("endTimeUtc".to_owned(), json!(ended));
    }
    Value::Object(document)
}

/// What is kept of a device that failed.
pub(super) fn failure(error: &ServiceError) -> String {
    let code = error
        .code
        .number()
        .map_or_else(|| error.code.name().to_owned(), |number| number.to_string());
    json!({ "error": { "code": code, "description": error.message } }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(condition: &str) -> Vec<u8> {
        let method = json!({"methodName": "reboot"});
        let body = json!({"type": "scheduleDeviceMethod", "queryCondition": condition, "cloudToDeviceMethod": method});
        body.to_string().into_bytes()
    }

    #[test]
    fn a_condition_that_is_taken_is_a_query_that_can_be_asked() {
        let query = |condition: &str| Order::from_json(&body(condition)).map(|order| order.query);
        let long = |characters: usize| format!("deviceId = '{}'", "x".repeat(characters - 13));

        let from = query("from devices where tags.a = 1").unwrap();
        let all = query(" * ").unwrap();
        let (fits, too_long) = (query(&long(8000)), query(&long(8186)).unwrap_err());
        let modules = query("FROM devices.modules WHERE *").unwrap();

        assert_eq!(from, "SELECT deviceId from devices where tags.a = 1");
        assert_eq!(all, "SELECT deviceId FROM devices WHERE true");
        assert_eq!(modules, "SELECT deviceId, moduleId FROM devices.modules WHERE true");
        assert!(fits.is_ok());
        assert!(too_long.message.contains("8192"), "{}", too_long.message);
    }

    #[test]
    fn what_is_read_of_a_job_is_read_again_from_what_is_kept_of_it() {
        let text =
            br#"{"type": "scheduleUpdateTwin", "queryCondition": "*", "startTime": null, "cloudToDeviceMethod": null,
            "updateTwin": {"etag": "*", "tags": {"a": 1.0, "b": 4503599627370495}}}"#;

        let order = Order::from_json(text).unwrap();
        let kept = kept(text, &order).unwrap();

        assert!(kept.contains(r#""a": 1.0, "b": 4503599627370495"#), "{kept}");
        assert_eq!(Order::from_json(kept.as_bytes()).unwrap(), order);
    }

    #[test]
    fn a_job_is_read_as_strictly_as_a_change_of_one_twin() {
        for (update, part) in [
            (r#"{"tags": {"a": 1, "a": 2}}"#, "`a`"),
            (r#"{"tags": {"n": 18446744073709551616}}"#, "tags.n"),
        ] {
            let text = format!(r#"{{"type": "scheduleUpdateTwin", "queryCondition": "*", "updateTwin": {update}}}"#);
            let refused = Order::from_json(text.as_bytes()).unwrap_err();
            assert!(refused.message.contains(part), "{}", refused.message);
        }
    }
}
