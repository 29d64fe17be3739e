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
    /// What it sets; `None`: this run makes none.
    content: Option<Value>,
    /// Whether this run has made it.
    is_made: bool,
}

impl Deployment {
    /// That of the options, checked as an edge would.
    pub(super) fn read(options: &Simulate) -> anyhow::Result<Self> {
        let content = match &options.deployment {
            Some(file) => Some(deploy::modules_of(&deploy::read(file)?, file)?),
            None => None,
        };
        Ok(Self {
            id: format!("{}deployment", options.prefix),
            fleet: options.prefix.clone(),
            content,
            is_made: false,
        })
    }

    /// Makes it, if there is to be one, in the place of that of an earlier run.
    ///
    /// # Errors
    /// One of that name is there that no simulation has made; the hub does not take it.
    pub(super) async fn make(&mut self, service: &Service) -> anyhow::Result<()> {
        let Some(content) = &self.content else { return Ok(()) };
        let condition: &[(&str, &str)] = match self.of_a_simulation(service).await? {
            Some(true) => &[("If-Match", "\"*\"")],
            Some(false) => bail!(
                "the deployment `{}` is there and no simulation has made it; give another `--prefix`",
                self.id
            ),
            None => &[],
        };
        let body = json!({
            "id": self.id, "schemaVersion": "1.0", "content": { "modulesContent": content }, "priority": 10,
            "labels": { FLEET: self.fleet }, "targetCondition": format!("tags.{FLEET} = {}", quoted(&self.fleet)),
        });
        let made = service.call(Method::PUT, &self.path(), condition, Some(&body)).await;
        made.with_context(|| format!("the deployment `{}` can't be made", self.id))?;
        self.is_made = true;
        Ok(())
    }

    /// Deletes it, also that of an earlier run.
    pub(super) async fn delete(&self, service: &Service) -> anyhow::Result<()> {
        if !self.is_made && self.of_a_simulation(service).await? != Some(true) {
            return Ok(());
        }
        let path = self.path();
        let deleted = service.call(Method::DELETE, &path, &[("If-Match", "\"*\"")], None);
        deleted
            .await
            .with_context(|| format!("the deployment `{}` can't be deleted", self.id))?;
        Ok(())
    }

    /// Whether the one that is there was made by a simulation; `None` when there is none.
    async fn of_a_simulation(&self, service: &Service) -> anyhow::Result<Option<bool>> {
        match service.call(Method::GET, &self.path(), &[], None).await {
            Ok(found) => Ok(Some(found.body["labels"][FLEET] == self.fleet.as_str())),
            Err(error) => match error.downcast_ref::<Refused>() {
                Some(refused) if refused.status == StatusCode::NOT_FOUND => Ok(None),
                _ => Err(error),
            },
        }
    }

    fn path(&self) -> String {
        format!("/configurations/{}", percent::encode(&self.id))
    }
}
