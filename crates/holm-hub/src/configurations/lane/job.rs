//! What is to be done to one target, and in whose name.

use std::sync::Arc;

use holm_model::Identity;
use holm_model::configuration::{ConfigurationId, ConfigurationKind};

use super::super::intent::Intent;
use super::Turn;
use crate::actor::Actor;

/// Something to be applied.
#[derive(Clone, Debug)]
pub(in super::super) struct Job {
    pub(in super::super) kind: ConfigurationKind,
    pub(in super::super) identity: Identity,
    pub(in super::super) intent: Arc<Intent>,
    pub(in super::super) turn: Turn,
}

impl Job {
    /// Who does it: the configurations that are in force, or the hub where none is any more.
    pub(in super::super) fn actor(&self) -> Actor {
        let names: Vec<&str> = self.intent.applied().map(ConfigurationId::as_str).collect();
        if names.is_empty() {
            Actor::Hub
        } else {
            Actor::Deployment(names.join(","))
        }
    }
}
