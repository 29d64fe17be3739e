//! Where the edge belongs, if it asks the provisioning service and nobody has written it down.
//!
//! ```text
//! start   remembered, and not to ask each time: that     else ask until it is told; what is remembered does while nobody answers
//! runs    the hub refuses the device, or an operator wants it: ask; told something else: remember it, and begin anew with it
//! ```
//!
//! - What is remembered counts for the same id scope, registration id and service only.
//! - The edge starts without the service when it has ever been told: offline is normal.
//! - The key, or the certificate, is the device's at the hub too, so nothing secret is written.
//!
//! Source: `edge-agent.md` §6.1, §6.5.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holm_client::{Assignment, RegisterError, Registrar};
use holm_identity::private_file::{self, PrivateFileError};
use holm_model::wire::provisioning::Registrant;
use holm_model::{DeviceId, Identity, ModuleId};
use holm_net::http::Client;
use holm_net::{Clock, error_chain};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::config::{Again, Dps, EdgeConfig};
use crate::security::{self, Held, SecurityError};
use crate::uplink::{Refusals, Refused};

/// The file that remembers, in the data directory.
const FILE: &str = "provisioned.json";
/// The version of the file.
const VERSION: u64 = 1;
/// The most bytes of the file, and of a payload.
const MAX_BYTES: u64 = 96 * 1024;
/// The pauses between attempts: they grow to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How often the service is asked at most because the hub refuses.
const ASK_AT_MOST: Duration = Duration::from_secs(30);

