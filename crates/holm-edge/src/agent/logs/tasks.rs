//! Uploads that go on after the method that began them was answered. They are in memory alone, as published.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

/// What is remembered; the oldest that has ended makes room.
const MOST: usize = 64;
/// Uploads at once: each holds a few pieces in memory, and they share one link.
const MOST_RUNNING: usize = 2;

/// How an upload stands, in the published words.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Status {
    Running,
    Completed,
    Failed(String),
}

/// The uploads. Clones are the same ones.
#[derive(Clone, Debug, Default)]
pub(in crate::agent) struct Tasks {
    /// Held for a look or a change, never over an `.await`.
    known: Arc<Mutex<VecDeque<(String, Status)>>>,
}

/// Too many uploads go on.
#[derive(Debug)]
pub(super) struct Busy;

impl Tasks {
    /// Notes an upload that begins, and gives its correlation id.
    pub(super) fn begin(&self) -> Result<String, Busy> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.iter().filter(|(_, status)| *status == Status::Running).count() >= MOST_RUNNING {
            return Err(Busy);
        }
        if known.len() >= MOST
            && let Some(oldest) = known.iter().position(|(_, status)| *status != Status::Running)
        {
            known.remove(oldest);
        }
        let id = new_id();
        known.push_back((id.clone(), Status::Running));
        Ok(id)
    }

    /// Notes how it ended.
    pub(super) fn end(&self, id: &str, outcome: Result<(), String>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, status)) = known.iter_mut().find(|(known, _)| known == id) {
            *status = outcome.map_or_else(Status::Failed, |()| Status::Completed);
        }
    }

    /// The published answer about an upload.
    pub(super) fn answer(&self, id: &str) -> Value {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().find(|(known, _)| known.eq_ignore_ascii_case(id));
        let (word, message) = match found.map(|(_, status)| status) {
            Some(Status::Running) => ("Running", ""),
            Some(Status::Completed) => ("Completed", ""),
            Some(Status::Failed(reason)) => ("Failed", reason.as_str()),
            None => (
                "Unknown",
                "no upload has this correlation id; they are forgotten when the edge restarts",
            ),
        };
        json!({"status": word, "message": message, "correlationId": id})
    }
}

/// A random id in the form of a GUID.
fn new_id() -> String {
    let mut bytes = [0_u8; 16];
    if getrandom::fill(&mut bytes).is_err() {
        // Ids must differ, nothing more; the time does, too.
        let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        bytes = nanos.map_or(0, |since| since.as_nanos()).to_be_bytes();
    }
    let number = u128::from_be_bytes(bytes);
    let hex = format!("{number:032x}");
    let parts = [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)];
    let parts: Vec<&str> = parts.iter().filter_map(|(from, to)| hex.get(*from..*to)).collect();
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_are_bounded_and_the_oldest_that_ended_are_forgotten() {
        let tasks = Tasks::default();
        let first = tasks.begin().unwrap();
        let second = tasks.begin().unwrap();
        assert!(tasks.begin().is_err());
        tasks.end(&first, Err("no".to_owned()));

        assert_eq!(
            tasks.answer(&first),
            json!({"status": "Failed", "message": "no", "correlationId": first})
        );
        assert_eq!(tasks.answer(&second)["status"], "Running");
        for _ in 0..MOST {
            let id = tasks.begin().unwrap();
            tasks.end(&id, Ok(()));
            assert_eq!(tasks.answer(&id)["status"], "Completed");
        }
        assert_eq!(tasks.answer(&first)["status"], "Unknown");
        assert_eq!(tasks.answer(&second)["status"], "Running");
        assert_eq!(first.len(), 36);
    }
}
