//! Prints what a message costs on its way through five routes: `cargo run --release -p holm-query --example route_speed`.

// A stopwatch needs a clock and a place to print; the library has neither.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use holm_model::{Message, ModuleId, SystemProperty};
use holm_query::{MessageSource, RouteSet, RouteSpec};

const ROUNDS: u32 = 200_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sensor: ModuleId = "sensor".parse()?;
    let source = MessageSource::ModuleOutput {
        module: &sensor,
        output: Some("readings"),
    };
    let mut message =
        Message::new(r#"{"time":"2013-05-01T00:00:00Z","flow":101.25,"unit":"l/s","site":{"name":"north","floor":2}}"#);
    message.properties.set("kind", Some("reading".to_owned()));
    message.properties.set("temp", Some("21.5".to_owned()));
    message.system.set(SystemProperty::ContentType, "application/json");
    message.system.set(SystemProperty::ContentEncoding, "utf-8");
    message.system.set(SystemProperty::ConnectionDeviceId, "pump-17");

    measure(
        "5 routes, none matches",
        &source,
        &message,
        [
            "FROM /messages/modules/watcher/* INTO $upstream",
            "FROM /messages/modules/summary/outputs/* INTO $upstream",
            "FROM /messages/modules/sensor/* WHERE kind = 'alert' INTO $upstream",
            "FROM /messages/modules/sensor/* WHERE as_number(temp) > 40 INTO $upstream",
            "FROM /twinChangeNotifications/* INTO $upstream",
        ],
    )?;
    measure(
        "5 routes, two endpoints",
        &source,
        &message,
        [
            "FROM /messages/modules/sensor/outputs/readings INTO BrokeredEndpoint('/modules/watcher/inputs/in')",
            "FROM /messages/modules/sensor/outputs/readings INTO BrokeredEndpoint('/modules/summary/inputs/in')",
            "FROM /messages/modules/watcher/* INTO $upstream",
            "FROM /messages/modules/summary/* INTO $upstream",
            "FROM /messages/* WHERE kind = 'alert' INTO $upstream",
        ],
    )?;
    measure(
        "5 routes, body read once",
        &source,
        &message,
        [
            "FROM /messages/* WHERE $body.flow > 200 INTO $upstream",
            "FROM /messages/* WHERE $body.flow < 10 INTO $upstream",
            "FROM /messages/* WHERE $body.site.name = 'south' INTO $upstream",
            "FROM /messages/* WHERE $body.site.floor = 2 INTO BrokeredEndpoint('/modules/watcher/inputs/in')",
            "FROM /messages/* WHERE kind = 'alert' INTO $upstream",
        ],
    )?;
    Ok(())
}

fn measure(
    what: &str,
    source: &MessageSource<'_>,
    message: &Message,
    routes: [&str; 5],
) -> Result<(), Box<dyn std::error::Error>> {
    let specs = routes
        .iter()
        .enumerate()
        .map(|(index, route)| (format!("r{index}"), RouteSpec::from(*route)));
    let routes = RouteSet::compile(specs)?;
    let mut deliveries = 0;
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        deliveries += routes.evaluate(black_box(source), black_box(message)).count();
    }
    let nanoseconds = begun.elapsed().as_nanos() / u128::from(ROUNDS);
    println!(
        "{what}: {nanoseconds} ns per message, {} deliveries",
        deliveries / ROUNDS as usize
    );
    Ok(())
}
