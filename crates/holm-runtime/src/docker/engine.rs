//! Requests to the engine: HTTP/1.1 over its socket, a connection for each request.
//!
//! Bounds: an answer that is read whole has at most 8 MiB; connecting and the beginning of an answer have deadlines; what is
//! streamed (pulls, logs) is read as fast as its reader takes it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::error::RuntimeError;

/// How long the engine may take to accept a connection.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// How long the engine may take to begin its answer, unless a request says otherwise; `edge-agent.md` §3.3 has the same.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// How often it is seen, while an answer is waited for, whether the engine answers anything at all, and how long it may take for
/// that. Ending a container may take an hour; an engine that hangs may not hold up everybody else for as long.
const PULSE: Duration = Duration::from_secs(15);

/// The largest answer that is read whole.
const LARGEST_ANSWER: usize = 8 * 1024 * 1024;

/// The newest version of the API that this code was written for; an older engine is spoken to in its own.
const NEWEST_API: (u32, u32) = (1, 47);

/// The oldest version in which every request that is made here exists.
const OLDEST_API: (u32, u32) = (1, 25);

/// What the engine says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineInfo {
    /// Its release, such as `20.10.24`.
    pub version: String,
    /// The version of the API that is spoken with it, such as `1.41`.
    pub api_version: String,
    /// Its operating system, such as `linux`.
    pub os: String,
    /// Its processor architecture in the engine's words, such as `amd64`.
    pub architecture: String,
}

#[derive(Clone, Debug)]
enum Endpoint {
    Unix(PathBuf),
    Tcp(String),
}

/// One request.
pub(super) struct Call<'a> {
    /// What is wanted, for messages: reads on after "refused to".
    pub(super) operation: String,
    pub(super) method: Method,
    /// From after the API version, query included.
    pub(super) path: String,
    pub(super) body: Option<&'a Value>,
    pub(super) registry_auth: Option<String>,
    pub(super) patience: Duration,
}

impl<'a> Call<'a> {
    pub(super) fn new(method: Method, operation: impl Into<String>, path: impl Into<String>) -> Self {
        Self {
            operation: operation.into(),
            method,
            path: path.into(),
            body: None,
            registry_auth: None,
            patience: ANSWER_TIME,
        }
    }

    pub(super) fn get(operation: impl Into<String>, path: impl Into<String>) -> Self {
        Self::new(Method::GET, operation, path)
    }

    pub(super) fn post(operation: impl Into<String>, path: impl Into<String>) -> Self {
        Self::new(Method::POST, operation, path)
    }

    pub(super) const fn with_body(mut self, body: &'a Value) -> Self {
        self.body = Some(body);
        self
    }
}

/// An answer whose body has not been read yet.
pub(super) struct Answer {
    operation: String,
    body: Incoming,
    /// Moves the bytes; ended with the answer.
    _connection: AbortOnDropHandle<()>,
}

/// A connection to the engine's API.
#[derive(Debug)]
pub(super) struct Engine {
    endpoint: Endpoint,
    info: OnceCell<EngineInfo>,
}

impl Engine {
    /// From an address such as `unix:///var/run/docker.sock` or `tcp://host:2375`.
    pub(super) fn new(address: &str) -> Result<Self, RuntimeError> {
        let endpoint = if let Some(path) = address.strip_prefix("unix://") {
            Endpoint::Unix(PathBuf::from(path))
        } else if let Some(host) = address
            .strip_prefix("tcp://")
            .or_else(|| address.strip_prefix("http://"))
        {
            Endpoint::Tcp(host.trim_end_matches('/').to_owned())
        } else {
            return Err(RuntimeError::EngineUnreachable {
                endpoint: address.to_owned(),
                source: io::Error::other("the address must begin with `unix://`, `tcp://` or `http://`"),
            });
        };
        Ok(Self {
            endpoint,
            info: OnceCell::new(),
        })
    }

    /// Whether the engine's processes are those of this device.
    pub(super) const fn is_local(&self) -> bool {
        matches!(self.endpoint, Endpoint::Unix(_))
    }

    /// What the engine says of itself; asked once it has answered, not again.
    pub(super) async fn info(&self) -> Result<&EngineInfo, RuntimeError> {
        self.info.get_or_try_init(|| self.negotiate()).await
    }

