//! The known keys: the one place that says what each means and what is done with it.

/// What is done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// It does what it says.
    Used,
    /// It may stand there and does nothing, for this reason.
    NoEffect(&'static str),
    /// It is refused; this is what to do instead.
    NotYet(&'static str),
}

use Treatment::{NoEffect, NotYet, Used};

/// A key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its dotted path. A last segment `*` stands for everything below.
    pub path: &'static str,
    /// The type of its value, with the unit.
    pub kind: &'static str,
    /// What holds when it is not given.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What is done with it.
    pub treatment: Treatment,
}

const fn key(
    path: &'static str,
    kind: &'static str,
    default: &'static str,
    treatment: Treatment,
    meaning: &'static str,
) -> Key {
    Key {
        path,
        kind,
        default,
        meaning,
        treatment,
    }
}

const NO_TPM: Treatment = NotYet("let the device prove itself by a symmetric key or a certificate");
const ISSUED: Treatment = NotYet("have it issued by other means, and give its file");
const ISSUANCE: Treatment =
    NotYet("let the edge make its CA (leave the key out), or give `edge_ca.cert` and `edge_ca.pk`");
const ONE_PROCESS: Treatment = NoEffect("keys, certificates and identities are parts of this one process");
const BUILT_IN: Treatment = NoEffect("the agent is built in; nothing is pulled or created for it");

