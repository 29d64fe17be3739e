//! A message as JSON for people and programs that follow events, one object a line.
//!
//! ```text
//! {"body":{"t":21.5},"bodyEncoding":"json","properties":{"k":"v","flag":null},"systemProperties":{"messageId":"m-1"}}
//! ```
//!
//! The body is JSON if it reads as JSON, else text if it is UTF-8, else base64; `bodyEncoding` says which, so nothing has to
//! be guessed. A JSON body is shown by its meaning: white space and the spelling of numbers are not kept.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::Message;

impl Message {
    /// This message as a JSON object with the members `body`, `bodyEncoding` (`json`, `text` or `base64`), `properties`
    /// (null for one without a value) and `systemProperties` (by their names in routes). The caller adds where the event
    /// stands in its log.
    #[must_use]
    pub fn to_event(&self) -> Map<String, Value> {
        let (encoding, body) = self.body_json();
        let system: Map<String, Value> = self
            .system
            .iter()
            .map(|(property, value)| (property.route_name().to_owned(), json!(value)))
            .collect();
        let properties: Map<String, Value> = self
            .properties
            .iter()
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
        Map::from_iter([
            ("body".to_owned(), body),
            ("bodyEncoding".to_owned(), json!(encoding)),
            ("properties".to_owned(), Value::Object(properties)),
            ("systemProperties".to_owned(), Value::Object(system)),
        ])
    }

    fn body_json(&self) -> (&'static str, Value) {
        if let Ok(value) = serde_json::from_slice(&self.body) {
            return ("json", value);
        }
        match std::str::from_utf8(&self.body) {
            Ok(text) => ("text", json!(text)),
            Err(_) => ("base64", json!(STANDARD.encode(&self.body))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemProperty;

    fn body_of(body: &'static [u8]) -> (Value, Value) {
        let event = Message::new(body).to_event();
        (event["bodyEncoding"].clone(), event["body"].clone())
    }

    #[test]
    fn the_body_says_how_it_is_written() {
        assert_eq!(body_of(b"{\"t\":21.5}"), (json!("json"), json!({"t": 21.5})));
        assert_eq!(body_of(b"null"), (json!("json"), Value::Null));
        assert_eq!(body_of(b"{\"t\":"), (json!("text"), json!("{\"t\":")));
        assert_eq!(body_of(b""), (json!("text"), json!("")));
        assert_eq!(body_of(b"\xff\x00"), (json!("base64"), json!("/wA=")));
    }

    #[test]
    fn properties_keep_the_difference_of_absent_and_empty() {
        let mut message = Message::new("x");
        message.system.set(SystemProperty::MessageId, "m-1");
        message.properties.set("none", None);
        message.properties.set("empty", Some(String::new()));

        let event = message.to_event();

        assert_eq!(event["properties"], json!({"none": null, "empty": ""}));
        assert_eq!(event["systemProperties"], json!({"messageId": "m-1"}));
    }

    #[test]
    fn an_event_is_one_line() {
        let event = Message::new("a\nb\r\n{").to_event();

        assert!(!Value::Object(event).to_string().contains(['\n', '\r']));
    }
}
