//! Storing: a blob in one piece, blocks, and the list that makes blocks a blob.
//!
//! ```text
//! body -> file on disk -> checks -> one transaction: conditions, names -> 201
//!                                    '- what was there before goes now
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use holm_model::ServiceError;
use holm_net::http::{BodyError, ResponseBody, body};
use http_body_util::Empty;
use hyper::body::Body;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};
use md5::{Digest as _, Md5};
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::access::Right;
use super::away::AwayError;
use super::block_list::{self, MAX_BLOCKS, MAX_LIST_BYTES};
use super::directory::Received;
use super::fault::{Fault, FaultCode};
use super::request::Asked;
use super::{Blobs, answer};
use crate::storage::{Blob, Part, Transaction};

/// The largest blob in one piece. Source: the published limit, 5,000 MiB.
const MAX_IN_ONE: u64 = 5000 << 20;
/// The largest block. Source: the published limit, 4,000 MiB.
const MAX_BLOCK: u64 = 4000 << 20;
/// The most bytes of what is said of a blob. Source: the published limit of metadata.
const MAX_SAID: usize = 8 * 1024;

/// What may be said of a blob, and as which header it is told again.
const SAID: [(&str, &str); 6] = [
    ("x-ms-blob-content-type", "content-type"),
    ("x-ms-blob-content-encoding", "content-encoding"),
    ("x-ms-blob-content-language", "content-language"),
    ("x-ms-blob-content-disposition", "content-disposition"),
    ("x-ms-blob-cache-control", "cache-control"),
    ("x-ms-blob-content-md5", "content-md5"),
];
const METADATA: &str = "x-ms-meta-";

/// What is asked by these changes the meaning of a body; who asks it must not believe that it was done.
const NOT_SERVED: [&str; 6] = [
    "x-ms-copy-source",
    "x-ms-structured-body",
    "x-ms-content-crc64",
    "x-ms-encryption-key",
    "x-ms-encryption-scope",
    "x-ms-tags",
];

/// A file that nobody needs any more, and its bytes.
type Garbage = Vec<(String, u64)>;

