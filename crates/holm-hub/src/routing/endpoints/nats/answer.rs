//! What a JetStream answers to a publication.
//!
//! ```text
//! {"stream":"EVENTS","seq":7}                        stored        "duplicate":true where it had it before
//! {"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"}}
//! NATS/1.0 503\r\n\r\n                               nobody listens there: no stream covers the subject
//! ```

use serde::Deserialize;

/// The JetStream error of a message that is larger than the stream allows.
const MESSAGE_TOO_LARGE: u64 = 10_054;

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A stream has it.
    Stored,
    /// No stream takes it now.
    Refused(String),
    /// No stream ever takes it.
    RefusedForEver(String),
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    stream: String,
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl Answer {
    /// Reads a message that came to our inbox: its headers, if it has any, and its payload.
    pub(super) fn read(headers: &[u8], payload: &[u8]) -> Self {
        if headers.starts_with(b"NATS/1.0 503") {
            let why = "no stream covers the subject; make one, or correct `subject`";
            return Self::Refused(why.to_owned());
        }
        let Ok(document) = serde_json::from_slice::<Document>(payload) else {
            return Self::Refused(
                "the answer is not that of a JetStream; something else listens to the subject".to_owned(),
            );
        };
        match document.error {
            Some(failure) if failure.err_code == MESSAGE_TOO_LARGE => Self::RefusedForEver(failure.description),
            Some(failure) => Self::Refused(format!("the stream refuses it: {}", failure.description)),
            None if document.stream.is_empty() => {
                Self::Refused("the answer names no stream; something else listens to the subject".to_owned())
            }
            None => Self::Stored,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_names_its_stream_is_stored() {
        assert_eq!(Answer::read(b"", br#"{"stream":"S","seq":1}"#), Answer::Stored);
        assert_eq!(
            Answer::read(b"", br#"{"stream":"S","seq":1,"duplicate":true}"#),
            Answer::Stored
        );
        for (headers, payload) in [
            (&b"NATS/1.0 503\r\n\r\n"[..], &b""[..]),
            (b"", b""),
            (b"", b"{}"),
            (b"", b"hello"),
            (
                b"",
                br#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"}}"#,
            ),
        ] {
            assert!(matches!(Answer::read(headers, payload), Answer::Refused(_)));
        }
        let large = br#"{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"}}"#;
        assert!(matches!(Answer::read(b"", large), Answer::RefusedForEver(_)));
    }
}
