//! Requests for certificates: checked, accepted, met; one of a client at a time.
//!
//! ```text
//! $iothub/credentials/POST/issueCertificate/?$rid={rid}   {"id": "dev1", "csr": base64 PKCS #10, "replace": "*" | rid}
//! $iothub/credentials/res/202/?$rid={rid}                 {"correlationId", "operationExpires"}
//! $iothub/credentials/res/200/?$rid={rid}                 {"correlationId", "certificates": [base64 DER, leaf first]}
//! $iothub/credentials/res/4xx/?$rid={rid}                 {"errorCode", "message", "trackingId", "timestampUtc", "info"}
//! ```
//!
//! - While one is worked on, another has to say that it replaces that: `*`, or its `rid`. The one that is replaced is answered no more.
//! - A request without `rid`, and one of a client that does not listen to answers, is dropped: nobody would take the certificate.
//!
//! Source: `hub-device-protocols.md` §5.7, hub renewal.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt as _;
use holm_identity::ca::request::SigningRequest;
use holm_model::error::{ErrorCode, ServiceError};
use holm_model::wire::ServerTopic;
use holm_model::{Identity, Timestamp, strict_json};
use rustls::pki_types::CertificateDer;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

use super::publish_once;
use super::serve::Client;
use crate::backend::{Admission, Backend};
use crate::credentials::not_here;
use crate::gateway::now;
use crate::session::Subscriptions;

/// How long a request is worked on at most. The rest is told that it failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// The lengths of a `rid`.
const RID: std::ops::RangeInclusive<usize> = 4..=36;

type Work<T> = Pin<Box<dyn Future<Output = Result<T, ServiceError>> + Send>>;

/// The request of a client that is worked on, if there is one. Small: few sessions ever have any.
#[derive(Default)]
pub(super) struct Issuing(Option<Box<Current>>);

struct Current {
    rid: String,
    correlation: String,
    expires: Timestamp,
    step: Step,
}

enum Step {
    /// It is asked whether it may, and only then its request is looked at: to check what it has signed is dear.
    Asking(Work<SigningRequest>),
    /// It is accepted, and met.
    Working(Work<Vec<CertificateDer<'static>>>),
}

/// What a request is told.
pub(super) struct Told {
    rid: String,
    status: u16,
    body: Value,
}

/// What goes on with a request.
enum Next {
    Accepted(SigningRequest),
    Issued(Vec<CertificateDer<'static>>),
}

impl Issuing {
    /// What the request is told next; waits for ever while there is none. Cancel-safe.
    pub(super) async fn next<B: Backend>(&mut self, backend: &Arc<B>, admission: &Arc<Admission>) -> Told {
        let Some(current) = &mut self.0 else {
            return std::future::pending().await;
        };
        let outcome = match &mut current.step {
            Step::Asking(work) => work.await.map(Next::Accepted),
            Step::Working(work) => work.await.map(Next::Issued),
        };
        let (rid, correlation) = (current.rid.clone(), current.correlation.clone());
        match outcome {
            Ok(Next::Accepted(request)) => {
                current.step = Step::Working(issue(Arc::clone(backend), Arc::clone(admission), request));
                let body = json!({ "correlationId": correlation, "operationExpires": current.expires });
                Told { rid, status: 202, body }
            }
            Ok(Next::Issued(chain)) => {
                self.0 = None;
                let certificates: Vec<_> = chain.iter().map(|certificate| STANDARD.encode(certificate)).collect();
                let body = json!({ "correlationId": correlation, "certificates": certificates });
                Told { rid, status: 200, body }
            }
            Err(error) => {
                self.0 = None;
                refusal(&rid, &error)
            }
        }
    }

    /// Takes a request up, or says why not.
    fn begin<B: Backend>(
        &mut self,
        rid: &str,
        body: &[u8],
        (backend, admission): (&Arc<B>, &Arc<Admission>),
    ) -> Result<(), Told> {
        if !RID.contains(&rid.len()) || !rid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            let text = "`$rid` must be 4 to 36 letters, digits and `-`";
            return Err(refusal(rid, &ServiceError::new(ErrorCode::IotHubFormatError, text)));
        }
        let asked = Asked::read(body, &admission.identity).map_err(|error| refusal(rid, &error))?;
        self.check_room(rid, asked.replaces.as_deref())?;
        let (asking, of, csr) = (Arc::clone(backend), Arc::clone(admission), asked.csr);
        let work = async move {
            asking.may_have_certificate(&of).await?;
            read_request(&csr, &of.identity)
        };
        self.0 = Some(Box::new(Current {
            rid: rid.to_owned(),
            correlation: crate::tracking_id().to_string(),
            expires: now().plus_millis(i64::try_from(PATIENCE.as_millis()).unwrap_or(0)),
            step: Step::Asking(work.boxed()),
        }));
        Ok(())
    }

