//! What devices and modules ask over HTTPS, without a connection that lasts: they send events, and devices fetch what was sent to
//! them.
//!
//! ```text
//! request -> target (path, method) -> proof -> api-version -> body within its limit -> telemetry.rs | mail.rs -> answer
//! ```
//!
//! - Every request is proved anew: a device that is disabled now gets nothing from now on.
//! - 204 means on disk.
//! - No session is opened for a request, so it ends no connection of its identity.
//!
//! Source: `hub-device-protocols.md` §4.1, §4.2.

pub(crate) mod locks;
mod mail;
mod target;
pub mod telemetry;

use bytes::Bytes;
use holm_model::error::{ErrorCode, ServiceError};
use holm_net::Peer;
use holm_net::http::{BodyError, ResponseBody, body};
use hyper::body::Body;
use hyper::header::{AUTHORIZATION, HeaderMap, USER_AGENT};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};

use self::target::{Call, Target};
use super::answer;
use super::query::Query;
use crate::backend::{Admission, Announced, Attempt, Backend, Credential, Refusal, Settlement};
use crate::gateway::{self, Gateway};

/// The most of what is read of a body that is not looked at: C and Java send a byte with an abandoned message.
const MAX_IGNORED_BODY: usize = 1024;

impl<N: Backend> Gateway<N> {
    /// Answers what a device or module asks over HTTPS, or gives the request back where it is nothing of theirs.
    ///
    /// # Errors
    /// The request, untouched.
    pub async fn answer_device<B>(&self, request: Request<B>, peer: &Peer) -> Result<Response<ResponseBody>, Request<B>>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Some(target) = target::parse(request.method(), request.uri().path()) else {
            return Err(request);
        };
        let (head, body) = request.into_parts();
        let answered = match target {
            Ok(target) if head.method != target.call.method() => {
                return Ok(answer::not_allowed(&head.method, &target.call.method(), gateway::now()));
            }
            Ok(target) => self.carry_out(target, &head, body, peer).await,
            Err(error) => Err(error),
        };
        Ok(answered.unwrap_or_else(|error| answer::of_error(&error, gateway::now())))
    }

    async fn carry_out<B>(
        &self,
        Target { identity, call }: Target,
        head: &Parts,
        body: B,
        peer: &Peer,
    ) -> Result<Response<ResponseBody>, ServiceError>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (headers, backend) = (&head.headers, self.backend().as_ref());
        let query = Query::parse(head.uri.query().unwrap_or_default());
        let attempt = Attempt {
            identity,
            credential: credential(headers, peer),
            announced: Announced {
                api_version: query.get("api-version").map(str::to_owned),
                client_type: headers
                    .get(USER_AGENT)
                    .and_then(|value| value.to_str().ok())
                    .map(str::to_owned),
                ..Announced::default()
            },
        };
        let of: Admission = backend.verify(attempt).await.map_err(refused)?;
        query.api_version()?;
        let limit = match call {
            Call::Send => telemetry::limit(headers),
            Call::Receive | Call::Settle(_) | Call::Abandon(_) => MAX_IGNORED_BODY,
        };
        let bytes = body::read_request(body, limit).await.map_err(unreadable)?;
        let locks = (self.without_session, self.locks.as_ref());
        match call {
            Call::Send => {
                telemetry::take_in(backend, &of, head, bytes).await?;
                Ok(no_content())
            }
            Call::Receive => mail::fetch(backend, locks, &of, &query, headers).await,
            Call::Settle(lock) => mail::settle(backend, locks, &of, &lock, mail::settlement_of(&query)).await,
            Call::Abandon(lock) => mail::settle(backend, locks, &of, &lock, Settlement::Abandon).await,
        }
    }
}

/// The proof that comes with a request: a token, else the certificate of the handshake.
pub(super) fn credential(headers: &HeaderMap, peer: &Peer) -> Credential {
    match headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()) {
        Some(token) => Credential::Token(token.to_owned()),
        None if peer.certificates.is_empty() => Credential::None,
        None => Credential::Certificate(peer.certificates.clone()),
    }
}

pub(super) fn refused(refusal: Refusal) -> ServiceError {
    match refusal {
        Refusal::NotAuthorized(reason) => ServiceError::unauthorized(reason),
        Refusal::Unavailable(reason) => ServiceError::unavailable(reason),
        Refusal::Throttled(reason) => ServiceError::new(ErrorCode::ThrottlingException, reason),
    }
}

pub(super) fn unreadable(error: BodyError) -> ServiceError {
    match error {
        BodyError::TooLarge(_) => ServiceError::new(ErrorCode::MessageTooLarge, error.to_string()),
        BodyError::TimedOut | BodyError::Broken(_) => ServiceError::argument_invalid(error.to_string()),
    }
}

fn no_content() -> Response<ResponseBody> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
