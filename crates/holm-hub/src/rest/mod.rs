//! The service API: what back ends, SDKs and operators ask over HTTPS, and what edge devices ask about their modules.
//!
//! ```text
//! request -> Target (path) -> permission -> api-version -> the resource's file -> answer
//!   devices.rs     /devices, /devices/{id}, …/modules, /statistics, …/applyConfigurationContent
//!   twins.rs       /twins/{id}, …/methods
//!   messages.rs    …/messages/deviceBound, …/commands
//!   notices.rs     /messages/serviceBound/feedback, …/filenotifications; /holm/v1/feedback (ours)
//!   scope.rs       what edge devices ask about the devices below them; /holm/v1/devices/{id}/children (ours)
//!   files.rs       /devices/{id}/files, …/files/notifications; /holm/v1/files (ours)
//!   events.rs      /holm/v1/events, /holm/v1/partitions (ours)
//! ```
//!
//! Any date is accepted as `api-version`, and no answer depends on it.
//!
//! Source: `hub-service-api.md` §1, §2.

mod answer;
mod devices;
mod events;
mod files;
mod messages;
mod notices;
mod scope;
mod target;
mod twins;

use std::sync::Arc;

use bytes::Bytes;
use holm_gateway::Credential;
use holm_gateway::http::query::Query;
use holm_model::message::MAX_CLOUD_TO_DEVICE_BYTES;
use holm_model::{ErrorCode, Identity, ModuleId, ServiceError};
use holm_net::Peer;
use holm_net::http::{self, BodyError, Handler, ResponseBody};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, IF_MATCH};
use hyper::{Method, Request, Response, StatusCode};
use rustls::pki_types::CertificateDer;

use crate::HubBackend;
use crate::authority::Authority;
use crate::blobs::Blobs;
use crate::deployment::Deployments;
use crate::files::Files;
use crate::methods::Methods;
use crate::notices::ReaderId;
use crate::registry::{Caller, Registry};
use crate::storage::Rights;

use answer::{Answer, Failure};
use target::{Target, Unroutable};

/// The largest body, but for deployments: a twin with its metadata is several times its counted size.
const MAX_BODY: usize = 1024 * 1024;
/// The largest deployment: 50 modules with 32 KiB each, and some air.
const MAX_CONTENT_BODY: usize = 4 * 1024 * 1024;

/// Answers requests of the service API. Clones are the same.
#[derive(Clone, Debug)]
pub struct RestApi {
    pub(crate) backend: HubBackend,
    pub(crate) registry: Registry,
    pub(crate) methods: Methods,
    pub(crate) deployments: Deployments,
    /// `None` at a hub that takes no files.
    pub(crate) files: Option<Files>,
    pub(crate) scope: holm_net::Scope,
    /// Answers that follow the event log, or wait for notices.
    pub(crate) streams: holm_net::Scope,
    /// All who read notices over HTTPS.
    pub(crate) notice_reader: ReaderId,
}

/// A request that is allowed, read as far as all resources have in common.
struct Call {
    method: Method,
    query: Query,
    head: hyper::http::request::Parts,
    body: Bytes,
    caller: Caller,
}

impl Call {
    fn header(&self, name: impl hyper::header::AsHeaderName) -> Option<&str> {
        self.head.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn if_match(&self) -> Option<String> {
        self.header(IF_MATCH).map(str::to_owned)
    }
}

impl Handler for RestApi {
    async fn handle(&self, request: Request<Incoming>, peer: Peer) -> Response<ResponseBody> {
        if Blobs::has(request.uri().path())
            && let Some(files) = &self.files
        {
            let answer = files.blobs().answer(request).await;
            self.answered(answer.status());
            return answer;
        }
        let (head, incoming) = request.into_parts();
        let limit = match Target::parse(head.uri.path()) {
            Ok((Target::ApplyContent(_), _)) => MAX_CONTENT_BODY,
            Ok((Target::CloudToDevice(_), _)) => MAX_CLOUD_TO_DEVICE_BYTES,
            _ => MAX_BODY,
        };
        match http::body::read_request(incoming, limit).await {
            Ok(body) => self.answer(Request::from_parts(head, body), &peer.certificates).await,
            Err(error) => {
                let code = match error {
                    BodyError::TooLarge(_) => ErrorCode::MessageTooLarge,
                    BodyError::TimedOut | BodyError::Broken(_) => ErrorCode::IotHubFormatError,
                };
                let answer = Failure::from(ServiceError::new(code, error.to_string())).answer(self.backend.clock.now());
                self.backend.metrics.request(answer.status());
                answer
            }
        }
    }
}

impl RestApi {
    /// Counts a request that was answered for the hub on its port.
    pub fn answered(&self, status: StatusCode) {
        self.backend.metrics.request(status);
    }

