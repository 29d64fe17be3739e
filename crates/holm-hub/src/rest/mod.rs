//! The service API: what back ends, SDKs and operators ask over HTTPS, and what edge devices ask about their modules.
//!
//! ```text
//! request -> Target (path) -> permission -> api-version -> body (bodies.rs) -> the resource's file -> answer
//!   devices.rs     /devices, /devices/{id}, …/modules, /statistics, …/applyConfigurationContent
//!   bulk.rs        POST /devices, /devices/keys/regenerate
//!   twins.rs       /twins/{id}, …/methods; /holm/v1/twins/{id}/reported (ours)
//!   configurations.rs  /configurations; /holm/v1/configurations/plan, /holm/v1/devices/{id}/configurations (ours)
//!   query.rs       /devices/query
//!   scheduled_jobs.rs  /jobs/v2
//!   digital_twins.rs  /digitaltwins/{id}, …/commands
//!   messages.rs    …/messages/deviceBound, …/commands
//!   notices.rs     /messages/serviceBound/feedback, …/filenotifications; /holm/v1/feedback (ours)
//!   scope.rs       what edge devices ask about the devices below them; /holm/v1/devices/{id}/children (ours)
//!   files.rs       /devices/{id}/files, …/files/notifications; /holm/v1/files (ours)
//!   events.rs      /holm/v1/events, /holm/v1/partitions (ours)
//!   consumer_groups.rs  /holm/v1/consumer-groups (ours)
//!   policies.rs    /holm/v1/policies (ours)
//!   audit.rs       /holm/v1/audit (ours)
//!   backup.rs      /holm/v1/backup (ours)
//!   routing.rs     /holm/v1/routing (ours)
//!   twin_history.rs  /holm/v1/twins/{id}/history (ours)
//!   transfers.rs   /jobs/create, /jobs, /jobs/{id}; /holm/v1/containers (ours)
//!   provisioning.rs  /enrollments, /enrollmentGroups, /registrations: with permissions and errors of its own
//!   provisioning_settings.rs  /holm/v1/provisioning/… (ours), likewise
//! ```
//!
//! Any date is accepted as `api-version`, and no answer depends on it.
//!
//! Source: `hub-service-api.md` §1, §2.

mod answer;
mod audit;
mod backup;
mod bodies;
mod bulk;
mod configurations;
mod consumer_groups;
mod devices;
mod digital_twins;
mod events;
mod files;
mod messages;
mod notices;
mod policies;
mod provisioning;
mod provisioning_settings;
mod query;
mod routing;
mod scheduled_jobs;
mod scope;
mod target;
mod transfers;
mod twin_history;
mod twins;

use std::sync::Arc;

use bytes::Bytes;
use holm_gateway::Credential;
use holm_gateway::http::query::Query;
use holm_model::message::MAX_CLOUD_TO_DEVICE_BYTES;
use holm_model::{Identity, ModuleId, ServiceError};
use holm_net::Peer;
use holm_net::http::{Handler, ResponseBody};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{AUTHORIZATION, IF_MATCH};
use hyper::{Method, Request, Response, StatusCode};
use rustls::pki_types::CertificateDer;

use crate::HubBackend;
use crate::actor::Actor;
use crate::authority::Authority;
use crate::backup::Backups;
use crate::blobs::Blobs;
use crate::configurations::Configurations;
use crate::deployment::Deployments;
use crate::files::Files;
use crate::jobs::Jobs;
use crate::methods::Methods;
use crate::notices::ReaderId;
use crate::queries::Queries;
use crate::registry::{Caller, Registry};
use crate::storage::Rights;
use crate::transfer::Transfers;

use answer::{Answer, Failure};
pub(crate) use bodies::Bodies;
use bodies::{Room, Unread};
use target::{Target, Unroutable};

/// The largest body, but for deployments: a twin with its metadata is several times its counted size.
const MAX_BODY: usize = 1024 * 1024;
/// The largest bulk request: a hundred devices with full twins, and some air.
const MAX_BULK_BODY: usize = 8 * 1024 * 1024;
/// The largest deployment: 50 modules with 32 KiB each, and some air.
const MAX_CONTENT_BODY: usize = 4 * 1024 * 1024;

/// Answers requests of the service API. Clones are the same.
#[derive(Clone, Debug)]
pub struct RestApi {
    pub(crate) backend: HubBackend,
    pub(crate) registry: Registry,
    pub(crate) methods: Methods,
    pub(crate) queries: Queries,
    pub(crate) jobs: Jobs,
    pub(crate) deployments: Deployments,
    pub(crate) configurations: Configurations,
    /// `None` at a hub that takes no files.
    pub(crate) files: Option<Files>,
    /// `None` at a hub without a blob store.
    pub(crate) transfers: Option<Transfers>,
    /// `None` while the hub is put together.
    pub(crate) backups: Option<Backups>,
    /// The names that the hub goes by in addresses.
    pub(crate) hosts: Arc<[String]>,
    pub(crate) scope: holm_net::Scope,
    /// Answers that follow the event log, or wait for notices.
    pub(crate) streams: holm_net::Scope,
    /// All who read notices over HTTPS.
    pub(crate) notice_reader: ReaderId,
    pub(crate) bodies: Bodies,
}

