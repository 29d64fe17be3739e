//! The provisioning service's back side over HTTPS. Its answers and errors have shapes of their own.
//!
//! ```text
//! PUT GET DELETE  /enrollments/{id}   /enrollmentGroups/{id}      GET DELETE  /registrations/{id}
//! POST            /enrollments        /enrollmentGroups           {"mode": "create", "enrollments": [at most 10]}
//! POST            …/{id}/attestationmechanism                     the attestation with its keys
//! POST            …/query             /registrations/{group}/query    pages, by x-ms-max-item-count and x-ms-continuation
//! ```
//!
//! Source: `hub-service-api.md` §7.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use holm_gateway::http::answer;
use holm_gateway::http::query::Query;
use holm_model::wire::{http, percent};
use holm_model::{ProvisioningCode, ProvisioningError, RegistrationId, Timestamp};
use hyper::body::Body;
use hyper::header::{AUTHORIZATION, ETAG, HeaderMap, HeaderValue, IF_MATCH, RETRY_AFTER};
use hyper::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::RestApi;
use super::answer::{Answer, json as answer_json, no_content};
use super::bodies::Unread;
use super::provisioning_settings::Setting;
use crate::provisioning::{BulkMode, Kind, MAX_BULK, ProvisioningRights, document};

/// The most items of a page.
const MAX_PAGE: u32 = 1000;
/// What a page has if its reader does not say.
const PAGE: u32 = 100;

/// What a path of the provisioning service names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Enrollments(Kind),
    Enrollment(Kind, String),
    Attestation(Kind, String),
    List(Kind),
    Registration(String),
    Registrations(String),
    Setting(Setting),
}

/// Whether a path is one of the provisioning service's back side.
pub(super) fn has(path: &str) -> bool {
    target(path).is_some()
}

/// Reads a raw path; also gives the decoded path, for the scope of tokens.
fn target(path: &str) -> Option<(Target, String)> {
    let segments: Option<Vec<String>> = http::segments(path)?
        .into_iter()
        .map(|segment| percent::try_decode(segment).map(|text| text.into_owned()))
        .collect();
    let segments = segments?;
    let (first, rest) = segments.split_first()?;
    let is = |text: &str, word: &str| text.eq_ignore_ascii_case(word);
    let kinds = [("enrollments", Kind::Individual), ("enrollmentGroups", Kind::Group)];
    let kind = kinds
        .into_iter()
        .find(|(word, _)| is(first, word))
        .map(|(_, kind)| kind);
    let target = match (kind, rest) {
        (Some(kind), []) => Target::Enrollments(kind),
        (Some(kind), [query]) if is(query, "query") => Target::List(kind),
        (Some(kind), [id]) => Target::Enrollment(kind, id.clone()),
        (Some(kind), [id, what]) if is(what, "attestationmechanism") => Target::Attestation(kind, id.clone()),
        (None, [id]) if is(first, "registrations") => Target::Registration(id.clone()),
        (None, [group, query]) if is(first, "registrations") && is(query, "query") => {
            Target::Registrations(group.clone())
        }
        (None, [v1, provisioning, rest @ ..]) if first == "holm" && v1 == "v1" && provisioning == "provisioning" => {
            Target::Setting(Setting::of(rest)?)
        }
        _ => return None,
    };
    Some((target, segments.join("/")))
}

/// A request, as far as all have in common.
pub(super) struct Call<'c> {
    pub(super) method: &'c Method,
    headers: &'c HeaderMap,
    pub(super) body: &'c Bytes,
}

impl Call<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(super) fn if_match(&self) -> Option<String> {
        self.header(IF_MATCH.as_str()).map(str::to_owned)
    }

    fn document(&self) -> Result<Map<String, Value>, ProvisioningError> {
        document::read_body(self.body)
    }

    /// Where a page begins, and how many items it has.
    fn page(&self) -> Result<(String, u32), ProvisioningError> {
        let wrong = |name: &str, text: &str| {
            ProvisioningError::argument_invalid(format!(
                "the header `{name}` is `{text}`; send back what came, or none"
            ))
        };
        let most = match self.header("x-ms-max-item-count") {
            None | Some("" | "-1") => PAGE,
            Some(text) => {
                let count: Option<u32> = text.trim().parse().ok().filter(|count| *count > 0);
                count.ok_or_else(|| wrong("x-ms-max-item-count", text))?.min(MAX_PAGE)
            }
        };
        let after = match self.header("x-ms-continuation") {
            None | Some("") => String::new(),
            Some(text) => {
                let bytes = URL_SAFE_NO_PAD.decode(text).ok();
                let after = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
                after.ok_or_else(|| wrong("x-ms-continuation", text))?
            }
        };
        Ok((after, most))
    }

    /// Only what all tools ask is understood: everything there is.
    fn check_query(&self, table: &str) -> Result<(), ProvisioningError> {
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let document = self.document()?;
        let text = document.get("query").and_then(Value::as_str).unwrap_or_default();
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            [] => Ok(()),
            // The original's command line does not say from where.
            [select, "*"] if select.eq_ignore_ascii_case("select") => Ok(()),
            [select, "*", from, what]
                if select.eq_ignore_ascii_case("select")
                    && from.eq_ignore_ascii_case("from")
                    && (what.eq_ignore_ascii_case(table) || table.is_empty()) =>
            {
                Ok(())
            }
            _ => {
                let table = if table.is_empty() { "deviceRegistrations" } else { table };
                let text = format!("the query is `{text}`; ask `SELECT * FROM {table}`");
                Err(ProvisioningError::argument_invalid(text))
            }
        }
    }
}