/// Why the edge can't ask, or could not be told.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// The key or the roots can't be used.
    #[error("the provisioning service can't be asked")]
    Security(#[source] SecurityError),
    /// The payload can't be read.
    #[error("`provisioning.payload.uri` can't be read")]
    Payload(#[source] PrivateFileError),
    /// The payload is something else.
    #[error("`provisioning.payload.uri` names a file that is not JSON")]
    PayloadForm(#[source] serde_json::Error),
    /// It was not told.
    #[error("the provisioning service does not say where this device belongs")]
    Register(#[source] RegisterError),
    /// What it was told can't be written down.
    #[error("where this device belongs can't be written down")]
    Remember(#[source] PrivateFileError),
}

/// Somebody who wants the service to be asked now, and hears whether it has answered; if not, why.
pub type Asked = oneshot::Sender<Result<(), String>>;

/// Asks for this edge, and remembers.
#[derive(Debug)]
pub struct Provisioner {
    registrar: Registrar,
    payload: Option<Value>,
    dps: Dps,
    file: PathBuf,
}

impl Provisioner {
    /// For an edge whose configuration says so; `None` where the hub stands there.
    ///
    /// # Errors
    /// [`ProvisionError::Security`], [`ProvisionError::Payload`], [`ProvisionError::PayloadForm`].
    pub fn of(config: &EdgeConfig, clock: Clock) -> Result<Option<Self>, ProvisionError> {
        let Some(dps) = config.dps.clone() else {
            return Ok(None);
        };
        let held = security::read_device_proof(&config.proof).map_err(ProvisionError::Security)?;
        let tls = security::device_tls_of(config, &held).map_err(ProvisionError::Security)?;
        let key = match held {
            Held::Key(key) => Some(key),
            Held::Certificate(_) => None,
        };
        let registrant = Registrant {
            id_scope: dps.id_scope.clone(),
            registration_id: dps.registration.as_str().to_owned(),
        };
        let client = Client::new(Arc::new(tls), &dps.host, dps.port);
        Ok(Some(Self {
            registrar: Registrar::new(client, registrant, key, clock),
            payload: dps.payload.as_deref().map(payload).transpose()?,
            file: config.data.join(FILE),
            dps,
        }))
    }

    /// The configuration with what the service has told, once it has: at once if that is remembered.
    ///
    /// # Errors
    /// [`ProvisionError::Remember`]. Where nobody answers, or the service refuses, it goes on asking.
    pub async fn settle(&self, config: EdgeConfig) -> Result<EdgeConfig, ProvisionError> {
        let remembered = self.remembered();
        if let (Again::WhenRefused | Again::OnError, Some(known)) = (self.dps.again, &remembered) {
            return Ok(config.assigned(known));
        }
        let mut pause = FIRST_PAUSE;
        loop {
            match (self.ask().await, &remembered) {
                (Ok(told), _) => return Ok(config.assigned(&told)),
                (Err(error @ ProvisionError::Remember(_)), _) => return Err(error),
                (Err(error), Some(known)) => {
                    tracing::warn!(error = %error_chain(&error), hub = known.hub, "the edge goes on as what it was told the last time");
                    return Ok(config.assigned(known));
                }
                (Err(error), None) => {
                    let again_in = pause.as_secs();
                    tracing::warn!(error = %error_chain(&error), again_in, "the edge waits until it is told where it belongs");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits until the service tells something else than `config` says. It is asked when the hub refuses the device, and for
    /// everybody in `asked`. Cancel-safe but for an answer that is on its way.
    pub async fn told_otherwise(&self, config: &EdgeConfig, refusals: &Refusals, mut asked: mpsc::Receiver<Asked>) {
        let mut attempts = refusals.attempts();
        let mut not_before = Instant::now();
        loop {
            let answer = tokio::select! {
                Some(answer) = asked.recv() => Some(answer),
                () = self.refused(config, refusals, &mut attempts, not_before) => None,
            };
            not_before = Instant::now() + ASK_AT_MOST;
            let told = self.ask().await;
            if let Some(answer) = answer {
                let heard = answer.send(told.as_ref().map(drop).map_err(|error| error_chain(error)));
                if heard.is_err() {
                    tracing::debug!("who wanted the service to be asked did not wait for the answer");
                }
            }
            match told {
                Ok(told) if told.hub == config.hub.host && told.device == config.device => {
                    tracing::info!("the provisioning service says the same; the edge goes on with its hub");
                }
                Ok(told) => {
                    tracing::info!(hub = told.hub, device = %told.device, "the edge belongs elsewhere now");
                    return;
                }
                Err(error) => {
                    tracing::warn!(error = %error_chain(&error), "nobody says where this device belongs");
                }
            }
        }
    }

    /// Waits until the hub refuses the device, and at least until a moment.
    async fn refused(
        &self,
        config: &EdgeConfig,
        refusals: &Refusals,
        attempts: &mut watch::Receiver<u64>,
        not_before: Instant,
    ) {
        tokio::time::sleep_until(not_before).await;
        // Where the hub knows the device it takes its agent, whose key the edge keeps right by itself.
        let agent = Identity::of_module(config.device.clone(), ModuleId::edge_agent()).to_string();
        let device = Identity::of_device(config.device.clone()).to_string();
        loop {
            if attempts.changed().await.is_err() {
                return std::future::pending().await;
            }
            let is_asked_for = self.dps.again != Again::OnError || !refusals.was_let_in();
            let is_device = |refused: &Refused| refused.identity == agent || refused.identity == device;
            if is_asked_for && refusals.list().iter().any(is_device) {
                return;
            }
        }
    }

    /// Asks once, and remembers the answer.
    async fn ask(&self) -> Result<Assignment, ProvisionError> {
        let told = self.registrar.register(self.payload.as_ref()).await;
        let told = told.map_err(ProvisionError::Register)?;
        let document = json!({
            "version": VERSION,
            "service": self.dps.host,
            "idScope": self.dps.id_scope,
            "registrationId": self.dps.registration.key(),
            "hub": told.hub,
            "device": told.device,
        });
        if let Some(directory) = self.file.parent() {
            private_file::ensure_directory(directory).map_err(ProvisionError::Remember)?;
        }
        private_file::write_public(&self.file, document.to_string().as_bytes()).map_err(ProvisionError::Remember)?;
        tracing::info!(hub = told.hub, device = %told.device, "the provisioning service has told where this device belongs");
        Ok(told)
    }

    fn remembered(&self) -> Option<Assignment> {
        remembered(&self.dps, &self.file)
    }
}

/// What an edge of this configuration was told the last time, if it asks the provisioning service.
pub(crate) fn recall(config: EdgeConfig) -> EdgeConfig {
    let known = config
        .dps
        .as_ref()
        .and_then(|dps| remembered(dps, &config.data.join(FILE)));
    match known {
        Some(known) => config.assigned(&known),
        None => config,
    }
}

/// What was told, if it was told by this service to this device. What can't be read is asked anew.
fn remembered(dps: &Dps, file: &std::path::Path) -> Option<Assignment> {
    let bytes = private_file::read_public(file, MAX_BYTES).ok()?;
    let document: Value = serde_json::from_slice(&bytes).ok()?;
    let text = |name: &str| document[name].as_str();
    let is_ours = document["version"] == VERSION
        && text("service") == Some(&dps.host)
        && text("idScope") == Some(&dps.id_scope)
        && text("registrationId") == Some(dps.registration.key());
    is_ours.then_some(Assignment {
        hub: text("hub")?.to_owned(),
        device: DeviceId::new(text("device")?).ok()?,
        payload: None,
    })
}

fn payload(file: &std::path::Path) -> Result<Value, ProvisionError> {
    let bytes = private_file::read_public(file, MAX_BYTES).map_err(ProvisionError::Payload)?;
    serde_json::from_slice(&bytes).map_err(ProvisionError::PayloadForm)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(data: &std::path::Path, scope: &str) -> EdgeConfig {
        let text = format!(
            "hostname = \"e\"\n[provisioning]\nsource = \"dps\"\nglobal_endpoint = \"https://dps.test:8443\"\nid_scope = \"{scope}\"\n\
             [provisioning.attestation]\nmethod = \"symmetric_key\"\nregistration_id = \"Box-1\"\n\
             symmetric_key = {{ value = \"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\" }}\n[holm]\ndata = \"{}\"\n",
            data.display()
        );
        EdgeConfig::parse(&text).unwrap().config
    }

    #[test]
    fn what_was_told_counts_for_the_same_service_and_device_only() {
        let data = tempfile::tempdir().unwrap();
        let document = json!({ "version": 1, "service": "dps.test", "idScope": "0ne1", "registrationId": "box-1",
            "hub": "hub.test", "device": "dev1" });
        std::fs::write(data.path().join(FILE), document.to_string()).unwrap();

        let same = recall(config(data.path(), "0ne1"));
        let other = recall(config(data.path(), "0ne2"));

        assert_eq!((same.hub.host.as_str(), same.device.as_str()), ("hub.test", "dev1"));
        assert_eq!((other.hub.host.as_str(), other.device.as_str()), ("dps.test", "Box-1"));
        assert_eq!(same.dps.as_ref().map(|dps| dps.port), Some(8443));
        for damaged in ["", "{", "{\"version\": 2}"] {
            std::fs::write(data.path().join(FILE), damaged).unwrap();
            assert_eq!(recall(config(data.path(), "0ne1")).hub.host, "dps.test", "{damaged}");
        }
    }
}
