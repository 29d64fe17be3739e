//! Create options in a form that a twin holds.
//!
//! ```text
//! "createOptions": {"Labels": {"com.example.maker": "x"}}  -->  "createOptions": "{\"Labels\":…", "createOptions01": "…
//! "createOptions": "{…more than 4 KiB…}"                   -->  the same
//! ```
//!
//! A twin's names hold no dot and its texts are short. The tools that make deployments from templates therefore write every
//! object as a text in pieces; here that is done where it is needed, and all else stays as its author wrote it.

use holm_model::manifest::create_options_chunks;
use holm_model::twin::rules::{self, Limit, MAX_STRING_BYTES};
use serde_json::{Map, Value, json};

const NAME: &str = "createOptions";

/// Cuts the create options of a manifest's modules that no twin holds.
pub(super) fn fit(modules: &mut Value) {
    if let Some(agent) = modules.get_mut("$edgeAgent") {
        fit_within(agent);
    }
}

fn fit_within(value: &mut Value) {
    let Value::Object(members) = value else { return };
    for (name, member) in members {
        match member {
            Value::Object(settings) if name.eq_ignore_ascii_case("settings") => fit_settings(settings),
            other => fit_within(other),
        }
    }
}

fn fit_settings(settings: &mut Map<String, Value>) {
    let is_piece = |name: &str| {
        name.get(..NAME.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(NAME))
    };
    let mut pieces = settings.keys().filter(|name| is_piece(name));
    let (Some(name), None) = (pieces.next().cloned(), pieces.next()) else {
        return;
    };
    if name.len() != NAME.len() {
        return;
    }
    let Some(options) = settings.get(&name).and_then(too_much_for_a_twin) else {
        return;
    };
    settings.remove(&name);
    settings.extend(
        create_options_chunks(&options)
            .into_iter()
            .map(|(name, text)| (name, text.into())),
    );
}

/// The options, if no twin holds them as they are. What is no JSON is left to whoever reads it.
fn too_much_for_a_twin(value: &Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(options) => {
            let placed = json!({"modules": {"m": {"settings": {NAME: value}}}});
            let fits = rules::check(placed.as_object()?, Limit::Desired).is_ok();
            (!fits).then(|| options.clone())
        }
        Value::String(text) if text.len() > MAX_STRING_BYTES => serde_json::from_str(text).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings_after(create_options: Value) -> Map<String, Value> {
        let mut modules = json!({"$edgeAgent": {"properties.desired.modules.m": {
            "settings": {"image": "a:1", "CreateOptions": create_options}}}});
        fit(&mut modules);
        modules["$edgeAgent"]["properties.desired.modules.m"]["settings"]
            .as_object()
            .unwrap()
            .clone()
    }

    fn joined(settings: &Map<String, Value>) -> Value {
        let pieces = settings.iter().filter(|(name, _)| name.starts_with(NAME));
        let text: String = pieces.filter_map(|(_, piece)| piece.as_str()).collect();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn what_a_twin_holds_stays_as_it_is() {
        for options in [json!({"Env": ["A=1"]}), json!("{'Env': []}"), json!(""), json!(null)] {
            assert_eq!(settings_after(options.clone())["CreateOptions"], options);
        }
    }

    #[test]
    fn what_no_twin_holds_is_cut_into_pieces() {
        let dotted = json!({"Labels": {"com.example.maker": "x".repeat(600)}});
        let long = json!({"Env": [format!("A={}", "x".repeat(5000))]});

        let (of_object, of_text) = (settings_after(dotted.clone()), settings_after(long.to_string().into()));

        assert_eq!((of_object.len(), joined(&of_object)), (3, dotted));
        assert_eq!((of_text.len(), joined(&of_text)), (11, long));
    }
}
