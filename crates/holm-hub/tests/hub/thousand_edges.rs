//! A base deployment with two layers over a thousand edges whose tags flip: what each has is compared with a reference that is worked
//! out by hand, figures with counts, and explanations with both.

use std::collections::BTreeMap;

use holm_gateway::{Subscriptions, Twins as _};
use serde_json::{Map, Value, json};

use crate::configurations::{base, layer, module, statuses};
use crate::support::{TestHub, identity};

/// What one device of the fleet below must have, worked out by hand from its tags.
fn expected(site: &str, ring: u32) -> (BTreeMap<String, String>, Value) {
    let mut modules = BTreeMap::from([("collect".to_owned(), "collect:1".to_owned())]);
    let mut statuses = json!({"base": "Applied"});
    if site == "mine" {
        modules.insert("collect".to_owned(), "collect:mine".to_owned());
        modules.insert("dust".to_owned(), "dust:1".to_owned());
        statuses["mine"] = json!("Applied");
    }
    if ring == 0 || ring == 1 {
        modules.insert("collect".to_owned(), "collect:next".to_owned());
        statuses["next"] = json!("Applied");
    }
    (modules, statuses)
}

#[tokio::test]
async fn a_thousand_edges_whose_tags_flip_have_what_a_reference_says() {
    const EDGES: u32 = 1000;
    let hub = TestHub::start().await;
    let (sites, rings) = (["mine", "port", "farm"], 5);
    let tags = |number: u32, turn: u32| {
        let mixed = number.wrapping_mul(2_654_435_761).rotate_left(turn * 7) >> 3;
        (sites[(mixed % 3) as usize], mixed / 3 % rings)
    };
    let set = async |number: u32, turn: u32| {
        let (site, ring) = tags(number, turn);
        let path = format!("/twins/e{number}");
        hub.patch(&path, json!({"tags": {"site": site, "ring": ring}}))
            .await
            .ok();
    };
    let each = |numbers: Vec<u32>| numbers.chunks(50).map(<[u32]>::to_vec).collect::<Vec<_>>();
    for chunk in each((0..EDGES).collect()) {
        let (hub, set) = (&hub, &set);
        futures_util::future::join_all(chunk.iter().map(|number| async move {
            hub.edge_device(&format!("e{number}")).await;
            set(*number, 0).await;
        }))
        .await;
    }
    hub.configure("base", 10, "*", &base(&[("collect", "collect:1")])).await;
    let mine = json!({"modulesContent": {"$edgeAgent": {
        "properties.desired.modules.collect": module("collect:mine"),
        "properties.desired.modules.dust": module("dust:1"),
    }}});
    hub.configure("mine", 20, "tags.site = 'mine'", &mine).await;
    hub.configure("next", 30, "tags.ring IN [0, 1]", &layer("collect", "collect:next"))
        .await;

    // Some say what became of their deployment: half of those in each turn, so that others have said it of an earlier one.
    let mut reporters = BTreeMap::new();
    for number in (0..EDGES).filter(|number| number % 25 < 2) {
        let mut client = hub.connect(&format!("e{number}"), Subscriptions::NONE).await;
        client.admission.identity = identity(&format!("e{number}/$edgeAgent"));
        reporters.insert(number, (client, Value::Null, 0));
    }

    for turn in 0..3 {
        if turn > 0 {
            // A third of them flips.
            for chunk in each((0..EDGES).filter(|number| number % 3 == turn).collect()) {
                futures_util::future::join_all(chunk.iter().map(|number| set(*number, turn))).await;
            }
        }
        hub.settle().await;
        for (number, (client, version, code)) in &mut reporters {
            if (*number / 25 + turn) % 2 == 0 {
                let twin = hub.agent(&format!("e{number}")).await;
                *version = twin["properties"]["desired"]["$version"].clone();
                *code = if *number % 25 == 0 { 200 } else { 500 };
                let report = json!({"lastDesiredVersion": version, "lastDesiredStatus": {"code": code}});
                let backend = hub.hub.backend();
                backend.patch_reported(&client.admission, report, None).await.unwrap();
            }
        }

        // Targeted and applied, successful, failed.
        let mut counts: BTreeMap<String, [u64; 3]> = BTreeMap::new();
        for number in 0..EDGES {
            let flipped = if turn > 0 && number % 3 > 0 && number % 3 <= turn {
                number % 3
            } else {
                0
            };
            let (site, ring) = tags(number, flipped);
            let (modules, expected_statuses) = expected(site, ring);
            let twin = hub.get(&format!("/twins/e{number}/modules/$edgeAgent")).await.ok();
            let has = twin["properties"]["desired"]["modules"].as_object().unwrap();
            let images = has
                .iter()
                .map(|(name, it)| (name.clone(), it["settings"]["image"].as_str().unwrap().to_owned()));
            assert_eq!(images.collect::<BTreeMap<_, _>>(), modules, "e{number} {site} {ring}");
            assert_eq!(statuses(&twin), expected_statuses);
            let now = &twin["properties"]["desired"]["$version"];
            let said = reporters.get(&number).filter(|(_, version, _)| version == now);
            for (id, _) in expected_statuses.as_object().unwrap() {
                let [all, successful, failed] = counts.entry(id.clone()).or_default();
                *all += 1;
                match said.map(|said| said.2) {
                    Some(200) => *successful += 1,
                    Some(_) => *failed += 1,
                    None => {}
                }
            }
            if number % 10 == turn {
                check_explanation(&hub, number, &twin).await;
            }
        }
        for (id, [all, successful, failed]) in counts {
            let counted = json!({"targetedCount": all, "appliedCount": all, "reportedSuccessfulCount": successful,
                "reportedFailedCount": failed});
            assert_eq!(hub.results(&id).await, counted, "{id}");
        }
    }
}

/// What is explained is what the twin holds.
async fn check_explanation(hub: &TestHub, number: u32, twin: &Value) {
    let told = hub
        .get(&format!("/holm/v1/devices/e{number}/configurations"))
        .await
        .ok();
    let part = &told["parts"][0];
    assert_eq!((&part["inForce"], &part["problem"]), (&json!(true), &Value::Null));
    let told_statuses: Map<String, Value> = part["configurations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["id"].as_str().unwrap().to_owned(), it["status"].clone()))
        .collect();
    assert_eq!(Value::Object(told_statuses), statuses(twin));
    for (name, entry) in twin["properties"]["desired"]["modules"].as_object().unwrap() {
        let items = part["items"].as_array().unwrap();
        let item = items.iter().find(|it| it["item"] == format!("module {name}")).unwrap();
        let claims = item["claims"].as_array().unwrap();
        let winners: Vec<_> = claims.iter().filter(|claim| claim["verdict"] == "in force").collect();
        assert_eq!(winners.len(), 1);
        assert_eq!(winners[0]["configuration"], entry["configuration"]["id"]);
    }
}
