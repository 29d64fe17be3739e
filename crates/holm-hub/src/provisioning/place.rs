//! A hub as a place where devices are: that of this process, or a linked one. Both are told the same, in the published documents.

use holm_model::twin::reported_from_json;
use holm_model::wire::percent;
use holm_model::{DeviceId, ErrorCode, Identity, ServiceError, TwinUpdate};
use hyper::Method;
use serde_json::Value;

use super::linked::{LinkedService, Trouble};
use crate::events::notice::Operation;
use crate::registry::{Caller, Registry, Wish};
use crate::twins::Twins;

/// The hub of this process.
#[derive(Clone, Debug)]
pub(super) struct OwnHub {
    pub(super) registry: Registry,
    pub(super) twins: Twins,
}

/// A hub.
#[derive(Debug)]
pub(super) enum Place<'o> {
    /// That of this process.
    Own(&'o OwnHub),
    /// Another one.
    Linked(LinkedService),
}

impl Place<'_> {
    /// A device or module; `None` where there is none.
    pub(super) async fn identity(&self, identity: &Identity) -> Result<Option<Value>, Trouble> {
        match self {
            Self::Own(own) => {
                let found = own.registry.get(identity.clone()).await;
                unless_missing(found.map(|described| described.to_json()))
            }
            Self::Linked(service) => service.call(Method::GET, &path("devices", identity), None, None).await,
        }
    }

    /// The modules of a device.
    pub(super) async fn modules(&self, device: &DeviceId) -> Result<Vec<Value>, Trouble> {
        match self {
            Self::Own(own) => {
                let found = unless_missing(own.registry.modules(device.clone()).await)?;
                Ok(found
                    .unwrap_or_default()
                    .iter()
                    .map(|described| described.to_json())
                    .collect())
            }
            Self::Linked(service) => {
                let path = format!("{}/modules", path("devices", &Identity::of_device(device.clone())));
                match service.call(Method::GET, &path, None, None).await? {
                    Some(Value::Array(modules)) => Ok(modules),
                    None => Ok(Vec::new()),
                    Some(_) => Err(Trouble::passing("its list of modules is none")),
                }
            }
        }
    }

    /// A twin as back ends read it; `None` where there is none.
    pub(super) async fn twin(&self, identity: &Identity) -> Result<Option<Value>, Trouble> {
        match self {
            Self::Own(own) => unless_missing(own.twins.get(identity.clone()).await.map(|twin| twin.to_json())),
            Self::Linked(service) => service.call(Method::GET, &path("twins", identity), None, None).await,
        }
    }

    /// Makes a device or module, or writes over the one that `is_there`.
    pub(super) async fn put(&self, identity: &Identity, document: &Value, is_there: bool) -> Result<(), Trouble> {
        match self {
            Self::Own(own) => {
                let wish = Wish::from_json(document.to_string().as_bytes()).map_err(refused)?;
                let if_match = is_there.then(|| "*".to_owned());
                let put = own.registry.put(identity.clone(), wish, if_match, Caller::Service);
                put.await.map(drop).map_err(refused)
            }
            Self::Linked(service) => {
                let if_match = is_there.then_some("*");
                let path = path("devices", identity);
                let answer = service.call(Method::PUT, &path, if_match, Some(document)).await?;
                there(answer)
            }
        }
    }

    /// Has a twin these tags and desired properties, and no others.
    pub(super) async fn put_twin(&self, identity: &Identity, document: &Value) -> Result<(), Trouble> {
        match self {
            Self::Own(own) => {
                let update = TwinUpdate::from_json(document.to_string().as_bytes()).map_err(refused)?;
                let put = own.twins.update(identity.clone(), update, Operation::Replace, None);
                put.await.map(drop).map_err(refused)
            }
            Self::Linked(service) => {
                let path = path("twins", identity);
                let answer = service.call(Method::PUT, &path, Some("*"), Some(document)).await?;
                there(answer)
            }
        }
    }

    /// Has a twin these reported properties, and no others. A hub that is none of ours has no way to be told: there the device reports
    /// them again.
    pub(super) async fn put_reported(&self, identity: &Identity, reported: &Value) -> Result<(), Trouble> {
        match self {
            Self::Own(own) => {
                let reported = reported_from_json(reported.to_string().as_bytes()).map_err(refused)?;
                let put = own.twins.adopt_reported(identity.clone(), reported).await;
                put.map(drop).map_err(refused)
            }
            Self::Linked(service) => {
                let path = format!("/holm/v1{}/reported", path("twins", identity));
                match service.call(Method::PUT, &path, None, Some(reported)).await {
                    Ok(Some(_)) => Ok(()),
                    Ok(None) => {
                        tracing::info!(%identity, "its hub takes no reported properties; the device reports them again");
                        Ok(())
                    }
                    Err(trouble) if trouble.is_final => {
                        tracing::info!(%identity, why = trouble.text, "its hub takes no reported properties; the device reports them again");
                        Ok(())
                    }
                    Err(trouble) => Err(trouble),
                }
            }
        }
    }

    /// Removes a device with all that belongs to it; one that is not there is no trouble.
    pub(super) async fn remove(&self, device: &DeviceId) -> Result<(), Trouble> {
        let identity = Identity::of_device(device.clone());
        match self {
            Self::Own(own) => {
                let removed = own.registry.remove(identity, None, Caller::Service).await;
                unless_missing(removed).map(drop)
            }
            Self::Linked(service) => {
                let path = path("devices", &identity);
                service.call(Method::DELETE, &path, Some("*"), None).await.map(drop)
            }
        }
    }
}

fn path(noun: &str, identity: &Identity) -> String {
    let device = percent::encode(identity.device.as_str());
    match &identity.module {
        None => format!("/{noun}/{device}"),
        Some(module) => format!("/{noun}/{device}/modules/{}", percent::encode(module.as_str())),
    }
}

/// It went while it was written.
fn there(answer: Option<Value>) -> Result<(), Trouble> {
    answer
        .map(drop)
        .ok_or_else(|| Trouble::passing("the device went while it was made"))
}

fn unless_missing<T>(found: Result<T, ServiceError>) -> Result<Option<T>, Trouble> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.code, ErrorCode::DeviceNotFound | ErrorCode::ModuleNotFound) => Ok(None),
        Err(error) => Err(refused(error)),
    }
}

fn refused(error: ServiceError) -> Trouble {
    let is_final = matches!(error.code.status(), 400 | 403 | 413);
    Trouble {
        text: error.message,
        is_final,
    }
}
