//! Figures of a configuration: those that every configuration has, with the queries whose rows they count, and its own.
//!
//! Tools run the texts of the queries, so each means by itself what the figure counts.
//!
//! Source: `hub-service-api.md` §3.5.

use std::collections::BTreeMap;

use super::{ConfigurationId, ConfigurationKind, Target};

/// The most metrics of its own that a configuration has, as published: each is a query over the fleet.
pub const MAX_CUSTOM_METRICS: usize = 5;

/// What the figures of a configuration are at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricResults {
    /// Those that every configuration of its kind has, by their published names.
    pub system: BTreeMap<&'static str, u64>,
    /// Its own, by name; one that can't be counted now is not there.
    pub custom: BTreeMap<String, u64>,
}

/// The queries of the figures that every configuration of a kind has.
#[must_use]
pub fn system_queries(
    kind: ConfigurationKind,
    id: &ConfigurationId,
    target: Target<'_>,
) -> BTreeMap<&'static str, String> {
    let applied = match kind {
        ConfigurationKind::Edge => format!(
            "select deviceId from devices.modules where moduleId = '$edgeAgent' and configurations.[[{id}]].status = 'Applied'"
        ),
        ConfigurationKind::Device => {
            format!("select deviceId from devices where configurations.[[{id}]].status = 'Applied'")
        }
        ConfigurationKind::Module => {
            format!("select deviceId, moduleId from devices.modules where configurations.[[{id}]].status = 'Applied'")
        }
    };
    let mut queries = BTreeMap::from([("targetedCount", targeted(kind, target))]);
    if kind == ConfigurationKind::Edge {
        let current = format!("{applied} and properties.desired.$version = properties.reported.lastDesiredVersion");
        queries.insert(
            "reportedSuccessfulCount",
            format!("{current} and properties.reported.lastDesiredStatus.code = 200"),
        );
        queries.insert(
            "reportedFailedCount",
            format!("{current} and properties.reported.lastDesiredStatus.code != 200"),
        );
    }
    queries.insert("appliedCount", applied);
    queries
}

fn targeted(kind: ConfigurationKind, target: Target<'_>) -> String {
    let all = match kind {
        ConfigurationKind::Edge => "select deviceId from devices where capabilities.iotEdge = true",
        ConfigurationKind::Device => "select deviceId from devices",
        ConfigurationKind::Module => "select deviceId, moduleId from devices.modules",
    };
    match (target, kind) {
        (Target::Nobody, _) => String::new(),
        (Target::All, _) => all.to_owned(),
        // Without the brackets, `or` in the condition would take in devices that are none of the kind.
        (Target::Where(condition), ConfigurationKind::Edge) if has_or(condition) => format!("{all} and ({condition})"),
        (Target::Where(condition), ConfigurationKind::Edge) => format!("{all} and {condition}"),
        (Target::Where(condition), _) => format!("{all} where {condition}"),
    }
}

fn has_or(condition: &str) -> bool {
    condition
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|word| word.eq_ignore_ascii_case("or"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_deployment_has_four_queries_and_others_have_two() {
        let id = ConfigurationId::new("v1").unwrap();

        let edge = system_queries(ConfigurationKind::Edge, &id, Target::Where("tags.a = 1"));
        let device = system_queries(ConfigurationKind::Device, &id, Target::Where("tags.a = 1"));

        assert_eq!(edge.len(), 4);
        assert_eq!(
            edge["targetedCount"],
            "select deviceId from devices where capabilities.iotEdge = true and tags.a = 1"
        );
        assert!(edge["reportedFailedCount"].ends_with("lastDesiredStatus.code != 200"));
        assert_eq!(device["targetedCount"], "select deviceId from devices where tags.a = 1");
        assert_eq!(
            device["appliedCount"],
            "select deviceId from devices where configurations.[[v1]].status = 'Applied'"
        );
    }

    #[test]
    fn nobody_has_no_query_and_or_stands_in_brackets() {
        let id = ConfigurationId::new("v1").unwrap();
        let targeted = |target| system_queries(ConfigurationKind::Edge, &id, target)["targetedCount"].clone();

        assert_eq!(targeted(Target::Nobody), "");
        assert!(targeted(Target::All).ends_with("capabilities.iotEdge = true"));
        assert!(targeted(Target::Where("tags.a=1 OR tags.b=2")).ends_with("and (tags.a=1 OR tags.b=2)"));
        assert!(targeted(Target::Where("tags.order=1")).ends_with("and tags.order=1"));
    }
}
