//! The table of published error names, their numbers and HTTP statuses.
//!
//! A number's first three digits are its HTTP status, with one exception that clients rely on: `IotHubNotFound` (401001)
//! travels as 404. Where the two sheets name 400003 and 400006 differently, the names of the service SDKs stand, because
//! they are read from source.

use std::fmt;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident, $status:literal, $number:expr;)*) => {
        /// A published error. Shown as its name, exactly as in the header `iothub-errorcode`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
        }

        impl ErrorCode {
            /// Every error there is.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The published name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// The HTTP status, which is also the status of a twin answer.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// The six-digit number, for the names that have a published one.
            #[must_use]
            pub const fn number(self) -> Option<u32> {
                match self { $(Self::$name => $number,)* }
            }
        }
    };
}

error_codes! {
    /// The `api-version` is missing or malformed.
    InvalidProtocolVersion, 400, Some(400_001);
    /// The request makes no sense in this state.
    InvalidOperation, 400, Some(400_003);
    /// A value in the request breaks a rule.
    ArgumentInvalid, 400, Some(400_004);
    /// A value that the request needs is missing.
    ArgumentNull, 400, Some(400_005);
    /// A value is not in the form it must have.
    IotHubFormatError, 400, Some(400_006);
    /// The blob container of a job can't be written.
    BlobContainerValidationError, 400, Some(400_008);
    /// The schema version is not known.
    InvalidSchemaVersion, 400, Some(400_010);
    /// A bulk request names a device twice.
    DeviceDefinedMultipleTimes, 400, Some(400_011);
    /// The body is not the JSON that was expected.
    DeserializationError, 400, Some(400_012);
    /// At least one item of a bulk request failed.
    BulkRegistryOperationFailure, 400, Some(400_013);
    /// A newer connection of the same identity took over.
    ConnectionForcefullyClosedOnNewConnection, 400, Some(400_027);
    /// No certificate is issued for what was asked, and `info` says why. The number is published, the name is ours.
    CertificateNotIssued, 400, Some(400_037);
    /// A module can't have modules.
    CannotRegisterModuleToModule, 400, Some(400_301);
    /// There is no such hub.
    IotHubNotFound, 404, Some(401_001);
    /// The policy lacks the permission.
    IotHubUnauthorizedAccess, 401, Some(401_002);
    /// The credential is missing, wrong or expired.
    IotHubUnauthorized, 401, Some(401_003);
    /// The hub is suspended.
    IotHubSuspended, 403, Some(403_001);
    /// The daily message quota is used up.
    IotHubQuotaExceeded, 403, Some(403_002);
    /// Too many jobs at once.
    JobQuotaExceeded, 403, Some(403_003);
    /// The device's queue of cloud-to-device messages is full.
    DeviceMaximumQueueDepthExceeded, 403, Some(403_004);
    /// Too many tokens on one connection.
    IotHubMaxCbsTokenExceeded, 403, Some(403_005);
    /// Too many file uploads are open.
    DeviceMaximumActiveFileUploadLimitExceeded, 403, Some(403_006);
    /// The identity is disabled.
    DeviceDisabled, 403, Some(403_012);
    /// There is no such device.
    DeviceNotFound, 404, Some(404_001);
    /// There is no such job.
    JobNotFound, 404, Some(404_002);
    /// There is no such module.
    ModuleNotFound, 404, Some(404_010);
    /// Nobody listens for methods under this identity.
    DeviceNotOnline, 404, Some(404_103);
    /// The device closed its connection.
    DeviceConnectionClosedRemotely, 404, Some(404_104);
    /// A device of this id exists.
    DeviceAlreadyExists, 409, Some(409_001);
    /// A link of this kind is being made by somebody else.
    LinkCreationConflict, 409, Some(409_002);
    /// This request for a certificate is being worked on. The number is published, the name is ours.
    CertificateRequestPending, 409, Some(409_004);
    /// Another request for a certificate is being worked on. The number is published, the name is ours.
    CertificateRequestConflict, 409, Some(409_005);
    /// A module of this id exists on the device.
    ModuleAlreadyExistsOnDevice, 409, Some(409_301);
    /// The `If-Match` etag is not the current one.
    PreconditionFailed, 412, Some(412_001);
    /// The lock on a cloud-to-device message ran out or never was.
    DeviceMessageLockLost, 412, Some(412_002);
    /// The message or document is larger than allowed.
    MessageTooLarge, 413, Some(413_001);
    /// The hub has as many devices as it may.
    TooManyDevices, 413, Some(413_002);
    /// The device has as many modules as it may.
    TooManyModulesOnDevice, 413, Some(413_003);
    /// Too many requests of some kind.
    GenericTooManyRequests, 429, Some(429_000);
    /// Too many requests of this kind.
    ThrottlingException, 429, Some(429_001);
    /// Too many requests already wait.
    ThrottleBacklogLimitExceeded, 429, Some(429_002);
    /// The request waited too long for its turn.
    ThrottlingBacklogTimeout, 429, Some(429_003);
    /// Too many jobs are active.
    ThrottlingMaxActiveJobCountExceeded, 429, Some(429_004);
    /// The device sends too much.
    DeviceThrottlingLimitExceeded, 429, Some(429_005);
    /// The fault is ours.
    ServerError, 500, Some(500_001);
    /// The job was cancelled.
    JobCancelled, 500, Some(500_002);
    /// An inner operation took too long.
    GenericTimeout, 500, Some(500_008);
    /// A temporary condition; try again.
    ServiceUnavailable, 503, Some(503_001);
    /// There is no such partition.
    PartitionNotFound, 503, Some(503_003);
    /// The device was called and did not answer in time.
    GatewayTimeout, 504, Some(504_101);
    /// There is no such configuration.
    ConfigurationNotFound, 404, None;
    /// A configuration of this id exists.
    ConfigurationAlreadyExists, 409, None;
    /// The hub has as many configurations as it may.
    ConfigurationCountLimitExceeded, 413, None;
    /// The target condition does not parse.
    InvalidConfigurationTargetCondition, 400, None;
    /// The content of a configuration is not valid.
    InvalidConfigurationContent, 400, None;
    /// A custom metric of a configuration does not parse.
    InvalidConfigurationCustomMetricsQuery, 400, None;
    /// The content of a configuration can't be changed after it was made.
    CannotModifyImmutableConfigurationContent, 400, None;
    /// Content is being applied to this device already.
    ApplyConfigurationAlreadyInProgressOnDevice, 409, None;
    /// System modules can't be made, changed or deleted by the service.
    SystemModuleModifyUnauthorizedAccess, 403, None;
    /// A section of a twin would be larger than allowed.
    DeviceModelMaxPropertiesExceeded, 403, None;
    /// The device scope names no edge device.
    InvalidDeviceScope, 400, None;
    /// The etag in the body is not the current one.
    EtagDoesNotMatch, 412, None;
    /// A job of this id exists.
    JobAlreadyExists, 409, None;
    /// The device is in this job already.
    DeviceJobAlreadyExists, 409, None;
    /// The job's conditions do not hold.
    JobRunPreconditionFailed, 412, None;
    /// What was asked is not allowed now.
    OperationNotAllowedInCurrentState, 409, None;
    /// The named key does not exist.
    InvalidPolicyKey, 400, None;
    /// The device answered a method with something that is not JSON. The status is published, the name is ours.
    BadDeviceResponse, 502, None;
}

impl ErrorCode {
    /// The error of a published name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }

    /// The number for the member `errorCode` of a device's answer: the published one, else the status followed by 000.
    #[must_use]
    pub fn device_number(self) -> u32 {
        self.number().unwrap_or_else(|| u32::from(self.status()) * 1000)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_number_begins_with_its_http_status_but_for_the_unknown_hub() {
        for code in ErrorCode::ALL {
            let Some(number) = code.number() else { continue };
            let expected = if *code == ErrorCode::IotHubNotFound {
                404
            } else {
                number / 1000
            };
            assert_eq!(u32::from(code.status()), expected, "{code}");
        }
    }

    #[test]
    fn names_and_numbers_are_unique_and_names_read_back() {
        let numbers: Vec<u32> = ErrorCode::ALL.iter().filter_map(|code| code.number()).collect();
        assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), numbers.len());

        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_name(code.name()), Some(*code));
        }
    }
}
