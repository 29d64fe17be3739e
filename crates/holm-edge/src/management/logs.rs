//! The log of a module, piece by piece.

use bytes::Bytes;
use futures_util::StreamExt;
use holm_model::{ModuleId, Timestamp};
use holm_net::Scope;
use holm_net::http::{ResponseBody, body};
use holm_runtime::{LogStream, LogsOptions, ModuleRuntime, RuntimeError, Tail};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::sync::mpsc;

use crate::agent::Agent;
use crate::local_api::{Call, Failure};
use crate::moment;
use crate::own_log::OwnLog;

/// Pieces that wait for a slow reader; while it is full, the log is not read further.
const WAITING_PIECES: usize = 16;

pub(super) async fn answer(
    scope: &Scope,
    runtime: &dyn ModuleRuntime,
    module: &ModuleId,
    call: &Call,
) -> Result<Response<ResponseBody>, Failure> {
    let options = options(call)?;
    let log = runtime.logs(module, &options).await.map_err(|error| match error {
        RuntimeError::NotFound(_) => Failure::not_found(error.chain()),
        other => Failure::internal(other.chain()),
    })?;
    Ok(stream(scope, log))
}

/// A support bundle, as it is made.
pub(super) fn bundle(scope: &Scope, agent: &Agent, call: &Call) -> Result<Response<ResponseBody>, Failure> {
    let runtime_only = flag(call, "edge_runtime_only")?;
    let mut made = agent.bundle(scope, moment(call, "since")?, moment(call, "until")?, runtime_only);
    let (pieces, receiver) = mpsc::channel(1);
    scope.spawn_until_stopped(async move {
        while let Some(piece) = made.recv().await {
            if pieces.send(piece.map(Bytes::from)).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(body::streamed(receiver));
    let kind = HeaderValue::from_static("application/zip");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

/// The log of agent and broker, which is that of this process.
pub(super) fn of_edge(scope: &Scope, log: &OwnLog, call: &Call) -> Result<Response<ResponseBody>, Failure> {
    Ok(stream(scope, log.open(&options(call)?)))
}

fn stream(scope: &Scope, mut log: LogStream) -> Response<ResponseBody> {
    let (pieces, receiver) = mpsc::channel(WAITING_PIECES);
    scope.spawn_until_stopped(async move {
        while let Some(piece) = log.next().await {
            if pieces.send(piece).await.is_err() {
                // The reader has gone.
                return;
            }
        }
    });
    let mut response = Response::new(body::streamed(receiver));
    *response.status_mut() = StatusCode::OK;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

fn options(call: &Call) -> Result<LogsOptions, Failure> {
    let tail = match call.parameter("tail") {
        None | Some("" | "all") => Tail::All,
        Some(lines) => Tail::Lines(
            lines
                .parse()
                .map_err(|_| Failure::bad_request(format!("`tail` is `{lines}`; give a number of lines, or all")))?,
        ),
    };
    Ok(LogsOptions {
        follow: flag(call, "follow")?,
        tail,
        since: moment(call, "since")?,
        until: moment(call, "until")?,
        timestamps: flag(call, "timestamps")?,
    })
}

fn flag(call: &Call, name: &str) -> Result<bool, Failure> {
    match call.parameter(name) {
        None | Some("" | "false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(other) => Err(Failure::bad_request(format!(
            "`{name}` is `{other}`; give true or false"
        ))),
    }
}

fn moment(call: &Call, name: &str) -> Result<Option<Timestamp>, Failure> {
    let now = Timestamp::from(std::time::SystemTime::now());
    match call.parameter(name) {
        None | Some("") => Ok(None),
        Some(text) => moment::read(text, now)
            .map(Some)
            .ok_or_else(|| Failure::bad_request(format!("`{name}` is `{text}`; give {}", moment::FORMS))),
    }
}
