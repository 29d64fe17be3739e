//! Targets of `holm-net` and of the HTTP face of `holm-gateway`: requests, answers, WebSocket frames.
//!
//! ```text
//! bytes ──► a stream in memory ──► the code that serves or asks ──► what it answers, read to its end
//! ```
//!
//! Time stands still and jumps when nobody has anything to do, so that every deadline is reached at once. What does not end
//! within an hour of such time waits for ever.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use holm_gateway::http::{method_call, websocket};
use holm_gateway::{Admission, Attempt, AuthKind, Authority, Directory, Principal, Refusal};
use holm_model::DeviceId;
use holm_net::http::{Handler, ResponseBody, body, client, serve_connection};
use holm_net::websocket::WebSocketBytes;
use holm_net::{Peer, Scope};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinHandle;

/// The most that is read of a body, far below what a length may promise.
const MAX_BODY: usize = 16 * 1024;
/// The most that is answered to an input of 64 KiB, all of it smallest requests.
const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// What a stream in memory holds.
const PIPE: usize = 1024;
/// Longer than any deadline.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// A client's side of an HTTP connection to an edge: requests with bodies, method calls, a WebSocket.
pub(super) fn server(bytes: &[u8]) {
    let answer = answers_to(bytes);
    assert!(answer.len() < MAX_ANSWER, "an endless answer");
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1."),
        "an answer that is not HTTP"
    );
}

fn answers_to(bytes: &[u8]) -> Vec<u8> {
    run(async {
        let (near, far) = tokio::io::duplex(PIPE);
        let scope = Scope::new();
        let face = Arc::<Face>::default();
        let served = tokio::spawn(serve_connection(
            scope.clone(),
            near,
            Peer::default(),
            Arc::clone(&face),
        ));
        let (mut answers, mut requests) = tokio::io::split(far);
        let input = bytes.to_vec();
        let writing = tokio::spawn(async move {
            // An error means that the server has closed, as it may.
            let written = requests.write_all(&input).await;
            (written, requests)
        });
        let answer = read_some(&mut answers).await;
        drop(answers);
        drop(tokio::time::timeout(FOR_EVER, writing).await);
        ends("the connection", served).await.expect("no panic there");
        for upgraded in face.take_upgraded() {
            ends("an upgraded connection", upgraded).await.expect("no panic there");
        }
        answer
    })
}

/// A hub's side of an HTTP connection.
pub(super) fn answer(bytes: &[u8]) {
    let body = run(async {
        let (near, mut far) = tokio::io::duplex(PIPE);
        let input = bytes.to_vec();
        let answering = tokio::spawn(async move {
            let mut request = [0; PIPE];
            // Whether the client reads all of it or closes is its own affair.
            let read = far.read(&mut request).await;
            let written = far.write_all(&input).await;
            drop((read, written, far));
        });
        let request = Request::get("/devices/d?api-version=2021-04-12").header("Host", "hub.test");
        let request = request
            .body(Full::<Bytes>::default())
            .expect("the request is well-formed");
        let body = match ends("the request", client::send_over(near, request)).await {
            Ok(response) => ends("the answer", body::read(response.into_body(), MAX_BODY))
                .await
                .ok(),
            Err(_) => None,
        };
        ends("the connection", answering).await.expect("no panic there");
        body
    });
    assert!(body.is_none_or(|body| body.len() <= MAX_BODY.min(bytes.len())));
}

/// The other side of a WebSocket after its handshake, in both roles.
pub(super) fn frames(bytes: &[u8]) {
    let whole = run(async { read_frames(WebSocketBytes::server(fed(bytes, bytes.len())).await).await });
    let pieces = run(async { read_frames(WebSocketBytes::server(fed(bytes, 7)).await).await });
    assert_eq!(whole, pieces, "whole and in pieces differ");
    assert!(whole.len() <= bytes.len(), "more bytes than came");
    let from_server = run(async { read_frames(WebSocketBytes::client(fed(bytes, bytes.len())).await).await });
    assert!(from_server.len() <= bytes.len(), "more bytes than came");
}

