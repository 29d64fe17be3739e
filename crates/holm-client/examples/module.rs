//! A module passes on what comes to its input `in` through its output `out`. An edge starts it, and says by its environment
//! where it is; the edge signs for it, so it holds no key.

use holm_client::edge_environment::EdgeEnvironment;
use holm_client::{Client, Event, Interests, Transport};
use holm_model::SystemProperty;
use holm_net::Scope;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scope = Scope::new();
    let mut options = EdgeEnvironment::from_process()?.options(Transport::Mqtt, None).await?;
    options.interests = Interests {
        inputs: true,
        ..Interests::default()
    };
    let (client, mut events) = Client::start(&scope, options);
    while let Some(event) = events.next().await {
        let Event::Message(received) = event else { continue };
        let mut message = received.message.clone();
        message.system.set(SystemProperty::OutputName, "out");
        // First safe, then complete: a crash in between repeats the message and loses none.
        client.send(message).await?.await?;
        received.complete().await;
    }
    Ok(())
}
