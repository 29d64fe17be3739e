//! Certificates of authorities that the provisioning service keeps apart from enrollments.

use holm_model::{ServiceError, Timestamp};
use rusqlite::params;

use super::{Transaction, View};

/// A certificate of an authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptCertificate {
    /// What enrollments call it; without case.
    pub name: String,
    /// The certificate.
    pub der: Vec<u8>,
    /// Whether it was shown that its key is its owner's.
    pub is_verified: bool,
    /// What is to be signed to show it.
    pub code: Option<String>,
    /// Changes with every change.
    pub etag: i64,
    /// When it was given.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
}

impl View<'_> {
    /// Every certificate, in order of their names.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn kept_certificates(&self) -> Result<Vec<KeptCertificate>, ServiceError> {
        let sql =
            "SELECT name, certificate, is_verified, code, etag, created, updated FROM kept_certificates ORDER BY name";
        self.all(sql, [], |row| {
            Ok(KeptCertificate {
                name: row.get(0)?,
                der: row.get(1)?,
                is_verified: row.get(2)?,
                code: row.get(3)?,
                etag: row.get(4)?,
                created: Timestamp::from_unix_millis(row.get(5)?),
                updated: Timestamp::from_unix_millis(row.get(6)?),
            })
        })
    }
}

impl Transaction<'_> {
    /// Writes a certificate, new or changed.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn put_kept_certificate(&self, kept: &KeptCertificate) -> Result<(), ServiceError> {
        let sql = "INSERT OR REPLACE INTO kept_certificates (name, certificate, is_verified, code, etag, created, updated) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        self.write(
            sql,
            params![
                kept.name,
                kept.der,
                kept.is_verified,
                kept.code,
                kept.etag,
                kept.created.unix_millis(),
                kept.updated.unix_millis()
            ],
        )?;
        Ok(())
    }

    /// Removes a certificate, whose name is compared without case.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn remove_kept_certificate(&self, name: &str) -> Result<(), ServiceError> {
        self.write("DELETE FROM kept_certificates WHERE name = ?1", [name])?;
        Ok(())
    }
}