impl Blobs {
    /// Put Blob.
    pub(super) async fn put_blob<B>(&self, asked: Asked, body: &mut B) -> Result<Response<ResponseBody>, Fault>
    where
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.begin(&asked)?;
        let kind = asked.header("x-ms-blob-type").unwrap_or_default();
        if !kind.eq_ignore_ascii_case("BlockBlob") {
            let text = "`x-ms-blob-type` must be `BlockBlob`; there are no other blobs here";
            return Err(Fault::new(FaultCode::InvalidHeaderValue, text));
        }
        let mut said = said(&asked.headers)?;
        let received = self.receive(body, MAX_IN_ONE, &asked).await?;
        let digest = STANDARD.encode(received.md5);
        said.entry("content-md5")
            .or_insert_with(|| Value::String(digest.clone()));
        let blob = self.blob(&asked, received.size, &said)?;
        let part = in_one_piece(&received);
        let (condition, stored) = (Condition::of(&asked.headers), blob.clone());
        self.commit(Some(received), move |transaction| {
            if let Err(fault) = condition.check(transaction.blob(&stored.name)?.as_ref()) {
                return Ok(Err(fault));
            }
            transaction.put_blob(&stored, &[part]).map(Ok)
        })
        .await?;
        Ok(created(Some(&blob), Some(&digest)))
    }

    /// Put Block.
    pub(super) async fn put_block<B>(&self, asked: Asked, body: &mut B) -> Result<Response<ResponseBody>, Fault>
    where
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.begin(&asked)?;
        // Where a sender left a plus as it was, it was read as a space.
        let id = asked.query.get("blockid").unwrap_or_default().replace(' ', "+");
        block_list::check_id(&id)?;
        let received = self.receive(body, MAX_BLOCK, &asked).await?;
        let digest = STANDARD.encode(received.md5);
        let block = Part {
            block: id,
            file: received.file.clone(),
            size: received.size,
        };
        let (name, now) = (asked.blob.clone(), self.clock.now());
        self.commit(Some(received), move |transaction| {
            if transaction.waiting_block_count(&name)? >= MAX_BLOCKS as u64 {
                let text = format!("{MAX_BLOCKS} blocks wait under this name; name them, or use larger ones");
                return Ok(Err(Fault::new(FaultCode::BlockCountExceedsLimit, text)));
            }
            let before = transaction.put_block(&name, &block, now)?;
            Ok(Ok(before.into_iter().collect()))
        })
        .await?;
        Ok(created(None, Some(&digest)))
    }

    /// Put Block List.
    pub(super) async fn put_block_list<B>(&self, asked: Asked, body: &mut B) -> Result<Response<ResponseBody>, Fault>
    where
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.begin(&asked)?;
        let said = said(&asked.headers)?;
        let xml = body::read(body, MAX_LIST_BYTES).await.map_err(|error| {
            let code = match error {
                BodyError::TooLarge(_) => FaultCode::RequestBodyTooLarge,
                BodyError::TimedOut => FaultCode::OperationTimedOut,
                BodyError::Broken(_) => FaultCode::IncompleteBody,
            };
            Fault::new(code, error.to_string())
        })?;
        check_md5(&asked, &Md5::digest(&xml).into())?;
        let list = block_list::read(&xml)?;
        let mut blob = self.blob(&asked, 0, &said)?;
        let condition = Condition::of(&asked.headers);
        let nothing = if list.is_empty() {
            Some(self.receive_nothing(&asked).await?)
        } else {
            None
        };
        let of_nothing = nothing.as_ref().map(in_one_piece);
        let (made, made_there) = oneshot::channel();
        self.commit(nothing, move |transaction| {
            let name = blob.name.clone();
            if let Err(fault) = condition.check(transaction.blob(&name)?.as_ref()) {
                return Ok(Err(fault));
            }
            let (committed, waiting) = (transaction.blob_parts(&name)?, transaction.waiting_blocks(&name)?);
            let mut parts = match block_list::resolve(&list, &committed, &waiting) {
                Ok(parts) => parts,
                Err(fault) => return Ok(Err(fault)),
            };
            parts.extend(of_nothing);
            blob.size = parts.iter().map(|part| part.size).sum();
            let garbage = transaction.put_blob(&blob, &parts)?;
            // Who has asked may have gone away.
            drop(made.send(blob));
            Ok(Ok(garbage))
        })
        .await?;
        Ok(created(made_there.await.ok().as_ref(), None))
    }

    /// Whether what follows may be done at all.
    fn begin(&self, asked: &Asked) -> Result<(), Fault> {
        self.permit(Right::Write, &asked.blob, &asked.query, &asked.headers)?;
        match NOT_SERVED.iter().find(|name| asked.headers.contains_key(**name)) {
            Some(name) => {
                let text = format!("`{name}` is not served here; store the blob without it");
                Err(Fault::new(FaultCode::UnsupportedHeader, text))
            }
            None => Ok(()),
        }
    }

    pub(super) async fn receive<B>(&self, body: &mut B, limit: u64, asked: &Asked) -> Result<Received, Fault>
    where
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let _turn = self.receiving.take(&asked.blob)?;
        let received = self.directory.receive(body, limit).await?;
        check_md5(asked, &received.md5)?;
        self.send_away(received).await
    }

    /// The file of a blob without blocks: it counts as any other.
    async fn receive_nothing(&self, asked: &Asked) -> Result<Received, Fault> {
        let _turn = self.receiving.take(&asked.blob)?;
        let received = self.directory.receive(&mut Empty::<Bytes>::new(), 0).await?;
        self.send_away(received).await
    }

    /// Copies what was received to where files are, if that is elsewhere.
    async fn send_away(&self, mut received: Received) -> Result<Received, Fault> {
        if let Some(away) = &self.away {
            let sent = received.send_away(away, &self.scope).await;
            sent.map_err(|error| elsewhere(&error))?;
        }
        Ok(received)
    }

    pub(super) fn blob(&self, asked: &Asked, size: u64, said: &Map<String, Value>) -> Result<Blob, Fault> {
        let etag = u64::from_be_bytes(crate::random::bytes()?);
        Ok(Blob {
            name: asked.blob.clone(),
            size,
            modified: self.clock.now(),
            etag: format!("0x{etag:016X}"),
            headers: Value::Object(said.clone()).to_string(),
        })
    }

    /// Names what was received, in one transaction that says what is garbage now. It is carried out to its end also when the
    /// sender goes away: the file must not go while the database has its name.
    pub(super) async fn commit(
        &self,
        received: Option<Received>,
        change: impl FnOnce(&Transaction<'_>) -> Result<Result<Garbage, Fault>, ServiceError> + Send + 'static,
    ) -> Result<(), Fault> {
        let (told, outcome) = oneshot::channel();
        let blobs = self.clone();
        self.scope.spawn(async move {
            let done = match blobs.repository.change(change).await {
                Ok(Ok(garbage)) => {
                    if let Some(received) = received {
                        received.keep();
                    }
                    blobs.discard(garbage).await;
                    Ok(())
                }
                Ok(Err(fault)) => Err(fault),
                Err(error) => Err(error.into()),
            };
            // Who has asked may have gone away.
            drop(told.send(done));
        });
        outcome
            .await
            .unwrap_or_else(|_| Err(Fault::new(FaultCode::ServerBusy, "the hub is stopping; try again")))
    }
}

