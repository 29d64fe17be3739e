//! A container engine of a test's own: one that may hang, end, and be started again.
//!
//! It shares nothing with the device's engine but the kernel: its data, sockets and address ranges are other ones, and it leaves
//! the firewall alone.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::daemon::{Daemon, Directory};
use crate::edge::IMAGE;
use crate::need;
use crate::patience;

/// An engine; it ends with this value, and its containers with it.
#[derive(Debug)]
pub struct OwnEngine {
    daemon: Option<Daemon>,
    directory: Directory,
    /// One at a time: the address ranges are the machine's.
    _turn: std::fs::File,
}

impl OwnEngine {
    /// Makes ready for an engine that does not run yet.
    ///
    /// # Panics
    /// When there is no room for it.
    #[must_use]
    #[track_caller]
    pub fn prepare() -> Self {
        let path = std::env::temp_dir().join("holm-e2e-own-engine");
        let turn = std::fs::File::create(&path).unwrap_or_else(|error| panic!("`{}`: {error}", path.display()));
        turn.lock().expect("a file can be locked");
        Self {
            daemon: None,
            directory: Directory::new(),
            _turn: turn,
        }
    }

    /// Where it is spoken to.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    /// Starts it, on the data of before if it has run. It has the tests' image.
    ///
    /// # Panics
    /// When it does not answer.
    #[track_caller]
    pub fn start(&mut self) {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        let program = need::find("dockerd").expect("the test asked for an engine");
        let mut command = Command::new(program);
        command.args([
            "--data-root",
            &path("data"),
            "--exec-root",
            &path("exec"),
            "--pidfile",
            &path("pid"),
        ]);
        command.args(["--host", &format!("unix://{}", self.socket().display())]);
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false"]);
        command.args(["--default-address-pool", "base=10.213.0.0/16,size=24"]);
        let mut daemon = Daemon::start("dockerd", self.directory.path(), &mut command);
        daemon.wait_until("an engine that answers", || self.try_docker(&["version"]).map(drop));
        self.daemon = Some(daemon);
        if self.try_docker(&["image", "inspect", IMAGE]).is_err() {
            self.load();
        }
    }

    /// Takes the tests' image over from the device's engine.
    #[track_caller]
    fn load(&self) {
        let save = Command::new("docker")
            .args(["save", IMAGE])
            .stdout(Stdio::piped())
            .spawn();
        let mut save = save.expect("docker can be started");
        let archive = save.stdout.take().expect("the output is a pipe");
        let load = self
            .command(&["load"])
            .stdin(archive)
            .output()
            .expect("docker can be started");
        assert!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
        assert!(save.wait().is_ok_and(|status| status.success()), "`docker save` failed");
    }

    /// Runs the engine's client and returns its standard output.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn docker(&self, arguments: &[&str]) -> String {
        self.try_docker(arguments)
            .unwrap_or_else(|error| panic!("docker {arguments:?}: {error}"))
    }

    /// Runs the engine's client and returns its standard output.
    ///
    /// # Errors
    /// What the client says when it fails.
    pub fn try_docker(&self, arguments: &[&str]) -> Result<String, String> {
        let done = self.command(arguments).output().map_err(|error| error.to_string())?;
        if done.status.success() {
            Ok(String::from_utf8_lossy(&done.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&done.stderr).into_owned())
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()))
            .args(arguments);
        command
    }

    /// Lets it hang: it takes connections and answers nothing. Its containers go on.
    pub fn hang(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Asks it to end, which ends its containers.
    ///
    /// # Panics
    /// When it goes on.
    #[track_caller]
    pub fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.terminate();
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = self
            .daemon
            .as_ref()
            .and_then(|daemon| Pid::from_raw(daemon.id().cast_signed()));
        if let Some(pid) = pid {
            // One that has ended neither hangs nor goes on.
            kill_process(pid, signal).ok();
        }
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        self.go_on();
        if self.daemon.is_none() {
            return;
        }
        // Without their grace: containers of tests have nothing to finish.
        let all = self.try_docker(&["ps", "--all", "--quiet"]).unwrap_or_default();
        for id in all.split_whitespace() {
            self.try_docker(&["rm", "--force", id]).ok();
        }
        let networks = self
            .try_docker(&["network", "ls", "--quiet", "--filter", "type=custom"])
            .unwrap_or_default();
        for id in networks.split_whitespace() {
            self.try_docker(&["network", "rm", id]).ok();
        }
        if let Some(mut daemon) = self.daemon.take() {
            let pid = Pid::from_raw(daemon.id().cast_signed());
            pid.map(|pid| kill_process(pid, Signal::TERM));
            let began = std::time::Instant::now();
            // It has mounts that only it takes away; the drop kills what is left after this.
            while daemon.ended().is_none() && began.elapsed() < patience::short() {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        }
    }
}
