//! The calls of the management API.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use holm_model::ModuleId;
use holm_net::http::{Handler, ResponseBody};
use holm_net::{Peer, Scope};
use holm_runtime::{ModuleState, RuntimeError, RuntimeKind};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Managed, NotReprovisioned, Wish, dead_letters, logs, system, view};
use crate::agent::overview::is_built_in;
use crate::local_api::answer::{no_content, ok};
use crate::local_api::{Call, Failure};

pub(super) struct Management {
    pub(super) managed: Managed,
    pub(super) scope: Scope,
    pub(super) silent: Silent,
}

/// Which runtimes could not list their modules at the last call, and why: told when it changes, not for each that looks.
#[derive(Debug, Default)]
pub(super) struct Silent(Mutex<BTreeMap<RuntimeKind, String>>);

impl Silent {
    /// Gives those of which it was told now.
    fn tell(&self, silent: &[(RuntimeKind, RuntimeError)]) -> Vec<RuntimeKind> {
        let now: BTreeMap<_, _> = silent.iter().map(|(kind, error)| (*kind, error.chain())).collect();
        // One assignment, so a panic elsewhere leaves it whole.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let news = now.iter().filter(|(kind, error)| known.get(kind) != Some(error));
        let news: Vec<_> = news.map(|(kind, _)| *kind).collect();
        for kind in &news {
            let error = now.get(kind).map(String::as_str).unwrap_or_default();
            tracing::warn!(%kind, error, "a runtime can't list its modules");
        }
        for kind in known.keys().filter(|kind| !now.contains_key(kind)) {
            tracing::info!(%kind, "a runtime lists its modules again");
        }
        *known = now;
        news
    }
}

impl Handler for Management {
    async fn handle(&self, request: Request<Incoming>, _peer: Peer) -> Response<ResponseBody> {
        match self.answer(request).await {
            Ok(response) => response,
            Err(failure) => {
                tracing::debug!(status = %failure.status, reason = %failure, "a management call failed");
                failure.into()
            }
        }
    }
}

impl Management {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<ResponseBody>, Failure> {
        let call = Call::read(request).await?;
        match (&call.method, call.segments().as_slice()) {
            (&Method::GET, ["modules"]) => {
                let (modules, silent) = self.managed.runtimes.list().await;
                self.silent.tell(&silent);
                Ok(ok(&view::list(&modules, Some(&self.managed.agent.overview()))))
            }
            (&Method::GET, ["modules", name]) => Ok(ok(&self.module(name).await?)),
            (&Method::GET, ["modules", name, "logs"]) if is_built_in(name) => {
                logs::of_edge(&self.scope, &self.managed.own_log, &call)
            }
            (&Method::POST, ["modules", name, "start"]) if is_built_in(name) => Ok(no_content()),
            (&Method::POST, ["modules", name, "stop" | "restart"]) if is_built_in(name) => {
                let text = format!(
                    "`{name}` is part of the edge itself; `holm edge system restart` restarts that, and no module is touched"
                );
                Err(Failure::new(StatusCode::CONFLICT, text))
            }
            (&Method::GET, ["modules", name, "logs"]) => {
                let (runtime, state) = self.find(name).await?;
                logs::answer(&self.scope, runtime.as_ref(), &state.id, &call).await
            }
            (&Method::POST, ["modules", name, operation @ ("start" | "stop" | "restart")]) => {
                self.operate(name, operation).await
            }
            (&Method::GET, ["identities"]) => Ok(ok(&self.identities())),
            (&Method::GET, ["systeminfo"]) => Ok(ok(&system::info())),
            (&Method::GET, ["systeminfo", "resources"]) => match self.managed.usage.resources().await {
                Some(resources) => Ok(ok(&resources)),
                None => Err(Failure::internal(
                    "what the device uses could not be measured in time; try again",
                )),
            },
            (&Method::GET, ["systeminfo", "supportbundle"]) => logs::bundle(&self.scope, &self.managed.agent, &call),
            (&Method::POST, ["device", "reprovision"]) => self.reprovision().await,
            (&Method::GET, ["holm", "v1", "status"]) => Ok(ok(&(self.managed.status)())),
            (_, ["holm", "v1", "dead-letters", rest @ ..]) => {
                dead_letters::answer(&self.managed.broker, &call, rest).await
            }
            (&Method::GET, ["holm", "v1", "plan"]) => Ok(ok(&self.managed.agent.plan())),
            (&Method::POST, ["holm", "v1", "retry"]) => self.retry().await,
            (&Method::POST, ["holm", "v1", "upgrade"]) => self.upgrade().await,
            (&Method::POST, ["modules" | "identities"] | ["modules", _, "prepareupdate"])
            | (&Method::PUT | &Method::DELETE, ["modules" | "identities", _]) => {
                let text =
                    "forbidden: modules of this device come and go with its deployment; use `holm deploy` at the hub";
                Err(Failure::new(StatusCode::FORBIDDEN, text))
            }
            (method, _) => Err(Failure::not_found(format!(
                "the management API has no {method} `/{}`",
                call.path.join("/")
            ))),
        }
    }

