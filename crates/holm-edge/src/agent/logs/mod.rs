//! Logs of modules for whoever asks through the hub: in the answer itself, or uploaded to a store that the caller names.
//!
//! ```text
//!   runtime --frames--> lines --filter--> encoder (text | JSON, plain | gzip) --> answer, at most 127000 bytes
//!                                                                            '--> blob, in pieces
//! ```
//!
//! - Memory is bounded: one piece of a blob, one line, one frame's part; a tail after other filters has a bound of its own.
//! - An upload goes on after its method was answered; [`tasks`] says how it stands.
//!
//! Source: `edge-agent.md` §2.6.

mod blob;
mod lines;
mod read;
mod request;
mod tasks;

use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holm_model::{ModuleId, Timestamp};
use holm_net::{Clock, Scope, error_chain};
use holm_runtime::RuntimeError;
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use self::blob::{Blob, BlobError, Container, Kind, PIECE};
use self::read::{Encoder, Origin, Reader};
use self::request::{Content, Encoding, Filter, LogRequest, field};
pub(super) use self::tasks::Tasks;
use crate::agent::overview::{BUILT_IN, is_built_in};
use crate::management::view;
use crate::own_log::OwnLog;
use crate::runtimes::Runtimes;
use crate::zip::Zip;
use crate::{moment, redact};

/// The largest payload of `GetModuleLogs`, in bytes; published.
const LARGEST_ANSWER: usize = 127_000;

