//! The direct methods of `$edgeAgent`. Names are compared without case.
//!
//! Source: `edge-agent.md` §2.6.

use holm_model::ModuleId;
use holm_model::method::MethodResponse;
use serde_json::{Value, json};

/// The methods that there are.
const METHODS: [&str; 2] = ["ping", "RestartModule"];

/// What a call asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Whether the agent is there.
    Ping,
    /// Stop a module and start it again; it is not counted.
    RestartModule(ModuleId),
}

/// Reads a call.
///
/// # Errors
/// The answer to give: 400 with what is wrong.
pub(super) fn read(name: &str, payload: &Value) -> Result<Call, MethodResponse> {
    if name.eq_ignore_ascii_case("ping") {
        return Ok(Call::Ping);
    }
    if !name.eq_ignore_ascii_case("RestartModule") {
        let known = METHODS.join(", ");
        let text = format!("Command '{name}' not found. The supported commands are - {known}");
        return Err(refusal(400, text));
    }
    let version = payload.get("schemaVersion").and_then(Value::as_str).unwrap_or_default();
    if version.split('.').next() != Some("1") {
        let text = format!("`schemaVersion` is `{version}`; give `1.0`");
        return Err(refusal(400, text));
    }
    let id = payload.get("id").and_then(Value::as_str).unwrap_or_default();
    let id = ModuleId::new(id).map_err(|error| refusal(400, format!("`id` names no module: {error}")))?;
    Ok(Call::RestartModule(id))
}

/// An answer that says why not.
#[must_use]
pub(super) fn refusal(status: i32, message: impl Into<String>) -> MethodResponse {
    MethodResponse {
        status,
        payload: json!({"message": message.into()}),
    }
}

/// The answer to a call that was carried out.
#[must_use]
pub(super) const fn done() -> MethodResponse {
    MethodResponse {
        status: 200,
        payload: Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_without_case() {
        assert_eq!(read("PING", &json!(1)), Ok(Call::Ping));
        let call = read("restartmodule", &json!({"schemaVersion": "1.0", "id": "m"}));
        assert_eq!(call, Ok(Call::RestartModule(ModuleId::new("m").unwrap())));
    }

    #[test]
    fn what_is_wrong_is_400_and_named() {
        let message = |name: &str, payload: Value| {
            let response = read(name, &payload).unwrap_err();
            assert_eq!(response.status, 400);
            response.payload["message"].as_str().unwrap().to_owned()
        };

        assert_eq!(
            message("Nap", json!(null)),
            "Command 'Nap' not found. The supported commands are - ping, RestartModule"
        );
        assert!(message("RestartModule", json!({"schemaVersion": "2.0", "id": "m"})).contains("`schemaVersion`"));
        assert!(message("RestartModule", json!({"schemaVersion": "1.0"})).contains("`id`"));
    }
}
