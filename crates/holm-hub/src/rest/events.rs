//! Reads the event log: an interface of our own, a JSON object a line.
//!
//! ```text
//! GET /holm/v1/events?partition=&from=<sequence>|earliest|latest&time=<ISO 8601>&follow=true&device=&source=&max=
//!   {"partition":0,"sequenceNumber":7,"enqueuedTime":…,"connectionDeviceId":…,"connectionModuleId":…,
//!    "systemProperties":{…},"properties":{…},"bodyEncoding":"json"|"text"|"base64","body":…}
//! GET /holm/v1/partitions
//!   [{"partition":0,"beginSequenceNumber":0,"nextSequenceNumber":8,"lastEnqueuedTime":…}, …]
//! ```
//!
//! Without `partition` all are read, each in its order. Without `follow` the answer ends at what was on disk when it began.
//! A reader that is too slow is waited for; it holds back nobody else.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use holm_gateway::http::query::Query;
use holm_model::{DeviceId, Message, ServiceError, SystemProperty, Timestamp};
use holm_net::http::body;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::answer::{self, Answer, Failure};
use super::{Call, RestApi, not_allowed};
use crate::events::{EventReader, From, LogError, Stored, partition_of};

/// Lines that wait for a slow reader, in each of two places.
const MAX_WAITING_LINES: usize = 64;

/// What is read.
#[derive(Clone, Debug)]
struct Wanted {
    partitions: Vec<u16>,
    from: From,
    follow: bool,
    device: Option<DeviceId>,
    source: Option<String>,
    max: u64,
}

impl RestApi {
    pub(super) fn partitions(&self, call: &Call) -> Result<Answer, Failure> {
        if call.method != Method::GET {
            return Err(not_allowed(call, "GET"));
        }
        let log = &self.backend.log;
        let all = (0..log.partitions()).map(|partition| {
            let bounds = log.bounds(partition).map_err(unreadable)?;
            Ok(json!({
                "partition": partition,
                "beginSequenceNumber": bounds.start,
                "nextSequenceNumber": bounds.end,
                "lastEnqueuedTime": bounds.last_enqueued.unwrap_or(Timestamp::NEVER),
            }))
        });
        Ok(answer::json(&Value::Array(all.collect::<Result<_, Failure>>()?)))
    }

    pub(super) fn events(&self, call: &Call) -> Result<Answer, Failure> {
        if call.method != Method::GET {
            return Err(not_allowed(call, "GET"));
        }
        let log = &self.backend.log;
        let wanted = wanted(&call.query, log.partitions())?;
        let (lines, received) = mpsc::channel(MAX_WAITING_LINES);
        for partition in &wanted.partitions {
            let reader = log.reader(*partition, wanted.from).map_err(unreadable)?;
            let end = log.bounds(*partition).map_err(unreadable)?.end;
            let until = (!wanted.follow).then_some(end);
            let reading = read(reader, *partition, until, wanted.clone(), lines.clone());
            self.streams.spawn_until_stopped(reading);
        }
        drop(lines);
        let (pieces, streamed) = mpsc::channel(MAX_WAITING_LINES);
        self.streams.spawn_until_stopped(forward(received, pieces, wanted.max));
        let mut response = Response::new(body::streamed(streamed));
        let kind = HeaderValue::from_static("application/x-ndjson; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        Ok(response)
    }
}

fn unreadable(error: LogError) -> Failure {
    tracing::error!(error = %holm_net::error_chain(&error), "the event log can't be read");
    ServiceError::unavailable("the event log can't be read now; try again").into()
}

/// Passes on at most `max` lines. Ends when the client goes away; then the readers see their channel closed.
async fn forward(mut lines: mpsc::Receiver<io::Result<Bytes>>, pieces: mpsc::Sender<io::Result<Bytes>>, max: u64) {
    for _ in 0..max {
        let line = tokio::select! {
            line = lines.recv() => line,
            () = pieces.closed() => None,
        };
        let Some(line) = line else { return };
        if pieces.send(line).await.is_err() {
            return;
        }
    }
}

/// Reads one partition: to the end that there was, or (`None`) for as long as somebody listens.
async fn read(
    mut reader: EventReader,
    partition: u16,
    until: Option<u64>,
    wanted: Wanted,
    lines: mpsc::Sender<io::Result<Bytes>>,
) {
    loop {
        let next = match until {
            Some(until) => reader
                .try_next()
                .map(|next| next.filter(|stored| stored.sequence < until)),
            None => tokio::select! {
                next = reader.next() => next.map(Some),
                () = lines.closed() => return,
            },
        };
        let line = match next {
            Ok(None) => return,
            Ok(Some(stored)) => to_line(partition, stored, &wanted),
            Err(error) => Some(Err(io::Error::other(error))),
        };
        let Some(line) = line else { continue };
        let failed = line.is_err();
        if lines.send(line).await.is_err() || failed {
            return;
        }
    }
}

fn to_line(partition: u16, stored: Stored, wanted: &Wanted) -> Option<io::Result<Bytes>> {
    let (sequence, enqueued) = (stored.sequence, stored.enqueued);
    let message = match Message::decode(stored.payload) {
        Ok(message) => message,
        Err(error) => {
            tracing::error!(partition, sequence, %error, "an event can't be read and is passed over");
            return None;
        }
    };
    let is = |name: SystemProperty, wanted: Option<&str>| {
        wanted.is_none_or(|wanted| message.system.get(name) == Some(wanted))
    };
    if !is(
        SystemProperty::ConnectionDeviceId,
        wanted.device.as_ref().map(DeviceId::as_str),
    ) || !is(SystemProperty::MessageSource, wanted.source.as_deref())
    {
        return None;
    }
    let line = to_json(partition, sequence, enqueued, &message);
    Some(match line {
        Ok(line) => Ok((line + "\n").into()),
        Err(error) => Err(io::Error::other(error)),
    })
}

/// An event as it is told.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    partition: u16,
    sequence_number: u64,
    enqueued_time: Timestamp,
    message_source: Option<&'a str>,
    connection_device_id: Option<&'a str>,
    connection_module_id: Option<&'a str>,
    system_properties: Map<String, Value>,
    properties: Map<String, Value>,
    body_encoding: &'static str,
    body: Box<RawValue>,
}

