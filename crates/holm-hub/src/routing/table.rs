//! All routes and enrichments together, ready for messages.
//!
//! ```text
//! message --routes of its source--> set of destinations --enrichments of each--> a copy for each set of properties, with its lanes
//!            none, and DeviceMessages: `$fallback`
//! ```
//!
//! A message goes to each destination once, however many routes lead there. Destinations whose enrichments are the same share one
//! record of the log; mostly there is one record. Evaluation waits for nothing: whoever asks brings the twin, where
//! [`Table::reads_twin`] says that it is looked at.

use std::collections::HashMap;

use holm_model::{Message, Timestamp, Twin};
use holm_query::evaluate::Truth;
use holm_query::hub_condition::Found;
use holm_query::{HubCondition, HubFields};
use holm_queue::LaneId;
use serde_json::Value;

use super::rules::{Destination, Enrichment, EnrichmentValue, Route};
use super::source::Source;
use crate::config::EventSources;
use crate::events::{Filing, unix_millis};

/// The most endpoints beside `events`: bits of a set.
pub const MAX_ENDPOINTS: usize = 100;
/// The most enrichments: bits of a set.
pub const MAX_ENRICHMENTS: usize = 100;
/// The most routes. The original has 100.
pub const MAX_ROUTES: usize = 1000;

/// A set of destinations, or of enrichments: bit 0 is `events`, bit n + 1 endpoint n.
type Set = u128;
const EVENTS: Set = 1;

/// Where messages for an endpoint are filed.
#[derive(Clone, Debug)]
pub struct Lane {
    /// The lane.
    pub id: LaneId,
    /// How long they wait there.
    pub max_waiting_millis: u64,
}

/// All routes and enrichments.
#[derive(Debug)]
pub struct Table {
    routes: Vec<Compiled>,
    /// Which sources have a route that counts.
    routed: Vec<Source>,
    /// For which the twin is looked at.
    with_twin: Vec<Source>,
    has_routes: bool,
    fallback: bool,
    defaults: EventSources,
    enrichments: Vec<Enrichment>,
    /// The enrichments of each destination.
    enriched: Vec<Set>,
    destinations: Vec<Destination>,
    lanes: Vec<Lane>,
    hub_name: String,
}

#[derive(Debug)]
struct Compiled {
    route: Route,
    to: Set,
}

/// What was decided about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    to: Set,
    /// Whether no route took it and `$fallback` did.
    pub is_fallback: bool,
}

/// What a route makes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It takes it.
    Takes,
    /// It is turned off.
    Disabled,
    /// It is about messages of another source.
    OtherSource,
    /// Its condition does not hold.
    False,
    /// Of its condition it can't be said.
    Undefined,
}

impl Verdict {
    /// As documents tell it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Takes => "true",
            Self::Disabled => "disabled",
            Self::OtherSource => "otherSource",
            Self::False => "false",
            Self::Undefined => "undefined",
        }
    }
}

impl Table {
    /// Puts routes and enrichments together. `lanes` are those of all endpoints. What leads to an endpoint that is not there is left
    /// out; whoever writes it is refused before.
    #[must_use]
    pub fn new(
        hub_name: String,
        defaults: EventSources,
        routes: &[Route],
        enrichments: &[Enrichment],
        fallback: bool,
        lanes: Vec<(Destination, Lane)>,
    ) -> Self {
        let (named, lanes): (Vec<_>, Vec<_>) = lanes.into_iter().take(MAX_ENDPOINTS).unzip();
        let destinations: Vec<_> = std::iter::once(Destination::Events).chain(named).collect();
        let places: HashMap<_, _> = destinations.iter().zip(0_u32..).collect();
        let bit = |to: &Destination| places.get(to).map_or(0, |place| 1 << place);
        let compiled: Vec<_> = routes
            .iter()
            .map(|route| Compiled {
                to: bit(&route.to),
                route: route.clone(),
            })
            .collect();
        let enrichments: Vec<_> = enrichments.iter().take(MAX_ENRICHMENTS).cloned().collect();
        let enriched = destinations.iter().map(|destination| {
            let mine = enrichments.iter().zip(0_u32..);
            let mine = mine.filter(|(enrichment, _)| enrichment.to.contains(destination));
            mine.fold(0, |set, (_, place)| set | 1 << place)
        });
        let stamps_twin = enrichments
            .iter()
            .any(|enrichment| matches!(enrichment.value, EnrichmentValue::Twin(_)));
        let enabled = || routes.iter().filter(|route| route.enabled);
        let asks_twin = |source: &Source| {
            let mut mine = enabled().filter(|route| route.source == *source);
            stamps_twin || mine.any(|route| route.condition.reads_twin())
        };
        Self {
            routed: enabled().map(|route| route.source).collect(),
            with_twin: Source::ALL.into_iter().filter(asks_twin).collect(),
            has_routes: !routes.is_empty(),
            enriched: enriched.collect(),
            routes: compiled,
            fallback,
            defaults,
            enrichments,
            destinations,
            lanes,
            hub_name,
        }
    }

