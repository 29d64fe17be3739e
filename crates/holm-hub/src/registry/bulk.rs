//! Many identities at once: the items of a bulk request, and the lines of an import.
//!
//! ```text
//! {"id":"d1","moduleId":"m","importMode":"createOrUpdate","eTag":"…","status":"enabled","authentication":{…},
//!  "twinETag":"…","tags":{…},"properties":{"desired":{…}},"capabilities":{…},"deviceScope":"…","parentScopes":[…]}
//! ```
//!
//! - Items are independent: what is wrong with one is told, and the others are done. Nothing is left of one that failed.
//! - All items of a request are one transaction, so a crash leaves all of them or none.
//! - Tags and desired properties that an item gives take the place of what was there. Reported properties are the device's; they
//!   are passed over.
//!
//! Source: `hub-service-api.md` §2.3.

use std::collections::HashMap;

use holm_model::{DeviceId, ErrorCode, Identity, ModuleId, ServiceError, TwinUpdate, etag};
use serde::Deserialize;
use serde_json::Value;

use super::{Caller, Context, Effects, Registry, Wish, change, existing};
use crate::events::notice::Operation;
use crate::storage::Transaction;
use crate::twins;

/// The most items of one request. Source: `hub-service-api.md` §9.
pub const MAX_BULK: usize = 100;

/// An item that can be carried out.
#[derive(Clone, Debug)]
pub struct BulkItem {
    identity: Identity,
    mode: Mode,
    etag: Option<String>,
    twin_etag: Option<String>,
    wish: Wish,
    twin: TwinUpdate,
}

/// Why an item was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkError {
    /// The device as the item names it.
    pub device: String,
    /// The module.
    pub module: Option<String>,
    /// What was to be done, in the words of the interface.
    pub operation: &'static str,
    /// The cause.
    pub error: ServiceError,
}

/// How a bulk request went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BulkOutcome {
    /// What was not done.
    pub errors: Vec<BulkError>,
}

/// For what items are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// A request: each item means what it says.
    Request,
    /// An import of what an export wrote: the runtime's own modules come with their device, so that of these the twins alone are
    /// taken over; a scope names its edge device, whichever generation that has here.
    Import,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Create,
    Update,
    UpdateIfMatch,
    CreateOrUpdate,
    CreateOrUpdateIfMatch,
    Delete,
    DeleteIfMatch,
    UpdateTwin,
    UpdateTwinIfMatch,
}

impl Mode {
    const ALL: [(&'static str, Self); 9] = [
        ("create", Self::Create),
        ("update", Self::Update),
        ("updateIfMatchETag", Self::UpdateIfMatch),
        ("createOrUpdate", Self::CreateOrUpdate),
        ("createOrUpdateIfMatchETag", Self::CreateOrUpdateIfMatch),
        ("delete", Self::Delete),
        ("deleteIfMatchETag", Self::DeleteIfMatch),
        ("updateTwin", Self::UpdateTwin),
        ("updateTwinIfMatchETag", Self::UpdateTwinIfMatch),
    ];

    /// SDKs write the words in different cases.
    fn of(word: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        found.map(|(_, mode)| *mode)
    }

    fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, mode)| *mode == self);
        found.map_or("", |(name, _)| name)
    }
}

/// What of an item is not in a device's document, or has another name there.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Head {
    id: Option<String>,
    #[serde(rename = "moduleId")]
    module: Option<String>,
    #[serde(rename = "importMode")]
    mode: Option<String>,
    #[serde(rename = "eTag")]
    etag: Option<String>,
    // As devices are written where they are read, and as IoT Explorer writes it.
    #[serde(rename = "etag")]
    other_etag: Option<String>,
    #[serde(rename = "twinETag")]
    twin_etag: Option<String>,
}

impl BulkItem {
    /// Reads an item.
    ///
    /// # Errors
    /// [`BulkError`] with `ArgumentInvalid` or `DeserializationError`, and with the ids as far as they could be read.
    pub fn from_json(text: &[u8]) -> Result<Self, BulkError> {
        let mut told = BulkError {
            device: String::new(),
            module: None,
            operation: Mode::CreateOrUpdate.name(),
            error: ServiceError::argument_invalid(""),
        };
        let read = Self::read(text, &mut told);
        read.map_err(|error| BulkError { error, ..told })
    }

