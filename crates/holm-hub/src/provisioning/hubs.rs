//! The hubs that devices may be given to: that of this process, if it is one, and those that were linked.
//!
//! They are in memory as they are on disk; what is changed counts for the next registration. The hub of this process is always
//! there, with weight 1 until an operator says otherwise.

use std::sync::{Arc, PoisonError, RwLock};

use holm_identity::connection_string::Credential;
use holm_identity::{Secret, ServiceConnectionString};
use holm_model::{ProvisioningCode, ProvisioningError, ServiceError, etag};
use serde_json::{Value, json};

use super::Provisioning;
use super::linked::{self, LinkedService};
use super::registration::new_etag;
use crate::storage::{LinkedHub, Transaction};

/// The most hubs. Source: `hub-service-api.md` §9.
pub const MAX_HUBS: usize = 50;
/// What an operator may give as weight.
const WEIGHTS: std::ops::RangeInclusive<u32> = 1..=1000;

/// What a hub is to be; what is not said stays.
#[derive(Clone, Debug, Default)]
pub struct HubWish {
    /// How it is reached.
    pub connection_string: Option<Secret>,
    /// Whom to trust beside the system's authorities, as PEM; empty: nobody.
    pub authority: Option<String>,
    /// Its share of the devices.
    pub weight: Option<u32>,
    /// Whether devices are given to it where an enrollment names no hubs.
    pub is_allocated: Option<bool>,
}

/// All hubs. What is read is one state of them.
#[derive(Debug)]
pub(super) struct Hubs {
    /// The hub of this process, if it is one.
    own: Option<String>,
    all: RwLock<Arc<Vec<LinkedHub>>>,
}

impl Hubs {
    pub(super) fn new(own: Option<String>, stored: Vec<LinkedHub>) -> Self {
        let hubs = Self {
            own,
            all: RwLock::new(Arc::new(Vec::new())),
        };
        hubs.replace(stored);
        hubs
    }

    /// Those that devices can be given to.
    pub(super) fn all(&self) -> Arc<Vec<LinkedHub>> {
        Arc::clone(&self.all.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn find(&self, host: &str) -> Option<LinkedHub> {
        self.all()
            .iter()
            .find(|hub| hub.host.eq_ignore_ascii_case(host))
            .cloned()
    }

    /// The hub of this process, if it is one.
    pub(super) fn own(&self) -> Option<&str> {
        self.own.as_deref()
    }

    /// Whether that is the hub of this process.
    pub(super) fn is_own(&self, host: &str) -> bool {
        self.own.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(host))
    }

    fn replace(&self, stored: Vec<LinkedHub>) {
        // What another host was once called here is reached by no connection string, and so is none.
        let mut all: Vec<_> = stored
            .into_iter()
            .filter(|hub| hub.connection_string.is_some() || self.is_own(&hub.host))
            .collect();
        if let Some(own) = self
            .own
            .as_ref()
            .filter(|_| !all.iter().any(|hub| self.is_own(&hub.host)))
        {
            all.insert(0, own_hub(own));
        }
        *self.all.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(all);
    }
}

fn own_hub(host: &str) -> LinkedHub {
    LinkedHub {
        host: host.to_owned(),
        connection_string: None,
        authority: None,
        weight: 1,
        is_allocated: true,
        etag: 0,
    }
}

impl Provisioning {
    /// The hubs, without what opens them.
    #[must_use]
    pub fn hubs(&self) -> Vec<Value> {
        self.0.hubs.all().iter().map(|hub| self.shown(hub)).collect()
    }

    /// A hub, without what opens it.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn hub(&self, host: &str) -> Result<Value, ProvisioningError> {
        let hub = self.0.hubs.find(host).ok_or_else(|| not_linked(host))?;
        Ok(self.shown(&hub))
    }

    /// Links a hub, or changes what is known of it. One that is linked is asked whether it can be used.
    ///
    /// # Errors
    /// `ArgumentInvalid`, `NotFound`, `PreconditionFailed`; `Unavailable` where the hub does not answer, or not as it must.
    pub async fn put_hub(
        &self,
        host: &str,
        wish: HubWish,
        if_match: Option<String>,
    ) -> Result<Value, ProvisioningError> {
        let is_own = self.0.hubs.is_own(host);
        let before = self.0.hubs.find(host);
        let mut hub = check(host, is_own, before.clone(), &wish)?;
        if wish.connection_string.is_some() || wish.authority.is_some() {
            let service = LinkedService::new(&hub, self.0.clock.clone())?;
            service.try_out().await.map_err(|trouble| {
                let text = format!("the hub `{host}` can't be used: {}", trouble.text);
                ProvisioningError::new(ProvisioningCode::ArgumentInvalid, text)
            })?;
        }
        hub.etag = new_etag()?;
        let name = host.to_owned();
        let operation = if before.is_some() {
            "linkedHub.update"
        } else {
            "linkedHub.add"
        };
        let changed = hub.clone();
        self.change_hubs(move |transaction, now| {
            let all = transaction.linked_hubs()?;
            let current = all.iter().find(|hub| hub.host.eq_ignore_ascii_case(&name));
            if let Err(refused) = check_etag(current, if_match.as_deref(), &name) {
                return Ok(Err(refused));
            }
            if current.is_none() && all.len() >= MAX_HUBS {
                let text = format!("there are {MAX_HUBS} hubs, the most that can be; remove one first");
                return Ok(Err(ProvisioningError::argument_invalid(text)));
            }
            transaction.put_linked_hub(&changed)?;
            transaction.record(operation, &changed.host, Some(&etag_text(&changed)), now)?;
            Ok(Ok(()))
        })
        .await?;
        Ok(self.shown(&hub))
    }

