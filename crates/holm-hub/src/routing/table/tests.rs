use holm_model::SystemProperty;
use holm_queue::{LaneKind, Options, Queue};
use serde_json::json;

use super::*;

/// Lanes 0 to 2 of a queue: `events`, endpoints `a` and `b`.
fn lanes() -> [LaneId; 3] {
    let directory = tempfile::tempdir().unwrap();
    let (queue, _) = Queue::open(directory.path(), Options::default()).unwrap();
    ["events", "a", "b"].map(|name| queue.lane(name, LaneKind::UntilAcknowledged).unwrap())
}

fn route(name: &str, document: Value) -> Route {
    Route::read(name, document.as_object().unwrap().clone()).unwrap()
}

fn enrichment(key: &str, value: &str, to: &[&str]) -> Enrichment {
    let document = json!({ "value": value, "endpoints": to });
    Enrichment::read(key, document.as_object().unwrap().clone()).unwrap()
}

fn table(routes: &[Route], enrichments: &[Enrichment], fallback: bool, ids: [LaneId; 3]) -> Table {
    let lanes = [("a", ids[1]), ("b", ids[2])].map(|(name, id)| {
        let lane = Lane {
            id,
            max_waiting_millis: 1000,
        };
        (Destination::Endpoint(name.parse().unwrap()), lane)
    });
    Table::new(
        "hub".to_owned(),
        EventSources::default(),
        routes,
        enrichments,
        fallback,
        lanes.into(),
    )
}

fn names(table: &Table, source: Source, message: &Message) -> Vec<String> {
    let decision = table.decide(source, message, None);
    table.destinations(decision).map(|to| to.name().to_owned()).collect()
}

fn message(level: &str) -> Message {
    let mut message = Message::new("{}");
    message.properties.set("level", Some(level.to_owned()));
    message.system.set(SystemProperty::ConnectionDeviceId, "d1");
    message
}

#[test]
fn without_routes_everything_goes_to_events_as_the_sources_say() {
    let ids = lanes();
    let plain = table(&[], &[], false, ids);

    assert!(plain.is_plain());
    assert_eq!(names(&plain, Source::DeviceMessages, &message("x")), ["events"]);
    assert_eq!(names(&plain, Source::TwinChangeEvents, &message("x")), ["events"]);
    assert_eq!(
        names(&plain, Source::DeviceConnectionStateEvents, &message("x")),
        [""; 0]
    );
}

#[test]
fn a_message_goes_once_to_each_destination_and_what_none_takes_to_the_fallback() {
    let ids = lanes();
    let routes = [
        route("1", json!({ "condition": "level = 'hot'", "endpoint": "a" })),
        route("2", json!({ "condition": "true", "endpoint": "a", "enabled": false })),
        route(
            "3",
            json!({ "condition": "level = 'hot' OR level = 'warm'", "endpoint": "a" }),
        ),
        route("4", json!({ "condition": "level = 'warm'", "endpoint": "b" })),
    ];
    let (with, without) = (table(&routes, &[], true, ids), table(&routes, &[], false, ids));

    assert_eq!(names(&with, Source::DeviceMessages, &message("hot")), ["a"]);
    assert_eq!(names(&with, Source::DeviceMessages, &message("warm")), ["a", "b"]);
    assert_eq!(names(&with, Source::DeviceMessages, &message("cold")), ["events"]);
    assert_eq!(names(&without, Source::DeviceMessages, &message("cold")), [""; 0]);
    let decision = with.decide(Source::DeviceMessages, &message("warm"), None);
    let filed = with.file(decision, &message("warm"), None, ids[0], Timestamp::from_unix_millis(5));
    assert_eq!(filed.len(), 1);
    assert_eq!(filed[0].lanes, [(ids[1], 1005), (ids[2], 1005)]);
}

#[test]
fn a_source_with_a_route_goes_where_routes_say_and_the_others_as_before() {
    let ids = lanes();
    let routes = [route(
        "1",
        json!({ "source": "TwinChangeEvents", "condition": "opType = 'x'", "endpoint": "b" }),
    )];
    let table = table(&routes, &[], true, ids);

    assert_eq!(names(&table, Source::TwinChangeEvents, &message("x")), [""; 0]);
    assert_eq!(names(&table, Source::DeviceLifecycleEvents, &message("x")), ["events"]);
    assert_eq!(names(&table, Source::DeviceMessages, &message("x")), ["events"]);
    assert!(table.has_route_for(Source::TwinChangeEvents) && !table.has_route_for(Source::DeviceMessages));
}

#[test]
fn enrichments_are_stamped_for_their_endpoints_and_share_a_record_where_they_are_the_same() {
    let ids = lanes();
    let routes = [
        route("1", json!({ "endpoint": "events" })),
        route("2", json!({ "endpoint": "a" })),
        route("3", json!({ "endpoint": "b" })),
    ];
    let enrichments = [
        enrichment("hub", "$iothubname", &["events", "a"]),
        enrichment("site", "$twin.tags.site", &["events", "a"]),
        enrichment("nowhere", "$twin.tags.nowhere", &["events", "a"]),
        enrichment("level", "mine", &["a", "events"]),
    ];
    let table = table(&routes, &enrichments, true, ids);
    let mut twin = Twin::new("d1".parse().unwrap(), Timestamp::NEVER);
    let tags = holm_model::TwinUpdate::from_json(br#"{"tags":{"site":7}}"#).unwrap();
    twin.patch(&tags, Timestamp::NEVER).unwrap();

    let decision = table.decide(Source::DeviceMessages, &message("x"), Some(&twin));
    let filed = table.file(decision, &message("x"), Some(&twin), ids[0], Timestamp::NEVER);

    assert!(table.reads_twin(Source::DeviceMessages));
    assert_eq!(filed.len(), 2);
    assert_eq!(filed[0].lanes.len(), 2);
    let first = Message::decode(filed[0].payload.clone()).unwrap();
    let properties: Vec<_> = first.properties.iter().collect();
    assert_eq!(
        properties,
        [
            ("level", Some("mine")),
            ("hub", Some("hub")),
            ("site", Some("7")),
            ("nowhere", Some("$twin.tags.nowhere"))
        ]
    );
    assert_eq!(Message::decode(filed[1].payload.clone()).unwrap(), message("x"));
}
