//! Feedback and notifications of files, as back ends read them over HTTPS.
//!
//! ```text
//! GET    /messages/serviceBound/feedback                 200 with ETag: "{lock}" and a batch, or 204: there is none now
//! DELETE /messages/serviceBound/feedback/{lock}          204: it is done with
//! POST   /messages/serviceBound/feedback/{lock}/abandon  204: it comes again, counted
//! GET    /holm/v1/feedback?follow=true&from=latest&device=   ours: looks and takes nothing, a record a line
//! ```
//!
//! The same with `filenotifications`. A lock that is unknown, or over, is answered with 412 (412002). With `Prefer: wait=20`
//! (RFC 7240, ours here) a GET waits so many seconds before it says that there is none.
//!
//! Source: `hub-service-api.md` §2.2, §5.3.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use holm_gateway::Settlement;
use holm_gateway::http::query::Query;
use holm_model::{DeviceId, ErrorCode, ServiceError};
use holm_net::http::body;
use hyper::header::{CONTENT_TYPE, ETAG, HeaderValue};
use hyper::{Method, Response};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::answer::{self, Answer, Failure};
use super::target::Verb;
use super::{Call, RestApi, not_allowed};
use crate::notices::{Follower, LockToken, Notice, NoticeKind};

/// The longest that an answer waits, in seconds: below what proxies and clients take for a dead connection.
const MAX_WAIT_SECONDS: u64 = 60;
/// Lines that wait for a slow reader.
const MAX_WAITING_LINES: usize = 64;

impl RestApi {
    pub(super) async fn receive_notice(&self, call: Call, kind: NoticeKind) -> Result<Answer, Failure> {
        if call.method != Method::GET {
            return Err(not_allowed(&call, "GET"));
        }
        let (notices, reader) = (&self.backend.notices, self.notice_reader);
        let patience = wait(&call)?;
        let received = match notices.try_receive(kind, reader).await? {
            None if !patience.is_zero() => tokio::select! {
                received = notices.receive(kind, reader) => Some(received?),
                () = tokio::time::sleep(patience) => None,
                () = self.streams.stopping() => None,
            },
            received => received,
        };
        Ok(received.map_or_else(answer::no_content, given))
    }

    pub(super) async fn settle_notice(
        &self,
        call: Call,
        kind: NoticeKind,
        lock: Option<LockToken>,
        verb: Verb,
    ) -> Result<Answer, Failure> {
        let (method, settlement) = match verb {
            Verb::Complete => (Method::DELETE, Settlement::Complete),
            Verb::Abandon => (Method::POST, Settlement::Abandon),
        };
        if call.method != method {
            return Err(not_allowed(&call, method.as_str()));
        }
        let lock = lock.ok_or_else(|| {
            let text = "the path names no lock; give what the header `ETag` of the answer said";
            ServiceError::new(ErrorCode::DeviceMessageLockLost, text)
        })?;
        self.backend.notices.settle(kind, lock, settlement).await?;
        Ok(answer::no_content())
    }

    pub(super) fn look_at_feedback(&self, call: &Call) -> Result<Answer, Failure> {
        if call.method != Method::GET {
            return Err(not_allowed(call, "GET"));
        }
        let wanted = wanted(&call.query)?;
        let follower = self.backend.notices.follow(NoticeKind::Feedback, wanted.from_now);
        let (lines, streamed) = mpsc::channel(MAX_WAITING_LINES);
        self.streams.spawn_until_stopped(tell(follower, wanted, lines));
        let mut response = Response::new(body::streamed(streamed));
        let kind = HeaderValue::from_static("application/x-ndjson; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        Ok(response)
    }
}

fn given(notice: Notice) -> Answer {
    let mut response = Response::new(body::full(notice.body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(notice.content_type));
    let texts = [
        (ETAG.as_str(), format!("\"{}\"", notice.lease)),
        ("iothub-enqueuedtime", notice.enqueued.to_string()),
        ("iothub-sequencenumber", notice.sequence.to_string()),
        ("iothub-deliverycount", notice.deliveries.to_string()),
    ];
    for (name, text) in texts {
        let value = HeaderValue::from_str(&text).expect("digits, dashes and quotes are a header");
        headers.insert(name, value);
    }
    response
}

/// How long the client would wait, by `Prefer: wait=SECONDS`.
fn wait(call: &Call) -> Result<Duration, ServiceError> {
    let preferred = call.header("prefer").unwrap_or_default();
    let wait = preferred.split(',').find_map(|one| {
        let (name, value) = one.trim().split_once('=')?;
        name.trim_end().eq_ignore_ascii_case("wait").then(|| value.trim())
    });
    let Some(text) = wait else { return Ok(Duration::ZERO) };
    let seconds: u64 = text.parse().map_err(|_| {
        ServiceError::argument_invalid(format!(
            "the header `Prefer` has `wait={text}`; give a number of seconds"
        ))
    })?;
    Ok(Duration::from_secs(seconds.min(MAX_WAIT_SECONDS)))
}

struct Wanted {
    follow: bool,
    from_now: bool,
    device: Option<DeviceId>,
}

fn wanted(query: &Query) -> Result<Wanted, ServiceError> {
    let known = ["follow", "from", "device", "api-version"];
    if let Some(unknown) = query.names().find(|name| !known.contains(name)) {
        let text = format!("`{unknown}` is unknown here; known are {}", known.join(", "));
        return Err(ServiceError::argument_invalid(text));
    }
    let one_of = |name: &str, [no, yes]: [&str; 2]| match query.get(name).unwrap_or_default() {
        "" => Ok(false),
        text if text == no => Ok(false),
        text if text == yes => Ok(true),
        text => Err(ServiceError::argument_invalid(format!(
            "`{name}` is `{text}`; give `{no}` or `{yes}`"
        ))),
    };
    let device = query.get("device").filter(|text| !text.is_empty());
    let device = device.map(DeviceId::new).transpose();
    Ok(Wanted {
        follow: one_of("follow", ["false", "true"])?,
        from_now: one_of("from", ["earliest", "latest"])?,
        device: device.map_err(|error| ServiceError::argument_invalid(format!("`device`: {error}")))?,
    })
}

/// Tells what the follower sees; ends when the client goes away, or (without `follow`) at the end of what is there.
async fn tell(mut follower: Follower, wanted: Wanted, lines: mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let seen = if wanted.follow {
            tokio::select! {
                seen = follower.next() => seen.map(Some),
                () = lines.closed() => return,
            }
        } else {
            follower.next_kept().await
        };
        let line = match seen {
            Ok(None) => return,
            Ok(Some(record)) if is_about(&record, wanted.device.as_ref()) => Ok([&record[..], b"\n"].concat().into()),
            Ok(Some(_)) => continue,
            Err(error) => Err(io::Error::other(error)),
        };
        let failed = line.is_err();
        if lines.send(line).await.is_err() || failed {
            return;
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct About<'a> {
    #[serde(borrow)]
    device_id: std::borrow::Cow<'a, str>,
}

/// Whether a record can be read, and is about the device that is asked for.
fn is_about(record: &[u8], device: Option<&DeviceId>) -> bool {
    let about = serde_json::from_slice::<About<'_>>(record);
    about.is_ok_and(|about| device.is_none_or(|device| device.as_str() == about.device_id))
}
