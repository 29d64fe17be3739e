//! The module runtimes of this device, one a kind.

use std::sync::Arc;

use holm_model::ModuleId;
use holm_runtime::{ModuleRuntime, ModuleState, RuntimeError, RuntimeKind};

/// The runtimes that work on this device.
#[derive(Clone, Debug, Default)]
pub struct Runtimes(Vec<Arc<dyn ModuleRuntime>>);

impl Runtimes {
    /// These runtimes; of two of a kind the first counts.
    #[must_use]
    pub fn new(runtimes: impl IntoIterator<Item = Arc<dyn ModuleRuntime>>) -> Self {
        Self(runtimes.into_iter().collect())
    }

    /// The runtime of a kind.
    #[must_use]
    pub fn of_kind(&self, kind: RuntimeKind) -> Option<&Arc<dyn ModuleRuntime>> {
        self.0.iter().find(|runtime| runtime.kind() == kind)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<dyn ModuleRuntime>> {
        self.0.iter()
    }

    /// Every module of every runtime, by id; and the runtimes that could not tell.
    pub async fn list(&self) -> (Vec<ModuleState>, Vec<(RuntimeKind, RuntimeError)>) {
        let (mut modules, mut silent) = (Vec::new(), Vec::new());
        for runtime in &self.0 {
            match runtime.list().await {
                Ok(found) => modules.extend(found),
                Err(error) => silent.push((runtime.kind(), error)),
            }
        }
        modules.sort_by(|a, b| a.id.cmp(&b.id));
        (modules, silent)
    }

    /// The runtime that a module is in, and how it is.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] when no runtime has it; else what the first runtime said that could not tell.
    pub async fn find(&self, module: &ModuleId) -> Result<(Arc<dyn ModuleRuntime>, ModuleState), RuntimeError> {
        let mut failed = None;
        for runtime in &self.0 {
            match runtime.inspect(module).await {
                Ok(state) => return Ok((Arc::clone(runtime), state)),
                Err(RuntimeError::NotFound(_)) => {}
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        Err(failed.unwrap_or_else(|| RuntimeError::NotFound(module.clone())))
    }

    /// The processes of a module, in the device's own numbering; none when it does not run or nobody can tell.
    pub async fn processes(&self, module: &ModuleId) -> Vec<u32> {
        for runtime in &self.0 {
            match runtime.processes(module).await {
                Ok(processes) => return processes,
                Err(RuntimeError::NotFound(_)) => {}
                Err(error) => {
                    tracing::warn!(%module, error = %error.chain(), "the processes of a module can't be read")
                }
            }
        }
        Vec::new()
    }
}
