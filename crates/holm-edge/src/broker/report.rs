//! The configuration comes in force, and `$edgeHub` reports what became of it and who is connected (`edge-broker.md` §6).

use std::sync::Mutex;

use holm_model::manifest::{BuildVersion, DesiredStatus, EdgeHubReported};
use holm_model::twin::patch;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::routes::Table;
use super::{Broker, CONFIGURATION, TRY_AGAIN, lock};

/// What is to be reported, and whether something of it has changed.
#[derive(Debug, Default)]
pub(super) struct Report {
    changed: Notify,
    /// The version of the last desired properties and what became of them; `None` before the first.
    desired: Mutex<Option<(u64, DesiredStatus)>>,
}

impl Report {
    /// Says that something has changed.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    /// What became of the last desired properties.
    pub(super) fn desired(&self) -> Option<(u64, DesiredStatus)> {
        lock(&self.desired).clone()
    }

    fn put(&self, version: u64, status: DesiredStatus) {
        *lock(&self.desired) = Some((version, status));
        self.wake();
    }
}

impl Broker {
    /// Puts the desired properties of `$edgeHub` in force, if they are right.
    pub(super) async fn configure(&self) {
        let replica = match self.twins.read(&self.edge_hub).await {
            Ok(replica) if replica.desired_version() > 0 => replica,
            Ok(_) => return,
            Err(error) => return tracing::error!(%error, "the configuration of the broker can't be read"),
        };
        let (version, desired) = (replica.desired_version(), replica.desired());
        let status = match Table::compile(desired) {
            Ok(table) => {
                let document = json!({ "version": version, "desired": desired });
                if let Err(error) = self.state.put_document(CONFIGURATION, &document).await {
                    tracing::error!(%error, "the routes are in force, and would not be after a restart");
                }
                tracing::info!(version, sinks = table.set.sinks().len(), "routes are in force");
                if desired.keys().any(|name| name.eq_ignore_ascii_case("mqttBroker")) {
                    tracing::warn!(
                        version,
                        "`mqttBroker` of `$edgeHub` has no effect: topics of one's own are not yet supported"
                    );
                }
                self.lanes.queue().set_max_bytes(table.quota.max_bytes);
                self.routes.put(table);
                DesiredStatus::applied()
            }
            Err(status) => {
                tracing::warn!(
                    version,
                    description = status.description,
                    "routes were refused; those before stay in force"
                );
                status
            }
        };
        self.report.put(version, status);
    }

    /// Reports whenever something has changed. Changes that come while one report is being written are one more report.
    pub(super) async fn keep_reporting(&self, build: BuildVersion) {
        loop {
            self.report.changed.notified().await;
            let Some((version, status)) = self.report.desired() else {
                continue;
            };
            let report = EdgeHubReported {
                schema_version: "1.0".to_owned(),
                version: build.clone(),
                last_desired_version: Some(version),
                last_desired_status: status,
                clients: self.sessions.report(),
            };
            if let Ok(Value::Object(report)) = serde_json::to_value(report)
                && !self.is_kept(report).await
            {
                // Nothing else may change before the disk has space again, and then the old report would stand.
                self.state_recovers().await;
                self.report.wake();
            }
        }
    }

    async fn state_recovers(&self) {
        loop {
            tokio::time::sleep(TRY_AGAIN).await;
            if self.state.health().is_ok() {
                return;
            }
        }
    }

    async fn is_kept(&self, report: serde_json::Map<String, Value>) -> bool {
        let reported = self
            .twins
            .change(&self.edge_hub, |replica| {
                let difference = patch::diff(replica.reported(), &report);
                if difference.is_empty() {
                    return Ok(false);
                }
                replica.patch_reported(&difference).map(|()| true)
            })
            .await;
        match reported {
            Ok(true) => {
                if let Some(link) = self.links.ensure(&self.edge_hub) {
                    link.wake();
                }
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, "the report of `$edgeHub` is not kept yet");
                return false;
            }
        }
        true
    }
}
