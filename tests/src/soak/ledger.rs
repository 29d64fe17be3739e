//! What a module says it did: in its log, each message that it made, and each that the edge took over.
//!
//! ```text
//! {"event":"made","output":"alerts","messageId":"alert-…"}        before it is sent
//! {"event":"stored","output":"alerts","messageId":"alert-…"}      when it is acknowledged: from now on it must not be lost
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::monitor::Event;

/// One module's messages, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) made: Vec<String>,
    pub(super) stored: BTreeSet<String>,
}

/// What the hub's log holds of one sender.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// Ids in the order of their first arrival.
    pub(super) first: Vec<String>,
    count: BTreeMap<String, u64>,
}

impl Ledger {
    /// Reads the log of a module.
    pub(super) fn read(log: &str) -> Self {
        let mut ledger = Self::default();
        for line in log.lines() {
            // Modules also log other things.
            let Ok(entry) = serde_json::from_str::<Value>(line) else {
                continue;
            };
            let Some(id) = entry["messageId"].as_str() else {
                continue;
            };
            match entry["event"].as_str() {
                Some("made") => ledger.made.push(id.to_owned()),
                Some("stored") => {
                    ledger.stored.insert(id.to_owned());
                }
                _ => {}
            }
        }
        ledger
    }

    /// Compares with what arrived.
    ///
    /// # Panics
    /// When an acknowledged message is missing, or the order of first arrivals is not that of making.
    #[track_caller]
    pub(super) fn compare(&self, sender: &str, arrivals: &Arrivals) {
        let lost: Vec<&String> = self
            .stored
            .iter()
            .filter(|id| !arrivals.count.contains_key(*id))
            .collect();
        assert!(
            lost.is_empty(),
            "`{sender}`: {} acknowledged messages of {} are lost: {:?}",
            lost.len(),
            self.stored.len(),
            lost.iter().take(5).collect::<Vec<_>>()
        );
        let arrived = self.made.iter().filter(|id| arrivals.count.contains_key(*id));
        let wrong = arrived.zip(&arrivals.first).find(|(made, arrived)| made != arrived);
        assert!(
            wrong.is_none(),
            "`{sender}`: first arrivals are in another order: made, arrived {wrong:?}"
        );
        assert!(
            arrivals.first.iter().all(|id| self.made.contains(id)),
            "`{sender}`: something arrived that it did not make"
        );
    }
}

impl Arrivals {
    /// Takes an event of the sender.
    pub(super) fn add(&mut self, event: &Event) {
        let id = event.system["messageId"]
            .as_str()
            .unwrap_or_else(|| panic!("no id: {}", event.line));
        let count = self.count.entry(id.to_owned()).or_default();
        *count += 1;
        if *count == 1 {
            self.first.push(id.to_owned());
        }
    }

    /// Repeats.
    pub(super) fn duplicates(&self) -> u64 {
        self.count.values().map(|count| count - 1).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"
        {"event":"made","output":"alerts","messageId":"a"}
        connected
        {"event":"stored","output":"alerts","messageId":"a"}
        {"event":"made","output":"alerts","messageId":"b"}
        {"event":"stored","output":"alerts","messageId":"b"}
        {"event":"made","output":"alerts","messageId":"c"}"#;

    fn arrivals(ids: &[&str]) -> Arrivals {
        let mut arrivals = Arrivals::default();
        for id in ids {
            let event = serde_json::json!({"systemProperties": {"messageId": id}});
            arrivals.add(&Event::parse(event.to_string()));
        }
        arrivals
    }

    #[test]
    fn repeats_and_what_was_not_acknowledged_may_be() {
        let arrivals = arrivals(&["a", "a", "b", "a"]);

        Ledger::read(LOG).compare("m", &arrivals);

        assert_eq!(arrivals.duplicates(), 2);
    }

    #[test]
    #[should_panic(expected = "1 acknowledged messages of 2 are lost: [\"b\"]")]
    fn what_was_acknowledged_and_did_not_arrive_is_lost() {
        Ledger::read(LOG).compare("m", &arrivals(&["a", "c"]));
    }

    #[test]
    #[should_panic(expected = "another order")]
    fn another_order_of_first_arrivals_is_found() {
        Ledger::read(LOG).compare("m", &arrivals(&["b", "a"]));
    }

    #[test]
    #[should_panic(expected = "did not make")]
    fn what_nobody_made_is_found() {
        Ledger::read(LOG).compare("m", &arrivals(&["a", "b", "c", "x"]));
    }
}
