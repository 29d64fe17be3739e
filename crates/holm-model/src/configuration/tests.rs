use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::manifest::ModuleContent;
use crate::{ErrorCode, ModuleId, ServiceError, Timestamp};

fn id(name: &str) -> ConfigurationId {
    ConfigurationId::new(name).unwrap()
}

fn wish(name: &str, body: &Value) -> Result<ConfigurationWish, ServiceError> {
    ConfigurationWish::from_json(&id(name), body.to_string().as_bytes())
}

fn made(name: &str, priority: u32, created: i64, content: &Value) -> Configuration {
    let body = json!({"priority": priority, "content": content, "targetCondition": "*"});
    let now = Timestamp::from_unix_millis(created);
    Configuration::create(id(name), wish(name, &body).unwrap(), now, 1).unwrap()
}

fn module(image: &str) -> Value {
    json!({"type": "docker", "status": "running", "restartPolicy": "always", "settings": {"image": image}})
}

fn base(name: &str, priority: u32, created: i64, modules: &[(&str, &str)]) -> Configuration {
    let specs: Map<String, Value> = modules
        .iter()
        .map(|(name, image)| ((*name).to_owned(), module(image)))
        .collect();
    made(
        name,
        priority,
        created,
        &json!({"modulesContent": {
            "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "runtime": {"type": "docker", "settings": {}}, "modules": specs}},
            "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {}}},
        }}),
    )
}

fn layer(name: &str, priority: u32, created: i64, modules: Value) -> Configuration {
    made(name, priority, created, &json!({ "modulesContent": modules }))
}

fn section(plan: &EdgePlan, module: &str) -> Value {
    let content = plan.content.as_ref().unwrap();
    match &content.modules[&ModuleId::new(module).unwrap()] {
        ModuleContent::Whole(section) => json!(section),
        ModuleContent::Paths(paths) => panic!("{paths:?}"),
    }
}

fn status(plan: &BTreeMap<ConfigurationId, Status>, name: &str) -> &'static str {
    plan[&id(name)].as_str()
}

/// Acceptance rows 59 and 62.
#[test]
fn of_two_bases_the_greater_priority_applies_and_of_two_equal_the_newer() {
    let (v10, v20) = (base("v10", 10, 5, &[]), base("v20", 20, 1, &[]));
    let (old, new) = (base("a", 20, 1, &[("m", "1")]), base("b", 20, 2, &[("m", "2")]));

    let by_priority = EdgePlan::of(&[&v10, &v20]);
    let by_age = EdgePlan::of(&[&new, &old]);

    assert_eq!(by_priority.chain, [id("v20")]);
    assert_eq!(status(&by_priority.statuses, "v20"), "Applied");
    assert_eq!(status(&by_priority.statuses, "v10"), "Targeted");
    assert_eq!(by_age.chain, [id("b")]);
}

/// Acceptance rows 60 and 61.
#[test]
fn a_layer_above_the_base_is_merged_and_one_at_or_below_it_is_not() {
    let base = base("base", 10, 1, &[("m", "1")]);
    let set = |name: &str| json!({"$edgeAgent": {format!("properties.desired.modules.{name}"): module("x")}});
    let (above, level, below) = (
        layer("above", 15, 2, set("x")),
        layer("level", 10, 3, set("y")),
        layer("below", 5, 4, set("z")),
    );

    let plan = EdgePlan::of(&[&below, &above, &base, &level]);

    assert_eq!(plan.chain, [id("base"), id("above")]);
    let agent = section(&plan, "$edgeAgent");
    let modules: Vec<_> = agent["modules"].as_object().unwrap().keys().collect();
    assert_eq!(modules, ["m", "x"]);
    assert_eq!(agent["modules"]["x"]["configuration"], json!({"id": "above"}));
    assert_eq!(agent["modules"]["m"]["configuration"], json!({"id": "base"}));
    assert_eq!(status(&plan.statuses, "level"), "Targeted");
}

#[test]
fn layers_without_a_base_write_nothing() {
    let alone = layer(
        "l",
        5,
        1,
        json!({"$edgeAgent": {"properties.desired.modules.x": module("x")}}),
    );

    let plan = EdgePlan::of(&[&alone]);

    assert_eq!((plan.content, plan.chain), (None, Vec::new()));
    assert_eq!(status(&plan.statuses, "l"), "Targeted");
}

