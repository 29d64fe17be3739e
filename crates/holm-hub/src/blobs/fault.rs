//! What can be wrong with a request to the blob store, by the published names.

use holm_model::{ErrorCode, ServiceError};
use hyper::StatusCode;

/// Why a request to the blob store was not carried out. Shown: the text for its sender.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Fault {
    pub(super) code: FaultCode,
    pub(super) text: String,
}

macro_rules! fault_codes {
    ($($name:ident, $status:ident;)*) => {
        /// The published names, and what was not published under its own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum FaultCode {
            $($name,)*
        }

        impl FaultCode {
            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            pub(super) const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }
        }
    };
}

fault_codes! {
    InvalidUri, BAD_REQUEST;
    InvalidQueryParameterValue, BAD_REQUEST;
    InvalidHeaderValue, BAD_REQUEST;
    UnsupportedHeader, BAD_REQUEST;
    InvalidBlockId, BAD_REQUEST;
    InvalidBlockList, BAD_REQUEST;
    BlockListTooLong, BAD_REQUEST;
    InvalidXmlDocument, BAD_REQUEST;
    Md5Mismatch, BAD_REQUEST;
    InvalidMd5, BAD_REQUEST;
    MetadataTooLarge, BAD_REQUEST;
    IncompleteBody, BAD_REQUEST;
    NoAuthenticationInformation, UNAUTHORIZED;
    AuthenticationFailed, FORBIDDEN;
    AuthorizationPermissionMismatch, FORBIDDEN;
    BlobNotFound, NOT_FOUND;
    UnsupportedHttpVerb, METHOD_NOT_ALLOWED;
    BlobAlreadyExists, CONFLICT;
    BlockCountExceedsLimit, CONFLICT;
    ConditionNotMet, PRECONDITION_FAILED;
    RequestBodyTooLarge, PAYLOAD_TOO_LARGE;
    InvalidRange, RANGE_NOT_SATISFIABLE;
    OperationTimedOut, INTERNAL_SERVER_ERROR;
    InternalError, INTERNAL_SERVER_ERROR;
    ServerBusy, SERVICE_UNAVAILABLE;
    // Not published: a storage account has no end.
    InsufficientStorage, INSUFFICIENT_STORAGE;
}

impl Fault {
    pub(super) fn new(code: FaultCode, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    pub(super) fn not_found(name: &str) -> Self {
        Self::new(FaultCode::BlobNotFound, format!("there is no blob `{name}`"))
    }
}

/// What the database could not do.
impl From<ServiceError> for Fault {
    fn from(error: ServiceError) -> Self {
        let code = match error.code {
            ErrorCode::ServiceUnavailable => FaultCode::ServerBusy,
            _ => FaultCode::InternalError,
        };
        Self::new(code, error.message)
    }
}
