//! Custom allocation: a program of the operator's says which hub a device is given, and with which twin.
//!
//! ```text
//! POST webhookUrl    {"individualEnrollment" | "enrollmentGroup": {…}, "deviceRuntimeContext": {"registrationId", "payload",
//!                     "currentIotHubHostName", "currentDeviceId", "x509"}, "linkedHubs": [hub, …]}
//! 200                {"iotHubHostName", "initialTwin", "payload"}
//! ```
//!
//! The device waits for it, 5 s at most, and is told `failed` (400207) where no usable answer comes; it may register again.
//!
//! Source: `hub-service-api.md` §7.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holm_identity::Roots;
use holm_identity::tls::client_config;
use holm_net::http::Client;
use http_body_util::Full;
use hyper::{Method, Request, Uri};
use rustls::ClientConfig;
use serde_json::Value;
use tokio::sync::{Mutex, Semaphore};

use super::document;
use super::enrollment::{Webhook, check_initial_twin};
use super::fields::Fields;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest answer: a twin, and a payload.
const MAX_ANSWER: usize = 256 * 1024;
/// How many are asked at once; who is beyond waits for its turn, and no longer than for an answer.
const MAX_ASKED: usize = 64;
/// What an answer has.
const MEMBERS: [&str; 3] = ["iotHubHostName", "initialTwin", "payload"];
/// How many unknown members the log names, and how many characters of each.
const MAX_SHOWN: usize = 40;
/// For how long the authorities that were read are good: those of the system are renewed by its updates.
const TRUST_FOR: Duration = Duration::from_secs(60);

/// What the operator's program says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Verdict {
    /// The hub.
    pub(super) hub: Option<String>,
    /// Instead of the enrollment's.
    pub(super) initial_twin: Option<Value>,
    /// For the device: an object, since Java reads nothing else.
    pub(super) payload: Option<Value>,
}

/// Asks operators' programs, so many at once.
#[derive(Debug)]
pub(super) struct Asking {
    turns: Semaphore,
    /// With what TLS is spoken, and since when it is known.
    tls: Mutex<Option<(Instant, Arc<ClientConfig>)>>,
}

impl Default for Asking {
    fn default() -> Self {
        Self {
            turns: Semaphore::new(MAX_ASKED),
            tls: Mutex::default(),
        }
    }
}

impl Asking {
    /// Asks one.
    ///
    /// # Errors
    /// Why there is no usable answer, in words for the device's owner.
    pub(super) async fn ask(&self, webhook: &Webhook, question: &Value) -> Result<Verdict, String> {
        let turn = tokio::time::timeout(PATIENCE, self.turns.acquire()).await;
        let _turn = turn.map_err(|_| format!("{MAX_ASKED} others are asking; register again"))?;
        let (client, target) = self.client(&webhook.url).await?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(target)
            .header("Content-Type", "application/json; charset=utf-8")
            .body(Full::new(Bytes::from(question.to_string())));
        let request = request.map_err(|error| format!("its address can't be used: {error}"))?;
        let answered = client.send(request, MAX_ANSWER, PATIENCE).await;
        let (status, _, body) = answered.map_err(|error| holm_net::error_chain(&error))?;
        if !status.is_success() {
            return Err(format!(
                "Custom allocation failed with status code: {}",
                status.as_u16()
            ));
        }
        read(&body)
    }

    async fn client(&self, url: &str) -> Result<(Client, String), String> {
        let wrong = || format!("`{}` is no address of a webhook", shown(url));
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let host = uri.host().ok_or_else(wrong)?;
        let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        if uri.scheme_str() == Some("http") {
            return Ok((Client::plain(host, uri.port_u16().unwrap_or(80)), target));
        }
        Ok((
            Client::new(self.tls().await?, host, uri.port_u16().unwrap_or(443)),
            target,
        ))
    }

    async fn tls(&self) -> Result<Arc<ClientConfig>, String> {
        let mut known = self.tls.lock().await;
        if let Some((since, tls)) = known.as_ref()
            && since.elapsed() < TRUST_FOR
        {
            return Ok(Arc::clone(tls));
        }
        let reading = tokio::task::spawn_blocking(|| {
            let system = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
            let roots = Roots::none().with_system(system.as_deref())?;
            client_config(roots, None)
        });
        let tls = reading.await.map_err(|error| error.to_string())?;
        let tls = Arc::new(tls.map_err(|error| holm_net::error_chain(&error))?);
        *known = Some((Instant::now(), Arc::clone(&tls)));
        Ok(tls)
    }
}

/// An address without what may be a secret in it: query, user and password.
pub(super) fn shown(url: &str) -> String {
    let address = url.split(['?', '#']).next().unwrap_or_default();
    match address.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
        None => address.to_owned(),
    }
}

