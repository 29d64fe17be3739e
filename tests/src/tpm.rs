//! A TPM of a test: a process of `swtpm`, which speaks TPM 2.0 on a socket.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemon::Daemon;
use crate::{need, patience};

/// The public endorsement key of a TPM in software that is no more, as the Node SDK shows it: base64 of a `TPM2B_PUBLIC`.
pub const ENDORSEMENT_KEY: &str = "AToAAQALAAMAsgAgg3GXZ0SEs/gakMyNRqXXJP1S124GUgtk8qHaGzMUaaoABgCAAEMAEAgAAAAAAAEAqlK3cDQgu6R4BTKLFvRMYrtxclbRecRZwdK0Z2wddxKbgLfDrcFvcq8aXAlj3QtfWenZg11UU9hjDvxXHvDEo3i3YQDxgkPoQ667qpYwhel1+vEOKM7cGoc0LTCZaIrm5upJsAJFiMIdLlNXOBEwbpDzelLAEF1Pe0rjvf5M89Pxn9MNSD9IKg91vQQUUwQnIiA3fvrn3iv6Wyx+HJ7erJP7XzfSFEwXZBC6dn0qhW6+6anq3jlshorjvmkaNkIh/PQdzbOHnYa47TfbKYT0kEnd9w8AixGJu0ARe9yET9LzgZcCSy62AL5lfUGxdgiAvhJKSi2c1S4SGBVg+eqkLw==";
/// Its storage root key.
pub const STORAGE_ROOT_KEY: &str = "ARoAAQALAAMEcgAAAAYAgABDABAIAAAAAAABAKe1nubsbEOq5p3GOk1IBHj4R5sqS970ITAWZSdTtBugEYNo9cX3MTI/Z1Ck2eb642PJr8SBaCIiIBb7UU/b6U0BK2oc5E7z2501eH5difabLOgkeuH9t0cXe7eIBHvnxGiKLjLMSfFchrr4kFThlx+RLiJ9netJVqUgJcJpxaHge3nsivqTEoKWjnt1+PjBM08IAxFiz7iJqMc+gNhzsF0k7o1bpwMLyUGL2r1Do2U2dVJwqn+Au5QxPoQ4FrqLstzE/1yo3lznwLZmMbhFpMwlCMcU/27BDpQUVTZ4E58MXLxPSMSWIkuBBQekxj47jvixsiFqrBlXEmUekuZztRU=";

/// A TPM with keys of its own; it ends with this value.
#[derive(Debug)]
pub struct Tpm {
    socket: PathBuf,
    _daemon: Daemon,
}

impl Tpm {
    /// Starts a new TPM of that name, with its state in a directory.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    #[track_caller]
    pub fn start(directory: &Path, name: &str) -> Self {
        let state = directory.join(name);
        std::fs::create_dir(&state).expect("a directory can be made");
        let (socket, control) = (state.join("tpm.sock"), state.join("tpm.sock.ctrl"));
        let program = need::find("swtpm").expect("the need was looked at");
        let mut command = Command::new(program);
        command
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .args(["--tpmstate", &format!("dir={}", state.display())])
            .args(["--server", &format!("type=unixio,path={}", socket.display())])
            .args(["--ctrl", &format!("type=unixio,path={}", control.display())]);
        let daemon = Daemon::start(name, &state, &mut command);
        patience::wait("the TPM", patience::long(), || {
            if socket.exists() { Ok(()) } else { Err(daemon.log()) }
        });
        Self {
            socket,
            _daemon: daemon,
        }
    }

    /// Where it takes commands.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Runs a command of tpm2-tools in the directory of its state; its files are there.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn tool(&self, line: &str) {
        let run = |line: &str| {
            let mut words = line.split(' ');
            let program = need::find(words.next().unwrap_or_default()).expect("the need was looked at");
            let done = Command::new(program)
                .args(words)
                .current_dir(self.directory())
                .env("TPM2TOOLS_TCTI", format!("swtpm:path={}", self.socket.display()))
                .output()
                .expect("it can be started");
            assert!(
                done.status.success(),
                "{line}: {}",
                String::from_utf8_lossy(&done.stderr)
            );
        };
        run(line);
        // Each command leaves what it loaded behind, and there is little room.
        run("tpm2_flushcontext -t");
    }

    /// Where its state is, and the files of [`tool`](Self::tool).
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.socket.parent().expect("the socket is in a directory")
    }

    /// Opens what a provisioning service has sealed for it: from then on `key.ctx` signs. Its keys are `ek.ctx` and `srk.ctx`.
    ///
    /// # Panics
    /// When it can't be opened.
    #[track_caller]
    pub fn open(&self, sealed: &[u8]) {
        let (mut parts, mut rest) = (Vec::new(), sealed);
        while let [high, low, ..] = rest {
            let (part, after) = rest.split_at(2 + usize::from(u16::from_be_bytes([*high, *low])));
            parts.push(part);
            rest = after;
        }
        let [credential, secret, private, seed, public, _] = parts[..] else {
            panic!("{} parts", parts.len());
        };
        // How the tools keep a credential: a magic number and a version go before it.
        let credential = [&[0xba, 0xdc, 0xc0, 0xde, 0, 0, 0, 1], credential, secret].concat();
        for (name, bytes) in [
            ("credential", &credential[..]),
            ("key.dup", private),
            ("key.seed", seed),
            ("key.pub", public),
        ] {
            std::fs::write(self.directory().join(name), bytes).expect("a file can be written");
        }
        self.tool("tpm2_startauthsession --policy-session -S session");
        self.tool("tpm2_policysecret -S session -c e");
        self.tool("tpm2_activatecredential -c srk.ctx -C ek.ctx -i credential -o inner.key -P session:session");
        self.tool("tpm2_flushcontext session");
        self.tool("tpm2_import -C srk.ctx -u key.pub -i key.dup -s key.seed -k inner.key -r key.priv");
        self.tool("tpm2_load -C srk.ctx -u key.pub -r key.priv -c key.ctx");
    }

    /// The HMAC by the key that was opened last.
    ///
    /// # Panics
    /// When it can't be made.
    #[must_use]
    #[track_caller]
    pub fn sign(&self, text: &str) -> Vec<u8> {
        std::fs::write(self.directory().join("text"), text).expect("a file can be written");
        self.tool("tpm2_hmac -c key.ctx -o signature text");
        std::fs::read(self.directory().join("signature")).expect("it was written")
    }
}
