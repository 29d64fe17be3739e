//! The event log: what devices and modules sent, and what the hub has to tell of them.
//!
//! ```text
//! device message --stamp--> partition of its device --commit--> acknowledged
//! change of state -> outbox (same transaction) --relay--> partition of its device
//! ```
//!
//! - One device, one partition: [`partition_of`]. Sequence numbers of a partition are dense, start at 0 and are given out
//!   once, but for a log that was restored from a backup; they are the positions of a lane of `holm-queue`.
//! - Readers see only what is on disk.

pub mod connection_state;
pub mod consumer_groups;
mod interest;
mod log;
pub mod notice;
pub mod readers;
mod relay;

pub use connection_state::ConnectionStates;
pub use consumer_groups::ConsumerGroups;
pub use interest::Interest;
pub use log::{EventLog, EventReader, From, LogError, Receipt, Stored};
pub(crate) use log::{Filing, timestamp, unix_millis};
pub use readers::{Readers, Seat};
pub use relay::Relay;

use holm_model::DeviceId;

/// The `iothub-message-source` of what devices and modules send.
pub const TELEMETRY: &str = "Telemetry";

/// The `iothub-message-source` of changed twins.
pub const TWIN_CHANGES: &str = "twinChangeEvents";

/// The `iothub-message-source` of identities that came and went.
pub const LIFECYCLE: &str = "deviceLifecycleEvents";

/// The `iothub-message-source` of devices and modules that connected or disconnected.
pub const CONNECTION_STATES: &str = "deviceConnectionStateEvents";

/// The `iothub-message-source` of what jobs did with devices and modules.
pub const DEVICE_JOBS: &str = "deviceJobLifecycleEvents";

/// The `iothub-message-source` of changed digital twins.
pub const DIGITAL_TWIN_CHANGES: &str = "digitalTwinChangeEvents";

/// The partition of a device: FNV-1a with 64 bits over the bytes of its id, modulo the number of partitions. Fixed for
/// ever, since it decides where a device's events are looked for; described in `docs/formats/event-log.md`.
#[must_use]
pub fn partition_of(device: &DeviceId, partitions: u16) -> u16 {
    u16::try_from(fnv_1a(device.as_str()) % u64::from(partitions.max(1))).unwrap_or(0)
}

/// FNV-1a with 64 bits.
fn fnv_1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_of_a_device_never_changes() {
        let partition = |id: &str| partition_of(&DeviceId::new(id).unwrap(), 4);

        // FNV-1a of "a" is af63dc4c8601ec8c, of "foobar" 85944171f73967e8 (the published test vectors).
        assert_eq!(partition("a"), (0xaf63_dc4c_8601_ec8c_u64 % 4) as u16);
        assert_eq!(partition("foobar"), (0x8594_4171_f739_67e8_u64 % 4) as u16);
    }

    #[test]
    fn devices_spread_over_all_partitions() {
        let mut counts = [0; 4];
        for number in 0..1000 {
            counts[usize::from(partition_of(&DeviceId::new(&format!("device-{number}")).unwrap(), 4))] += 1;
        }

        assert!(counts.iter().all(|count| (150..350).contains(count)), "{counts:?}");
    }
}