/// A request that is allowed, read as far as all resources have in common.
struct Call {
    method: Method,
    query: Query,
    head: hyper::http::request::Parts,
    body: Bytes,
    /// Kept until the call is carried out.
    _room: Room,
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
        self.answer_as_it_comes(request, &peer.certificates).await
    }
}

impl RestApi {
    /// Whether a path is of the provisioning service, or tells what was changed there: what a process answers that is no hub.
    #[must_use]
    pub fn is_provisioning(path: &str) -> bool {
        provisioning::has(path) || path == "/holm/v1/audit"
    }

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
        self.answer_as_it_comes(request.map(Full::new), certificates).await
    }

    /// Answers one request; its body is read when it is known that the caller may send it.
    async fn answer_as_it_comes<B>(
        &self,
        request: Request<B>,
        certificates: &Arc<[CertificateDer<'static>]>,
    ) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let mut body = self.bodies.unread(body);
        let mut answer = if provisioning::has(head.uri.path()) {
            self.provisioning(&head, &mut body).await
        } else {
            match self.carry_out(head, &mut body, certificates).await {
                Ok(answer) => answer,
                Err(failure) => failure.answer(self.backend.clock.now()),
            }
        };
        body.drop_rest().await;
        answer::name(&mut answer);
        self.backend.metrics.request(answer.status());
        answer
    }

    async fn carry_out<B>(
        &self,
        head: hyper::http::request::Parts,
        body: &mut Unread<B>,
        certificates: &Arc<[CertificateDer<'static>]>,
    ) -> Result<Answer, Failure>
    where
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (target, path) = Target::parse(head.uri.path()).map_err(|why| unroutable(why, head.uri.path()))?;
        let method = effective_method(&head);
        let (caller, actor) = self.permit(&target, &method, &path, &head, certificates).await?;
        let query = Query::parse(head.uri.query().unwrap_or_default());
        if !target.is_own() {
            query.api_version()?;
        }
        let (body, room) = body.read(most_of_body(&target)).await?;
        let call = Call {
            method,
            query,
            head,
            body,
            _room: room,
            caller,
        };
        actor.does(self.dispatch(target, call)).await
    }

    async fn dispatch(&self, target: Target, call: Call) -> Result<Answer, Failure> {
        match target {
            Target::Devices => self.devices(call).await,
            Target::DevicePages => self.device_pages(call).await,
            Target::RegenerateKeys => self.regenerate_keys(call).await,
            Target::Identity(identity) => self.identity(call, identity).await,
            Target::Modules(device) => self.modules(call, device).await,
            Target::Scope(device, what) => self.scope_call(call, device, what).await,
            Target::Children(device) => self.children(call, device).await,
            Target::ApplyContent(device) => self.apply_content(call, device).await,
            Target::Configurations => self.list_configurations(call).await,
            Target::Configuration(id) => self.configuration(call, id).await,
            Target::TestQueries => self.test_queries(&call),
            Target::PlanConfiguration => self.plan_configuration(call).await,
            Target::Explanation(identity) => self.explain_configurations(call, identity).await,
            Target::DeviceStatistics => self.device_statistics(call).await,
            Target::ServiceStatistics => self.service_statistics(&call),
            Target::Query => self.query(call).await,
            Target::ScheduledJob(id) => self.scheduled_job(call, id).await,
            Target::CancelScheduledJob(id) => self.cancel_scheduled_job(call, id).await,
            Target::ScheduledJobs => self.list_scheduled_jobs(call).await,
            Target::Twin(identity) => self.twin(call, identity).await,
            Target::Methods(identity) => self.method_call(call, identity).await,
            Target::DigitalTwin(device) => self.digital_twin(call, device).await,
            Target::Command(device, name) => self.command(call, device, name).await,
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
            Target::ConsumerGroups => self.consumer_groups(&call),
            Target::ConsumerGroup(name) => self.consumer_group(call, name).await,
            Target::Policies => self.policies(&call),
            Target::Policy(name) => self.policy(call, name).await,
            Target::RotatePolicy(name) => self.rotate_policy(call, name).await,
            Target::Audit => self.audit(call).await,
            Target::Backup => self.backup(call).await,
            Target::Routing(what) => self.routing(call, what).await,
            Target::CreateTransfer => self.create_transfer(call).await,
            Target::Transfers => self.list_transfers(call).await,
            Target::Transfer(id) => self.transfer(call, id).await,
            Target::Container(name) => self.container(&call, &name),
            Target::Reported(identity) => self.adopt_reported(call, identity).await,
            Target::TwinHistory(identity, what) => self.twin_history(call, identity, what).await,
        }
    }

    /// Whether the caller may do this, and who it is. A device may look after its own modules with its own proof, and the module `$edgeHub`
    /// of an edge device asks about the devices below it, and nobody else does.
    async fn permit(
        &self,
        target: &Target,
        method: &Method,
        path: &str,
        head: &hyper::http::request::Parts,
        certificates: &Arc<[CertificateDer<'static>]>,
    ) -> Result<(Caller, Actor), Failure> {
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
            let admission = self.backend.authority.permit_device(identity, credential).await?;
            return Ok((Caller::Device, Actor::from(&admission.principal)));
        }
        let rights = rights(target, method);
        let policy = self.backend.authority.permit_service(authorization, path, rights)?;
        Ok((Caller::Service, Actor::Policy(policy)))
    }
}

