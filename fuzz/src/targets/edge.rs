//! Targets of `holm-edge`.

use holm_edge::config::{ConfigError, EdgeConfig};

use super::text;

pub(super) fn config(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    match EdgeConfig::parse(text) {
        Ok(loaded) => assert!(!loaded.config.hostname.is_empty(), "a name is always given or found"),
        Err(ConfigError::Problems(problems)) => {
            assert!(!problems.is_empty(), "refused for nothing");
            let lines = text.split('\n').count();
            for problem in problems {
                assert!(!problem.text.is_empty(), "a problem without a word");
                if let Some((line, column)) = problem.at {
                    assert!(
                        (1..=lines).contains(&line) && column >= 1,
                        "{line}:{column} is not in the text"
                    );
                }
            }
        }
        Err(other) => assert!(!other.to_string().is_empty()),
    }
}