/// What was received, as all of a blob.
fn in_one_piece(received: &Received) -> Part {
    Part {
        block: String::new(),
        file: received.file.clone(),
        size: received.size,
    }
}

/// What the place where files are could not do: its owner learns more from the log.
fn elsewhere(error: &AwayError) -> Fault {
    tracing::error!(%error, "a file can't be stored where files are kept");
    let text = "the store behind the hub can't take the file now; try again";
    Fault::new(FaultCode::ServerBusy, text)
}

fn created(blob: Option<&Blob>, md5: Option<&str>) -> Response<ResponseBody> {
    let mut response = answer::empty(StatusCode::CREATED);
    if let Some(blob) = blob {
        answer::describe(&mut response, blob);
    }
    if let Some(md5) = md5 {
        answer::set(&mut response, HeaderName::from_static("content-md5"), md5);
    }
    let headers = response.headers_mut();
    headers.insert("x-ms-request-server-encrypted", HeaderValue::from_static("false"));
    response
}

fn check_md5(asked: &Asked, digest: &[u8; 16]) -> Result<(), Fault> {
    let Some(given) = asked.header("content-md5") else {
        return Ok(());
    };
    match STANDARD.decode(given) {
        Ok(given) if given == digest => Ok(()),
        Ok(given) if given.len() == digest.len() => Err(Fault::new(
            FaultCode::Md5Mismatch,
            "the body has another MD5 than `Content-MD5`; send it again",
        )),
        _ => Err(Fault::new(
            FaultCode::InvalidMd5,
            "`Content-MD5` is not base64 of 16 bytes",
        )),
    }
}

/// What a request says of its blob, as headers that are told again.
fn said(headers: &HeaderMap) -> Result<Map<String, Value>, Fault> {
    let mut said = Map::new();
    let mut bytes = 0;
    for (name, value) in headers {
        let name = name.as_str();
        let known = SAID.iter().find(|(known, _)| *known == name).map(|(_, told)| *told);
        let Some(told) = known.or_else(|| name.starts_with(METADATA).then_some(name)) else {
            continue;
        };
        let text = value.to_str().map_err(|_| {
            Fault::new(
                FaultCode::InvalidHeaderValue,
                format!("the header `{name}` is not ASCII"),
            )
        })?;
        bytes += told.len() + text.len();
        said.insert(told.to_owned(), Value::String(text.to_owned()));
    }
    if bytes > MAX_SAID {
        let text = format!("what is said of the blob has {bytes} bytes; at most {MAX_SAID} are allowed");
        return Err(Fault::new(FaultCode::MetadataTooLarge, text));
    }
    Ok(said)
}