/// The most bytes of a body.
const fn most_of_body(target: &Target) -> usize {
    match target {
        Target::ApplyContent(_) | Target::Configuration(_) | Target::PlanConfiguration => MAX_CONTENT_BODY,
        Target::Devices => MAX_BULK_BODY,
        Target::CloudToDevice(_) => MAX_CLOUD_TO_DEVICE_BYTES,
        _ => MAX_BODY,
    }
}

/// To export is to read keys, and to import is to write them.
const TRANSFER: Rights = Rights::REGISTRY_READ.with(Rights::REGISTRY_WRITE);

/// Who says where messages go reads them all.
const ROUTING: Rights = Rights::REGISTRY_WRITE.with(Rights::SERVICE_CONNECT);

/// Who says what devices have reported stands for them.
const REPORTED: Rights = Rights::REGISTRY_WRITE.with(Rights::SERVICE_CONNECT);

/// The rights of which one is enough. Source: `hub-service-api.md` §1.
fn rights(target: &Target, method: &Method) -> &'static [Rights] {
    match (target, method) {
        (Target::Devices | Target::Identity(_) | Target::Modules(_), &Method::GET)
        | (
            Target::DevicePages
            | Target::Children(_)
            | Target::DeviceStatistics
            | Target::ServiceStatistics
            | Target::Audit,
            _,
        )
        | (Target::Transfers | Target::Transfer(_), &Method::GET) => &[Rights::REGISTRY_READ],
        (Target::Routing(what), method) if what.is_read(method) => &[Rights::REGISTRY_READ, Rights::SERVICE_CONNECT],
        (Target::Routing(_), _) => &[ROUTING],
        (Target::Configurations | Target::Configuration(_), &Method::GET)
        | (Target::TestQueries | Target::PlanConfiguration | Target::Explanation(_), _) => {
            &[Rights::REGISTRY_READ, Rights::SERVICE_CONNECT]
        }
        (
            Target::Devices
            | Target::Identity(_)
            | Target::Modules(_)
            | Target::Configurations
            | Target::Configuration(_)
            | Target::Scope(..)
            | Target::ApplyContent(_)
            | Target::RegenerateKeys
            | Target::ConsumerGroup(_),
            _,
        ) => &[Rights::REGISTRY_WRITE],
        (Target::Reported(_), _) => &[REPORTED],
        // What is exported are keys too.
        (Target::CreateTransfer | Target::Transfers | Target::Transfer(_) | Target::Container(_), _) => &[TRANSFER],
        // A backup holds all keys.
        (Target::Policies | Target::Policy(_) | Target::RotatePolicy(_) | Target::Backup, _) => &[Rights::ALL],
        (Target::Upload(_) | Target::UploadReport(..), _) => &[Rights::DEVICE_CONNECT],
        (
            Target::CloudToDevice(_)
            | Target::Commands(_)
            | Target::Notices(_)
            | Target::Notice(..)
            | Target::Feedback
            | Target::Query
            | Target::ScheduledJob(_)
            | Target::CancelScheduledJob(_)
            | Target::ScheduledJobs
            | Target::Twin(_)
            | Target::Methods(_)
            | Target::DigitalTwin(_)
            | Target::Command(..)
            | Target::TwinHistory(..)
            | Target::Files
            | Target::Events
            | Target::Partitions
            | Target::ConsumerGroups,
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
        Unroutable::ConfigurationId(error) => ServiceError::argument_invalid(error.to_string()).into(),
        Unroutable::Encoding => {
            ServiceError::argument_invalid(format!("`{shown}` is not percent-encoded UTF-8")).into()
        }
        Unroutable::EmptySegment => ServiceError::argument_invalid(format!(
            "`{shown}` has an empty segment, two slashes in a row; give the id or the name that is missing there"
        ))
        .into(),
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
