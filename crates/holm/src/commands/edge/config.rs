//! `holm edge config …`: make a configuration, take one over from IoT Edge, put one into force.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use holm_edge::config::EdgeConfig;
use holm_edge::config::import::{self, Form, Imported};
use serde_json::json;

use super::{service, systemd};
use crate::cli::Config;
use crate::cli::values::configuration;
use crate::output;

/// The largest file that is taken over.
const MAX_BYTES: u64 = 1 << 20;

pub(super) async fn run(command: Config) -> anyhow::Result<ExitCode> {
    match command {
        Config::Apply { config } => apply(&configuration(config.as_deref())).await?,
        Config::Mp {
            connection_string,
            output,
            force,
        } => minimal(&connection_string, &output, force)?,
        Config::Import {
            config,
            output,
            force,
            json,
        } => take_over(&config, &output, force, json)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks a configuration, gives it to the service, and restarts that. No module is touched.
async fn apply(file: &Path) -> anyhow::Result<()> {
    service::check(file).await?;
    let shown = file.display();
    let unit = systemd::unit().await.with_context(|| {
        format!("`{shown}` is in order, and nothing was changed: start the edge with `holm edge run --config {shown}`")
    })?;
    let theirs = unit
        .config
        .with_context(|| format!("the service `{}` does not say which configuration it reads", unit.file))?;
    if theirs != file {
        let reader = match &unit.user {
            Some(user) => Some(systemd::numbers(user).await?),
            None => None,
        };
        install(file, &theirs, reader)
            .with_context(|| format!("`{}` can't be written; it takes root", theirs.display()))?;
        output::line(&format!("`{shown}` was copied to `{}`", theirs.display()));
    }
    systemd::tell(&["restart", systemd::UNIT]).await?;
    output::line(&format!(
        "The edge was restarted with `{}`; its modules went on",
        theirs.display()
    ));
    Ok(())
}

/// Puts a file in the place of another, whole or not at all: for the user who is to read it, else for the same owner.
fn install(from: &Path, to: &Path, reader: Option<(u32, u32)>) -> std::io::Result<()> {
    let text = std::fs::read(from)?;
    let same = || {
        let folder = to.parent().unwrap_or_else(|| Path::new("/"));
        let owner = std::fs::metadata(to).or_else(|_| std::fs::metadata(folder))?;
        Ok((owner.uid(), owner.gid()))
    };
    let owner = reader.map_or_else(same, Ok::<_, std::io::Error>)?;
    write_private(to, &text, Some(owner))
}

/// Makes the directory that a file is to be in, but none above it: a path with a slip in it is no wish for directories.
fn make_folder_of(path: &Path) -> anyhow::Result<()> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(());
    };
    if folder.exists() {
        return Ok(());
    }
    let shown = folder.display();
    std::fs::create_dir(folder)
        .with_context(|| format!("nothing was written: the directory `{shown}` is not there and can't be made"))?;
    output::note(&format!("holm: the directory `{shown}` was made"));
    Ok(())
}

/// Writes a file that its owner alone may read.
fn write_private(path: &Path, text: &[u8], owner: Option<(u32, u32)>) -> std::io::Result<()> {
    let mut next = path.as_os_str().to_owned();
    next.push(".new");
    let next = Path::new(&next);
    // What an earlier attempt left may have other rights.
    match std::fs::remove_file(next) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(next)?;
    file.write_all(text)?;
    file.sync_all()?;
    if let Some((uid, gid)) = owner {
        chown(next, Some(uid), Some(gid))?;
    }
    std::fs::rename(next, path)
}

/// The smallest configuration there is.
fn minimal(connection_string: &str, file: &Path, force: bool) -> anyhow::Result<()> {
    refuse_to_replace(file, force, "mp")?;
    let text = import::minimal(connection_string);
    EdgeConfig::parse(&text).context("the connection string can't be used")?;
    make_folder_of(file)?;
    write_private(file, text.as_bytes(), None).with_context(|| format!("`{}` can't be written", file.display()))?;
    told(file);
    Ok(())
}

fn told(file: &Path) {
    let shown = file.display();
    output::line(&format!("The configuration was written to `{shown}`"));
    output::line(&format!("`holm edge config apply -c {shown}` puts it into force"));
}

fn refuse_to_replace(file: &Path, force: bool, command: &str) -> anyhow::Result<()> {
    if file.exists() && !force {
        let shown = file.display();
        bail!(
            "`{shown}` is there already; `holm edge config {command} --force` replaces it, `holm edge config apply` puts it into force"
        );
    }
    Ok(())
}

/// Takes over a configuration of IoT Edge, and tells of every key what became of it.
fn take_over(from: &Path, to: &Path, force: bool, as_json: bool) -> anyhow::Result<()> {
    refuse_to_replace(to, force, "import")?;
    let shown = from.display();
    let about = || format!("`{shown}` can't be read");
    let size = std::fs::metadata(from).with_context(about)?.len();
    if size > MAX_BYTES {
        bail!("`{shown}` has {size} bytes, and a configuration has at most {MAX_BYTES}");
    }
    let text = std::fs::read_to_string(from).with_context(about)?;
    let form = match from.extension().and_then(|ending| ending.to_str()) {
        Some("yaml" | "yml") => Form::Yaml,
        _ => Form::Toml,
    };
    let imported = import::import(&text, form).with_context(|| format!("`{shown}` can't be taken over"))?;
    let problem = EdgeConfig::parse(&imported.text).err();
    report(&imported, as_json);
    if let Some(problem) = problem {
        return Err(anyhow::Error::new(problem))
            .with_context(|| format!("nothing was written: what can be kept of `{shown}` is not enough"));
    }
    make_folder_of(to)?;
    write_private(to, imported.text.as_bytes(), None)
        .with_context(|| format!("`{}` can't be written", to.display()))?;
    if !as_json {
        told(to);
    }
    let lost: Vec<_> = imported.not_kept.iter().map(|(key, _)| format!("`{key}`")).collect();
    if !lost.is_empty() {
        bail!(
            "the configuration was written without what can't be kept: {}; what to do instead is told with each",
            lost.join(", ")
        );
    }
    Ok(())
}

fn report(imported: &Imported, as_json: bool) {
    if as_json {
        let pairs = |pairs: &[(String, String)], what: &str| -> Vec<_> {
            pairs
                .iter()
                .map(|(key, text)| json!({"key": key, what: text}))
                .collect()
        };
        output::json(&json!({
            "taken": imported.taken,
            "changed": pairs(&imported.changed, "to"),
            "leftOut": pairs(&imported.left_out, "why"),
            "notKept": pairs(&imported.not_kept, "instead"),
        }));
        return;
    }
    let mut rows: Vec<Vec<String>> = imported
        .taken
        .iter()
        .map(|key| vec![key.clone(), "taken".to_owned(), String::new()])
        .collect();
    for (pairs, word) in [
        (&imported.changed, "changed"),
        (&imported.left_out, "left out"),
        (&imported.not_kept, "CAN'T BE KEPT"),
    ] {
        rows.extend(
            pairs
                .iter()
                .map(|(key, text)| vec![key.clone(), word.to_owned(), text.clone()]),
        );
    }
    output::table(&["KEY", "WHAT BECAME OF IT", "HOW"], &rows);
    output::line("");
}
