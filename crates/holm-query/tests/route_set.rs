//! Sets of routes: one delivery per endpoint, and errors that name every bad route.

use holm_model::{Identity, Message, ModuleId, SystemProperty};
use holm_query::{Delivery, MessageSource, Priority, RouteSet, RouteSpec, Sink};

fn set(routes: &[(&str, &str, Option<u8>, Option<u32>)]) -> RouteSet {
    let specs = routes.iter().map(|&(name, route, priority, time_to_live_seconds)| {
        let route = route.to_owned();
        (
            name,
            RouteSpec {
                route,
                priority,
                time_to_live_seconds,
            },
        )
    });
    RouteSet::compile(specs).expect("the routes of these tests are right")
}

/// Route name, priority number and time-to-live of each delivery.
fn summary(deliveries: impl Iterator<Item = Delivery<'static>>) -> Vec<(&'static str, u32, Option<u32>)> {
    deliveries
        .map(|delivery| {
            (
                delivery.route,
                delivery.priority.number(),
                delivery.time_to_live_seconds,
            )
        })
        .collect()
}

fn kept<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

#[test]
fn an_endpoint_gets_one_copy_at_the_most_urgent_priority_with_that_routes_time_to_live() {
    let routes = kept(set(&[
        ("plain", "FROM /* INTO $upstream", None, Some(5)),
        ("late", "FROM /* INTO $upstream", Some(9), Some(9)),
        ("never", "FROM /* WHERE false INTO $upstream", Some(0), Some(1)),
        ("soon", "FROM /* INTO $upstream", Some(3), Some(0)),
        ("same", "FROM /* INTO $upstream", Some(3), Some(7)),
        (
            "module",
            "FROM /* INTO BrokeredEndpoint('/modules/a/inputs/i')",
            None,
            Some(60),
        ),
        (
            "again",
            "FROM /* INTO BrokeredEndpoint('/modules/a/inputs/i')",
            None,
            None,
        ),
    ]));
    let message = kept(Message::new(""));

    let found = summary(routes.evaluate(&MessageSource::DeviceTelemetry, message));

    assert_eq!(
        found,
        [("soon", 3, None), ("module", Priority::DEFAULT_NUMBER, Some(60))]
    );
    assert_eq!(routes.sinks().len(), 2);
}

#[test]
fn deliveries_name_their_sink_by_index_and_value() {
    let routes = set(&[
        ("a", "FROM /* INTO BrokeredEndpoint('/modules/a/inputs/i')", None, None),
        ("b", "FROM /* INTO $upstream", Some(0), None),
    ]);
    let message = Message::new("");

    for delivery in routes.evaluate(&MessageSource::TwinChange, &message) {
        assert_eq!(routes.sinks()[delivery.sink_index], *delivery.sink);
    }
    assert_eq!(routes.sinks()[1], Sink::Upstream);
}

#[test]
fn more_than_64_endpoints_get_one_copy_each() {
    let specs = (0..200).map(|index| {
        let route = format!("FROM /* INTO BrokeredEndpoint('/modules/m/inputs/{}')", index % 100);
        (format!("r{index}"), RouteSpec::from(route.as_str()))
    });
    let routes = RouteSet::compile(specs).unwrap();
    let message = Message::new("");

    let deliveries: Vec<Delivery<'_>> = routes.evaluate(&MessageSource::DeviceTelemetry, &message).collect();

    assert_eq!(deliveries.len(), 100);
}

#[test]
fn conditions_see_properties_and_the_body_of_a_real_message() {
    let routes = kept(set(&[
        (
            "app",
            "FROM /* WHERE LEVEL = 'high' INTO BrokeredEndpoint('/modules/a/inputs/app')",
            None,
            None,
        ),
        (
            "system",
            "FROM /* WHERE $connectiondeviceid = 'dev' AND NOT is_defined($connectionModuleId) INTO BrokeredEndpoint('/modules/a/inputs/sys')",
            None,
            None,
        ),
        (
            "body",
            "FROM /* WHERE $body.flow > 10 INTO BrokeredEndpoint('/modules/a/inputs/body')",
            None,
            None,
        ),
        (
            "case",
            "FROM /* WHERE $body.Flow > 10 AND is_number($body.Flow) INTO $upstream",
            None,
            None,
        ),
    ]));
    let mut message = Message::new(r#"{"flow": 12.5}"#);
    message.properties.set("level", Some("high".to_owned()));
    message.system.set(SystemProperty::ConnectionDeviceId, "dev");
    let undeclared = kept(message.clone());
    message.system.set(SystemProperty::ContentType, "application/json");
    message.system.set(SystemProperty::ContentEncoding, "utf-8");
    let declared = kept(message);

    let names = |message: &'static Message| -> Vec<&str> {
        summary(routes.evaluate(&MessageSource::DeviceTelemetry, message))
            .iter()
            .map(|found| found.0)
            .collect()
    };
    assert_eq!(names(declared), ["app", "system", "body"]);
    assert_eq!(names(undeclared), ["app", "system"]);
}

#[test]
fn the_source_of_a_message_comes_from_its_sender_and_output() {
    let module: ModuleId = "m".parse().unwrap();
    let on_device: Identity = "dev".parse().unwrap();
    let on_module: Identity = "dev/m".parse().unwrap();
    let mut message = Message::new("");

    assert_eq!(MessageSource::of(&on_device, &message), MessageSource::DeviceTelemetry);
    message.system.set(SystemProperty::OutputName, "");
    assert_eq!(
        MessageSource::of(&on_module, &message),
        MessageSource::ModuleOutput {
            module: &module,
            output: None
        }
    );
    message.system.set(SystemProperty::OutputName, "o");
    let with_output = MessageSource::ModuleOutput {
        module: &module,
        output: Some("o"),
    };
    assert_eq!(MessageSource::of(&on_module, &message), with_output);
    assert_eq!(with_output.to_string(), "/messages/modules/m/outputs/o/");
}

#[test]
fn the_error_names_every_bad_route_with_line_column_and_remedy() {
    let specs = [
        ("good", RouteSpec::from("FROM /* INTO $upstream")),
        ("typo", RouteSpec::from("FORM /* INTO $upstream")),
        (
            "types",
            RouteSpec::from("FROM /* WHERE\ntemp > 100 AND b = 1 INTO $upstream"),
        ),
        (
            "urgent",
            RouteSpec {
                priority: Some(10),
                ..RouteSpec::from("FROM /* INTO $upstream")
            },
        ),
    ];

    let error = RouteSet::compile(specs).unwrap_err();

    assert_eq!(
        error.to_string(),
        "3 of 4 routes cannot be used \
         | route `typo`, line 1, column 1: a route begins with FROM, and `FORM` stands here; \
         write for example `FROM /messages/* INTO $upstream` \
         | route `types`, line 2, column 6: operator `>` compares a property (text) with a number; \
         write `as_number(temp) > 100` \
         | route `types`, line 2, column 18: operator `=` compares a property (text) with a number; \
         write `as_number(b) = 1` \
         | route `urgent`, the priority 10 is not from 0 to 9; give 0 (most urgent) to 9, or none for the last place"
    );
}

#[test]
fn a_route_with_very_many_problems_is_named_with_their_number() {
    let route = format!("FROM /* WHERE a = 1{} INTO $upstream", " OR a = 1".repeat(99));

    let error = RouteSet::compile([("r", RouteSpec::from(route.as_str()))]).unwrap_err();

    assert_eq!(error.routes[0].faults.len(), 100);
    assert!(error.to_string().ends_with("| route `r`, 92 more problems"), "{error}");
}
