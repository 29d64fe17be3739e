//! Why routing was not shown or changed.

use holm_model::ServiceError;

use crate::routing::definition::DefinitionError;
use crate::storage::RoutingKind;

/// Why routing was not shown or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoutingError {
    /// There is none of this name.
    #[error("there is no {kind} `{name}`", kind = noun(*kind))]
    NotFound {
        /// What was asked for.
        kind: RoutingKind,
        /// Its name.
        name: String,
    },
    /// There is one of this name.
    #[error("the {kind} `{name}` exists already; send `If-Match` to change it", kind = noun(*kind))]
    Exists {
        /// What it is.
        kind: RoutingKind,
        /// Its name.
        name: String,
    },
    /// Something else needs it.
    #[error("the endpoint `{name}` is used by {by}; change or remove that first")]
    InUse {
        /// The endpoint.
        name: String,
        /// What uses it.
        by: String,
    },
    /// Anything else.
    #[error(transparent)]
    Refused(#[from] ServiceError),
}

pub(in crate::routing) const fn noun(kind: RoutingKind) -> &'static str {
    match kind {
        RoutingKind::Route => "route",
        RoutingKind::Endpoint => "endpoint",
        RoutingKind::Enrichment => "enrichment",
        RoutingKind::Fallback => "fallback route",
    }
}

impl From<DefinitionError> for RoutingError {
    fn from(error: DefinitionError) -> Self {
        Self::Refused(ServiceError::argument_invalid(error.to_string()))
    }
}