fn to_json(partition: u16, sequence: u64, enqueued: Timestamp, message: &Message) -> serde_json::Result<String> {
    let system = message.system.iter();
    let properties = message.properties.iter();
    let (body_encoding, body) = readable(&message.body)?;
    serde_json::to_string(&Told {
        partition,
        sequence_number: sequence,
        enqueued_time: enqueued,
        message_source: message.system.get(SystemProperty::MessageSource),
        connection_device_id: message.system.get(SystemProperty::ConnectionDeviceId),
        connection_module_id: message.system.get(SystemProperty::ConnectionModuleId),
        system_properties: system
            .map(|(name, value)| (name.route_name().to_owned(), json!(value)))
            .collect(),
        properties: properties
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect(),
        body_encoding,
        body,
    })
}

/// The body as JSON if it is JSON, else as text, else in base64, and which of them.
///
/// JSON stays as it was written: digits, order and repetition of keys. Only line ends, which in JSON are never part of a
/// value, become spaces, since an event is a line. What is JSON but can't be read by everybody (`1e999`, a thousand brackets)
/// is text.
fn readable(body: &[u8]) -> serde_json::Result<(&'static str, Box<RawValue>)> {
    let Ok(text) = std::str::from_utf8(body) else {
        return Ok(("base64", to_raw_value(&STANDARD.encode(body))?));
    };
    if serde_json::from_str::<Value>(text).is_ok() {
        let line = text.trim_ascii().replace(['\n', '\r'], " ");
        return Ok(("json", RawValue::from_string(line)?));
    }
    Ok(("text", to_raw_value(text)?))
}

const NAMES: [&str; 8] = [
    "partition",
    "from",
    "time",
    "follow",
    "device",
    "source",
    "max",
    "api-version",
];

fn wanted(query: &Query, partitions: u16) -> Result<Wanted, ServiceError> {
    if let Some(unknown) = query.names().find(|name| !NAMES.contains(name)) {
        return Err(ServiceError::argument_invalid(format!(
            "`{unknown}` is unknown here; known are {}",
            NAMES.join(", ")
        )));
    }
    let wrong = |name: &str, value: &str, expected: &str| {
        ServiceError::argument_invalid(format!("`{name}` is `{value}`; give {expected}"))
    };
    let given = |name: &str| query.get(name).filter(|value| !value.is_empty());
    let device = given("device").map(DeviceId::new).transpose();
    let device = device.map_err(|error| ServiceError::argument_invalid(format!("`device`: {error}")))?;
    let partition = given("partition")
        .map(|text| {
            let number = text.parse().ok().filter(|number| *number < partitions);
            number.ok_or_else(|| wrong("partition", text, &format!("0 to {}", partitions - 1)))
        })
        .transpose()?;
    let from = match (given("from"), given("time")) {
        (Some(_), Some(_)) => return Err(ServiceError::argument_invalid("give `from` or `time`, not both")),
        (None, Some(text)) => {
            From::Time(Timestamp::parse(text).ok_or_else(|| wrong("time", text, "an ISO 8601 point in time"))?)
        }
        (None | Some("earliest"), None) => From::Sequence(0),
        (Some("latest"), None) => From::Latest,
        (Some(text), None) => From::Sequence(
            text.parse()
                .map_err(|_| wrong("from", text, "a sequence number, `earliest` or `latest`"))?,
        ),
    };
    let follow = match given("follow") {
        None | Some("false") => false,
        Some("true") => true,
        Some(text) => return Err(wrong("follow", text, "`true` or `false`")),
    };
    let max = given("max").map(|text| text.parse().map_err(|_| wrong("max", text, "a number of events")));
    Ok(Wanted {
        partitions: match (partition, &device) {
            (Some(partition), _) => vec![partition],
            (None, Some(device)) => vec![partition_of(device, partitions)],
            (None, None) => (0..partitions).collect(),
        },
        from,
        follow,
        device,
        source: given("source").map(str::to_owned),
        max: max.transpose()?.unwrap_or(u64::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_told_exactly_and_on_one_line() {
        for (body, encoding, told) in [
            (
                &b"{\"z\":12345678901234567890.123,\n \"a\":1e2,\"a\":[ ]}\r\n"[..],
                "json",
                "{\"z\":12345678901234567890.123,  \"a\":1e2,\"a\":[ ]}",
            ),
            (b"1e999", "text", "\"1e999\""),
            (b"one\ntwo", "text", "\"one\\ntwo\""),
            (b"", "text", "\"\""),
            (&[0xff], "base64", "\"/w==\""),
        ] {
            let (named, raw) = readable(body).unwrap();

            assert_eq!((named, raw.get()), (encoding, told));
        }
    }
}
