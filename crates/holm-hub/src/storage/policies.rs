//! Shared access policies: keys of back ends and operators, and what each may do.

use holm_identity::SymmetricKey;
use holm_model::{ServiceError, etag};
use rusqlite::{Row, params};

use super::{Transaction, View, damaged, fault};

/// A kind of permissions: their published names, and where the policies are that give them.
pub trait RightSet: Copy + Eq + std::fmt::Debug + Send + Sync + 'static {
    /// The table of the policies.
    const TABLE: &'static str;
    /// What such a policy is called in the audit log.
    const RECORDED: &'static str;
    /// The policy whose connection string is handed out, as long as it is there and may do everything.
    const OWNER: &'static str;
    /// Each permission with its published name.
    const KNOWN: &'static [(Self, &'static str)];

    /// From the form in which they are stored.
    fn from_bits(bits: u8) -> Self;

    /// The form in which they are stored.
    fn bits(self) -> u8;

    /// All permissions; who has them may manage policies.
    #[must_use]
    fn everything() -> Self {
        Self::union(Self::KNOWN.iter().map(|(right, _)| *right))
    }

    /// All of these together.
    #[must_use]
    fn union(rights: impl IntoIterator<Item = Self>) -> Self {
        Self::from_bits(rights.into_iter().fold(0, |bits, right| bits | right.bits()))
    }

    /// Whether all of the other set is in this one.
    #[must_use]
    fn includes(self, other: Self) -> bool {
        self.bits() & other.bits() == other.bits()
    }

    /// The permissions by their published names.
    #[must_use]
    fn names(self) -> Vec<&'static str> {
        let has = Self::KNOWN.iter().filter(|(right, _)| self.includes(*right));
        has.map(|(_, name)| *name).collect()
    }

    /// The permission of a published name, in any case.
    #[must_use]
    fn of_name(name: &str) -> Option<Self> {
        let found = Self::KNOWN.iter().find(|(_, known)| known.eq_ignore_ascii_case(name));
        found.map(|(right, _)| *right)
    }
}

/// What a policy of the hub allows. Source: `hub-service-api.md` §1.
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
    /// Everything; who has this may manage policies.
    pub const ALL: Self = Self(15);

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
}

impl RightSet for Rights {
    const TABLE: &'static str = "policies";
    const RECORDED: &'static str = "policy";
    const OWNER: &'static str = "iothubowner";
    const KNOWN: &'static [(Self, &'static str)] = &[
        (Self::REGISTRY_READ, "RegistryRead"),
        (Self::REGISTRY_WRITE, "RegistryWrite"),
        (Self::SERVICE_CONNECT, "ServiceConnect"),
        (Self::DEVICE_CONNECT, "DeviceConnect"),
    ];

    fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    fn bits(self) -> u8 {
        self.0
    }
}

/// A shared access policy.
#[derive(Clone, Debug)]
pub struct Policy<R = Rights> {
    /// Its name, the `skn` of tokens.
    pub name: String,
    /// The key in use.
    pub primary: SymmetricKey,
    /// The key to change to.
    pub secondary: SymmetricKey,
    /// What its holder may do.
    pub rights: R,
}

impl<R: RightSet> Policy<R> {
    /// Another one for other rights or keys; tells nothing of the keys.
    #[must_use]
    pub fn etag(&self) -> String {
        let (primary, secondary) = (self.primary.to_base64(), self.secondary.to_base64());
        let text = format!(
            "{}\n{}\n{}\n{}",
            self.name,
            self.rights.bits(),
            primary.expose(),
            secondary.expose()
        );
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        let first = digest.as_ref().iter().take(8);
        etag::of_counter(first.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

impl View<'_> {
    /// Every policy, in order of their names. There are at most 16.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn policies<R: RightSet>(&self) -> Result<Vec<Policy<R>>, ServiceError> {
        let table = R::TABLE;
        let sql = format!("SELECT name, primary_key, secondary_key, rights FROM {table} ORDER BY name");
        self.all(&sql, [], |row| Ok(read(row)))?.into_iter().collect()
    }
}

impl Transaction<'_> {
    /// Writes a policy, new or changed.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn put_policy<R: RightSet>(&self, policy: &Policy<R>) -> Result<(), ServiceError> {
        let table = R::TABLE;
        let sql = format!(
            "INSERT OR REPLACE INTO {table} (name, primary_key, secondary_key, rights) VALUES (?1, ?2, ?3, ?4)"
        );
        self.write(
            &sql,
            params![
                policy.name,
                policy.primary.to_base64().expose(),
                policy.secondary.to_base64().expose(),
                policy.rights.bits()
            ],
        )?;
        Ok(())
    }

    /// Removes a policy.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn remove_policy<R: RightSet>(&self, name: &str) -> Result<(), ServiceError> {
        self.write(&format!("DELETE FROM {} WHERE name = ?1", R::TABLE), [name])?;
        Ok(())
    }
}

fn read<R: RightSet>(row: &Row<'_>) -> Result<Policy<R>, ServiceError> {
    let key = |index: usize| {
        let text = row.get::<_, String>(index).map_err(|error| fault(&error))?;
        SymmetricKey::from_base64(&text).map_err(|_| damaged("policy key"))
    };
    Ok(Policy {
        name: row.get(0).map_err(|error| fault(&error))?,
        primary: key(1)?,
        secondary: key(2)?,
        rights: R::from_bits(row.get(3).map_err(|error| fault(&error))?),
    })
}