    async fn find(
        &self,
        name: &str,
    ) -> Result<(std::sync::Arc<dyn holm_runtime::ModuleRuntime>, ModuleState), Failure> {
        let module = ModuleId::new(name).map_err(|error| Failure::bad_request(error.to_string()))?;
        let found = self.managed.runtimes.find(&module).await;
        found.map_err(|error| match self.managed.agent.overview().deployed.get(&module) {
            // A runtime that can't tell is no reason to believe that it has what nobody ever deployed.
            None => Failure::not_found(format!(
                "there is no module `{module}`; `holm edge list` shows those that are"
            )),
            Some(known) if matches!(error, RuntimeError::NotFound(_)) => {
                let why = known.reason.as_deref().unwrap_or("it is not there yet");
                Failure::not_found(format!("nothing of the module `{module}` is there: {why}"))
            }
            Some(_) => failure(&error),
        })
    }

    async fn module(&self, name: &str) -> Result<Value, Failure> {
        let overview = self.managed.agent.overview();
        if let Some(known) = overview.built_in.get(name) {
            return Ok(view::built_in(name, known, overview.started_at));
        }
        let id = ModuleId::new(name).map_err(|error| Failure::bad_request(error.to_string()))?;
        let known = overview.deployed.get(&id);
        match (self.find(name).await, known) {
            (Ok((_, state)), _) => Ok(view::module(&state, known)),
            (Err(_), Some(known)) => Ok(view::absent(&id, known)),
            (Err(failure), None) => Err(failure),
        }
    }

    async fn operate(&self, name: &str, operation: &str) -> Result<Response<ResponseBody>, Failure> {
        let (runtime, state) = self.find(name).await?;
        tracing::info!(module = %state.id, operation, "asked by an operator");
        if operation != "start" {
            runtime.stop(&state.id, None).await.map_err(|error| failure(&error))?;
        }
        if operation != "stop" {
            runtime.start(&state.id).await.map_err(|error| failure(&error))?;
        }
        Ok(no_content())
    }

    async fn retry(&self) -> Result<Response<ResponseBody>, Failure> {
        tracing::info!("an operator wants the deployment that was taken back to be tried again");
        if self.managed.agent.retry().await {
            return Ok(no_content());
        }
        let text = "no deployment was taken back, so there is none to try again; `holm edge plan` shows how it stands";
        Err(Failure::new(StatusCode::CONFLICT, text))
    }

    async fn upgrade(&self) -> Result<Response<ResponseBody>, Failure> {
        tracing::info!("an operator wants the program that is in this one's place to go on");
        let (answer, answered) = oneshot::channel();
        if self.managed.wishing.try_send(Wish::Upgrade(answer)).is_err() {
            let text = "an upgrade is under way; ask again when it has ended";
            return Err(Failure::new(StatusCode::CONFLICT, text));
        }
        match answered.await {
            Ok(Ok(build)) => Ok(ok(&json!({ "build": build }))),
            Ok(Err(reason)) => Err(Failure::new(StatusCode::CONFLICT, reason)),
            Err(_) => Err(Failure::internal("the edge is stopping")),
        }
    }

    async fn reprovision(&self) -> Result<Response<ResponseBody>, Failure> {
        tracing::info!("an operator wants the provisioning service to be asked where this device belongs");
        let (answer, answered) = oneshot::channel();
        if self.managed.wishing.try_send(Wish::Reprovision(answer)).is_err() {
            let text = "something else is under way; ask again when it has ended";
            return Err(Failure::new(StatusCode::CONFLICT, text));
        }
        match answered.await {
            Ok(Ok(())) => Ok(no_content()),
            Ok(Err(by_hand @ NotReprovisioned::ByHand)) => {
                Err(Failure::new(StatusCode::NOT_IMPLEMENTED, by_hand.to_string()))
            }
            Ok(Err(not_told @ NotReprovisioned::NotTold(_))) => Err(Failure::internal(not_told.to_string())),
            Err(_) => Err(Failure::internal("the edge is stopping")),
        }
    }

    fn identities(&self) -> Value {
        let keys = &self.managed.keys;
        let identities: Vec<_> = keys
            .modules()
            .into_iter()
            .map(|module| {
                json!({
                    "moduleId": module,
                    "managedBy": "iotedge",
                    "generationId": keys.generation(&module),
                    "authType": "sas",
                })
            })
            .collect();
        json!({ "identities": identities })
    }
}

fn failure(error: &RuntimeError) -> Failure {
    let status = match error {
        RuntimeError::NotFound(_) => StatusCode::NOT_FOUND,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Failure::new(status, error.chain())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_runtime_that_stays_silent_is_told_of_once_and_again_for_another_reason() {
        let silent = Silent::default();
        let after = |seconds| {
            let (operation, after) = ("list".to_owned(), Duration::from_secs(seconds));
            [(RuntimeKind::Docker, RuntimeError::Timeout { operation, after })]
        };

        let told = [
            silent.tell(&after(5)).len(),
            silent.tell(&after(5)).len(),
            silent.tell(&after(9)).len(),
            silent.tell(&[]).len(),
            silent.tell(&after(9)).len(),
        ];

        assert_eq!(told, [1, 0, 1, 0, 1]);
    }
}
