//! Seeded simulations of Holm: the real hub and the real edge in one process and in virtual time, with modules and a device
//! below as clients, over links, disks and clocks that fail as a seed says.
//!
//! ```text
//!   hub (holm-hub, gateway) <── network: up, slow, half open, cut ──> edge (holm-edge, whole) <──> programs (holm-client)
//!        clock, process                                               clock, process, power, disk      process
//! ```
//!
//! The seed decides every fault, its moment and every message: the same seed gives the same schedule. The order in which
//! ready tasks run within one virtual moment, random ids and the jitter of reconnections are not decided by it; so a run is
//! repeated in what happens to it, not step by step.

pub mod chance;
pub mod device;
pub mod hub;
pub mod journal;
pub mod ledger;
pub mod network;
pub mod programs;
pub mod runtime;
pub mod story;
pub mod time;
