//! The operator's end of an edge's management API, on its socket.

use std::path::PathBuf;

use anyhow::{Context, bail};
use bytes::{Buf, Bytes, BytesMut};
use holm_model::wire::percent;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use serde_json::Value;
use tokio::net::UnixStream;

/// The version of the published API that is spoken.
const API_VERSION: &str = "2022-08-03";
/// The largest answer that is read whole.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// The largest frame of a log: far above what one write of a program gives.
const MAX_FRAME: usize = 16 * 1024 * 1024;

/// An edge, as seen from its device.
#[derive(Clone, Debug)]
pub(crate) struct Management {
    socket: PathBuf,
}

impl Management {
    /// The edge whose socket is at a `unix://` URI.
    pub(crate) fn new(uri: &str) -> anyhow::Result<Self> {
        match uri.strip_prefix("unix://") {
            Some(path) => Ok(Self { socket: path.into() }),
            None => bail!("`{uri}` is no socket of an edge; give `unix:///path/to/mgmt.sock`"),
        }
    }

    /// Asks for JSON (`Null` for an answer without a body).
    pub(crate) async fn ask(&self, method: Method, path: &str) -> anyhow::Result<Value> {
        let response = self.open(method, path).await?;
        let bytes = holm_net::http::body::read(response.into_body(), MAX_ANSWER)
            .await
            .context("the edge broke off")?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).context("the edge's answer is not JSON")
    }

    /// Opens the log of a module.
    pub(crate) async fn log(&self, module: &str, query: &LogQuery) -> anyhow::Result<Log> {
        let module = percent::encode(module);
        let tail = query.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
        let mut path = format!("/modules/{module}/logs?follow={}&tail={tail}", query.follow);
        for (name, time) in [("since", &query.since), ("until", &query.until)] {
            if let Some(time) = time {
                path.push_str(&format!("&{name}={}", percent::encode(time)));
            }
        }
        Ok(Log {
            body: self.open(Method::GET, &path).await?.into_body(),
            buffer: BytesMut::new(),
        })
    }

    async fn open(&self, method: Method, path: &str) -> anyhow::Result<Response<Incoming>> {
        let shown = self.socket.display();
        let stream = UnixStream::connect(&self.socket)
            .await
            .with_context(|| format!("no edge answers at `{shown}`; is it running, and may you use its socket?"))?;
        let separator = if path.contains('?') { '&' } else { '?' };
        let request = Request::builder()
            .method(method)
            .uri(format!("{path}{separator}api-version={API_VERSION}"))
            .header("Host", "edge")
            .header("Connection", "close")
            .body(Full::<Bytes>::default())
            .context("the request has no form in HTTP")?;
        let response = holm_net::http::client::send_over(stream, request)
            .await
            .context("the edge broke off")?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = holm_net::http::body::read(response.into_body(), MAX_ANSWER)
            .await
            .context("the edge broke off")?;
        let message = serde_json::from_slice::<Value>(&bytes)
            .ok()
            .and_then(|body| Some(body.get("message")?.as_str()?.to_owned()))
            .unwrap_or_else(|| String::from_utf8_lossy(&bytes).into_owned());
        bail!("{message} (HTTP {})", status.as_u16())
    }
}

/// What is wanted of a log.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogQuery {
    /// Go on as lines come.
    pub(crate) follow: bool,
    /// Only so many lines from the end.
    pub(crate) tail: Option<u64>,
    /// Nothing older.
    pub(crate) since: Option<String>,
    /// Nothing newer.
    pub(crate) until: Option<String>,
}

/// Which stream of a module a piece of its log came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogStream {
    Output,
    Error,
}

/// The log of a module, as it comes: frames of 8 bytes of heading (stream, length) and what was written.
#[derive(Debug)]
pub(crate) struct Log {
    body: Incoming,
    buffer: BytesMut,
}

impl Log {
    /// The next piece; `None` at the end. Cancel-safe.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<(LogStream, Bytes)>> {
        loop {
            if let Some(piece) = take_frame(&mut self.buffer)? {
                return Ok(Some(piece));
            }
            match self.body.frame().await {
                None if self.buffer.is_empty() => return Ok(None),
                None => bail!("the log ends within a frame"),
                Some(frame) => {
                    if let Some(data) = frame.context("the edge broke off")?.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
            }
        }
    }
}

fn take_frame(buffer: &mut BytesMut) -> anyhow::Result<Option<(LogStream, Bytes)>> {
    let [kind, _, _, _, a, b, c, d, ..] = buffer[..] else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > MAX_FRAME {
        bail!("the log has a frame of {length} bytes");
    }
    if buffer.len() < 8 + length {
        return Ok(None);
    }
    buffer.advance(8);
    let stream = if kind == 2 { LogStream::Error } else { LogStream::Output };
    Ok(Some((stream, buffer.split_to(length).freeze())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_whole_and_in_order() {
        let mut buffer = BytesMut::from(&[1, 0, 0, 0, 0, 0, 0, 2, b'h', b'i', 2, 0, 0, 0, 0, 0, 0, 1][..]);

        assert_eq!(
            take_frame(&mut buffer).unwrap(),
            Some((LogStream::Output, Bytes::from_static(b"hi")))
        );
        assert_eq!(take_frame(&mut buffer).unwrap(), None);
        buffer.extend_from_slice(b"x");
        assert_eq!(
            take_frame(&mut buffer).unwrap(),
            Some((LogStream::Error, Bytes::from_static(b"x")))
        );
    }
}
