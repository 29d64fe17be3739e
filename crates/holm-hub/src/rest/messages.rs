//! Cloud-to-device messages: sent with their properties as headers, and removed.

use holm_gateway::http::device::telemetry::texts;
use holm_model::wire::http::from_headers;
use holm_model::{DeviceId, Message, SystemProperty};
use hyper::Method;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde_json::json;

use super::answer::{self, Answer, Failure};
use super::{Call, RestApi, not_allowed};

impl RestApi {
    pub(super) async fn send_to_device(&self, call: Call, device: DeviceId) -> Result<Answer, Failure> {
        if call.method != Method::POST {
            return Err(not_allowed(&call, "POST"));
        }
        let (mut system, properties) = from_headers(texts(&call.head)?);
        for (header, property) in [
            (CONTENT_TYPE, SystemProperty::ContentType),
            (CONTENT_ENCODING, SystemProperty::ContentEncoding),
        ] {
            // Bytes are what a body is anyway, and what HTTP libraries say that were told nothing.
            if system.get(property).is_none()
                && let Some(value) = call.header(header)
                && !value.eq_ignore_ascii_case("application/octet-stream")
            {
                system.set(property, value);
            }
        }
        let message = Message {
            body: call.body,
            system,
            properties,
        };
        self.backend.mailboxes.send(device, message).await?;
        self.backend.metrics.c2d_sent.increment();
        Ok(answer::no_content())
    }

    pub(super) async fn purge(&self, call: Call, device: DeviceId) -> Result<Answer, Failure> {
        if call.method != Method::DELETE {
            return Err(not_allowed(&call, "DELETE"));
        }
        let purged = self.backend.mailboxes.purge(device.clone()).await?;
        Ok(answer::json(&json!({
            "deviceId": device,
            "moduleId": null,
            "totalMessagesPurged": purged,
        })))
    }
}
