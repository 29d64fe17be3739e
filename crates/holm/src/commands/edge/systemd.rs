//! The edge as a service of systemd: what its programs say, and that there is none where there is none.

use std::path::PathBuf;
use std::process::{ExitStatus, Output};

use anyhow::{Context, bail};
use tokio::process::Command;

/// The unit of `packaging/systemd`.
pub(super) const UNIT: &str = "holm-edge";
/// What is known of a unit.
const PROPERTIES: &str = "LoadState,ActiveState,SubState,Result,MainPID,ExecStart,NRestarts,FragmentPath,User";

/// What systemd says of the edge's service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Unit {
    /// `active`, `failed`, …
    pub(super) active: String,
    /// More about it: `running`, `dead`, …
    pub(super) sub: String,
    /// How it last ended: `success`, `exit-code`, …
    pub(super) result: String,
    /// How often systemd started it again.
    pub(super) restarts: String,
    /// The configuration that it reads.
    pub(super) config: Option<PathBuf>,
    /// As whom it runs; `None` is root.
    pub(super) user: Option<String>,
    /// The file of the unit.
    pub(super) file: String,
}

/// What systemd says of the service.
///
/// # Errors
/// There is no systemd on this device, it does not run it, or it knows no such service; each with what to do.
pub(super) async fn unit() -> anyhow::Result<Unit> {
    let done = run("systemctl", &["show", UNIT, "--property", PROPERTIES]).await?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        let said = said.lines().next().unwrap_or_default().trim_end_matches('.');
        bail!("systemd does not run this device ({said}); whatever starts `holm edge run` here has to do this");
    }
    let unit = read(&String::from_utf8_lossy(&done.stdout));
    match unit {
        Some(unit) => Ok(unit),
        None => bail!(
            "systemd knows no service `{UNIT}`; install it (`packaging/install.sh`), or use what starts `holm edge run` here"
        ),
    }
}

/// Reads the answer of `systemctl show`; `None` when there is no such unit.
fn read(text: &str) -> Option<Unit> {
    let property = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
    };
    if property("LoadState").as_deref() != Some("loaded") {
        return None;
    }
    let command = property("ExecStart").unwrap_or_default();
    let mut words = command
        .split_whitespace()
        .skip_while(|word| *word != "--config")
        .skip(1);
    Some(Unit {
        active: property("ActiveState").unwrap_or_default(),
        sub: property("SubState").unwrap_or_default(),
        result: property("Result").unwrap_or_default(),
        restarts: property("NRestarts").unwrap_or_default(),
        config: words.next().map(PathBuf::from),
        user: property("User").filter(|user| !user.is_empty()),
        file: property("FragmentPath").unwrap_or_default(),
    })
}

/// The numbers of a user and of its group.
///
/// # Errors
/// There is no such user.
pub(super) async fn numbers(user: &str) -> anyhow::Result<(u32, u32)> {
    let number = async |option| {
        let done = Command::new("id").args([option, user]).output().await;
        let done = done.context("`id` can't be started")?;
        let said = String::from_utf8_lossy(&done.stdout);
        let number = said.trim().parse::<u32>();
        number.with_context(|| format!("this device has no user `{user}`, as whom the service runs; add it"))
    };
    Ok((number("-u").await?, number("-g").await?))
}

/// Tells systemd to do something.
///
/// # Errors
/// As [`unit()`]; and what systemd said when it could not.
pub(super) async fn tell(words: &[&str]) -> anyhow::Result<()> {
    let done = run("systemctl", words).await?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    bail!("`systemctl {}` failed: {said}", words.join(" "))
}

/// The service's journal.
///
/// # Errors
/// There is none.
pub(super) async fn journal(since: &str, until: Option<&str>) -> anyhow::Result<Vec<u8>> {
    unit().await?;
    // The journal's own words for how long ago end so.
    let ago = |text: &str| {
        let is_length = text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains([':', '-']);
        if is_length {
            format!("{text} ago")
        } else {
            text.to_owned()
        }
    };
    let since = ago(since);
    let mut words = vec!["--unit", UNIT, "--no-pager", "--output", "short-iso", "--since", &since];
    let until = until.map(ago);
    if let Some(until) = &until {
        words.extend(["--until", until]);
    }
    let done = run("journalctl", &words).await?;
    if !done.status.success() {
        bail!("`journalctl` failed: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(done.stdout)
}

/// Shows the journal as `journalctl` does, with options of the caller's.
///
/// # Errors
/// There is none.
pub(super) async fn show_journal(options: &[String]) -> anyhow::Result<ExitStatus> {
    unit().await?;
    let mut command = Command::new("journalctl");
    command.args(["--unit", UNIT]).args(options);
    command.status().await.context("`journalctl` can't be started")
}

async fn run(program: &str, words: &[&str]) -> anyhow::Result<Output> {
    let done = Command::new(program).args(words).output().await;
    done.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            anyhow::anyhow!("there is no systemd on this device (no `{program}`); whatever starts `holm edge run` here has to do this")
        }
        _ => anyhow::Error::new(error).context(format!("`{program}` can't be started")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_tells_its_state_and_the_configuration_that_it_reads() {
        let text = "ExecStart={ path=/usr/bin/holm ; argv[]=/usr/bin/holm edge run --config /etc/holm/config.toml ; ignore_errors=no }\n\
                    LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=exit-code\nNRestarts=5\nFragmentPath=/lib/x\nUser=holm-edge\n";

        let unit = read(text).unwrap();

        assert_eq!(unit.config, Some("/etc/holm/config.toml".into()));
        assert_eq!(unit.user.as_deref(), Some("holm-edge"));
        assert_eq!(
            (unit.active.as_str(), unit.result.as_str(), unit.restarts.as_str()),
            ("failed", "exit-code", "5")
        );
        assert_eq!(read("LoadState=not-found\nActiveState=inactive\n"), None);
    }
}
