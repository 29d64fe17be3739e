//! The provisioning service of a hub: its back ends, and devices that ask it where they belong.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::hub::Hub;
use crate::sas::{Token, encode};
use crate::sdk::{Language, Sdk, Transport};
use crate::tpm::Tpm;
use crate::{need, patience};

/// What a device proves itself by.
#[derive(Clone, Debug)]
pub enum Proof<'p> {
    /// A shared key, in base64.
    Key(&'p str),
    /// A certificate with its chain, and its key: PEM files.
    Certificate(&'p Path, &'p Path),
    /// A TPM; the Python SDK knows none.
    Tpm(&'p Tpm),
}

impl Hub {
    /// What devices call the provisioning service.
    ///
    /// # Panics
    /// When the command fails.
    #[must_use]
    #[track_caller]
    pub fn id_scope(&self) -> String {
        self.told(&["hub", "id-scope"])
    }

    /// The connection string for back ends of the provisioning service.
    ///
    /// # Panics
    /// When the command fails.
    #[must_use]
    #[track_caller]
    pub fn provisioning_connection_string(&self) -> String {
        self.told(&["hub", "connection-string", "--dps"])
    }

    /// Registers a device by a key of its own enrollment, with a request for a certificate; gives what it is told, once it is
    /// assigned.
    ///
    /// # Panics
    /// When it is refused, or takes too long.
    #[must_use]
    #[track_caller]
    pub fn register_with_request(&self, id: &str, key: &str, request: &[u8]) -> Value {
        let registration = format!("{}/registrations/{id}", self.id_scope());
        let token = Token::sign(key, &encode(&registration), 3600).text();
        let ask = |method: &str, path: &str, body: &str| {
            let target = format!("/{registration}/{path}?api-version=2025-07-01-preview");
            let headers = [("Authorization", token.as_str()), ("Content-Type", "application/json")];
            let answer = self.service().send(method, &target, &headers, body.as_bytes());
            answer.expect("an answer").json()
        };
        let body = json!({ "registrationId": id, "csr": STANDARD.encode(request) });
        let begun = ask("PUT", "register", &body.to_string());
        let operation = begun["operationId"].as_str().unwrap_or_else(|| panic!("{begun}"));
        patience::wait("the registration", patience::long(), || {
            let told = ask("GET", &format!("operations/{operation}"), "");
            match told["status"].as_str() {
                Some("assigned") => Ok(told["registrationState"].clone()),
                _ => Err(told.to_string()),
            }
        })
    }

    #[track_caller]
    fn told(&self, words: &[&str]) -> String {
        let done = std::process::Command::new(need::holm())
            .args(words)
            .arg("--data")
            .arg(self.data())
            .output()
            .expect("the binary can be started");
        assert!(
            done.status.success(),
            "{words:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }
}

impl Sdk {
    /// The program of a back end of the provisioning service.
    #[must_use]
    pub fn enrollments(language: Language, hub: &Hub) -> Self {
        Self::new(language, "enrollments", hub).with_connection_string(&hub.provisioning_connection_string())
    }

    /// The program of a device that asks the provisioning service.
    #[must_use]
    pub fn provisioning(
        language: Language,
        transport: Transport,
        hub: &Hub,
        registration: &str,
        proof: &Proof<'_>,
    ) -> Self {
        let mut sdk = Self::new(language, "provisioning", hub)
            .over(transport)
            .with("HOLM_E2E_HOST", hub.host())
            .with("HOLM_E2E_ID_SCOPE", hub.id_scope())
            .with("HOLM_E2E_REGISTRATION_ID", registration);
        match proof {
            Proof::Key(key) => sdk = sdk.with("HOLM_E2E_KEY", key),
            Proof::Certificate(certificate, key) => {
                sdk = sdk
                    .with("HOLM_E2E_X509_CERTIFICATE", certificate)
                    .with("HOLM_E2E_X509_KEY", key);
            }
            Proof::Tpm(tpm) => sdk = sdk.with("HOLM_E2E_TPM", tpm.socket()),
        }
        sdk
    }
}
