//! The opening handshake of a WebSocket that carries another protocol (RFC 6455 §4.2).
//!
//! The sub-protocol is compared without case and echoed as it was sent: the C SDK asks for `MQTT`, the others for `mqtt`
//! (`hub-device-protocols.md` §2.1); AMQP is `AMQPWSB10` (§3.1). Extensions are declined by not naming them.

use holm_net::http::{ResponseBody, body};
use holm_net::websocket::{WebSocketBytes, derive_accept_key};
use std::fmt;
use std::pin::Pin;

use hyper::body::Body;
use hyper::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

/// What is spoken on a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subprotocol {
    /// MQTT 3.1.1.
    Mqtt,
    /// AMQP 1.0.
    Amqp,
}

impl Subprotocol {
    const ALL: [Self; 2] = [Self::Mqtt, Self::Amqp];

    /// Its name in `Sec-WebSocket-Protocol`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Amqp => "AMQPWSB10",
        }
    }
}

/// The stream of an upgraded connection.
pub type UpgradedStream = WebSocketBytes<TokioIo<Upgraded>>;

/// Whether a request asks for a WebSocket.
#[must_use]
pub fn is_upgrade<B>(request: &Request<B>) -> bool {
    header_has(request, &UPGRADE, "websocket") && header_has(request, &CONNECTION, "upgrade")
}

/// A handshake that is accepted.
pub struct Accepted {
    /// What the client wants to speak.
    pub protocol: Subprotocol,
    /// The answer to send (101).
    pub response: Response<ResponseBody>,
    /// The stream; it resolves after the answer has left.
    pub stream: Pin<Box<dyn Future<Output = hyper::Result<UpgradedStream>> + Send>>,
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted").finish_non_exhaustive()
    }
}

/// Accepts the handshake, if the client offers something that is spoken here.
///
/// # Errors
/// The answer to send instead (400 or 426), whose body says what is wrong.
pub fn accept<B: Body>(mut request: Request<B>) -> Result<Accepted, Box<Response<ResponseBody>>> {
    if request
        .headers()
        .get(SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        let mut response = refuse(StatusCode::UPGRADE_REQUIRED, "only WebSocket version 13 is spoken here");
        response
            .headers_mut()
            .insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(Box::new(response));
    }
    let Some(accept_key) = request
        .headers()
        .get(SEC_WEBSOCKET_KEY)
        .map(|key| derive_accept_key(key.as_bytes()))
    else {
        return Err(Box::new(refuse(
            StatusCode::BAD_REQUEST,
            "the header `Sec-WebSocket-Key` is missing",
        )));
    };
    let Some((protocol, echo)) = offered(&request) else {
        let reason = "the sub-protocol must be `mqtt` or `AMQPWSB10`; give it in `Sec-WebSocket-Protocol`";
        return Err(Box::new(refuse(StatusCode::BAD_REQUEST, reason)));
    };
    let Ok(accept_key) = HeaderValue::from_str(&accept_key) else {
        return Err(Box::new(refuse(
            StatusCode::BAD_REQUEST,
            "the header `Sec-WebSocket-Key` is malformed",
        )));
    };

    let upgrade = hyper::upgrade::on(&mut request);
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept_key);
    headers.insert(SEC_WEBSOCKET_PROTOCOL, echo);
    let stream = Box::pin(async move { Ok(WebSocketBytes::server(TokioIo::new(upgrade.await?)).await) });
    Ok(Accepted {
        protocol,
        response,
        stream,
    })
}

/// The first sub-protocol that is spoken here, with its name as the client spelled it.
fn offered<B>(request: &Request<B>) -> Option<(Subprotocol, HeaderValue)> {
    request
        .headers()
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .find_map(|offer| {
            let known = Subprotocol::ALL.into_iter();
            let protocol = { known }.find(|protocol| offer.eq_ignore_ascii_case(protocol.name()))?;
            Some((protocol, HeaderValue::from_str(offer).ok()?))
        })
}

fn header_has<B>(request: &Request<B>, name: &HeaderName, token: &str) -> bool {
    request
        .headers()
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

fn refuse(status: StatusCode, reason: &str) -> Response<ResponseBody> {
    let mut response = Response::new(body::full(reason.to_owned()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use hyper::body::Bytes;

    use super::*;

    fn request(subprotocol: &str) -> Request<Empty<Bytes>> {
        Request::get("/$iothub/websocket")
            .header("Upgrade", "websocket")
            .header("Connection", "keep-alive, Upgrade")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("Sec-WebSocket-Protocol", subprotocol)
            .body(Empty::new())
            .unwrap()
    }

    #[test]
    fn the_subprotocol_is_echoed_as_it_was_spelled() {
        let offers = [
            ("mqtt", Subprotocol::Mqtt),
            ("MQTT", Subprotocol::Mqtt),
            ("AMQPWSB10", Subprotocol::Amqp),
        ];
        for (offer, protocol) in offers {
            let accepted = accept(request(offer)).unwrap();

            assert_eq!(accepted.protocol, protocol);
            let response = accepted.response;
            assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
            assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], offer);
            assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        }
    }

    #[test]
    fn another_subprotocol_is_refused_with_400() {
        let refused = accept(request("soap")).err().map(|response| response.status());

        assert_eq!(refused, Some(StatusCode::BAD_REQUEST));
    }
}
