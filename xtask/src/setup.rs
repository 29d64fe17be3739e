//! The real peers that tests talk to: put in place once, found in place afterwards.
//!
//! ```text
//! system packages   only those whose program or header is missing, by apt-get    (said before it is done)
//! target/peers/python                a venv with tests/python/requirements.txt
//! tests/node/node_modules            `npm ci --ignore-scripts` of tests/node/package-lock.json
//! holm-e2e/busybox:1                 a container image made here, pulled from nowhere
//! ```
//!
//! A part that is made from a file keeps a copy of that file as its *stamp*: equal means nothing to do.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::engine::Engine;
use crate::run::{find, output, peers, root, run};
use crate::stage::Stages;

/// The image that tests of the container engine start from: one static program and its names.
const IMAGE: &str = "holm-e2e/busybox:1";

/// A program that the tests call, and the Debian packages that bring it. A package that the release does not know is left
/// out: newer ones split `docker.io`.
struct Need {
    program: &'static str,
    packages: &'static [&'static str],
}

const NEEDS: &[Need] = &[
    Need {
        program: "openssl",
        packages: &["openssl"],
    },
    Need {
        program: "tar",
        packages: &["tar"],
    },
    Need {
        program: "setsid",
        packages: &["util-linux"],
    },
    Need {
        program: "ip",
        packages: &["iproute2"],
    },
    Need {
        program: "mosquitto",
        packages: &["mosquitto"],
    },
    Need {
        program: "mosquitto_pub",
        packages: &["mosquitto-clients"],
    },
    Need {
        program: "node",
        packages: &["nodejs"],
    },
    Need {
        program: "npm",
        packages: &["npm"],
    },
    Need {
        program: "dockerd",
        packages: &["docker.io"],
    },
    Need {
        program: "docker",
        packages: &["docker.io", "docker-cli"],
    },
    Need {
        program: "docker-registry",
        packages: &["docker-registry"],
    },
    Need {
        program: "faketime",
        packages: &["faketime"],
    },
    Need {
        program: "swtpm",
        packages: &["swtpm"],
    },
    Need {
        program: "tpm2_createek",
        packages: &["tpm2-tools", "libtss2-tcti-swtpm0", "libtss2-tcti-swtpm0t64"],
    },
    // For python-qpid-proton, which is built from source.
    Need {
        program: "pkg-config",
        packages: &["pkg-config"],
    },
    Need {
        program: "nats-server",
        packages: &["nats-server"],
    },
];

/// Prepares every peer, as a command of its own.
///
/// # Errors
/// The first part that can't be prepared.
pub(crate) fn setup() -> Result<()> {
    let mut stages = Stages::new();
    stages.run("system packages", system_packages)?;
    stages.run("Python SDKs", python)?;
    stages.run("Node SDKs", node)?;
    stages.run("container image", image).map(Engine::stop)
}

/// Prepares every peer as one stage of a larger command, which gets the running container engine: tests of the crates need it
/// as much as those with real peers.
///
/// # Errors
/// The first part that can't be prepared.
pub(crate) fn prepare() -> Result<Engine> {
    system_packages()?;
    python()?;
    node()?;
    image()
}

fn system_packages() -> Result<()> {
    let mut missing: Vec<&str> = NEEDS
        .iter()
        .filter(|need| find(need.program).is_none())
        .flat_map(|need| need.packages)
        .copied()
        .collect();
    if system_python().is_none() {
        missing.extend(["python3", "python3-venv"]);
    }
    // python-qpid-proton is built from source.
    let headers = system_python().and_then(|python| {
        let where_they_are = "import sysconfig; print(sysconfig.get_path('include'))";
        output(Command::new(python).args(["-c", where_they_are])).ok()
    });
    if !headers.is_some_and(|path| Path::new(path.trim()).join("Python.h").is_file()) {
        missing.push("python3-dev");
    }
    if !Path::new("/usr/include/openssl/ssl.h").is_file() {
        missing.push("libssl-dev");
    }
    if !is_static(find("busybox").as_deref()) {
        missing.push("busybox-static");
    }
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    if find("apt-get").is_none() {
        bail!(
            "these Debian packages, or what equals them here, are missing: {}; install them by hand",
            missing.join(" ")
        );
    }
    eprintln!("  installing by apt-get: {}", missing.join(" "));
    run(as_root("apt-get")?.args(["update", "--quiet=2"]))?;
    missing.retain(|package| output(Command::new("apt-cache").args(["show", "--no-all-versions", package])).is_ok());
    run(as_root("apt-get")?
        .args(["install", "--yes", "--quiet", "--no-install-recommends"])
        .args(missing))
}

