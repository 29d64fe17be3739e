//! The directories and sockets of the modules.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use holm_model::{ModuleId, hex};
use holm_net::{ListeningSockets, Scope};
use sha2::{Digest, Sha256};

use super::guard::Guard;
use super::handler::Workload;
use crate::local_api::{Admission, Socket, SocketError};
use crate::runtimes::Runtimes;

/// The name of the socket in a module's directory.
const SOCKET: &str = "workload.sock";
/// Any user may connect, as published: who calls is judged by its process.
const SOCKET_MODE: u32 = 0o666;
/// Connections at once of each user to each module's socket, as published.
const MAX_CONNECTIONS: usize = 10;

/// The directory of a module. An id has up to 128 bytes and a socket's path at most 107, so the directory is named by a
/// short hash.
#[must_use]
pub fn module_directory(data: &Path, module: &ModuleId) -> PathBuf {
    let digest = Sha256::digest(module.as_str().as_bytes());
    let name = hex::encode(digest.get(..6).unwrap_or_default());
    data.join("modules").join(name)
}

/// The workload sockets of this edge.
#[derive(Debug)]
pub struct Sockets<G> {
    data: PathBuf,
    guard: Arc<G>,
    runtimes: Runtimes,
    sockets: ListeningSockets,
    scope: Scope,
    open: Mutex<HashMap<ModuleId, Scope>>,
}

impl<G: Guard> Sockets<G> {
    /// No sockets yet; directories are made in `data`, tasks live in the scope.
    #[must_use]
    pub fn new(data: &Path, guard: Arc<G>, runtimes: Runtimes, sockets: ListeningSockets, scope: Scope) -> Self {
        Self {
            data: data.to_owned(),
            guard,
            runtimes,
            sockets,
            scope,
            open: Mutex::default(),
        }
    }

    /// Makes a module's directory, with its socket served in it, and gives the directory. A second call changes nothing.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn ensure(&self, module: &ModuleId) -> Result<PathBuf, SocketError> {
        let directory = module_directory(&self.data, module);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.contains_key(module) {
            return Ok(directory);
        }
        let failed = |source| SocketError::Io {
            operation: "make",
            path: directory.clone(),
            source,
        };
        std::fs::create_dir_all(&directory).map_err(failed)?;
        // Modules run as users of their own and must get to their socket.
        for path in [directory.as_path(), directory.parent().unwrap_or(&directory)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
        }
        let socket = Socket::bind(&self.sockets, &directory.join(SOCKET), SOCKET_MODE)?;
        let handler = Workload {
            module: module.clone(),
            guard: Arc::clone(&self.guard),
            runtimes: self.runtimes.clone(),
        };
        let scope = self.scope.child();
        self.scope
            .spawn(socket.serve(scope.clone(), Admission::new(MAX_CONNECTIONS), Arc::new(handler)));
        open.insert(module.clone(), scope);
        Ok(directory)
    }

    /// Ends a module's socket, for a module that is gone.
    pub fn close(&self, module: &ModuleId) {
        let scope = self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(module);
        if let Some(scope) = scope {
            scope.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_id_gives_a_path_that_fits() {
        let module = ModuleId::new(&"m".repeat(128)).unwrap();

        let path = module_directory(Path::new("/var/lib/holm/edge"), &module).join(SOCKET);

        assert!(path.as_os_str().len() < 60, "{}", path.display());
        assert_ne!(
            path,
            module_directory(Path::new("/var/lib/holm/edge"), &ModuleId::edge_hub()).join(SOCKET)
        );
    }
}
