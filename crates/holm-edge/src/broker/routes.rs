//! The configuration of the broker: the desired properties of `$edgeHub`, compiled. A configuration is put in force whole or
//! not at all: a wrong one leaves the one before it in force, and the report names every wrong route.
//!
//! ```text
//!   desired of $edgeHub --parse, compile--> Table, in force   200
//!                            '--wrong--> the table before     400, what is wrong
//! ```

use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use holm_model::manifest::{DesiredStatus, EdgeHubDesired, ForwardOrder, RouteSpec as DesiredRoute};
use holm_model::{Message, SystemProperty};
use holm_query::{Delivery, Priority, RouteSet, RouteSpec, Sink};
use holm_queue::{LaneError, LaneId};
use serde_json::{Map, Value};

use super::lanes::{LaneName, Lanes};
use super::quota::Quota;

/// Priorities 0 to 9, and none.
const PRIORITIES: usize = 11;
/// The longest string that a twin holds, in bytes; a report is cut there.
const MAX_DESCRIPTION_BYTES: usize = holm_model::twin::rules::MAX_STRING_BYTES;

/// A configuration that is right.
#[derive(Debug)]
pub(super) struct Table {
    /// The routes.
    pub(super) set: RouteSet,
    /// How long messages wait whose route does not say; `None`: for ever.
    time_to_live: Option<Duration>,
    /// The size of the store.
    pub(super) quota: Quota,
    /// Which messages for the node above go first.
    pub(super) order: ForwardOrder,
    /// The outputs that routes spell out.
    outputs: Vec<String>,
    /// For each sink of the set and each priority, the lane, once it was needed.
    lanes: Vec<[OnceLock<LaneId>; PRIORITIES]>,
}

impl Table {
    /// Compiles the desired properties of `$edgeHub`.
    ///
    /// # Errors
    /// What to report: everything that is wrong.
    pub(super) fn compile(desired: &Map<String, Value>) -> Result<Self, DesiredStatus> {
        let parsed = EdgeHubDesired::parse(desired);
        let specs = match &parsed {
            Ok(configuration) => configuration
                .routes
                .iter()
                .map(|(name, route)| (name.clone(), spec(route)))
                .collect(),
            // Something else is wrong; those routes that can be read at all are looked at too, so that all is told at once.
            Err(_) => readable(desired),
        };
        match (parsed, RouteSet::compile(specs)) {
            (Ok(configuration), Ok(set)) => Ok(Self {
                lanes: set.sinks().iter().map(|_| Default::default()).collect(),
                outputs: set.outputs().map(str::to_owned).collect(),
                set,
                time_to_live: configuration.store_and_forward.time_to_live,
                quota: Quota {
                    max_bytes: configuration.store_and_forward.max_size_bytes,
                    when_full: configuration.store_and_forward.when_full,
                },
                order: configuration.store_and_forward.order,
            }),
            (parsed, compiled) => {
                let structure = parsed.err().map(|error| error.to_string());
                let texts = compiled.err().map(|error| error.to_string());
                let problems: Vec<_> = [structure, texts].into_iter().flatten().collect();
                let mut description = format!("Error while parsing desired properties - {}", problems.join("; "));
                cut(&mut description);
                Err(DesiredStatus { code: 400, description })
            }
        }
    }

    /// When a delivery expires that is taken in now, in milliseconds since 1970; 0: never. `None`: at once.
    pub(super) fn expiry(&self, delivery: &Delivery<'_>, now: u64) -> Option<u64> {
        let life = match delivery.time_to_live_seconds {
            Some(seconds) => Some(Duration::from_secs(seconds.into())),
            None => self.time_to_live,
        };
        match life {
            None => Some(0),
            Some(Duration::ZERO) => None,
            Some(life) => Some(now.saturating_add(u64::try_from(life.as_millis()).unwrap_or(u64::MAX))),
        }
    }

    /// An output as a route spells it, if one does.
    pub(super) fn known_output(&self, name: &str) -> Option<&str> {
        let mut all = self.outputs.iter().map(String::as_str);
        all.find(|known| known.eq_ignore_ascii_case(name))
    }

    /// How the output of a message is told in figures: by its name where a route spells it out.
    pub(super) fn output_label(&self, message: &Message) -> &str {
        let name = message.system.get(SystemProperty::OutputName);
        match name.filter(|name| !name.is_empty()) {
            None => "",
            Some(name) => self.known_output(name).unwrap_or(super::figures::OTHER),
        }
    }

