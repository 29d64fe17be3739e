//! Modules that leave: an identity may be deleted above only when what the module handed in has got there, since nobody else
//! may send it; and when the queue has that on disk, since a crash would bring back messages that nobody may send any more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use holm_model::{Identity, ModuleId};
use holm_query::Sink;
use holm_queue::LaneId;

use super::{Broker, lock, rehome};

/// How far each module is that leaves.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// Held for map operations.
    modules: Mutex<HashMap<Identity, Stand>>,
}

#[derive(Debug)]
enum Stand {
    /// Something is on its way, maybe: where the lanes upstream ended when the module had gone silent. What it sent lies before
    /// that.
    Sending(Vec<(LaneId, u64)>),
    /// All has arrived, and the queue may have it on disk.
    Arrived(Arc<AtomicBool>),
}

impl Leaving {
    /// A session of this identity has ended: it may have sent more than was noted.
    pub(super) fn forget(&self, identity: &Identity) {
        lock(&self.modules).remove(identity);
    }
}

impl Broker {
    /// Whether a module that was stopped has nothing on its way upstream. To be asked again until it has: the first call
    /// notes how far the queue reaches.
    pub fn has_left(&self, module: &ModuleId) -> bool {
        let identity = Identity::of_module(self.keys.device().clone(), module.clone());
        let mut leaving = lock(&self.leaving.modules);
        if self.directory.find(&identity).is_some() {
            leaving.remove(&identity);
            return false;
        }
        let stand = leaving.entry(identity.clone());
        let stand = stand.or_insert_with(|| Stand::Sending(self.ends_upstream()));
        let is_done = |(lane, end): &(LaneId, u64)| {
            let low_water = self.lanes.queue().low_water(*lane);
            low_water.is_none_or(|low_water| low_water >= *end)
        };
        if let Stand::Sending(ends) = stand
            && ends.iter().all(is_done)
            && !self.is_aside(&identity)
        {
            *stand = Stand::Arrived(self.flush());
        }
        let has_left = matches!(stand, Stand::Arrived(on_disk) if on_disk.load(Ordering::Relaxed));
        if has_left {
            leaving.remove(&identity);
        }
        has_left
    }

    /// Becomes true when the queue has on disk what it knows now.
    fn flush(&self) -> Arc<AtomicBool> {
        let on_disk = Arc::<AtomicBool>::default();
        let (queue, told) = (self.lanes.queue().clone(), Arc::clone(&on_disk));
        self.scope.spawn_until_stopped(async move {
            rehome::flushed(&queue).await;
            told.store(true, Ordering::Relaxed);
        });
        on_disk
    }

    /// Whether messages of a sender wait in lanes of its own. They are there before they leave the common ones.
    fn is_aside(&self, sender: &Identity) -> bool {
        let mut lanes = self.lanes.all().into_iter();
        lanes.any(|(name, lane)| {
            let depth = self.lanes.queue().depth(lane);
            name.aside.as_ref() == Some(sender) && depth.is_some_and(|depth| depth.records > 0)
        })
    }

    fn ends_upstream(&self) -> Vec<(LaneId, u64)> {
        let lanes = self.lanes.all().into_iter();
        let upstream = lanes.filter(|(name, _)| name.endpoint == Sink::Upstream && name.aside.is_none());
        upstream
            .filter_map(|(_, lane)| Some((lane, self.lanes.queue().lane_bounds(lane)?.next)))
            .collect()
    }
}