impl RestApi {
    /// Answers a request whose path is one of the provisioning service's ([`has`]).
    pub(super) async fn provisioning<B>(&self, head: &hyper::http::request::Parts, body: &mut Unread<B>) -> Answer
    where
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let now = self.backend.clock.now();
        self.carry_out_provisioning(head, body)
            .await
            .unwrap_or_else(|error| failure(&error, now))
    }

    async fn carry_out_provisioning<B>(
        &self,
        head: &hyper::http::request::Parts,
        body: &mut Unread<B>,
    ) -> Result<Answer, ProvisioningError>
    where
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (target, path) =
            target(head.uri.path()).ok_or_else(|| ProvisioningError::not_found("there is no such resource"))?;
        let authorization = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let actor = self
            .backend
            .provisioning
            .permit(authorization, &path, right(&target, &head.method))?;
        if !matches!(target, Target::Setting(_)) {
            Query::parse(head.uri.query().unwrap_or_default()).api_version()?;
        }
        let (body, _room) = body.read(super::MAX_BODY).await?;
        let call = Call {
            method: &head.method,
            headers: &head.headers,
            body: &body,
        };
        actor.does(self.dispatch_provisioning(target, call)).await
    }

    async fn dispatch_provisioning(&self, target: Target, call: Call<'_>) -> Result<Answer, ProvisioningError> {
        let service = &self.backend.provisioning;
        match target {
            Target::Setting(setting) => self.provisioning_setting(&call, setting).await,
            Target::Enrollments(kind) => self.bulk_enrollments(&call, kind).await,
            Target::Enrollment(kind, id) => self.enrollment(&call, kind, read_id(&id)?).await,
            Target::Attestation(kind, id) => {
                only(&call, &Method::POST)?;
                Ok(answer_json(&service.attestation(kind, read_id(&id)?).await?))
            }
            Target::List(kind) => {
                only(&call, &Method::POST)?;
                call.check_query(match kind {
                    Kind::Individual => "enrollments",
                    Kind::Group => "enrollmentGroups",
                })?;
                let (after, most) = call.page()?;
                let (items, next) = service.list(kind, after, most).await?;
                Ok(page(items, next, kind.name()))
            }
            Target::Registration(id) => self.registration(&call, read_id(&id)?).await,
            Target::Registrations(group) => {
                only(&call, &Method::POST)?;
                call.check_query("")?;
                let (after, most) = call.page()?;
                let (items, next) = service.registrations(read_id(&group)?, after, most).await?;
                Ok(page(items, next, "deviceRegistration"))
            }
        }
    }

    async fn enrollment(&self, call: &Call<'_>, kind: Kind, id: RegistrationId) -> Result<Answer, ProvisioningError> {
        let service = &self.backend.provisioning;
        match *call.method {
            Method::GET => Ok(with_etag(&service.get(kind, id).await?)),
            Method::PUT => {
                let put = service.put(kind, Some(id), call.document()?, call.if_match());
                Ok(with_etag(&put.await?))
            }
            Method::DELETE => {
                service.remove(kind, id, call.if_match()).await?;
                Ok(no_content())
            }
            _ => Err(not_allowed(call.method, "GET, PUT or DELETE")),
        }
    }

    async fn registration(&self, call: &Call<'_>, id: RegistrationId) -> Result<Answer, ProvisioningError> {
        let service = &self.backend.provisioning;
        match *call.method {
            Method::GET => Ok(with_etag(&service.registration(id).await?.to_json())),
            Method::DELETE => {
                service.forget(id, call.if_match()).await?;
                Ok(no_content())
            }
            _ => Err(not_allowed(call.method, "GET or DELETE")),
        }
    }

    async fn bulk_enrollments(&self, call: &Call<'_>, kind: Kind) -> Result<Answer, ProvisioningError> {
        only(call, &Method::POST)?;
        let mut document = call.document()?;
        let (member, id_member) = match kind {
            Kind::Individual => ("enrollments", "registrationId"),
            Kind::Group => ("enrollmentGroups", "enrollmentGroupId"),
        };
        let mode = bulk_mode(&document)?;
        let Some(Value::Array(items)) = document.remove(member) else {
            let text = format!("`{member}` must be an array of enrollments");
            return Err(ProvisioningError::argument_invalid(text));
        };
        if !(1..=MAX_BULK).contains(&items.len()) {
            let text = format!("`{member}` has {} enrollments; give 1 to {MAX_BULK}", items.len());
            return Err(ProvisioningError::argument_invalid(text));
        }
        let mut errors = Vec::new();
        for item in items {
            let id = item.get(id_member).cloned().unwrap_or_default();
            let outcome = match item {
                Value::Object(item) => self.backend.provisioning.bulk_item(kind, mode, item).await,
                _ => Err(ProvisioningError::argument_invalid("an enrollment must be an object")),
            };
            if let Err(error) = outcome {
                let text = error.message.clone();
                errors.push(json!({ id_member: id, "errorCode": error.code.number(), "errorStatus": text }));
            }
        }
        Ok(answer_json(
            &json!({ "isSuccessful": errors.is_empty(), "errors": errors }),
        ))
    }
}

