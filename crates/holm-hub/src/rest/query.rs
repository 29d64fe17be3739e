//! `POST /devices/query`: a page of results, with how it goes on in headers.
//!
//! `x-ms-item-type` stands on every answer, because C# fails without it; `x-ms-continuation` only where there is more, because
//! Node goes on for as long as it is there. Source: `hub-service-api.md` §2.7.

use holm_model::ServiceError;
use hyper::Method;
use hyper::header::HeaderValue;
use serde::Deserialize;
use serde_json::Value;

use super::answer::{self, Answer, Failure};
use super::{Call, RestApi, not_allowed, read};
use crate::queries::{MAX_ITEMS, Page, PageRequest};

#[derive(Deserialize)]
struct Body {
    query: Option<String>,
}

impl RestApi {
    pub(super) async fn query(&self, call: Call) -> Result<Answer, Failure> {
        if call.method != Method::POST {
            return Err(not_allowed(&call, "POST"));
        }
        let text = read::<Body>(&call)?.query.ok_or_else(|| {
            ServiceError::argument_invalid("`query` is missing; send `{\"query\": \"SELECT * FROM devices\"}`")
        })?;
        let request = PageRequest {
            text,
            most: items(&call)?,
            continuation: continuation(&call),
        };
        Ok(shown(self.queries.page(request).await?))
    }
}

/// How many results a page may have: more than fit are as many as fit. Source: `hub-service-api.md` §2.7.
pub(super) fn items(call: &Call) -> Result<Option<usize>, ServiceError> {
    match call.header("x-ms-max-item-count").map(str::trim) {
        None | Some("") => Ok(None),
        // Some clients say so that they do not mind.
        Some("-1") => Ok(None),
        Some(text) => match text.parse::<u64>() {
            Ok(count) if count > 0 => Ok(Some(usize::try_from(count).unwrap_or(MAX_ITEMS))),
            _ => Err(ServiceError::argument_invalid(format!(
                "the header `x-ms-max-item-count` is `{text}`; give 1 to {MAX_ITEMS}"
            ))),
        },
    }
}

/// Where to go on. An empty header is none: some clients send it with the first page.
pub(super) fn continuation(call: &Call) -> Option<String> {
    call.header("x-ms-continuation")
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

/// The answer that a page is.
pub(super) fn shown(page: Page) -> Answer {
    let mut answer = answer::json(&Value::Array(page.items));
    let headers = answer.headers_mut();
    headers.insert("x-ms-item-type", HeaderValue::from_static(page.item_type));
    let next = page.continuation.and_then(|next| HeaderValue::from_str(&next).ok());
    if let Some(next) = next {
        headers.insert("x-ms-continuation", next);
    }
    answer
}
