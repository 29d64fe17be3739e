//! The figures of a hub, for operators. What its front counts (connections) stands in `holm_gateway::metrics`.
//!
//! | counted | where |
//! | --- | --- |
//! | messages, reported properties, settlements | `backend.rs`, as fronts ask |
//! | requests, desired properties, calls, messages to devices | `rest/`, as back ends ask |
//! | proofs that were not good | `authority.rs`, for both |
//!
//! They begin at 0 with the process. What the database or the log knows (queues, bytes) is asked when somebody reads.

use std::sync::Arc;

use holm_gateway::label;
use holm_gateway::metrics::{Counter, Exposition, Family, Kind};
use holm_model::{ErrorCode, ServiceError};

use crate::HubBackend;
use crate::notices::NoticeKind;
use crate::routing::{Counts, Status};

label! {
    /// Why a proof was not good.
    pub(crate) enum Denial("reason") {
        NotRegistered = "not_registered",
        Disabled = "disabled",
        NoProof = "no_proof",
        Malformed = "malformed",
        Ended = "ended",
        WrongKey = "wrong_key",
        OtherResource = "other_resource",
        OtherKind = "other_kind",
        Certificate = "certificate",
        UnknownPolicy = "unknown_policy",
        NotPermitted = "not_permitted",
        Unavailable = "unavailable",
    }
}

label! {
    /// Why a message was not taken in.
    pub(crate) enum MessageRefusal("reason") {
        TooLarge = "too_large",
        Unavailable = "unavailable",
    }
}

label! {
    /// What was changed of a twin, and by whom.
    pub(crate) enum TwinPart("part") {
        Desired = "desired",
        Reported = "reported",
    }
}

label! {
    /// How a method call ended.
    pub(crate) enum CallOutcome("outcome") {
        /// The method answered with a status below 400.
        Good = "answered",
        /// The method answered with a status of 400 or more.
        Bad = "answered_with_error",
        NotOnline = "not_online",
        NoAnswer = "no_answer",
        BadAnswer = "bad_answer",
        Throttled = "throttled",
        Refused = "refused",
    }
}

label! {
    /// What a device did with a message from the cloud.
    pub(crate) enum Settled("outcome") {
        Completed = "completed",
        Abandoned = "abandoned",
        Rejected = "rejected",
        Released = "released",
    }
}

label! {
    /// The class of an HTTP status.
    pub(crate) enum StatusClass("status") {
        Good = "2xx",
        Redirect = "3xx",
        Wrong = "4xx",
        Failed = "5xx",
    }
}

/// The counters of a hub. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics(Arc<Counters>);

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) messages: Counter,
    pub(crate) message_bytes: Counter,
    pub(crate) messages_refused: Family<MessageRefusal>,
    pub(crate) denied: Family<Denial>,
    pub(crate) requests: Family<StatusClass>,
    pub(crate) twins_changed: Family<TwinPart>,
    pub(crate) twins_refused: Family<TwinPart>,
    pub(crate) calls: Family<CallOutcome>,
    pub(crate) c2d_sent: Counter,
    pub(crate) c2d_settled: Family<Settled>,
    pub(crate) events_read: Counter,
    pub(crate) events_missed: Counter,
}

impl std::ops::Deref for Metrics {
    type Target = Counters;
    fn deref(&self) -> &Counters {
        &self.0
    }
}

impl Counters {
    /// Counts a change of a twin, or its refusal.
    pub(crate) fn twin_change<T>(&self, part: TwinPart, outcome: &Result<T, ServiceError>) {
        match outcome {
            Ok(_) => self.twins_changed.of(part).increment(),
            Err(_) => self.twins_refused.of(part).increment(),
        }
    }

    pub(crate) fn request(&self, status: hyper::StatusCode) {
        let class = match status.as_u16() {
            ..300 => StatusClass::Good,
            300..400 => StatusClass::Redirect,
            400..500 => StatusClass::Wrong,
            500.. => StatusClass::Failed,
        };
        self.requests.of(class).increment();
    }
}

impl CallOutcome {
    /// Of a call that brought no answer.
    pub(crate) const fn of_error(code: ErrorCode) -> Self {
        match code {
            ErrorCode::DeviceNotOnline => Self::NotOnline,
            ErrorCode::GatewayTimeout => Self::NoAnswer,
            ErrorCode::BadDeviceResponse => Self::BadAnswer,
            ErrorCode::ThrottlingException => Self::Throttled,
            _ => Self::Refused,
        }
    }
}

