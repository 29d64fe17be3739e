//! Parents and children: which places a device may take, who may act for whom, and whose sessions end when that changes.
//!
//! ```text
//! e1 (edge) ── e2 (edge) ── leaf          at most MAX_LEVELS edges above one another
//!    '──────── leaf                       at most MAX_CHILDREN below one edge
//! ```
//!
//! An edge device acts for the devices below it and for their modules, and for nobody else; it does so as its module
//! `$edgeHub`. Every edge device between the two must be enabled.
//!
//! Source: `hub-service-api.md` §2.3, `edge-broker.md` §7.

use holm_model::{DeviceId, ErrorCode, Identity, ModuleId, ServiceError};

use super::rules::invalid_scope;
use super::{Described, Entry, Registry, describe_all, existing};
use crate::storage::{Transaction, View};

/// The most children of one edge device. The original allows 100; a gateway of ours is made for 5,000, and twice that keeps its
/// memory and one synchronisation (a hundred calls) in bounds.
pub const MAX_CHILDREN: u32 = 10_000;

/// The most edge devices above one another. Source: `hub-service-api.md` §2.3.
pub const MAX_LEVELS: u32 = 5;

/// A part of the devices below an edge, with their modules.
#[derive(Clone, Debug)]
pub struct ScopePage {
    /// Devices in order of their ids.
    pub devices: Vec<Entry>,
    /// The modules of these devices.
    pub modules: Vec<Entry>,
    /// The last of these devices, when there are more behind it.
    pub last: Option<DeviceId>,
}

impl Registry {
    /// The devices whose parent is `parent`, after `after`, in order of their ids, at most `most`.
    ///
    /// # Errors
    /// `DeviceNotFound`; `ArgumentInvalid` when the parent is no edge device.
    pub async fn children(&self, parent: DeviceId, after: String, most: u32) -> Result<Vec<Described>, ServiceError> {
        let found = self
            .repository
            .read(move |view| {
                let entry = existing(view, &Identity::of_device(parent))?;
                let scope = own_scope(&entry).ok_or_else(|| {
                    ServiceError::argument_invalid(format!(
                        "`{}` is no edge device, so it has no children",
                        entry.identity
                    ))
                })?;
                let children = view.children(scope, &after, most)?;
                describe_all(view, children)
            })
            .await?;
        Ok(self.with_presence_of_all(found))
    }

    /// What is in the scope of the edge device `of`, asked by the edge device `actor` (itself, or one above it): those after
    /// `after`, at most `most` devices.
    ///
    /// # Errors
    /// `DeviceNotFound` when `of` is not below `actor`.
    pub async fn scope_page(
        &self,
        actor: DeviceId,
        of: DeviceId,
        after: String,
        most: u32,
    ) -> Result<ScopePage, ServiceError> {
        self.repository
            .read(move |view| {
                check_below(view, &actor, &of)?;
                let devices = view.family(&of, &after, most)?;
                let is_full = u32::try_from(devices.len()).is_ok_and(|count| count == most);
                let mut modules = Vec::new();
                for device in &devices {
                    modules.extend(view.modules(&device.identity.device)?);
                }
                let last = devices
                    .last()
                    .filter(|_| is_full)
                    .map(|last| last.identity.device.clone());
                Ok(ScopePage { devices, modules, last })
            })
            .await
    }

    /// A device in the scope of the edge device `actor`, and one of its modules when `target` is one.
    ///
    /// # Errors
    /// `DeviceNotFound`, `ModuleNotFound`; the first also when the device is not below the actor.
    pub async fn in_scope(&self, actor: DeviceId, target: Identity) -> Result<ScopePage, ServiceError> {
        self.repository
            .read(move |view| {
                check_below(view, &actor, &target.device)?;
                let device = existing(view, &Identity::of_device(target.device.clone()))?;
                let module = target.is_module().then(|| existing(view, &target)).transpose()?;
                Ok(ScopePage {
                    devices: vec![device],
                    modules: module.into_iter().collect(),
                    last: None,
                })
            })
            .await
    }
}

