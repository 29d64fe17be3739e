//! How an edge stands, for people: what matters first, in lines, then what there is several of, in tables.
//!
//! The edge's answer may grow: what is not known here is left out, and `--json` shows all of it.

use serde_json::Value;

use crate::output;

/// The edge's answer as lines.
pub(super) fn lines(status: &Value, room: Option<usize>) -> Vec<String> {
    let facts = facts(status);
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut lines: Vec<_> = facts
        .into_iter()
        .map(|(name, value)| format!("{name:width$}  {value}"))
        .collect();
    for (headings, rows) in [
        (&["MODULE", "STATUS", "DESCRIPTION"][..], modules(status)),
        (&["TO DO", "MODULE", "WHY"][..], steps(status)),
        (&["WITHOUT EFFECT HERE", "WHY"][..], without_effect(status)),
        (&["REFUSED BY THE HUB", "SINCE", "WHY"][..], refused(status)),
        (&["WAITING AT", "PRIORITY", "MESSAGES", "BYTES"][..], endpoints(status)),
        (&["SINCE THE START", "MESSAGES"][..], counts(status)),
    ] {
        if !rows.is_empty() {
            lines.push(String::new());
            lines.extend(output::columns(headings, &rows, room));
        }
    }
    lines
}

fn facts(status: &Value) -> Vec<(&'static str, String)> {
    let number = |pointer: &str| number(status, pointer);
    let mut facts = vec![
        ("link", link(status)),
        (
            "connections",
            format!(
                "{} of {} to the hub are up",
                number("/uplinksConnected"),
                number("/uplinksOpen")
            ),
        ),
        ("clients", format!("{} connected here", number("/clientsConnected"))),
        (
            "for the hub",
            waiting(number("/upstream/messages"), number("/upstream/bytes")),
        ),
        ("queue on disk", store(status)),
        (
            "deployment",
            version(status, "/agent/lastDesiredVersion", "/agent/lastDesiredStatus"),
        ),
        ("routes", version(status, "/configuration/version", "/configuration")),
    ];
    match number("/deadLetters/messages") {
        0 => {}
        kept => facts.push((
            "dead letters",
            format!("{kept} kept; `holm edge dead-letters list` shows them"),
        )),
    }
    if let Some(error) = text(status, "/agent/identitiesError") {
        facts.push(("identities", error.to_owned()));
    }
    if let Some(at) = text(status, "/agent/lastPass") {
        facts.push(("modules seen", at.to_owned()));
    }
    facts
}

fn store(status: &Value) -> String {
    let mut store = output::size(number(status, "/diskBytes"));
    if let Some(limit) = status.pointer("/quota/maxBytes").and_then(Value::as_u64) {
        store.push_str(&format!(" of {}", output::size(limit)));
    }
    match (
        status.pointer("/quota/isFull").and_then(Value::as_bool),
        text(status, "/quota/whenFull"),
    ) {
        (Some(true), Some("dropOldest")) => store.push_str("; full: the oldest of the least urgent make room"),
        (Some(true), _) => store.push_str("; full: senders are refused"),
        _ => {}
    }
    store
}

fn link(status: &Value) -> String {
    let is_up = status.pointer("/link/connected").and_then(Value::as_bool) == Some(true);
    let since = text(status, "/link/since").unwrap_or("-");
    match (is_up, text(status, "/link/reason")) {
        (true, _) => format!("up since {since}"),
        (false, Some(reason)) => format!("down since {since}: {reason}"),
        (false, None) => format!("down since {since}"),
    }
}

/// A version and what became of it: a code like those of HTTP, and a reason.
fn version(status: &Value, version: &str, outcome: &str) -> String {
    let Some(version) = status.pointer(version).and_then(Value::as_u64) else {
        return "none yet".to_owned();
    };
    let outcome = status.pointer(outcome).unwrap_or(&Value::Null);
    match (number(outcome, "/code"), text(outcome, "/description")) {
        (200, _) => format!("version {version} is in force"),
        (code, Some(reason)) if !reason.is_empty() => format!("version {version} is not in force ({code}): {reason}"),
        (code, _) => format!("version {version} is not in force ({code})"),
    }
}

fn modules(status: &Value) -> Vec<Vec<String>> {
    let Some(modules) = status.pointer("/agent/modules").and_then(Value::as_object) else {
        return Vec::new();
    };
    modules
        .iter()
        .map(|(name, module)| {
            let description = text(module, "/error").or_else(|| text(module, "/description"));
            let status = text(module, "/status").unwrap_or("-");
            vec![name.clone(), status.to_owned(), description.unwrap_or("-").to_owned()]
        })
        .collect()
}

fn steps(status: &Value) -> Vec<Vec<String>> {
    let cell = |step: &Value, pointer| text(step, pointer).unwrap_or("-").to_owned();
    list(status, "/agent/plan/steps")
        .map(|step| {
            ["/action", "/module", "/reason"]
                .map(|pointer| cell(step, pointer))
                .to_vec()
        })
        .collect()
}

