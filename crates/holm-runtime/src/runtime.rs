//! The trait behind which every kind of runtime stands.
//!
//! ```text
//!             create            start             (ends by itself)
//!   (nothing) ------> stopped ---------> running -----------------> stopped (exit 0) | failed
//!       ^                ^                  |                            |
//!       |     remove     |    stop(grace)   |                            |  start again
//!       '----------------'<-----------------'<---------------------------'
//! ```
//!
//! Every operation may be repeated: starting what runs, stopping what is stopped and removing what is not there succeed.
//! A runtime never restarts a module by itself; that is the decision of whoever plans.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use holm_model::ModuleId;

use crate::error::{RuntimeError, UnsupportedOption};
use crate::logs::{LogStream, LogsOptions};
use crate::spec::{ModuleSpec, RuntimeKind};
use crate::state::{ModuleState, ModuleStats, Reachability};

/// A future of a trait object. The trait is used through `Arc<dyn ModuleRuntime>`, since an edge holds several kinds.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What [`ModuleRuntime::prepare`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// What the operator should know although the module can be made, such as that its image's registry cannot be reached.
    pub note: Option<String>,
}

/// A way to run modules. Operations on one module are called one after another; those on different modules may overlap.
pub trait ModuleRuntime: Send + Sync + fmt::Debug {
    /// Which kind this is.
    fn kind(&self) -> RuntimeKind;

    /// Checks that every create option can be honoured here. Looks at nothing outside, so it can be asked at any time.
    ///
    /// # Errors
    /// Every option that cannot be honoured, by name.
    fn validate(&self, spec: &ModuleSpec) -> Result<(), Vec<UnsupportedOption>>;

    /// Makes the image present, asking its registry as the pull policy says.
    ///
    /// # Errors
    /// [`RuntimeError::Image`] when there is none to use.
    fn prepare<'a>(&'a self, spec: &'a ModuleSpec) -> BoxFuture<'a, Result<Prepared, RuntimeError>>;

    /// Creates the module, stopped, from a prepared image.
    ///
    /// # Errors
    /// [`RuntimeError::AlreadyExists`], [`RuntimeError::Unsupported`], or what the engine said.
    fn create<'a>(&'a self, spec: &'a ModuleSpec) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Starts the module, and returns when its program runs (not: when it is ready).
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], or [`RuntimeError::StartFailed`] with the reason.
    fn start<'a>(&'a self, id: &'a ModuleId) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Asks the module to end, and ends it by force after `grace` (`None`: what its create options say, else 10 s). Returns
    /// when it has ended. Dropping the future does not take the request back.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], or what went wrong.
    fn stop<'a>(&'a self, id: &'a ModuleId, grace: Option<Duration>) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Removes the module and all that the runtime keeps of it, ending it by force if it runs.
    ///
    /// # Errors
    /// What went wrong; a module that does not exist is not an error.
    fn remove<'a>(&'a self, id: &'a ModuleId) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Every module of this edge in this runtime, in the order of their ids.
    ///
    /// # Errors
    /// When the runtime cannot tell; never a list that lacks some of them.
    fn list(&self) -> BoxFuture<'_, Result<Vec<ModuleState>, RuntimeError>>;

    /// One module.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], or when the runtime cannot tell.
    fn inspect<'a>(&'a self, id: &'a ModuleId) -> BoxFuture<'a, Result<ModuleState, RuntimeError>>;

    /// The module's output, in the framing that [`crate::logs`] describes.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], or when the output cannot be read.
    fn logs<'a>(&'a self, id: &'a ModuleId, options: &'a LogsOptions)
    -> BoxFuture<'a, Result<LogStream, RuntimeError>>;

    /// What the module uses; all zero when it does not run.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], or when the runtime cannot tell.
    fn stats<'a>(&'a self, id: &'a ModuleId) -> BoxFuture<'a, Result<ModuleStats, RuntimeError>>;

    /// What every module that runs uses, asked at once: much cheaper than one by one. One that can't be told of now is left out.
    ///
    /// # Errors
    /// When the runtime cannot tell of any.
    fn all_stats(&self) -> BoxFuture<'_, Result<BTreeMap<ModuleId, ModuleStats>, RuntimeError>>;

    /// The processes of the module, in the device's own numbering: who may speak for it on its workload socket. Empty when
    /// it does not run.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], or when the runtime cannot tell.
    fn processes<'a>(&'a self, id: &'a ModuleId) -> BoxFuture<'a, Result<Vec<u32>, RuntimeError>>;

    /// Whether a TCP port can be reached from where the module runs; the module must be running.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], or when the runtime cannot tell.
    fn probe_reachability<'a>(
        &'a self,
        id: &'a ModuleId,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<Reachability, RuntimeError>>;
}
