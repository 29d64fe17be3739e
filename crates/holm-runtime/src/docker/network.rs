//! The network that containers reach the edge in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hyper::Method;
use serde_json::{Value, json};

use super::body::OWNER;
use super::engine::{Call, Engine, encode};
use crate::error::RuntimeError;

/// The network to make if it is not there; `moby_runtime.network` in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Its name.
    pub name: String,
    /// Whether it has IPv6.
    pub ipv6: bool,
    /// Its subnets; the engine chooses when there are none.
    pub subnets: Vec<Subnet>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            name: "azure-iot-edge".to_owned(),
            ipv6: false,
            subnets: Vec::new(),
        }
    }
}

/// One subnet, each part in the engine's notation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subnet {
    /// Such as `172.20.0.0/16`.
    pub subnet: Option<String>,
    /// The address of the device in it.
    pub gateway: Option<String>,
    /// The part of it that containers get addresses from.
    pub ip_range: Option<String>,
}

/// The network as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeNetwork {
    /// Its name.
    pub name: String,
    /// The device's own address in it, where the edge listens for modules.
    pub gateway: IpAddr,
    /// Its subnet in the engine's notation, where the engine tells it.
    pub subnet: Option<String>,
}

/// Finds the network, and makes it if it is not there.
pub(super) async fn ensure(engine: &Engine, config: &NetworkConfig) -> Result<EdgeNetwork, RuntimeError> {
    let operation = format!("tell of the network `{}`", config.name);
    let call = Call::get(operation.as_str(), format!("/networks/{}", encode(&config.name)));
    let network = match engine.json(&call).await {
        Ok(network) => network,
        Err(RuntimeError::Engine { status: 404, .. }) => {
            create(engine, config).await?;
            settle(engine, config).await?;
            engine.json(&call).await?
        }
        Err(RuntimeError::Engine { message, .. }) if message.contains("ambiguous") => {
            settle(engine, config).await?;
            engine.json(&call).await?
        }
        Err(error) => return Err(error),
    };
    read(&config.name, &network).map_err(|reason| RuntimeError::Answer { operation, reason })
}

