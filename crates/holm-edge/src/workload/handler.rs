//! The calls of the workload API.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holm_model::ModuleId;
use holm_net::Peer;
use holm_net::http::{Handler, ResponseBody};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::caller::belongs;
use super::guard::{Guard, GuardError, Issued};
use crate::local_api::answer::{json_answer, ok};
use crate::local_api::{Call, Failure};
use crate::management::view;
use crate::runtimes::Runtimes;

/// Serves one module.
pub(super) struct Workload<G> {
    pub(super) module: ModuleId,
    pub(super) guard: Arc<G>,
    pub(super) runtimes: Runtimes,
}

#[derive(Deserialize)]
struct SignRequest {
    data: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EncryptRequest {
    plaintext: String,
    initialization_vector: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DecryptRequest {
    ciphertext: String,
    initialization_vector: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServerCertificateRequest {
    common_name: String,
}

impl<G: Guard> Handler for Workload<G> {
    async fn handle(&self, request: Request<Incoming>, peer: Peer) -> Response<ResponseBody> {
        match self.answer(request, &peer).await {
            Ok(response) => response,
            Err(failure) => {
                tracing::debug!(module = %self.module, status = %failure.status, reason = %failure, "a workload call failed");
                failure.into()
            }
        }
    }
}

impl<G: Guard> Workload<G> {
    async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Result<Response<ResponseBody>, Failure> {
        let call = Call::read(request).await?;
        match (&call.method, call.segments().as_slice()) {
            (&Method::GET, ["modules"]) => {
                let (modules, _) = self.runtimes.list().await;
                Ok(ok(&view::list(&modules, None)))
            }
            (&Method::GET, ["trust-bundle"]) => {
                let bundle = self.guard.trust_bundle().await.map_err(failure)?;
                Ok(ok(&json!({ "certificate": bundle })))
            }
            // There is none: manifests are not signed.
            (&Method::GET, ["manifest-trust-bundle"]) => Ok(ok(&json!({ "certificate": "" }))),
            (&Method::POST, ["modules", module, "genid", generation, operation]) => {
                self.check_caller(module, peer).await?;
                self.with_key(&call, generation, operation).await
            }
            (&Method::POST, ["modules", module, "genid", _, "certificate", "server"]) => {
                self.check_caller(module, peer).await?;
                let wanted: ServerCertificateRequest = call.json()?;
                let issued = self
                    .guard
                    .server_certificate(&self.module, &wanted.common_name)
                    .await
                    .map_err(failure)?;
                Ok(certificate(&issued))
            }
            (&Method::POST, ["modules", module, "certificate", "identity"]) => {
                self.check_caller(module, peer).await?;
                let issued = self.guard.identity_certificate(&self.module).await.map_err(failure)?;
                Ok(certificate(&issued))
            }
            (method, _) => Err(Failure::not_found(format!(
                "the workload API has no {method} `/{}`",
                call.path.join("/")
            ))),
        }
    }

    async fn with_key(
        &self,
        call: &Call,
        generation: &str,
        operation: &str,
    ) -> Result<Response<ResponseBody>, Failure> {
        let module = &self.module;
        match operation {
            "sign" => {
                let wanted: SignRequest = call.json()?;
                let digest = self
                    .guard
                    .sign(module, &decode("data", &wanted.data)?)
                    .await
                    .map_err(failure)?;
                Ok(ok(&json!({ "digest": STANDARD.encode(digest) })))
            }
            "encrypt" => {
                let wanted: EncryptRequest = call.json()?;
                let plaintext = decode("plaintext", &wanted.plaintext)?;
                let vector = decode("initializationVector", &wanted.initialization_vector)?;
                let made = self
                    .guard
                    .encrypt(module, generation, &plaintext, &vector)
                    .await
                    .map_err(failure)?;
                Ok(ok(&json!({ "ciphertext": STANDARD.encode(made) })))
            }
            "decrypt" => {
                let wanted: DecryptRequest = call.json()?;
                let ciphertext = decode("ciphertext", &wanted.ciphertext)?;
                let vector = decode("initializationVector", &wanted.initialization_vector)?;
                let made = self
                    .guard
                    .decrypt(module, generation, &ciphertext, &vector)
                    .await
                    .map_err(failure)?;
                Ok(ok(&json!({ "plaintext": STANDARD.encode(made) })))
            }
            other => Err(Failure::not_found(format!(
                "there is no `{other}`; there are sign, encrypt and decrypt"
            ))),
        }
    }

    /// The socket is this module's, and the caller must be too.
    async fn check_caller(&self, named: &str, peer: &Peer) -> Result<(), Failure> {
        if named != self.module.as_str() {
            tracing::warn!(module = %self.module, named, "a module asked in the name of another");
            return Err(Failure::forbidden());
        }
        let Some(caller) = peer.unix else {
            return Err(Failure::forbidden());
        };
        let processes = self.runtimes.processes(&self.module).await;
        if belongs(caller, &processes) {
            return Ok(());
        }
        tracing::warn!(module = %self.module, pid = caller.pid, "a process that is none of the module's asked in its name");
        Err(Failure::forbidden())
    }
}

fn decode(name: &str, text: &str) -> Result<Vec<u8>, Failure> {
    STANDARD
        .decode(text)
        .map_err(|_| Failure::bad_request(format!("`{name}` is not base64")))
}

fn failure(error: GuardError) -> Failure {
    let status = match error {
        GuardError::UnknownModule(_) => StatusCode::NOT_FOUND,
        GuardError::Invalid(_) => StatusCode::BAD_REQUEST,
        GuardError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Failure::new(status, error.to_string())
}

fn certificate(issued: &Issued) -> Response<ResponseBody> {
    let value: Value = json!({
        "privateKey": { "type": "key", "bytes": issued.private_key_pem },
        "certificate": issued.certificate_pem,
        "expiration": issued.expiration,
    });
    json_answer(StatusCode::CREATED, &value)
}