    async fn negotiate(&self) -> Result<EngineInfo, RuntimeError> {
        let call = Call::get("tell its version", "/version");
        let version = self.send_to("/version", &call).await?.json().await?;
        let text = |name: &str| version.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (newest, oldest) = (text("ApiVersion"), text("MinAPIVersion"));
        let chosen = choose_version(&newest, &oldest).map_err(|reason| RuntimeError::Answer {
            operation: call.operation.clone(),
            reason,
        })?;
        Ok(EngineInfo {
            version: text("Version"),
            api_version: chosen,
            os: text("Os"),
            architecture: text("Arch"),
        })
    }

    /// Makes a request; the answer's status is a success.
    pub(super) async fn send(&self, call: &Call<'_>) -> Result<Answer, RuntimeError> {
        let version = &self.info().await?.api_version;
        self.send_to(&format!("/v{version}{}", call.path), call).await
    }

    /// Makes a request and reads its answer as JSON.
    pub(super) async fn json(&self, call: &Call<'_>) -> Result<Value, RuntimeError> {
        self.send(call).await?.json().await
    }

    async fn send_to(&self, path: &str, call: &Call<'_>) -> Result<Answer, RuntimeError> {
        let unreachable = |source| RuntimeError::EngineUnreachable {
            endpoint: self.shown(),
            source,
        };
        let late = |after| RuntimeError::Timeout {
            operation: call.operation.clone(),
            after,
        };
        let began = tokio::time::Instant::now();
        let exchanged = tokio::select! {
            exchanged = timeout(call.patience, self.exchange(path, call)) => exchanged.ok(),
            () = self.no_pulse() => None,
        };
        let (response, connection) = match exchanged {
            Some(Ok(done)) => done,
            Some(Err(error)) => return Err(unreachable(error)),
            None => return Err(late(Duration::from_secs(began.elapsed().as_secs()))),
        };
        let status = response.status();
        let answer = Answer {
            operation: call.operation.clone(),
            body: response.into_body(),
            _connection: connection,
        };
        // 304: it is so already.
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(answer);
        }
        let text = answer.read().await.unwrap_or_default();
        let message = serde_json::from_slice::<Value>(&text).ok();
        let message = message.as_ref().and_then(|value| value.get("message")?.as_str());
        Err(RuntimeError::Engine {
            operation: call.operation.clone(),
            status: status.as_u16(),
            message: message.map_or_else(
                || String::from_utf8_lossy(&text).trim().to_owned(),
                |text| text.trim().to_owned(),
            ),
        })
    }

    async fn exchange(&self, path: &str, call: &Call<'_>) -> io::Result<Exchanged> {
        match &self.endpoint {
            Endpoint::Unix(socket) => {
                let connected = timeout(CONNECT_TIME, UnixStream::connect(socket)).await;
                exchange(connected, path, call).await
            }
            Endpoint::Tcp(host) => {
                let connected = timeout(CONNECT_TIME, TcpStream::connect(host.as_str())).await;
                exchange(connected, path, call).await
            }
        }
    }

    /// Waits until the engine has left a simple question unanswered.
    async fn no_pulse(&self) {
        let ping = Call::get("answer", "/_ping");
        loop {
            tokio::time::sleep(PULSE).await;
            // An engine that answers anything is there; one that is gone ends the request by itself.
            if timeout(PULSE, self.exchange("/_ping", &ping)).await.is_err() {
                return;
            }
        }
    }

    fn shown(&self) -> String {
        match &self.endpoint {
            Endpoint::Unix(path) => format!("unix://{}", path.display()),
            Endpoint::Tcp(host) => format!("tcp://{host}"),
        }
    }
}

