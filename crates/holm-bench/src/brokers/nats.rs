//! NATS with JetStream on files, spoken to by MQTT; Debian's package.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Certificates, program, version_line, write};

pub(super) const PROMISE: &str = "written to the page cache; `fsync` every 2 minutes";
pub(super) const SETTINGS: &str = "`jetstream` on files, `mqtt`; all else by default";

pub(super) fn version() -> Result<String> {
    version_line("nats-server", "--version")
}

pub(super) fn command(directory: &Path, port: u16, tls: Option<&Certificates>) -> Result<Command> {
    let tls = tls.map_or_else(String::new, |certificates| {
        format!(
            "tls {{ cert_file: \"{}\", key_file: \"{}\" }}",
            certificates.chain_path().display(),
            certificates.key_path().display()
        )
    });
    let config = format!(
        "server_name: bench\nhost: 127.0.0.1\nport: -1\njetstream {{ store_dir: \"{}\" }}\n\
         mqtt {{ host: 127.0.0.1, port: {port}\n {tls}\n}}\n",
        directory.display()
    );
    let path = directory.join("nats.conf");
    write(&path, &config)?;
    let mut command = Command::new(program("nats-server")?);
    command.arg("-c").arg(path);
    Ok(command)
}
