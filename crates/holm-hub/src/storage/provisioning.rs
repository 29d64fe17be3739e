//! The provisioning service: what it goes by, enrollments and registrations. Who may use it stands in `policies.rs`.

use holm_identity::SymmetricKey;
use holm_model::{DeviceId, RegistrationId, ServiceError, Timestamp};
use rusqlite::{Row, params};
use serde_json::Value;

use super::{Transaction, View, damaged, fault};
use crate::provisioning::{Assignment, Enrollment, Kind, Registration, Status, Substatus};

/// What a service goes by: made once.
#[derive(Clone, Debug)]
pub struct ProvisioningSettings {
    /// What devices call it.
    pub id_scope: String,
    /// Signs the names of operations.
    pub secret: SymmetricKey,
}

const REGISTRATION: &str = "id, spelled, group_id, status, substatus, hub, device, error_code, error_message, payload, proof, \
                            etag, created, updated";

impl View<'_> {
    /// What the provisioning service goes by, once it has been made.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn provisioning_settings(&self) -> Result<Option<ProvisioningSettings>, ServiceError> {
        let sql = "SELECT id_scope, secret FROM provisioning WHERE id = 1";
        let row = self.one(sql, [], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
        row.map(|(id_scope, secret)| {
            let secret =
                SymmetricKey::from_base64(&secret).map_err(|_| damaged("secret of the provisioning service"))?;
            Ok(ProvisioningSettings { id_scope, secret })
        })
        .transpose()
    }

    /// An enrollment.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn enrollment(&self, kind: Kind, id: &RegistrationId) -> Result<Option<Enrollment>, ServiceError> {
        let sql = "SELECT document, etag, created, updated FROM enrollments WHERE kind = ?1 AND id = ?2";
        let found = self.one(sql, params![kind.name(), id.key()], |row| Ok(enrollment(kind, row)))?;
        found.transpose()
    }

    /// The enrollments of a kind behind `after` in order of their ids, at most `most`.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn enrollments(&self, kind: Kind, after: &str, most: u32) -> Result<Vec<Enrollment>, ServiceError> {
        let sql =
            "SELECT document, etag, created, updated FROM enrollments WHERE kind = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
        self.all(sql, params![kind.name(), after, most], |row| Ok(enrollment(kind, row)))?
            .into_iter()
            .collect()
    }

    /// How many enrollments of a kind there are.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn enrollment_count(&self, kind: Kind) -> Result<u32, ServiceError> {
        let sql = "SELECT count(*) FROM enrollments WHERE kind = ?1";
        Ok(self.one(sql, [kind.name()], |row| row.get(0))?.unwrap_or_default())
    }

    /// What became of the device of a registration id.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn registration(&self, id: &RegistrationId) -> Result<Option<Registration>, ServiceError> {
        let sql = format!("SELECT {REGISTRATION} FROM registrations WHERE id = ?1");
        self.one(&sql, [id.key()], |row| Ok(registration(row)))?.transpose()
    }

    /// The registrations that are of a device of this id at some hub, at most `most`.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn registrations_for(&self, device: &DeviceId, most: u32) -> Result<Vec<Registration>, ServiceError> {
        let sql = format!("SELECT {REGISTRATION} FROM registrations WHERE device = ?1 ORDER BY id LIMIT ?2");
        self.all(&sql, params![device.as_str(), most], |row| Ok(registration(row)))?
            .into_iter()
            .collect()
    }

    /// The registrations of a group behind `after` in order of their ids, at most `most`.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn registrations_of(
        &self,
        group: &RegistrationId,
        after: &str,
        most: u32,
    ) -> Result<Vec<Registration>, ServiceError> {
        let sql =
            format!("SELECT {REGISTRATION} FROM registrations WHERE group_id = ?1 AND id > ?2 ORDER BY id LIMIT ?3");
        self.all(&sql, params![group.key(), after, most], |row| Ok(registration(row)))?
            .into_iter()
            .collect()
    }
}

