//! Twins, and method calls to whose twins they are.

use holm_model::twin::reported_from_json;
use holm_model::{ErrorCode, Identity, MethodRequest, MethodResponse, TwinUpdate};
use hyper::Method;

use super::answer::{self, Answer, Failure};
use super::{Call, RestApi, not_allowed};
use crate::events::notice::Operation;
use crate::metrics::{CallOutcome, TwinPart};

impl RestApi {
    pub(super) async fn twin(&self, call: Call, identity: Identity) -> Result<Answer, Failure> {
        let twins = &self.backend.twins;
        let operation = match call.method {
            Method::GET => return Ok(answer::json_with_etag(&twins.get(identity).await?.to_json())),
            Method::PATCH => Operation::Update,
            Method::PUT => Operation::Replace,
            _ => return Err(not_allowed(&call, "GET, PATCH or PUT")),
        };
        let changed = match TwinUpdate::from_json(&call.body) {
            Ok(update) => twins.update(identity, update, operation, call.if_match()).await,
            Err(error) => Err(error),
        };
        self.backend.metrics.twin_change(TwinPart::Desired, &changed);
        let twin = changed?;
        Ok(answer::json_with_etag(&twin.to_json()))
    }

    /// `PUT /holm/v1/twins/{id}[/modules/{m}]/reported` (ours): what a device has reported at another hub, when it comes from there.
    pub(super) async fn adopt_reported(&self, call: Call, identity: Identity) -> Result<Answer, Failure> {
        if call.method != Method::PUT {
            return Err(not_allowed(&call, "PUT"));
        }
        let reported = match reported_from_json(&call.body) {
            Ok(reported) => self.backend.twins.adopt_reported(identity, reported).await,
            Err(error) => Err(error),
        };
        self.backend.metrics.twin_change(TwinPart::Reported, &reported);
        reported?;
        Ok(answer::no_content())
    }

    pub(super) async fn method_call(&self, call: Call, identity: Identity) -> Result<Answer, Failure> {
        if call.method != Method::POST {
            return Err(not_allowed(&call, "POST"));
        }
        let request = MethodRequest::from_json(&call.body)?;
        Ok(answer::json(&self.invoke(identity, request).await?.to_json()))
    }

    /// Calls a method, and counts how it went.
    pub(super) async fn invoke(&self, identity: Identity, request: MethodRequest) -> Result<MethodResponse, Failure> {
        let (connect, response) = (request.connect_timeout, request.response_timeout);
        let answered = self.methods.call(identity, request).await;
        let outcome = match &answered {
            Ok(response) if response.status < 400 => CallOutcome::Good,
            Ok(_) => CallOutcome::Bad,
            Err(error) => CallOutcome::of_error(error.code),
        };
        self.backend.metrics.calls.of(outcome).increment();
        answered.map_err(|error| {
            let waited = match error.code {
                ErrorCode::DeviceNotOnline => connect,
                _ => response,
            };
            Failure::of_call(error, waited)
        })
    }
}
