//! The configurations of a hub in an export or import: a blob of their own beside that of the devices, an object a line.
//!
//! ```text
//! export   configurations, the oldest first -> configurations.txt, each as GET shows it and with its `importMode`
//! import   configurations.txt -> made where it is not there, changed where its etag is that of the one here
//! ```
//!
//! - What is there as it shall be is left alone: so a line that is carried out again, since a kill has come between, changes nothing.
//! - Of two of one priority the newer wins, and the lines are in the order of age: which one wins is the same at the other hub.
//!
//! Source: `hub-service-api.md` §2.6. The published import mode is the only one of configurations, so it is written and not read.

use bytes::Bytes;
use holm_model::configuration::{ConfigurationId, ConfigurationWish};
use holm_model::{ErrorCode, ServiceError};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::import::Lines;
use super::{Order, Stop, Transfers};
use crate::configurations::Measured;
use crate::storage::Transfer;

/// The longest line: the largest configuration, with its figures.
const MAX_LINE: usize = 8 * 1024 * 1024;

/// What of a line is read beside the configuration itself.
#[derive(Deserialize)]
struct Named {
    id: String,
    etag: Option<String>,
}

impl Transfers {
    pub(super) async fn export_configurations(&self, order: &Order, blob: &str) -> Result<(), Stop> {
        let mut all = self.configurations.list(None).await?;
        all.sort_by_key(|it| it.configuration.created());
        let (pieces, body) = mpsc::channel(1);
        let stored = self.blobs.store(&order.output_container, blob, body);
        let sending = async move {
            for line in all.iter().map(line) {
                // A store that takes no more tells why itself.
                if pieces.send(Ok(line)).await.is_err() {
                    return;
                }
            }
        };
        let ((), stored) = tokio::join!(sending, stored);
        stored.map_err(|fault| Stop::Failed(format!("`{blob}` can't be written: {fault}")))
    }

    pub(super) async fn import_configurations(
        &self,
        transfer: &Transfer,
        container: &str,
        blob: &str,
    ) -> Result<(), Stop> {
        let Some((_, body)) = self.blobs.open_from(container, blob, 0).await? else {
            return Err(Stop::Failed(format!(
                "there is no blob `{blob}` in the container `{container}`; store it, or leave out `includeConfigurations`"
            )));
        };
        let mut lines = Lines::new(body, 0, MAX_LINE);
        // Lines are numbered on, so that no error takes the place of another.
        let mut number = transfer.lines;
        while let Some(line) = lines.next_line().await? {
            if self.get(transfer.id.clone()).await?.ended.is_some() {
                return Err(Stop::Cancelled);
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            number += 1;
            match self.import_configuration(&line).await {
                Ok(()) => {}
                Err((_, error)) if error.code.status() >= 500 => return Err(Stop::Later(error)),
                Err((id, error)) => {
                    let (of, told) = (transfer.id.clone(), told(number, &id, &error));
                    self.repository
                        .change(move |transaction| transaction.add_transfer_error(&of, number, &told))
                        .await?;
                }
            }
        }
        Ok(())
    }

    /// Carries out one line; an error comes with the id that the line names.
    async fn import_configuration(&self, line: &[u8]) -> Result<(), (String, ServiceError)> {
        let named: Named = serde_json::from_slice(line).map_err(|error| {
            let text = format!("the line is no configuration with an `id`: {error}");
            (String::new(), ServiceError::new(ErrorCode::DeserializationError, text))
        })?;
        let of_it = |error: ServiceError| (named.id.clone(), error);
        let id = ConfigurationId::new(&named.id)
            .map_err(|error| of_it(ServiceError::argument_invalid(error.to_string())))?;
        let wish = ConfigurationWish::from_json(&id, line).map_err(of_it)?;
        let if_match = match self.configurations.get(id.clone()).await {
            Ok(current) if is_as_wished(&current, &wish) => return Ok(()),
            Ok(_) => Some(named.etag.clone().unwrap_or_else(|| "*".to_owned())),
            Err(error) if error.code == ErrorCode::ConfigurationNotFound => None,
            Err(error) => return Err(of_it(error)),
        };
        let put = self.configurations.put(id, wish, if_match).await;
        put.map(drop).map_err(of_it)
    }
}

fn line(measured: &Measured) -> Bytes {
    let mut document = measured.to_json();
    document["importMode"] = json!("createOrUpdateIfMatchETag");
    (document.to_string() + "\n").into()
}

fn is_as_wished(current: &Measured, wish: &ConfigurationWish) -> bool {
    let current = &current.configuration;
    let wished = current.changed(wish.clone(), current.updated(), current.etag_number());
    wished.is_ok_and(|wished| wished == *current)
}

/// A line of the file of errors.
fn told(line: u64, id: &str, error: &ServiceError) -> String {
    let document: Value = json!({
        "configurationId": id,
        "errorCode": error.code.name(),
        "errorStatus": error.message,
        "line": line,
    });
    document.to_string()
}
