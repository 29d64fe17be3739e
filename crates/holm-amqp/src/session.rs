//! One session: its windows, its links by both their handles, and its deliveries.
//!
//! ```text
//!   peer begins:  Mapped --end, either--> gone        an end of ours waits for the peer's: Ending --> gone
//!   we begin:     Beginning --answer--> Mapped
//! ```

use std::collections::BTreeMap;

use crate::link::{Held, Link, LinkId, LinkState, SessionId};
use crate::performative::Role;
use crate::unsettled::{Settlements, UnsettledIn, UnsettledOut};
use crate::window::SessionWindow;

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionState {
    /// We began; the peer answers. `Beginning => (Mapped | Ending)`
    Beginning,
    /// `Mapped => (Ending | gone)`
    Mapped,
    /// We ended; what the peer sends meanwhile is dropped. `Ending => gone`
    Ending,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) state: SessionState,
    /// The channel of the peer's frames, once it began.
    pub(crate) remote_channel: Option<u16>,
    /// The highest handle that the peer takes.
    pub(crate) remote_handle_max: u32,
    pub(crate) window: SessionWindow,
    /// By the handle in our frames.
    links: Vec<Option<Box<Link>>>,
    /// From the handle in the peer's frames to ours.
    by_remote: BTreeMap<u32, u32>,
    pub(crate) inbound: UnsettledIn,
    pub(crate) outbound: UnsettledOut,
    pub(crate) settlements: Settlements,
    /// Whether the session is in the list of those that have something to tell.
    pub(crate) dirty: bool,
    /// Links whose credit may be filled up.
    pub(crate) dirty_links: Vec<u32>,
}

impl Session {
    pub(crate) fn new(id: SessionId, state: SessionState, window: u32) -> Self {
        Self {
            id,
            state,
            remote_channel: None,
            remote_handle_max: u32::MAX,
            window: SessionWindow::new(window),
            links: Vec::new(),
            by_remote: BTreeMap::new(),
            inbound: UnsettledIn::default(),
            outbound: UnsettledOut::default(),
            settlements: Settlements::default(),
            dirty: false,
            dirty_links: Vec::new(),
        }
    }

    pub(crate) fn link(&mut self, handle: u32) -> Option<&mut Link> {
        let index = usize::try_from(handle).ok()?;
        self.links.get_mut(index)?.as_deref_mut()
    }

    /// The link that an id means, to look at.
    pub(crate) fn look(&self, id: LinkId) -> Option<&Link> {
        let index = usize::try_from(id.handle).ok()?;
        let link = self.links.get(index)?.as_deref()?;
        (link.serial == id.serial).then_some(link)
    }

    /// The link that an id means, unless it is gone.
    pub(crate) fn known(&mut self, id: LinkId) -> Option<&mut Link> {
        self.link(id.handle).filter(|link| link.serial == id.serial)
    }

    /// Our handle of the link that the peer calls so.
    pub(crate) fn by_remote(&self, remote_handle: u32) -> Option<u32> {
        self.by_remote.get(&remote_handle).copied()
    }

    /// Our handle of a link that has neither ended nor is about to, by its name and our role in it.
    pub(crate) fn by_name(&self, name: &str, role: Role) -> Option<u32> {
        let index = self.links.iter().position(|link| {
            link.as_ref()
                .is_some_and(|link| link.name == *name && link.role() == role && link.state != LinkState::Detaching)
        })?;
        u32::try_from(index).ok()
    }

    /// The lowest free handle, if the peer takes it.
    pub(crate) fn free_handle(&self) -> Option<u32> {
        let free = self.links.iter().position(Option::is_none);
        let handle = u32::try_from(free.unwrap_or(self.links.len())).ok()?;
        (handle <= self.remote_handle_max).then_some(handle)
    }

    /// Puts a link under a free handle.
    pub(crate) fn insert(&mut self, handle: u32, link: Link) {
        let index = usize::try_from(handle).unwrap_or(usize::MAX);
        if index == self.links.len() {
            self.links.push(None);
        }
        if let Some(remote_handle) = link.remote_handle {
            self.by_remote.insert(remote_handle, handle);
        }
        if let Some(place) = self.links.get_mut(index) {
            *place = Some(Box::new(link));
        }
    }

    /// Notes the handle that the peer calls a link of ours.
    pub(crate) fn set_remote(&mut self, handle: u32, remote_handle: u32) {
        self.by_remote.insert(remote_handle, handle);
        if let Some(link) = self.link(handle) {
            link.remote_handle = Some(remote_handle);
        }
    }

    /// Forgets a link with its deliveries.
    pub(crate) fn remove(&mut self, handle: u32) -> Option<Box<Link>> {
        let index = usize::try_from(handle).ok()?;
        let link = self.links.get_mut(index)?.take()?;
        if let Some(remote_handle) = link.remote_handle {
            self.by_remote.remove(&remote_handle);
        }
        self.forget_deliveries(handle);
        while matches!(self.links.last(), Some(None)) {
            self.links.pop();
        }
        Some(link)
    }

    /// Forgets what waits for an outcome on a link.
    pub(crate) fn forget_deliveries(&mut self, handle: u32) {
        self.inbound.forget(handle);
        self.outbound.forget(handle);
    }

    /// The handles of all links.
    pub(crate) fn handles(&self) -> impl Iterator<Item = u32> {
        let present = self.links.iter().enumerate().filter(|(_, link)| link.is_some());
        present.filter_map(|(index, _)| u32::try_from(index).ok())
    }

    /// The number of links, and what they hold.
    pub(crate) fn held(&self) -> (usize, Held) {
        let links = self.links.iter().flatten();
        links.fold((0, Held::default()), |(count, held), link| {
            let more = link.held();
            let held = Held {
                queued: held.queued + more.queued,
                partial: held.partial + more.partial,
            };
            (count + 1, held)
        })
    }
}
