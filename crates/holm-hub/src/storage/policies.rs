//! Shared access policies: keys of back ends and operators, and what each may do.

use holm_identity::SymmetricKey;
use holm_model::ServiceError;
use rusqlite::{Row, params};

use super::{Transaction, View, damaged, fault};

/// A set of permissions. Source: `hub-service-api.md` §1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights(u8);

impl Rights {
    /// Read identities.
    pub const REGISTRY_READ: Self = Self(1);
    /// Create, change and delete identities.
    pub const REGISTRY_WRITE: Self = Self(2);
    /// Twins, methods, cloud-to-device messages, reading events.
    pub const SERVICE_CONNECT: Self = Self(4);
    /// Act as any device.
    pub const DEVICE_CONNECT: Self = Self(8);

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of the other set is in this one.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The permissions by their published names.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        [
            (Self::REGISTRY_READ, "RegistryRead"),
            (Self::REGISTRY_WRITE, "RegistryWrite"),
            (Self::SERVICE_CONNECT, "ServiceConnect"),
            (Self::DEVICE_CONNECT, "DeviceConnect"),
        ]
        .into_iter()
        .filter_map(|(right, name)| self.contains(right).then_some(name))
        .collect()
    }
}

/// A shared access policy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its name, the `skn` of tokens.
    pub name: String,
    /// The key in use.
    pub primary: SymmetricKey,
    /// The key to change to.
    pub secondary: SymmetricKey,
    /// What its holder may do.
    pub rights: Rights,
}

impl View<'_> {
    /// Every policy, in order of their names. There are at most 16.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn policies(&self) -> Result<Vec<Policy>, ServiceError> {
        let sql = "SELECT name, primary_key, secondary_key, rights FROM policies ORDER BY name";
        self.all(sql, [], |row| Ok(read(row)))?.into_iter().collect()
    }
}

impl Transaction<'_> {
    /// Writes a policy, new or changed.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn put_policy(&self, policy: &Policy) -> Result<(), ServiceError> {
        self.write(
            "INSERT OR REPLACE INTO policies (name, primary_key, secondary_key, rights) VALUES (?1, ?2, ?3, ?4)",
            params![
                policy.name,
                policy.primary.to_base64().expose(),
                policy.secondary.to_base64().expose(),
                policy.rights.0
            ],
        )?;
        Ok(())
    }
}

fn read(row: &Row<'_>) -> Result<Policy, ServiceError> {
    let key = |index: usize| {
        let text = row.get::<_, String>(index).map_err(|error| fault(&error))?;
        SymmetricKey::from_base64(&text).map_err(|_| damaged("policy key"))
    };
    Ok(Policy {
        name: row.get(0).map_err(|error| fault(&error))?,
        primary: key(1)?,
        secondary: key(2)?,
        rights: Rights(row.get(3).map_err(|error| fault(&error))?),
    })
}
