//! The groups, in memory: a device that registers names none, so each is a candidate.
//!
//! They change after the commit that changes them, in the order of the commits.

use std::sync::{Arc, PoisonError, RwLock};

use super::enrollment::{Enrollment, Kind};
use holm_model::RegistrationId;

/// All groups. What is read is one state of them.
#[derive(Debug)]
pub(super) struct Groups(RwLock<Arc<Vec<Arc<Enrollment>>>>);

impl Groups {
    pub(super) fn new(groups: Vec<Enrollment>) -> Self {
        Self(RwLock::new(Arc::new(groups.into_iter().map(Arc::new).collect())))
    }

    pub(super) fn all(&self) -> Arc<Vec<Arc<Enrollment>>> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes up a group, new or changed; an individual enrollment is none.
    pub(super) fn put(&self, enrollment: &Enrollment) {
        if enrollment.kind == Kind::Group {
            self.change(&enrollment.id, Some(enrollment));
        }
    }

    pub(super) fn remove(&self, id: &RegistrationId) {
        self.change(id, None);
    }

    fn change(&self, id: &RegistrationId, next: Option<&Enrollment>) {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let others = held.iter().filter(|group| group.id != *id).cloned();
        let next = next.cloned().map(Arc::new);
        *held = Arc::new(others.chain(next).collect());
    }
}
