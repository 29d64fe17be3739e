//! The kinds of endpoints.

mod address;
mod file;
mod link;
mod mqtt;
mod nats;
mod record;
mod template;
#[cfg(test)]
mod testing;
mod webhook;

use super::definition::{DefinitionError, Settings};
use super::endpoint::{Endpoint, Surroundings};

#[doc(hidden)]
pub use nats::hears_nats_the_same;

/// Makes an endpoint of its settings. It connects when there is something to send.
///
/// # Errors
/// [`DefinitionError`]: what in the settings can't work, with the member.
pub fn open(settings: &Settings, surroundings: &Surroundings) -> Result<Box<dyn Endpoint>, DefinitionError> {
    Ok(match settings {
        Settings::Webhook(settings) => Box::new(webhook::Webhook::new(settings, surroundings)?),
        Settings::Mqtt(settings) => Box::new(mqtt::endpoint(settings, surroundings)?),
        Settings::Nats(settings) => Box::new(nats::endpoint(settings, surroundings)?),
        Settings::File(settings) => Box::new(file::FileEndpoint::new(settings, surroundings)?),
    })
}

/// Whether an endpoint can be made of these settings. Nothing is begun, so that an endpoint of the same settings may work meanwhile.
///
/// # Errors
/// As [`open`].
pub fn check(settings: &Settings, surroundings: &Surroundings) -> Result<(), DefinitionError> {
    match settings {
        Settings::File(settings) => file::FileEndpoint::check(settings, surroundings).map(drop),
        Settings::Webhook(_) | Settings::Mqtt(_) | Settings::Nats(_) => open(settings, surroundings).map(drop),
    }
}
