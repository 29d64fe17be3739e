//! `holm file …`: what devices have uploaded to the hub.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bytes::Bytes;
use holm_model::wire::percent;
use http_body_util::BodyExt as _;
use hyper::Method;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::hub_access;
use crate::cli::File;
use crate::output::{self, WrongUse};
use crate::service::Service;

/// Files of one page.
const PAGE: usize = 1000;

pub(crate) async fn run(command: File) -> anyhow::Result<()> {
    match command {
        File::List { device, hub } => {
            let files = all(&hub_access::open(&hub)?, device.id()).await?;
            if hub.json {
                output::json(&Value::Array(files));
            } else {
                show(&files);
            }
        }
        File::Get {
            name,
            output: target,
            hub,
        } => {
            let is_standard_output = target.as_deref().is_some_and(|target| target.as_os_str() == "-");
            if is_standard_output && hub.json {
                let text = "`--json` and the file would both go to standard output; give another `--output`";
                bail!(WrongUse(text.to_owned()));
            }
            let service = hub_access::open(&hub)?;
            let target = target.map_or_else(|| default_target(&name), Ok)?;
            let answer = service.open(&path(&name)).await?;
            let bytes = if is_standard_output {
                print(answer.into_body()).await?
            } else {
                write(answer.into_body(), &target).await?
            };
            let shown = target.display();
            if hub.json {
                output::json(&json!({ "blobName": name, "file": shown.to_string(), "bytes": bytes }));
            } else {
                output::note(&format!("`{name}`: {} to `{shown}`", output::size(bytes)));
            }
        }
        File::Delete { name, hub } => {
            let service = hub_access::open(&hub)?;
            service.call(Method::DELETE, &path(&name), &[], None).await?;
            if hub.json {
                output::json(&json!({ "blobName": name, "deleted": true }));
            } else {
                output::note(&format!("`{name}` is deleted"));
            }
        }
    }
    Ok(())
}

/// Where the hub serves a file.
fn path(name: &str) -> String {
    let parts: Vec<_> = name.split('/').map(percent::encode).collect();
    format!("/uploads/{}", parts.join("/"))
}

fn default_target(name: &str) -> anyhow::Result<PathBuf> {
    let last = name.rsplit('/').next().unwrap_or_default();
    if last.is_empty() || last == "." || last == ".." {
        bail!(WrongUse(format!("`{name}` is no name of a file; see `holm file list`")));
    }
    Ok(PathBuf::from(last))
}

async fn all(service: &Service, device: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let mut all: Vec<Value> = Vec::new();
    loop {
        let last = all
            .last()
            .and_then(|last| last["blobName"].as_str())
            .unwrap_or_default();
        let (device, after) = (percent::encode(device.unwrap_or_default()), percent::encode(last));
        let path = format!("/holm/v1/files?device={device}&top={PAGE}&after={after}");
        let Value::Array(page) = service.call(Method::GET, &path, &[], None).await?.body else {
            bail!("the hub's answer is not a list")
        };
        let is_last = page.len() < PAGE;
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}

fn show(files: &[Value]) {
    let text = |file: &Value, member: &str| file[member].as_str().unwrap_or_default().to_owned();
    let rows: Vec<_> = files
        .iter()
        .map(|file| {
            vec![
                text(file, "deviceId"),
                output::size(file["blobSizeInBytes"].as_u64().unwrap_or_default()),
                text(file, "lastUpdatedTime"),
                text(file, "blobName"),
            ]
        })
        .collect();
    output::table(&["DEVICE", "SIZE", "STORED", "NAME"], &rows);
}

/// Writes to a file that has its name only when all of it is there.
pub(super) async fn write(mut body: Incoming, target: &Path) -> anyhow::Result<u64> {
    let mut part = target.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    // What somebody else has there is not ours to write over.
    let made = tokio::fs::File::create_new(&part).await;
    let mut file = made.with_context(|| format!("`{}` can't be made", part.display()))?;
    let written = async {
        let mut bytes = 0;
        while let Some(piece) = next(&mut body).await? {
            bytes += piece.len() as u64;
            file.write_all(&piece).await.context("the file can't be written")?;
        }
        file.flush().await.context("the file can't be written")?;
        let renamed = tokio::fs::rename(&part, target).await;
        renamed.with_context(|| format!("`{}` can't be written", target.display()))?;
        anyhow::Ok(bytes)
    };
    let written = written.await;
    if written.is_err() {
        tokio::fs::remove_file(&part).await.ok();
    }
    written
}

/// Writes to standard output.
pub(super) async fn print(mut body: Incoming) -> anyhow::Result<u64> {
    let mut bytes = 0;
    while let Some(piece) = next(&mut body).await? {
        bytes += piece.len() as u64;
        output::bytes(&piece);
    }
    Ok(bytes)
}

async fn next(body: &mut Incoming) -> anyhow::Result<Option<Bytes>> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.context("the file broke off")?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_asked_for_and_kept_by_its_name_and_nowhere_else() {
        assert_eq!(path("d1/a b/ü.jpg"), "/uploads/d1/a%20b/%C3%BC.jpg");
        assert_eq!(default_target("d1/a/b.jpg").unwrap(), PathBuf::from("b.jpg"));
        assert!(default_target("d1/..").is_err() && default_target("d1/").is_err());
    }
}