/// Why a call failed; `BadRequest` is the caller's fault.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogsError {
    /// 400.
    #[error("{0}")]
    BadRequest(String),
    /// 500.
    #[error("a log can't be read")]
    Runtime(#[source] RuntimeError),
    /// 500.
    #[error("a log can't be read")]
    Io(#[source] io::Error),
    /// 500.
    #[error("the upload failed")]
    Blob(#[source] BlobError),
    /// 500.
    #[error("two uploads are going on already; try again when one has ended")]
    Busy,
}

/// What of a device stands in logs, and where they come from.
#[derive(Clone, Debug)]
pub(super) struct Logs {
    pub(super) hub: String,
    pub(super) device: String,
    pub(super) runtimes: Runtimes,
    /// That of agent and broker.
    pub(super) own_log: OwnLog,
    /// Whom to trust as a store.
    pub(super) tls: Arc<ClientConfig>,
    pub(super) tasks: Tasks,
    pub(super) clock: Clock,
}

/// What a bundle is made of besides logs.
pub(crate) type Facts = Vec<(String, Value)>;
/// A bundle as it is made.
pub(crate) type Pieces = mpsc::Receiver<io::Result<Vec<u8>>>;
/// Pieces of a bundle that wait for a slow reader; while it is full, logs are not read further.
const WAITING_PIECES: usize = 4;

impl Logs {
    /// `GetModuleLogs`: an object for each module.
    pub(super) async fn get(&self, payload: &Value) -> Result<Value, LogsError> {
        let request = LogRequest::read(payload, self.clock.now().into()).map_err(LogsError::BadRequest)?;
        let mut answer = Vec::new();
        let mut left = LARGEST_ANSWER;
        for (id, filter) in self.select(&request).await? {
            let mut encoder = Encoder::new(request.content, request.encoding).map_err(LogsError::Io)?;
            let mut reader = self.reader(&id, filter, request.content).await?;
            while let Some(lines) = reader.next().await.map_err(LogsError::Io)? {
                for line in &lines {
                    encoder.line(line, self.origin(&id)).map_err(LogsError::Io)?;
                }
                if encoder.ready() > left {
                    return Err(too_large());
                }
            }
            let bytes = encoder.finish().map_err(LogsError::Io)?;
            left = left.checked_sub(bytes.len()).ok_or_else(too_large)?;
            let (payload, payload_bytes) = match request.encoding {
                Encoding::None => (Some(String::from_utf8_lossy(&bytes).into_owned()), None),
                Encoding::Gzip => (None, Some(STANDARD.encode(&bytes))),
            };
            answer.push(json!({"id": id, "payload": payload, "payloadBytes": payload_bytes}));
        }
        Ok(Value::Array(answer))
    }

    /// `UploadModuleLogs`: a blob for each module.
    pub(super) async fn upload(&self, scope: &Scope, payload: &Value) -> Result<Value, LogsError> {
        let request = LogRequest::read(payload, self.clock.now().into()).map_err(LogsError::BadRequest)?;
        let container = self.container(payload)?;
        let modules = self.select(&request).await?;
        let logs = self.clone();
        self.begin(scope, async move {
            for (id, filter) in modules {
                logs.upload_one(&container, &request, &id, filter).await?;
            }
            Ok(())
        })
    }

    /// `UploadSupportBundle`: one archive with what is known of the device, and its modules' logs.
    pub(super) async fn upload_bundle(&self, scope: &Scope, payload: &Value, facts: Facts) -> Result<Value, LogsError> {
        let time = |name: &str| match field(payload, name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let wrong = || LogsError::BadRequest(format!("`{name}` is `{text}`; give a time or how long ago"));
                moment::read(&text, self.clock.now().into()).map(Some).ok_or_else(wrong)
            }
        };
        let filter = Filter {
            since: time("since")?,
            until: time("until")?,
            ..Filter::default()
        };
        let runtime_only = match field(payload, "edgeRuntimeOnly") {
            None | Some(Value::Null) => false,
            Some(value) => value
                .as_bool()
                .ok_or_else(|| LogsError::BadRequest("`edgeRuntimeOnly` must be true or false".to_owned()))?,
        };
        let container = self.container(payload)?;
        let logs = self.clone();
        self.begin(scope, async move {
            logs.upload_archive(&container, filter, runtime_only, facts).await
        })
    }

    /// `GetTaskStatus`.
    pub(super) fn task(&self, payload: &Value) -> Result<Value, LogsError> {
        let id = field(payload, "correlationId")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if id.is_empty() {
            let text = "`correlationId` is missing; give the one that the upload was answered with";
            return Err(LogsError::BadRequest(text.to_owned()));
        }
        Ok(self.tasks.answer(id))
    }

    fn begin<F>(&self, scope: &Scope, work: F) -> Result<Value, LogsError>
    where
        F: Future<Output = Result<(), LogsError>> + Send + 'static,
    {
        let id = self.tasks.begin().map_err(|_| LogsError::Busy)?;
        let answer = self.tasks.answer(&id);
        let tasks = self.tasks.clone();
        scope.spawn_until_stopped(async move {
            let outcome = work.await.map_err(|error| error_chain(&error));
            match &outcome {
                Ok(()) => tracing::info!(correlation_id = id, "logs were uploaded"),
                Err(error) => tracing::warn!(correlation_id = id, error, "logs were not uploaded"),
            }
            tasks.end(&id, outcome);
        });
        Ok(answer)
    }

    fn container(&self, payload: &Value) -> Result<Container, LogsError> {
        let url = field(payload, "sasUrl").and_then(Value::as_str).unwrap_or_default();
        Container::read(url, &self.tls).map_err(|error| LogsError::BadRequest(error_chain(&error)))
    }

    async fn modules(&self) -> Vec<holm_runtime::ModuleState> {
        let (modules, silent) = self.runtimes.list().await;
        for (kind, error) in silent {
            tracing::warn!(%kind, error = %error.chain(), "a runtime can't list its modules");
        }
        modules
    }

    async fn select(&self, request: &LogRequest) -> Result<Vec<(ModuleId, Filter)>, LogsError> {
        let built_in = BUILT_IN.into_iter().filter_map(|name| ModuleId::new(name).ok());
        let modules = self.modules().await.into_iter().map(|state| state.id);
        let modules: Vec<ModuleId> = built_in.chain(modules).collect();
        request.select(&modules).map_err(LogsError::BadRequest)
    }

    async fn reader(&self, id: &ModuleId, filter: Filter, content: Content) -> Result<Reader, LogsError> {
        let options = Reader::options(&filter, content);
        let log = if is_built_in(id.as_str()) {
            self.own_log.open(&options)
        } else {
            let (runtime, _) = self.runtimes.find(id).await.map_err(LogsError::Runtime)?;
            runtime.logs(id, &options).await.map_err(LogsError::Runtime)?
        };
        Ok(Reader::new(log, filter, content))
    }

    fn origin<'a>(&'a self, module: &'a ModuleId) -> Origin<'a> {
        Origin {
            hub: &self.hub,
            device: &self.device,
            module,
        }
    }

    fn blob_name(&self, what: &str, ending: &str) -> String {
        format!(
            "{}/{}/{what}-{}.{ending}",
            self.hub,
            self.device,
            stamp(self.clock.now().into())
        )
    }

    async fn upload_one(
        &self,
        container: &Container,
        request: &LogRequest,
        id: &ModuleId,
        filter: Filter,
    ) -> Result<(), LogsError> {
        let (kind, ending, content_type) = match request.content {
            Content::Text => (Kind::Append, "log", "text/plain"),
            Content::Json => (Kind::Block, "json", "application/json"),
        };
        let (ending, content_type) = match request.encoding {
            Encoding::None => (ending.to_owned(), content_type),
            Encoding::Gzip => (format!("{ending}.gz"), "application/gzip"),
        };
        let mut reader = self.reader(id, filter, request.content).await?;
        let name = self.blob_name(id.as_str(), &ending);
        let mut blob = container
            .begin(&name, kind, content_type)
            .await
            .map_err(LogsError::Blob)?;
        let mut encoder = Encoder::new(request.content, request.encoding).map_err(LogsError::Io)?;
        while let Some(lines) = reader.next().await.map_err(LogsError::Io)? {
            for line in &lines {
                encoder.line(line, self.origin(id)).map_err(LogsError::Io)?;
            }
            if encoder.ready() >= PIECE {
                write(&mut blob, encoder.take()).await?;
            }
        }
        write(&mut blob, encoder.finish().map_err(LogsError::Io)?).await?;
        blob.finish().await.map_err(LogsError::Blob)
    }

    async fn upload_archive(
        &self,
        container: &Container,
        filter: Filter,
        runtime_only: bool,
        facts: Facts,
    ) -> Result<(), LogsError> {
        let name = self.blob_name("support-bundle", "zip");
        let blob = container.begin(&name, Kind::Block, "application/zip").await;
        let mut blob = blob.map_err(LogsError::Blob)?;
        let (pieces, mut made) = mpsc::channel(WAITING_PIECES);
        let making = self.make_archive(filter, runtime_only, facts, pieces);
        let writing = async {
            while let Some(piece) = made.recv().await {
                write(&mut blob, piece.map_err(LogsError::Io)?).await?;
            }
            blob.finish().await.map_err(LogsError::Blob)
        };
        tokio::join!(making, writing).1
    }

    /// A bundle as it is made, for whoever asks on the device. The task that makes it ends with the scope, or with its reader.
    pub(super) fn bundle(
        &self,
        scope: &Scope,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        (runtime_only, facts): (bool, Facts),
    ) -> Pieces {
        let filter = Filter {
            since,
            until,
            ..Filter::default()
        };
        let (pieces, made) = mpsc::channel(WAITING_PIECES);
        let logs = self.clone();
        scope.spawn_until_stopped(async move { logs.make_archive(filter, runtime_only, facts, pieces).await });
        made
    }

    /// Makes the archive; a reader that has gone ends it.
    async fn make_archive(
        &self,
        filter: Filter,
        runtime_only: bool,
        facts: Facts,
        pieces: mpsc::Sender<Result<Vec<u8>, io::Error>>,
    ) {
        if let Err(error) = self.fill_archive(filter, runtime_only, facts, &pieces).await {
            // The reader learns that it is not whole; where there is none any more nobody needs to.
            pieces.send(Err(error)).await.ok();
        }
    }

    async fn fill_archive(
        &self,
        filter: Filter,
        runtime_only: bool,
        facts: Facts,
        pieces: &mpsc::Sender<Result<Vec<u8>, io::Error>>,
    ) -> io::Result<()> {
        let mut zip = Zip::default();
        for (name, value) in facts {
            add(&mut zip, &name, &value)?;
        }
        let states = self.modules().await;
        for state in &states {
            add(
                &mut zip,
                &format!("inspect/{}.json", state.id),
                &view::module(state, None),
            )?;
        }
        let own = BUILT_IN.first().and_then(|name| ModuleId::new(name).ok());
        let modules = states.into_iter().map(|state| state.id).filter(|_| !runtime_only);
        for id in own.into_iter().chain(modules) {
            zip.file(&format!("logs/{id}_log.txt"))?;
            if let Err(error) = self.add_log(&mut zip, pieces, &id, filter.clone()).await {
                // A bundle is asked for when something is wrong: what can't be read is said in it.
                zip.write(error_chain(&error).as_bytes())?;
            }
        }
        give(pieces, zip.finish()?).await
    }

    async fn add_log(
        &self,
        zip: &mut Zip,
        pieces: &mpsc::Sender<Result<Vec<u8>, io::Error>>,
        id: &ModuleId,
        filter: Filter,
    ) -> Result<(), LogsError> {
        let mut reader = self.reader(id, filter, Content::Text).await?;
        while let Some(lines) = reader.next().await.map_err(LogsError::Io)? {
            for line in lines {
                zip.write(redact::line(&line.raw).as_bytes()).map_err(LogsError::Io)?;
                zip.write(b"\n").map_err(LogsError::Io)?;
            }
            if zip.ready() >= PIECE {
                give(pieces, zip.take()).await.map_err(LogsError::Io)?;
            }
        }
        Ok(())
    }
}

/// Hands a piece on, when there is somebody to take it.
async fn give(pieces: &mpsc::Sender<Result<Vec<u8>, io::Error>>, piece: Vec<u8>) -> io::Result<()> {
    let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "whoever wanted the bundle has gone");
    pieces.send(Ok(piece)).await.map_err(gone)
}

fn add(zip: &mut Zip, name: &str, value: &Value) -> io::Result<()> {
    zip.file(name)?;
    zip.write(
        serde_json::to_string_pretty(value)
            .unwrap_or_else(|_| value.to_string())
            .as_bytes(),
    )
}

/// Writes what may be more than a piece.
async fn write(blob: &mut Blob<'_>, bytes: Vec<u8>) -> Result<(), LogsError> {
    for piece in bytes.chunks(PIECE) {
        blob.write(piece.to_vec()).await.map_err(LogsError::Blob)?;
    }
    Ok(())
}

fn too_large() -> LogsError {
    LogsError::BadRequest(format!(
        "the logs are larger than the {LARGEST_ANSWER} bytes of an answer; ask for fewer lines (`tail`, `since`), for \
         `gzip`, or have them uploaded (`UploadModuleLogs`)"
    ))
}

/// `2026-01-02--03-04-05`, as published.
fn stamp(at: Timestamp) -> String {
    let text = at.to_string();
    let (day, time) = text.split_once('T').unwrap_or((&text, ""));
    let time: String = time.chars().take(8).collect();
    format!("{day}--{}", time.replace(':', "-"))
}