    /// Forgets a linked hub. Its devices stay there; what is asked for them next gives them another hub, and nothing of their
    /// data can come with them.
    ///
    /// # Errors
    /// `NotFound`, `PreconditionFailed`; `ArgumentInvalid` for the hub of this process.
    pub async fn remove_hub(&self, host: &str, if_match: Option<String>) -> Result<(), ProvisioningError> {
        if self.0.hubs.is_own(host) {
            let text = format!(
                "`{host}` is the hub of this service's own process; have it take no devices by `--no-allocation`"
            );
            return Err(ProvisioningError::argument_invalid(text));
        }
        let name = host.to_owned();
        self.change_hubs(move |transaction, now| {
            let all = transaction.linked_hubs()?;
            let Some(current) = all.iter().find(|hub| hub.host.eq_ignore_ascii_case(&name)) else {
                return Ok(Err(not_linked(&name)));
            };
            if let Err(refused) = check_etag(Some(current), if_match.as_deref(), &name) {
                return Ok(Err(refused));
            }
            transaction.remove_linked_hub(&name)?;
            transaction.record("linkedHub.remove", &current.host, Some(&etag_text(current)), now)?;
            Ok(Ok(()))
        })
        .await
    }

    /// What fails within `change` must have written nothing.
    async fn change_hubs(
        &self,
        change: impl FnOnce(&Transaction<'_>, holm_model::Timestamp) -> Result<Result<(), ProvisioningError>, ServiceError>
        + Send
        + 'static,
    ) -> Result<(), ProvisioningError> {
        let (now, shared) = (self.0.clock.now(), Arc::clone(&self.0));
        let changed = self.0.repository.change_then(
            move |transaction| {
                let done = change(transaction, now)?;
                Ok((done, transaction.linked_hubs()?))
            },
            move |(_, all)| shared.hubs.replace(all.clone()),
        );
        changed.await?.0
    }

    fn shown(&self, hub: &LinkedHub) -> Value {
        let string = hub
            .connection_string
            .as_ref()
            .map(|text| ServiceConnectionString::parse(text.expose()));
        let policy = match string.map(|string| string.map(|string| string.credential)) {
            Some(Ok(Credential::Key { policy, .. })) => policy,
            _ => None,
        };
        json!({
            "hostName": hub.host,
            "policy": policy,
            "isOwn": self.0.hubs.is_own(&hub.host),
            "allocationWeight": hub.weight,
            "applyAllocationPolicy": hub.is_allocated,
            "etag": etag_text(hub),
        })
    }
}

fn check(host: &str, is_own: bool, before: Option<LinkedHub>, wish: &HubWish) -> Result<LinkedHub, ProvisioningError> {
    let invalid = |text: String| ProvisioningError::argument_invalid(text);
    if is_own && (wish.connection_string.is_some() || wish.authority.is_some()) {
        return Err(invalid(format!(
            "`{host}` is the hub of this service's own process and needs no `connectionString`; give `allocationWeight` and `applyAllocationPolicy`"
        )));
    }
    if let Some(weight) = wish.weight.filter(|weight| !WEIGHTS.contains(weight)) {
        let (least, most) = (WEIGHTS.start(), WEIGHTS.end());
        return Err(invalid(format!(
            "`allocationWeight` is {weight}; give {least} to {most}"
        )));
    }
    let mut hub = match (before, &wish.connection_string) {
        (Some(before), _) => before,
        (None, Some(_)) => own_hub(host),
        (None, None) => {
            return Err(invalid(format!(
                "`{host}` is not linked; give its `connectionString`, of a policy with RegistryRead, RegistryWrite and ServiceConnect"
            )));
        }
    };
    if let Some(text) = &wish.connection_string {
        let string = ServiceConnectionString::parse(text.expose().trim()).map_err(|error| {
            let why = holm_net::error_chain(&error);
            invalid(format!("`connectionString` can't be used: {why}"))
        })?;
        let (name, _) = linked::split_port(&string.host_name);
        if !name.eq_ignore_ascii_case(host) {
            return Err(invalid(format!(
                "`connectionString` is of the hub `{name}` and the path names `{host}`; give the same hub"
            )));
        }
        if !matches!(string.credential, Credential::Key { .. }) {
            let text = "`connectionString` holds a token, which ends; give one with `SharedAccessKey`";
            return Err(invalid(text.to_owned()));
        }
        hub.connection_string = Some(string.to_text());
        hub.host = name;
    }
    if let Some(pem) = &wish.authority {
        hub.authority = Some(pem.clone()).filter(|pem| !pem.trim().is_empty());
    }
    hub.weight = wish.weight.unwrap_or(hub.weight);
    hub.is_allocated = wish.is_allocated.unwrap_or(hub.is_allocated);
    Ok(hub)
}

fn check_etag(current: Option<&LinkedHub>, if_match: Option<&str>, host: &str) -> Result<(), ProvisioningError> {
    let (Some(current), Some(wanted)) = (current, if_match) else {
        return Ok(());
    };
    let current = etag_text(current);
    if etag::matches(wanted, &current) {
        return Ok(());
    }
    let text = format!("`{host}` was changed by somebody else: its etag is `{current}`; read it and try again");
    Err(ProvisioningError::new(ProvisioningCode::PreconditionFailed, text))
}

fn etag_text(hub: &LinkedHub) -> String {
    etag::of_counter(hub.etag.unsigned_abs())
}

fn not_linked(host: &str) -> ProvisioningError {
    ProvisioningError::not_found(format!("there is no linked hub `{host}`"))
}
