//! A device reads its twin, reports what it is, and follows what it should be.
//!
//! `HOLM_DEVICE='HostName=…;DeviceId=…;SharedAccessKey=…' SSL_CERT_FILE=ca.pem cargo run -p holm-client --example twin`

use holm_client::{Client, Event, Interests};
use holm_net::Scope;
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scope = Scope::new();
    let mut options = holm_client::device::from_environment("HOLM_DEVICE")?;
    options.interests = Interests {
        desired_properties: true,
        ..Interests::default()
    };
    let (client, mut events) = Client::start(&scope, options);
    while let Some(event) = events.next().await {
        match event {
            // After each reconnect: what changed meanwhile was not told.
            Event::Connected => {
                let twin = client.twin().await?;
                let version = client.patch_reported(json!({ "firmware": "1.4" })).await?;
                tracing::info!(%twin, version, "connected");
            }
            Event::DesiredChanged(patch) => tracing::info!(%patch, "changed"),
            Event::Disconnected(reason) => tracing::info!(reason, "the link is down; the client comes back by itself"),
            Event::Method(_) | Event::Message(_) => {}
        }
    }
    Ok(())
}
