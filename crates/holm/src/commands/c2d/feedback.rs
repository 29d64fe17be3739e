//! `holm c2d feedback`: takes feedback from the queue that back ends share, or looks at it.
//!
//! A batch is printed and then completed, so one that could not be printed comes again when its lock is over.

use std::time::Duration;

use anyhow::{Context, bail};
use holm_model::wire::percent;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::ETAG;
use hyper::{Method, StatusCode};
use serde_json::Value;

use super::super::hub_access;
use crate::cli::Feedback;
use crate::output;
use crate::service::Service;

const QUEUE: &str = "/messages/serviceBound/feedback";
/// How long the hub is asked to wait for a batch, in seconds: more than a batch takes to fill.
const WAIT_SECONDS: u64 = 20;
/// The longest line: a record has a device id and a message id.
const MAX_LINE: usize = 64 * 1024;

pub(super) async fn run(options: Feedback) -> anyhow::Result<()> {
    let service = hub_access::open(&options.hub)?;
    let mut printer = Printer {
        as_json: options.hub.json,
        left: options.max.unwrap_or(u64::MAX),
    };
    if options.peek {
        peek(&service, &options, &mut printer).await
    } else {
        take(&service, options.timeout, &mut printer).await
    }
}

struct Printer {
    as_json: bool,
    left: u64,
}

impl Printer {
    fn print(&mut self, record: &Record) {
        if self.as_json {
            output::line(&record.0.to_string());
        } else {
            output::line(&record.to_line());
        }
        self.left = self.left.saturating_sub(1);
    }
}

/// Takes batches until nothing has come for `timeout` seconds.
async fn take(service: &Service, timeout: Option<u64>, printer: &mut Printer) -> anyhow::Result<()> {
    let mut quiet = 0;
    while printer.left > 0 {
        let left = timeout.map_or(WAIT_SECONDS, |timeout| timeout.saturating_sub(quiet).min(WAIT_SECONDS));
        let prefer = format!("wait={left}");
        let (status, headers, bytes) = service.exchange(Method::GET, QUEUE, &[("Prefer", &prefer)]).await?;
        if status == StatusCode::NO_CONTENT {
            quiet += left;
            if timeout.is_some_and(|timeout| quiet >= timeout) {
                return Ok(());
            }
            continue;
        }
        quiet = 0;
        let lock = headers.get(ETAG).and_then(|tag| tag.to_str().ok());
        let lock = lock
            .context("the hub's answer has no lock; is it another service?")?
            .trim_matches('"');
        let batch: Vec<Value> = serde_json::from_slice(&bytes).context("the hub's answer is no list of feedback")?;
        for record in batch {
            printer.print(&Record(record));
        }
        let path = format!("{QUEUE}/{}", percent::encode(lock));
        service.exchange(Method::DELETE, &path, &[]).await.map(|_| ())?;
    }
    Ok(())
}

async fn peek(service: &Service, options: &Feedback, printer: &mut Printer) -> anyhow::Result<()> {
    let follow = options.timeout != Some(0);
    let mut path = format!("/holm/v1/feedback?follow={follow}");
    if let Some(device) = &options.device {
        path.push_str(&format!("&device={}", percent::encode(device)));
    }
    let mut look = Look::open(service, &path).await?;
    while printer.left > 0 {
        let next = match options.timeout.filter(|_| follow) {
            None => look.next().await?,
            Some(seconds) => {
                let next = tokio::time::timeout(Duration::from_secs(seconds), look.next()).await;
                next.unwrap_or(Ok(None))?
            }
        };
        let Some(record) = next else { break };
        printer.print(&record);
    }
    Ok(())
}

/// A record of feedback, as the hub tells it.
#[derive(Clone, Debug)]
pub(super) struct Record(Value);

impl Record {
    fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or("-")
    }

    /// The id of the message that it is on.
    pub(super) fn message(&self) -> &str {
        self.text("originalMessageId")
    }

    /// What became of it.
    pub(super) fn status(&self) -> &str {
        self.text("statusCode")
    }

    pub(super) fn to_json(&self) -> Value {
        self.0.clone()
    }

    /// For people.
    pub(super) fn to_line(&self) -> String {
        let (at, device) = (self.text("enqueuedTimeUtc"), self.text("deviceId"));
        format!("{at}  {:21}  {device}  {}", self.status(), self.message())
    }
}

/// Feedback as it comes, of which nothing is taken.
#[derive(Debug)]
pub(super) struct Look {
    body: Incoming,
    pending: Vec<u8>,
}

impl Look {
    /// At what comes from now on, on messages to a device.
    pub(super) async fn from_now(service: &Service, device: &str) -> anyhow::Result<Self> {
        let device = percent::encode(device);
        let path = format!("/holm/v1/feedback?follow=true&from=latest&device={device}");
        Self::open(service, &path).await
    }

    async fn open(service: &Service, path: &str) -> anyhow::Result<Self> {
        let body = service.open(path).await?.into_body();
        let pending = Vec::new();
        Ok(Self { body, pending })
    }

    /// The next, or `None` at the end.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Record>> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                let record = serde_json::from_slice(&line).context("the hub's answer is not JSON")?;
                return Ok(Some(Record(record)));
            }
            if self.pending.len() > MAX_LINE {
                bail!("the hub sent a line of more than {MAX_LINE} bytes");
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            if let Some(bytes) = frame.context("the hub broke off")?.data_ref() {
                self.pending.extend_from_slice(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_is_a_line_in_columns_and_what_is_missing_is_a_dash() {
        let whole = Record(json!({
            "originalMessageId": "m-1", "deviceId": "pump", "statusCode": "Success",
            "enqueuedTimeUtc": "2026-11-21T04:00:00.0000000Z",
        }));

        let line = whole.to_line();

        assert_eq!(line, "2026-11-21T04:00:00.0000000Z  Success                pump  m-1");
        assert!(Record(json!({})).to_line().starts_with("-  -  "));
    }
}
