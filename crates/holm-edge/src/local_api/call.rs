//! A request, read as far as every call has in common.

use bytes::Bytes;
use holm_model::wire::percent;
use holm_net::http::{BodyError, body};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde::de::DeserializeOwned;

use super::Failure;

/// The published versions. All of them are answered alike: later ones only added calls.
const VERSIONS: [&str; 7] = [
    "2018-06-28",
    "2019-01-30",
    "2019-10-22",
    "2019-11-05",
    "2020-07-07",
    "2021-12-07",
    "2022-08-03",
];
/// The largest body: data to sign or to encrypt, as base64.
const MAX_BODY: usize = 8 * 1024 * 1024;

/// A call.
#[derive(Debug)]
pub struct Call {
    /// The verb.
    pub method: Method,
    /// The segments of the path, decoded.
    pub path: Vec<String>,
    query: Vec<(String, String)>,
    body: Bytes,
}

impl Call {
    /// Reads a request: its path, its query with the compulsory `api-version`, its body.
    ///
    /// # Errors
    /// 400 for the version, 408 for a body that does not come, 413 for one that is too large.
    pub async fn read(request: Request<Incoming>) -> Result<Self, Failure> {
        let (head, incoming) = request.into_parts();
        let path = head.uri.path().split('/').filter(|segment| !segment.is_empty());
        let call = Self {
            method: head.method,
            path: path.map(|segment| percent::decode(segment).into_owned()).collect(),
            query: pairs(head.uri.query().unwrap_or_default()),
            body: body::read_request(incoming, MAX_BODY).await.map_err(|error| {
                let status = match &error {
                    BodyError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
                    BodyError::TimedOut => StatusCode::REQUEST_TIMEOUT,
                    BodyError::Broken(_) => StatusCode::BAD_REQUEST,
                };
                Failure::new(status, error.to_string())
            })?,
        };
        match call.parameter("api-version") {
            None => Err(Failure::bad_request("api-version not specified")),
            Some(version) if VERSIONS.contains(&version) => Ok(call),
            Some(version) => {
                let known = VERSIONS.join(", ");
                Err(Failure::bad_request(format!(
                    "the api-version `{version}` is not known; give one of {known}"
                )))
            }
        }
    }

    /// The segments of the path, to match on.
    #[must_use]
    pub fn segments(&self) -> Vec<&str> {
        self.path.iter().map(String::as_str).collect()
    }

    /// A parameter of the query.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON. Its content type is not looked at: the Python SDK gives none.
    ///
    /// # Errors
    /// 422 with what is wrong.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Failure::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("the body is not what this call takes: {error}"),
            )
        })
    }
}

fn pairs(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (percent::decode(name).into_owned(), percent::decode(value).into_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_pair_by_pair() {
        let read = pairs("api-version=2018-06-28&since=1%20day&follow");

        let expected = [("api-version", "2018-06-28"), ("since", "1 day"), ("follow", "")];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
