//! The direct methods of `$edgeAgent`. Names are compared without case.
//!
//! Source: `edge-agent.md` §2.6.

use holm_model::ModuleId;
use holm_model::method::MethodResponse;
use holm_net::error_chain;
use serde_json::{Value, json};

use super::figures::Method;
use super::logs::LogsError;

/// The methods that there are.
const METHODS: [&str; 6] = [
    "ping",
    "RestartModule",
    "GetModuleLogs",
    "UploadModuleLogs",
    "UploadSupportBundle",
    "GetTaskStatus",
];

/// What a call asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Whether the agent is there.
    Ping,
    /// Stop a module and start it again; it is not counted.
    RestartModule(ModuleId),
    /// Lines of modules' logs in the answer.
    GetModuleLogs,
    /// The same into a store.
    UploadModuleLogs,
    /// Everything that helps to find a fault, into a store.
    UploadSupportBundle,
    /// How an upload stands.
    GetTaskStatus,
}

impl Call {
    /// As what it is counted.
    pub(super) const fn figure(&self) -> Method {
        match self {
            Self::Ping => Method::Ping,
            Self::RestartModule(_) => Method::RestartModule,
            Self::GetModuleLogs => Method::GetModuleLogs,
            Self::UploadModuleLogs => Method::UploadModuleLogs,
            Self::UploadSupportBundle => Method::UploadSupportBundle,
            Self::GetTaskStatus => Method::GetTaskStatus,
        }
    }
}

/// Reads a call.
///
/// # Errors
/// The answer to give: 400 with what is wrong.
pub(super) fn read(name: &str, payload: &Value) -> Result<Call, MethodResponse> {
    let known = METHODS.iter().find(|known| known.eq_ignore_ascii_case(name)).copied();
    let Some(method) = known else {
        let known = METHODS.join(", ");
        let text = format!("Command '{name}' not found. The supported commands are - {known}");
        return Err(refusal(400, text));
    };
    if method == "ping" {
        return Ok(Call::Ping);
    }
    let version = payload.get("schemaVersion").and_then(Value::as_str).unwrap_or_default();
    if version.split('.').next() != Some("1") {
        let text = format!("`schemaVersion` is `{version}`; give `1.0`");
        return Err(refusal(400, text));
    }
    match method {
        "GetModuleLogs" => Ok(Call::GetModuleLogs),
        "UploadModuleLogs" => Ok(Call::UploadModuleLogs),
        "UploadSupportBundle" => Ok(Call::UploadSupportBundle),
        "GetTaskStatus" => Ok(Call::GetTaskStatus),
        _ => restart(payload),
    }
}

fn restart(payload: &Value) -> Result<Call, MethodResponse> {
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

/// The answer to a call about logs.
#[must_use]
pub(super) fn of_logs(outcome: Result<Value, LogsError>) -> MethodResponse {
    match outcome {
        Ok(payload) => MethodResponse { status: 200, payload },
        Err(error @ LogsError::BadRequest(_)) => refusal(400, error_chain(&error)),
        Err(error) => refusal(500, error_chain(&error)),
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
            "Command 'Nap' not found. The supported commands are - ping, RestartModule, GetModuleLogs, UploadModuleLogs, \
             UploadSupportBundle, GetTaskStatus"
        );
        assert!(message("RestartModule", json!({"schemaVersion": "2.0", "id": "m"})).contains("`schemaVersion`"));
        assert!(message("RestartModule", json!({"schemaVersion": "1.0"})).contains("`id`"));
    }
}
