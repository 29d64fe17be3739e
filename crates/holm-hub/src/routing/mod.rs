//! Message routing: which messages of devices, and which events of the hub, go where.
//!
//! ```text
//! message --Table--> lanes of the event log, in the commit that the acknowledgement waits for
//!                      |-- the partition of its device: the destination `events`
//!                      '-- a lane for each endpoint --Delivery, a task each--> Endpoint::send --> acknowledged in its lane
//! ```
//!
//! - It is decided once, when a message is taken in, where it goes and what is added to it. What routes say later changes nothing of
//!   what waits.
//! - Endpoints hold up nobody: no other endpoint, no reader of `events`, no device. Each has its own lane and its own task.
//! - At least once, and in order for each device.
//! - With nothing configured a message goes the way that it went without routing, at the price of one comparison.
//!
//! `rules` is what operators write, `documents` what may be written, [`Table`] all of it together, `config` how it changes; `delivery` the work of an endpoint,
//! `endpoints` the kinds of them. Why lanes, and why at intake: `docs/decisions/0018-routes-are-decided-at-intake.md`.

mod config;
pub mod definition;
mod delivery;
mod documents;
pub mod endpoint;
pub mod endpoints;
mod health;
mod live;
mod rules;
pub mod source;
mod table;
mod trial;
mod twins;

pub use config::{Parts, Routing, RoutingError};
pub use definition::{EndpointDefinition, EndpointName, Settings};
pub use documents::FALLBACK;
pub use endpoint::{Endpoint, Limits, Routed, SendError, Surroundings};
pub use health::{Counts, Status};
pub use rules::{Destination, Enrichment, EnrichmentValue, Route, problem_to_json};
pub use source::Source;
pub use table::{MAX_ENDPOINTS, MAX_ENRICHMENTS, MAX_ROUTES, Table, Verdict};
pub use trial::Trial;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use holm_model::{DeviceId, Identity, Message, ModuleId, SystemProperty, Timestamp, Twin};
use holm_queue::AppendError;

use crate::events::{EventLog, LogError, Receipt};

/// How often a message is decided about anew because routes changed while it was filed.
const MAX_TRIES: u32 = 8;

impl Routing {
    /// Takes a message to where it goes. The receipt resolves when it is on disk there, for all of them; at once for one that goes
    /// nowhere. Waits where too much waits for the disk.
    ///
    /// # Errors
    /// [`LogError`]; then the sender is to send again.
    pub async fn append(
        &self,
        device: &DeviceId,
        source: Source,
        message: &Message,
        now: Timestamp,
    ) -> Result<Receipt, LogError> {
        if source == Source::DeviceMessages && self.shared().is_plain.load(Ordering::Acquire) {
            return self.log().append_when_room(device, now, message.encode()).await;
        }
        let events = self.log().lane_of(device)?;
        let mut tries = 0;
        loop {
            let table = self.table();
            let twin = if table.reads_twin(source) {
                self.twin_of(device, message).await?
            } else {
                None
            };
            let decision = table.decide(source, message, twin.as_deref());
            let filings = table.file(decision, message, twin.as_deref(), events, now);
            if filings.is_empty() {
                if source == Source::DeviceMessages {
                    self.shared().unrouted.increment();
                }
                return Ok(Receipt::NOTHING);
            }
            tries += 1;
            match self.log().file_when_room(device.as_str(), now, &filings).await {
                // An endpoint was removed after the table was looked at: the new table knows.
                Err(LogError::Append(AppendError::UnknownLane { .. })) if tries < MAX_TRIES => {}
                result => return result,
            }
        }
    }

    /// The log that everything goes to.
    #[must_use]
    pub fn log(&self) -> &EventLog {
        &self.shared().log
    }

    async fn twin_of(&self, device: &DeviceId, message: &Message) -> Result<Option<Arc<Twin>>, LogError> {
        let module = message.system.get(SystemProperty::ConnectionModuleId);
        let module = module.and_then(|module| ModuleId::new(module).ok());
        let identity = Identity {
            device: device.clone(),
            module,
        };
        self.shared().twins.of(&identity).await.map_err(LogError::Twin)
    }
}
