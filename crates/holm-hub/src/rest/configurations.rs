//! Configurations, and what each is and would be to devices.
//!
//! ```text
//! GET /configurations · PUT, GET, DELETE /configurations/{id} · POST /configurations/testQueries        published
//! POST /holm/v1/configurations/plan      what a change would do
//! GET  /holm/v1/devices/{id}/configurations, …/modules/{m}/configurations      why one has what it has
//! ```
//!
//! Source: `hub-service-api.md` §2.2, §3.

use std::collections::BTreeMap;

use holm_model::configuration::{ConfigurationId, ConfigurationWish};
use holm_model::{Identity, ServiceError};
use hyper::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::answer::{self, Answer, Failure};
use super::{Call, RestApi, not_allowed, read};
use crate::configurations::{Change, Configurations, Measured};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TestQueries {
    target_condition: Option<String>,
    custom_metric_queries: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Plan<'b> {
    #[serde(borrow)]
    configuration: Option<&'b RawValue>,
    remove: Option<String>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

impl RestApi {
    pub(super) async fn list_configurations(&self, call: Call) -> Result<Answer, Failure> {
        if call.method != Method::GET {
            return Err(not_allowed(&call, "GET"));
        }
        let top =
            match call.query.get("top") {
                None | Some("") => None,
                Some(text) => Some(text.parse().ok().filter(|top| *top > 0).ok_or_else(|| {
                    ServiceError::argument_invalid(format!("`top` is `{text}`; give a number from 1"))
                })?),
            };
        let all = self.configurations.list(top).await?;
        Ok(answer::json(&all.iter().map(Measured::to_json).collect()))
    }

    pub(super) async fn configuration(&self, call: Call, id: ConfigurationId) -> Result<Answer, Failure> {
        match call.method {
            Method::GET => Ok(answer::json_with_etag(&self.configurations.get(id).await?.to_json())),
            Method::PUT => {
                let wish = ConfigurationWish::from_json(&id, &call.body)?;
                let kept = self.configurations.put(id, wish, call.if_match()).await?;
                Ok(answer::json_with_etag(&kept.to_json()))
            }
            Method::DELETE => {
                self.configurations.remove(id, call.if_match()).await?;
                Ok(answer::no_content())
            }
            _ => Err(not_allowed(&call, "GET, PUT or DELETE")),
        }
    }

    pub(super) fn test_queries(&self, call: &Call) -> Result<Answer, Failure> {
        if call.method != Method::POST {
            return Err(not_allowed(call, "POST"));
        }
        let asked: TestQueries = read(call)?;
        let condition = asked.target_condition.unwrap_or_default();
        let queries = asked.custom_metric_queries.unwrap_or_default();
        let errors: BTreeMap<_, _> = queries
            .iter()
            .filter_map(|(name, query)| Some((name, Configurations::check_metric(query)?)))
            .collect();
        Ok(answer::json(&json!({
            "targetConditionError": Configurations::check_condition(&condition),
            "customMetricQueryErrors": errors,
        })))
    }

    pub(super) async fn plan_configuration(&self, call: Call) -> Result<Answer, Failure> {
        if call.method != Method::POST {
            return Err(not_allowed(&call, "POST"));
        }
        let plan: Plan<'_> = read(&call)?;
        let id =
            |text: &str| ConfigurationId::new(text).map_err(|error| ServiceError::argument_invalid(error.to_string()));
        let change = match (plan.configuration, plan.remove) {
            (Some(configuration), None) => {
                let named: Named = serde_json::from_str(configuration.get())
                    .map_err(|error| ServiceError::argument_invalid(format!("`configuration` has no `id`: {error}")))?;
                let id = id(&named.id)?;
                let wish = ConfigurationWish::from_json(&id, configuration.get().as_bytes())?;
                Change::Put(id, Box::new(wish))
            }
            (None, Some(removed)) => Change::Remove(id(&removed)?),
            _ => {
                let text = "give `configuration`, with its `id`, or `remove` with the id of one";
                return Err(ServiceError::argument_invalid(text).into());
            }
        };
        Ok(answer::json(&self.configurations.plan(change).await?))
    }

    pub(super) async fn explain_configurations(&self, call: Call, identity: Identity) -> Result<Answer, Failure> {
        if call.method != Method::GET {
            return Err(not_allowed(&call, "GET"));
        }
        let explained: Value = self.configurations.explain(identity).await?;
        Ok(answer::json(&explained))
    }
}
