//! What operators say an endpoint is.
//!
//! ```text
//! {"name": "hot", "kind": "webhook", "deadLetter": "cold",           common to all kinds
//!  "maxWaitingSeconds": 604800, "maxWaitingBytes": 1073741824,
//!  "url": "https://example.com/in", "token": "…", …}                 settings of the kind
//! ```
//!
//! Secrets are written and never read: an answer names those that are set in `secrets`. Who changes an endpoint may leave a secret
//! out, and it stays, as long as messages go where they went; for another destination it must be given anew, so that nobody is
//! shown a secret by being made the destination.

mod file;
mod members;
mod mqtt;
mod name;
mod nats;
mod server;
mod settings;

use std::time::Duration;

use holm_identity::Secret;
use serde_json::{Map, Value, json};

pub use file::{FileFormat, FileSettings};
pub use members::{DefinitionError, Members};
pub use mqtt::{MqttProperties, MqttSettings};
pub use name::EndpointName;
pub use nats::NatsSettings;
pub use server::{BrokerSettings, ServerSettings};
pub use settings::{Settings, WebhookSettings};

/// Whether a document has its secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// As it is stored.
    Written,
    /// As it is told: only which are set.
    Named,
}

/// An endpoint, as operators define it.
#[derive(Clone, Debug)]
pub struct EndpointDefinition {
    /// What routes call it.
    pub name: EndpointName,
    /// Where messages go that it can never take; `None`: they are dropped, and counted.
    pub dead_letter: Option<EndpointName>,
    /// The longest that a message waits for it; then it is dropped, and counted.
    pub max_waiting: Duration,
    /// The most bytes that wait for it; the oldest are dropped, and counted.
    pub max_waiting_bytes: u64,
    /// What it is.
    pub settings: Settings,
}

impl EndpointDefinition {
    /// How long messages wait if nothing is said: a day, as in the event log.
    pub const MAX_WAITING: Duration = Duration::from_secs(24 * 3600);
    /// How many bytes wait if nothing is said.
    pub const MAX_WAITING_BYTES: u64 = 1 << 30;

    /// Reads a definition. `name` is that of the path; a document may repeat it.
    ///
    /// # Errors
    /// [`DefinitionError`] with the member.
    pub fn read(name: EndpointName, document: Map<String, Value>) -> Result<Self, DefinitionError> {
        let mut members = Members::new(document);
        members.ignore("etag");
        members.ignore("secrets");
        if let Some(given) = members.text("name", EndpointName::LONGEST)?
            && given != name.as_str()
        {
            return Err(DefinitionError::new(
                "name",
                format!("is `{given}`, but the path says `{name}`"),
            ));
        }
        let dead_letter = members.text("deadLetter", EndpointName::LONGEST)?;
        let dead_letter = dead_letter.map(|text| text.parse::<EndpointName>()).transpose();
        let dead_letter = dead_letter.map_err(|error| DefinitionError::new("deadLetter", error.to_string()))?;
        if dead_letter.as_ref() == Some(&name) {
            return Err(DefinitionError::new(
                "deadLetter",
                "is the endpoint itself; name another one",
            ));
        }
        let max_waiting = members.seconds("maxWaitingSeconds", 60..=30 * 86_400)?;
        let max_waiting_bytes = members.number("maxWaitingBytes", 1 << 20..=1 << 44)?;
        let settings = Settings::read(&mut members)?;
        members.finish()?;
        Ok(Self {
            name,
            dead_letter,
            max_waiting: max_waiting.unwrap_or(Self::MAX_WAITING),
            max_waiting_bytes: max_waiting_bytes.unwrap_or(Self::MAX_WAITING_BYTES),
            settings,
        })
    }

    /// The definition as a document that [`EndpointDefinition::read`] reads.
    #[must_use]
    pub fn write(&self, secrets: Secrets) -> Map<String, Value> {
        let mut document = Map::new();
        document.insert("name".to_owned(), json!(self.name.as_str()));
        document.insert("kind".to_owned(), json!(self.settings.kind()));
        if let Some(dead_letter) = &self.dead_letter {
            document.insert("deadLetter".to_owned(), json!(dead_letter.as_str()));
        }
        document.insert("maxWaitingSeconds".to_owned(), json!(self.max_waiting.as_secs()));
        document.insert("maxWaitingBytes".to_owned(), json!(self.max_waiting_bytes));
        self.settings.write(&mut document);
        let set = self.settings.secrets();
        match secrets {
            Secrets::Written => {
                for (name, secret) in set {
                    document.insert(name.to_owned(), json!(secret.expose()));
                }
            }
            Secrets::Named => {
                let names: Vec<_> = set.into_iter().map(|(name, _)| name).collect();
                if !names.is_empty() {
                    document.insert("secrets".to_owned(), json!(names));
                }
            }
        }
        document
    }

