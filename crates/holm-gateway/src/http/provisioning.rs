//! The provisioning service for devices over HTTPS.
//!
//! ```text
//! PUT  /{scope}/registrations/{id}/register            202, Retry-After; never 200: clients wait for an operation
//! GET  /{scope}/registrations/{id}/operations/{op}     202, Retry-After, or 200
//! POST /{scope}/registrations/{id}                     200: the last registration
//! ```
//!
//! Every request carries its proof: a token, else the certificate of the handshake. Source: `hub-device-protocols.md` §5.3.

use bytes::Bytes;
use holm_model::wire::provisioning::HttpCall;
use holm_model::{ProvisioningCode, ProvisioningError};
use holm_net::Peer;
use holm_net::http::{BodyError, ResponseBody, body};
use hyper::body::Body;
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};

use super::answer;
use super::device::credential;
use super::query::Query;
use crate::backend::Backend;
use crate::gateway::{Gateway, now};
use crate::provisioning::{Applicant, MAX_REGISTRATION, Standing};
use crate::tracking_id;

impl<N: Backend> Gateway<N> {
    /// Answers what a device asks the provisioning service, or gives the request back where it is nothing of that.
    ///
    /// # Errors
    /// The request, untouched.
    pub async fn answer_provisioning<B>(
        &self,
        request: Request<B>,
        peer: &Peer,
    ) -> Result<Response<ResponseBody>, Request<B>>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let called = HttpCall::parse(request.uri().path()).filter(|_| self.backend.id_scope().is_some());
        let Some((registrant, call)) = called else {
            return Err(request);
        };
        let (head, body) = request.into_parts();
        let applicant = Applicant {
            registrant,
            credential: credential(&head.headers, peer),
            source: peer.address.map(|address| address.ip()),
        };
        let query = Query::parse(head.uri.query().unwrap_or_default());
        let answered = match query.api_version() {
            Ok(_) => self.carry_out_provisioning(&applicant, call, &head.method, body).await,
            Err(error) => Err(error.into()),
        };
        Ok(match answered {
            Ok(standing) => of_standing(&standing),
            Err(error) => of_error(&error),
        })
    }

    async fn carry_out_provisioning<B>(
        &self,
        applicant: &Applicant,
        call: HttpCall,
        method: &Method,
        body: B,
    ) -> Result<Standing, ProvisioningError>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let allowed = match call {
            HttpCall::Register => Method::PUT,
            HttpCall::Operation(_) => Method::GET,
            HttpCall::Last => Method::POST,
        };
        if *method != allowed {
            let text = format!("{method} is not possible here; use {allowed}");
            return Err(ProvisioningError::new(ProvisioningCode::MethodNotAllowed, text));
        }
        let bytes = body::read_request(body, MAX_REGISTRATION).await.map_err(unreadable)?;
        match call {
            HttpCall::Register => self.backend.begin(applicant, bytes).await,
            HttpCall::Operation(operation) => self.backend.state(applicant, &operation).await,
            HttpCall::Last => self.backend.last(applicant).await,
        }
    }
}

fn unreadable(error: BodyError) -> ProvisioningError {
    let code = match error {
        BodyError::TooLarge(_) => ProvisioningCode::TooLarge,
        BodyError::TimedOut | BodyError::Broken(_) => ProvisioningCode::ArgumentInvalid,
    };
    ProvisioningError::new(code, error.to_string())
}

fn of_standing(standing: &Standing) -> Response<ResponseBody> {
    let status = StatusCode::from_u16(standing.status).unwrap_or(StatusCode::OK);
    let response = answer::json(status, &standing.body);
    with_retry_after(response, standing.retry_after_seconds())
}

fn of_error(error: &ProvisioningError) -> Response<ResponseBody> {
    let tracking = tracking_id();
    tracing::debug!(%tracking, code = error.code.number(), %error, "a registration was refused");
    let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let response = answer::json(status, &error.body(tracking, now()));
    with_retry_after(response, error.retry_after.map(|wait| wait.as_secs()))
}

fn with_retry_after(mut response: Response<ResponseBody>, seconds: Option<u64>) -> Response<ResponseBody> {
    if let Some(seconds) = seconds {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
