//! What an edge and a supervisor say to each other: JSON lines over the supervisor's socket, one answer to each request.
//!
//! ```text
//!   {"v":1,"op":"status"}                        at once    {"v":1,"state":{…}}
//!   {"v":1,"op":"stop","grace_millis":10000}     when the program has ended
//!   {"v":1,"op":"kill"}                          when the program has ended
//!   anything else                                at once    {"v":1,"error":"…"}
//! ```
//!
//! Edge and supervisor may be of different releases, since an edge that is upgraded leaves its modules running. So the first
//! field is the version, and version 1 is spoken by every later release.

use serde::{Deserialize, Serialize};

use crate::process::record::RunState;

/// The version that is spoken here.
pub(crate) const VERSION: u32 = 1;

/// The longest line of either side, in bytes; a longer one ends the connection.
pub(crate) const LONGEST_LINE: usize = 4096;

/// A line from the edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) v: u32,
    #[serde(flatten)]
    pub(crate) operation: Operation,
}

/// What the edge asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(crate) enum Operation {
    /// Who runs.
    Status,
    /// Send the stop signal; after the grace, SIGKILL. The plan's own grace if none is given.
    Stop { grace_millis: Option<u64> },
    /// Send SIGKILL.
    Kill,
}

/// A line from the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) v: u32,
    #[serde(flatten)]
    pub(crate) content: Content,
}

/// What the supervisor answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Content {
    /// Who runs, or how it ended.
    State(Box<RunState>),
    /// Why the request cannot be served.
    Error(String),
}

impl Answer {
    pub(crate) const fn new(content: Content) -> Self {
        Self { v: VERSION, content }
    }

    /// The answer as a line. Serialising these types cannot fail.
    pub(crate) fn line(&self) -> String {
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }
}

/// Reads a request.
///
/// # Errors
/// The answer to a request that is not one.
pub(crate) fn parse(line: &[u8]) -> Result<Operation, Answer> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let refuse = |reason: String| Answer::new(Content::Error(reason));
    match serde_json::from_slice::<Version>(line) {
        Ok(Version { v: VERSION }) => {}
        Ok(Version { v }) => {
            return Err(refuse(format!(
                "version {v} was asked for, this supervisor speaks version {VERSION}"
            )));
        }
        Err(error) => return Err(refuse(format!("the request is not a JSON object with `v`: {error}"))),
    }
    let request = serde_json::from_slice::<Request>(line);
    request
        .map(|request| request.operation)
        .map_err(|error| refuse(format!("the request is not known: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_documented() {
        assert_eq!(parse(br#"{"v":1,"op":"status"}"#), Ok(Operation::Status));
        assert_eq!(parse(br#"{"v":1,"op":"kill"}"#), Ok(Operation::Kill));
        assert_eq!(
            parse(br#"{"v":1,"op":"stop","grace_millis":10}"#),
            Ok(Operation::Stop { grace_millis: Some(10) })
        );
    }

    #[test]
    fn another_version_is_refused_with_both_numbers() {
        let Content::Error(reason) = parse(br#"{"v":2,"op":"dance"}"#).unwrap_err().content else {
            panic!("version 2 was understood");
        };
        assert_eq!(reason, "version 2 was asked for, this supervisor speaks version 1");
    }

    #[test]
    fn nonsense_is_answered_and_not_obeyed() {
        for line in [
            "",
            "{}",
            "null",
            r#"{"v":1}"#,
            r#"{"v":1,"op":"dance"}"#,
            r#"{"v":"1","op":"kill"}"#,
        ] {
            assert!(
                matches!(parse(line.as_bytes()).unwrap_err().content, Content::Error(_)),
                "{line}"
            );
        }
    }
}