impl Transaction<'_> {
    /// Writes what the provisioning service goes by.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn put_provisioning_settings(&self, settings: &ProvisioningSettings) -> Result<(), ServiceError> {
        let sql = "INSERT OR REPLACE INTO provisioning (id, id_scope, secret) VALUES (1, ?1, ?2)";
        self.write(sql, params![settings.id_scope, settings.secret.to_base64().expose()])?;
        Ok(())
    }

    /// Writes an enrollment, new or changed.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn put_enrollment(&self, enrollment: &Enrollment) -> Result<(), ServiceError> {
        let sql = "INSERT OR REPLACE INTO enrollments (kind, id, document, etag, created, updated) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.write(
            sql,
            params![
                enrollment.kind.name(),
                enrollment.id.key(),
                enrollment.to_stored().to_string(),
                enrollment.etag,
                enrollment.created.unix_millis(),
                enrollment.updated.unix_millis(),
            ],
        )?;
        Ok(())
    }

    /// Removes an enrollment; what became of its devices stays known.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn remove_enrollment(&self, kind: Kind, id: &RegistrationId) -> Result<(), ServiceError> {
        let sql = "DELETE FROM enrollments WHERE kind = ?1 AND id = ?2";
        self.write(sql, params![kind.name(), id.key()])?;
        Ok(())
    }

    /// Writes what became of a device. Whose the device was that it was before is forgotten, if nothing else is left of that.
    ///
    /// # Errors
    /// When the database can't be read or written to.
    pub fn put_registration(&self, registration: &Registration) -> Result<(), ServiceError> {
        let before = self
            .registration(&registration.id)?
            .and_then(|before| before.assignment);
        let sql = format!(
            "INSERT OR REPLACE INTO registrations ({REGISTRATION}) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)"
        );
        let assignment = registration.assignment.as_ref();
        let error = registration.error.as_ref();
        self.write(
            &sql,
            params![
                registration.id.key(),
                registration.id.as_str(),
                registration.group,
                registration.status.name(),
                registration.substatus.name(),
                assignment.map(|assignment| assignment.hub.as_str()),
                assignment.map(|assignment| assignment.device.as_str()),
                error.map(|error| error.0),
                error.map(|error| error.1.as_str()),
                registration.payload.as_ref().map(Value::to_string),
                registration.proof.to_string(),
                registration.etag,
                registration.created.unix_millis(),
                registration.updated.unix_millis(),
            ],
        )?;
        match before.map(|before| before.device) {
            Some(before) if assignment.is_none_or(|now| now.device != before) => self.forget_provisioned(&before),
            _ => Ok(()),
        }
    }

    /// Forgets what became of a device.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn remove_registration(&self, id: &RegistrationId) -> Result<(), ServiceError> {
        self.write("DELETE FROM registrations WHERE id = ?1", [id.key()])?;
        Ok(())
    }
}

fn enrollment(kind: Kind, row: &Row<'_>) -> Result<Enrollment, ServiceError> {
    let document: String = row.get(0).map_err(|error| fault(&error))?;
    let time = |index: usize| {
        row.get(index)
            .map(Timestamp::from_unix_millis)
            .map_err(|error| fault(&error))
    };
    let mut enrollment = Enrollment::from_stored(kind, &document).ok_or_else(|| damaged("enrollment"))?;
    enrollment.etag = row.get(1).map_err(|error| fault(&error))?;
    (enrollment.created, enrollment.updated) = (time(2)?, time(3)?);
    Ok(enrollment)
}

fn registration(row: &Row<'_>) -> Result<Registration, ServiceError> {
    let text = |index: usize| row.get::<_, String>(index).map_err(|error| fault(&error));
    let optional = |index: usize| row.get::<_, Option<String>>(index).map_err(|error| fault(&error));
    let number = |index: usize| row.get::<_, i64>(index).map_err(|error| fault(&error));
    let json = |text: &str| serde_json::from_str(text).map_err(|_| damaged("document of a registration"));
    let wrong = || damaged("registration");
    let assignment = match (optional(5)?, optional(6)?) {
        (Some(hub), Some(device)) => Some(Assignment {
            hub,
            device: DeviceId::new(&device).map_err(|_| wrong())?,
        }),
        _ => None,
    };
    let code: Option<u32> = row.get(7).map_err(|error| fault(&error))?;
    Ok(Registration {
        id: RegistrationId::new(&text(1)?).map_err(|_| wrong())?,
        group: optional(2)?,
        status: Status::of(&text(3)?).ok_or_else(wrong)?,
        substatus: Substatus::of(&text(4)?).ok_or_else(wrong)?,
        assignment,
        error: code.zip(optional(8)?),
        payload: optional(9)?.map(|text| json(&text)).transpose()?,
        proof: json(&text(10)?)?,
        etag: number(11)?,
        created: Timestamp::from_unix_millis(number(12)?),
        updated: Timestamp::from_unix_millis(number(13)?),
    })
}
