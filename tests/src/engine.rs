//! Images and registries of container tests. Nothing is pulled from outside: images are made here.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::daemon::{Daemon, Directory};
use crate::edge::IMAGE;
use crate::need;

/// Runs the engine's client and returns its standard output.
///
/// # Panics
/// When it fails.
#[track_caller]
pub fn docker(arguments: &[&str]) -> String {
    let done = Command::new("docker")
        .args(arguments)
        .output()
        .expect("docker can be started");
    let log = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "docker {arguments:?} ended with {}: {log}",
        done.status
    );
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// A registry on loopback; it ends with this value.
#[derive(Debug)]
pub struct Registry {
    daemon: Daemon,
    address: SocketAddr,
    _directory: Directory,
}

impl Registry {
    /// Starts an empty registry.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        let directory = Directory::new();
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("there is a free port");
        let template = std::fs::read_to_string(need::folder("docker").join("registry.yml"));
        let root = directory.path().join("registry").to_string_lossy().into_owned();
        let config = template.expect("the registry's configuration is in the tree");
        let config = config.replace("ROOT", &root).replace("ADDRESS", &address.to_string());
        let path = directory.path().join("registry.yml");
        std::fs::write(&path, config).expect("a file of the test can be written");
        let program = need::find("docker-registry").expect("the test asked for it");
        let mut daemon = Daemon::start(
            "registry",
            directory.path(),
            Command::new(program).arg("serve").arg(&path),
        );
        daemon.wait_until("a registry that listens", || {
            TcpStream::connect_timeout(&address, Duration::from_secs(1))
                .map(drop)
                .map_err(|error| error.to_string())
        });
        Self {
            daemon,
            address,
            _directory: directory,
        }
    }

    /// Takes a local image into the registry, and from the engine; returns the name to pull it by.
    ///
    /// # Panics
    /// When the engine or the registry refuses.
    #[must_use]
    #[track_caller]
    pub fn take_image(&self, local: &str, name: &str) -> String {
        let remote = self.image(name);
        docker(&["tag", local, &remote]);
        docker(&["push", "--quiet", &remote]);
        docker(&["rmi", &remote]);
        remote
    }

    /// The name by which an image of this registry is pulled, whether it has it or not.
    #[must_use]
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Ends the registry: from now on it can't be reached.
    pub fn go_away(&mut self) {
        self.daemon.kill();
    }
}

/// Images of one program that waits until it is told to end, whatever arguments a manifest gives it; under the names that the
/// manifest wants. The names go with this value.
#[derive(Debug)]
pub struct Images {
    names: Vec<String>,
}

impl Images {
    /// Makes the image and names it.
    ///
    /// # Panics
    /// When the engine refuses.
    #[must_use]
    #[track_caller]
    pub fn that_wait(names: Vec<String>) -> Self {
        let line = "trap 'exit 0' TERM; while :; do sleep 1; done";
        let entrypoint = serde_json::json!(["/bin/sh", "-c", line, "program"]);
        let container = docker(&["create", IMAGE, "/bin/sh"]);
        let container = container.trim();
        let change = format!("ENTRYPOINT {entrypoint}");
        let images = Self { names };
        for name in &images.names {
            docker(&["commit", "--change", &change, "--change", "CMD []", container, name]);
        }
        docker(&["rm", container]);
        images
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        let mut command = Command::new("docker");
        command.args(["rmi", "--force"]).args(&self.names).output().ok();
    }
}

/// What the engine knows of a container.
///
/// # Panics
/// When there is none of this name.
#[must_use]
#[track_caller]
pub fn inspect(container: &str) -> serde_json::Value {
    let text = docker(&["inspect", "--type", "container", container]);
    let found: serde_json::Value = serde_json::from_str(&text).expect("the engine answers JSON");
    found[0].clone()
}

/// Makes an image that holds the binary under test and its libraries, and starts a ready-made module.
///
/// # Panics
/// When a part is missing or the engine refuses.
#[track_caller]
pub fn image_of_ready_made(module: &str, scratch: &Path) -> String {
    let tree = scratch.join("image");
    let holm = need::holm();
    let libraries = Command::new("ldd").arg(&holm).output().expect("ldd can be started");
    let libraries = String::from_utf8_lossy(&libraries.stdout).into_owned();
    let paths = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for path in paths {
        copy(Path::new(path), &tree.join(path.trim_start_matches('/')));
    }
    copy(&holm, &tree.join("holm"));
    std::fs::create_dir_all(tree.join("var/run/iotedge")).expect("a directory of the test can be made");
    std::fs::create_dir_all(tree.join("tmp")).expect("a directory of the test can be made");
    let archive = scratch.join("image.tar");
    let tar = Command::new("tar")
        .arg("-cf")
        .arg(&archive)
        .arg("-C")
        .arg(&tree)
        .arg(".")
        .status();
    assert!(tar.expect("tar can be started").success());
    let name = format!("holm-e2e/{module}:1");
    let entrypoint = format!("ENTRYPOINT [\"/holm\",\"run\",\"{module}\"]");
    docker(&["import", "--change", &entrypoint, &archive.to_string_lossy(), &name]);
    name
}

fn copy(from: &Path, to: &Path) {
    let parent = to.parent().expect("a file is in a directory");
    std::fs::create_dir_all(parent).expect("a directory of the test can be made");
    std::fs::copy(from, to).unwrap_or_else(|error| panic!("`{}` can't be copied: {error}", from.display()));
}