/// A command as root: itself when we are root, by `sudo` when not.
///
/// # Errors
/// When we are not root and there is no `sudo`.
pub(crate) fn as_root(program: &str) -> Result<Command> {
    let path = find(program).unwrap_or_else(|| PathBuf::from(program));
    let mut command = if output(Command::new("id").arg("-u"))?.trim() == "0" {
        Command::new(path)
    } else {
        let Some(sudo) = find("sudo") else {
            bail!("`{program}` needs root, and there is no `sudo`; run this as root");
        };
        let mut command = Command::new(sudo);
        command.args(["--preserve-env=DEBIAN_FRONTEND", "--"]).arg(path);
        command
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    Ok(command)
}

/// A Python that can make a venv. The system's own comes first: containers in the tests borrow it with its libraries.
fn system_python() -> Option<PathBuf> {
    let candidates = [Some(PathBuf::from("/usr/bin/python3")), find("python3")];
    let able = |python: &PathBuf| output(Command::new(python).args(["-c", "import ensurepip, venv"])).is_ok();
    candidates.into_iter().flatten().find(able)
}

/// Whether a program runs without a loader: only then does it run in an empty image. The loader's path stands in the first
/// bytes of a dynamic one.
fn is_static(program: Option<&Path>) -> bool {
    let Some(content) = program.and_then(|path| std::fs::read(path).ok()) else {
        return false;
    };
    let head = content.get(..4096).unwrap_or(&content);
    !head
        .windows(7)
        .any(|window| window == b"ld-linu" || window == b"ld-musl")
}

fn python() -> Result<()> {
    let Some(python) = system_python() else {
        bail!("no `python3` here can make a venv; install `python3-venv`");
    };
    let requirements = root().join("tests/python/requirements.txt");
    let wanted = read(&requirements)? + &output(Command::new(&python).arg("--version"))?;
    let venv = peers().join("python");
    let stamp = venv.join("stamp");
    if is_stamped(&stamp, &wanted) {
        return Ok(());
    }
    remove(&venv)?;
    run(Command::new(&python).args(["-m", "venv"]).arg(&venv))?;
    let mut install = Command::new(venv.join("bin/python"));
    install.args([
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--progress-bar",
        "off",
        "--quiet",
        "-r",
    ]);
    run(install.arg(&requirements))?;
    write(&stamp, &wanted)
}

fn node() -> Result<()> {
    let directory = root().join("tests/node");
    let wanted = read(&directory.join("package-lock.json"))? + &output(Command::new("node").arg("--version"))?;
    let stamp = directory.join("node_modules/.holm-stamp");
    if is_stamped(&stamp, &wanted) {
        return Ok(());
    }
    // No package needs its scripts: the one that would build something does so for Windows alone.
    run(Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
        .current_dir(&directory))?;
    write(&stamp, &wanted)
}

/// The engine, with the image in it.
fn image() -> Result<Engine> {
    let engine = Engine::ensure()?;
    make_image().map(|()| engine)
}

fn make_image() -> Result<()> {
    if output(Command::new("docker").args(["image", "inspect", IMAGE])).is_ok() {
        return Ok(());
    }
    let Some(busybox) = find("busybox") else {
        bail!("`busybox` is missing; install `busybox-static`");
    };
    let tree = peers().join("image");
    remove(&tree)?;
    for directory in [
        "bin", "etc", "tmp", "usr", "lib", "lib64", "proc", "sys", "dev", "run", "var/run",
    ] {
        let path = tree.join(directory);
        std::fs::create_dir_all(&path).with_context(|| format!("`{}` can't be made", path.display()))?;
    }
    let inside = tree.join("bin/busybox");
    std::fs::copy(&busybox, &inside).with_context(|| format!("`{}` can't be copied", busybox.display()))?;
    for name in output(Command::new(&busybox).arg("--list"))?
        .lines()
        .filter(|name| *name != "busybox")
    {
        std::os::unix::fs::symlink("busybox", tree.join("bin").join(name))
            .with_context(|| format!("`{name}` can't be linked"))?;
    }
    write(
        &tree.join("etc/passwd"),
        "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    )?;
    let archive = peers().join("image.tar");
    run(Command::new("tar")
        .arg("-cf")
        .arg(&archive)
        .arg("-C")
        .arg(&tree)
        .arg("."))?;
    run(Command::new("docker").arg("import").arg(&archive).arg(IMAGE))
}

fn is_stamped(stamp: &Path, wanted: &str) -> bool {
    std::fs::read_to_string(stamp).is_ok_and(|found| found == wanted)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("`{}` can't be read", path.display()))
}

fn write(path: &Path, content: &str) -> Result<()> {
    std::fs::write(path, content).with_context(|| format!("`{}` can't be written", path.display()))
}

fn remove(directory: &Path) -> Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("`{}` can't be removed", directory.display()))
        }
        _ => Ok(()),
    }
}