impl Answer {
    /// The next piece of the body; `None` at its end.
    pub(super) async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(io::Error::other(error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    async fn read(mut self) -> Result<Bytes, RuntimeError> {
        let operation = self.operation.clone();
        let bad = |reason: String| RuntimeError::Answer { operation, reason };
        let mut all = BytesMut::new();
        loop {
            match timeout(ANSWER_TIME, self.chunk()).await {
                Ok(Ok(None)) => return Ok(all.freeze()),
                Ok(Ok(Some(piece))) if all.len() + piece.len() <= LARGEST_ANSWER => all.extend_from_slice(&piece),
                Ok(Ok(Some(_))) => return Err(bad(format!("it is larger than {LARGEST_ANSWER} bytes"))),
                Ok(Err(error)) => return Err(bad(error.to_string())),
                Err(_) => return Err(bad("it broke off".to_owned())),
            }
        }
    }

    pub(super) async fn json(self) -> Result<Value, RuntimeError> {
        let operation = self.operation.clone();
        let text = self.read().await?;
        serde_json::from_slice(&text).map_err(|error| RuntimeError::Answer {
            operation,
            reason: error.to_string(),
        })
    }

    /// Reads the answer to its end and forgets it.
    pub(super) async fn done(self) -> Result<(), RuntimeError> {
        self.read().await.map(|_| ())
    }
}

type Exchanged = (Response<Incoming>, AbortOnDropHandle<()>);

async fn exchange<S>(
    connected: Result<io::Result<S>, tokio::time::error::Elapsed>,
    path: &str,
    call: &Call<'_>,
) -> io::Result<Exchanged>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let stream = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let connection = AbortOnDropHandle::new(tokio::spawn(async move {
        // What goes wrong here reaches the reader of the answer.
        drop(connection.await);
    }));
    let mut request = Request::builder()
        .method(call.method.clone())
        .uri(path)
        .header("host", "docker");
    if let Some(auth) = &call.registry_auth {
        request = request.header("x-registry-auth", auth);
    }
    let body = match call.body {
        Some(body) => {
            request = request.header("content-type", "application/json");
            Bytes::from(serde_json::to_vec(body)?)
        }
        None => Bytes::new(),
    };
    let request = request.body(Full::new(body)).map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    Ok((response, connection))
}

/// Writes a text so that it is one segment of a path, or one value of a query.
pub(super) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The newest version that both sides speak.
fn choose_version(newest: &str, oldest: &str) -> Result<String, String> {
    let newest_of_engine = parse_version(newest).ok_or_else(|| format!("`{newest}` is no version of its API"))?;
    let oldest_of_engine = parse_version(oldest).unwrap_or(OLDEST_API);
    let chosen = newest_of_engine.min(NEWEST_API);
    if chosen < OLDEST_API || chosen < oldest_of_engine {
        return Err(format!(
            "the engine speaks versions {oldest} to {newest} of its API, this program {}.{} to {}.{}; update the older one",
            OLDEST_API.0, OLDEST_API.1, NEWEST_API.0, NEWEST_API.1
        ));
    }
    Ok(format!("{}.{}", chosen.0, chosen.1))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_of_both_is_spoken() {
        assert_eq!(choose_version("1.41", "1.12"), Ok("1.41".to_owned()));
        assert_eq!(choose_version("1.60", "1.44"), Ok("1.47".to_owned()));
        assert_eq!(choose_version("1.41", ""), Ok("1.41".to_owned()));
        assert!(choose_version("1.20", "1.12").unwrap_err().contains("1.25"));
        assert!(choose_version("1.90", "1.80").unwrap_err().contains("1.80 to 1.90"));
        assert!(choose_version("new", "").is_err());
    }

    #[test]
    fn names_cannot_leave_their_place_in_a_path() {
        assert_eq!(encode("../a?b=c&d#e f"), "..%2Fa%3Fb%3Dc%26d%23e%20f");
        assert_eq!(encode("pump-1_2.3~"), "pump-1_2.3~");
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_hangs_ends_the_longest_request_soon() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("engine.sock");
        // It accepts and says nothing.
        let _socket = tokio::net::UnixListener::bind(&path).unwrap();
        let engine = Engine::new(&format!("unix://{}", path.display())).unwrap();
        let mut call = Call::post("stop", "/containers/x/stop");
        call.patience = Duration::from_secs(3660);
        let began = tokio::time::Instant::now();

        let Err(error) = engine.send_to("/containers/x/stop", &call).await else {
            panic!("nobody answered");
        };

        assert!(matches!(error, RuntimeError::Timeout { .. }), "{error}");
        assert!(began.elapsed() <= PULSE * 2 + Duration::from_secs(1));
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_named() {
        let engine = Engine::new("unix:///no/such/engine.sock").unwrap();

        let error = engine.json(&Call::get("list", "/containers/json")).await.unwrap_err();

        assert!(matches!(error, RuntimeError::EngineUnreachable { .. }));
        assert!(error.to_string().contains("`unix:///no/such/engine.sock`"), "{error}");
        assert!(Engine::new("ftp://x").is_err());
    }
}
