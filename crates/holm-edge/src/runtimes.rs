//! The module runtimes of this device, one a kind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holm_model::ModuleId;
use holm_runtime::{ModuleRuntime, ModuleState, ModuleStats, RuntimeError, RuntimeKind};

/// How long a runtime may take to tell what is there: it does so in milliseconds, on a busy device in a second or two.
const PATIENCE: Duration = Duration::from_secs(15);

/// The same for what modules use, which nobody needs at once: one runtime holds the figures of another up no longer.
const MEASURING: Duration = Duration::from_secs(5);

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
        let mut looks = Vec::new();
        for runtime in &self.0 {
            looks.push(async { (runtime.kind(), in_time("list its modules", runtime.list()).await) });
        }
        // At once: an engine that hangs keeps nobody from looking after the modules of another runtime.
        for (kind, found) in futures_util::future::join_all(looks).await {
            match found {
                Ok(found) => modules.extend(found),
                Err(error) => silent.push((kind, error)),
            }
        }
        modules.sort_by(|a, b| a.id.cmp(&b.id));
        (modules, silent)
    }

    /// What every module that runs uses, as far as the runtimes can tell now.
    pub async fn all_stats(&self) -> BTreeMap<ModuleId, ModuleStats> {
        let asked = self.0.iter().map(|runtime| async {
            let stats = in_time_of(MEASURING, "tell what modules use", runtime.all_stats()).await;
            stats.unwrap_or_else(|error| {
                tracing::debug!(kind = %runtime.kind(), error = %error.chain(), "what modules use can't be read now");
                BTreeMap::new()
            })
        });
        futures_util::future::join_all(asked)
            .await
            .into_iter()
            .flatten()
            .collect()
    }

    /// The runtime that a module is in, and how it is.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] when no runtime has it; else what the first runtime said that could not tell.
    pub async fn find(&self, module: &ModuleId) -> Result<(Arc<dyn ModuleRuntime>, ModuleState), RuntimeError> {
        let mut failed = None;
        for runtime in &self.0 {
            match in_time("tell of a module", runtime.inspect(module)).await {
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

async fn in_time<T>(operation: &str, work: impl Future<Output = Result<T, RuntimeError>>) -> Result<T, RuntimeError> {
    in_time_of(PATIENCE, operation, work).await
}

async fn in_time_of<T>(
    after: Duration,
    operation: &str,
    work: impl Future<Output = Result<T, RuntimeError>>,
) -> Result<T, RuntimeError> {
    tokio::time::timeout(after, work).await.unwrap_or_else(|_| {
        let operation = operation.to_owned();
        Err(RuntimeError::Timeout { operation, after })
    })
}
