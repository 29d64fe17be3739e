//! Digital twins, and their commands, which are methods.
//!
//! ```text
//! GET   /digitaltwins/{id}                              200, ETag
//! PATCH /digitaltwins/{id}                              JSON Patch -> 202, ETag, Location
//! POST  /digitaltwins/{id}/commands/{c}                 the body is the argument; method `c`
//! POST  /digitaltwins/{id}/components/{p}/commands/{c}  method `p*c`
//!       ?connectTimeoutInSeconds=&responseTimeoutInSeconds=   200, the body is the answer, x-ms-command-statuscode its status
//! ```
//!
//! Source: `hub-service-api.md` §2.2.

use holm_model::wire::percent;
use holm_model::{DeviceId, Identity, MethodRequest, ServiceError};
use hyper::header::{HeaderValue, LOCATION};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::answer::{self, Answer, Failure};
use super::{Call, RestApi, not_allowed};
use crate::digital_twin::{self, DigitalPatch};
use crate::events::notice::Operation;
use crate::metrics::TwinPart;

impl RestApi {
    pub(super) async fn digital_twin(&self, call: Call, device: DeviceId) -> Result<Answer, Failure> {
        let (twins, identity) = (&self.backend.twins, Identity::of_device(device.clone()));
        match call.method {
            Method::GET => {
                let found = twins.get(identity).await?;
                let document = digital_twin::view(&found.twin, &found.facts.model_id);
                let mut response = answer::json(&document);
                answer::put_etag(&mut response, &found.twin.etag());
                Ok(response)
            }
            Method::PATCH => {
                let changed = match DigitalPatch::from_json(&call.body) {
                    Ok(patch) => {
                        let make = move |twin: &holm_model::Twin| patch.update_of(twin);
                        twins
                            .update_by(identity, make, Operation::Update, call.if_match())
                            .await
                    }
                    Err(error) => Err(error),
                };
                self.backend.metrics.twin_change(TwinPart::Desired, &changed);
                let mut response = answer::no_content();
                *response.status_mut() = StatusCode::ACCEPTED;
                answer::put_etag(&mut response, &changed?.twin.etag());
                let place = format!("/digitaltwins/{}", percent::encode(device.as_str()));
                if let Ok(place) = HeaderValue::from_str(&place) {
                    response.headers_mut().insert(LOCATION, place);
                }
                Ok(response)
            }
            _ => Err(not_allowed(&call, "GET or PATCH")),
        }
    }

    pub(super) async fn command(&self, call: Call, device: DeviceId, name: String) -> Result<Answer, Failure> {
        if call.method != Method::POST {
            return Err(not_allowed(&call, "POST"));
        }
        let mut body = json!({ "methodName": name });
        if !call.body.is_empty() {
            body["payload"] = serde_json::from_slice(&call.body)
                .map_err(|error| ServiceError::argument_invalid(format!("the argument is not JSON: {error}")))?;
        }
        for parameter in ["connectTimeoutInSeconds", "responseTimeoutInSeconds"] {
            if let Some(text) = call.query.get(parameter).filter(|text| !text.is_empty()) {
                // What is no number is refused where the numbers are checked.
                body[parameter] = text.parse::<u64>().map_or_else(|_| json!(text), Value::from);
            }
        }
        let request = MethodRequest::from_json(body.to_string().as_bytes())?;
        let answered = self.invoke(Identity::of_device(device), request).await?;
        let mut response = answer::json(&answered.payload);
        let status = HeaderValue::from(answered.status);
        response.headers_mut().insert("x-ms-command-statuscode", status);
        Ok(response)
    }
}
