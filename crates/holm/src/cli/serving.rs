//! What every process is told that devices and back ends connect to: a hub, or a provisioning service that is none.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use holm_hub::HubConfig;

#[derive(Debug, Args)]
pub(crate) struct Serving {
    /// Where everything is kept.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The host name by which clients know it; it stands in its certificate and in connection strings. An IP address will do.
    #[arg(long, value_name = "NAME", default_value = "localhost", value_parser = super::values::id)]
    hostname: String,
    /// The address to listen on.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    bind: IpAddr,
    /// The port of MQTT over TLS; 0 lets the system choose.
    #[arg(long, value_name = "PORT", default_value_t = 8883)]
    mqtt_port: u16,
    /// The port of AMQP over TLS; 0 lets the system choose.
    #[arg(long, value_name = "PORT", default_value_t = 5671)]
    amqp_port: u16,
    /// The port of HTTPS and WebSocket; 0 lets the system choose.
    #[arg(long, value_name = "PORT", default_value_t = 443)]
    https_port: u16,
}

impl Serving {
    /// The usual configuration, with these.
    pub(crate) fn config(&self) -> HubConfig {
        let mut config = HubConfig::new(&self.data, &self.hostname);
        config.bind = self.bind;
        config.mqtt_port = self.mqtt_port;
        config.amqp_port = self.amqp_port;
        config.https_port = self.https_port;
        config
    }
}
