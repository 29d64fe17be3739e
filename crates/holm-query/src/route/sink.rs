//! Where a route sends messages. Source: `edge-broker.md` §2.3.

use std::fmt;

use holm_model::ModuleId;

/// An endpoint: messages for it wait in a queue of their own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sink {
    /// The node above: the hub or a parent edge.
    Upstream,
    /// An input of a module on this device, which need not exist yet.
    Module {
        /// The module.
        module: ModuleId,
        /// Its input; not empty.
        input: String,
    },
}

/// As a route would name it.
impl fmt::Display for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream => f.write_str("$upstream"),
            Self::Module { module, input } => write!(f, "BrokeredEndpoint(\"/modules/{module}/inputs/{input}\")"),
        }
    }
}
