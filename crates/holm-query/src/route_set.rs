//! The routes of a node, and what they do with a message. Source: `edge-broker.md` §2.3, §2.6.
//!
//! ```text
//!   message ──> routes of its kind of source, most urgent first ──> one delivery for each endpoint
//! ```
//!
//! A set exists only when every route in it is right; [`RouteSetError`] names every wrong one. Routes stand in order of
//! urgency, and in the order given among equals, so the first route that fires for an endpoint decides its priority and
//! time-to-live, and later routes to the same endpoint are not even evaluated.
//!
//! Evaluation allocates nothing but the parsed body, which it reads when the first condition asks for it, and never twice
//! (and, past 64 endpoints, the marks of those already served).

use std::fmt;

use holm_model::Message;

use crate::message::MessageFields;
use crate::route::{MessageSource, Route, RouteProblem, Sink};

/// How urgent a delivery is: 0 before 1 before … 9 before the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// The priority of a route that names none: after all others.
    pub const DEFAULT: Self = Self(10);
    /// The number that stands for the default where priorities are numbers.
    pub const DEFAULT_NUMBER: u32 = 2_000_000_000;

    /// The priority of a number from 0, the most urgent, to 9.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number <= 9 { Some(Self(number)) } else { None }
    }

    /// The number as the published interfaces write it.
    #[must_use]
    pub const fn number(self) -> u32 {
        if self.0 == Self::DEFAULT.0 {
            Self::DEFAULT_NUMBER
        } else {
            self.0 as u32
        }
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A route as the configuration gives it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteSpec {
    /// The text `FROM … INTO …`.
    pub route: String,
    /// 0, the most urgent, to 9; without one: after all others.
    pub priority: Option<u8>,
    /// How long a message waits for its endpoint; without one, or 0: as long as the node's configuration says.
    pub time_to_live_seconds: Option<u32>,
}

impl From<&str> for RouteSpec {
    fn from(route: &str) -> Self {
        Self {
            route: route.to_owned(),
            ..Self::default()
        }
    }
}

/// A delivery that a message needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery<'r> {
    /// Where to.
    pub sink: &'r Sink,
    /// The sink's index in [`RouteSet::sinks`].
    pub sink_index: usize,
    /// How urgent.
    pub priority: Priority,
    /// How long it may wait; `None`: as long as the node's configuration says.
    pub time_to_live_seconds: Option<u32>,
    /// The route that decided it.
    pub route: &'r str,
}

/// Checked routes, ready for messages.
#[derive(Debug, Default)]
pub struct RouteSet {
    entries: Vec<Entry>,
    sinks: Vec<Sink>,
    telemetry: Vec<usize>,
    modules: Vec<usize>,
    twin_changes: Vec<usize>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    route: Route,
    sink_index: usize,
    priority: Priority,
    time_to_live_seconds: Option<u32>,
}

impl RouteSet {
    /// Compiles routes with their names.
    ///
    /// # Errors
    /// [`RouteSetError`] with every route that has a problem.
    pub fn compile<N: Into<String>>(specs: impl IntoIterator<Item = (N, RouteSpec)>) -> Result<Self, RouteSetError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut sinks: Vec<Sink> = Vec::new();
        let mut bad = Vec::new();
        let mut total = 0;
        for (name, spec) in specs {
            total += 1;
            let name = name.into();
            match compile_one(&spec) {
                Ok((route, priority)) => entries.push(Entry {
                    sink_index: index_of(&mut sinks, route.sink()),
                    name,
                    route,
                    priority,
                    time_to_live_seconds: spec.time_to_live_seconds.filter(|&seconds| seconds > 0),
                }),
                Err(faults) => bad.push(BadRoute { name, faults }),
            }
        }
        if !bad.is_empty() {
            return Err(RouteSetError { routes: bad, total });
        }
        entries.sort_by_key(|entry| entry.priority);
        let chosen = |looks_at: &dyn Fn(&Route) -> bool| -> Vec<usize> {
            (0..)
                .zip(&entries)
                .filter(|(_, entry)| looks_at(&entry.route))
                .map(|(index, _)| index)
                .collect()
        };
        Ok(Self {
            telemetry: chosen(&|route| MessageSource::DeviceTelemetry.matches(route.pattern())),
            modules: chosen(&|route| route.pattern().may_mean_modules()),
            twin_changes: chosen(&|route| MessageSource::TwinChange.matches(route.pattern())),
            entries,
            sinks,
        })
    }

    /// All endpoints that the routes name, each once.
    #[must_use]
    pub fn sinks(&self) -> &[Sink] {
        &self.sinks
    }

    /// The outputs of modules that routes spell out; one that several name comes several times.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter_map(|entry| entry.route.pattern().output())
    }

    /// Whether there is no route.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What to do with a message: one delivery for each endpoint that a route names for it, most urgent first. Nothing at all
    /// means that the message is dropped.
    #[must_use]
    pub fn evaluate<'r>(&'r self, source: &MessageSource<'r>, message: &'r Message) -> Deliveries<'r> {
        let candidates = match source {
            MessageSource::DeviceTelemetry => &self.telemetry,
            MessageSource::ModuleOutput { .. } => &self.modules,
            MessageSource::TwinChange => &self.twin_changes,
        };
        Deliveries {
            set: self,
            candidates: candidates.iter(),
            source: *source,
            fields: MessageFields::new(message),
            served: Served::default(),
        }
    }
}

