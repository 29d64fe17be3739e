//! The history of twins: an interface of our own. A point is a version of the twin, or a time.
//!
//! ```text
//! GET  /holm/v1/twins/{id}[/modules/{m}]/history?top=&last=       changes, newest first; the next page goes up to the number before,
//!                                                                  until one is empty
//! GET  …/history/at?point=                                        the twin as it was
//! GET  …/history/diff?from=&to=                                   merge patches that lead from one to the other; `to` is now if missing
//! POST …/history/restore   {"point":"7"}                          tags and desired properties as they were; with If-Match if given
//! ```

use holm_model::{Identity, ServiceError};
use hyper::Method;
use serde::Deserialize;
use serde_json::Value;

use super::answer::{self, Answer, Failure};
use super::{Call, RestApi, not_allowed, page_size, read};
use crate::metrics::TwinPart;
use crate::twin_history::{MAX_LISTED, Point, Step};

/// What is asked of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HistoryCall {
    List,
    At,
    Diff,
    Restore,
}

impl HistoryCall {
    pub(super) fn of(word: Option<&str>) -> Option<Self> {
        match word {
            None => Some(Self::List),
            Some("at") => Some(Self::At),
            Some("diff") => Some(Self::Diff),
            Some("restore") => Some(Self::Restore),
            Some(_) => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RestoreBody {
    /// A number or text.
    point: Value,
}

impl RestApi {
    pub(super) async fn twin_history(&self, call: Call, of: Identity, what: HistoryCall) -> Result<Answer, Failure> {
        let expected = if what == HistoryCall::Restore {
            Method::POST
        } else {
            Method::GET
        };
        if call.method != expected {
            return Err(not_allowed(&call, expected.as_str()));
        }
        let twins = &self.backend.twins;
        let given = |name: &str| call.query.get(name).filter(|text| !text.is_empty());
        let point = |name: &str| given(name).map(Point::parse).transpose();
        let missing = |name: &str| {
            let text = format!("`{name}` is missing; give a version of the twin, or a time");
            ServiceError::argument_invalid(text)
        };
        match what {
            HistoryCall::List => {
                let last = given("last").map(|text| {
                    let wrong = || ServiceError::argument_invalid("`last` must be the number of a change");
                    text.parse::<u64>().map_err(|_| wrong())
                });
                let steps = twins
                    .history(of, last.transpose()?, page_size(&call, MAX_LISTED)?)
                    .await?;
                Ok(answer::json(&Value::Array(steps.iter().map(Step::to_json).collect())))
            }
            HistoryCall::At => {
                let point = point("point")?.ok_or_else(|| missing("point"))?;
                Ok(answer::json(&twins.at(of.clone(), point).await?.to_json(&of)))
            }
            HistoryCall::Diff => {
                let from = point("from")?.ok_or_else(|| missing("from"))?;
                Ok(answer::json(&twins.difference(of, from, point("to")?).await?))
            }
            HistoryCall::Restore => {
                let point = match read::<RestoreBody>(&call)?.point {
                    Value::String(text) => Point::parse(&text)?,
                    other => Point::parse(&other.to_string())?,
                };
                let restored = twins.restore(of, point, call.if_match()).await;
                self.backend.metrics.twin_change(TwinPart::Desired, &restored);
                Ok(answer::json_with_etag(&restored?.to_json()))
            }
        }
    }
}
