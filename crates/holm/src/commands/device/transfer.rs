//! `holm device export` and `import`: a job at the hub, and its container of blobs.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use holm_model::Timestamp;
use hyper::Method;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use super::super::{file, hub_access};
use crate::cli::HubAccess;
use crate::output::{self, WrongUse};
use crate::service::Service;

/// How often it is looked whether a job has ended.
const LOOK: Duration = Duration::from_millis(300);
/// What of a file is sent at a time.
const PIECE: u64 = 8 << 20;
/// How long the container is open, in seconds: the longest that a job may take.
const LIFE: u32 = 24 * 3600;

/// A container for one job.
struct Container {
    /// The address with its signature, for the job.
    address: String,
}

impl Container {
    async fn open(service: &Service) -> anyhow::Result<Self> {
        let name = format!("holm-{}", Timestamp::from(SystemTime::now()).unix_millis());
        let path = format!("/holm/v1/containers/{name}?life={LIFE}");
        let opened = service.call(Method::PUT, &path, &[], None).await?.body;
        let address = opened["uri"].as_str().context("the hub's answer has no `uri`")?;
        Ok(Self {
            address: address.to_owned(),
        })
    }

    /// The path and query of a blob, with more of a query.
    fn blob(&self, name: &str, more: &str) -> String {
        let rest = self.address.split_once("://").map_or("", |(_, rest)| rest);
        let path = rest.split_once('/').map_or("", |(_, path)| path);
        let (path, signature) = path.split_once('?').unwrap_or((path, ""));
        format!("/{path}/{name}?{signature}{more}")
    }

    async fn remove(&self, service: &Service, name: &str) {
        // What is not there is removed already; what can't be removed stays, closed.
        if let Err(error) = service.call(Method::DELETE, &self.blob(name, ""), &[], None).await {
            tracing::debug!(%error, name, "a blob of a job is not removed");
        }
    }
}

pub(super) async fn export(target: &Path, exclude_keys: bool, hub: &HubAccess) -> anyhow::Result<()> {
    let is_standard_output = target.as_os_str() == "-";
    if is_standard_output && hub.json {
        let text = "`--json` and the devices would both go to standard output; give another `--output`";
        bail!(WrongUse(text.to_owned()));
    }
    let service = hub_access::open(hub)?;
    let container = Container::open(&service).await?;
    let order = json!({
        "type": "export",
        "outputBlobContainerUri": container.address,
        "excludeKeysInExport": exclude_keys,
    });
    let job = carry_out(&service, &order).await?;
    let answer = service.open(&container.blob("devices.txt", "")).await?;
    let bytes = if is_standard_output {
        file::print(answer.into_body()).await?
    } else {
        file::write(answer.into_body(), target).await?
    };
    container.remove(&service, "devices.txt").await;
    let shown = target.display();
    if hub.json {
        output::json(&json!({ "jobId": job["jobId"], "file": shown.to_string(), "bytes": bytes }));
    } else {
        output::note(&format!("devices and modules: {} to `{shown}`", output::size(bytes)));
    }
    Ok(())
}

/// Gives whether all lines were carried out.
pub(super) async fn import(source: &Path, hub: &HubAccess) -> anyhow::Result<bool> {
    let service = hub_access::open(hub)?;
    let container = Container::open(&service).await?;
    upload(&service, &container, source).await?;
    let order = json!({
        "type": "import",
        "inputBlobContainerUri": container.address,
        "outputBlobContainerUri": container.address,
    });
    let job = carry_out(&service, &order).await?;
    let errors = errors(&service, &container).await?;
    container.remove(&service, "devices.txt").await;
    container.remove(&service, "importErrors.log").await;
    if hub.json {
        output::json(&json!({ "jobId": job["jobId"], "errors": errors }));
    } else {
        let text = |error: &Value, name: &str| error[name].as_str().unwrap_or_default().to_owned();
        for error in &errors {
            let (code, why) = (text(error, "errorCode"), text(error, "errorStatus"));
            output::note(&format!("line {}: {why} ({code})", error["line"]));
        }
        output::note(&format!(
            "imported `{}`, {} lines failed",
            source.display(),
            errors.len()
        ));
    }
    Ok(errors.is_empty())
}

async fn upload(service: &Service, container: &Container, source: &Path) -> anyhow::Result<()> {
    let shown = source.display();
    let opened = tokio::fs::File::open(source).await;
    let mut file = opened.with_context(|| format!("`{shown}` can't be read"))?;
    let mut list = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>");
    for number in 0_u32.. {
        let mut piece = Vec::new();
        let read = (&mut file).take(PIECE).read_to_end(&mut piece).await;
        if read.with_context(|| format!("`{shown}` can't be read"))? == 0 {
            break;
        }
        // Twelve digits are nine bytes in base64 as they stand.
        let block = format!("{number:012}");
        let path = container.blob("devices.txt", &format!("&comp=block&blockid={block}"));
        service.put_bytes(&path, &[], Bytes::from(piece)).await?;
        list.push_str(&format!("<Latest>{block}</Latest>"));
    }
    list.push_str("</BlockList>");
    let path = container.blob("devices.txt", "&comp=blocklist");
    service.put_bytes(&path, &[], Bytes::from(list)).await
}

/// Orders a job, and waits for its end.
async fn carry_out(service: &Service, order: &Value) -> anyhow::Result<Value> {
    let mut job = service.call(Method::POST, "/jobs/create", &[], Some(order)).await?.body;
    let id = job["jobId"]
        .as_str()
        .context("the hub's answer has no `jobId`")?
        .to_owned();
    while job.get("endTimeUtc").is_none() {
        tokio::time::sleep(LOOK).await;
        job = service.call(Method::GET, &format!("/jobs/{id}"), &[], None).await?.body;
    }
    let why = job["failureReason"].as_str().unwrap_or("no reason is told");
    match job["status"].as_str() {
        Some("completed") => Ok(job),
        Some("cancelled") => bail!("job `{id}` was cancelled"),
        _ => bail!("job `{id}` failed: {why}"),
    }
}

async fn errors(service: &Service, container: &Container) -> anyhow::Result<Vec<Value>> {
    let path = container.blob("importErrors.log", "");
    match service.exchange(Method::GET, &path, &[]).await {
        Ok((_, _, bytes)) => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let lines = text.lines().map(serde_json::from_str);
            lines.collect::<Result<_, _>>().context("the errors can't be read")
        }
        Err(error) if is_missing(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<crate::service::Refused>();
    refused.is_some_and(|refused| refused.status == hyper::StatusCode::NOT_FOUND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_asked_for_below_its_container_with_the_signature() {
        let container = Container {
            address: "https://hub.test:8443/containers/holm-1?sv=1&sig=a%2Bb".to_owned(),
        };

        assert_eq!(
            container.blob("devices.txt", "&comp=block"),
            "/containers/holm-1/devices.txt?sv=1&sig=a%2Bb&comp=block"
        );
    }
}