    /// Answers one request whose body is in hand. `certificates` are those of the TLS handshake, leaf first.
    pub async fn answer(
        &self,
        request: Request<Bytes>,
        certificates: &Arc<[CertificateDer<'static>]>,
    ) -> Response<ResponseBody> {
        let answer = match self.carry_out(request, certificates).await {
            Ok(answer) => answer,
            Err(failure) => failure.answer(self.backend.clock.now()),
        };
        self.backend.metrics.request(answer.status());
        answer
    }

    async fn carry_out(
        &self,
        request: Request<Bytes>,
        certificates: &Arc<[CertificateDer<'static>]>,
    ) -> Result<Answer, Failure> {
        let (head, body) = request.into_parts();
        let (target, path) = Target::parse(head.uri.path()).map_err(|why| unroutable(why, head.uri.path()))?;
        let method = effective_method(&head);
        let caller = self.permit(&target, &method, &path, &head, certificates).await?;
        let query = Query::parse(head.uri.query().unwrap_or_default());
        if !target.is_own() {
            query.api_version()?;
        }
        let call = Call {
            method,
            query,
            head,
            body,
            caller,
        };
        match target {
            Target::Devices => self.devices(call).await,
            Target::Identity(identity) => self.identity(call, identity).await,
            Target::Modules(device) => self.modules(call, device).await,
            Target::Scope(device, what) => self.scope_call(call, device, what).await,
            Target::Children(device) => self.children(call, device).await,
            Target::ApplyContent(device) => self.apply_content(call, device).await,
            Target::DeviceStatistics => self.device_statistics(call).await,
            Target::ServiceStatistics => self.service_statistics(&call),
            Target::Query => Err(Failure::with_status(
                StatusCode::NOT_IMPLEMENTED,
                "queries over twins are not supported in this release; read devices with `GET /devices` and twins with `GET /twins/{id}`",
            )),
            Target::Twin(identity) => self.twin(call, identity).await,
            Target::Methods(identity) => self.method_call(call, identity).await,
            Target::CloudToDevice(device) => self.send_to_device(call, device).await,
            Target::Commands(device) => self.purge(call, device).await,
            Target::Upload(device) => self.begin_upload(call, device).await,
            Target::UploadReport(device, correlation) => self.report_upload(call, device, correlation).await,
            Target::Files => self.list_files(call).await,
            Target::Notices(kind) => self.receive_notice(call, kind).await,
            Target::Notice(kind, lock, verb) => self.settle_notice(call, kind, lock, verb).await,
            Target::Feedback => self.look_at_feedback(&call),
            Target::Events => self.events(&call),
            Target::Partitions => self.partitions(&call),
        }
    }

    /// Whether the caller may do this. A device may look after its own modules with its own proof, and the module `$edgeHub`
    /// of an edge device asks about the devices below it, and nobody else does.
    async fn permit(
        &self,
        target: &Target,
        method: &Method,
        path: &str,
        head: &hyper::http::request::Parts,
        certificates: &Arc<[CertificateDer<'static>]>,
    ) -> Result<Caller, Failure> {
        let authorization = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let own = match target {
            Target::Modules(device) => Some(Identity::of_device(device.clone())),
            Target::Identity(identity) if identity.is_module() => Some(Identity::of_device(identity.device.clone())),
            Target::Scope(device, _) => Some(Identity::of_module(device.clone(), ModuleId::edge_hub())),
            Target::Upload(device) | Target::UploadReport(device, _) => Some(Identity::of_device(device.clone())),
            _ => None,
        };
        // A policy that may speak for devices may upload for them.
        let is_upload = matches!(target, Target::Upload(_) | Target::UploadReport(..));
        let is_identity_proof = Authority::is_identity_proof(authorization, certificates);
        if matches!(target, Target::Scope(..)) && !is_identity_proof {
            let text = "only the module `$edgeHub` of the edge device asks this, with its own token";
            return Err(ServiceError::unauthorized(text).into());
        }
        if let Some(identity) = own
            && (is_identity_proof || is_upload)
        {
            let credential = match authorization {
                Some(token) => Credential::Token(token.to_owned()),
                None if certificates.is_empty() => Credential::None,
                None => Credential::Certificate(Arc::clone(certificates)),
            };
            self.backend.authority.permit_device(identity, credential).await?;
            return Ok(Caller::Device);
        }
        let rights = rights(target, method);
        self.backend.authority.permit_service(authorization, path, rights)?;
        Ok(Caller::Service)
    }
}

/// The rights of which one is enough. Source: `hub-service-api.md` §1.
fn rights(target: &Target, method: &Method) -> &'static [Rights] {
    match (target, method) {
        (Target::Devices | Target::Identity(_) | Target::Modules(_), &Method::GET)
        | (Target::Children(_) | Target::DeviceStatistics | Target::ServiceStatistics, _) => &[Rights::REGISTRY_READ],
        (
            Target::Devices | Target::Identity(_) | Target::Modules(_) | Target::Scope(..) | Target::ApplyContent(_),
            _,
        ) => &[Rights::REGISTRY_WRITE],
        (Target::Upload(_) | Target::UploadReport(..), _) => &[Rights::DEVICE_CONNECT],
        (
            Target::CloudToDevice(_)
            | Target::Commands(_)
            | Target::Notices(_)
            | Target::Notice(..)
            | Target::Feedback
            | Target::Query
            | Target::Twin(_)
            | Target::Methods(_)
            | Target::Files
            | Target::Events
            | Target::Partitions,
            _,
        ) => &[Rights::SERVICE_CONNECT],
    }
}

/// Java sends `PATCH` as `POST` with a header.
fn effective_method(head: &hyper::http::request::Parts) -> Method {
    let wanted = head
        .headers
        .get("x-http-method-override")
        .and_then(|value| value.to_str().ok());
    match wanted {
        Some(wanted) if head.method == Method::POST && wanted.eq_ignore_ascii_case("PATCH") => Method::PATCH,
        _ => head.method.clone(),
    }
}

fn unroutable(why: Unroutable, path: &str) -> Failure {
    let shown: String = path.chars().take(200).collect();
    match why {
        Unroutable::Unknown => Failure::with_status(
            StatusCode::NOT_FOUND,
            format!("there is no resource `{shown}` at this hub"),
        ),
        Unroutable::Id(error) => ServiceError::argument_invalid(error.to_string()).into(),
        Unroutable::Encoding => {
            ServiceError::argument_invalid(format!("`{shown}` is not percent-encoded UTF-8")).into()
        }
    }
}

fn read<'b, T: serde::Deserialize<'b>>(call: &'b Call) -> Result<T, ServiceError> {
    serde_json::from_slice(&call.body)
        .map_err(|error| ServiceError::argument_invalid(format!("the body is not what this call takes: {error}")))
}

/// How many at most are asked for by `top`.
fn page_size(call: &Call, most: u32) -> Result<u32, ServiceError> {
    match call.query.get("top") {
        None | Some("") => Ok(most),
        Some(text) => text
            .parse()
            .ok()
            .filter(|top| (1..=most).contains(top))
            .ok_or_else(|| ServiceError::argument_invalid(format!("`top` is `{text}`; give 1 to {most}"))),
    }
}

fn not_allowed(call: &Call, allowed: &str) -> Failure {
    Failure::with_status(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{} is not possible here; use {allowed}", call.method),
    )
}
