//! Modules that come with Holm: `sensor` replays recorded machine data, `watcher` raises an alert when it is unusual,
//! `summary` condenses each interval. They are ordinary modules: they know the device only through its published
//! interfaces.

pub mod detector;
pub mod digest;
pub mod recording;
