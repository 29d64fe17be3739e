//! What a request asks of the blob store.

use std::borrow::Cow;
use std::time::Instant;

use bytes::Bytes;
use holm_gateway::http::query::Query;
use holm_model::wire::percent;
use holm_net::http::{ResponseBody, body};
use hyper::body::Body;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response};

use super::containers::{blob_name, check_container_name};
use super::fault::{Fault, FaultCode};
use super::{Blobs, CONTAINER, CONTAINERS, answer};

/// The most signs of a blob's name. Source: the published rules of names.
const MAX_NAME: usize = 1024;

/// A request that names a blob.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) blob: String,
    pub(super) query: Query,
    pub(super) headers: HeaderMap,
}

impl Asked {
    fn read(head: &Parts) -> Result<Self, Fault> {
        let wrong = |text: String| Fault::new(FaultCode::InvalidUri, text);
        let path = head.uri.path();
        let decoded = |rest: &str| {
            let text = percent::try_decode(rest.trim_start_matches('/')).map(Cow::into_owned);
            text.ok_or_else(|| wrong("the path is not percent-encoded UTF-8".to_owned()))
        };
        let blob = match below(path, CONTAINERS) {
            None => decoded(below(path, CONTAINER).unwrap_or_default())?,
            Some(rest) => {
                let rest = decoded(rest)?;
                let (container, blob) = rest.split_once('/').unwrap_or((&rest, ""));
                check_container_name(container).map_err(|error| wrong(error.message))?;
                check_name(blob).map_err(|why| wrong(format!("the name of the blob {why}")))?;
                blob_name(container, blob)
            }
        };
        check_name(&blob).map_err(|why| wrong(format!("the name of the blob {why}")))?;
        Ok(Self {
            blob,
            query: Query::parse(head.uri.query().unwrap_or_default()),
            headers: head.headers.clone(),
        })
    }

    /// A header as text; empty where it is absent or no text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// What stands behind a first part of a path.
fn below<'p>(path: &'p str, first: &str) -> Option<&'p str> {
    let rest = path.strip_prefix('/')?.strip_prefix(first)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// Whether a blob may have this name, or what is wrong with it.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.chars().count() > MAX_NAME {
        return Err(format!("has not 1 to {MAX_NAME} signs"));
    }
    if name.chars().any(char::is_control) {
        return Err("has control characters".to_owned());
    }
    // Addresses are tidied by those who send them: `a/../b` would arrive as `b`.
    if name.split('/').any(|segment| segment == "." || segment == "..") {
        return Err("has a part that is `.` or `..`".to_owned());
    }
    if name.ends_with('/') {
        return Err("ends with `/`".to_owned());
    }
    Ok(())
}

impl Blobs {
    /// Whether a path is one of the store's.
    #[must_use]
    pub fn has(path: &str) -> bool {
        below(path, CONTAINER).or_else(|| below(path, CONTAINERS)).is_some()
    }

    /// Answers a request to the store.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (began, id) = (Instant::now(), answer::request_id());
        let (head, mut body) = request.into_parts();
        let asked = Asked::read(&head);
        let blob = asked.as_ref().map(|asked| asked.blob.clone()).unwrap_or_default();
        let answered = match asked {
            Ok(asked) => self.carry_out(&head.method, asked, &mut body).await,
            Err(fault) => Err(fault),
        };
        let response = match answered {
            Ok(response) => response,
            Err(fault) => {
                if fault.code.status().is_server_error() {
                    tracing::warn!(request = id, blob, code = fault.code.name(), error = %fault, "a request to the blob store failed");
                } else {
                    tracing::debug!(request = id, blob, code = fault.code.name(), error = %fault, "a request to the blob store was refused");
                }
                // Who sends all before it reads gets its answer.
                if body.size_hint().lower() <= body::MAX_DROPPED {
                    body::drop_rest(&mut body).await;
                }
                answer::fault(&fault, &id, self.clock.now())
            }
        };
        answer::log(&response, &head.method, &blob, began);
        answer::finish(response, &head.headers, &id)
    }

    async fn carry_out<B>(&self, method: &Method, asked: Asked, body: &mut B) -> Result<Response<ResponseBody>, Fault>
    where
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let comp = asked.query.get("comp").map(str::to_ascii_lowercase);
        match (method, comp.as_deref()) {
            (&Method::PUT, None) => self.put_blob(asked, body).await,
            (&Method::PUT, Some("block")) => self.put_block(asked, body).await,
            (&Method::PUT, Some("blocklist")) => self.put_block_list(asked, body).await,
            (&Method::GET, Some("blocklist")) => self.block_list(asked).await,
            (&Method::GET | &Method::HEAD, None) => self.get(method, asked).await,
            (&Method::DELETE, None) => self.delete(asked).await,
            (&Method::PUT | &Method::GET | &Method::HEAD | &Method::DELETE, Some(comp)) => {
                let shown: String = comp.chars().take(32).collect();
                let text = format!("`comp={shown}` is not served here; block blobs are, by `block` and `blocklist`");
                Err(Fault::new(FaultCode::InvalidQueryParameterValue, text))
            }
            _ => Err(Fault::new(
                FaultCode::UnsupportedHttpVerb,
                format!("{method} is not possible here; use PUT, GET, HEAD or DELETE"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_named_by_what_stands_behind_the_container_decoded_once() {
        let blob = |path: &str| {
            let (head, ()) = Request::get(path).body(()).unwrap().into_parts();
            Asked::read(&head).map(|asked| asked.blob).map_err(|fault| fault.code)
        };

        assert_eq!(blob("/uploads/d1/a.jpg?x=1").as_deref(), Ok("d1/a.jpg"));
        assert_eq!(blob("/uploads/d1%2Fa%20b.jpg").as_deref(), Ok("d1/a b.jpg"));
        assert_eq!(blob("/uploads/d1/%252e").as_deref(), Ok("d1/%2e"));
        for path in [
            "/uploads",
            "/uploads/",
            "/uploads/d1/%ff",
            "/uploads/d1/..%2f..%2fetc%2fpasswd",
            "/uploads/d1/../d2/x",
            "/uploads/d1/%00",
            "/uploads/d1/",
        ] {
            assert_eq!(blob(path), Err(FaultCode::InvalidUri), "{path}");
        }
        assert_eq!(
            blob(&format!("/uploads/{}", "x".repeat(1025))),
            Err(FaultCode::InvalidUri)
        );
    }

    #[test]
    fn only_paths_below_the_container_are_the_stores() {
        assert!(Blobs::has("/uploads/d1/a") && Blobs::has("/uploads"));
        assert!(!Blobs::has("/uploads2/x") && !Blobs::has("/devices/d1") && !Blobs::has("/"));
    }
}
