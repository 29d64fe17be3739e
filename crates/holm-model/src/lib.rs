//! The nouns of Holm: who takes part, what they say to each other, and what is configured, with the published rules for
//! each. A value of a type of this crate is valid because it exists: text is parsed once, at the boundary.
//!
//! This crate never knows a socket, a clock, a file or a random number.

pub mod configuration;
pub mod error;
pub mod etag;
pub mod hex;
pub mod identity;
pub mod manifest;
pub mod message;
pub mod method;
pub mod provisioning;
pub mod strict_json;
pub mod time;
pub mod twin;
pub mod wire;

pub use error::{ErrorCode, ServiceError, TrackingId};
pub use identity::{DeviceId, Identity, InvalidId, ModuleId};
pub use message::{Message, Properties, SystemProperties, SystemProperty};
pub use method::{MethodRequest, MethodResponse};
pub use provisioning::{ProvisioningCode, ProvisioningError, RegistrationId};
pub use time::Timestamp;
pub use twin::{Twin, TwinUpdate};
