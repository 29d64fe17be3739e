//! Names in AMQP messages of devices and modules, beside the standard's own properties.
//!
//! ```text
//! up     application properties  iothub-ack, iothub-outputname, …        annotations  iothub-interface-id, dt-subject, …
//! down   application properties  iothub-ack                              annotations  iothub-enqueuedtime, x-opt-lock-token, …
//! ```
//!
//! Source: `hub-device-protocols.md` §3.4.

use crate::SystemProperty;

/// Application properties that say something to the platform.
pub const RESERVED: &[(&str, SystemProperty)] = &[
    ("iothub-ack", SystemProperty::Ack),
    ("iothub-outputname", SystemProperty::OutputName),
    ("iothub-creation-time-utc", SystemProperty::CreationTime),
    ("iothub-message-schema", SystemProperty::MessageSchema),
    ("iothub-operation", SystemProperty::Operation),
];

/// Annotations of a message from a device or module.
pub const ANNOTATIONS_UP: &[(&str, SystemProperty)] = &[
    ("iothub-interface-id", SystemProperty::InterfaceId),
    ("dt-subject", SystemProperty::Subject),
    ("Diagnostic-Id", SystemProperty::DiagnosticId),
    ("Correlation-Context", SystemProperty::DiagnosticContext),
    ("x-opt-output-name", SystemProperty::OutputName),
];

/// When a message was taken in: a timestamp.
pub const ENQUEUED_TIME: &str = "iothub-enqueuedtime";
/// How often delivery was tried before: a ubyte.
pub const DELIVERY_COUNT: &str = "iothub-deliverycount";
/// The number of a message in its queue: a ulong, to devices; a long, to readers of events.
pub const SEQUENCE_NUMBER: &str = "x-opt-sequence-number";
/// The lease of a delivery: a string (C# and the original edge read only that).
pub const LOCK_TOKEN: &str = "x-opt-lock-token";
/// The input that a message is for: a string.
pub const INPUT_NAME: &str = "x-opt-input-name";
/// The device that sent a message.
pub const CONNECTION_DEVICE_ID: &str = "iothub-connection-device-id";
/// The module that sent a message.
pub const CONNECTION_MODULE_ID: &str = "iothub-connection-module-id";

/// The application property of a method call: its name.
pub const METHOD_NAME: &str = "IoThub-methodname";
/// The application property of a method's answer: its status, an int.
pub const METHOD_STATUS: &str = "IoThub-status";

/// Annotation of a twin request: `GET`, `PATCH`, `PUT` or `DELETE`.
pub const TWIN_OPERATION: &str = "operation";
/// Annotation of a twin request and of a change: what of the twin.
pub const TWIN_RESOURCE: &str = "resource";
/// Annotation of a twin's answers and changes: the version, a long.
pub const TWIN_VERSION: &str = "version";
/// Annotation of a twin's answers: the status, an int.
pub const TWIN_STATUS: &str = "status";
/// The resource that a PATCH changes.
pub const REPORTED: &str = "/properties/reported";
/// The resource that a change is of.
pub const DESIRED: &str = "/properties/desired";
/// The resource that PUT subscribes to and DELETE lets go.
pub const DESIRED_NOTIFICATIONS: &str = "/notifications/twin/properties/desired";

/// Link property: what ties the two links of methods, or of a twin, together.
pub const CHANNEL_CORRELATION_ID: &str = "com.microsoft:channel-correlation-id";
/// Link property: the client's library and its version.
pub const CLIENT_VERSION: &str = "com.microsoft:client-version";
/// Link property: the version of the interface that the client was written for.
pub const API_VERSION: &str = "com.microsoft:api-version";
/// Link property: the digital-twin model of the client.
pub const MODEL_ID: &str = "com.microsoft:model-id";
/// Link property: for whom, and through whom, an edge speaks.
pub const AUTH_CHAIN: &str = "com.microsoft:auth-chain";
/// In the info of an error: what ties it to a line of the log.
pub const TRACKING_ID: &str = "com.microsoft:tracking-id";

/// Properties of the platform that a receiver is not told as properties of the application.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|(reserved, _)| *reserved == name)
}
