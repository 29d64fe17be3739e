//! Configurations for people.

use serde_json::Value;

use super::Of;
use crate::output;

/// A row for each, with the published figures.
pub(super) fn list(all: &[Value]) {
    let rows: Vec<_> = all
        .iter()
        .map(|it| {
            vec![
                text(it, "id"),
                it["priority"].to_string(),
                kind(it).to_owned(),
                figure(it, "targetedCount"),
                figure(it, "appliedCount"),
                figure(it, "reportedSuccessfulCount"),
                figure(it, "reportedFailedCount"),
                text(it, "targetCondition"),
            ]
        })
        .collect();
    output::table(
        &[
            "ID",
            "PRIORITY",
            "KIND",
            "TARGETED",
            "APPLIED",
            "SUCCESSFUL",
            "FAILED",
            "CONDITION",
        ],
        &rows,
    );
}

/// One, with its own figures too.
pub(super) fn one(it: &Value) {
    let line = |name: &str, value: &str| output::line(&format!("{name:<23} {value}"));
    line("id", &text(it, "id"));
    line("kind", kind(it));
    line("priority", &it["priority"].to_string());
    line("target condition", &text(it, "targetCondition"));
    line("created", &text(it, "createdTimeUtc"));
    line("last updated", &text(it, "lastUpdatedTimeUtc"));
    for (name, value) in it["labels"].as_object().into_iter().flatten() {
        line("label", &format!("{name}={}", value.as_str().unwrap_or_default()));
    }
    for metrics in ["systemMetrics", "metrics"] {
        for name in it[metrics]["queries"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name)
        {
            let count = it[metrics]["results"]
                .get(name)
                .map_or_else(|| "-".to_owned(), Value::to_string);
            line(name, &count);
        }
    }
}

/// What would change.
pub(super) fn plan(plan: &Value) {
    let examples = each(&plan["examples"]).next().map(|_| words(&plan["examples"]));
    output::line(&format!(
        "`{}` would be for {}, and in force on {}; {} would change{}",
        text(plan, "id"),
        plan["targeted"],
        plan["applied"],
        plan["changed"],
        examples.map_or_else(String::new, |examples| format!(", such as {examples}")),
    ));
    let groups = plan["groups"].as_array().map_or(&[][..], Vec::as_slice);
    if groups.is_empty() {
        return;
    }
    let rows: Vec<_> = groups
        .iter()
        .map(|group| {
            let changes = [("+", "added"), ("-", "removed"), ("~", "changed")];
            let changes = changes.into_iter().flat_map(|(sign, name)| {
                let items = group[name].as_array().into_iter().flatten();
                items.filter_map(move |item| Some(format!("{sign} {}", item.as_str()?)))
            });
            let mut changes: Vec<_> = changes.collect();
            if group["kept"] == true {
                changes = vec!["stays as it is; no deployment is for it any more".to_owned()];
            }
            vec![
                group["count"].to_string(),
                words(&group["from"]),
                words(&group["to"]),
                changes.join(", "),
            ]
        })
        .collect();
    output::table(&["COUNT", "FROM", "TO", "WHAT"], &rows);
    if plan["more"].as_u64().is_some_and(|more| more > 0) {
        output::note(&format!(
            "{} more change in other ways; `--json` shows the largest groups",
            plan["more"]
        ));
    }
}

/// Why one has what it has.
pub(super) fn explanation(of: Of, explained: &Value) {
    let parts = explained["parts"].as_array().map_or(&[][..], Vec::as_slice);
    if parts.is_empty() {
        output::note(&format!("no {} is for `{}`", of.noun(), text(explained, "deviceId")));
    }
    for part in parts {
        output::line(&format!("{}: {}", text(part, "content"), state(of, part)));
        let others = each(&part["notTargeted"]).next().map(|_| words(&part["notTargeted"]));
        let told_of_others = || {
            if let Some(others) = &others {
                output::line(&format!("not for it: {others}"));
            }
        };
        if each(&part["configurations"]).next().is_none() {
            told_of_others();
            continue;
        }
        let configurations: Vec<_> = each(&part["configurations"])
            .map(|it| {
                vec![
                    text(it, "id"),
                    it["priority"].to_string(),
                    text(it, "status"),
                    text(it, "reason"),
                ]
            })
            .collect();
        output::table(&["ID", "PRIORITY", "STATUS", "WHY"], &configurations);
        told_of_others();
        let items: Vec<_> = each(&part["items"]).map(item).collect();
        if !items.is_empty() {
            output::line("");
            output::table(&["WHAT", "FROM", "INSTEAD OF"], &items);
        }
    }
}

/// What has come of those that are for it.
fn state(of: Of, part: &Value) -> String {
    let mut all = each(&part["configurations"]).peekable();
    match (part["inForce"] == true, part["problem"].as_str()) {
        (true, _) if all.peek().is_none() => format!("no {} is for it", of.noun()),
        (true, _) if all.all(|it| it["layer"] == true) => {
            "the device stays as it is: a layer changes a base deployment and does nothing alone, and none is for this device; `holm \
             deployment create` with a whole manifest makes one"
                .to_owned()
        }
        (true, _) => "what follows is in force".to_owned(),
        (false, Some(problem)) => format!("what follows is not in force: {problem}"),
        (false, None) => "what follows is not in force yet".to_owned(),
    }
}

fn item(item: &Value) -> Vec<String> {
    let said = |claim: &Value| {
        let mut said = text(claim, "configuration");
        if let Some(detail) = claim["detail"].as_str() {
            said = format!("{said} ({detail})");
        }
        if claim["removes"] == true {
            said = format!("{said} (removed)");
        }
        said
    };
    let of = |verdict: &str| {
        let claims = each(&item["claims"]).filter(|claim| claim["verdict"] == verdict);
        claims.map(said).collect::<Vec<_>>().join(", ")
    };
    vec![text(item, "item"), of("in force"), of("replaced")]
}

fn each(array: &Value) -> impl Iterator<Item = &Value> {
    array.as_array().into_iter().flatten()
}

fn words(array: &Value) -> String {
    let words: Vec<_> = each(array).filter_map(Value::as_str).collect();
    if words.is_empty() {
        "-".to_owned()
    } else {
        words.join(", ")
    }
}

fn text(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap_or_default().to_owned()
}

fn figure(it: &Value, name: &str) -> String {
    it["systemMetrics"]["results"]
        .get(name)
        .map_or_else(|| "-".to_owned(), Value::to_string)
}

fn kind(it: &Value) -> &'static str {
    let content = &it["content"];
    let agent = &content["modulesContent"]["$edgeAgent"];
    if agent.is_object() && agent.get("properties.desired").is_none() {
        "layer"
    } else if agent.is_object() {
        "base"
    } else if content["deviceContent"].is_object() {
        "device"
    } else {
        "module"
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_layer_without_a_base_is_told_to_do_nothing_alone() {
        let part = |configurations: Value, is_in_force: bool| json!({"content": "modulesContent", "inForce": is_in_force, "problem": null, "configurations": configurations});
        let layer = json!({"id": "extra", "layer": true});
        let base = json!({"id": "v1", "layer": false});

        let told = [json!([layer]), json!([layer, base]), json!([])].map(|all| state(Of::Edges, &part(all, true)));

        assert!(
            told[0].starts_with("the device stays as it is: a layer") && told[0].contains("holm deployment"),
            "{}",
            told[0]
        );
        assert_eq!(told[1..], ["what follows is in force", "no deployment is for it"]);
        assert_eq!(
            state(Of::Edges, &part(json!([layer]), false)),
            "what follows is not in force yet"
        );
    }
}
