//! Which commands there must be.

use super::{deployments, identities, provisioning, twins};

/// The commands with a star, without the three that speak AMQP.
const STARRED: [&str; 37] = [
    "iot hub query",
    "iot hub invoke-device-method",
    "iot hub invoke-module-method",
    "iot hub device-identity create",
    "iot hub device-identity show",
    "iot hub device-identity list",
    "iot hub device-identity update",
    "iot hub device-identity delete",
    "iot hub device-identity renew-key",
    "iot hub device-identity children add",
    "iot hub device-identity children list",
    "iot hub device-identity parent show",
    "iot hub device-identity parent set",
    "iot hub device-identity connection-string show",
    "iot hub module-identity create",
    "iot hub module-identity show",
    "iot hub module-identity list",
    "iot hub module-identity delete",
    "iot hub module-identity connection-string show",
    "iot hub device-twin show",
    "iot hub device-twin update",
    "iot hub module-twin show",
    "iot hub module-twin update",
    "iot hub configuration create",
    "iot hub configuration show",
    "iot edge set-modules",
    "iot edge deployment create",
    "iot edge deployment show",
    "iot edge deployment list",
    "iot edge deployment update",
    "iot edge deployment delete",
    "iot edge deployment show-metric",
    "iot edge devices create",
    "iot dps enrollment create",
    "iot dps enrollment-group create",
    "iot dps enrollment-group show",
    "iot dps enrollment-group registration list",
];

#[test]
fn every_starred_command_of_the_original_command_line_is_in_a_table() {
    let tables = [
        identities::commands(),
        twins::commands(),
        deployments::commands(),
        provisioning::commands(),
    ];
    let lines: Vec<&str> = tables.iter().flatten().map(|command| command.line).collect();

    let missing: Vec<_> = STARRED
        .iter()
        .filter(|name| {
            !lines
                .iter()
                .any(|line| format!("{line} ").starts_with(&format!("{name} ")))
        })
        .collect();

    assert!(missing.is_empty(), "{missing:?}");
}
