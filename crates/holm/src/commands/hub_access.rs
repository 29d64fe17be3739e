//! Which hub a command speaks to: `--hub`, `--hub-file`, `HOLM_HUB`, or what `holm login` remembered, in this order.

use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use holm_identity::ServiceConnectionString;

use crate::cli::{HubAccess, Login, values};
use crate::output::{self, WrongUse};
use crate::service::Service;

/// Opens the way to the hub.
pub(crate) fn open(access: &HubAccess) -> anyhow::Result<Service> {
    let (text, remembered_ca) = connection_string(access)?;
    let ca = access.authority().or(remembered_ca);
    Service::new(&text, ca.as_deref())
}

fn connection_string(access: &HubAccess) -> anyhow::Result<(String, Option<PathBuf>)> {
    if let Some(text) = &access.hub {
        output::note(
            "holm: others on this machine can read the key from the process list; prefer HOLM_HUB or --hub-file",
        );
        check(text, "`--hub`")?;
        return Ok((text.clone(), None));
    }
    if let Some(file) = &access.hub_file {
        return Ok((read_private(file)?, None));
    }
    if let Some(text) = values::hub() {
        check(&text, "the variable `HOLM_HUB`")?;
        return Ok((text, None));
    }
    let file = remembered()?;
    if !file.exists() {
        bail!("no hub is given: set HOLM_HUB to its connection string, or give --hub-file, or run `holm login`");
    }
    let ca = file.with_file_name("ca.pem");
    Ok((read_private(&file)?, ca.exists().then_some(ca)))
}

/// Not where options and variables are read: what is wrong with them is shown with their value, and this one is a secret.
fn check(text: &str, given: &str) -> Result<(), WrongUse> {
    let parsed = ServiceConnectionString::parse(text.trim());
    parsed.map(drop).map_err(|error| {
        let why = holm_net::error_chain(&error);
        WrongUse(format!("the value of {given} is no connection string of a hub: {why}"))
    })
}

/// Reads a file that holds a secret, and refuses one that others can read.
fn read_private(file: &Path) -> anyhow::Result<String> {
    let shown = file.display();
    let metadata = std::fs::metadata(file).with_context(|| format!("`{shown}` can't be read"))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        bail!("`{shown}` holds a key and can be read by others (mode {mode:03o}); run `chmod 600 {shown}`");
    }
    std::fs::read_to_string(file).with_context(|| format!("`{shown}` can't be read"))
}

fn remembered() -> anyhow::Result<PathBuf> {
    let base = values::path("XDG_CONFIG_HOME").or_else(|| values::path("HOME").map(|home| home.join(".config")));
    Ok(base
        .context("neither HOME nor XDG_CONFIG_HOME is set; give --hub-file")?
        .join("holm/hub"))
}

/// Remembers a connection string, and the authority to trust with it, for this user.
pub(crate) fn login(login: &Login) -> anyhow::Result<()> {
    let mut text = login.connection_string.clone();
    if text == "-" {
        text.clear();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("standard input can't be read")?;
    }
    let text = text.trim();
    let parsed = ServiceConnectionString::parse(text).map_err(|error| {
        let why = holm_net::error_chain(&error);
        WrongUse(format!("that is no connection string of a hub: {why}"))
    })?;
    let file = remembered()?;
    let directory = file.parent().context("the configuration directory has no parent")?;
    std::fs::create_dir_all(directory).with_context(|| format!("`{}` can't be made", directory.display()))?;
    write_private(&file, text)?;
    if let Some(ca) = login.authority() {
        std::fs::copy(&ca, file.with_file_name("ca.pem"))
            .with_context(|| format!("`{}` can't be copied", ca.display()))?;
    }
    output::note(&format!("remembered `{}` in `{}`", parsed.host_name, file.display()));
    Ok(())
}

fn write_private(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut open| {
            open.set_permissions(std::fs::Permissions::from_mode(0o600))?;
            writeln!(open, "{text}")
        })
        .with_context(|| format!("`{}` can't be written", file.display()))
}
