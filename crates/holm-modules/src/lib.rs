//! Modules that come with Holm: `sensor` replays recorded machine data, `watcher` raises an alert when it is unusual,
//! `summary` condenses each interval. They are ordinary modules: they know the device only through its published
//! interfaces.

pub mod detector;
pub mod digest;
pub mod host;
pub mod reading;
pub mod recording;
pub mod sensor;
pub mod summary;
pub mod watcher;

pub use host::ModuleError;

/// The names of the modules here.
pub const NAMES: &[&str] = &["sensor", "watcher", "summary"];

/// Runs a module by name until `stop` resolves. Its settings come from its environment.
///
/// # Errors
/// [`ModuleError`].
pub async fn run(name: &str, stop: impl Future<Output = ()> + Send) -> Result<(), ModuleError> {
    match name {
        "sensor" => {
            let interval = host::number("INTERVAL_MS", 100)?;
            let limit = std::env::var("READINGS")
                .ok()
                .map(|_| host::number("READINGS", 0))
                .transpose()?;
            let run = format!("{:x}", std::process::id());
            let run = format!("{run}{:x}", getrandom::u32().unwrap_or_default());
            host::run(
                sensor::Sensor::new(recording::Recording::water_flow(), run, interval, limit),
                stop,
            )
            .await
        }
        "watcher" => host::run(watcher::Watcher::default(), stop).await,
        "summary" => {
            let size = u32::try_from(host::number("SIZE", 24)?).unwrap_or(u32::MAX);
            host::run(summary::Condenser::new(size), stop).await
        }
        unknown => Err(ModuleError::Unknown(unknown.to_owned())),
    }
}
