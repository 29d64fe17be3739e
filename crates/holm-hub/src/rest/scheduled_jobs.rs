//! `/jobs/v2`: scheduled jobs. Source: `hub-service-api.md` §2.2, §2.6.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holm_model::{ErrorCode, ServiceError};
use hyper::Method;
use serde_json::{Value, json};

use super::answer::{self, Answer, Failure};
use super::query::{continuation, items, shown};
use super::{Call, RestApi, not_allowed};
use crate::jobs::JobList;
use crate::queries::{MAX_ITEMS, Page};

impl RestApi {
    pub(super) async fn scheduled_job(&self, call: Call, id: String) -> Result<Answer, Failure> {
        let job = match call.method {
            Method::GET => match self.jobs.get(id.clone()).await {
                Err(error) if error.code == ErrorCode::JobNotFound => self.other_job(id, error).await?,
                job => job?,
            },
            Method::PUT => self.jobs.create(id, &call.body).await?,
            _ => return Err(not_allowed(&call, "GET or PUT")),
        };
        Ok(answer::json(&job))
    }

    /// A job of import or export is one of which nothing is known here: the original's command line then asks for it there.
    async fn other_job(&self, id: String, unknown: ServiceError) -> Result<Value, ServiceError> {
        let Some(transfers) = &self.transfers else {
            return Err(unknown);
        };
        match transfers.get(id).await {
            Ok(transfer) => Ok(json!({ "jobId": transfer.id, "type": "unknown", "status": "unknown" })),
            Err(error) if error.code == ErrorCode::JobNotFound => Err(unknown),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn cancel_scheduled_job(&self, call: Call, id: String) -> Result<Answer, Failure> {
        if call.method != Method::POST {
            return Err(not_allowed(&call, "POST"));
        }
        Ok(answer::json(&self.jobs.cancel(id).await?))
    }

    pub(super) async fn list_scheduled_jobs(&self, call: Call) -> Result<Answer, Failure> {
        if call.method != Method::GET {
            return Err(not_allowed(&call, "GET"));
        }
        let wish = |name: &str| call.query.get(name).filter(|text| !text.is_empty()).map(str::to_owned);
        let after = match continuation(&call) {
            None => String::new(),
            Some(text) => read(&text).ok_or_else(|| {
                ServiceError::argument_invalid(
                    "the header `x-ms-continuation` is not one of this hub; leave it out to begin anew",
                )
            })?,
        };
        let list = JobList {
            kind: wish("jobType"),
            status: wish("jobStatus"),
            after,
            most: items(&call)?.unwrap_or(MAX_ITEMS).min(MAX_ITEMS),
        };
        let (jobs, next) = self.jobs.list(list).await?;
        Ok(shown(Page {
            item_type: "JobResponse",
            items: jobs,
            continuation: next.map(|id| URL_SAFE_NO_PAD.encode(id)),
        }))
    }
}

fn read(continuation: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(continuation).ok()?).ok()
}
