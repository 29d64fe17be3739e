//! The log of a module, piece by piece.

use futures_util::StreamExt;
use holm_model::{ModuleId, Timestamp};
use holm_net::Scope;
use holm_net::http::{ResponseBody, body};
use holm_runtime::{LogsOptions, ModuleRuntime, RuntimeError, Tail};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::sync::mpsc;

use crate::local_api::{Call, Failure};

/// Pieces that wait for a slow reader; while it is full, the log is not read further.
const WAITING_PIECES: usize = 16;

pub(super) async fn answer(
    scope: &Scope,
    runtime: &dyn ModuleRuntime,
    module: &ModuleId,
    call: &Call,
) -> Result<Response<ResponseBody>, Failure> {
    let options = options(call)?;
    let mut log = runtime.logs(module, &options).await.map_err(|error| match error {
        RuntimeError::NotFound(_) => Failure::not_found(error.chain()),
        other => Failure::internal(other.chain()),
    })?;
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
    Ok(response)
}

fn options(call: &Call) -> Result<LogsOptions, Failure> {
    let flag = |name: &str| match call.parameter(name) {
        None | Some("" | "false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(other) => Err(Failure::bad_request(format!(
            "`{name}` is `{other}`; give true or false"
        ))),
    };
    let tail = match call.parameter("tail") {
        None | Some("" | "all") => Tail::All,
        Some(lines) => Tail::Lines(
            lines
                .parse()
                .map_err(|_| Failure::bad_request(format!("`tail` is `{lines}`; give a number of lines, or all")))?,
        ),
    };
    Ok(LogsOptions {
        follow: flag("follow")?,
        tail,
        since: moment(call, "since")?,
        until: moment(call, "until")?,
        timestamps: flag("timestamps")?,
    })
}

fn moment(call: &Call, name: &str) -> Result<Option<Timestamp>, Failure> {
    let now = Timestamp::from(std::time::SystemTime::now());
    match call.parameter(name) {
        None | Some("") => Ok(None),
        Some(text) => read_moment(text, now).map(Some).ok_or_else(|| {
            let forms = "a time (2026-01-02T03:04:05Z), seconds since 1970, or how long ago (`1 day`, `10 min`)";
            Failure::bad_request(format!("`{name}` is `{text}`; give {forms}"))
        }),
    }
}

/// A point in time in one of the published forms; 0 means the beginning.
fn read_moment(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Ok(seconds) = text.parse::<i64>() {
        return Some(Timestamp::from_unix_seconds(seconds));
    }
    Timestamp::parse(text).or_else(|| Some(now.plus_millis(-ago(text)?)))
}

/// A duration in words, in milliseconds: `1d`, `2 hours`, `1 h 30 min`.
fn ago(text: &str) -> Option<i64> {
    let mut rest = text.trim();
    let mut millis: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let seconds: i64 = match unit {
            "s" | "sec" | "secs" | "second" | "seconds" => 1,
            "m" | "min" | "mins" | "minute" | "minutes" => 60,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3600,
            "d" | "day" | "days" => 86_400,
            "w" | "week" | "weeks" => 604_800,
            _ => return None,
        };
        millis = millis.checked_add(number.parse::<i64>().ok()?.checked_mul(seconds)?.checked_mul(1000)?)?;
        rest = after.trim_start();
    }
    (millis > 0).then_some(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_in_every_published_form() {
        let now = Timestamp::from_unix_seconds(1_000_000);
        for (text, seconds) in [
            ("0", Some(0)),
            ("999999", Some(999_999)),
            ("1970-01-01T00:01:00Z", Some(60)),
            ("1 day", Some(1_000_000 - 86_400)),
            ("2h30m", Some(1_000_000 - 9000)),
            ("yesterday", None),
            ("1 fortnight", None),
            ("", None),
        ] {
            assert_eq!(read_moment(text, now).map(Timestamp::unix_seconds), seconds, "{text}");
        }
    }
}