async fn create(engine: &Engine, config: &NetworkConfig) -> Result<(), RuntimeError> {
    let body = request(config);
    let operation = format!("make the network `{}`", config.name);
    let call = Call::post(operation, "/networks/create").with_body(&body);
    match engine.send(&call).await {
        Ok(answer) => answer.done().await,
        // Somebody else was faster.
        Err(RuntimeError::Engine { status: 409, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Two that make the network at the same moment may both be let: engines look for the name and make it without a lock. The
/// oldest is the network, whoever looks; those that came after it go while nobody is in them.
async fn settle(engine: &Engine, config: &NetworkConfig) -> Result<(), RuntimeError> {
    let operation = format!("list the networks `{}`", config.name);
    let filters = json!({"name": [config.name]}).to_string();
    let call = Call::get(operation, format!("/networks?filters={}", encode(&filters)));
    let all = engine.json(&call).await?;
    for id in surplus(&config.name, &all) {
        let operation = format!("remove the second network `{}`", config.name);
        match engine
            .send(&Call::new(
                Method::DELETE,
                operation,
                format!("/networks/{}", encode(&id)),
            ))
            .await
        {
            Ok(answer) => answer.done().await?,
            // Whoever made it has removed it meanwhile.
            Err(RuntimeError::Engine { status: 404, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The ids of those networks of this name that are ours and are not the oldest.
fn surplus(name: &str, all: &Value) -> Vec<String> {
    let text = |network: &Value, key: &str| network.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let all = all.as_array().into_iter().flatten();
    let mut named: Vec<_> = all.filter(|network| text(network, "Name") == name).collect();
    named.sort_by_key(|network| (text(network, "Created"), text(network, "Id")));
    let ours = |network: &&&Value| network.get("Labels").and_then(|labels| labels.get(OWNER.0)).is_some();
    named
        .iter()
        .skip(1)
        .filter(ours)
        .map(|network| text(network, "Id"))
        .collect()
}

fn request(config: &NetworkConfig) -> Value {
    let mut body = json!({
        "Name": config.name,
        "Driver": "bridge",
        "CheckDuplicate": true,
        "EnableIPv6": config.ipv6,
        "Labels": {OWNER.0: OWNER.1},
    });
    if !config.subnets.is_empty() {
        let subnets = config.subnets.iter().map(|subnet| {
            let parts = [
                ("Subnet", &subnet.subnet),
                ("Gateway", &subnet.gateway),
                ("IPRange", &subnet.ip_range),
            ];
            let given = parts
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), Value::from(value.clone()?))));
            given.collect::<Value>()
        });
        body["IPAM"] = json!({"Driver": "default", "Config": subnets.collect::<Vec<_>>()});
    }
    body
}

fn read(name: &str, network: &Value) -> Result<EdgeNetwork, String> {
    let configs = network.pointer("/IPAM/Config").and_then(Value::as_array);
    let found = configs.into_iter().flatten().filter_map(|config| {
        let subnet = config.get("Subnet").and_then(Value::as_str);
        let gateway = config.get("Gateway").and_then(Value::as_str);
        // Some engines give the address with the length of its prefix.
        let gateway = gateway.and_then(|text| text.split('/').next()?.parse::<IpAddr>().ok());
        let gateway = gateway.or_else(|| first_address(subnet?))?;
        Some(EdgeNetwork {
            name: name.to_owned(),
            gateway,
            subnet: subnet.map(str::to_owned),
        })
    });
    let mut found: Vec<EdgeNetwork> = found.collect();
    // Every client speaks IPv4; few listeners on small devices are asked for more.
    found.sort_by_key(|network| network.gateway.is_ipv6());
    let first = found.into_iter().next();
    first.ok_or_else(|| format!("the network `{name}` has no gateway address; remove it and let it be made again"))
}

/// The first address of a subnet, which the engine gives to the device when nobody chooses another.
fn first_address(subnet: &str) -> Option<IpAddr> {
    Some(match subnet.split('/').next()?.parse().ok()? {
        IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from_bits(base.to_bits().checked_add(1)?)),
        IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from_bits(base.to_bits().checked_add(1)?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_networks_with_one_name_the_later_one_of_ours_is_surplus() {
        let ours = json!({OWNER.0: OWNER.1});
        let all = json!([
            {"Name": "n", "Id": "b", "Created": "2026-01-01T00:00:02Z", "Labels": ours},
            {"Name": "n", "Id": "a", "Created": "2026-01-01T00:00:01Z", "Labels": ours},
            {"Name": "n", "Id": "c", "Created": "2026-01-01T00:00:03Z", "Labels": {}},
            {"Name": "n2", "Id": "d", "Created": "2026-01-01T00:00:04Z", "Labels": ours},
        ]);

        assert_eq!(surplus("n", &all), ["b"]);
        assert_eq!(surplus("n2", &all), Vec::<String>::new());
    }

    #[test]
    fn gateway_is_read_or_made_from_the_subnet() {
        let rows = [
            (
                json!([{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}]),
                "172.18.0.1",
            ),
            (json!([{"Subnet": "10.1.0.0/24"}]), "10.1.0.1"),
            (
                json!([{"Subnet": "fd00::/64", "Gateway": "fd00::1/64"}, {"Subnet": "10.2.0.0/24"}]),
                "10.2.0.1",
            ),
            (json!([{"Subnet": "fd00::/64"}]), "fd00::1"),
        ];
        for (config, gateway) in rows {
            let network = read("n", &json!({"IPAM": {"Config": config}})).unwrap();
            assert_eq!(network.gateway.to_string(), gateway);
        }
    }

    #[test]
    fn a_network_without_addresses_is_refused_by_name() {
        assert!(
            read("plant", &json!({"IPAM": {"Config": null}}))
                .unwrap_err()
                .contains("`plant`")
        );
    }

    #[test]
    fn configured_subnets_are_asked_for() {
        let config = NetworkConfig {
            subnets: vec![Subnet {
                subnet: Some("10.3.0.0/24".into()),
                gateway: Some("10.3.0.9".into()),
                ip_range: None,
            }],
            ..NetworkConfig::default()
        };

        let body = request(&config);

        assert_eq!(
            body["IPAM"]["Config"],
            json!([{"Subnet": "10.3.0.0/24", "Gateway": "10.3.0.9"}])
        );
        assert_eq!(body["Name"], "azure-iot-edge");
    }
}