    /// Whether everything goes as if nobody had set anything.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        !self.has_routes && self.enrichments.is_empty()
    }

    /// Whether a route asks for messages of this source.
    #[must_use]
    pub fn has_route_for(&self, source: Source) -> bool {
        self.routed.contains(&source)
    }

    /// Whether the twin is looked at for messages of this source.
    #[must_use]
    pub fn reads_twin(&self, source: Source) -> bool {
        self.with_twin.contains(&source)
    }

    /// Where a message goes.
    #[must_use]
    pub fn decide(&self, source: Source, message: &Message, twin: Option<&Twin>) -> Decision {
        let fields = HubFields::new(message, twin);
        let mut to = 0;
        for compiled in &self.routes {
            // What is served already needs no second look.
            if compiled.to & !to != 0 && compiled.is_about(source) && compiled.holds(&fields) {
                to |= compiled.to;
            }
        }
        let by_itself = match source {
            Source::DeviceMessages => !self.has_routes || self.fallback,
            other => !self.has_route_for(other) && self.defaults.has(other.message_source()),
        };
        let is_fallback = to == 0 && by_itself;
        Decision {
            to: if is_fallback { EVENTS } else { to },
            is_fallback,
        }
    }

    /// What each route makes of a message.
    #[must_use]
    pub fn explain(&self, source: Source, message: &Message, twin: Option<&Twin>) -> Vec<(&Route, Verdict)> {
        let fields = HubFields::new(message, twin);
        let verdicts = self.routes.iter().map(|compiled| {
            let verdict = match compiled.route.condition.truth(&fields) {
                _ if compiled.route.source != source => Verdict::OtherSource,
                _ if !compiled.route.enabled => Verdict::Disabled,
                Truth::True => Verdict::Takes,
                Truth::False => Verdict::False,
                Truth::Undefined => Verdict::Undefined,
            };
            (&compiled.route, verdict)
        });
        verdicts.collect()
    }

    /// The destinations of a decision.
    pub fn destinations(&self, decision: Decision) -> impl Iterator<Item = &Destination> {
        let all = self.destinations.iter().zip(0_u32..);
        all.filter(move |(_, place)| decision.to & (1 << place) != 0)
            .map(|(destination, _)| destination)
    }

    /// The records of a message that was decided about; none for one that goes nowhere. `events` is the lane of its partition.
    #[must_use]
    pub(super) fn file(
        &self,
        decision: Decision,
        message: &Message,
        twin: Option<&Twin>,
        events: LaneId,
        now: Timestamp,
    ) -> Vec<Filing> {
        let mut groups: Vec<(Set, Vec<(LaneId, u64)>)> = Vec::new();
        for (place, enriched) in (0_u32..).zip(&self.enriched) {
            if decision.to & (1 << place) == 0 {
                continue;
            }
            let lane = match usize::try_from(place).ok().and_then(|place| place.checked_sub(1)) {
                None => (events, 0),
                Some(endpoint) => match self.lanes.get(endpoint) {
                    Some(lane) => (lane.id, unix_millis(now).saturating_add(lane.max_waiting_millis)),
                    None => continue,
                },
            };
            match groups.iter_mut().find(|(set, _)| set == enriched) {
                Some((_, lanes)) => lanes.push(lane),
                None => groups.push((*enriched, vec![lane])),
            }
        }
        let filed = groups.into_iter().map(|(set, lanes)| Filing {
            lanes,
            payload: if set == 0 {
                message.encode()
            } else {
                self.enriched(set, message, twin).encode()
            },
        });
        filed.collect()
    }

    /// The message as a destination gets it.
    #[must_use]
    pub fn as_sent_to(&self, destination: &Destination, message: &Message, twin: Option<&Twin>) -> Message {
        let place = self.destinations.iter().position(|known| known == destination);
        let set = place.and_then(|place| self.enriched.get(place)).copied().unwrap_or(0);
        self.enriched(set, message, twin)
    }

    /// A property that the sender set under the same name is replaced: the operator's word counts.
    fn enriched(&self, set: Set, message: &Message, twin: Option<&Twin>) -> Message {
        let mut message = message.clone();
        for (enrichment, place) in self.enrichments.iter().zip(0_u32..) {
            if set & (1 << place) != 0 {
                let value = self.value_of(enrichment, twin);
                message.properties.set(enrichment.key.as_str(), Some(value));
            }
        }
        message
    }

    fn value_of(&self, enrichment: &Enrichment, twin: Option<&Twin>) -> String {
        let literal = || enrichment.text.clone();
        match &enrichment.value {
            EnrichmentValue::Literal => literal(),
            EnrichmentValue::HubName => self.hub_name.clone(),
            EnrichmentValue::Twin(path) => match twin.and_then(|twin| path.find(twin)) {
                None | Some(Found::Value(Value::Null)) => literal(),
                Some(Found::Value(Value::String(text))) => text.clone(),
                Some(Found::Value(value)) => value.to_string(),
                Some(Found::Part(part)) => Value::Object(part.clone()).to_string(),
            },
        }
    }
}

impl Compiled {
    fn is_about(&self, source: Source) -> bool {
        self.route.enabled && self.route.source == source
    }

    fn holds(&self, fields: &HubFields<'_>) -> bool {
        let condition: &HubCondition = &self.route.condition;
        condition.truth(fields) == Truth::True
    }
}

#[cfg(test)]
mod tests;