    fn read(text: &[u8], told: &mut BulkError) -> Result<Self, ServiceError> {
        // The members that matter here are read first, so that the others' faults can be told of somebody.
        let head: Head = serde_json::from_slice(text).map_err(|error| {
            let text = format!("the item can't be read: {error}");
            ServiceError::new(ErrorCode::DeserializationError, text)
        })?;
        let empty_is_none = |text: Option<String>| text.filter(|text| !text.is_empty());
        let (id, module) = (head.id.unwrap_or_default(), empty_is_none(head.module));
        told.device.clone_from(&id);
        told.module.clone_from(&module);
        let mode = match empty_is_none(head.mode) {
            None => Mode::CreateOrUpdate,
            Some(word) => Mode::of(&word).ok_or_else(|| {
                let known: Vec<_> = Mode::ALL.iter().map(|(name, _)| *name).collect();
                let shown: String = word.chars().take(50).collect();
                ServiceError::argument_invalid(format!("`importMode` is `{shown}`; give {}", known.join(", ")))
            })?,
        };
        told.operation = mode.name();
        let invalid = |error: holm_model::InvalidId| ServiceError::argument_invalid(error.to_string());
        let identity = Identity {
            device: DeviceId::new(&id).map_err(invalid)?,
            module: module
                .map(|module| ModuleId::new(&module))
                .transpose()
                .map_err(invalid)?,
        };
        Ok(Self {
            identity,
            mode,
            etag: empty_is_none(head.etag).or_else(|| empty_is_none(head.other_etag)),
            twin_etag: empty_is_none(head.twin_etag),
            wish: Wish::from_json(text)?,
            twin: TwinUpdate::from_json(text)?,
        })
    }

    /// Whom it is about.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Carries it out as a part of a transaction: all of it or nothing. The inner outcome is the item's.
    pub(crate) fn carry_out(
        self,
        transaction: &Transaction<'_>,
        context: &Context<'_>,
        manner: Manner,
        effects: &mut Effects,
    ) -> Result<Result<(), BulkError>, ServiceError> {
        let (identity, operation) = (self.identity.clone(), self.mode.name());
        let mut own = Effects::default();
        let done = transaction.attempt(|transaction| self.apply(transaction, context, manner, &mut own))?;
        if done.is_ok() {
            effects.add(own);
        }
        Ok(done.map_err(|error| BulkError {
            device: identity.device.to_string(),
            module: identity.module.map(|module| module.to_string()),
            operation,
            error,
        }))
    }

    fn apply(
        mut self,
        transaction: &Transaction<'_>,
        context: &Context<'_>,
        manner: Manner,
        effects: &mut Effects,
    ) -> Result<(), ServiceError> {
        if manner == Manner::Import {
            self.fit(transaction)?;
        }
        let Self { identity, wish, .. } = &self;
        let is_new = match self.mode {
            Mode::Create => true,
            Mode::CreateOrUpdate | Mode::CreateOrUpdateIfMatch => transaction.entry(identity)?.is_none(),
            _ => false,
        };
        let wanted = self.wanted_etag()?;
        match self.mode {
            Mode::Delete | Mode::DeleteIfMatch => {
                return change::remove(transaction, identity, wanted, context, effects);
            }
            Mode::UpdateTwin | Mode::UpdateTwinIfMatch => {}
            _ if is_new => {
                change::create(transaction, identity.clone(), wish.clone(), context)?;
            }
            _ => {
                change::update(transaction, identity, wanted, wish.clone(), context, effects)?;
            }
        }
        self.set_twin(transaction, context, is_new, effects)
    }

    /// The etag that the identity must have; `None` where any will do.
    fn wanted_etag(&self) -> Result<Option<&str>, ServiceError> {
        match self.mode {
            Mode::UpdateIfMatch | Mode::CreateOrUpdateIfMatch | Mode::DeleteIfMatch => match &self.etag {
                Some(etag) => Ok(Some(etag)),
                None => Err(ServiceError::argument_invalid(format!(
                    "`eTag` is missing, and `{}` asks for it; give the one that was read, or `*`",
                    self.mode.name()
                ))),
            },
            _ => Ok(None),
        }
    }

    fn set_twin(
        &self,
        transaction: &Transaction<'_>,
        context: &Context<'_>,
        is_new: bool,
        effects: &mut Effects,
    ) -> Result<(), ServiceError> {
        let is_for_twin = matches!(self.mode, Mode::UpdateTwin | Mode::UpdateTwinIfMatch);
        if self.twin == TwinUpdate::default() {
            return match is_for_twin {
                true => existing(transaction, &self.identity).map(|_| ()),
                false => Ok(()),
            };
        }
        let (entry, mut twin) = twins::with_entry(transaction, &self.identity)?;
        let wanted = match self.mode {
            Mode::UpdateTwin => None,
            _ if is_new => None,
            _ => self.twin_etag.as_deref(),
        };
        if self.mode == Mode::UpdateTwinIfMatch && wanted.is_none() {
            let text =
                "`twinETag` is missing, and `updateTwinIfMatchETag` asks for it; give the one that was read, or `*`";
            return Err(ServiceError::argument_invalid(text));
        }
        if wanted.is_some_and(|wanted| !etag::matches(wanted, &twin.etag())) {
            return Err(ServiceError::precondition_failed(format!(
                "the twin of `{}` was changed by somebody else: its etag is `{}`; read it and try again",
                self.identity,
                twin.etag()
            )));
        }
        let (hub_name, now) = (context.hub_name, context.now);
        let replace = Operation::Replace;
        let change = twins::change(transaction, &entry, &mut twin, &self.twin, replace, hub_name, now)?;
        effects.desired_changed(&self.identity, change.desired);
        Ok(())
    }