fn check_below(view: &View<'_>, actor: &DeviceId, device: &DeviceId) -> Result<(), ServiceError> {
    match is_below(view, device, actor)? {
        true => Ok(()),
        // The same as for one that does not exist: an edge learns nothing of devices that are not its own.
        false => Err(ServiceError::device_not_found(device)),
    }
}

/// The scope that an edge device is the head of.
fn own_scope(entry: &Entry) -> Option<&str> {
    entry.device_scope.as_deref().filter(|_| entry.edge)
}

/// Whether the edge device `actor` may act for `device`: it is the device itself, or above it with nothing disabled between.
///
/// # Errors
/// When the registry can't be read.
pub(crate) fn is_below(view: &View<'_>, device: &DeviceId, actor: &DeviceId) -> Result<bool, ServiceError> {
    let Some(mut current) = view.entry(&Identity::of_device(device.clone()))? else {
        return Ok(false);
    };
    if current.identity.device == *actor {
        return Ok(current.edge && current.enabled);
    }
    for _ in 0..MAX_LEVELS {
        match view.parent(&current)? {
            Some(parent) if !parent.enabled => return Ok(false),
            Some(parent) if parent.identity.device == *actor => return Ok(true),
            Some(parent) => current = parent,
            None => return Ok(false),
        }
    }
    Ok(false)
}

/// Whether `entry` may stand below `parent`, whose scope is `scope`.
pub(super) fn check_place(view: &View<'_>, parent: &Entry, scope: &str, entry: &Entry) -> Result<(), ServiceError> {
    let mut above = Some(parent.clone());
    // What stands below comes along.
    let mut levels = if entry.edge {
        1 + view.edges_below(&entry.identity.device)?
    } else {
        0
    };
    while let Some(edge) = above {
        levels += 1;
        if edge.identity == entry.identity {
            return Err(invalid_scope(&format!(
                "`{}` is below `{}`; a device can't be below itself",
                parent.identity, entry.identity
            )));
        }
        if levels > MAX_LEVELS {
            return Err(invalid_scope(&format!(
                "more than {MAX_LEVELS} edge devices would stand above one another; choose a parent higher up"
            )));
        }
        above = view.parent(&edge)?;
    }
    if view.child_count(scope)? >= MAX_CHILDREN {
        return Err(ServiceError::new(
            ErrorCode::TooManyDevices,
            format!(
                "`{}` has {MAX_CHILDREN} children, the most allowed; choose another parent",
                parent.identity
            ),
        ));
    }
    Ok(())
}

/// Whose proofs no longer hold when `current` becomes `next` (`None`: it goes).
pub(super) fn who_loses(view: &View<'_>, current: &Entry, next: Option<&Entry>) -> Result<Vec<Identity>, ServiceError> {
    let lost_proof = next.is_none_or(|next| {
        current.authentication != next.authentication
            || (current.enabled && !next.enabled)
            || current.parent_scopes != next.parent_scopes
    });
    let can_act = |next: &Entry| next.enabled && next.edge && current.parent_scopes == next.parent_scopes;
    let lost_children = match &current.identity.module {
        None => current.edge && !next.is_some_and(can_act),
        Some(module) => *module == ModuleId::edge_hub() && lost_proof,
    };
    let mut lost: Vec<_> = lost_proof.then(|| current.identity.clone()).into_iter().collect();
    if lost_children {
        lost.extend(
            view.below(&current.identity.device)?
                .into_iter()
                .map(Identity::of_device),
        );
    }
    Ok(lost)
}

/// Frees the children of an edge device that goes or is none any more, so that they keep no scope that nobody has.
pub(super) fn free_if_childless(
    transaction: &Transaction<'_>,
    current: &Entry,
    next: Option<&Entry>,
) -> Result<(), ServiceError> {
    match own_scope(current) {
        Some(scope) if !next.is_some_and(|next| next.edge) => transaction.free_children(scope),
        _ => Ok(()),
    }
}