/// Every known key, in the order of the reference manual.
pub const KEYS: &[Key] = &[
    key(
        "hostname",
        "text",
        "the machine's host name",
        Used,
        "The name by which modules and downstream devices reach this edge; stands in its certificate. A DNS name or an IP address.",
    ),
    key(
        "trust_bundle_cert",
        "file",
        "none",
        Used,
        "PEM file with further roots: they are in the trust bundle of the modules, and the hub's certificate may come from them.",
    ),
    key(
        "allow_elevated_docker_permissions",
        "boolean",
        "`true`",
        Used,
        "Whether containers may be privileged and add capabilities. When `false`, these create options are taken away.",
    ),
    key(
        "cloud_timeout_sec",
        "seconds",
        "`70`",
        Used,
        "How long one call to the hub's HTTPS side may take. Less than 5 is taken as 5; too small a value never succeeds on a slow link.",
    ),
    key(
        "provisioning.source",
        "`\"manual\"` or `\"dps\"`",
        "required",
        Used,
        "Where the device's identity comes from: this file, or the provisioning service.",
    ),
    key(
        "provisioning.connection_string",
        "text, secret",
        "none",
        Used,
        "`HostName=…;DeviceId=…;SharedAccessKey=…`. A port after the host name is that of the hub's HTTPS.",
    ),
    key(
        "provisioning.iothub_hostname",
        "text",
        "none",
        Used,
        "The hub, when no connection string is given.",
    ),
    key(
        "provisioning.device_id",
        "text",
        "none",
        Used,
        "The device, when no connection string is given.",
    ),
    key(
        "provisioning.authentication.method",
        "`\"sas\"` or `\"x509\"`",
        "`\"sas\"`",
        Used,
        "How the device proves itself.",
    ),
    key(
        "provisioning.authentication.device_id_pk.value",
        "base64, secret",
        "none",
        Used,
        "The device's key.",
    ),
    key(
        "provisioning.authentication.device_id_pk.uri",
        "file",
        "none",
        Used,
        "File with the device's key in base64, or as it is, with mode 0600.",
    ),
    key(
        "edge_ca.cert",
        "file",
        "none",
        Used,
        "Certificate of the authority that signs the edge's certificates, with the chain above it (PEM). Not renewed here.",
    ),
    key(
        "edge_ca.pk",
        "file",
        "none",
        Used,
        "Its private key (PEM, PKCS #8, not encrypted), mode 0600.",
    ),
    key(
        "edge_ca.auto_generated_edge_ca_expiry_days",
        "days",
        "`3650`",
        Used,
        "Life of the authority that the edge makes for itself when none is given. At 80 % of it the next one is made and told of (`holm edge ca`, trust bundle); it signs from 95 %, and the old one stays in the trust bundle; it signs again should the clock have been wrong.",
    ),
    key(
        "connect.management_uri",
        "`unix://…`",
        "as `listen.management_uri`",
        NoEffect(
            "commands on the device take the socket from `-H` or `IOTEDGE_HOST`, and look where the edge makes it by default",
        ),
        "Where the original's parts and its command line find the management socket.",
    ),
    key(
        "listen.management_uri",
        "`unix://…`",
        "`unix://` + `holm.data` + `/mgmt.sock`",
        Used,
        "The management socket that the edge makes, mode 0660.",
    ),
    key(
        "moby_runtime.uri",
        "`unix://…` or `tcp://…`",
        "`unix:///var/run/docker.sock`",
        Used,
        "The container engine. It is asked only when a module of type `docker` is deployed or it is there at the start.",
    ),
    key(
        "moby_runtime.network",
        "text or table",
        "`\"azure-iot-edge\"`",
        Used,
        "The network that containers join; made if it is not there.",
    ),
    key(
        "moby_runtime.network.name",
        "text",
        "`\"azure-iot-edge\"`",
        Used,
        "Its name.",
    ),
    key(
        "moby_runtime.network.ipv6",
        "boolean",
        "`false`",
        Used,
        "Whether it has IPv6.",
    ),
    key(
        "moby_runtime.network.ipam.config.subnet",
        "CIDR",
        "the engine's choice",
        Used,
        "Its subnet.",
    ),
    key(
        "moby_runtime.network.ipam.config.gateway",
        "address",
        "the engine's choice",
        Used,
        "The device's address in it.",
    ),
    key(
        "moby_runtime.network.ipam.config.ip_range",
        "CIDR",
        "the subnet",
        Used,
        "Where containers get addresses from.",
    ),
    key(
        "holm.bind",
        "address",
        "`\"0.0.0.0\"`",
        Used,
        "The address that modules and downstream devices connect to. A narrower one hides the edge from the rest of the network; containers then use the gateway of their own network.",
    ),
    key(
        "holm.mqtt_port",
        "port",
        "`8883`",
        Used,
        "MQTT over TLS; 0 lets the system choose. Published SDKs know only 8883; modules made for Holm find another in `HOLM_MQTT_PORT`.",
    ),
    key(
        "holm.amqp_port",
        "port",
        "`5671`",
        Used,
        "AMQP over TLS; 0 lets the system choose. Published SDKs know only 5671.",
    ),
    key(
        "holm.https_port",
        "port",
        "`443`",
        Used,
        "HTTPS, and MQTT and AMQP over WebSocket; 0 lets the system choose.",
    ),
    key(
        "holm.metrics_bind",
        "address:port or `\"\"`",
        "`\"127.0.0.1:9600\"`",
        Used,
        "Where `/healthz` and `/metrics` are served without TLS; empty: nowhere. By default containers find them too, at port 9600 of the device's address in their network (`http://edgeHub:9600/metrics`). An edge goes on without them when only this default is taken, and does not start when an address that was given is.",
    ),
    key(
        "holm.data",
        "path",
        "`\"/var/lib/holm/edge\"`",
        Used,
        "The directory of everything that the edge keeps: keys, certificates, state, messages, modules. Absolute.",
    ),
    key(
        "holm.module_paths",
        "list of paths",
        "`[\"/usr/lib/holm/modules\"]`",
        Used,
        "Where images of process modules are looked for, in this order. Absolute.",
    ),
    key(
        "holm.deployment_trial_sec",
        "seconds",
        "`30`",
        Used,
        "How long every module of a new deployment must have run well until it counts as good; before that, the device goes back to the last good one by itself when a module fails. Longer finds more, and the hub is told of success later; 0: as soon as all run.",
    ),
    key(
        "holm.messages_in_memory_bytes",
        "bytes",
        "`0`",
        Used,
        "Messages on their way are kept in memory, at most so many bytes, and not on disk: no wear and no waiting for it, but what was acknowledged to a sender and not delivered is lost when the edge ends (as with `UsePersistentStorage=false` of the original broker). At the limit, senders wait or the oldest go, as `storeAndForwardConfiguration` says. 0: on disk.",
    ),
    key(
        "holm.keep_alive_sec",
        "seconds",
        "`30`",
        Used,
        "How often a silent connection to the hub is proved alive, by a few bytes each way. A dead link is found after twice this, but at most 30 s after the question; later by what a message on its way takes at 600 bytes a second. Shorter finds it sooner; longer costs less on a metered link, and at most 240 s keeps routers from forgetting the connection.",
    ),
    key(
        "holm.log_max_bytes",
        "bytes",
        "`10485760`",
        Used,
        "The largest file of a module's log, where `HostConfig.LogConfig` in its create options does not say: of processes, and of containers whose engine keeps logs in files (`json-file`, `local`). A container has what held when it was created.",
    ),
    key(
        "holm.log_max_files",
        "number",
        "`3`",
        Used,
        "How many such files are kept of a module, the one written to included; the oldest goes first.",
    ),
    key(
        "holm.otel_endpoint",
        "`http://host:port` or `https://…`",
        "none: nothing is sent",
        Used,
        "Where the figures of `/metrics` are sent to, as OTLP over HTTP in JSON: a collector of OpenTelemetry; `/v1/metrics` is added. Needs a program that was built with `--features otel`; another one refuses the key.",
    ),
    key(
        "holm.otel_interval_sec",
        "seconds",
        "`60`",
        Used,
        "How often they are sent. Less often costs less; nothing is lost between, since counters go on counting.",
    ),
    key(
        "holm.hub_protocol",
        "`\"mqtt\"`, `\"mqtt-ws\"`, `\"amqp\"` or `\"amqp-ws\"`",
        "what `agent.env.UpstreamProtocol` says, else `\"mqtt\"`",
        Used,
        "What the edge speaks with the hub. Over MQTT each module and each device below that is at work has a connection; over AMQP up to 995 of them share one, which saves memory and handshakes where they are many. With `-ws` it goes through a WebSocket, to the hub's port for HTTPS, where only that passes.",
    ),
    key(
        "agent.env.UpstreamProtocol",
        "`\"Mqtt\"`, `\"MqttWs\"`, `\"Amqp\"` or `\"AmqpWs\"`",
        "`\"Mqtt\"`",
        Used,
        "The same as `holm.hub_protocol`, which comes first, as the original spells it.",
    ),
    key(
        "holm.hub_mqtt_port",
        "port",
        "`8883`",
        Used,
        "The hub's port for MQTT over TLS.",
    ),
    key(
        "holm.hub_amqp_port",
        "port",
        "`5671`",
        Used,
        "The hub's port for AMQP over TLS.",
    ),
    key(
        "holm.hub_https_port",
        "port",
        "that of the connection string, else `443`",
        Used,
        "The hub's port for HTTPS.",
    ),
    key(
        "prefer_module_identity_cache",
        "boolean",
        "`false`",
        NoEffect("identities are always kept and used while the hub is out of reach"),
        "Use known module identities before the hub is asked.",
    ),
    key(
        "auto_reprovisioning_mode",
        "text",
        "`\"Dynamic\"`",
        Used,
        "When a device asks the provisioning service again by itself: `\"Dynamic\"` when its hub refuses it, `\"OnErrorOnly\"` only if its hub has let in none of its identities since the start, `\"AlwaysOnStartup\"` when its hub refuses it and at each start. Nothing with `source = \"manual\"`.",
    ),
    key(
        "cloud_retries",
        "number",
        "`1`",
        NoEffect("calls to the hub are retried with growing waits and never given up"),
        "How often a call to the hub is retried.",
    ),
    key(
        "iotedge_max_requests.*",
        "numbers",
        "`50`",
        NoEffect(
            "each user has the published number of connections at once: 10 to a workload socket, 50 to the management socket",
        ),
        "Connections to the workload and management APIs.",
    ),
    key(
        "aziot_max_requests.*",
        "numbers",
        "`10`",
        ONE_PROCESS,
        "Connections to the identity services.",
    ),
    key(
        "provisioning.dynamic_reprovisioning",
        "boolean",
        "`false`",
        NoEffect("use `auto_reprovisioning_mode`; a device that its hub refuses asks again in any case"),
        "Older form of `auto_reprovisioning_mode`.",
    ),
    key(
        "agent.*",
        "table",
        "",
        BUILT_IN,
        "Image, environment and create options of the agent's container.",
    ),
    key(
        "connect.workload_uri",
        "URI",
        "",
        NoEffect("each module finds its own socket in `IOTEDGE_WORKLOADURI`"),
        "The workload socket that modules use.",
    ),
    key(
        "listen.workload_uri",
        "URI",
        "",
        NoEffect("each module has a socket in a directory of its own"),
        "The workload socket that is made.",
    ),
    key(
        "watchdog.*",
        "table",
        "",
        BUILT_IN,
        "How often the agent's container is started again.",
    ),
    key(
        "moby_runtime.content_trust.*",
        "table",
        "none",
        NoEffect("the original parses it and does nothing with it either"),
        "Certificates of content trust.",
    ),
    key(
        "parent_hostname",
        "text",
        "none",
        NotYet("connect this edge to the hub itself"),
        "The edge above, for nested edges.",
    ),
    key(
        "additional_info",
        "file",
        "none",
        NotYet("leave it out"),
        "Entries added to the system information.",
    ),
    key(
        "imported_master_encryption_key",
        "file",
        "none",
        NotYet("leave it out; what was encrypted with the old key can't be read"),
        "The encryption key of an earlier installation.",
    ),
    key(
        "localid.*",
        "table",
        "none",
        NotYet("leave it out"),
        "Identities of local clients that the hub does not know.",
    ),
    key(
        "provisioning.global_endpoint",
        "URI",
        "required with `\"dps\"`",
        Used,
        "The provisioning service, `https://` and its host name; a port after it is that of its HTTPS.",
    ),
    key(
        "provisioning.id_scope",
        "text",
        "required with `\"dps\"`",
        Used,
        "What the provisioning service is called: `holm hub id-scope` prints it.",
    ),
    key(
        "provisioning.payload.uri",
        "file",
        "none",
        Used,
        "File with JSON that is sent to the provisioning service's allocation function.",
    ),
    key(
        "provisioning.attestation.method",
        "`\"symmetric_key\"` or `\"x509\"`",
        "`\"symmetric_key\"`",
        Used,
        "How the device proves itself to the provisioning service.",
    ),
    key(
        "provisioning.attestation.registration_id",
        "text",
        "with `\"x509\"` the common name of the certificate, else required",
        Used,
        "Under which id the device asks.",
    ),
    key(
        "provisioning.attestation.symmetric_key.value",
        "base64, secret",
        "none",
        Used,
        "The device's key; of a group, the one derived for this device (`holm dps group device-key`).",
    ),
    key(
        "provisioning.attestation.symmetric_key.uri",
        "file",
        "none",
        Used,
        "File with the device's key in base64, or as it is, with mode 0600.",
    ),
    key(
        "provisioning.attestation.identity_cert",
        "file",
        "required with `\"x509\"`",
        Used,
        "PEM file with the device's certificate and the chain above it. One that was replaced is shown from the next connection on; its common name is the registration id.",
    ),
    key(
        "provisioning.attestation.identity_cert.*",
        "table",
        "",
        ISSUED,
        "How the device's certificate is issued.",
    ),
    key(
        "provisioning.attestation.identity_pk",
        "file",
        "required with `\"x509\"`",
        Used,
        "PEM file with the key of the device's certificate, with mode 0600.",
    ),
    key(
        "provisioning.always_reprovision_on_startup",
        "boolean",
        "`false`",
        Used,
        "Older form of `auto_reprovisioning_mode = \"AlwaysOnStartup\"`.",
    ),
    key(
        "provisioning.authentication.identity_cert",
        "file",
        "required with `\"x509\"`",
        Used,
        "PEM file with the device's certificate and the chain above it. One that was replaced is shown from the next connection on.",
    ),
    key(
        "provisioning.authentication.identity_cert.*",
        "table",
        "",
        ISSUED,
        "How the device's certificate is issued.",
    ),
    key(
        "provisioning.authentication.identity_pk",
        "file",
        "required with `\"x509\"`",
        Used,
        "PEM file with the key of the device's certificate, with mode 0600.",
    ),
    key(
        "cert_issuance.*",
        "table",
        "",
        ISSUANCE,
        "Where certificates are issued (EST, a local CA).",
    ),
    key(
        "edge_ca.method",
        "text",
        "",
        ISSUANCE,
        "How the authority's certificate is issued.",
    ),
    key("edge_ca.common_name", "text", "", ISSUANCE, "The authority's name."),
    key("edge_ca.subject.*", "table", "", ISSUANCE, "The authority's name."),
    key("edge_ca.expiry_days", "days", "", ISSUANCE, "The authority's life."),
    key(
        "edge_ca.url",
        "URI",
        "",
        ISSUANCE,
        "Where the authority's certificate is issued.",
    ),
    key("edge_ca.username", "text", "", ISSUANCE, "Who asks there."),
    key("edge_ca.password", "text", "", ISSUANCE, "Who asks there."),
    key(
        "edge_ca.bootstrap_identity_cert",
        "file",
        "",
        ISSUANCE,
        "Who asks there.",
    ),
    key("edge_ca.bootstrap_identity_pk", "file", "", ISSUANCE, "Who asks there."),
    key("edge_ca.identity_cert", "file", "", ISSUANCE, "Who asks there."),
    key("edge_ca.identity_pk", "file", "", ISSUANCE, "Who asks there."),
    key(
        "edge_ca.auto_renew.*",
        "table",
        "",
        ISSUANCE,
        "When it is renewed; the quick-start authority is renewed at 80 % of its life.",
    ),
    key(
        "preloaded_keys.*",
        "table",
        "",
        NotYet("name files where they are used"),
        "Names for keys.",
    ),
    key(
        "preloaded_certs.*",
        "table",
        "",
        NotYet("name files where they are used"),
        "Names for certificates.",
    ),
    key(
        "aziot_keys.*",
        "table",
        "",
        NotYet("keep keys in files"),
        "Keys in a PKCS #11 module.",
    ),
    key("tpm.*", "table", "", NO_TPM, "The TPM that proves the device."),
    key(
        "image_garbage_collection.*",
        "table",
        "",
        NotYet("remove unused images with the engine's own means, such as a timer with `docker image prune`"),
        "When unused images are removed.",
    ),
];

/// The key at a path, or the one that stands for everything below it.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    let exact = KEYS.iter().find(|key| key.path == path);
    exact.or_else(|| {
        KEYS.iter().find(|key| {
            let below = key.path.strip_suffix(".*");
            below.is_some_and(|above| path == above || is_below(path, above))
        })
    })
}

/// Whether known keys stand below a path, one by one.
pub(super) fn has_parts(path: &str) -> bool {
    KEYS.iter()
        .any(|key| is_below(key.path, path) && key.path.strip_suffix(".*") != Some(path))
}

/// Every path that can be meant.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|key| key.path.strip_suffix(".*").unwrap_or(key.path))
}

fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.starts_with('.'))
}
