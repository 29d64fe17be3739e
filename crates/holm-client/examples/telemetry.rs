//! A device sends ten messages and waits for each to be safe.
//!
//! `HOLM_DEVICE='HostName=…;DeviceId=…;SharedAccessKey=…' SSL_CERT_FILE=ca.pem cargo run -p holm-client --example telemetry`

use holm_client::Client;
use holm_model::{Message, SystemProperty};
use holm_net::Scope;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scope = Scope::new();
    let (client, _events) = Client::start(&scope, holm_client::device::from_environment("HOLM_DEVICE")?);
    for number in 0..10 {
        let mut message = Message::new(format!(r#"{{"number":{number}}}"#));
        message
            .system
            .set(SystemProperty::MessageId, format!("telemetry-{number}"));
        message.system.set(SystemProperty::ContentType, "application/json");
        message.system.set(SystemProperty::ContentEncoding, "utf-8");
        message.properties.set("kind", Some("example".into()));
        client.send(message).await?.await?;
    }
    scope
        .drain(std::time::Duration::from_secs(5))
        .await
        .map_err(|left| format!("{left} tasks did not end"))?;
    Ok(())
}
