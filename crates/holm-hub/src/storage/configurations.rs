//! Configurations, and what they have made of each twin.
//!
//! A row of `twin_configurations` says what was last applied to a device or module. It is written in the transaction that changes
//! the twins, so after a crash it tells what is still to be done. For an edge device it is that of `$edgeAgent`.

use holm_model::configuration::{Configuration, ConfigurationId, ConfigurationKind, Status};
use holm_model::{DeviceId, Identity, ModuleId, ServiceError, Timestamp};
use rusqlite::types::ValueRef;
use rusqlite::{Row, params};
use serde_json::{Map, Value};

use super::{Transaction, View, damaged, fault, module_key, to_i64, to_u64};

/// What configurations have made of a twin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TwinConfigurations {
    /// What each configuration that matches is: `Targeted` or `Applied`. Published.
    pub statuses: Vec<(String, String)>,
    /// Names what was applied, so that the same is not applied again.
    pub fingerprint: String,
    /// What was written and is to be taken back some day: for an edge device modules, else paths of desired properties.
    pub written: Vec<Vec<String>>,
    /// Whether nobody else has written to the desired properties since.
    pub trusted: bool,
}

/// One who may be a target, as stored; borrowed from a row.
#[derive(Debug)]
pub struct Candidate<'r> {
    /// The device.
    pub device: &'r str,
    /// The module; empty is the device itself.
    pub module: &'r str,
    /// The twin as it is stored.
    pub document: &'r str,
    /// Whether it is an edge device.
    pub edge: bool,
    /// Whether it may connect.
    pub enabled: bool,
    /// The scope that it is in.
    pub device_scope: Option<&'r str>,
    /// JSON array of text.
    pub parent_scopes: &'r str,
    /// What was applied last; `None`: nothing.
    pub fingerprint: Option<&'r str>,
    /// What each configuration was then, JSON object.
    pub statuses: Option<&'r str>,
    /// Whether nobody has written to its desired properties since.
    pub trusted: bool,
}

impl Candidate<'_> {
    /// The configurations that were in force when something was applied last.
    #[must_use]
    pub fn applied(&self) -> Vec<ConfigurationId> {
        let statuses: Map<String, Value> = self
            .statuses
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let applied = statuses
            .iter()
            .filter(|(_, status)| *status == Status::Applied.as_str());
        applied.filter_map(|(id, _)| ConfigurationId::new(id).ok()).collect()
    }
}

/// The columns of a candidate. `?1` is the module whose row says what was applied; NULL: its own.
const CANDIDATES: &str = "SELECT t.device, t.module, t.document, i.edge, i.enabled, i.device_scope, i.parent_scopes, c.fingerprint, \
     coalesce(c.trusted, 1), c.statuses \
     FROM identities i JOIN twins t ON t.device = i.device AND t.module = i.module \
     LEFT JOIN twin_configurations c ON c.device = i.device AND c.module = coalesce(?1, i.module)";

