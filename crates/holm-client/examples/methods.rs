//! A device answers method calls and takes cloud-to-device messages.
//!
//! `HOLM_DEVICE='HostName=…;DeviceId=…;SharedAccessKey=…' SSL_CERT_FILE=ca.pem cargo run -p holm-client --example methods`

use holm_client::{Client, Event, Interests};
use holm_model::method::MethodResponse;
use holm_net::Scope;
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scope = Scope::new();
    let mut options = holm_client::device::from_environment("HOLM_DEVICE")?;
    options.interests = Interests {
        methods: true,
        cloud_to_device: true,
        ..Interests::default()
    };
    let (_client, mut events) = Client::start(&scope, options);
    while let Some(event) = events.next().await {
        match event {
            Event::Method(call) if call.name == "echo" => {
                let payload = call.payload.clone();
                call.answer(MethodResponse { status: 200, payload }).await;
            }
            Event::Method(call) => {
                let payload = json!({ "error": format!("there is no method `{}`", call.name) });
                call.answer(MethodResponse { status: 404, payload }).await;
            }
            Event::Message(received) => {
                tracing::info!(body = ?received.message.body, "a message");
                // Only now is it gone from the hub's queue.
                received.complete().await;
            }
            Event::Connected | Event::Disconnected(_) | Event::DesiredChanged(_) => {}
        }
    }
    Ok(())
}
