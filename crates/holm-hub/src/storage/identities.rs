//! Identities: what the registry knows of devices and modules.

use holm_identity::SymmetricKey;
use holm_identity::x509_auth::Thumbprint;
use holm_model::{DeviceId, Identity, ServiceError, Timestamp};
use rusqlite::{Row, params};

use super::family::stored_scopes;
use super::{Transaction, View, damaged, fault, identity_of, module_key};
use crate::registry::{Authentication, Entry, Keys};

pub(super) const COLUMNS: &str = "device, module, generation, etag, enabled, status_reason, status_updated, auth, primary_secret, \
                       secondary_secret, edge, device_scope, parent_scopes, managed_by";

impl View<'_> {
    /// What the registry knows of an identity.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn entry(&self, identity: &Identity) -> Result<Option<Entry>, ServiceError> {
        let sql = format!("SELECT {COLUMNS} FROM identities WHERE device = ?1 AND module = ?2");
        self.one(&sql, params![identity.device.as_str(), module_key(identity)], |row| {
            Ok(read(row))
        })?
        .transpose()
    }

    /// The devices after `after`, in order of their ids, at most `most`.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn devices(&self, after: &str, most: u32) -> Result<Vec<Entry>, ServiceError> {
        let sql =
            format!("SELECT {COLUMNS} FROM identities WHERE module = '' AND device > ?1 ORDER BY device LIMIT ?2");
        let found = self.all(&sql, params![after, most], |row| Ok(read(row)))?;
        found.into_iter().collect()
    }

    /// The modules of a device, in order of their ids.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn modules(&self, device: &DeviceId) -> Result<Vec<Entry>, ServiceError> {
        let sql = format!("SELECT {COLUMNS} FROM identities WHERE device = ?1 AND module != '' ORDER BY module");
        self.all(&sql, [device.as_str()], |row| Ok(read(row)))?
            .into_iter()
            .collect()
    }

    /// The edge device whose own scope this is.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn edge_of_scope(&self, scope: &str) -> Result<Option<Entry>, ServiceError> {
        let sql = format!("SELECT {COLUMNS} FROM identities WHERE device_scope = ?1 AND edge = 1 AND module = ''");
        self.one(&sql, [scope], |row| Ok(read(row)))?.transpose()
    }

    /// How many devices there are, and how many of them may connect.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn device_counts(&self) -> Result<(u32, u32), ServiceError> {
        let sql = "SELECT coalesce(sum(count), 0), coalesce(sum(count * enabled), 0) FROM identity_counts WHERE is_module = 0";
        let counts = self.one(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(counts.unwrap_or_default())
    }
}

impl Transaction<'_> {
    /// Writes an identity, new or changed.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn put_entry(&self, entry: &Entry) -> Result<(), ServiceError> {
        let sql = format!(
            "INSERT OR REPLACE INTO identities ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)"
        );
        let (auth, primary, secondary) = secrets(&entry.authentication);
        let scopes = stored_scopes(&entry.parent_scopes)?;
        self.write(
            &sql,
            params![
                entry.identity.device.as_str(),
                module_key(&entry.identity),
                entry.generation,
                entry.etag,
                entry.enabled,
                entry.status_reason,
                entry.status_updated.unix_millis(),
                auth,
                primary,
                secondary,
                entry.edge,
                entry.device_scope,
                scopes,
                entry.managed_by,
            ],
        )?;
        self.touch(&entry.identity);
        Ok(())
    }

    /// Removes an identity with its twin and what became of it, its session, what is known of its connection and what waits for it; of a device,
    /// also its modules.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn remove_entry(&self, identity: &Identity) -> Result<(), ServiceError> {
        let device = identity.device.as_str();
        if identity.is_module() {
            self.touch(identity);
            // A deployment may give it a section: it is made again, with that.
            self.distrust_deployments(&identity.device)?;
        } else {
            for module in self.modules(&identity.device)? {
                self.touch(&module.identity);
            }
            self.touch(identity);
        }
        for table in [
            "identities",
            "twins",
            "sessions",
            "activities",
            "twin_changes",
            "twin_configurations",
        ] {
            match &identity.module {
                None => self.write(&format!("DELETE FROM {table} WHERE device = ?1"), [device])?,
                Some(module) => self.write(
                    &format!("DELETE FROM {table} WHERE device = ?1 AND module = ?2"),
                    [device, module.as_str()],
                )?,
            };
        }
        if !identity.is_module() {
            self.write("DELETE FROM c2d_messages WHERE device = ?1", [device])?;
            self.write("DELETE FROM file_uploads WHERE device = ?1", [device])?;
        }
        Ok(())
    }
}

fn secrets(authentication: &Authentication) -> (&'static str, Option<String>, Option<String>) {
    let text = |thumbprint: &Option<Thumbprint>| thumbprint.as_ref().map(|print| print.as_str().to_owned());
    let (primary, secondary) = match authentication {
        Authentication::Sas(keys) => {
            let base64 = |key: &SymmetricKey| Some(key.to_base64().expose().to_owned());
            (base64(&keys.primary), base64(&keys.secondary))
        }
        Authentication::SelfSigned(prints) => (text(&prints.0), text(&prints.1)),
        Authentication::CertificateAuthority | Authentication::None => (None, None),
    };
    (authentication.kind(), primary, secondary)
}

pub(super) fn read(row: &Row<'_>) -> Result<Entry, ServiceError> {
    let text = |index: usize| row.get::<_, String>(index).map_err(|error| fault(&error));
    let optional = |index: usize| row.get::<_, Option<String>>(index).map_err(|error| fault(&error));
    Ok(Entry {
        identity: identity_of(&text(0)?, &text(1)?)?,
        generation: text(2)?,
        etag: row.get(3).map_err(|error| fault(&error))?,
        enabled: row.get(4).map_err(|error| fault(&error))?,
        status_reason: optional(5)?,
        status_updated: Timestamp::from_unix_millis(row.get(6).map_err(|error| fault(&error))?),
        authentication: authentication(&text(7)?, optional(8)?, optional(9)?)?,
        edge: row.get(10).map_err(|error| fault(&error))?,
        device_scope: optional(11)?,
        parent_scopes: serde_json::from_str(&text(12)?).map_err(|_| damaged("list of parent scopes"))?,
        managed_by: optional(13)?,
    })
}

fn authentication(
    kind: &str,
    primary: Option<String>,
    secondary: Option<String>,
) -> Result<Authentication, ServiceError> {
    let key =
        |text: Option<String>| SymmetricKey::from_base64(&text.unwrap_or_default()).map_err(|_| damaged("shared key"));
    let print = |text: Option<String>| {
        text.map(|text| text.parse::<Thumbprint>())
            .transpose()
            .map_err(|_| damaged("thumbprint"))
    };
    match kind {
        "sas" => Ok(Authentication::Sas(Keys {
            primary: key(primary)?,
            secondary: key(secondary)?,
        })),
        "selfSigned" => Ok(Authentication::SelfSigned((print(primary)?, print(secondary)?))),
        "certificateAuthority" => Ok(Authentication::CertificateAuthority),
        "none" => Ok(Authentication::None),
        _ => Err(damaged("kind of authentication")),
    }
}
