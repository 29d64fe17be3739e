//! Eclipse Mosquitto, Debian's package.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Certificates, program, version_line, write};

pub(super) const PROMISE: &str = "nothing is on disk; the database is saved every 30 minutes";
pub(super) const SETTINGS: &str = "`persistence true`, `set_tcp_nodelay true`, `max_queued_messages 0` (by default it drops what a subscriber is 1,000 behind)";

pub(super) fn version() -> Result<String> {
    version_line("mosquitto", "-h")
}

pub(super) fn command(directory: &Path, port: u16, tls: Option<&Certificates>) -> Result<Command> {
    let mut config = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nlog_dest stderr\nlog_type error\n\
         set_tcp_nodelay true\nmax_queued_messages 0\npersistence true\npersistence_location {}/\n",
        directory.display()
    );
    if let Some(certificates) = tls {
        config += &format!(
            "certfile {}\nkeyfile {}\n",
            certificates.chain_path().display(),
            certificates.key_path().display()
        );
    }
    let path = directory.join("mosquitto.conf");
    write(&path, &config)?;
    let mut command = Command::new(program("mosquitto")?);
    command.arg("-c").arg(path);
    Ok(command)
}