/// What the deployment sets of agent and broker, and nothing obeys.
fn without_effect(status: &Value) -> Vec<Vec<String>> {
    list(status, "/agent/withoutEffect")
        .map(|one| {
            ["/setting", "/why"]
                .map(|pointer| text(one, pointer).unwrap_or("-").to_owned())
                .to_vec()
        })
        .collect()
}

fn refused(status: &Value) -> Vec<Vec<String>> {
    let all = status.get("refused").and_then(Value::as_array).into_iter().flatten();
    all.map(|one| {
        ["/identity", "/since", "/reason"]
            .map(|pointer| text(one, pointer).unwrap_or("-").to_owned())
            .to_vec()
    })
    .collect()
}

fn endpoints(status: &Value) -> Vec<Vec<String>> {
    list(status, "/endpoints")
        .map(|lane| {
            let priority = match number(lane, "/priority") {
                priority @ 0..=9 => priority.to_string(),
                _ => "none".to_owned(),
            };
            vec![
                match text(lane, "/aside") {
                    Some(sender) => format!("$upstream, aside: {sender}"),
                    None => text(lane, "/endpoint").unwrap_or("-").to_owned(),
                },
                priority,
                number(lane, "/messages").to_string(),
                number(lane, "/bytes").to_string(),
            ]
        })
        .collect()
}

/// What became of messages, but for what never happened.
fn counts(status: &Value) -> Vec<Vec<String>> {
    let Some(counts) = status.pointer("/counts").and_then(Value::as_object) else {
        return Vec::new();
    };
    counts
        .iter()
        .filter_map(|(name, count)| Some((name, count.as_u64().filter(|count| *count > 0)?)))
        .map(|(name, count)| vec![name.replace('_', " "), count.to_string()])
        .collect()
}

fn text<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    value.pointer(pointer).and_then(Value::as_str)
}

fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

fn list<'v>(value: &'v Value, pointer: &str) -> impl Iterator<Item = &'v Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn waiting(messages: u64, size: u64) -> String {
    match messages {
        0 => "nothing waits".to_owned(),
        1 => format!("1 message waits, {}", output::size(size)),
        _ => format!("{messages} messages wait, {}", output::size(size)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_person_reads_lines_and_tables_and_no_json() {
        let status = json!({
            "link": {"connected": false, "since": "2026-01-02T03:04:05Z", "reason": "can't connect to `hub`"},
            "uplinksConnected": 0, "uplinksOpen": 3, "clientsConnected": 2,
            "endpoints": [
                {"endpoint": "$upstream", "priority": 2_000_000_000_u32, "messages": 12, "bytes": 3456},
                {"endpoint": "watcher/in", "priority": 0, "messages": 0, "bytes": 0},
            ],
            "upstream": {"messages": 12, "bytes": 3456, "depth": 12},
            "diskBytes": 65_536,
            "configuration": {"version": 4, "code": 400, "description": "route `x` is no route"},
            "counts": {"received": 40, "dropped_no_route": 0, "refused_too_large": 1},
            "agent": {
                "lastDesiredVersion": 5, "lastDesiredStatus": {"code": 200, "description": ""}, "hasDeployment": true,
                "modules": {"sensor": {"status": "running"}, "late": {"status": "failed", "error": "no such program"}},
                "plan": {"steps": [{"stage": 0, "module": "late", "runtime": "process", "action": "start", "reason": "it failed"}]},
                "withoutEffect": [{"setting": "systemModules.edgeHub.env.https_proxy", "why": "there is no proxy"}],
                "lastPass": "2026-01-02T03:04:06Z", "identitiesError": null,
            },
        });

        let text = lines(&status, None).join("\n");

        let expected = "\
link           down since 2026-01-02T03:04:05Z: can't connect to `hub`
connections    0 of 3 to the hub are up
clients        2 connected here
for the hub    12 messages wait, 3.3 KiB
queue on disk  64.0 KiB
deployment     version 5 is in force
routes         version 4 is not in force (400): route `x` is no route
modules seen   2026-01-02T03:04:06Z

MODULE  STATUS   DESCRIPTION
late    failed   no such program
sensor  running  -

TO DO  MODULE  WHY
start  late    it failed

WITHOUT EFFECT HERE                    WHY
systemModules.edgeHub.env.https_proxy  there is no proxy

WAITING AT  PRIORITY  MESSAGES  BYTES
$upstream   none      12        3456
watcher/in  0         0         0

SINCE THE START    MESSAGES
received           40
refused too large  1";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_edge_that_has_just_begun_is_shown_too() {
        let text = lines(&json!({"link": {"connected": true, "since": "T"}}), None).join("\n");

        assert!(text.contains("up since T") && text.contains("none yet"), "{text}");
    }
}
