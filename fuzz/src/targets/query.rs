//! Targets of `holm-query`.

use bytes::Bytes;
use holm_model::{Identity, Message, SystemProperty};
use holm_query::route_set::{RouteSet, RouteSpec};
use holm_query::{MessageSource, Route};

use super::text;

pub(super) fn route(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let compiled = Route::compile(text);
    let set = RouteSet::compile([("r", RouteSpec::from(text))]);
    assert_eq!(
        compiled.is_ok(),
        set.is_ok(),
        "a route alone and in a set differ: {text}"
    );
    match set {
        // What compiles can be evaluated: for any message, without a failure.
        Ok(set) => {
            let sender: Identity = "dev1/mod1".parse().expect("an id of this program is one");
            for message in messages() {
                let source = MessageSource::of(&sender, &message);
                assert!(set.evaluate(&source, &message).count() <= 1);
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn messages() -> [Message; 3] {
    let mut json = Message::new(Bytes::from_static(br#"{"a":{"b":[1,"x",null]},"temp":31.5,"on":true}"#));
    json.system.set(SystemProperty::ContentType, "application/json");
    json.system.set(SystemProperty::ContentEncoding, "utf-8");
    json.system.set(SystemProperty::OutputName, "out");
    json.properties.set("level", Some("critical".into()));
    json.properties.set("n", Some("12".into()));
    json.properties.set("none", None);
    let mut broken = json.clone();
    broken.body = Bytes::from_static(b"{\"a\":");
    [json, broken, Message::default()]
}
