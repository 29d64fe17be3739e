//! Reading: a blob or a range of it, what it consists of, and its removal.

use std::io;
use std::io::SeekFrom;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use holm_net::http::{ResponseBody, body};
use http_body_util::BodyExt as _;
use hyper::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, HeaderName};
use hyper::{Method, Response, StatusCode};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::mpsc;

use super::access::Right;
use super::away::Away;
use super::fault::{Fault, FaultCode};
use super::put::Condition;
use super::request::Asked;
use super::turns::Turn;
use super::{Blobs, answer, block_list};
use crate::storage::Part;

/// What is read from disk at a time.
const PIECE: usize = 64 * 1024;
/// Pieces that wait for a slow reader.
const WAITING: usize = 2;
/// How long a reader may take for a piece.
const PATIENCE: Duration = Duration::from_secs(60);

impl Blobs {
    /// Get Blob, Get Blob Properties.
    pub(super) async fn get(&self, method: &Method, asked: Asked) -> Result<Response<ResponseBody>, Fault> {
        self.permit(Right::Read, &asked.blob, &asked.query, &asked.headers)?;
        let name = asked.blob.clone();
        let found = self.repository.read(move |view| {
            let Some(blob) = view.blob(&name)? else {
                return Ok(None);
            };
            Ok(Some((blob, view.blob_parts(&name)?)))
        });
        let Some((blob, parts)) = found.await? else {
            return Err(Fault::not_found(&asked.blob));
        };
        if !Condition::of(&asked.headers).wants(&blob)? {
            return Ok(answer::not_modified(&blob));
        }
        let range = match asked.header("x-ms-range").or_else(|| asked.header("range")) {
            Some(text) if method == Method::GET => range(text, blob.size)?,
            _ => None,
        };
        let (from, length) = range.unwrap_or((0, blob.size));
        let status = range.map_or(StatusCode::OK, |_| StatusCode::PARTIAL_CONTENT);
        let mut response = answer::empty(status);
        answer::describe(&mut response, &blob);
        answer::describe_content(&mut response, &blob);
        let set = |response: &mut _, name: HeaderName, value: &str| answer::set(response, name, value);
        set(&mut response, ACCEPT_RANGES, "bytes");
        set(&mut response, CONTENT_LENGTH, &length.to_string());
        set(&mut response, HeaderName::from_static("x-ms-blob-type"), "BlockBlob");
        if range.is_some() {
            let text = format!("bytes {from}-{}/{}", (from + length).saturating_sub(1), blob.size);
            set(&mut response, CONTENT_RANGE, &text);
        }
        if method == Method::GET && length > 0 {
            let turn = self.sending.take(&asked.blob)?;
            *response.body_mut() = self.content(Some(turn), &parts, from, length);
        }
        Ok(response)
    }

    /// Get Block List.
    pub(super) async fn block_list(&self, asked: Asked) -> Result<Response<ResponseBody>, Fault> {
        self.permit(Right::Read, &asked.blob, &asked.query, &asked.headers)?;
        let kind = asked
            .query
            .get("blocklisttype")
            .unwrap_or("committed")
            .to_ascii_lowercase();
        let (with_committed, with_waiting) = match kind.as_str() {
            "committed" => (true, false),
            "uncommitted" => (false, true),
            "all" => (true, true),
            _ => {
                let text = "`blocklisttype` must be `committed`, `uncommitted` or `all`";
                return Err(Fault::new(FaultCode::InvalidQueryParameterValue, text));
            }
        };
        let name = asked.blob.clone();
        let read = self.repository.read(move |view| {
            let blob = view.blob(&name)?;
            Ok((blob, view.blob_parts(&name)?, view.waiting_blocks(&name)?))
        });
        let (blob, committed, waiting) = read.await?;
        if blob.is_none() && waiting.is_empty() {
            return Err(Fault::not_found(&asked.blob));
        }
        let document = block_list::write(with_committed.then_some(&committed), with_waiting.then_some(&waiting));
        let mut response = answer::xml(StatusCode::OK, document);
        if let Some(blob) = &blob {
            answer::describe(&mut response, blob);
            let size = blob.size.to_string();
            answer::set(
                &mut response,
                HeaderName::from_static("x-ms-blob-content-length"),
                &size,
            );
        }
        Ok(response)
    }

    /// Delete Blob.
    pub(super) async fn delete(&self, asked: Asked) -> Result<Response<ResponseBody>, Fault> {
        self.permit(Right::Delete, &asked.blob, &asked.query, &asked.headers)?;
        let (name, condition) = (asked.blob.clone(), Condition::of(&asked.headers));
        self.commit(None, move |transaction| {
            let there = transaction.blob(&name)?;
            if there.is_none() {
                return Ok(Err(Fault::not_found(&name)));
            }
            match condition.check(there.as_ref()) {
                Ok(()) => transaction.remove_blob(&name).map(Ok),
                Err(fault) => Ok(Err(fault)),
            }
        })
        .await?;
        Ok(answer::empty(StatusCode::ACCEPTED))
    }

