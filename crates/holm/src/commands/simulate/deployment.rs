//! The automatic deployment of a fleet's edges.

use anyhow::{Context as _, bail};
use holm_model::wire::percent;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::registration::{FLEET, quoted};
use crate::cli::Simulate;
use crate::commands::deploy;
use crate::service::{Refused, Service};

/// A deployment for all edges that have the tag of the fleet.
#[derive(Debug)]
pub(super) struct Deployment {
    id: String,
    fleet: String,
    content: Value,
    /// Whether this run has made it.
    is_made: bool,
}

impl Deployment {
    /// That of the options, if there is one, checked as an edge would.
    pub(super) fn read(options: &Simulate) -> anyhow::Result<Option<Self>> {
        let Some(file) = &options.deployment else {
            return Ok(None);
        };
        Ok(Some(Self {
            id: format!("{}deployment", options.prefix),
            fleet: options.prefix.clone(),
            content: deploy::modules_of(&deploy::read(file)?, file)?,
            is_made: false,
        }))
    }

    /// Makes it, in the place of that of an earlier run.
    ///
    /// # Errors
    /// One of that name is there that no simulation has made; the hub does not take it.
    pub(super) async fn make(&mut self, service: &Service) -> anyhow::Result<()> {
        let condition: &[(&str, &str)] = if self.is_there(service).await? {
            &[("If-Match", "\"*\"")]
        } else {
            &[]
        };
        let body = json!({
            "id": self.id, "schemaVersion": "1.0", "content": { "modulesContent": self.content }, "priority": 10,
            "labels": { FLEET: self.fleet }, "targetCondition": format!("tags.{FLEET} = {}", quoted(&self.fleet)),
        });
        let made = service.call(Method::PUT, &self.path(), condition, Some(&body)).await;
        made.with_context(|| format!("the deployment `{}` can't be made", self.id))?;
        self.is_made = true;
        Ok(())
    }

    /// Deletes it, if it was made.
    pub(super) async fn delete(&self, service: &Service) -> anyhow::Result<()> {
        if !self.is_made {
            return Ok(());
        }
        let path = self.path();
        let deleted = service.call(Method::DELETE, &path, &[("If-Match", "\"*\"")], None);
        deleted
            .await
            .with_context(|| format!("the deployment `{}` can't be deleted", self.id))?;
        Ok(())
    }

    /// Whether that of an earlier run is there.
    async fn is_there(&self, service: &Service) -> anyhow::Result<bool> {
        match service.call(Method::GET, &self.path(), &[], None).await {
            Ok(found) if found.body["labels"][FLEET] == self.fleet.as_str() => Ok(true),
            Ok(_) => bail!(
                "the deployment `{}` is there and no simulation has made it; give another `--prefix`",
                self.id
            ),
            Err(error) => match error.downcast_ref::<Refused>() {
                Some(refused) if refused.status == StatusCode::NOT_FOUND => Ok(false),
                _ => Err(error),
            },
        }
    }

    fn path(&self) -> String {
        format!("/configurations/{}", percent::encode(&self.id))
    }
}
