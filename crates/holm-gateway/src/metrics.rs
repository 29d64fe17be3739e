//! Figures for operators, and the form in which they are read: the text format of Prometheus, version 0.0.4.
//!
//! ```text
//! # HELP holm_hub_connections Connections that are open now.
//! # TYPE holm_hub_connections gauge
//! holm_hub_connections{protocol="mqtt"} 12
//! ```
//!
//! A label has few values, all known when this was written ([`label`](crate::label)): what a peer says is never one, so
//! nobody outside decides how many figures there are. All values are shown from the start, since a figure that appears
//! with its first event has no rate before it.

use std::fmt::Write;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

/// The values that one label can have.
pub trait Label: Copy {
    /// The label.
    const NAME: &'static str;
    /// Its values, in the order of [`Label::index`].
    const VALUES: &'static [&'static str];
    /// Which value this is.
    fn index(self) -> usize;
}

/// Makes an enum whose variants are the values of a label.
#[macro_export]
macro_rules! label {
    ($(#[$doc:meta])* $vis:vis enum $name:ident($label:literal) {
        $($(#[$variant_doc:meta])* $variant:ident = $value:literal,)+
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $crate::metrics::Label for $name {
            const NAME: &'static str = $label;
            const VALUES: &'static [&'static str] = &[$($value,)+];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

/// One number.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// One less; for gauges.
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number for each value of a label.
#[derive(Debug)]
pub struct Family<L> {
    counters: Box<[Counter]>,
    label: PhantomData<fn(L)>,
}

impl<L: Label> Default for Family<L> {
    fn default() -> Self {
        Self {
            counters: L::VALUES.iter().map(|_| Counter::default()).collect(),
            label: PhantomData,
        }
    }
}

impl<L: Label> Family<L> {
    /// The number of a value.
    ///
    /// # Panics
    /// Never: a label knows its values.
    #[must_use]
    pub fn of(&self, value: L) -> &Counter {
        self.counters
            .get(value.index())
            .expect("there is a counter for each value of the label")
    }
}

/// A page of figures that is being written.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// A figure that only grows; its name ends with `_total`.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        self.line(format_args!("{name} {value}"));
    }

    /// A figure that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "gauge");
        self.line(format_args!("{name} {value}"));
    }

    /// As [`Exposition::counter`], for each value of a label.
    pub fn counters<L: Label>(&mut self, name: &str, help: &str, family: &Family<L>) {
        self.family(name, help, "counter", family);
    }

    /// As [`Exposition::gauge`], for each value of a label.
    pub fn gauges<L: Label>(&mut self, name: &str, help: &str, family: &Family<L>) {
        self.family(name, help, "gauge", family);
    }

    /// The page.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0
    }

    fn family<L: Label>(&mut self, name: &str, help: &str, kind: &str, family: &Family<L>) {
        self.head(name, help, kind);
        for (value, counter) in L::VALUES.iter().zip(&family.counters) {
            self.line(format_args!("{name}{{{}=\"{value}\"}} {}", L::NAME, counter.get()));
        }
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a text in memory takes every line");
    }
}

label! {
    /// How a client speaks to the node.
    pub enum Protocol("protocol") {
        /// MQTT over TLS.
        Mqtt = "mqtt",
        /// MQTT over a WebSocket.
        MqttWebSocket = "mqtt_websocket",
    }
}

label! {
    /// Why a connection was answered with another return code than 0.
    pub enum ConnectRefusal("reason") {
        /// User name, client id or will have not the published form.
        Malformed = "malformed",
        /// The proof is wrong, or the identity may not connect.
        NotAuthorized = "not_authorized",
        /// The node could not tell.
        Unavailable = "unavailable",
    }
}

label! {
    /// Why a connection ended.
    pub enum End("reason") {
        /// The client said goodbye.
        Disconnected = "disconnected",
        /// The transport ended without it.
        Lost = "lost",
        /// The client was silent for too long.
        TimedOut = "timed_out",
        /// The client broke MQTT.
        Violation = "violation",
        /// The client was not let in.
        Refused = "refused",
        /// The same identity connected anew.
        Replaced = "replaced",
        /// The identity was removed, disabled, or its key changed.
        Revoked = "revoked",
        /// The node stopped.
        ShuttingDown = "shutting_down",
        /// The client did not take what was sent to it.
        TooSlow = "too_slow",
        /// The client did not acknowledge a message in time.
        Unacknowledged = "unacknowledged",
        /// The client's token ended.
        TokenEnded = "token_ended",
        /// The client sent a message that breaks a rule: its topic or its size.
        MessageRefused = "message_refused",
        /// A message could not be stored.
        NotStored = "not_stored",
        /// The node could not read or keep what the session needs.
        Unavailable = "unavailable",
    }
}

label! {
    /// What a client was made to wait for, or refused for now.
    pub enum Throttle("what") {
        /// Messages that had to wait for room at the node.
        Messages = "messages",
        /// Twin requests answered with 429.
        TwinRequests = "twin_requests",
    }
}

/// The figures of a front.
#[derive(Debug, Default)]
pub struct ConnectionMetrics {
    pub(crate) open: Family<Protocol>,
    pub(crate) accepted: Family<Protocol>,
    pub(crate) refused: Family<ConnectRefusal>,
    pub(crate) ended: Family<End>,
    pub(crate) throttled: Family<Throttle>,
}

impl ConnectionMetrics {
    /// Writes them, under names that begin with `prefix`.
    pub fn write(&self, prefix: &str, out: &mut Exposition) {
        out.gauges(
            &format!("{prefix}_connections"),
            "Connections that are open now, logged in or not.",
            &self.open,
        );
        out.counters(
            &format!("{prefix}_connections_total"),
            "Connections that were opened.",
            &self.accepted,
        );
        out.counters(
            &format!("{prefix}_connections_refused_total"),
            "CONNECTs that were answered with another return code than 0.",
            &self.refused,
        );
        out.counters(
            &format!("{prefix}_connections_ended_total"),
            "Connections that have ended, by reason.",
            &self.ended,
        );
        out.counters(
            &format!("{prefix}_throttled_total"),
            "What clients had to wait for, or were refused for now.",
            &self.throttled,
        );
    }

    /// Counts a connection until the value goes.
    pub(crate) fn open(&self, protocol: Protocol) -> Open<'_> {
        self.accepted.of(protocol).increment();
        let gauge = self.open.of(protocol);
        gauge.increment();
        Open(gauge)
    }
}

/// A connection that is open.
pub(crate) struct Open<'m>(&'m Counter);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.decrement();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_a_label_is_shown_from_the_start_under_one_head() {
        let (metrics, mut out) = (ConnectionMetrics::default(), Exposition::default());
        let open = metrics.open(Protocol::MqttWebSocket);
        drop(metrics.open(Protocol::Mqtt));

        out.gauges("x_connections", "Open now.", &metrics.open);
        out.counter("x_y_total", "Ys.", 3);
        drop(open);

        let expected = "\
# HELP x_connections Open now.
# TYPE x_connections gauge
x_connections{protocol=\"mqtt\"} 0
x_connections{protocol=\"mqtt_websocket\"} 1
# HELP x_y_total Ys.
# TYPE x_y_total counter
x_y_total 3
";
        assert_eq!(out.into_text(), expected);
        assert_eq!(metrics.open.of(Protocol::MqttWebSocket).get(), 0);
    }
}
