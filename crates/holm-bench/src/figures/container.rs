//! From a deployment saved at the hub to its container running, with the image there already.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use holm_model::Timestamp;

use super::{Figure, KEY};
use crate::brokers::{Hub, WholeEdge};

/// The image of the tests, which `cargo xtask setup` makes.
const IMAGE: &str = "holm-e2e/busybox:1";
const MODULE: &str = "holm-bench-container";
/// How often it is looked; the time itself is the engine's.
const LOOK: Duration = Duration::from_millis(50);
const DEADLINE: Duration = Duration::from_secs(60);

pub(super) async fn measure(place: &Path) -> Result<Figure> {
    let (value, how) = match docker(&["image", "inspect", IMAGE]) {
        Ok(_) => {
            let took = first_start(place).await?;
            let how = format!(
                "a container of `{IMAGE}` besides nothing else; from the call that saves to the engine's time of start"
            );
            (format!("{:.2} s", took.as_secs_f64()), how)
        }
        Err(error) => ("not measured".to_owned(), format!("{error:#}")),
    };
    Ok(Figure::new(
        "save at the hub to container running",
        value,
        "< 1.5 s",
        how,
    ))
}

async fn first_start(place: &Path) -> Result<Duration> {
    let directory = tempfile::tempdir_in(place)?;
    let hub = Hub::start(&directory.path().join("above")).await?;
    let edge = WholeEdge::start_empty(&hub, directory.path(), KEY).await?;
    let saved = SystemTime::now();
    hub.deploy_container(MODULE, IMAGE).await?;
    let started = started(saved).await;
    edge.stop(&hub).await?;
    started
}

/// How long after `saved` the engine started the container.
async fn started(saved: SystemTime) -> Result<Duration> {
    loop {
        if let Ok(text) = docker(&["inspect", "-f", "{{.State.StartedAt}}", MODULE])
            && let Some(at) = Timestamp::parse(text.trim())
            && at > Timestamp::from(saved)
        {
            let millis = at.millis_since(Timestamp::from(saved));
            return Ok(Duration::from_millis(millis.unsigned_abs()));
        }
        if saved.elapsed().unwrap_or_default() > DEADLINE {
            bail!("no container ran within {} s", DEADLINE.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn docker(arguments: &[&str]) -> Result<String> {
    let output = Command::new("docker")
        .args(arguments)
        .output()
        .context("there is no `docker`")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
