//! `holm edge list`: the modules in the published columns.

use std::time::SystemTime;

use anyhow::Context;
use holm_model::Timestamp;
use serde_json::Value;

use crate::output;

/// Prints the answer of `GET /modules`.
pub(super) fn print(answer: &Value, as_json: bool) -> anyhow::Result<()> {
    let modules = answer
        .get("modules")
        .and_then(Value::as_array)
        .context("the edge's answer has no `modules`")?;
    if as_json {
        output::json(&Value::Array(modules.clone()));
        return Ok(());
    }
    let now = Timestamp::from(SystemTime::now());
    let rows: Vec<_> = modules.iter().map(|module| row(module, now)).collect();
    output::table(&["NAME", "STATUS", "DESCRIPTION", "Config"], &rows);
    Ok(())
}

fn row(module: &Value, now: Timestamp) -> Vec<String> {
    let text = |pointer: &str| module.pointer(pointer).and_then(Value::as_str);
    let status = text("/status/runtimeStatus/status").unwrap_or("unknown");
    vec![
        text("/name").unwrap_or("-").to_owned(),
        status.to_owned(),
        description(module, status, now),
        text("/config/settings/image").unwrap_or("-").to_owned(),
    ]
}

/// As the original says it, and why, where that is known.
fn description(module: &Value, status: &str, now: Timestamp) -> String {
    let text = |pointer: &str| module.pointer(pointer).and_then(Value::as_str);
    let ago = |pointer: &str| {
        text(pointer)
            .and_then(Timestamp::parse)
            .map(|at| length(now.millis_since(at)))
    };
    let ended = ago("/status/exitStatus/exitTime").map(|ago| format!("{ago} ago"));
    let said = match status {
        "running" => ago("/status/startTime").map_or_else(|| "Up".to_owned(), |since| format!("Up {since}")),
        "stopped" => ended.map_or_else(|| "Stopped".to_owned(), |ended| format!("Stopped {ended}")),
        "failed" => match (ended, text("/status/exitStatus/statusCode")) {
            (Some(ended), Some(code)) => format!("Failed ({code}) {ended}"),
            _ => "Failed".to_owned(),
        },
        "dead" => "Dead".to_owned(),
        _ => "Unknown".to_owned(),
    };
    match text("/status/runtimeStatus/description") {
        Some(reason) => format!("{said}: {reason}"),
        None => said,
    }
}

/// A length of time in its largest unit, as people say it.
fn length(millis: i64) -> String {
    const UNITS: [(i64, &str); 3] = [(86_400, "day"), (3600, "hour"), (60, "minute")];
    let seconds = (millis / 1000).max(0);
    let (count, unit) = UNITS
        .into_iter()
        .find(|(length, _)| seconds >= *length)
        .map_or((seconds, "second"), |(length, unit)| (seconds / length, unit));
    match (count, unit) {
        (1, "hour") => "an hour".to_owned(),
        (1, _) => format!("a {unit}"),
        _ => format!("{count} {unit}s"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_status_is_told_with_its_time_and_its_reason() {
        let now = Timestamp::parse("2026-01-02T03:00:00Z").unwrap();
        let told = |status: Value| row(&json!({"name": "m", "status": status}), now)[2].clone();

        let up = json!({"startTime": "2026-01-02T00:00:00Z", "runtimeStatus": {"status": "running"}});
        assert_eq!(told(up), "Up 3 hours");
        let failed = json!({"startTime": "2026-01-02T00:00:00Z",
            "exitStatus": {"exitTime": "2026-01-02T02:58:59Z", "statusCode": "3"},
            "runtimeStatus": {"status": "failed", "description": "it ended with exit code 3"}});
        assert_eq!(told(failed), "Failed (3) a minute ago: it ended with exit code 3");
        let absent = json!({"runtimeStatus": {"status": "unknown", "description": "no such image"}});
        assert_eq!(told(absent), "Unknown: no such image");
        assert_eq!(told(json!({"runtimeStatus": {"status": "stopped"}})), "Stopped");
        assert_eq!(row(&json!({}), now), ["-", "unknown", "Unknown", "-"]);
    }

    #[test]
    fn lengths_are_said_in_their_largest_unit() {
        let said = [0, 1000, 59_000, 60_000, 3_600_000, 7_200_000, 86_400_000, 900_000_000].map(length);

        let expected = [
            "0 seconds",
            "a second",
            "59 seconds",
            "a minute",
            "an hour",
            "2 hours",
            "a day",
            "10 days",
        ];
        assert_eq!(said, expected);
    }
}
