//! The management API: what operators and tools of this device ask about its modules, on a socket of its own, and
//! what is ours under `/holm/v1/`: the edge's status, the agent's plan and another try, dead letters, and the upgrade.
//!
//! Modules are created and removed by the deployment alone; callers that are not the agent are forbidden to, as published,
//! and here the agent is no caller.
//!
//! Source: `edge-agent.md` §3.1, §3.3.

mod dead_letters;
mod handler;
mod logs;
pub mod system;
pub mod view;

use std::path::Path;
use std::sync::Arc;

use holm_net::{ListeningSockets, Scope};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::agent::Agent;
use crate::broker::Broker;
use crate::keys::ModuleKeys;
use crate::local_api::{Admission, Socket, SocketError};
use crate::own_log::OwnLog;
use crate::runtimes::Runtimes;
use crate::usage::Usage;

/// Its group may use the socket, as published.
const SOCKET_MODE: u32 = 0o660;
/// Connections at once of each user, as published.
const MAX_CONNECTIONS: usize = 50;

/// What the API shows and does.
pub struct Managed {
    /// The modules.
    pub runtimes: Runtimes,
    /// Their identities.
    pub keys: Arc<dyn ModuleKeys>,
    /// What keeps their messages.
    pub broker: Arc<Broker>,
    /// How the edge stands, for `/holm/v1/status`.
    pub status: Box<dyn Fn() -> Value + Send + Sync>,
    /// Who keeps the modules.
    pub agent: Agent,
    /// What they use.
    pub usage: Usage,
    /// What this process logs.
    pub own_log: OwnLog,
    /// Where the process hears what is wanted of it.
    pub wishing: mpsc::Sender<Wish>,
}

/// What an operator wants of the process that the edge runs in.
#[derive(Debug)]
pub enum Wish {
    /// To make room for the program that its file now holds. It answers with the build that goes on, or with why none does.
    Upgrade(oneshot::Sender<Result<String, String>>),
    /// To ask the provisioning service where this device belongs. It answers when that has answered; an edge that belongs elsewhere
    /// then begins anew as that.
    Reprovision(oneshot::Sender<Result<(), NotReprovisioned>>),
}

/// Why a device was not provisioned anew.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReprovisioned {
    /// There is nobody to ask.
    #[error(
        "this device was provisioned by hand, so there is nobody to ask; `holm edge config apply` puts a changed configuration into force"
    )]
    ByHand,
    /// The service did not tell.
    #[error("{0}")]
    NotTold(String),
}

impl std::fmt::Debug for Managed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Managed")
            .field("runtimes", &self.runtimes)
            .finish_non_exhaustive()
    }
}

/// Serves the API at a path until the scope stops.
///
/// # Errors
/// [`SocketError`].
pub fn serve(scope: &Scope, sockets: &ListeningSockets, path: &Path, managed: Managed) -> Result<(), SocketError> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(|source| SocketError::Io {
            operation: "make",
            path: directory.to_owned(),
            source,
        })?;
    }
    let socket = Socket::bind(sockets, path, SOCKET_MODE)?;
    let handler = Arc::new(handler::Management {
        managed,
        scope: scope.clone(),
        silent: handler::Silent::default(),
    });
    scope.spawn(socket.serve(scope.clone(), Admission::new(MAX_CONNECTIONS), handler));
    Ok(())
}
