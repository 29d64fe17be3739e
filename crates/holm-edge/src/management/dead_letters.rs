//! `/holm/v1/dead-letters`, which is ours: messages that came to their end elsewhere than at their destination.
//!
//! | call | answer |
//! | --- | --- |
//! | `GET …?from=&most=` | `{"deadLetters":[…],"next":n}`, oldest first |
//! | `GET …/{id}` | one, with its message |
//! | `POST …/{id}/resend`, `POST …/resend` | `{"resent":n,"failed":[{"id","message"}]}` |
//! | `DELETE …` | `{"purged":n}` |

use holm_net::error_chain;
use holm_net::http::ResponseBody;
use hyper::{Method, Response, StatusCode};
use serde_json::json;

use crate::broker::{Broker, DeadLetterError};
use crate::local_api::answer::ok;
use crate::local_api::{Call, Failure};

/// Letters of one answer when the caller does not say.
const DEFAULT_MOST: u64 = 100;

pub(super) async fn answer(broker: &Broker, call: &Call, rest: &[&str]) -> Result<Response<ResponseBody>, Failure> {
    match (&call.method, rest) {
        (&Method::GET, []) => {
            let (from, most) = (number(call, "from", 0)?, number(call, "most", DEFAULT_MOST)?);
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            Ok(ok(&broker
                .list_dead_letters(from, most)
                .map_err(|error| failure(&error))?))
        }
        (&Method::GET, [id]) => {
            let letter = broker.dead_letter(read_id(id)?).map_err(|error| failure(&error))?;
            Ok(ok(&letter.show()))
        }
        (&Method::POST, ["resend"]) => {
            let answer = broker.resend_dead_letters().await;
            Ok(ok(&answer.map_err(|error| failure(&error))?))
        }
        (&Method::POST, [id, "resend"]) => {
            let resent = broker.resend_dead_letter(read_id(id)?).await;
            resent.map_err(|error| failure(&error))?;
            Ok(ok(&json!({"resent": 1, "failed": []})))
        }
        (&Method::DELETE, []) => {
            let purged = broker.purge_dead_letters().await.map_err(|error| failure(&error))?;
            Ok(ok(&json!({ "purged": purged })))
        }
        (method, _) => Err(Failure::not_found(format!(
            "the management API has no {method} `/{}`",
            call.path.join("/")
        ))),
    }
}

fn read_id(text: &str) -> Result<u64, Failure> {
    let invalid = |_| Failure::bad_request(format!("`{text}` is no number of a dead letter; give one of the list"));
    text.parse().map_err(invalid)
}

fn number(call: &Call, name: &str, default: u64) -> Result<u64, Failure> {
    match call.parameter(name) {
        None | Some("") => Ok(default),
        Some(text) => text
            .parse()
            .map_err(|_| Failure::bad_request(format!("`{name}` is `{text}`; give a whole number"))),
    }
}

fn failure(error: &DeadLetterError) -> Failure {
    let status = match error {
        DeadLetterError::NotFound(_) => StatusCode::NOT_FOUND,
        DeadLetterError::Undecodable(_) => StatusCode::CONFLICT,
        DeadLetterError::Lane { .. } | DeadLetterError::Append { .. } => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Failure::new(status, error_chain(error))
}