impl HubBackend {
    /// Writes the figures of the hub. What can't be read now is left out.
    pub async fn write_metrics(&self, out: &mut Exposition) {
        let counters = &self.metrics;
        let sessions = u64::try_from(self.signals.directory().count()).unwrap_or(u64::MAX);
        out.gauge(
            "holm_hub_sessions",
            "Devices and modules that are connected now.",
            sessions,
        );
        out.counters(
            "holm_hub_authentications_refused_total",
            "Proofs of devices, modules and policies that were not good, by reason.",
            &counters.denied,
        );
        out.counter(
            "holm_hub_messages_total",
            "Messages of devices and modules that were taken into the event log.",
            counters.messages.get(),
        );
        out.counter(
            "holm_hub_message_bytes_total",
            "Bytes of these messages, with their properties.",
            counters.message_bytes.get(),
        );
        out.counters(
            "holm_hub_messages_refused_total",
            "Messages of devices and modules that were not taken in.",
            &counters.messages_refused,
        );
        out.counters(
            "holm_hub_twin_updates_total",
            "Changes of twins: desired properties and tags by back ends, reported properties by devices and modules.",
            &counters.twins_changed,
        );
        out.counters(
            "holm_hub_twin_updates_refused_total",
            "Changes of twins that were refused.",
            &counters.twins_refused,
        );
        out.counters(
            "holm_hub_method_calls_total",
            "Calls of methods that have ended, by outcome.",
            &counters.calls,
        );
        out.counter(
            "holm_hub_c2d_sent_total",
            "Cloud-to-device messages that were taken in.",
            counters.c2d_sent.get(),
        );
        out.counters(
            "holm_hub_c2d_settled_total",
            "Deliveries of cloud-to-device messages that were settled, by what the device did.",
            &counters.c2d_settled,
        );
        out.counter(
            "holm_hub_c2d_damaged_total",
            "Cloud-to-device messages that could not be read back and were removed.",
            self.mailboxes.damaged(),
        );
        if let Ok(waiting) = self.repository.read(|view| view.waiting_in_all()).await {
            out.gauge(
                "holm_hub_c2d_waiting",
                "Cloud-to-device messages that wait for their devices.",
                waiting,
            );
        }
        for (kind, waiting, lost, what) in [
            (
                NoticeKind::Feedback,
                "holm_hub_feedback_waiting",
                "holm_hub_feedback_lost_total",
                "Records of feedback",
            ),
            (
                NoticeKind::FileNotification,
                "holm_hub_file_notifications_waiting",
                "holm_hub_file_notifications_lost_total",
                "Notifications of files",
            ),
        ] {
            let count = u64::try_from(self.notices.waiting(kind)).unwrap_or(u64::MAX);
            out.gauge(waiting, &format!("{what} that no back end has taken yet."), count);
            let text = format!("{what} that were given up because too many waited, or could not be read back.");
            out.counter(lost, &text, self.notices.lost(kind));
        }
        out.gauge(
            "holm_hub_event_log_bytes",
            "Bytes of the event log on disk.",
            self.log.disk_bytes(),
        );
        out.gauge(
            "holm_hub_event_readers",
            "Clients of the Event Hub that read a partition now.",
            u64::try_from(self.readers.count()).unwrap_or(u64::MAX),
        );
        out.counter(
            "holm_hub_events_read_total",
            "Events that were read by them.",
            counters.events_read.get(),
        );
        out.counter(
            "holm_hub_events_missed_total",
            "Events that were no longer kept when a client came to read them.",
            counters.events_missed.get(),
        );
        self.write_routing(out);
        out.counters(
            "holm_hub_requests_total",
            "Requests of back ends over HTTPS that were answered, by class of status.",
            &counters.requests,
        );
    }

    /// The figures of message routing, a point for each endpoint: at most a hundred.
    fn write_routing(&self, out: &mut Exposition) {
        out.counter(
            "holm_hub_messages_unrouted_total",
            "Messages of devices and modules that no route took while the fallback route was off.",
            self.routing.unrouted(),
        );
        let endpoints = self.routing.figures();
        let mut each = |name: &str, help: &str, kind: Kind, value: &dyn Fn(&EndpointFigures) -> u64| {
            out.begin(name, help, kind);
            for figures in &endpoints {
                out.point(&[("endpoint", &figures.0)], value(figures));
            }
        };
        each(
            "holm_hub_endpoint_waiting",
            "Messages that wait for an endpoint of message routing.",
            Kind::Gauge,
            &|(.., waiting)| waiting.0,
        );
        each(
            "holm_hub_endpoint_healthy",
            "Whether the endpoint took what it was given last: 1 or 0.",
            Kind::Gauge,
            &|(_, _, status, _)| u64::from(matches!(status, Status::Healthy | Status::Unknown)),
        );
        each(
            "holm_hub_endpoint_delivered_total",
            "Messages that the endpoint took.",
            Kind::Counter,
            &|(_, counts, ..)| counts.delivered,
        );
        each(
            "holm_hub_endpoint_dropped_total",
            "Messages that waited longer for the endpoint, or were more, than its definition allows.",
            Kind::Counter,
            &|(_, counts, ..)| counts.dropped,
        );
        each(
            "holm_hub_endpoint_rejected_total",
            "Messages that the endpoint can never take; they are dropped, or go to its endpoint for dead letters.",
            Kind::Counter,
            &|(_, counts, ..)| counts.rejected,
        );
        each(
            "holm_hub_endpoint_failures_total",
            "Attempts at which the endpoint did not take what it was given.",
            Kind::Counter,
            &|(_, counts, ..)| counts.failures,
        );
        each(
            "holm_hub_endpoint_latency_milliseconds",
            "How long the newest message that the endpoint took was on its way from the hub.",
            Kind::Gauge,
            &|(_, counts, ..)| counts.latency_millis.unwrap_or(0),
        );
    }
}

/// An endpoint with its figures, as [`crate::routing::Routing::figures`] gives them.
type EndpointFigures = (String, Counts, Status, (u64, u64));