/// Reads an answer as strictly as an enrollment. Members that nobody knows are passed over as in the original, whose programs may
/// send them, and told in the log: one may be meant for another.
fn read(body: &[u8]) -> Result<Verdict, String> {
    let answer = document::read_body(body).map_err(|error| error.message)?;
    let fields = Fields::new(&answer, "");
    let hub = fields.text("iotHubHostName").map_err(|error| error.message)?;
    let hub = hub.ok_or_else(|| "`iotHubHostName` is missing; name one of `linkedHubs`".to_owned())?;
    let object = |name: &str| {
        let object = fields.object(name).map_err(|error| error.message)?;
        Ok::<_, String>(object.map(|object| Value::Object(object.clone())))
    };
    let twin = object("initialTwin")?;
    if let Some(twin) = &twin {
        check_initial_twin(twin).map_err(|error| error.message)?;
    }
    let verdict = Verdict {
        hub: Some(hub.to_owned()),
        initial_twin: twin,
        payload: object("payload")?,
    };
    let unknown = answer.keys().filter(|name| !MEMBERS.contains(&name.as_str()));
    let unknown: Vec<String> = unknown.take(MAX_SHOWN).map(|name| shown_name(name)).collect();
    if !unknown.is_empty() {
        tracing::warn!(
            members = unknown.join(", "),
            "the answer of a webhook has members that mean nothing here"
        );
    }
    Ok(verdict)
}

/// A name from outside, short and printable.
pub(super) fn shown_name(name: &str) -> String {
    name.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_shown_of_an_address_has_no_secret() {
        for (url, wanted) in [
            ("https://f.example/api/place?code=SECRET", "https://f.example/api/place"),
            ("https://me:SECRET@f.example:8443/p#SECRET", "https://f.example:8443/p"),
            ("https://f.example?code=SECRET", "https://f.example"),
            ("f.example/p?code=SECRET", "f.example/p"),
        ] {
            assert_eq!(shown(url), wanted);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_come_to_its_turn_is_told_so() {
        let asking = Asking::default();
        let all = asking.turns.acquire_many(u32::try_from(MAX_ASKED).unwrap()).await;
        let webhook = Webhook {
            url: "http://127.0.0.1:9/".to_owned(),
            api_version: "2021-10-01".to_owned(),
        };
        let told = asking.ask(&webhook, &json!({})).await.unwrap_err();
        assert!(told.contains("others are asking"), "{told}");
        drop(all);
    }

    #[test]
    fn an_answer_is_read_strictly_and_what_is_wrong_is_named() {
        let good = json!({ "iotHubHostName": "hub.test", "initialTwin": { "tags": {} }, "payload": { "k": 1 } });
        let verdict = read(good.to_string().as_bytes()).unwrap();
        assert_eq!(verdict.hub.as_deref(), Some("hub.test"));
        assert_eq!(
            (verdict.initial_twin, verdict.payload),
            (Some(json!({ "tags": {} })), Some(json!({ "k": 1 })))
        );
        let lenient = json!({ "iotHubHostName": "hub.test", "initialTwin": null, "payload": null, "hub": 7 });
        let empty = Verdict {
            hub: Some("hub.test".to_owned()),
            ..Verdict::default()
        };
        assert_eq!(
            read(lenient.to_string().as_bytes()),
            Ok(empty),
            "null is as absent, and a stranger is passed over"
        );
        for (bad, named) in [
            ("", "can't be read"),
            ("[]", "not a JSON object"),
            ("{}", "`iotHubHostName` is missing"),
            (r#"{"iotHubHostName":""}"#, "`iotHubHostName` is missing"),
            (r#"{"iotHubHostName":7}"#, "`iotHubHostName` must be a string"),
            (r#"{"iotHubHostName":"h","iotHubHostName":"i"}"#, "`iotHubHostName`"),
            (r#"{"iotHubHostName":"h","payload":7}"#, "`payload` must be an object"),
            (
                r#"{"iotHubHostName":"h","payload":{"n":99999999999999999999}}"#,
                "`payload.n`",
            ),
            (
                r#"{"iotHubHostName":"h","initialTwin":7}"#,
                "`initialTwin` must be an object",
            ),
            (r#"{"iotHubHostName":"h","initialTwin":{"tags":[]}}"#, "`initialTwin`"),
            (
                r#"{"iotHubHostName":"h","initialTwin":{"properties":{"desired":{"a":{"b.c":1}}}}}"#,
                "`initialTwin.properties.desired.a`",
            ),
        ] {
            let told = read(bad.as_bytes()).unwrap_err();
            assert!(told.contains(named), "{bad}: {told}");
        }
    }
}
