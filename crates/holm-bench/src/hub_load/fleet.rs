//! Devices of a hub, all with one key.

use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Result;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use holm_identity::sas::resource_uri;
use holm_identity::{Roots, SasToken, SymmetricKey};
use holm_model::{Identity, Timestamp};
use rustls::ClientConfig;

use crate::brokers::hub::Hub;

/// The key of every device.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// The host name of the hub.
const HOST: &str = "127.0.0.1";
/// Registrations that are on their way at once.
const TOGETHER: usize = 16;
/// How long a token is good: longer than any run.
const TOKEN_SECONDS: i64 = 24 * 3600;

/// Devices that are registered.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) count: usize,
    pub(super) tls: Arc<ClientConfig>,
    key: SymmetricKey,
}

impl Fleet {
    pub(super) async fn register(hub: &Hub, count: usize) -> Result<Self> {
        let registrations = (0..count).map(|number| async move { hub.admit_device(&name(number), KEY).await });
        stream::iter(registrations)
            .buffer_unordered(TOGETHER)
            .try_collect::<()>()
            .await?;
        let tls = holm_identity::tls::client_config(Roots::none().with_file(&hub.ca_path())?, None)?;
        Ok(Self {
            count,
            tls: Arc::new(tls),
            key: SymmetricKey::from_base64(KEY)?,
        })
    }

    /// A token of a device.
    pub(super) fn token(&self, number: usize) -> Result<String> {
        let identity: Identity = name(number).parse()?;
        let end = Timestamp::from(SystemTime::now()).unix_seconds() + TOKEN_SECONDS;
        let token = SasToken::sign(&resource_uri(HOST, &identity), end, None, &self.key);
        Ok(token.to_text().expose().to_owned())
    }

    /// The user name of a device over MQTT.
    pub(super) fn user_name(number: usize) -> String {
        format!("{HOST}/{}/?api-version=2021-04-12", name(number))
    }
}

/// The id of a device.
pub(super) fn name(number: usize) -> String {
    format!("device-{number}")
}
