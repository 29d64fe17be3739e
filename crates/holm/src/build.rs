//! Which build this program is, and which formats it reads and writes.

use std::sync::LazyLock;

/// The release and the build: `0.1.0 (1a2b3c4d5e6f)`.
pub(crate) const NAME: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("HOLM_BUILD_NAME"), ")");

/// What `--version` says behind the program's name.
pub(crate) fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| format!("{NAME}; formats: {}", formats().join(", ")));
    &TEXT
}

fn formats() -> Vec<String> {
    let mut formats = Vec::new();
    #[cfg(any(feature = "hub", feature = "edge"))]
    formats.push(format!("queue {}", holm_queue::FORMAT_VERSION));
    #[cfg(feature = "hub")]
    formats.push(format!("hub database {}", holm_hub::storage::FORMAT_VERSION));
    #[cfg(feature = "edge")]
    formats.push(format!("edge state {}", holm_edge::state::VERSION));
    formats
}
