//! One edge at a time uses the machine's container engine.

use std::cell::RefCell;
use std::fs::File;
use std::process::Command;

/// The turn of one edge to use the container engine: names of containers and the network are the machine's, not the edge's.
/// Containers of the deployments are removed when it ends.
#[derive(Debug)]
pub(super) struct EngineTurn {
    _lock: File,
    pub(super) containers: RefCell<Vec<&'static str>>,
}

impl EngineTurn {
    /// Waits for the turn.
    #[track_caller]
    pub(super) fn take() -> Self {
        let path = std::env::temp_dir().join("holm-e2e-engine");
        let lock = File::create(&path).unwrap_or_else(|error| panic!("`{}`: {error}", path.display()));
        lock.lock().expect("a file can be locked");
        Self {
            _lock: lock,
            containers: RefCell::default(),
        }
    }
}

impl Drop for EngineTurn {
    fn drop(&mut self) {
        let containers = self.containers.take();
        if std::thread::panicking() {
            for name in &containers {
                let logs = Command::new("docker").args(["logs", "--tail", "40", name]).output();
                let logs = logs.map(|it| [it.stdout, it.stderr].concat()).unwrap_or_default();
                eprintln!(
                    "--- end of the log of container `{name}`\n{}",
                    String::from_utf8_lossy(&logs)
                );
            }
        }
        // One that never came to be can't be removed, and need not be.
        Command::new("docker")
            .args(["rm", "--force"])
            .args(&containers)
            .output()
            .ok();
    }
}