/// What must hold of the blob that is there.
#[derive(Debug, Default)]
pub(super) struct Condition {
    matches: Option<String>,
    matches_not: Option<String>,
}

impl Condition {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let text = |name: &str| {
            let value = headers.get(name)?.to_str().ok()?;
            Some(value.trim().trim_matches('"').to_owned())
        };
        Self {
            matches: text("if-match"),
            matches_not: text("if-none-match"),
        }
    }

    /// Whether a blob may be changed or removed.
    ///
    /// # Errors
    /// `BlobAlreadyExists`, `ConditionNotMet`.
    pub(super) fn check(&self, there: Option<&Blob>) -> Result<(), Fault> {
        let is = |wanted: &str| there.is_some_and(|blob| wanted == "*" || blob.etag == wanted);
        if self.matches_not.as_deref() == Some("*") && there.is_some() {
            let text = "there is a blob of this name, and it was not to be replaced";
            return Err(Fault::new(FaultCode::BlobAlreadyExists, text));
        }
        let holds = self.matches.as_deref().is_none_or(is) && !self.matches_not.as_deref().is_some_and(is);
        if holds { Ok(()) } else { Err(not_met()) }
    }

    /// Whether a reader wants a blob, or has it already.
    ///
    /// # Errors
    /// `ConditionNotMet`: it wants another one.
    pub(super) fn wants(&self, there: &Blob) -> Result<bool, Fault> {
        let is = |wanted: &str| wanted == "*" || there.etag == wanted;
        if !self.matches.as_deref().is_none_or(is) {
            return Err(not_met());
        }
        Ok(!self.matches_not.as_deref().is_some_and(is))
    }
}

fn not_met() -> Fault {
    let text = "the blob is not the one that `If-Match` or `If-None-Match` speaks of";
    Fault::new(FaultCode::ConditionNotMet, text)
}

#[cfg(test)]
mod tests {
    use holm_model::Timestamp;

    use super::*;

    fn condition(name: &'static str, value: &'static str) -> Condition {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        Condition::of(&headers)
    }

    #[test]
    fn a_blob_is_replaced_only_where_the_condition_holds() {
        let blob = Blob {
            name: "d1/a".to_owned(),
            size: 1,
            modified: Timestamp::NEVER,
            etag: "0x1".to_owned(),
            headers: "{}".to_owned(),
        };
        let code = |condition: Condition, there: Option<&Blob>| condition.check(there).err().map(|fault| fault.code);
        let (exists, not_met) = (Some(FaultCode::BlobAlreadyExists), Some(FaultCode::ConditionNotMet));

        assert_eq!(code(Condition::default(), Some(&blob)), None);
        assert_eq!(code(condition("if-none-match", "*"), None), None);
        assert_eq!(code(condition("if-none-match", "*"), Some(&blob)), exists);
        assert_eq!(code(condition("if-none-match", "\"0x1\""), Some(&blob)), not_met);
        assert_eq!(code(condition("if-match", "\"0x1\""), Some(&blob)), None);
        assert_eq!(code(condition("if-match", "\"0x2\""), Some(&blob)), not_met);
        assert_eq!(code(condition("if-match", "*"), None), not_met);
    }

    #[test]
    fn what_is_said_of_a_blob_is_kept_within_a_bound() {
        let mut headers = HeaderMap::new();
        headers.insert("x-ms-blob-content-type", HeaderValue::from_static("image/png"));
        headers.insert("x-ms-meta-line", HeaderValue::from_static("4"));
        headers.insert("content-type", HeaderValue::from_static("text/plain"));

        let kept = said(&headers).unwrap();
        headers.insert("x-ms-meta-big", HeaderValue::from_str(&"x".repeat(MAX_SAID)).unwrap());

        assert_eq!(
            Value::Object(kept),
            serde_json::json!({"content-type": "image/png", "x-ms-meta-line": "4"})
        );
        assert_eq!(said(&headers).unwrap_err().code, FaultCode::MetadataTooLarge);
    }
}