#[test]
fn a_layer_replaces_a_section_as_a_whole_or_adds_to_it_by_paths() {
    let base = made(
        "base",
        1,
        1,
        &json!({"modulesContent": {
            "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "runtime": {"type": "docker", "settings": {}}, "modules": {}}},
            "m": {"properties.desired": {"a": 1, "b": {"c": 2}}},
            "n": {"properties.desired": {"a": 1}},
        }}),
    );
    let adds = layer(
        "adds",
        2,
        1,
        json!({"$edgeAgent": {}, "m": {"properties.desired.b.d": 3}}),
    );
    let whole = layer(
        "whole",
        3,
        1,
        json!({"$edgeAgent": {}, "n": {"properties.desired": {"z": 1}}}),
    );

    let plan = EdgePlan::of(&[&whole, &adds, &base]);

    assert_eq!(section(&plan, "m"), json!({"a": 1, "b": {"c": 2, "d": 3}}));
    assert_eq!(section(&plan, "n"), json!({"z": 1}));
    // Published: such a layer is merged, and never said to be applied.
    assert_eq!(status(&plan.statuses, "whole"), "Targeted");
    assert_eq!(plan.chain.len(), 3);
}

#[test]
fn settings_are_decided_path_by_path_and_taken_back_when_nobody_sets_them() {
    let low = made(
        "low",
        1,
        1,
        &json!({"deviceContent": {"properties.desired.a": {"x": 1}, "properties.desired.b.c": 1}}),
    );
    let high = made(
        "high",
        2,
        1,
        &json!({"deviceContent": {"properties.desired.a.x": 2, "properties.desired.b": {"c": 9}}}),
    );
    let current = json!({"own": true, "b": {"mine": 1}}).as_object().unwrap().clone();

    let both = SettingsPlan::of(&[&low, &high]);
    let first = both.applied_to(&current, &[]);
    let rest = SettingsPlan::of(&[&low]);
    let second = rest.applied_to(&first, &both.written());
    let third = SettingsPlan::of(&[]).applied_to(&second, &rest.written());

    assert_eq!(json!(first), json!({"own": true, "a": {"x": 2}, "b": {"c": 9}}));
    assert_eq!(status(&both.statuses, "low"), "Applied");
    assert_eq!(json!(second), json!({"own": true, "a": {"x": 1}, "b": {"c": 1}}));
    assert_eq!(json!(third), json!({"own": true}));
}

#[test]
fn what_is_outranked_in_every_path_is_targeted() {
    let content = json!({"deviceContent": {"properties.desired.a": 1}});
    let (low, high) = (made("low", 1, 9, &content), made("high", 2, 1, &content));

    let plan = SettingsPlan::of(&[&low, &high]);

    assert_eq!(status(&plan.statuses, "low"), "Targeted");
    assert_eq!(plan.settings.len(), 1);
}

#[test]
fn each_claim_is_told_with_what_became_of_it() {
    let base = base("base", 1, 1, &[("m", "1"), ("n", "1")]);
    let first = layer(
        "first",
        2,
        1,
        json!({"$edgeAgent": {"properties.desired.modules.m": module("2")}, "$edgeHub": {"properties.desired.routes.up": "FROM /* INTO $upstream"}}),
    );
    let second = layer(
        "second",
        3,
        1,
        json!({"$edgeAgent": {"properties.desired.modules.m.env": {"A": {"value": 1}}}}),
    );

    let claims = claims(&[&second, &base, &first]);
    let of = |item: Item| {
        let told = claims[&item].iter().map(|claim| match &claim.verdict {
            Verdict::InForce => format!("{} {}", claim.configuration, claim.detail.as_deref().unwrap_or("-")),
            Verdict::ReplacedBy(by) => format!("{} lost to {by}", claim.configuration),
        });
        told.collect::<Vec<_>>()
    };

    assert_eq!(
        of(Item::Module("m".into())),
        ["base lost to first", "first -", "second env"]
    );
    assert_eq!(of(Item::Module("n".into())), ["base -"]);
    assert_eq!(of(Item::Route("up".into())), ["first -"]);
}

