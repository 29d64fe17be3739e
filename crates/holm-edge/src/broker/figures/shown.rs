//! How the figures of a broker are shown: the published names, in the form that Prometheus reads.

use holm_gateway::metrics::{Counter, Exposition, Kind, Series, Summary};
use holm_query::Sink;

use super::{OTHER, Timed, UPSTREAM_ENDPOINT};
use crate::broker::Broker;

impl Broker {
    /// Writes the published figures of the broker.
    pub fn write_figures(&self, out: &mut Exposition) {
        let figures = &self.figures;
        let count = |out: &mut Exposition, name: &str, help: &str, series: &Series<Counter>| {
            out.begin(&format!("edgehub_{name}"), help, Kind::Counter);
            series.each(|labels, counter| out.point(&telemetry(labels), counter.get()));
        };
        let measure = |out: &mut Exposition, name: &str, help: &str, series: &Series<Summary>| {
            out.begin(&format!("edgehub_{name}"), help, Kind::Summary);
            series.each(|labels, summary| out.point(labels, summary.read()));
        };
        let timed = |out: &mut Exposition, names: [&str; 2], helps: [&str; 2], series: &Series<Timed>| {
            let ([total, duration], [help, time_help]) = (names, helps);
            out.begin(&format!("edgehub_{total}"), help, Kind::Counter);
            series.each(|labels, timed| out.point(&telemetry(labels), timed.count.get()));
            out.begin(&format!("edgehub_{duration}"), time_help, Kind::Summary);
            series.each(|labels, timed| out.point(labels, timed.time.read()));
        };
        timed(
            out,
            ["gettwin_total", "gettwin_duration_seconds"],
            ["Twins that were asked for.", "Time until a twin was there."],
            &figures.twins,
        );
        count(
            out,
            "messages_received_total",
            "Messages received from modules and devices.",
            &figures.received,
        );
        count(
            out,
            "messages_sent_total",
            "Messages that their receivers have acknowledged.",
            &figures.sent,
        );
        self.write_dropped(out);
        count(
            out,
            "messages_unack_total",
            "Messages that were not acknowledged to their senders, since they could not be stored.",
            &figures.unacknowledged,
        );
        timed(
            out,
            [
                "reported_properties_total",
                "reported_properties_update_duration_seconds",
            ],
            [
                "Changes of reported properties.",
                "Time until a change was kept or taken over.",
            ],
            &figures.reports,
        );
        measure(
            out,
            "message_size_bytes",
            "Bytes of messages with their properties.",
            &figures.sizes,
        );
        measure(
            out,
            "message_send_duration_seconds",
            "Time from handing a message over until it was acknowledged.",
            &figures.send_times,
        );
        measure(
            out,
            "message_process_duration_seconds",
            "Time from taking a message in until its receiver acknowledged it.",
            &figures.process_times,
        );
        timed(
            out,
            ["direct_methods_total", "direct_method_duration_seconds"],
            ["Methods that were called.", "Time until a method was answered."],
            &figures.methods,
        );
        count(
            out,
            "operation_retry_total",
            "Operations that were tried again.",
            &figures.retries,
        );
        count(
            out,
            "client_connect_success_total",
            "Clients that were let in.",
            &figures.connected,
        );
        count(
            out,
            "client_connect_failed_total",
            "Clients that were not let in.",
            &figures.not_connected,
        );
        count(
            out,
            "client_disconnect_total",
            "Clients whose connection has ended.",
            &figures.disconnected,
        );
        self.write_state(out);
    }

    /// Expired messages that nobody read before they were dropped are told without their sender.
    fn write_dropped(&self, out: &mut Exposition) {
        out.begin(
            "edgehub_messages_dropped_total",
            "Deliveries that were dropped.",
            Kind::Counter,
        );
        self.figures
            .dropped
            .each(|labels, counter| out.point(&telemetry(labels), counter.get()));
        let unread = self.expired_deliveries().saturating_sub(self.figures.expired.get());
        let labels = [("reason", "ttl_expiry"), ("from", OTHER), ("from_route_output", OTHER)];
        out.point(&telemetry(&labels), unread);
    }

    fn write_state(&self, out: &mut Exposition) {
        out.begin(
            "edgehub_queue_length",
            "Messages that wait for an endpoint.",
            Kind::Gauge,
        );
        let device = self.keys.device();
        let mut waiting = std::collections::BTreeMap::new();
        for (name, lane) in self.lanes.all() {
            let endpoint = match &name.endpoint {
                Sink::Upstream => UPSTREAM_ENDPOINT.to_owned(),
                Sink::Module { module, input } => format!("{device}/{module}/{input}"),
            };
            // Senders that were set aside wait for the same endpoint.
            *waiting.entry((endpoint, name.priority)).or_insert(0) +=
                self.lanes.queue().depth(lane).map_or(0, |depth| depth.records);
        }
        for ((endpoint, priority), messages) in waiting {
            let priority = priority.to_string();
            out.point(
                &telemetry(&[("endpoint", &endpoint), ("priority", &priority)]),
                messages,
            );
        }
        let id = self.edge_hub.to_string();
        let offline = telemetry(&[("id", &id)]);
        out.begin(
            "edgehub_offline_count_total",
            "How often the link to the node above went down.",
            Kind::Counter,
        );
        out.point(&offline, self.figures.outages.get());
        out.begin(
            "edgehub_offline_duration_seconds",
            "How long it was down.",
            Kind::Summary,
        );
        out.point(&[("id", &id)], self.figures.outage_times.read());
        out.begin(
            "edgehub_connected_clients",
            "Clients that are connected now.",
            Kind::Gauge,
        );
        let clients = u64::try_from(self.sessions.count()).unwrap_or(u64::MAX);
        out.point(&telemetry(&[]), clients);
    }
}

/// With the label that stands at most published figures that are no measures of time and size.
fn telemetry<'a>(labels: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    labels.iter().copied().chain([("ms_telemetry", "True")]).collect()
}