fn compile_one(spec: &RouteSpec) -> Result<(Route, Priority), Vec<Fault>> {
    let route = Route::compile(&spec.route);
    let priority = spec
        .priority
        .map_or(Ok(Priority::DEFAULT), |number| Priority::new(number).ok_or(number));
    match (route, priority) {
        (Ok(route), Ok(priority)) => Ok((route, priority)),
        (route, priority) => {
            let text = route.err().unwrap_or_default().into_iter().map(Fault::Text);
            Err(text.chain(priority.err().map(Fault::Priority)).collect())
        }
    }
}

fn index_of(sinks: &mut Vec<Sink>, sink: &Sink) -> usize {
    sinks.iter().position(|known| known == sink).unwrap_or_else(|| {
        sinks.push(sink.clone());
        sinks.len() - 1
    })
}

/// The deliveries of one message, worked out one by one: see [`RouteSet::evaluate`].
#[derive(Debug)]
pub struct Deliveries<'r> {
    set: &'r RouteSet,
    candidates: std::slice::Iter<'r, usize>,
    source: MessageSource<'r>,
    fields: MessageFields<'r>,
    served: Served,
}

impl<'r> Iterator for Deliveries<'r> {
    type Item = Delivery<'r>;

    fn next(&mut self) -> Option<Delivery<'r>> {
        loop {
            let entry = self.set.entries.get(*self.candidates.next()?)?;
            let fires = !self.served.has(entry.sink_index)
                && self.source.matches(entry.route.pattern())
                && entry.route.holds(&self.fields);
            if fires {
                self.served.add(entry.sink_index);
                return Some(Delivery {
                    sink: entry.route.sink(),
                    sink_index: entry.sink_index,
                    priority: entry.priority,
                    time_to_live_seconds: entry.time_to_live_seconds,
                    route: &entry.name,
                });
            }
        }
    }
}

/// Marks endpoints by index; the first 64 without an allocation.
#[derive(Debug, Default)]
struct Served {
    first: u64,
    others: Vec<usize>,
}

impl Served {
    fn has(&self, index: usize) -> bool {
        if index < 64 {
            self.first & (1 << index) != 0
        } else {
            self.others.contains(&index)
        }
    }

    fn add(&mut self, index: usize) {
        if index < 64 {
            self.first |= 1 << index;
        } else {
            self.others.push(index);
        }
    }
}

/// Why a set of routes was refused: every route that has a problem. Its text is the description for the status of the
/// configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSetError {
    /// The wrong routes, in the order given; at least one.
    pub routes: Vec<BadRoute>,
    /// How many routes there were, right and wrong.
    pub total: usize,
}

/// A route with everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRoute {
    /// The route's name.
    pub name: String,
    /// What is wrong; at least one thing.
    pub faults: Vec<Fault>,
}

/// One thing that is wrong with a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// In its text.
    Text(RouteProblem),
    /// Its priority is greater than 9.
    Priority(u8),
}

/// The most problems of one route that the text of the error shows; the rest is counted.
const MAX_SHOWN: usize = 8;

impl std::error::Error for RouteSetError {}

impl fmt::Display for RouteSetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} routes cannot be used", self.routes.len(), self.total)?;
        for route in &self.routes {
            for fault in route.faults.iter().take(MAX_SHOWN) {
                write!(f, " | route `{}`, {fault}", route.name)?;
            }
            if route.faults.len() > MAX_SHOWN {
                let hidden = route.faults.len() - MAX_SHOWN;
                write!(f, " | route `{}`, {hidden} more problems", route.name)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(problem) => write!(f, "{problem}"),
            Self::Priority(number) => write!(
                f,
                "the priority {number} is not from 0 to 9; give 0 (most urgent) to 9, or none for the last place"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_that_routes_spell_out_are_known_by_name() {
        let routes = [
            "FROM /messages/modules/m/outputs/alerts INTO $upstream",
            "FROM /MESSAGES/modules/m/Outputs/deep/er/* INTO $upstream",
            "FROM /messages/modules/m/outputs/* INTO $upstream",
            "FROM /messages/modules/outputs INTO $upstream",
            "FROM /messages/* INTO $upstream",
        ];

        let set = RouteSet::compile(routes.map(|route| (route, RouteSpec::from(route)))).unwrap();

        assert_eq!(set.outputs().collect::<Vec<_>>(), ["alerts", "deep/er"]);
    }
}