/// Runs in a runtime of its own, on a clock that never waits.
fn run<T>(task: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build();
    runtime.expect("a runtime without threads can be made").block_on(task)
}

async fn ends<T>(what: &str, task: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(FOR_EVER, task).await;
    ended.unwrap_or_else(|_| panic!("{what} does not end"))
}

/// Everything that comes until the end, or until nothing more comes.
async fn read_some(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    let mut chunk = [0; 4096];
    while all.len() < MAX_ANSWER {
        match tokio::time::timeout(FOR_EVER, stream.read(&mut chunk)).await {
            Ok(Ok(count)) if count > 0 => all.extend_from_slice(&chunk[..count]),
            _ => break,
        }
    }
    all
}

async fn read_frames(mut socket: WebSocketBytes<impl AsyncRead + AsyncWrite + Unpin>) -> Vec<u8> {
    read_some(&mut socket).await
}

/// A stream on which these bytes come, then its end; what is written to it is read and thrown away.
fn fed(bytes: &[u8], piece: usize) -> DuplexStream {
    let (near, far) = tokio::io::duplex(PIPE);
    let input = bytes.to_vec();
    let (mut output, mut writer) = tokio::io::split(far);
    tokio::spawn(async move {
        for piece in input.chunks(piece.max(1)) {
            if writer.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        // The reader may be gone by then.
        writer.shutdown().await.ok();
    });
    tokio::spawn(async move { read_some(&mut output).await });
    near
}

/// An edge's HTTP face over a node that lets everybody in and knows nobody.
#[derive(Default)]
struct Face {
    upgraded: Mutex<Vec<JoinHandle<()>>>,
}

impl Face {
    fn take_upgraded(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.upgraded.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Handler for Face {
    async fn handle(&self, request: Request<Incoming>, peer: Peer) -> Response<ResponseBody> {
        if websocket::is_upgrade(&request) {
            return match websocket::accept(request) {
                Ok(accepted) => {
                    let reading = tokio::spawn(async move {
                        if let Ok(mut stream) = accepted.stream.await {
                            read_some(&mut stream).await;
                        }
                    });
                    let mut upgraded = self.upgraded.lock().unwrap_or_else(PoisonError::into_inner);
                    upgraded.push(reading);
                    accepted.response
                }
                Err(refusal) => *refusal,
            };
        }
        let device = DeviceId::new("pump-7").expect("the id is a good one");
        if let Some(target) = method_call::target(&request) {
            let directory = Directory::default();
            return method_call::answer(&Everybody, &directory, &device, target, request, &peer, |_, _, _| {}).await;
        }
        let mut response = Response::new(body::empty());
        if body::read(request.into_body(), MAX_BODY).await.is_err() {
            *response.status_mut() = StatusCode::BAD_REQUEST;
        }
        response
    }
}

struct Everybody;

impl Authority for Everybody {
    async fn authenticate(&self, attempt: Attempt) -> Result<Admission, Refusal> {
        Ok(Admission {
            principal: Principal::Identity(attempt.identity.clone()),
            identity: attempt.identity,
            auth: AuthKind::Sas,
            thumbprint: None,
            generation_id: String::new(),
            expires: None,
            announced: attempt.announced,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_get_through_to_what_they_are_about() {
        let statuses = |example: &[u8]| -> Vec<String> {
            let answers = String::from_utf8_lossy(&answers_to(example)).into_owned();
            let heads = answers.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 "));
            heads.map(|head| head.chars().take(3).collect()).collect()
        };

        assert_eq!(statuses(include_bytes!("../../seeds/http-server/websocket")), ["101"]);
        assert_eq!(statuses(include_bytes!("../../seeds/http-server/method")), ["404"]);
        assert_eq!(
            statuses(include_bytes!("../../seeds/http-server/chunked")),
            ["100", "200", "200"]
        );
    }
}