#[test]
fn content_that_is_none_both_or_no_twins_is_refused_by_its_name() {
    let big = "x".repeat(4096);
    let huge: Map<String, Value> = (0..9).map(|n| (format!("p{n}"), json!(big))).collect();
    for (content, named) in [
        (
            json!({"deviceContent": {"properties.desired.a": 1}, "moduleContent": {"properties.desired.a": 1}}),
            "both",
        ),
        (json!({"deviceContent": {"tags.a": 1}}), "`tags.a`"),
        (
            json!({"deviceContent": {"properties.desired": {}}}),
            "`properties.desired`",
        ),
        (json!({"deviceContent": 1}), "`content.deviceContent`"),
        (
            json!({"modulesContent": {"m": {"properties.desired": {}}}}),
            "`$edgeAgent` is missing",
        ),
        (
            json!({"modulesContent": {"$edgeAgent": {"properties.desired": {}}, "$edgeHub": {}}}),
            "the other by paths",
        ),
        (
            json!({"modulesContent": {"$edgeAgent": {"properties.desired.systemModules.edgeHub": {}}}}),
            "systemModules",
        ),
        (
            json!({"modulesContent": {"$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": {"m": 1}}}}}),
            "`modules.m`",
        ),
        (
            json!({"modulesContent": {"$edgeAgent": {}, "m": {"properties.desired": huge}}}),
            "of `m`",
        ),
    ] {
        let refused = wish("c", &json!({ "content": content })).unwrap_err();
        assert!(refused.message.contains(named), "{refused} for {content}");
    }
}

#[test]
fn empty_kinds_count_as_absent_and_a_configuration_needs_one() {
    let body =
        json!({"content": {"modulesContent": {}, "moduleContent": null, "deviceContent": {"properties.desired.a": 1}}});
    let kind = wish("c", &body).unwrap().content.unwrap().0.kind();
    let nothing = wish("c", &json!({"content": {"modulesContent": {}}})).unwrap();

    let refused = Configuration::create(id("c"), nothing, Timestamp::NEVER, 1).unwrap_err();

    assert_eq!(kind, ConfigurationKind::Device);
    assert_eq!(refused.code, ErrorCode::InvalidConfigurationContent);
}

/// Acceptance rows 54 and 55.
#[test]
fn content_stays_and_the_rest_may_change() {
    let before = base("c", 1, 1, &[("m", "1")]);
    let same = json!({"priority": 7, "content": before.to_stored()["content"], "labels": {"a": "b"}});
    let other = json!({"content": {"deviceContent": {"properties.desired.a": 1}}});
    let now = Timestamp::from_unix_millis(9);

    let changed = before.changed(wish("c", &same).unwrap(), now, 2).unwrap();
    let refused = before.changed(wish("c", &other).unwrap(), now, 2).unwrap_err();

    assert_eq!((changed.priority(), changed.created()), (7, before.created()));
    assert_eq!(changed.target_condition(), "*");
    assert_eq!(refused.code, ErrorCode::CannotModifyImmutableConfigurationContent);
}

#[test]
fn a_stored_configuration_reads_back() {
    let before = base("c", 3, 5, &[("m", "1")]);

    let stored = before.to_stored();
    let after = Configuration::from_stored(id("c"), &stored, before.created(), before.updated(), 1);

    assert_eq!(after.as_ref(), Some(&before));
}

#[test]
fn members_of_the_wrong_kind_are_named() {
    for (body, named) in [
        (json!({"priority": -1}), "`priority`"),
        (json!({"priority": 1.5}), "`priority`"),
        (json!({"priority": 4_000_000_000_u32}), "`priority`"),
        (json!({"labels": {"a": 1}}), "the label `a`"),
        (json!({"targetCondition": 1}), "`targetCondition`"),
        (json!({"id": "other"}), "`id`"),
        (json!({"metrics": {"queries": {"m": ""}}}), "the metric `m`"),
        (
            json!({"metrics": {"queries": {"1":"q","2":"q","3":"q","4":"q","5":"q","6":"q"}}}),
            "at most 5",
        ),
    ] {
        let refused = wish("c", &body).unwrap_err();
        assert!(refused.message.contains(named), "{refused}");
    }
}

#[test]
fn the_published_form_has_every_member_and_no_null_block() {
    let document = base("c", 3, 5, &[]).to_json(&MetricResults::default());

    for name in ["queries", "results"] {
        assert!(document["metrics"][name].is_object() && document["systemMetrics"][name].is_object());
    }
    assert!(document["content"]["modulesContent"].is_object());
    assert!(document["content"]["deviceContent"].is_null());
    assert!(document["etag"].is_string() && document["targetCondition"] == "*");
}

// What follows compares with a reference that is as plain as possible.