fn bulk_mode(document: &Map<String, Value>) -> Result<BulkMode, ProvisioningError> {
    let said = document.get("mode").and_then(Value::as_str).unwrap_or_default();
    let all = [
        ("create", BulkMode::Create),
        ("update", BulkMode::Update),
        ("updateIfMatchETag", BulkMode::UpdateIfMatch),
        ("delete", BulkMode::Delete),
    ];
    let found = all.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(said));
    found.map(|(_, mode)| mode).ok_or_else(|| {
        let text = format!("`mode` is `{said}`; give `create`, `update`, `updateIfMatchETag` or `delete`");
        ProvisioningError::argument_invalid(text)
    })
}

/// Which permission a request wants.
fn right(target: &Target, method: &Method) -> ProvisioningRights {
    match (target, method) {
        (Target::Registration(_), &Method::DELETE) => ProvisioningRights::REGISTRATION_WRITE,
        (Target::Registration(_) | Target::Registrations(_), _) => ProvisioningRights::REGISTRATION_READ,
        (Target::Enrollment(..), &Method::GET) | (Target::List(_), _) => ProvisioningRights::ENROLLMENT_READ,
        (Target::Setting(setting), _) => setting.right(),
        // Keys are for those who may give others.
        (Target::Enrollments(_) | Target::Enrollment(..) | Target::Attestation(..), _) => {
            ProvisioningRights::ENROLLMENT_WRITE
        }
    }
}

fn read_id(text: &str) -> Result<RegistrationId, ProvisioningError> {
    RegistrationId::new(text).map_err(|error| ProvisioningError::argument_invalid(error.to_string()))
}

fn only(call: &Call<'_>, allowed: &Method) -> Result<(), ProvisioningError> {
    if call.method == allowed {
        return Ok(());
    }
    Err(not_allowed(call.method, allowed.as_str()))
}

pub(super) fn not_allowed(method: &Method, allowed: &str) -> ProvisioningError {
    let text = format!("{method} is not possible here; use {allowed}");
    ProvisioningError::new(ProvisioningCode::MethodNotAllowed, text)
}

/// A page: C# and Java want the kind of its items, and an array also where it is empty.
fn page(items: Vec<Value>, next: Option<String>, kind: &'static str) -> Answer {
    let mut response = answer_json(&Value::Array(items));
    let headers = response.headers_mut();
    headers.insert("x-ms-item-type", HeaderValue::from_static(kind));
    let next = next.map(|next| URL_SAFE_NO_PAD.encode(next));
    if let Some(Ok(next)) = next.map(|next| HeaderValue::from_str(&next)) {
        headers.insert("x-ms-continuation", next);
    }
    response
}

fn with_etag(document: &Value) -> Answer {
    let mut response = answer_json(document);
    let etag = document.get("etag").and_then(Value::as_str).unwrap_or_default();
    if let Ok(value) = HeaderValue::from_str(&format!("\"{etag}\"")) {
        response.headers_mut().insert(ETAG, value);
    }
    response
}

fn failure(error: &ProvisioningError, now: Timestamp) -> Answer {
    let tracking = holm_gateway::tracking_id();
    tracing::debug!(%tracking, code = error.code.number(), %error, "a request to the provisioning service was refused");
    let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = answer::json(status, &error.body(tracking, now));
    if let Some(wait) = error.retry_after {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_resources_in_any_case_and_with_a_slash_at_the_end() {
        let named = |path| target(path).map(|(target, _)| target);
        assert_eq!(named("/enrollments/"), Some(Target::Enrollments(Kind::Individual)));
        assert_eq!(
            named("/enrollmentgroups/g%2D1"),
            Some(Target::Enrollment(Kind::Group, "g-1".to_owned()))
        );
        assert_eq!(named("/enrollments/query"), Some(Target::List(Kind::Individual)));
        assert_eq!(
            named("/enrollments/r/attestationMechanism"),
            Some(Target::Attestation(Kind::Individual, "r".to_owned()))
        );
        assert_eq!(
            named("/registrations/g/query"),
            Some(Target::Registrations("g".to_owned()))
        );
        for other in ["/", "/devices/d", "/0ne1/registrations/r/register", "/registrations"] {
            assert_eq!(named(other), None, "{other}");
        }
    }
}
