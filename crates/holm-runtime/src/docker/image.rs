//! Making an image present.
//!
//! ```text
//!   pull policy `never`                    it must be present
//!   named by its digest and present        it is what was meant: the registry is not asked
//!   else ask the registry ── has it ─────> pulled
//!                         ├─ no answer ──> an image that is present is used, with a note
//!                         ├─ refuses ────> an image that never came from a registry is used, with a note; else an error
//! ```
//!
//! So a device that is cut off restarts from what it has, and an image that was loaded by hand works; but credentials that
//! have been withdrawn, or a tag that has been taken back, do not go unnoticed.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::engine::{Answer, Call, Engine, encode};
use crate::error::RuntimeError;
use crate::runtime::Prepared;
use crate::spec::{ModuleSpec, PullPolicy, RegistryAuth};

/// How long a pull may make no progress. Large layers on slow links report progress all the time.
const STALLED: Duration = Duration::from_secs(300);

/// The longest line of the engine's progress report.
const LONGEST_LINE: usize = 1024 * 1024;

/// What a registry, or the engine for it, answers when it is there and refuses. Anything else means that it was not reached.
const REFUSALS: [&str; 10] = [
    "pull access denied",
    "unauthorized",
    "authentication required",
    "no basic auth credentials",
    "access to the resource is denied",
    "manifest unknown",
    "repository does not exist",
    "invalid reference format",
    "no matching manifest",
    "not found: manifest",
];

/// Makes the image of a module present.
pub(super) async fn prepare(engine: &Engine, spec: &ModuleSpec) -> Result<Prepared, RuntimeError> {
    let image = spec.image.as_str();
    let unavailable = |reason: String| RuntimeError::Image {
        image: image.to_owned(),
        reason,
    };
    let present = inspect(engine, image).await?;
    match (&present, spec.pull_policy) {
        (Some(_), PullPolicy::Never) => return Ok(Prepared::default()),
        (None, PullPolicy::Never) => {
            let reason = "it is not present, and `imagePullPolicy` is `never`; load it, or let it be pulled";
            return Err(unavailable(reason.to_owned()));
        }
        (Some(_), PullPolicy::OnCreate) if image.contains("@sha256:") => return Ok(Prepared::default()),
        (_, PullPolicy::OnCreate) => {}
    }
    let Some(reason) = pull(engine, image, spec.registry_auth.as_ref()).await? else {
        return Ok(Prepared::default());
    };
    let refused = is_refusal(&reason);
    match present {
        None => Err(unavailable(reason)),
        Some(present) if refused && present.from_registry => Err(unavailable(format!(
            "its registry refuses it: {reason}; the one that is present is not used, because it came from there"
        ))),
        Some(_) => {
            let why = if refused {
                "no registry has it"
            } else {
                "its registry cannot be reached"
            };
            let note = format!("image `{image}` is used as it is present, because {why}: {reason}");
            Ok(Prepared { note: Some(note) })
        }
    }
}

struct Present {
    /// Whether it was ever pulled or pushed; an image that was built or loaded here was not.
    from_registry: bool,
}

async fn inspect(engine: &Engine, image: &str) -> Result<Option<Present>, RuntimeError> {
    let path = format!(
        "/images/{}/json",
        image.split('/').map(encode_reference).collect::<Vec<_>>().join("/")
    );
    match engine
        .json(&Call::get(format!("tell of the image `{image}`"), path))
        .await
    {
        Ok(found) => {
            let digests = found.get("RepoDigests").and_then(Value::as_array);
            Ok(Some(Present {
                from_registry: digests.is_some_and(|digests| !digests.is_empty()),
            }))
        }
        Err(RuntimeError::Engine { status: 404, .. }) => Ok(None),
        Err(RuntimeError::Engine { message, .. }) => Err(RuntimeError::Image {
            image: image.to_owned(),
            reason: message,
        }),
        Err(error) => Err(error),
    }
}

fn encode_reference(part: &str) -> String {
    encode(part).replace("%3A", ":").replace("%40", "@")
}