impl View<'_> {
    /// Every configuration, in order of their ids.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn configurations(&self) -> Result<Vec<Configuration>, ServiceError> {
        let sql = "SELECT id, created, updated, etag, document FROM configurations ORDER BY id";
        self.all(sql, [], |row| Ok(read(row)))?.into_iter().collect()
    }

    /// A configuration.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn configuration(&self, id: &ConfigurationId) -> Result<Option<Configuration>, ServiceError> {
        let sql = "SELECT id, created, updated, etag, document FROM configurations WHERE id = ?1";
        self.one(sql, [id.as_str()], |row| Ok(read(row)))?.transpose()
    }

    /// What configurations have made of a twin.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn twin_configurations(&self, identity: &Identity) -> Result<Option<TwinConfigurations>, ServiceError> {
        let sql =
            "SELECT statuses, fingerprint, written, trusted FROM twin_configurations WHERE device = ?1 AND module = ?2";
        let row = self.one(sql, params![identity.device.as_str(), module_key(identity)], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get(1)?,
                row.get::<_, String>(2)?,
                row.get(3)?,
            ))
        })?;
        let Some((statuses, fingerprint, written, trusted)) = row else {
            return Ok(None);
        };
        let statuses: Map<String, Value> =
            serde_json::from_str(&statuses).map_err(|_| damaged("status of configurations"))?;
        let text = |value: Value| value.as_str().map(str::to_owned);
        let statuses = statuses
            .into_iter()
            .filter_map(|(id, status)| Some((id, text(status)?)));
        Ok(Some(TwinConfigurations {
            statuses: statuses.collect(),
            fingerprint,
            written: serde_json::from_str(&written).map_err(|_| damaged("list of what configurations wrote"))?,
            trusted,
        }))
    }

    /// Whether configurations of a kind are in some twin.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn is_configured(&self, kind: ConfigurationKind) -> Result<bool, ServiceError> {
        let condition = match kind {
            ConfigurationKind::Edge => "module = '$edgeAgent'",
            ConfigurationKind::Device => "module = ''",
            ConfigurationKind::Module => "module NOT IN ('', '$edgeAgent')",
        };
        let sql = format!("SELECT 1 FROM twin_configurations WHERE {condition} AND statuses != '{{}}' LIMIT 1");
        Ok(self.one(&sql, [], |_| Ok(()))?.is_some())
    }

    /// How many configurations there are.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn configuration_count(&self) -> Result<u64, ServiceError> {
        let count = self.one("SELECT count(*) FROM configurations", [], |row| row.get(0))?;
        Ok(to_u64(count.unwrap_or(0)))
    }

    /// Shows everyone who may be a target of configurations of a kind, in no order that means anything.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn each_candidate(
        &self,
        kind: ConfigurationKind,
        mut show: impl FnMut(&Candidate<'_>),
    ) -> Result<(), ServiceError> {
        let condition = match kind {
            ConfigurationKind::Edge => "i.module = '' AND i.edge = 1",
            ConfigurationKind::Device => "i.module = ''",
            ConfigurationKind::Module => "i.module NOT IN ('', '$edgeAgent', '$edgeHub')",
        };
        let sql = format!("{CANDIDATES} WHERE {condition}");
        let mut statement = self.connection.prepare_cached(&sql).map_err(|error| fault(&error))?;
        let mut rows = statement.query([row_of(kind)]).map_err(|error| fault(&error))?;
        while let Some(row) = rows.next().map_err(|error| fault(&error))? {
            show(&candidate(row)?);
        }
        Ok(())
    }

    /// Shows one who may be a target of configurations of a kind, if it is there.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn candidate<T>(
        &self,
        kind: ConfigurationKind,
        identity: &Identity,
        show: impl FnOnce(&Candidate<'_>) -> T,
    ) -> Result<Option<T>, ServiceError> {
        let sql = format!("{CANDIDATES} WHERE i.device = ?2 AND i.module = ?3");
        let mut statement = self.connection.prepare_cached(&sql).map_err(|error| fault(&error))?;
        let mut rows = statement
            .query(params![row_of(kind), identity.device.as_str(), module_key(identity)])
            .map_err(|error| fault(&error))?;
        let Some(row) = rows.next().map_err(|error| fault(&error))? else {
            return Ok(None);
        };
        let candidate = candidate(row)?;
        let is_of_kind = kind != ConfigurationKind::Edge || candidate.edge;
        Ok(is_of_kind.then(|| show(&candidate)))
    }

    /// Shows the stored twins of the agents of all edge devices: device, document.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn each_agent(&self, mut show: impl FnMut(&str, &str)) -> Result<(), ServiceError> {
        let sql = "SELECT t.device, t.document FROM twins t WHERE t.module = '$edgeAgent'";
        let mut statement = self.connection.prepare_cached(sql).map_err(|error| fault(&error))?;
        let mut rows = statement.query([]).map_err(|error| fault(&error))?;
        while let Some(row) = rows.next().map_err(|error| fault(&error))? {
            show(text(row, 0)?, text(row, 1)?);
        }
        Ok(())
    }

    /// Shows the stored twin of the agent of one edge device.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn agent<T>(&self, device: &DeviceId, show: impl FnOnce(&str) -> T) -> Result<Option<T>, ServiceError> {
        let sql = "SELECT document FROM twins WHERE device = ?1 AND module = '$edgeAgent'";
        let mut statement = self.connection.prepare_cached(sql).map_err(|error| fault(&error))?;
        let mut rows = statement.query([device.as_str()]).map_err(|error| fault(&error))?;
        let row = rows.next().map_err(|error| fault(&error))?;
        row.map(|row| Ok(show(text(row, 0)?))).transpose()
    }
}

