//! Where figures are sent to.

use std::str::FromStr;
use std::time::Duration;

/// The port of a collector that takes OTLP over HTTP.
const USUAL_PORT: u16 = 4318;

/// How figures are sent to a collector of OpenTelemetry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otel {
    /// The collector.
    pub endpoint: OtelEndpoint,
    /// How often.
    pub interval: Duration,
}

/// The address of a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtelEndpoint {
    /// Whether it is spoken to over TLS.
    pub is_tls: bool,
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What comes before `/v1/metrics`; empty, or with a slash before it.
    pub path: String,
}

/// It is no such address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no `http://host:port` or `https://host:port`")]
pub struct OtelEndpointError;

impl FromStr for OtelEndpoint {
    type Err = OtelEndpointError;

    fn from_str(text: &str) -> Result<Self, OtelEndpointError> {
        let (scheme, rest) = text.split_once("://").ok_or(OtelEndpointError)?;
        let is_tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(OtelEndpointError),
        };
        let (authority, path) = match rest.find('/') {
            Some(place) => rest.split_at(place),
            None => (rest, ""),
        };
        // An address of six stands in brackets, and has colons of its own.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| OtelEndpointError)?),
            _ => (authority, USUAL_PORT),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_clean = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'@' | b'?' | b'#'))
        };
        if host.is_empty() || port == 0 || !is_clean(host) || !is_clean(path) {
            return Err(OtelEndpointError);
        }
        Ok(Self {
            is_tls,
            host: host.to_owned(),
            port,
            path: path.trim_end_matches('/').to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_their_usual_port() {
        let read = |text: &str| {
            text.parse()
                .map(|it: OtelEndpoint| (it.is_tls, it.host, it.port, it.path))
        };
        let of = |is_tls, host: &str, port, path: &str| Ok((is_tls, host.to_owned(), port, path.to_owned()));

        assert_eq!(read("http://127.0.0.1"), of(false, "127.0.0.1", 4318, ""));
        assert_eq!(
            read("https://otel.test:443/tenant/"),
            of(true, "otel.test", 443, "/tenant")
        );
        assert_eq!(read("http://[::1]:9"), of(false, "::1", 9, ""));
        assert_eq!(read("http://[::1]"), of(false, "::1", 4318, ""));
        for wrong in [
            "",
            "otel:4318",
            "grpc://a",
            "http://",
            "http://:1",
            "http://a:x",
            "http://u@a",
            "http://a b",
            "http://a:0",
        ] {
            assert_eq!(read(wrong), Err(OtelEndpointError), "{wrong}");
        }
    }
}