/// Pulls an image; the reason why it could not be, if so.
async fn pull(engine: &Engine, image: &str, auth: Option<&RegistryAuth>) -> Result<Option<String>, RuntimeError> {
    let (name, tag) = split(image);
    let path = format!("/images/create?fromImage={}&tag={}", encode(name), encode(tag));
    let mut call = Call::post(format!("pull the image `{image}`"), path);
    call.registry_auth = Some(auth_header(auth));
    call.patience = STALLED;
    match engine.send(&call).await {
        Ok(answer) => Ok(follow(answer).await),
        Err(RuntimeError::Engine { message, .. }) => Ok(Some(message)),
        Err(error @ RuntimeError::Timeout { .. }) => Ok(Some(error.to_string())),
        Err(error) => Err(error),
    }
}

/// Reads the engine's report to its end. Errors arrive in it, after a status that says success.
async fn follow(mut answer: Answer) -> Option<String> {
    let mut line = Vec::new();
    let mut failure = None;
    loop {
        let chunk = match timeout(STALLED, answer.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return failure.or_else(|| error_in(&line)),
            Ok(Err(error)) => return Some(format!("the engine broke off: {error}")),
            Err(_) => return Some(format!("nothing was received for {} s", STALLED.as_secs())),
        };
        for byte in chunk {
            if byte == b'\n' {
                failure = failure.or_else(|| error_in(&line));
                line.clear();
            } else if line.len() < LONGEST_LINE {
                line.push(byte);
            }
        }
    }
}

fn error_in(line: &[u8]) -> Option<String> {
    let report: Value = serde_json::from_slice(line).ok()?;
    let message = report.pointer("/errorDetail/message").or_else(|| report.get("error"))?;
    Some(message.as_str()?.to_owned())
}

fn is_refusal(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    REFUSALS.iter().any(|refusal| reason.contains(refusal))
        || (reason.contains("manifest for") && reason.contains("not found"))
}

/// Name and tag or digest. Without either it is `latest`; a colon before a slash belongs to a port.
fn split(image: &str) -> (&str, &str) {
    if let Some((name, digest)) = image.split_once('@') {
        return (name, digest);
    }
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, "latest"),
    }
}

fn auth_header(auth: Option<&RegistryAuth>) -> String {
    let content = auth.map_or_else(
        || json!({}),
        |auth| json!({"username": auth.username, "password": auth.password, "serveraddress": auth.server_address}),
    );
    URL_SAFE.encode(content.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_split_at_the_tag_and_not_at_the_port() {
        assert_eq!(split("pump"), ("pump", "latest"));
        assert_eq!(split("vendor/pump:1.2"), ("vendor/pump", "1.2"));
        assert_eq!(split("host:5000/pump"), ("host:5000/pump", "latest"));
        assert_eq!(split("host:5000/pump:7"), ("host:5000/pump", "7"));
        assert_eq!(split("pump@sha256:ab"), ("pump", "sha256:ab"));
    }

    #[test]
    fn refusals_are_told_from_silence() {
        let refusals = [
            "pull access denied for pump, repository does not exist or may require 'docker login'",
            "Get \"https://h/v2/\": unauthorized: authentication required",
            "manifest for h:5000/pump:9 not found: manifest unknown: manifest unknown",
        ];
        let silences = [
            "Get \"https://h/v2/\": dial tcp: lookup h: no such host",
            "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
            "net/http: request canceled while waiting for connection",
            "received unexpected HTTP status: 503 Service Unavailable",
            "toomanyrequests: You have reached your pull rate limit",
            "no answer to `pull` within 300 s",
        ];
        for reason in refusals {
            assert!(is_refusal(reason), "{reason}");
        }
        for reason in silences {
            assert!(!is_refusal(reason), "{reason}");
        }
    }

    #[test]
    fn errors_are_found_in_the_report() {
        assert_eq!(
            error_in(br#"{"errorDetail":{"message":"m"},"error":"e"}"#).as_deref(),
            Some("m")
        );
        assert_eq!(error_in(br#"{"error":"e"}"#).as_deref(), Some("e"));
        assert_eq!(error_in(br#"{"status":"Downloading"}"#), None);
        assert_eq!(error_in(b"half"), None);
    }
}