/// Layers and bases over few modules, so that they meet.
fn deployments() -> impl Strategy<Value = Vec<Configuration>> {
    let entry = (
        0..4_u32,
        0..3_i64,
        any::<bool>(),
        proptest::collection::btree_map("[xyz]", 0..3_u32, 0..3),
    );
    proptest::collection::vec(entry, 0..6).prop_map(|all| {
        let made = all
            .into_iter()
            .enumerate()
            .map(|(index, (priority, created, is_base, entries))| {
                let name = format!("c{index}");
                if is_base {
                    let images: Vec<_> = entries.iter().map(|(name, n)| (name.as_str(), n.to_string())).collect();
                    let images: Vec<_> = images.iter().map(|(name, image)| (*name, image.as_str())).collect();
                    base(&name, priority, created, &images)
                } else {
                    let paths: Map<String, Value> = entries
                        .iter()
                        .map(|(name, n)| {
                            let value = if *n == 0 { Value::Null } else { module(&n.to_string()) };
                            (format!("properties.desired.modules.{name}"), value)
                        })
                        .collect();
                    layer(&name, priority, created, json!({ "$edgeAgent": paths }))
                }
            });
        made.collect()
    })
}

/// Which deployment gives module `name`, found by asking each for itself.
fn giver<'c>(all: &'c [Configuration], name: &str) -> Option<(&'c Configuration, Value)> {
    let mut best_base: Option<&Configuration> = None;
    for it in all.iter().filter(|it| !it.is_layer()) {
        if best_base.is_none_or(|best| {
            (it.priority(), it.created(), it.id().as_str()) > (best.priority(), best.created(), best.id().as_str())
        }) {
            best_base = Some(it);
        }
    }
    let best_base = best_base?;
    let mut winner: Option<(&Configuration, Value)> = None;
    for it in all {
        let stored = it.to_stored();
        let agent = &stored["content"]["modulesContent"]["$edgeAgent"];
        let given = if it.is_layer() {
            let is_above = it.priority() > best_base.priority();
            agent
                .get(format!("properties.desired.modules.{name}"))
                .filter(|_| is_above)
        } else {
            let is_best = it.id() == best_base.id();
            agent["properties.desired"]["modules"].get(name).filter(|_| is_best)
        };
        if let Some(given) = given {
            let better = winner.as_ref().is_none_or(|(best, _)| it.rank() > best.rank());
            if better {
                winner = Some((it, given.clone()));
            }
        }
    }
    winner.filter(|(_, value)| !value.is_null())
}

proptest! {
    #[test]
    fn the_merge_equals_a_plain_reference(all in deployments()) {
        let plan = EdgePlan::of(&all.iter().collect::<Vec<_>>());

        for name in ["x", "y", "z"] {
            let expected = giver(&all, name).map(|(it, mut value)| {
                value["configuration"] = json!({"id": it.id().as_str()});
                value
            });
            let agent = plan.content.as_ref().map(|_| section(&plan, "$edgeAgent"));
            let found = agent.as_ref().and_then(|agent| agent["modules"].get(name));
            prop_assert_eq!(found, expected.as_ref());
        }
    }

    #[test]
    fn the_order_of_arrival_never_matters(all in deployments(), seed in any::<u64>()) {
        let sorted: Vec<_> = all.iter().collect();
        let mut shuffled = sorted.clone();
        shuffled.sort_by_key(|it| (it.id().as_str().len() as u64 ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(it.priority()).rotate_left((seed % 64) as u32));
        shuffled.reverse();

        prop_assert_eq!(EdgePlan::of(&sorted), EdgePlan::of(&shuffled));
        prop_assert_eq!(claims(&sorted), claims(&shuffled));
    }

    #[test]
    fn a_claim_in_force_is_what_the_twin_holds(all in deployments()) {
        let all: Vec<_> = all.iter().collect();
        let plan = EdgePlan::of(&all);

        for (item, claims) in claims(&all) {
            let Item::Module(name) = item else { continue };
            let agent = section(&plan, "$edgeAgent");
            let holds = agent["modules"].get(&name).map(|entry| entry["configuration"]["id"].clone());
            let winners: Vec<_> = claims.iter().filter(|claim| claim.verdict == Verdict::InForce).collect();
            prop_assert_eq!(winners.len(), 1);
            let expected = (!winners[0].removes).then(|| json!(winners[0].configuration.as_str()));
            prop_assert_eq!(holds, expected);
        }
    }
}
