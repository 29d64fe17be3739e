//! Programs that hold the other implementation.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Another implementation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Peer {
    /// `python-qpid-proton`, in the venv of the peers.
    Proton,
    /// `rhea`, beside the Node SDKs.
    Rhea,
}

/// A program that listens; it ends with this value, by the end of its input.
pub(crate) struct Server {
    child: Child,
    port: u16,
}

impl Peer {
    /// Runs the client's story against a port: what it said if it failed. None when the peer is missing.
    pub(crate) fn run_client(self, port: u16, mechanism: &str) -> Option<Result<(), String>> {
        let output = self
            .command()?
            .args(["client", &port.to_string(), mechanism])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let ok = output.status.success() && said.trim() == "ok";
        Some(if ok {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        })
    }

    /// Starts the broker. None when the peer is missing.
    pub(crate) fn serve(self) -> Option<Server> {
        let mut child = self
            .command()?
            .arg("server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let port = line
            .trim()
            .strip_prefix("listening ")
            .and_then(|port| port.parse().ok());
        Some(Server {
            child,
            port: port.unwrap_or_else(|| panic!("{self:?} says `{line}`")),
        })
    }

    fn command(self) -> Option<Command> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
        let (needed, program, script) = match self {
            Self::Proton => {
                let python = root.join("target/peers/python/bin/python");
                (python.clone(), python, "tests/python/amqp_peer.py")
            }
            Self::Rhea => {
                let package = root.join("tests/node/node_modules/rhea");
                (package, PathBuf::from("node"), "tests/node/amqp_peer.js")
            }
        };
        let has_proton = || {
            Command::new(&program)
                .args(["-c", "import proton"])
                .stderr(Stdio::null())
                .status()
        };
        let is_there = needed.exists() && (matches!(self, Self::Rhea) || has_proton().is_ok_and(|it| it.success()));
        if !is_there {
            let text = format!("{self:?} is missing; `cargo xtask setup` prepares it");
            assert!(std::env::var_os("CI").is_none(), "{text}");
            eprintln!("SKIPPED: {text}");
            return None;
        }
        let mut command = Command::new(program);
        command.arg(root.join(script));
        Some(command)
    }
}

impl Server {
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}
