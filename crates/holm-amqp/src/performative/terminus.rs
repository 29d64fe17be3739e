//! The ends of a link: where messages come from and go to. AMQP 1.0, part 3, 3.5.

use bytes::BytesMut;

use super::DeliveryState;
use crate::codec::fields::{Field, composite};
use crate::codec::read::Reader;
use crate::codec::{Fault, write};
use crate::map::Fields;
use crate::text::{Symbol, Text};

composite! {
    /// Where messages come from. AMQP 1.0, part 3, 3.5.3.
    pub Source = 0x28, "source" {
        /// The node.
        address: Option<Text> = "address",
        /// What of the terminus outlives its container.
        durable: Durability = "durable" or Durability::None,
        /// When the time to its expiry begins.
        expiry_policy: ExpiryPolicy = "expiry-policy" or ExpiryPolicy::SessionEnd,
        /// Seconds that it lives after that.
        timeout: u32 = "timeout" or 0,
        /// Whether the node shall be made.
        dynamic: bool = "dynamic" or false,
        /// Properties of the node that shall be made.
        dynamic_node_properties: Fields = "dynamic-node-properties",
        /// `move` or `copy`.
        distribution_mode: Option<Symbol> = "distribution-mode",
        /// Which messages, by predicates: described values under names.
        filter: Fields = "filter",
        /// The outcome of deliveries that are settled without one.
        default_outcome: Option<DeliveryState> = "default-outcome",
        /// The outcomes that are understood.
        outcomes: Vec<Symbol> = "outcomes",
        /// Extensions.
        capabilities: Vec<Symbol> = "capabilities",
    }
}

composite! {
    /// Where messages go to. AMQP 1.0, part 3, 3.5.4. A coordinator of transactions is none: it is refused as a field.
    pub Target = 0x29, "target" {
        /// The node.
        address: Option<Text> = "address",
        /// What of the terminus outlives its container.
        durable: Durability = "durable" or Durability::None,
        /// When the time to its expiry begins.
        expiry_policy: ExpiryPolicy = "expiry-policy" or ExpiryPolicy::SessionEnd,
        /// Seconds that it lives after that.
        timeout: u32 = "timeout" or 0,
        /// Whether the node shall be made.
        dynamic: bool = "dynamic" or false,
        /// Properties of the node that shall be made.
        dynamic_node_properties: Fields = "dynamic-node-properties",
        /// Extensions.
        capabilities: Vec<Symbol> = "capabilities",
    }
}

impl Source {
    /// The source of a node.
    #[must_use]
    pub const fn at(address: Option<Text>) -> Self {
        Self {
            address,
            durable: Durability::None,
            expiry_policy: ExpiryPolicy::SessionEnd,
            timeout: 0,
            dynamic: false,
            dynamic_node_properties: Fields::new(),
            distribution_mode: None,
            filter: Fields::new(),
            default_outcome: None,
            outcomes: Vec::new(),
            capabilities: Vec::new(),
        }
    }
}

impl Target {
    /// The target of a node.
    #[must_use]
    pub const fn at(address: Option<Text>) -> Self {
        Self {
            address,
            durable: Durability::None,
            expiry_policy: ExpiryPolicy::SessionEnd,
            timeout: 0,
            dynamic: false,
            dynamic_node_properties: Fields::new(),
            capabilities: Vec::new(),
        }
    }
}

/// What of a terminus outlives its container. AMQP 1.0, part 3, 3.5.5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Durability {
    /// Nothing.
    #[default]
    None,
    /// That it is there.
    Configuration,
    /// That, and what was not settled.
    UnsettledState,
}

impl Field for Durability {
    fn read(code: u8, reader: &mut Reader<'_>) -> Result<Self, Fault> {
        match reader.uint(code)? {
            0 => Ok(Self::None),
            1 => Ok(Self::Configuration),
            2 => Ok(Self::UnsettledState),
            value => Err(Fault::NotAllowed {
                value: u64::from(value),
                allowed: "0, 1 or 2",
            }),
        }
    }

    fn write(&self, out: &mut BytesMut) {
        write::uint(u32::from(*self as u8), out);
    }
}

/// When the time to the expiry of a terminus begins. AMQP 1.0, part 3, 3.5.6.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum ExpiryPolicy {
    /// When the link is detached.
    LinkDetach,
    /// When the session ends.
    #[default]
    SessionEnd,
    /// When the connection is closed.
    ConnectionClose,
    /// Never.
    Never,
    /// A name that the standard does not have. Nothing here depends on it.
    Other(Symbol),
}

impl ExpiryPolicy {
    fn name(&self) -> &[u8] {
        match self {
            Self::LinkDetach => b"link-detach",
            Self::SessionEnd => b"session-end",
            Self::ConnectionClose => b"connection-close",
            Self::Never => b"never",
            Self::Other(name) => name.as_bytes(),
        }
    }
}

impl Field for ExpiryPolicy {
    fn read(code: u8, reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let name = reader.symbol(code)?;
        let known = [Self::LinkDetach, Self::SessionEnd, Self::ConnectionClose, Self::Never];
        let found = known.into_iter().find(|policy| policy.name() == name.as_bytes());
        Ok(found.unwrap_or(Self::Other(name)))
    }

    fn write(&self, out: &mut BytesMut) {
        write::symbol(self.name(), out);
    }
}
