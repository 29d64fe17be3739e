//! Commands on message routing: where messages go, and what is added to them.

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use super::HubAccess;
use super::values::{self, Property};

/// What routes can be about.
const SOURCES: [&str; 6] = [
    "DeviceMessages",
    "TwinChangeEvents",
    "DeviceLifecycleEvents",
    "DeviceConnectionStateEvents",
    "DeviceJobLifecycleEvents",
    "DigitalTwinChangeEvents",
];

/// A rule of routing, and the hub that has it.
#[derive(Clone, Debug, Args)]
pub(crate) struct OneRule {
    /// Its name: 1 to 64 letters, digits, `-`, `_` or `.`.
    #[arg(value_parser = values::id)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) hub: HubAccess,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Route {
    /// Make a route.
    Create {
        #[command(flatten)]
        one: OneRule,
        #[command(flatten)]
        rule: RouteRule,
    },
    /// List routes, and the fallback route.
    List {
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Show a route.
    Show(OneRule),
    /// Change a route.
    Update {
        #[command(flatten)]
        one: OneRule,
        #[command(flatten)]
        rule: RouteRule,
        /// Only if the route still has this etag.
        #[arg(long, value_name = "ETAG")]
        etag: Option<String>,
    },
    /// Delete a route.
    Delete(OneRule),
    /// Turn the fallback route on or off: what no route takes goes to `events`, or nowhere.
    Fallback {
        /// `on` or `off`.
        #[arg(value_parser = PossibleValuesParser::new(["on", "off"]))]
        state: String,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Try a message against all routes, or against a condition, without sending it.
    Test(RouteTest),
}

/// What a route is.
#[derive(Clone, Debug, Args)]
pub(crate) struct RouteRule {
    /// Where messages go: an endpoint, or `events`.
    #[arg(long, value_name = "ENDPOINT")]
    pub(crate) endpoint: Option<String>,
    /// Which messages, such as `level = 'alarm' AND $body.temp > 30` [else all]
    #[arg(long)]
    pub(crate) condition: Option<String>,
    /// What kind of messages [else DeviceMessages]
    #[arg(long, ignore_case = true, value_parser = PossibleValuesParser::new(SOURCES))]
    pub(crate) source: Option<String>,
    /// Whether it counts [else true]
    #[arg(long, value_name = "BOOL")]
    pub(crate) enabled: Option<bool>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RouteTest {
    /// The body: JSON, or text.
    #[arg(long, value_name = "BODY")]
    pub(crate) body: Option<String>,
    /// An application property; several may be given.
    #[arg(long = "property", short = 'p', value_name = "NAME=VALUE", value_parser = values::property)]
    pub(crate) properties: Vec<Property>,
    /// A system property, such as `contentType=application/json`; several may be given.
    #[arg(long = "system", value_name = "NAME=VALUE", value_parser = values::property)]
    pub(crate) system: Vec<Property>,
    /// The device that would send it; its twin counts.
    #[arg(long, short, value_parser = values::id)]
    pub(crate) device: Option<String>,
    /// The module that would send it.
    #[arg(long, short, requires = "device", value_parser = values::id)]
    pub(crate) module: Option<String>,
    /// What kind of message it is [else DeviceMessages]
    #[arg(long, ignore_case = true, value_parser = PossibleValuesParser::new(SOURCES))]
    pub(crate) source: Option<String>,
    /// Try this condition instead of the routes.
    #[arg(long)]
    pub(crate) condition: Option<String>,
    #[command(flatten)]
    pub(crate) hub: HubAccess,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Endpoint {
    /// Make an endpoint.
    Create {
        #[command(flatten)]
        one: OneRule,
        /// What it is.
        #[arg(long, value_parser = PossibleValuesParser::new(["webhook", "mqtt", "nats", "file"]))]
        kind: String,
        #[command(flatten)]
        settings: EndpointSettings,
    },
    /// List endpoints, and how they are.
    List {
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Show an endpoint, and how it is.
    Show(OneRule),
    /// Change settings of an endpoint; the others stay.
    Update {
        #[command(flatten)]
        one: OneRule,
        #[command(flatten)]
        settings: EndpointSettings,
        /// A setting that is to have no value; several may be given.
        #[arg(long = "unset", value_name = "NAME")]
        unset: Vec<String>,
        /// Only if the endpoint still has this etag.
        #[arg(long, value_name = "ETAG")]
        etag: Option<String>,
    },
    /// Delete an endpoint, with what waits for it.
    Delete(OneRule),
}

/// Settings of an endpoint, as `docs/routing.md` names them.
#[derive(Clone, Debug, Args)]
pub(crate) struct EndpointSettings {
    /// A setting, such as `url=https://example.com/in`; several may be given.
    #[arg(long = "set", short = 's', value_name = "NAME=VALUE", value_parser = values::property)]
    pub(crate) set: Vec<Property>,
    /// A setting whose value is in a file, as secrets should be; several may be given.
    #[arg(long = "set-file", value_name = "NAME=FILE", value_parser = values::property)]
    pub(crate) files: Vec<Property>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Enrichment {
    /// Have a property added to messages.
    Create {
        #[command(flatten)]
        one: OneRule,
        #[command(flatten)]
        rule: EnrichmentRule,
    },
    /// List what is added.
    List {
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Show one.
    Show(OneRule),
    /// Change one.
    Update {
        #[command(flatten)]
        one: OneRule,
        #[command(flatten)]
        rule: EnrichmentRule,
        /// Only if it still has this etag.
        #[arg(long, value_name = "ETAG")]
        etag: Option<String>,
    },
    /// Delete one.
    Delete(OneRule),
}

/// What is added to which messages.
#[derive(Clone, Debug, Args)]
pub(crate) struct EnrichmentRule {
    /// A text, `$iothubname`, or a value of the sender's twin such as `$twin.tags.site`.
    #[arg(long)]
    pub(crate) value: Option<String>,
    /// The endpoints whose messages get it; several are separated by commas.
    #[arg(long = "endpoints", value_name = "ENDPOINTS", value_delimiter = ',')]
    pub(crate) endpoints: Vec<String>,
}
