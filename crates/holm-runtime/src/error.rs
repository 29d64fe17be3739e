//! What can go wrong with a module, told so that the operator who reads it in a twin knows the way out.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holm_model::ModuleId;

/// One create option that a runtime cannot honour, by its name in the manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{option}` {reason}")]
pub struct UnsupportedOption {
    /// The option's path in `createOptions`, such as `HostConfig.CapAdd`.
    pub option: String,
    /// Why it cannot be honoured, and what to do instead; reads on after the option's name.
    pub reason: String,
}

impl UnsupportedOption {
    /// Names an option and the reason.
    pub fn new(option: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            option: option.into(),
            reason: reason.into(),
        }
    }
}

/// Why an operation on a module failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The runtime has no such module.
    #[error("there is no module `{0}` in this runtime")]
    NotFound(ModuleId),
    /// A module with this id exists already.
    #[error("module `{0}` exists already; remove it before it is created again")]
    AlreadyExists(ModuleId),
    /// The create options hold something that this kind of runtime cannot honour.
    #[error("create options of module `{id}` cannot be honoured: {}", list(.options))]
    Unsupported {
        /// The module.
        id: ModuleId,
        /// Every option that cannot be honoured.
        options: Vec<UnsupportedOption>,
    },
    /// The image is neither present nor to be had.
    #[error("image `{image}` is not available: {reason}")]
    Image {
        /// The image as the manifest names it.
        image: String,
        /// What was tried and what was answered.
        reason: String,
    },
    /// The module was created but its program could not be started.
    #[error("module `{id}` did not start: {reason}")]
    StartFailed {
        /// The module.
        id: ModuleId,
        /// What the operating system or the engine said.
        reason: String,
    },
    /// The container engine refused a request.
    #[error("the container engine refused to {operation} (status {status}): {message}")]
    Engine {
        /// What was asked for.
        operation: String,
        /// The engine's HTTP status; the management API passes it on.
        status: u16,
        /// The engine's own words.
        message: String,
    },
    /// The container engine cannot be talked to.
    #[error(
        "the container engine at `{endpoint}` cannot be reached; see that it runs and that this user may use its socket"
    )]
    EngineUnreachable {
        /// Where the engine was looked for.
        endpoint: String,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// The engine or a supervisor answered something that cannot be understood.
    #[error("the answer to `{operation}` cannot be understood: {reason}")]
    Answer {
        /// What was asked for.
        operation: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// No answer came in time.
    #[error("no answer to `{operation}` within {} s", .after.as_secs())]
    Timeout {
        /// What was asked for.
        operation: String,
        /// How long was waited.
        after: Duration,
    },
    /// A file of the runtime cannot be read or written.
    #[error("cannot {operation} `{}`", .path.display())]
    Io {
        /// What was tried, such as `read`.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// A record of the process runtime is damaged.
    #[error("the record `{}` is damaged ({reason}); remove the module and let it be created again", .path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A record of the process runtime was written by another release. Nothing is touched.
    #[error("`{}` has format {found}, this program reads format {known}; use the release that wrote it", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format that is known here.
        known: u32,
    },
}

impl RuntimeError {
    /// Whether the operation failed because the module does not exist.
    #[must_use]
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }

    /// Whether the runtime itself did not answer, so that nothing is said of the module.
    #[must_use]
    pub const fn is_of_runtime(&self) -> bool {
        matches!(self, Self::EngineUnreachable { .. } | Self::Timeout { .. })
    }

    /// The error and its causes in one line, joined by `: `.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }

    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    }
}

fn list(options: &[UnsupportedOption]) -> String {
    let all: Vec<String> = options.iter().map(ToString::to_string).collect();
    all.join("; ")
}
