//! Tells a template of a deployment from a deployment.
//!
//! Development tools (`iotedgedev`, the editors' extensions) keep a `deployment.template.json` beside the source of the modules
//! and make the deployment from it: they put the image that they built for `${MODULES.name}` and a variable's value for
//! `$NAME` and `${NAME}`. Holm builds nothing and fills in nothing. A template without placeholders is a deployment; one
//! with them is refused here, where its author can do something about it: on the device it would be images that nobody has.

use anyhow::bail;
use serde_json::Value;

/// So many placeholders are named.
const NAMED: usize = 8;

#[derive(Debug, PartialEq, Eq)]
struct Placeholder {
    text: String,
    path: String,
}

/// Refuses what still has placeholders, with their names and places.
pub(super) fn refuse(manifest: &Value) -> anyhow::Result<()> {
    let mut found = Vec::new();
    collect(manifest, "", &mut found);
    let is_template = manifest.get("$schema-template").is_some() || found.iter().any(Placeholder::gives_away);
    if !is_template || found.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = found
        .iter()
        .take(NAMED)
        .map(|placeholder| format!("`{}` in `{}`", placeholder.text, placeholder.path))
        .collect();
    let more = match found.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    bail!(
        "it is a template, with placeholders that nobody has filled in: {}{more}; make the deployment with the tool that the \
         template is for, such as `iotedgedev genconfig`, or write the values in",
        named.join(", ")
    )
}

impl Placeholder {
    /// Whether it stands where no deployment has anything like it. Elsewhere, as in a module's command line, it may be meant.
    fn gives_away(&self) -> bool {
        (self.path.ends_with(".image") && self.text.starts_with("${")) || self.path.contains("registryCredentials")
    }
}

fn collect(value: &Value, path: &str, found: &mut Vec<Placeholder>) {
    let within = |text: &str, path: &str| {
        let path = path.to_owned();
        let placed = move |text| Placeholder {
            text,
            path: path.clone(),
        };
        placeholders(text).into_iter().map(placed)
    };
    match value {
        Value::String(text) => found.extend(within(text, path)),
        Value::Array(items) => items.iter().for_each(|item| collect(item, path, found)),
        Value::Object(members) => {
            for (name, member) in members {
                let inner = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                found.extend(within(name, &inner));
                collect(member, &inner, found);
            }
        }
        _ => {}
    }
}

/// `${name}`, and `$NAME` in capitals, which `$upstream` and `$edgeHub` are not.
fn placeholders(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, behind)) = rest.split_once('$') {
        rest = behind;
        if let Some((name, _)) = behind.strip_prefix('{').and_then(|behind| behind.split_once('}')) {
            let is_name = |c: char| c.is_ascii_alphanumeric() || "_.-<>".contains(c);
            if !name.is_empty() && name.chars().all(is_name) {
                found.push(format!("${{{name}}}"));
            }
        } else if behind.starts_with(|c: char| c.is_ascii_uppercase()) {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let name: String = behind.chars().take_while(|c| is_name(*c)).collect();
            if name.len() > 2 {
                found.push(format!("${name}"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn placeholders_of_a_template_are_named_with_their_places() {
        let template = json!({"$schema-template": "4.0.0", "modulesContent": {
            "$edgeAgent": {"properties.desired": {
                "modules": {"m": {"settings": {"image": "${MODULES.m}"}}},
                "runtime": {"settings": {"registryCredentials": {"$USER_x": {"password": "$PASSWORD_x"}}}},
            }},
            "$edgeHub": {"properties.desired": {"routes": {"r": "FROM /* INTO $upstream"}}},
            "m": {"properties.desired": {"path": "/data/$FOLDER/${SUB-FOLDER}"}},
        }});

        let said = refuse(&template).unwrap_err().to_string();

        for part in [
            "`${MODULES.m}` in `modulesContent.$edgeAgent.properties.desired.modules.m.settings.image`",
            "`$USER_x` in ",
            "`$PASSWORD_x` in ",
            "`$FOLDER` in `modulesContent.m.properties.desired.path`",
            "`${SUB-FOLDER}` in ",
            "iotedgedev genconfig",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
        assert!(!said.contains("upstream") && !said.contains("more"), "{said}");
    }

    #[test]
    fn a_template_is_known_by_its_placeholders_too() {
        let image = json!({"modulesContent": {"$edgeAgent": {"properties.desired.modules.m": {"settings": {"image": "${I}"}}}}});
        let credentials = json!({"registryCredentials": {"r": {"username": "$CONTAINER_USER"}}});
        let many: Vec<_> = (0..20)
            .map(|number| json!({"image": format!("${{M{number}}}")}))
            .collect();
        let many = json!({"a": {"image": "${X}"}, "$schema-template": 1, "list": many});

        assert!(refuse(&image).is_err());
        assert!(refuse(&credentials).is_err());
        assert!(refuse(&many).unwrap_err().to_string().contains(" and 13 more; "));
    }

    #[test]
    fn a_deployment_may_hold_what_looks_like_a_placeholder_and_a_template_none() {
        for manifest in [
            json!({"createOptions": {"Cmd": ["sh", "-c", "echo $HOME ${PATH}"]}, "image": "$upstream:443/a"}),
            json!({"$schema-template": "2.0.0", "modulesContent": {"$edgeHub": {"routes": {"r": "INTO $upstream"}}}}),
            json!({"registryCredentials": {"r": {"password": "a$b${}$$9"}}}),
        ] {
            assert!(refuse(&manifest).is_ok(), "{manifest}");
        }
    }
}
