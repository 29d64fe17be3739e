//! The edge itself, by what it says of itself.

use serde_json::Value;

use super::{Check, Group, Looking, Subject, Verdict};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "aziot-edged-running",
        group: Group::Edge,
        about: "the edge runs and answers on its management socket",
        look: answers,
    },
    Check {
        id: "deployment",
        group: Group::Edge,
        about: "what was deployed is what runs",
        look: |subject| look(subject, deployment),
    },
    Check {
        id: "routes",
        group: Group::Edge,
        about: "the routes of the deployment are in force",
        look: |subject| look(subject, routes),
    },
    Check {
        id: "messages-lost",
        group: Group::Edge,
        about: "no message ended anywhere but at its destination",
        look: |subject| look(subject, lost),
    },
    Check {
        id: "link",
        group: Group::Connectivity,
        about: "the running edge is connected to the hub",
        look: |subject| look(subject, link),
    },
    Check {
        id: "identities",
        group: Group::Connectivity,
        about: "the hub accepts every identity of this edge",
        look: |subject| look(subject, identities),
    },
];

fn answers(subject: &Subject) -> Looking<'_> {
    let verdict = match &subject.status {
        Ok(_) => Verdict::Fine(None),
        Err(reason) => Verdict::error(
            reason.clone(),
            "start the edge (`systemctl start holm-edge`) and see its log; run this as root or as a member of its group",
        ),
    };
    Box::pin(std::future::ready(verdict))
}

/// One finding is enough for an edge that does not run: the rest can't be known.
fn look(subject: &Subject, judge: fn(&Value) -> Verdict) -> Looking<'_> {
    let unknown = |_: &String| Verdict::Skipped("the edge does not answer".to_owned());
    let verdict = subject.status.as_ref().map_or_else(unknown, judge);
    Box::pin(std::future::ready(verdict))
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

fn deployment(status: &Value) -> Verdict {
    let code = number(status, "/agent/lastDesiredStatus/code");
    let description = text(status, "/agent/lastDesiredStatus/description");
    match code {
        _ if status.pointer("/agent/hasDeployment") != Some(&Value::Bool(true)) => {
            Verdict::Fine(Some("nothing was deployed yet".to_owned()))
        }
        200 => Verdict::Fine(None),
        _ => Verdict::error(
            format!("the deployment has status {code}: {description}"),
            "see docs/troubleshooting.md, \"A deployment is not applied\"",
        ),
    }
}

fn routes(status: &Value) -> Verdict {
    match number(status, "/configuration/code") {
        0 => Verdict::Fine(Some("no routes were deployed yet".to_owned())),
        200 => Verdict::Fine(None),
        code => Verdict::error(
            format!(
                "the routes have status {code}: {}",
                text(status, "/configuration/description")
            ),
            "correct the routes that it names and deploy again; those before are in force",
        ),
    }
}

fn lost(status: &Value) -> Verdict {
    let counts = status.get("counts").and_then(Value::as_object).into_iter().flatten();
    let dropped: Vec<_> = counts
        .filter(|(name, _)| name.starts_with("dropped") && *name != "dropped_no_route")
        .filter_map(|(name, count)| Some((name, count.as_u64().filter(|count| *count > 0)?)))
        .map(|(name, count)| format!("{name}: {count}"))
        .collect();
    if dropped.is_empty() {
        return Verdict::Fine(None);
    }
    Verdict::warning(
        format!("since the edge's start: {}", dropped.join(", ")),
        "`holm edge status` names the counts; the edge's log has the reasons",
    )
}

fn link(status: &Value) -> Verdict {
    let since = text(status, "/link/since");
    let waiting = match number(status, "/upstream/messages") {
        1 => "1 message waits".to_owned(),
        messages => format!("{messages} messages wait"),
    };
    if status.pointer("/link/connected") == Some(&Value::Bool(true)) {
        return Verdict::Fine(Some(format!("since {since}; {waiting}")));
    }
    // There is none before the first attempt has failed.
    let reason = status.pointer("/link/reason").and_then(Value::as_str);
    let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    Verdict::warning(
        format!("down since {since}{reason}; {waiting} on disk"),
        "nothing, when the hub is out of reach on purpose: the edge goes on and comes back by itself; else see the checks below",
    )
}

fn identities(status: &Value) -> Verdict {
    let refused = status.get("refused").and_then(Value::as_array).into_iter().flatten();
    let refused: Vec<_> = refused
        .map(|one| {
            format!(
                "`{}` since {}: {}",
                text(one, "/identity"),
                text(one, "/since"),
                text(one, "/reason")
            )
        })
        .collect();
    let error = text(status, "/agent/identitiesError");
    if !refused.is_empty() {
        return Verdict::error(
            format!("the hub refuses {}", refused.join("; ")),
            "see that device and modules are enabled at the hub; changed keys are set again by the edge itself",
        );
    }
    if error.is_empty() {
        Verdict::Fine(None)
    } else {
        Verdict::warning(error, "what is known stays in force; see the checks of the hub")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_link_that_is_down_is_told_with_its_reason_if_there_is_one() {
        let told = |reason: Value| {
            let status =
                json!({"link": {"connected": false, "since": "T", "reason": reason}, "upstream": {"messages": 2}});
            format!("{:?}", link(&status))
        };

        let (unknown, known) = (told(Value::Null), told(json!("refused")));

        assert!(unknown.contains("down since T; 2 messages wait"), "{unknown}");
        assert!(known.contains("down since T (refused); 2 messages"), "{known}");
    }
}
