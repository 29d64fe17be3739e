//! rumqttd, which `cargo install` brings.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::{Certificates, version_of, write};

pub(super) const PROMISE: &str = "in memory, and never on a disk";
pub(super) const SETTINGS: &str = "segments of 100 MiB, ten at most; 200 deliveries on their way to a client";

/// Where `cargo xtask bench` installs it.
const INSTALLED: &str = "target/peers/rumqttd/bin/rumqttd";

fn binary() -> Result<PathBuf> {
    let named = std::env::var_os("HOLM_BENCH_RUMQTTD").map(PathBuf::from);
    let path = named.unwrap_or_else(|| INSTALLED.into());
    if !path.is_file() {
        bail!("there is no `{}`; `cargo xtask bench` installs it", path.display());
    }
    Ok(path)
}

pub(super) fn version() -> Result<String> {
    version_of(&binary()?, "--version")
}

pub(super) fn command(directory: &Path, port: u16, tls: Option<&Certificates>) -> Result<Command> {
    let encryption = tls.map_or_else(String::new, |certificates| {
        format!(
            "[v4.1.tls]\ncapath = \"{}\"\ncertpath = \"{}\"\nkeypath = \"{}\"\n",
            certificates.ca_path().display(),
            certificates.chain_path().display(),
            certificates.key_path().display()
        )
    });
    let config = format!(
        "id = 0\n\
         [router]\nid = 0\nmax_connections = 10010\nmax_outgoing_packet_count = 200\n\
         max_segment_size = 104857600\nmax_segment_count = 10\n\
         [v4.1]\nname = \"bench\"\nlisten = \"127.0.0.1:{port}\"\nnext_connection_delay_ms = 1\n\
         {encryption}\
         [v4.1.connections]\nconnection_timeout_ms = 60000\nmax_payload_size = 262144\nmax_inflight_count = 200\n\
         dynamic_filters = true\n"
    );
    let path = directory.join("rumqttd.toml");
    write(&path, &config)?;
    let mut command = Command::new(binary()?);
    command.arg("--config").arg(path).arg("--quiet");
    Ok(command)
}