    /// The lane of a delivery, if it was needed before.
    pub(super) fn known_lane(&self, sink_index: usize, priority: Priority) -> Option<LaneId> {
        self.lanes.get(sink_index)?.get(index(priority))?.get().copied()
    }

    /// The lane of a delivery; made if it is new.
    pub(super) async fn lane(
        &self,
        lanes: &Lanes,
        sink_index: usize,
        sink: &Sink,
        priority: Priority,
    ) -> Result<LaneId, LaneError> {
        let name = LaneName::of(sink.clone(), priority.number());
        let lane = lanes.ensure(&name).await?;
        if let Some(known) = self
            .lanes
            .get(sink_index)
            .and_then(|of_sink| of_sink.get(index(priority)))
        {
            known.get_or_init(|| lane);
        }
        Ok(lane)
    }
}

fn index(priority: Priority) -> usize {
    usize::try_from(priority.number()).map_or(PRIORITIES - 1, |number| number.min(PRIORITIES - 1))
}

fn spec(route: &DesiredRoute) -> RouteSpec {
    RouteSpec {
        route: route.route.clone(),
        priority: route.priority,
        time_to_live_seconds: route
            .time_to_live
            .map(|life| u32::try_from(life.as_secs()).unwrap_or(u32::MAX)),
    }
}

fn readable(desired: &Map<String, Value>) -> Vec<(String, RouteSpec)> {
    let routes = desired.get("routes").and_then(Value::as_object).into_iter().flatten();
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(route) => route.get("route").and_then(Value::as_str).map(str::to_owned),
        _ => None,
    };
    routes
        .filter_map(|(name, value)| Some((name.clone(), RouteSpec::from(text(value)?.as_str()))))
        .collect()
}

fn cut(text: &mut String) {
    const MORE: &str = " …";
    if text.len() > MAX_DESCRIPTION_BYTES {
        let end = text.floor_char_boundary(MAX_DESCRIPTION_BYTES - MORE.len());
        text.truncate(end);
        text.push_str(MORE);
    }
}

/// The configuration in force.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// Read for each message, written at a deployment; held for the copy of a pointer.
    current: RwLock<Option<Arc<Table>>>,
}

impl Routes {
    /// The configuration in force; `None` before the first.
    pub(super) fn current(&self) -> Option<Arc<Table>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts a configuration in force.
    pub(super) fn put(&self, table: Table) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(table));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn compile(routes: Value, seconds: i64) -> Result<Table, DesiredStatus> {
        let desired = json!({
            "schemaVersion": "1.1", "routes": routes, "storeAndForwardConfiguration": {"timeToLiveSecs": seconds},
        });
        Table::compile(desired.as_object().unwrap())
    }

    #[test]
    fn every_wrong_route_is_named_whatever_is_wrong_with_it() {
        let status = compile(
            json!({
                "fine": "FROM /* INTO $upstream",
                "text": "FORM /* INTO $upstream",
                "types": "FROM /* WHERE temp > 100 INTO $upstream",
                "urgent": {"route": "FROM /* INTO $upstream", "priority": 12},
            }),
            60,
        )
        .unwrap_err();

        assert_eq!(status.code, 400);
        for name in ["text", "types", "urgent"] {
            assert!(status.description.contains(name), "{name} in {}", status.description);
        }
        assert!(!status.description.contains("fine"), "{}", status.description);
    }

    #[test]
    fn a_long_description_fits_in_a_twin() {
        let routes: Map<String, Value> = (0..200).map(|n| (format!("route{n}"), json!("größer"))).collect();

        let status = compile(Value::Object(routes), 60).unwrap_err();

        assert!(status.description.len() <= 4096);
        assert!(status.description.ends_with('…'));
    }

    #[test]
    fn the_route_decides_how_long_and_then_the_configuration() {
        let expiry = |seconds: i64, route: Value| {
            let table = compile(json!({"r": route}), seconds).unwrap();
            let message = Message::new("");
            let delivery = table
                .set
                .evaluate(&holm_query::MessageSource::DeviceTelemetry, &message)
                .next()
                .unwrap();
            table.expiry(&delivery, 1000)
        };
        let plain = json!("FROM /* INTO $upstream");

        assert_eq!(expiry(-1, plain.clone()), Some(0));
        assert_eq!(expiry(0, plain.clone()), None);
        assert_eq!(expiry(60, plain), Some(61_000));
        let own = json!({"route": "FROM /* INTO $upstream", "timeToLiveSecs": 5});
        assert_eq!(expiry(0, own.clone()), Some(6000));
        assert_eq!(expiry(-1, own), Some(6000));
    }
}
