//! How far a deployment is carried out, and what is planned, for people. `--json` shows all of it.

use serde_json::Value;

use crate::output;

/// The edge's answer as lines.
pub(super) fn lines(answer: &Value, room: Option<usize>) -> Vec<String> {
    let rollout = answer.get("rollout").unwrap_or(&Value::Null);
    let mut lines = vec![phase(rollout)];
    for (id, reason) in reasons(rollout, "/notReady").chain(reasons(rollout, "/takenBack/reasons")) {
        lines.push(format!("  {id}: {reason}"));
    }
    let headings = &["STAGE", "TO DO", "MODULE", "RUNTIME", "WHY"];
    let version = |name: &str| rollout.get(name).and_then(Value::as_u64).unwrap_or_default();
    for (plan, title) in [("plan", "Now"), ("nextPlan", "When all is ready")] {
        let rows = steps(answer, plan);
        let of = if plan == "plan" {
            version("inForce")
        } else {
            version("next")
        };
        if !rows.is_empty() {
            lines.extend([String::new(), format!("{title}, for version {of}:")]);
            lines.extend(output::columns(headings, &rows, room));
        } else if plan == "plan" && rollout.get("inForce").is_some_and(Value::is_u64) {
            lines.push("nothing to do now".to_owned());
        }
    }
    lines
}

fn phase(rollout: &Value) -> String {
    let version = |pointer: &str| match rollout.pointer(pointer).and_then(Value::as_u64) {
        Some(version) => format!("version {version}"),
        None => "no version".to_owned(),
    };
    match rollout.get("phase").and_then(Value::as_str).unwrap_or_default() {
        "empty" => "nothing was deployed yet".to_owned(),
        "committed" => format!("{} is in force and has proved itself", version("/good")),
        "preparing" => format!(
            "{} is made ready; {} goes on meanwhile",
            version("/next"),
            version("/inForce")
        ),
        "trial" => {
            let since = rollout.get("trialSince").and_then(Value::as_str).unwrap_or("-");
            let otherwise = match rollout.get("good").and_then(Value::as_u64) {
                Some(good) => format!("else the device goes back to version {good}"),
                None => "there is none to go back to".to_owned(),
            };
            format!("{} is on trial since {since}; {otherwise}", version("/inForce"))
        }
        "taken back" => format!(
            "{} was taken back; {} is in force; `holm edge retry` tries it once more",
            version("/takenBack/version"),
            version("/good")
        ),
        other => format!("the deployment is in the phase `{other}`; a newer `holm` knows it"),
    }
}

fn reasons<'v>(rollout: &'v Value, pointer: &str) -> impl Iterator<Item = (&'v String, &'v str)> {
    let reasons = rollout.pointer(pointer).and_then(Value::as_object);
    reasons
        .into_iter()
        .flatten()
        .filter_map(|(id, reason)| Some((id, reason.as_str()?)))
}

fn steps(answer: &Value, plan: &str) -> Vec<Vec<String>> {
    let steps = answer
        .get(plan)
        .and_then(|plan| plan.get("steps"))
        .and_then(Value::as_array);
    let cell = |step: &Value, name: &str| match step.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "-".to_owned(),
    };
    let row = |step| {
        ["stage", "action", "module", "runtime", "reason"]
            .map(|name| cell(step, name))
            .to_vec()
    };
    steps.into_iter().flatten().map(row).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_person_reads_the_phase_the_reasons_and_the_steps() {
        let answer = json!({
            "rollout": {"phase": "preparing", "good": 4, "inForce": 4, "next": 5,
                "notReady": {"pump": "image `pump:2` is not available"}, "takenBack": null},
            "plan": {"steps": []},
            "nextPlan": {"steps": [
                {"stage": 2, "module": "pump", "runtime": "docker", "action": "prepare", "reason": "its specification has changed"},
            ]},
        });

        let expected = "\
version 5 is made ready; version 4 goes on meanwhile
  pump: image `pump:2` is not available
nothing to do now

When all is ready, for version 5:
STAGE  TO DO    MODULE  RUNTIME  WHY
2      prepare  pump    docker   its specification has changed";
        assert_eq!(lines(&answer, None).join("\n"), expected);
    }

    #[test]
    fn every_phase_has_its_sentence() {
        for (rollout, word) in [
            (json!({"phase": "empty"}), "nothing was deployed"),
            (
                json!({"phase": "committed", "good": 1, "inForce": 1}),
                "version 1 is in force",
            ),
            (
                json!({"phase": "trial", "inForce": 2, "good": 1, "trialSince": "T"}),
                "goes back to version 1",
            ),
            (
                json!({"phase": "trial", "inForce": 2, "trialSince": "T"}),
                "none to go back to",
            ),
            (
                json!({"phase": "taken back", "good": 1, "takenBack": {"version": 2, "reasons": {"m": "it fell"}}}),
                "m: it fell",
            ),
        ] {
            let text = lines(&json!({"rollout": rollout, "plan": {"steps": []}}), None).join("\n");

            assert!(text.contains(word), "{text}");
        }
    }
}