impl Transaction<'_> {
    /// Writes a configuration, new or changed.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn put_configuration(&self, configuration: &Configuration) -> Result<(), ServiceError> {
        self.write(
            "INSERT OR REPLACE INTO configurations (id, created, updated, etag, document) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                configuration.id().as_str(),
                configuration.created().unix_millis(),
                configuration.updated().unix_millis(),
                to_i64(configuration.etag_number()),
                configuration.to_stored().to_string(),
            ],
        )?;
        self.touch_configurations();
        Ok(())
    }

    /// Removes a configuration. What it has made of twins is the evaluator's to undo.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn remove_configuration(&self, id: &ConfigurationId) -> Result<(), ServiceError> {
        self.write("DELETE FROM configurations WHERE id = ?1", [id.as_str()])?;
        self.touch_configurations();
        Ok(())
    }

    /// When the newest configuration was made.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn newest_configuration(&self) -> Result<Option<Timestamp>, ServiceError> {
        let newest = self.one("SELECT max(created) FROM configurations", [], |row| {
            row.get::<_, Option<i64>>(0)
        })?;
        Ok(newest.flatten().map(Timestamp::from_unix_millis))
    }

    /// Writes what configurations have made of a twin.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn put_twin_configurations(&self, identity: &Identity, row: &TwinConfigurations) -> Result<(), ServiceError> {
        let (device, module) = (identity.device.as_str(), module_key(identity));
        if row.statuses.is_empty() && row.written.is_empty() {
            let sql = "DELETE FROM twin_configurations WHERE device = ?1 AND module = ?2";
            self.write(sql, params![device, module])?;
            return Ok(());
        }
        let statuses: Map<String, Value> = row
            .statuses
            .iter()
            .map(|(id, status)| (id.clone(), Value::from(status.as_str())))
            .collect();
        let written = serde_json::to_string(&row.written).map_err(|_| damaged("list of what configurations wrote"))?;
        self.write(
            "INSERT OR REPLACE INTO twin_configurations (device, module, statuses, fingerprint, written, trusted) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                device,
                module,
                Value::Object(statuses).to_string(),
                row.fingerprint,
                written,
                row.trusted
            ],
        )?;
        Ok(())
    }

    /// Notes that the desired properties of an identity were written to: what configurations have made of it may not stand any more.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn distrust_configurations(&self, identity: &Identity) -> Result<(), ServiceError> {
        let sql = "UPDATE twin_configurations SET trusted = 0 WHERE device = ?1 \
                   AND (module = ?2 OR (module = '$edgeAgent' AND ?2 != '')) AND trusted = 1 AND statuses != '{}'";
        let changed = self.write(sql, params![identity.device.as_str(), module_key(identity)])?;
        if changed > 0 {
            self.touch(identity);
            self.touch(&Identity::of_device(identity.device.clone()));
        }
        Ok(())
    }

    /// Notes that what deployments have made of an edge device may not stand any more: one of its modules came or went, or what lay
    /// over the section of one is another.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn distrust_deployments(&self, device: &DeviceId) -> Result<(), ServiceError> {
        let sql = "UPDATE twin_configurations SET trusted = 0 \
                   WHERE device = ?1 AND module = '$edgeAgent' AND trusted = 1 AND statuses != '{}'";
        if self.write(sql, [device.as_str()])? > 0 {
            self.touch(&Identity::of_device(device.clone()));
        }
        Ok(())
    }
}

/// The module in whose row it stands what was applied; `None`: the candidate's own.
const fn row_of(kind: ConfigurationKind) -> Option<&'static str> {
    match kind {
        ConfigurationKind::Edge => Some("$edgeAgent"),
        ConfigurationKind::Device | ConfigurationKind::Module => None,
    }
}

/// Whose row says what was applied to a target of a kind.
#[must_use]
pub fn row_identity(kind: ConfigurationKind, identity: &Identity) -> Identity {
    match kind {
        ConfigurationKind::Edge => Identity::of_module(identity.device.clone(), ModuleId::edge_agent()),
        ConfigurationKind::Device | ConfigurationKind::Module => identity.clone(),
    }
}

fn candidate<'r>(row: &'r Row<'_>) -> Result<Candidate<'r>, ServiceError> {
    let number = |index: usize| row.get::<_, bool>(index).map_err(|error| fault(&error));
    Ok(Candidate {
        device: text(row, 0)?,
        module: text(row, 1)?,
        document: text(row, 2)?,
        edge: number(3)?,
        enabled: number(4)?,
        device_scope: optional(row, 5)?,
        parent_scopes: text(row, 6)?,
        fingerprint: optional(row, 7)?,
        trusted: number(8)?,
        statuses: optional(row, 9)?,
    })
}

fn optional<'r>(row: &'r Row<'_>, index: usize) -> Result<Option<&'r str>, ServiceError> {
    match row.get_ref(index).map_err(|error| fault(&error))? {
        ValueRef::Null => Ok(None),
        value => value.as_str().map(Some).map_err(|_| damaged("text")),
    }
}

fn text<'r>(row: &'r Row<'_>, index: usize) -> Result<&'r str, ServiceError> {
    optional(row, index)?.ok_or_else(|| damaged("text"))
}

fn read(row: &Row<'_>) -> Result<Configuration, ServiceError> {
    let broken = || damaged("configuration");
    let id = row.get::<_, String>(0).map_err(|error| fault(&error))?;
    let id = ConfigurationId::new(&id).map_err(|_| broken())?;
    let time = |index| {
        row.get(index)
            .map(Timestamp::from_unix_millis)
            .map_err(|error| fault(&error))
    };
    let etag = to_u64(row.get(3).map_err(|error| fault(&error))?);
    let stored: Value = serde_json::from_str(text(row, 4)?).map_err(|_| broken())?;
    Configuration::from_stored(id, &stored, time(1)?, time(2)?, etag).ok_or_else(broken)
}