    /// Bytes of a blob, read as they are sent; those who are connected have a turn.
    pub(super) fn content(&self, turn: Option<Turn>, parts: &[Part], from: u64, length: u64) -> ResponseBody {
        let pieces = pieces(parts, from, length);
        let (sender, receiver) = mpsc::channel(WAITING);
        let (directory, away) = (self.directory.clone(), self.away.clone());
        self.scope.spawn_until_stopped(async move {
            let _turn = turn;
            for (file, from, length) in pieces {
                let here = directory.file(&file);
                let sent = match &away {
                    // What was stored before there was another place is here.
                    Some(away) if !here.exists() => send_from(&sender, away.as_ref(), &file, from, length).await,
                    _ => send(&sender, here, from, length).await,
                };
                match sent {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => {
                        tracing::error!(%error, "a file of the blob store can't be read");
                        // It breaks the connection: a part is not to be taken for the whole.
                        drop(sender.send(Err(error)).await);
                        return;
                    }
                }
            }
        });
        body::streamed(receiver)
    }
}

/// Sends bytes of a file; false when the reader has gone, or takes too long.
async fn send(sender: &mpsc::Sender<io::Result<Bytes>>, path: PathBuf, from: u64, length: u64) -> io::Result<bool> {
    let mut file = File::open(path).await?;
    file.seek(SeekFrom::Start(from)).await?;
    let mut rest = file.take(length);
    let mut left = length;
    while left > 0 {
        let mut piece = Vec::with_capacity(PIECE.min(usize::try_from(left).unwrap_or(PIECE)));
        if rest.read_buf(&mut piece).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= piece.len() as u64;
        if !matches!(
            tokio::time::timeout(PATIENCE, sender.send(Ok(piece.into()))).await,
            Ok(Ok(()))
        ) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// As [`send`], from where files are.
async fn send_from(
    sender: &mpsc::Sender<io::Result<Bytes>>,
    away: &dyn Away,
    file: &str,
    from: u64,
    length: u64,
) -> io::Result<bool> {
    let mut content = away.read(file, from, length).await.map_err(io::Error::other)?;
    let mut left = length;
    loop {
        let frame = tokio::time::timeout(PATIENCE, content.frame()).await;
        let piece = match frame.map_err(io::Error::other)? {
            None if left == 0 => return Ok(true),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(frame) => frame?.into_data().unwrap_or_default(),
        };
        left = left.checked_sub(piece.len() as u64).ok_or(io::ErrorKind::InvalidData)?;
        if !matches!(tokio::time::timeout(PATIENCE, sender.send(Ok(piece))).await, Ok(Ok(()))) {
            return Ok(false);
        }
    }
}

/// Which bytes of which files make a range: file, from, length.
fn pieces(parts: &[Part], from: u64, length: u64) -> Vec<(String, u64, u64)> {
    let (mut skip, mut left) = (from, length);
    let mut pieces = Vec::new();
    for part in parts {
        if left == 0 {
            break;
        }
        if skip >= part.size {
            skip -= part.size;
            continue;
        }
        let take = left.min(part.size - skip);
        pieces.push((part.file.clone(), skip, take));
        left -= take;
        skip = 0;
    }
    pieces
}

/// Reads `bytes=a-b`; gives from and length. A form that is not served means all, as HTTP allows.
fn range(text: &str, size: u64) -> Result<Option<(u64, u64)>, Fault> {
    let Some((from, to)) = text
        .trim()
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
    else {
        return Ok(None);
    };
    let number = |text: &str| text.parse::<u64>().ok();
    let (from, to) = match (number(from), number(to)) {
        (Some(from), Some(to)) if from <= to => (from, to),
        (Some(from), None) if to.is_empty() => (from, u64::MAX),
        (None, Some(last)) if from.is_empty() => (size.saturating_sub(last), u64::MAX),
        _ => return Ok(None),
    };
    if from >= size {
        let text = format!("the blob has {size} bytes; the range begins behind them");
        return Err(Fault::new(FaultCode::InvalidRange, text));
    }
    Ok(Some((from, to.min(size - 1) - from + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_to_the_blob_and_one_behind_it_refused() {
        for (text, expected) in [
            ("bytes=0-3", Some((0, 4))),
            ("bytes=5-99", Some((5, 5))),
            ("bytes=5-", Some((5, 5))),
            ("bytes=-3", Some((7, 3))),
            ("bytes=3-1", None),
            ("lines=1-2", None),
            ("bytes=a-b", None),
        ] {
            assert_eq!(range(text, 10).unwrap(), expected, "{text}");
        }
        assert_eq!(range("bytes=10-", 10).unwrap_err().code, FaultCode::InvalidRange);
        assert_eq!(range("bytes=0-0", 0).unwrap_err().code, FaultCode::InvalidRange);
    }

    #[test]
    fn a_range_takes_from_each_part_what_is_its() {
        let part = |file: &str, size| Part {
            block: String::new(),
            file: file.to_owned(),
            size,
        };
        let parts = [part("a", 4), part("b", 0), part("c", 4)];
        let of = |from, length| pieces(&parts, from, length);

        assert_eq!(of(0, 8), [("a".to_owned(), 0, 4), ("c".to_owned(), 0, 4)]);
        assert_eq!(of(3, 2), [("a".to_owned(), 3, 1), ("c".to_owned(), 0, 1)]);
        assert_eq!(of(5, 1), [("c".to_owned(), 1, 1)]);
    }
}