    /// Whether a request may take the place of the one that is worked on.
    fn check_room(&self, rid: &str, replaces: Option<&str>) -> Result<(), Told> {
        let Some(current) = &self.0 else {
            return match replaces {
                None | Some("*") => Ok(()),
                Some(_) => Err(refusal(rid, &none_to_replace())),
            };
        };
        let (code, text) = match replaces {
            Some("*") => return Ok(()),
            Some(replaced) if replaced == current.rid => return Ok(()),
            Some(_) => return Err(refusal(rid, &none_to_replace())),
            None if current.rid == rid => (
                ErrorCode::CertificateRequestPending,
                "this request is being worked on; wait for its answer",
            ),
            None => (
                ErrorCode::CertificateRequestConflict,
                "another request is being worked on; wait for its answer, or replace it: `\"replace\": \"*\"`",
            ),
        };
        let info = json!({
            "requestId": current.rid,
            "correlationId": current.correlation,
            "operationExpires": current.expires,
        });
        Err(refusal_with(rid, &ServiceError::new(code, text), info))
    }
}

fn issue<B: Backend>(
    backend: Arc<B>,
    admission: Arc<Admission>,
    request: SigningRequest,
) -> Work<Vec<CertificateDer<'static>>> {
    let issuing = async move {
        let issued = tokio::time::timeout(PATIENCE, backend.issue_certificate(&admission, request)).await;
        issued.unwrap_or_else(|_| {
            let text = "the certificate was not issued in time; try again later";
            Err(ServiceError::unavailable(text))
        })
    };
    issuing.boxed()
}

/// What a client asks for, checked but for the request itself.
struct Asked {
    csr: String,
    replaces: Option<String>,
}

impl Asked {
    fn read(body: &[u8], own: &Identity) -> Result<Self, ServiceError> {
        let wrong = |text: String| ServiceError::argument_invalid(text);
        let document = match strict_json::parse(body) {
            Ok(Value::Object(document)) => document,
            Ok(_) => return Err(form("the body must be a JSON object".to_owned())),
            Err(error) => return Err(form(format!("the body can't be read: {error}"))),
        };
        let text = |name: &str| text_of(&document, name);
        let needed = |name: &str| text(name)?.ok_or_else(|| wrong(format!("`{name}` is missing")));
        if own.is_module() {
            let text = "certificates are issued to devices; a module goes by its keys".to_owned();
            return Err(ServiceError::new(ErrorCode::InvalidOperation, text));
        }
        let id = needed("id")?;
        if id != own.device.as_str() {
            let shown: String = id.chars().take(128).collect();
            return Err(wrong(format!(
                "`id` is `{shown}`, and this connection is `{own}`; give the same"
            )));
        }
        let csr = needed("csr")?.to_owned();
        let replaces = text("replace")?.map(str::to_owned);
        Ok(Self { csr, replaces })
    }
}

/// The request of a device, of which its signature is checked.
fn read_request(csr: &str, own: &Identity) -> Result<SigningRequest, ServiceError> {
    let request = SigningRequest::from_text(csr).map_err(|error| not_issued(error.to_string()))?;
    let name = request.common_name();
    if name != own.device.as_str() {
        let text = format!("the common name of `csr` is `{name}`, and the device `{own}`; give the same");
        return Err(not_issued(text));
    }
    Ok(request)
}

fn text_of<'d>(document: &'d Map<String, Value>, name: &str) -> Result<Option<&'d str>, ServiceError> {
    match document.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(ServiceError::argument_invalid(format!("`{name}` must be a text"))),
    }
}

fn form(text: String) -> ServiceError {
    ServiceError::new(ErrorCode::IotHubFormatError, text)
}

fn not_issued(text: String) -> ServiceError {
    ServiceError::new(ErrorCode::CertificateNotIssued, text)
}

fn none_to_replace() -> ServiceError {
    ServiceError::precondition_failed("no request that `replace` names is being worked on; leave `replace` out")
}

fn refusal(rid: &str, error: &ServiceError) -> Told {
    let info = match error.code {
        ErrorCode::CertificateNotIssued => {
            json!({ "credentialError": error.code.name(), "credentialMessage": error.message })
        }
        _ => Value::Null,
    };
    refusal_with(rid, error, info)
}

fn refusal_with(rid: &str, error: &ServiceError, info: Value) -> Told {
    let mut body = error.device_body(crate::tracking_id(), now());
    if !info.is_null() {
        body["info"] = info;
    }
    Told {
        rid: rid.to_owned(),
        status: error.code.status(),
        body,
    }
}

impl<B: Backend, S: AsyncRead + AsyncWrite + Unpin + Send> Client<'_, B, S> {
    /// Takes up a request for a certificate.
    pub(super) fn ask_certificate(&mut self, rid: Option<&str>, body: &[u8]) {
        let listens = self
            .handle
            .subscriptions()
            .contains(Subscriptions::CERTIFICATE_RESPONSES);
        let Some(rid) = rid.filter(|_| listens) else {
            tracing::debug!(identity = %self.admission.identity, "a request for a certificate was dropped: it has no `$rid`, or the client has not subscribed to answers");
            return;
        };
        let begun = if B::ISSUES {
            self.issuing.begin(rid, body, (&self.gateway.backend, &self.admission))
        } else {
            Err(refusal(rid, &not_here()))
        };
        if let Err(told) = begun {
            self.tell_certificate(&told);
        }
    }

    pub(super) fn tell_certificate(&mut self, told: &Told) {
        if told.status >= 400 {
            tracing::info!(identity = %self.admission.identity, code = %told.body["errorCode"], reason = %told.body["message"], "a certificate was not issued");
        }
        let topic = ServerTopic::certificate_response(told.status, &told.rid);
        publish_once(self.connection.session_mut(), topic, told.body.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_issues_none_says_where_to_go() {
        let told = refusal("r-01", &not_here());

        assert_eq!((told.status, &told.body["errorCode"]), (400, &json!(400_003)));
        assert!(
            told.body["message"]
                .as_str()
                .unwrap_or_default()
                .contains("the hub itself")
        );
        assert!(told.body.get("info").is_none());
    }
}
