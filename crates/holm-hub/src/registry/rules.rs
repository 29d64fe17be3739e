//! What a new or changed identity becomes, given what was asked and what is there.

use holm_model::{ErrorCode, Identity, ModuleId, ServiceError, Timestamp};

use super::{Caller, Entry, Wish, check_room, existing, family};
use crate::storage::View;

/// Ids in the body, where given, must be those in the path.
pub(super) fn check_ids(identity: &Identity, wish: &Wish) -> Result<(), ServiceError> {
    let differs = |name: &str, body: &Option<String>, path: Option<&str>| match body {
        Some(body) if Some(body.as_str()) != path => Err(ServiceError::argument_invalid(format!(
            "`{name}` in the body is `{body}` and in the path `{}`; give the same id",
            path.unwrap_or_default()
        ))),
        _ => Ok(()),
    };
    differs("deviceId", &wish.device_id, Some(identity.device.as_str()))?;
    if identity.is_module() {
        differs(
            "moduleId",
            &wish.module_id,
            identity.module.as_ref().map(ModuleId::as_str),
        )?;
    }
    Ok(())
}

pub(super) fn system_module(identity: &Identity) -> ServiceError {
    ServiceError::new(
        ErrorCode::SystemModuleModifyUnauthorizedAccess,
        format!("`{identity}` belongs to the edge runtime; it comes and goes with the device"),
    )
}

/// Whether there may be a new identity of this id.
pub(super) fn check_new(
    view: &View<'_>,
    identity: &Identity,
    current: Option<&Entry>,
    caller: Caller,
) -> Result<(), ServiceError> {
    let Some(module) = &identity.module else {
        return match current {
            None => Ok(()),
            Some(_) => Err(ServiceError::new(
                ErrorCode::DeviceAlreadyExists,
                format!("device `{identity}` is registered already; send `If-Match` to update it"),
            )),
        };
    };
    let device = existing(view, &Identity::of_device(identity.device.clone()))?;
    if current.is_some() {
        return Err(ServiceError::new(
            ErrorCode::ModuleAlreadyExistsOnDevice,
            format!("module `{identity}` is registered already; send `If-Match` to update it"),
        ));
    }
    if module.is_system() {
        return Err(system_module(identity));
    }
    if caller == Caller::Device && !device.edge {
        return Err(ServiceError::new(
            ErrorCode::IotHubUnauthorizedAccess,
            format!(
                "device `{device}` is not an edge device, so it can't register modules",
                device = identity.device
            ),
        ));
    }
    check_room(view, &identity.device)
}

/// Whether the caller may change this entry: the runtime's own modules are changed by their device only.
pub(super) fn check_change(current: &Entry, caller: Caller) -> Result<(), ServiceError> {
    let system = current.identity.module.as_ref().is_some_and(ModuleId::is_system);
    if system && caller == Caller::Service {
        return Err(system_module(&current.identity));
    }
    Ok(())
}

/// The entry of a new identity.
pub(super) fn created(view: &View<'_>, identity: Identity, wish: Wish, now: Timestamp) -> Result<Entry, ServiceError> {
    let mut entry = Entry::new(identity, now)?;
    entry.authentication = wish.authentication.clone().resolve(None)?;
    if entry.identity.is_module() {
        entry.managed_by = wish.managed_by;
        return Ok(entry);
    }
    entry.enabled = wish.enabled.unwrap_or(true);
    entry.status_reason = wish.status_reason.clone().flatten();
    if wish.edge == Some(true) {
        entry.become_edge();
    }
    place(view, &mut entry, &wish)?;
    Ok(entry)
}

/// What an entry becomes; what was not said stays.
pub(super) fn updated(view: &View<'_>, current: &Entry, wish: Wish, now: Timestamp) -> Result<Entry, ServiceError> {
    let mut entry = current.clone();
    entry.renew_etag()?;
    entry.authentication = wish.authentication.clone().resolve(Some(&current.authentication))?;
    if entry.identity.is_module() {
        entry.managed_by = wish.managed_by.or(entry.managed_by);
        return Ok(entry);
    }
    entry.enabled = wish.enabled.unwrap_or(current.enabled);
    if entry.enabled != current.enabled {
        entry.status_updated = now;
    }
    if let Some(reason) = wish.status_reason.clone() {
        entry.status_reason = reason;
    }
    match wish.edge {
        Some(true) if !current.edge => entry.become_edge(),
        Some(false) if current.edge => {
            entry.edge = false;
            entry.device_scope = None;
        }
        _ => {}
    }
    place(view, &mut entry, &wish)?;
    Ok(entry)
}

/// Puts a device below its parent. The scope of an edge device is its own and never follows a request; a leaf's scope is
/// its parent's, and both members say the same.
fn place(view: &View<'_>, entry: &mut Entry, wish: &Wish) -> Result<(), ServiceError> {
    let wished = match (&wish.device_scope, &wish.parent_scopes) {
        (Some(scope), _) if !entry.edge => Some(vec![scope.clone()]),
        (_, scopes) => scopes.clone(),
    };
    let Some(mut scopes) = wished else {
        return Ok(());
    };
    scopes.retain(|scope| !scope.is_empty());
    if scopes.len() > 1 {
        return Err(invalid_scope("a device has at most one parent; give one scope"));
    }
    for scope in &scopes {
        let parent = view
            .edge_of_scope(scope)?
            .filter(|parent| parent.identity != entry.identity);
        let parent = parent.ok_or_else(|| {
            invalid_scope(&format!(
                "`{scope}` is not the scope of another edge device; read `deviceScope` of the parent"
            ))
        })?;
        if entry.parent_scopes.first() != Some(scope) {
            family::check_place(view, &parent, scope, entry)?;
        }
    }
    if !entry.edge {
        entry.device_scope = scopes.first().cloned();
    }
    entry.parent_scopes = scopes;
    Ok(())
}

pub(super) fn invalid_scope(text: &str) -> ServiceError {
    ServiceError::new(ErrorCode::InvalidDeviceScope, text)
}
