//! The way to the hub: name, ports, certificates, clock.

use std::sync::Arc;

use bytes::Bytes;
use holm_client::Transport;
use holm_identity::tls::{Roots, client_config};
use holm_model::Timestamp;
use holm_net::Dialer;
use holm_net::error_chain;
use holm_net::http::Client;
use holm_net::tls;
use http_body_util::Full;
use hyper::Request;
use hyper::header::DATE;
use rustls::ClientConfig;

use super::{Check, Group, Looking, PATIENCE, Subject, Verdict};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "host-connect-iothub-mqtt",
        group: Group::Connectivity,
        about: "the hub's port for MQTT can be reached, and its certificate is trusted",
        look: mqtt,
    },
    Check {
        id: "host-connect-iothub-amqp",
        group: Group::Connectivity,
        about: "the hub's port for AMQP can be reached, and its certificate is trusted",
        look: amqp,
    },
    Check {
        id: "host-connect-iothub-https",
        group: Group::Connectivity,
        about: "the hub's port for HTTPS can be reached, and its certificate is trusted",
        look: https,
    },
    Check {
        id: "host-local-time",
        group: Group::Connectivity,
        about: "the device's clock is that of the hub",
        look: clock,
    },
];

/// From here on people should know; the published figure.
const CLOCK_WARN_SECONDS: i64 = 10;
/// From here on tokens are refused as ended or, at another hub, as not yet valid.
const CLOCK_ERROR_SECONDS: i64 = 300;
/// The most bytes of an answer that is read for its head.
const MAX_ANSWER: usize = 64 << 10;

/// Host, ports and trust.
struct Way {
    host: String,
    mqtt: u16,
    amqp: u16,
    https: u16,
    protocol: Transport,
    tls: Arc<ClientConfig>,
}

fn way(subject: &Subject) -> Result<Way, Verdict> {
    let config = subject.config()?;
    let trust = || {
        let system = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
        let roots = Roots::none().with_system(system.as_deref())?;
        let roots = match &config.trust_bundle_cert {
            Some(path) => roots.with_file(path)?,
            None => roots,
        };
        client_config(roots, None)
    };
    let tls = trust().map_err(|error| Verdict::Skipped(format!("nobody can be trusted: {}", error_chain(&error))))?;
    Ok(Way {
        host: subject.hub_host.clone().unwrap_or_else(|| config.hub.host.clone()),
        mqtt: config.hub.mqtt_port,
        amqp: config.hub.amqp_port,
        https: config.hub.https_port,
        protocol: config.hub.protocol,
        tls: Arc::new(tls),
    })
}

fn mqtt(subject: &Subject) -> Looking<'_> {
    Box::pin(async move {
        match way(subject) {
            Ok(way) if way.protocol == Transport::Mqtt => connect(&way, way.mqtt).await,
            Ok(way) => not_used(&way),
            Err(verdict) => verdict,
        }
    })
}

fn amqp(subject: &Subject) -> Looking<'_> {
    Box::pin(async move {
        match way(subject) {
            Ok(way) if way.protocol == Transport::Amqp => connect(&way, way.amqp).await,
            Ok(way) => not_used(&way),
            Err(verdict) => verdict,
        }
    })
}

fn not_used(way: &Way) -> Verdict {
    Verdict::Skipped(format!("the edge speaks `{}` with the hub", way.protocol.name()))
}

fn https(subject: &Subject) -> Looking<'_> {
    Box::pin(async move {
        match way(subject) {
            Ok(way) => connect(&way, way.https).await,
            Err(verdict) => verdict,
        }
    })
}

async fn connect(way: &Way, port: u16) -> Verdict {
    let Err(error) = tls::connect(Arc::clone(&way.tls), &Dialer::default(), &way.host, port).await else {
        return Verdict::Fine(None);
    };
    let remedy = match &error {
        tls::HandshakeError::Unreachable { .. } => {
            "see name, route and firewall; the edge works without the hub until it is back"
        }
        _ => {
            "see that the certificate is for this name, and give its authority in `trust_bundle_cert` if it is no public one"
        }
    };
    Verdict::error(error_chain(&error), remedy)
}

fn clock(subject: &Subject) -> Looking<'_> {
    Box::pin(async move {
        let way = match way(subject) {
            Ok(way) => way,
            Err(verdict) => return verdict,
        };
        let client = Client::new(way.tls, way.host, way.https);
        let request = Request::get("/")
            .body(Full::<Bytes>::default())
            .expect("a path of one character is one");
        let Ok((_, headers, _)) = client.send(request, MAX_ANSWER, PATIENCE).await else {
            return Verdict::Skipped("the hub does not answer, so there is no clock to compare with".to_owned());
        };
        let date = headers
            .get(DATE)
            .and_then(|date| date.to_str().ok())
            .and_then(read_date);
        date.map_or_else(
            || Verdict::Skipped("the hub's answer has no date".to_owned()),
            |date| judge_clock(Timestamp::from(std::time::SystemTime::now()).unix_seconds() - date),
        )
    })
}

fn judge_clock(ahead: i64) -> Verdict {
    let text = format!(
        "this device's clock is {} s {} the hub's",
        ahead.abs(),
        if ahead < 0 { "behind" } else { "ahead of" }
    );
    let remedy = "let a time service set it (systemd-timesyncd, chrony), or set it by hand";
    if ahead.abs() >= CLOCK_ERROR_SECONDS {
        Verdict::error(text, remedy)
    } else if ahead.abs() >= CLOCK_WARN_SECONDS {
        Verdict::warning(text, remedy)
    } else {
        Verdict::Fine(None)
    }
}

/// Seconds since 1970 of a date as HTTP writes it, `Sun, 06 Nov 1994 08:49:37 GMT`; RFC 9110 §5.6.7.
fn read_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let mut words = text.split_once(", ")?.1.split(' ');
    let day: u32 = words.next()?.parse().ok()?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? + 1;
    let year: i32 = words.next()?.parse().ok()?;
    let time = words.next()?;
    if words.next() != Some("GMT") {
        return None;
    }
    let written = Timestamp::parse(&format!("{year:04}-{month:02}-{day:02}T{time}Z"))?;
    Some(written.unix_seconds())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_of_http_is_read() {
        assert_eq!(read_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        for wrong in [
            "",
            "yesterday",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 CET",
        ] {
            assert_eq!(read_date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_clock_is_judged_by_the_published_figures() {
        assert_eq!(
            [0, -9, 10, -299, 300].map(|ahead| judge_clock(ahead).word()),
            ["ok", "ok", "warning", "warning", "error"]
        );
    }
}
