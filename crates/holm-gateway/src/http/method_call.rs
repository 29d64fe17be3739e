//! A module calls a method of a device or module through its edge:
//! `POST /twins/{d}/methods` or `/twins/{d}/modules/{m}/methods`, with the caller in `x-ms-edge-moduleId`.
//!
//! Source: `hub-device-protocols.md` §4.4, `edge-broker.md` §5.

use std::time::Instant;

use holm_model::error::ServiceError;
use holm_model::method::MethodRequest;
use holm_model::wire::percent;
use holm_model::{DeviceId, Identity, ModuleId};
use holm_net::Peer;
use holm_net::http::{ResponseBody, body};
use hyper::body::Body;
use hyper::{Method, Request, Response, StatusCode};

use super::{answer, device};
use crate::backend::{Announced, Attempt, Authority};
use crate::session::{Directory, InvokeError};
use crate::{gateway, tracking_id};

/// The largest request: a payload of 128 KiB, as JSON text may spell it, and what is around it.
const MAX_BODY: usize = 512 * 1024;

/// Whom a request's path names, if it is a method call: `/twins/{d}[/modules/{m}]/methods`.
#[must_use]
pub fn target<B>(request: &Request<B>) -> Option<Result<Identity, ServiceError>> {
    if request.method() != Method::POST {
        return None;
    }
    let segments: Vec<_> = request.uri().path().trim_matches('/').split('/').collect();
    let (device, module) = match segments.as_slice() {
        [twins, device, methods] if is(twins, "twins") && is(methods, "methods") => (device, None),
        [twins, device, modules, module, methods]
            if is(twins, "twins") && is(modules, "modules") && is(methods, "methods") =>
        {
            (device, Some(module))
        }
        _ => return None,
    };
    let parsed = DeviceId::new(&percent::decode(device)).and_then(|device| {
        let module = module
            .map(|module| ModuleId::new(&percent::decode(module)))
            .transpose()?;
        Ok(Identity { device, module })
    });
    Some(parsed.map_err(|error| ServiceError::argument_invalid(error.to_string())))
}

fn is(segment: &str, word: &str) -> bool {
    segment.eq_ignore_ascii_case(word)
}

/// Answers a method call by a module of `device` (this edge): the caller proves its key, and must be on this device. A call
/// that was passed on is told to `called`: who called whom, since when.
pub async fn answer<A, B>(
    authority: &A,
    directory: &Directory,
    device: &DeviceId,
    target: Result<Identity, ServiceError>,
    request: Request<B>,
    peer: &Peer,
    called: impl FnOnce(&Identity, &Identity, Instant) + Send,
) -> Response<ResponseBody>
where
    A: Authority,
    B: Body<Data = bytes::Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match call(authority, directory, device, target, request, peer, called).await {
        Ok(response) => response,
        Err(error) => answer::error(&error, &error.rest_body(tracking_id(), gateway::now())),
    }
}

async fn call<A, B>(
    authority: &A,
    directory: &Directory,
    device: &DeviceId,
    target: Result<Identity, ServiceError>,
    request: Request<B>,
    peer: &Peer,
    called: impl FnOnce(&Identity, &Identity, Instant) + Send,
) -> Result<Response<ResponseBody>, ServiceError>
where
    A: Authority,
    B: Body<Data = bytes::Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let caller = caller(&request)?;
    let attempt = Attempt {
        identity: caller.clone(),
        credential: device::credential(request.headers(), peer),
        announced: Announced::default(),
    };
    let admitted = authority.verify(attempt).await;
    admitted.map_err(device::refused)?;
    if caller.device != *device {
        let reason = format!("`{caller}` is not a module of this device; only those may call methods through it");
        return Err(ServiceError::unauthorized(reason));
    }
    let target = target?;

    let bytes = body::read_request(request.into_body(), MAX_BODY)
        .await
        .map_err(device::unreadable)?;
    let call = MethodRequest::from_json(&bytes)?;
    let (connect_timeout, response_timeout) = (call.connect_timeout, call.response_timeout);
    let waited = |error: InvokeError| match error {
        InvokeError::NotOnline => Some(connect_timeout),
        InvokeError::NoAnswer => Some(response_timeout),
        InvokeError::BadAnswer | InvokeError::TooManyCalls => None,
    };
    let began = Instant::now();
    let answered = directory.invoke(&target, call).await;
    called(&caller, &target, began);
    match answered {
        Ok(response) => Ok(answer::json(StatusCode::OK, &response.to_json())),
        Err(failure) => {
            let error = ServiceError::from(failure);
            match waited(failure) {
                Some(waited) => Ok(answer::error(
                    &error,
                    &error.nested_body(tracking_id(), gateway::now(), waited),
                )),
                None => Err(error),
            }
        }
    }
}

fn caller<B>(request: &Request<B>) -> Result<Identity, ServiceError> {
    let header = request.headers().get("x-ms-edge-moduleId").ok_or_else(|| {
        ServiceError::argument_invalid(
            "the header `x-ms-edge-moduleId` is missing; give `{device}/{module}` of the caller",
        )
    })?;
    let text = header.to_str().unwrap_or_default();
    let identity: Identity = percent::decode(text).parse().map_err(|error| {
        ServiceError::argument_invalid(format!(
            "the header `x-ms-edge-moduleId` is not `{{device}}/{{module}}`: {error}"
        ))
    })?;
    if identity.is_module() {
        Ok(identity)
    } else {
        Err(ServiceError::argument_invalid(
            "the header `x-ms-edge-moduleId` names no module; give `{device}/{module}`",
        ))
    }
}
