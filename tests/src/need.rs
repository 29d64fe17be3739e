//! Peers that a test needs, and what happens without them.

use std::path::{Path, PathBuf};

/// A peer that is not part of Holm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The Python SDKs, in the venv made by `cargo xtask setup`.
    Python,
    /// The Node SDKs, in `tests/node/node_modules`.
    Node,
    /// A container engine that answers.
    Docker,
    /// The right and the programs to start an [`OwnEngine`](crate::OwnEngine).
    Dockerd,
    /// `libfaketime`, which shows one process another time of day.
    Faketime,
    /// A broker and its clients.
    Mosquitto,
    /// A registry of container images.
    Registry,
    /// The `openssl` command.
    Openssl,
    /// A TPM in software.
    Swtpm,
    /// The commands of tpm2-tools.
    Tpm2Tools,
    /// Ports below 1024, which every SDK wants (443).
    LowPorts,
    /// Another build of the binary, to replace the one under test by.
    NextBuild,
    /// The right to mount a [`SmallDisk`](crate::SmallDisk).
    Mount,
    /// The right to mount a [`PowerDisk`](crate::PowerDisk), and what it is made with.
    PowerDisk,
}

impl Need {
    /// Whether all these peers are there. Tests begin with it and return when it says no.
    ///
    /// # Panics
    /// When one is missing where peers are required: `CI` or `HOLM_E2E_PEERS=required` is set.
    #[must_use]
    pub fn all(needs: &[Self]) -> bool {
        let missing: Vec<&Self> = needs.iter().filter(|need| !need.is_there()).collect();
        if missing.is_empty() {
            return true;
        }
        let required = std::env::var_os("CI").is_some() || std::env::var_os("HOLM_E2E_PEERS").is_some();
        assert!(!required, "missing: {missing:?}; `cargo xtask setup` prepares them");
        eprintln!("SKIPPED, because these are missing: {missing:?}; `cargo xtask setup` prepares them");
        false
    }

    fn is_there(self) -> bool {
        match self {
            Self::Python => python().is_file(),
            Self::Node => folder("node").join("node_modules/azure-iot-device").is_dir() && find("node").is_some(),
            Self::Docker => std::os::unix::net::UnixStream::connect("/var/run/docker.sock").is_ok(),
            Self::Dockerd => find("dockerd").is_some() && crate::SmallDisk::can_mount(),
            Self::Faketime => faketime().is_some(),
            Self::Mosquitto => find("mosquitto").is_some() && find("mosquitto_pub").is_some(),
            Self::Registry => find("docker-registry").is_some(),
            Self::Openssl => find("openssl").is_some(),
            Self::Swtpm => find("swtpm").is_some(),
            Self::Tpm2Tools => find("tpm2_createek").is_some(),
            Self::NextBuild => next_holm().is_file(),
            Self::Mount => crate::SmallDisk::can_mount(),
            Self::PowerDisk => python().is_file() && crate::PowerDisk::can_mount(),
            // Another test may be asking at the same moment: a port in use is one that may be had.
            Self::LowPorts => match std::net::TcpListener::bind("127.63.255.254:443") {
                Ok(_) => true,
                Err(error) => error.kind() == std::io::ErrorKind::AddrInUse,
            },
        }
    }
}

/// The root of the workspace.
#[must_use]
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// The folder of a peer, such as `python`.
#[must_use]
pub fn folder(peer: &str) -> PathBuf {
    root().join("tests").join(peer)
}

/// The Python that has the SDKs.
#[must_use]
pub fn python() -> PathBuf {
    root().join("target/peers/python/bin/python")
}

/// The library of `libfaketime`, in the directory that its Debian package has for the machine's architecture.
#[must_use]
pub fn faketime() -> Option<PathBuf> {
    let name = "faketime/libfaketime.so.1";
    let entries = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let directories = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
    directories.map(|path| path.join(name)).find(|path| path.is_file())
}

/// The path of a program: on `PATH` or in the system directories that it may lack.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// The binary under test: `HOLM_BIN`, else the debug build.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn holm() -> PathBuf {
    let path = std::env::var_os("HOLM_BIN").map_or_else(|| root().join("target/debug/holm"), PathBuf::from);
    assert!(
        path.is_file(),
        "the binary `{}` is missing; build it with `cargo build -p holm` or name it in HOLM_BIN",
        path.display()
    );
    path
}

/// Another build of the binary: `HOLM_NEXT_BIN`, else `holm-next` beside the debug build.
#[must_use]
pub fn next_holm() -> PathBuf {
    std::env::var_os("HOLM_NEXT_BIN").map_or_else(|| root().join("target/debug/holm-next"), PathBuf::from)
}
