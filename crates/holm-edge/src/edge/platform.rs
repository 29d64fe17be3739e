//! What an edge takes from the machine that it runs on, so that it can run on another one: a simulated one.
//!
//! Ports, the management socket and the data directory are still the machine's.

use std::sync::Arc;

use holm_net::{Clock, Dialer};
use holm_queue::{Clock as QueueClock, FileSystem};

use crate::runtimes::Runtimes;

/// What an edge stands on. The default is this machine; a simulation gives its own time, network, disk and modules.
#[derive(Debug, Default)]
pub struct Platform {
    /// Tells the time of day.
    pub clock: Clock,
    /// How other machines are reached.
    pub dialer: Dialer,
    /// Where messages are kept; the data directory if none is given.
    pub messages: Option<Arc<dyn FileSystem>>,
    /// By which messages live; a clock that goes on evenly, kept in the data directory, if none is given.
    pub lives: Option<QueueClock>,
    /// Where modules run; as processes and in containers if none are given.
    pub runtimes: Option<Runtimes>,
}