    /// Puts the secrets of the old definition into a document that leaves them out, where messages go on going to the same place.
    /// A secret that the document has as null is removed.
    ///
    /// # Errors
    /// When they go somewhere else: the secrets are to be given again, or as null.
    pub fn keep_secrets(&self, document: &mut Map<String, Value>) -> Result<(), DefinitionError> {
        let missing: Vec<(&str, &Secret)> = self.settings.secrets();
        let missing = missing.into_iter().filter(|(name, _)| !document.contains_key(*name));
        let missing: Vec<(String, String)> = missing
            .map(|(name, secret)| (name.to_owned(), secret.expose().to_owned()))
            .collect();
        let Some((first, _)) = missing.first() else {
            return Ok(());
        };
        let mut with_secrets = document.clone();
        with_secrets.extend(missing.iter().map(|(name, secret)| (name.clone(), json!(secret))));
        let new = Self::read(self.name.clone(), with_secrets.clone());
        if let Ok(new) = &new
            && new.settings.destination() != self.settings.destination()
        {
            let text = "must be given again, or as null: messages are to go to another destination than before";
            return Err(DefinitionError::new(first.clone(), text));
        }
        if new.is_ok() {
            *document = with_secrets;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(document: Value) -> Result<EndpointDefinition, DefinitionError> {
        EndpointDefinition::read("hot".parse().unwrap(), document.as_object().unwrap().clone())
    }

    #[test]
    fn a_definition_is_read_as_it_was_written() {
        for document in [
            json!({ "kind": "webhook", "url": "https://example.com/in", "token": "t", "hmacKey": "k", "perMessage": true,
                    "headers": { "X-Site": "a" }, "timeoutSeconds": 7, "deadLetter": "cold", "maxWaitingSeconds": 60 }),
            json!({ "kind": "mqtt", "url": "mqtts://broker.test:8884", "topic": "in/{device}", "password": "p", "user": "u" }),
            json!({ "kind": "nats", "url": "nats://nats.test", "subject": "in.{device}", "token": "t" }),
            json!({ "kind": "file", "folder": "cold", "format": "parquet" }),
        ] {
            let first = read(document).unwrap();
            let stored = first.write(Secrets::Written);
            let second = read(Value::Object(stored.clone())).unwrap();

            assert_eq!(second.write(Secrets::Written), stored);
        }
    }

    #[test]
    fn an_answer_names_the_secrets_that_are_set_and_tells_none() {
        let endpoint = read(json!({ "kind": "webhook", "url": "https://example.com/in", "token": "hunter2" })).unwrap();

        let told = endpoint.write(Secrets::Named);

        assert_eq!(told["secrets"], json!(["token"]));
        assert!(!Value::Object(told).to_string().contains("hunter2"));
        assert!(!format!("{endpoint:?}").contains("hunter2"));
    }

    #[test]
    fn a_secret_stays_for_the_same_destination_and_must_be_given_again_for_another() {
        let old = read(json!({ "kind": "webhook", "url": "https://example.com/in", "token": "hunter2" })).unwrap();
        let keep = |document: Value| {
            let mut document = document.as_object().unwrap().clone();
            old.keep_secrets(&mut document).map(|()| document.remove("token"))
        };

        let same = json!({ "kind": "webhook", "url": "https://example.com/in", "timeoutSeconds": 9 });
        assert_eq!(keep(same), Ok(Some(json!("hunter2"))));
        let other = json!({ "kind": "webhook", "url": "https://elsewhere.test/in" });
        assert_eq!(keep(other).unwrap_err().member, "token");
        let without = json!({ "kind": "webhook", "url": "https://elsewhere.test/in", "token": null });
        assert_eq!(keep(without), Ok(Some(Value::Null)));
    }

    #[test]
    fn what_can_not_be_used_is_named() {
        for (document, member) in [
            (json!({ "kind": "fax" }), "kind"),
            (json!({}), "kind"),
            (json!({ "kind": "webhook" }), "url"),
            (json!({ "kind": "webhook", "url": "ftp://x" }), "url"),
            (json!({ "kind": "webhook", "url": "https://u:p@x/" }), "url"),
            (json!({ "kind": "webhook", "url": "https://x/", "topic": "t" }), "topic"),
            (
                json!({ "kind": "webhook", "url": "https://x/", "headers": { "a b": "c" } }),
                "headers",
            ),
            (
                json!({ "kind": "webhook", "url": "https://x/", "name": "cold" }),
                "name",
            ),
            (
                json!({ "kind": "webhook", "url": "https://x/", "deadLetter": "hot" }),
                "deadLetter",
            ),
            (
                json!({ "kind": "webhook", "url": "https://x/", "maxWaitingSeconds": 5 }),
                "maxWaitingSeconds",
            ),
            (json!({ "kind": "file", "folder": "../up" }), "folder"),
            (json!({ "kind": "file", "folder": "/etc" }), "folder"),
        ] {
            assert_eq!(read(document.clone()).unwrap_err().member, member, "{document}");
        }
    }
}