    /// Makes of a line that another hub may have written what it means here.
    fn fit(&mut self, transaction: &Transaction<'_>) -> Result<(), ServiceError> {
        let is_system = self.identity.module.as_ref().is_some_and(ModuleId::is_system);
        if is_system && !matches!(self.mode, Mode::Delete | Mode::DeleteIfMatch) {
            self.mode = Mode::UpdateTwin;
        }
        let scopes = self.wish.parent_scopes.iter_mut().flatten();
        for scope in scopes.chain(self.wish.device_scope.iter_mut()) {
            if transaction.edge_of_scope(scope)?.is_some() {
                continue;
            }
            let id = scope
                .strip_prefix("ms-azure-iot-edge://")
                .and_then(|rest| rest.rsplit_once('-'))
                .and_then(|(id, _)| DeviceId::new(id).ok());
            let Some(id) = id else { continue };
            if let Some(edge) = transaction.entry(&Identity::of_device(id))?
                && let Some(own) = edge.device_scope.filter(|_| edge.edge)
            {
                *scope = own;
            }
        }
        Ok(())
    }
}

impl Registry {
    /// Carries out the items of a request; those that could not even be read are among them.
    ///
    /// # Errors
    /// When the database can't be written to; then nothing was done.
    pub async fn bulk(&self, items: Vec<Result<BulkItem, BulkError>>) -> Result<BulkOutcome, ServiceError> {
        let mut mentions: HashMap<Identity, usize> = HashMap::new();
        for item in items.iter().flatten() {
            *mentions.entry(item.identity.clone()).or_default() += 1;
        }
        self.change(Caller::Service, move |transaction, context, effects| {
            let mut outcome = BulkOutcome::default();
            for item in items {
                let item = match item {
                    Ok(item) if mentions.get(&item.identity).is_some_and(|mentions| *mentions > 1) => Err(twice(&item)),
                    item => item,
                };
                let done = match item {
                    Ok(item) => item.carry_out(transaction, context, Manner::Request, effects)?,
                    Err(error) => Err(error),
                };
                outcome.errors.extend(done.err());
            }
            Ok(outcome)
        })
        .await
    }
}

/// Which of the two is meant is not for us to guess.
fn twice(item: &BulkItem) -> BulkError {
    let text = format!("`{}` stands more than once in the request; name it once", item.identity);
    BulkError {
        device: item.identity.device.to_string(),
        module: item.identity.module.as_ref().map(ToString::to_string),
        operation: item.mode.name(),
        error: ServiceError::new(ErrorCode::DeviceDefinedMultipleTimes, text),
    }
}

/// Reads the items of a request.
///
/// # Errors
/// `DeserializationError` when it is no array, `ArgumentInvalid` when it has more than [`MAX_BULK`] items.
pub(crate) fn items(body: &[u8]) -> Result<Vec<Result<BulkItem, BulkError>>, ServiceError> {
    let raw: Vec<Box<serde_json::value::RawValue>> = serde_json::from_slice(body).map_err(|error| {
        let text = format!("the body must be an array of devices and modules: {error}");
        ServiceError::new(ErrorCode::DeserializationError, text)
    })?;
    if raw.len() > MAX_BULK {
        let text = format!("the request has {} items; send at most {MAX_BULK} at once", raw.len());
        return Err(ServiceError::argument_invalid(text));
    }
    Ok(raw
        .iter()
        .map(|item| BulkItem::from_json(item.get().as_bytes()))
        .collect())
}

/// The published form of what was not done.
impl From<&BulkError> for Value {
    fn from(failed: &BulkError) -> Self {
        serde_json::json!({
            "deviceId": failed.device,
            "moduleId": failed.module,
            "errorCode": failed.error.code.name(),
            "errorStatus": failed.error.message,
            "operation": failed.operation,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_modes_are_read_in_any_case() {
        for (word, mode) in [
            ("Delete", Mode::Delete),
            ("deleteIfMatchEtag", Mode::DeleteIfMatch),
            ("CREATEORUPDATE", Mode::CreateOrUpdate),
        ] {
            assert_eq!(Mode::of(word), Some(mode));
        }
        assert_eq!(Mode::of("upsert"), None);
    }

    #[test]
    fn an_item_that_is_wrong_is_told_with_whose_it_is() {
        let refused = |text: &str| BulkItem::from_json(text.as_bytes()).unwrap_err();

        let mode = refused(r#"{"id":"d1","moduleId":"m","importMode":"upsert"}"#);
        let status = refused(r#"{"id":"d1","importMode":"Create","status":"maybe"}"#);
        let id = refused(r#"{"id":"d 1"}"#);

        assert_eq!((mode.device.as_str(), mode.module.as_deref()), ("d1", Some("m")));
        assert_eq!((status.device.as_str(), status.operation), ("d1", "create"));
        assert_eq!(id.error.code, ErrorCode::ArgumentInvalid);
        assert_eq!(refused("3").error.code, ErrorCode::DeserializationError);
    }
}
