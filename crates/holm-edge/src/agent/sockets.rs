//! What the agent asks of the workload API: that a module's directory and socket are there before the module is.

use std::path::PathBuf;

use holm_model::ModuleId;

use crate::local_api::SocketError;
use crate::workload::{Guard, Sockets};

/// The workload sockets, whoever guards the keys behind them.
pub trait ModuleSockets: Send + Sync + 'static {
    /// Makes a module's directory, with its socket served in it. A second call changes nothing.
    ///
    /// # Errors
    /// [`SocketError`].
    fn ensure(&self, module: &ModuleId) -> Result<PathBuf, SocketError>;

    /// Ends the socket of a module that is gone.
    fn close(&self, module: &ModuleId);
}

impl<G: Guard> ModuleSockets for Sockets<G> {
    fn ensure(&self, module: &ModuleId) -> Result<PathBuf, SocketError> {
        Self::ensure(self, module)
    }

    fn close(&self, module: &ModuleId) {
        Self::close(self, module);
    }
}
