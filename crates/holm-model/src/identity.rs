//! Names of devices and modules, by the published rules.
//!
//! An *identity* is a device, or a module on a device. Each has keys, a twin, methods and a connection of its own. Ids are
//! case-sensitive and are compared as exact text, never decoded and never read as patterns.
//!
//! Source: `hub-device-protocols.md` §1.1, `hub-service-api.md` §2.1.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest id, in characters (they are all ASCII, so in bytes as well).
pub const MAX_ID_LENGTH: usize = 128;

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The text is empty.
    #[error("an id must not be empty; give 1 to {MAX_ID_LENGTH} characters")]
    Empty,
    /// The text is longer than [`MAX_ID_LENGTH`].
    #[error("the id has {0} characters; at most {MAX_ID_LENGTH} are allowed")]
    TooLong(usize),
    /// The text holds a character outside the published set.
    #[error(
        "the id `{id}` holds `{character}` at position {position}; allowed are ASCII letters, digits and - : . + % _ # * ? ! ( ) , = @ ; $ '"
    )]
    Character {
        /// The refused id.
        id: String,
        /// The first character that is not allowed.
        character: char,
        /// Its position, counted from 1.
        position: usize,
    },
}

fn check(id: &str) -> Result<(), InvalidId> {
    if id.is_empty() {
        return Err(InvalidId::Empty);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-:.+%_#*?!(),=@;$'".contains(c);
    if let Some((index, character)) = id.chars().enumerate().find(|&(_, c)| !allowed(c)) {
        return Err(InvalidId::Character {
            id: id.chars().take(MAX_ID_LENGTH).collect(),
            character,
            position: index + 1,
        });
    }
    if id.len() > MAX_ID_LENGTH {
        return Err(InvalidId::TooLong(id.len()));
    }
    Ok(())
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses an id.
            ///
            /// # Errors
            /// [`InvalidId`] when the text breaks the published rules.
            pub fn new(id: &str) -> Result<Self, InvalidId> {
                check(id)?;
                Ok(Self(id.into()))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "`{}`", self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(id: &str) -> Result<Self, InvalidId> {
                Self::new(id)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(id: String) -> Result<Self, InvalidId> {
                Self::new(&id)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }
    };
}

id_type! {
    /// The id of a device, unique within its hub.
    DeviceId
}
id_type! {
    /// The id of a module, unique within its device.
    ModuleId
}

impl ModuleId {
    /// The module that stands for the device's deployment agent.
    #[must_use]
    pub fn edge_agent() -> Self {
        Self("$edgeAgent".into())
    }

    /// The module that stands for the device's message broker.
    #[must_use]
    pub fn edge_hub() -> Self {
        Self("$edgeHub".into())
    }

    /// Whether this module belongs to the runtime (`$edgeAgent`, `$edgeHub`) and not to the user.
    #[must_use]
    pub fn is_system(&self) -> bool {
        matches!(&*self.0, "$edgeAgent" | "$edgeHub")
    }
}

/// A device, or a module on a device: everything that can prove a key of its own. Shown as `device` or `device/module`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The device, or the device that the module is on.
    pub device: DeviceId,
    /// The module; `None` means the device itself.
    pub module: Option<ModuleId>,
}

impl Identity {
    /// The identity of a device.
    #[must_use]
    pub const fn of_device(device: DeviceId) -> Self {
        Self { device, module: None }
    }

    /// The identity of a module on a device.
    #[must_use]
    pub const fn of_module(device: DeviceId, module: ModuleId) -> Self {
        Self {
            device,
            module: Some(module),
        }
    }

    /// Whether this is a module.
    #[must_use]
    pub const fn is_module(&self) -> bool {
        self.module.is_some()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.module {
            None => write!(f, "{}", self.device),
            Some(module) => write!(f, "{}/{module}", self.device),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

/// Reads `device` or `device/module`.
impl FromStr for Identity {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match text.split_once('/') {
            None => Ok(Self::of_device(DeviceId::new(text)?)),
            Some((device, module)) => Ok(Self::of_module(DeviceId::new(device)?, ModuleId::new(module)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_published_character_is_allowed_and_nothing_else() {
        for c in (0_u8..=127).map(char::from) {
            let allowed = c.is_ascii_alphanumeric() || "-:.+%_#*?!(),=@;$'".contains(c);
            assert_eq!(DeviceId::new(&format!("a{c}")).is_ok(), allowed, "{c:?}");
        }
        assert!(DeviceId::new("größe").is_err());
    }

    #[test]
    fn length_is_1_to_128() {
        assert_eq!(DeviceId::new(""), Err(InvalidId::Empty));
        assert!(DeviceId::new(&"x".repeat(128)).is_ok());
        assert_eq!(DeviceId::new(&"x".repeat(129)), Err(InvalidId::TooLong(129)));
    }

    #[test]
    fn an_identity_reads_back_what_it_shows() {
        for text in ["dev1", "dev1/$edgeAgent", "a;b/c'd"] {
            assert_eq!(text.parse::<Identity>().unwrap().to_string(), text);
        }
        assert!("a/b/c".parse::<Identity>().is_err());
    }
}
