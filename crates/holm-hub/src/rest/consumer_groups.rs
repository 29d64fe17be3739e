//! The consumer groups of the Event Hub: an interface of our own. The original has it in its resource manager.
//!
//! ```text
//! GET /holm/v1/consumer-groups            ["$Default", …]
//! PUT, DELETE /holm/v1/consumer-groups/{name}      204, whether it was there or not
//! ```

use hyper::Method;
use serde_json::json;

use super::answer::{self, Answer, Failure};
use super::{Call, RestApi, not_allowed};

impl RestApi {
    pub(super) fn consumer_groups(&self, call: &Call) -> Result<Answer, Failure> {
        if call.method != Method::GET {
            return Err(not_allowed(call, "GET"));
        }
        Ok(answer::json(&json!(self.backend.groups.list())))
    }

    pub(super) async fn consumer_group(&self, call: Call, name: String) -> Result<Answer, Failure> {
        match call.method {
            Method::PUT => self.backend.groups.add(&name).await?,
            Method::DELETE => self.backend.groups.remove(&name).await?,
            _ => return Err(not_allowed(&call, "PUT or DELETE")),
        }
        Ok(answer::no_content())
    }
}
