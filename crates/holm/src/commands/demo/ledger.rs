//! What was written and what arrived: the two sides that are compared at the end.
//!
//! Each module says in its log which messages it made and which the edge has taken in; the hub's log says which arrived.
//! Lost is what the edge took in, the routes send to the hub, and the hub does not have.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

/// Outputs whose messages the routes send to the hub.
const TO_HUB: [&str; 2] = ["alerts", "summaries"];

/// Both sides so far.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    made: BTreeMap<String, BTreeSet<String>>,
    stored: BTreeMap<String, BTreeSet<String>>,
    at_hub: BTreeMap<String, u64>,
    bytes_measured: u64,
}

/// The comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Balance {
    /// Readings made by the sensor.
    pub(super) readings: usize,
    /// Alerts made by the watcher.
    pub(super) alerts_raised: usize,
    /// Summaries made.
    pub(super) summaries_made: usize,
    /// Different alerts at the hub.
    pub(super) alerts_at_hub: usize,
    /// Different summaries at the hub.
    pub(super) summaries_at_hub: usize,
    /// Messages that the edge took in for the hub and that the hub does not have.
    pub(super) lost: usize,
    /// Repeats at the hub, recognised by their message id.
    pub(super) duplicates: u64,
}

impl Ledger {
    /// Takes a line of a module's log; lines that say nothing of messages are passed over.
    pub(super) fn module_wrote(&mut self, line: &str) {
        let Ok(entry) = serde_json::from_str::<Value>(line) else {
            return;
        };
        let text = |name: &str| entry.get(name).and_then(Value::as_str);
        let (Some(event), Some(output), Some(id)) = (text("event"), text("output"), text("messageId")) else {
            return;
        };
        let side = match event {
            "made" => &mut self.made,
            "stored" => &mut self.stored,
            _ => return,
        };
        let new = side.entry(output.to_owned()).or_default().insert(id.to_owned());
        if new && event == "made" {
            self.bytes_measured += entry.get("bytes").and_then(Value::as_u64).unwrap_or_default();
        }
    }

    /// Takes an event of the hub's log.
    pub(super) fn hub_has(&mut self, event: &Value) {
        if let Some(id) = event.pointer("/systemProperties/messageId").and_then(Value::as_str) {
            *self.at_hub.entry(id.to_owned()).or_default() += 1;
        }
    }

    /// Forgets what arrived, before the hub's log is read from its beginning.
    pub(super) fn forget_hub(&mut self) {
        self.at_hub.clear();
    }

    /// Bytes of all messages made on the device.
    pub(super) const fn bytes_measured(&self) -> u64 {
        self.bytes_measured
    }

    /// Whether everything that was made has been taken in and has arrived.
    pub(super) fn is_settled(&self) -> bool {
        let count = |side: &BTreeMap<String, BTreeSet<String>>| {
            TO_HUB
                .iter()
                .map(|output| side.get(*output).map_or(0, BTreeSet::len))
                .sum::<usize>()
        };
        count(&self.made) == count(&self.stored) && self.balance().lost == 0
    }

    /// Compares.
    pub(super) fn balance(&self) -> Balance {
        let made = |output: &str| self.made.get(output).map_or(0, BTreeSet::len);
        let with_prefix = |prefix: &str| self.at_hub.keys().filter(|id| id.starts_with(prefix)).count();
        let stored = TO_HUB.iter().filter_map(|output| self.stored.get(*output)).flatten();
        Balance {
            readings: made("readings"),
            alerts_raised: made("alerts"),
            summaries_made: made("summaries"),
            alerts_at_hub: with_prefix("alert-"),
            summaries_at_hub: with_prefix("summary-"),
            lost: stored.filter(|id| !self.at_hub.contains_key(*id)).count(),
            duplicates: self.at_hub.values().map(|count| count - 1).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        for line in [
            r#"{"event":"made","output":"readings","messageId":"reading-r-0","bytes":70}"#,
            r#"{"event":"stored","output":"readings","messageId":"reading-r-0"}"#,
            r#"{"event":"made","output":"alerts","messageId":"alert-1","bytes":100}"#,
            r#"{"event":"stored","output":"alerts","messageId":"alert-1"}"#,
            "not json",
        ] {
            ledger.module_wrote(line);
        }
        ledger
    }

    #[test]
    fn what_the_edge_took_in_for_the_hub_and_the_hub_lacks_is_lost() {
        let mut ledger = ledger();
        assert_eq!(ledger.balance().lost, 1);

        ledger.hub_has(&json!({ "systemProperties": { "messageId": "alert-1" } }));
        ledger.hub_has(&json!({ "systemProperties": { "messageId": "alert-1" } }));

        let balance = ledger.balance();
        assert_eq!((balance.lost, balance.duplicates, balance.alerts_at_hub), (0, 1, 1));
        assert!(ledger.is_settled());
    }

    #[test]
    fn readings_stay_on_the_device_and_are_never_lost_to_the_hub() {
        assert_eq!(ledger().balance().readings, 1);
        assert_eq!(ledger().bytes_measured(), 170);
    }

    #[test]
    fn a_line_that_is_read_twice_counts_once() {
        let mut ledger = ledger();
        ledger.module_wrote(r#"{"event":"made","output":"alerts","messageId":"alert-1","bytes":100}"#);

        assert_eq!(ledger.balance().alerts_raised, 1);
        assert_eq!(ledger.bytes_measured(), 170);
    }
}
