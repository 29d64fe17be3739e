//! What the edge answers on its HTTPS port: WebSockets on any path, method calls from module to module (`edge-broker.md` §1.1,
//! §1.9), and events of its modules and of devices below it, as a hub takes them.

use std::sync::Arc;
use std::time::SystemTime;

use holm_gateway::Gateway;
use holm_gateway::http::{answer, method_call, websocket};
use holm_model::error::{ErrorCode, ServiceError};
use holm_model::{DeviceId, Identity, Timestamp};
use holm_net::Peer;
use holm_net::http::{Handler, ResponseBody};
use hyper::body::Incoming;
use hyper::header::{HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Request, Response};

use crate::broker::Broker;

/// The HTTPS face of the edge.
#[derive(Debug)]
pub struct Front {
    gateway: Gateway<Broker>,
    device: DeviceId,
}

impl Front {
    /// The face of the edge that is `device`.
    #[must_use]
    pub const fn new(gateway: Gateway<Broker>, device: DeviceId) -> Self {
        Self { gateway, device }
    }
}

impl Handler for Front {
    async fn handle(&self, request: Request<Incoming>, peer: Peer) -> Response<ResponseBody> {
        let mut response = if websocket::is_upgrade(&request) {
            self.gateway.upgrade(request, peer)
        } else if let Some(target) = method_call::target(&request) {
            let (authority, directory) = (Arc::clone(self.gateway.backend()), Arc::clone(self.gateway.directory()));
            let called = |from: &Identity, to: &Identity, began| authority.method_called(Some(from), to, began);
            method_call::answer(
                authority.as_ref(),
                &directory,
                &self.device,
                target,
                request,
                &peer,
                called,
            )
            .await
        } else {
            match self.gateway.answer_device(request, &peer).await {
                Ok(answer) => answer,
                Err(request) => answer::of_error(&nothing_at(request.uri().path()), Timestamp::from(SystemTime::now())),
            }
        };
        response
            .headers_mut()
            .insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}

fn nothing_at(path: &str) -> ServiceError {
    let shown: String = path.chars().take(200).collect();
    let is_upload = path.split('/').skip(3).any(|word| word.eq_ignore_ascii_case("files"));
    if is_upload {
        let text = format!("an edge takes no files, at `{shown}` or elsewhere; upload to the hub itself");
        return ServiceError::new(ErrorCode::InvalidOperation, text);
    }
    let text = format!(
        "there is nothing at `{shown}` on an edge; events may be posted, twins, inputs and messages from the cloud go over MQTT or AMQP"
    );
    ServiceError::new(ErrorCode::DeviceNotFound, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_refused_for_what_it_is_and_not_as_of_an_unknown_device() {
        for path in [
            "/devices/d/files",
            "/devices/d/Files/",
            "/devices/d/files/notifications/1",
        ] {
            let refused = nothing_at(path);
            assert_eq!(refused.code, ErrorCode::InvalidOperation, "{path}");
            assert!(refused.message.contains("the hub itself"), "{}", refused.message);
        }

        for path in ["/devices/files", "/twins/d", "/"] {
            assert_eq!(nothing_at(path).code, ErrorCode::DeviceNotFound, "{path}");
        }
    }
}
