//! Deployments are all or nothing: what a hub sees of it.

use super::*;

/// A device on which version 2 of the deployment, with `a` and `b`, has proved itself.
async fn device() -> Device {
    let device = Device::started().await;
    device.deploy(json!({"a": process("1"), "b": process("1")}));
    device.commits(2).await;
    device.reports("/lastDesiredVersion", json!(2)).await;
    device.runtime.take_log();
    device
}

fn images(device: &Device) -> [Option<String>; 3] {
    ["a", "b", "c"].map(|name| device.runtime.image(&module(name)))
}

fn old() -> [Option<String>; 3] {
    [Some("1".to_owned()), Some("1".to_owned()), None]
}

#[tokio::test]
async fn a_deployment_whose_module_crashes_is_taken_back_whole_and_the_hub_is_told_why() {
    let device = device().await;
    device.runtime.crash_at_start("bad", true);

    device.deploy(json!({"a": process("2"), "b": process("bad"), "c": process("1")}));
    device.reports("/lastDesiredStatus/code", json!(500)).await;
    until("the old modules run", || images(&device) == old()).await;
    device.reports("/modules/b/runtimeStatus", json!("running")).await;

    let reported = device.reported();
    assert_eq!(reported["lastDesiredVersion"], 3);
    let text = reported["lastDesiredStatus"]["description"].as_str().unwrap();
    assert!(
        text.contains("went back to version 2") && text.contains("b: it ended with exit code 3"),
        "{text}"
    );
    assert!(!text.contains("a: ") && text.contains("`holm edge retry`"), "{text}");
    let of_module = reported["modules"]["b"]["statusDescription"].as_str().unwrap();
    assert!(
        of_module.contains("version 3") && of_module.contains("exit code 3"),
        "{of_module}"
    );
    assert_eq!(reported.pointer("/modules/c"), None);

    device.deploy(json!({"b": process("3")}));
    device.commits(4).await;
    device
        .reports("/lastDesiredStatus", json!({"code": 200, "description": ""}))
        .await;
    device.reports("/lastDesiredVersion", json!(4)).await;
    assert_eq!(images(&device), ["2", "3", "1"].map(|image| Some(image.to_owned())));
}

#[tokio::test]
async fn what_was_taken_back_is_tried_again_only_when_somebody_says_so() {
    let device = device().await;
    device.runtime.crash_at_start("bad", true);
    device.deploy(json!({"b": process("bad")}));
    until("version 3 was taken back", || {
        device.status()["rollout"]["phase"] == "taken back"
    })
    .await;
    until("the old modules run", || images(&device) == old()).await;

    device.stop().await;
    device.runtime.crash_at_start("bad", false);
    device.start().await;
    device.reports("/lastDesiredStatus/code", json!(500)).await;
    device.passes(5).await;
    assert_eq!(images(&device), old(), "not by itself");
    let agent = device.running.lock().unwrap().as_ref().unwrap().0.clone();
    assert!(agent.retry().await);
    device.commits(3).await;

    assert_eq!(device.runtime.image(&module("b")).as_deref(), Some("bad"));
    device.reports("/lastDesiredStatus/code", json!(200)).await;
    assert!(!agent.retry().await, "nothing is left to try");
}

#[tokio::test]
async fn one_module_that_is_not_ready_keeps_the_whole_deployment_off_and_is_tried_again_after_a_restart_without_hub() {
    let device = device().await;
    device.runtime.fail("2", Some("no such image"));
    device.deploy(json!({"a": process("2"), "c": process("1")}));
    device.reports("/lastDesiredStatus/code", json!(500)).await;
    let text = device.reported()["lastDesiredStatus"]["description"].to_string();
    assert!(text.contains("a: ") && text.contains("no such image"), "{text}");
    assert_eq!(device.reported()["lastDesiredVersion"], 3);
    assert_eq!(images(&device), old());

    device.stop().await;
    device.hub.cut().await;
    device.runtime.fail("2", None);
    device.start().await;
    device.commits(3).await;

    assert_eq!(images(&device), ["2", "1", "1"].map(|image| Some(image.to_owned())));
}

#[tokio::test]
async fn success_is_not_told_before_the_trial_is_over() {
    let device = device().await;
    let codes = |device: &Device| {
        (
            device.reported()["lastDesiredVersion"].clone(),
            device.status()["rollout"]["phase"].clone(),
        )
    };

    device.deploy(json!({"a": process("2")}));
    until("version 3 is on trial or good", || {
        let (version, phase) = codes(&device);
        assert!(version == 2 || phase == "committed", "{version} {phase}");
        phase == "trial" || version == 3
    })
    .await;

    device.reports("/lastDesiredVersion", json!(3)).await;
    assert_eq!(device.status()["rollout"]["phase"], "committed");
}

#[tokio::test]
async fn a_clock_that_is_set_forward_takes_no_deployment_back_that_is_still_to_be_healthy() {
    let device = device().await;
    device.runtime.has_health_check("slow");
    device.deploy(json!({"a": process("slow")}));
    until("the new module runs", || device.status()["rollout"]["phase"] == "trial").await;
    device.passes(2).await;

    device.ahead.store(90 * 86_400, Ordering::SeqCst);
    device.passes(5).await;

    assert_eq!(device.status()["rollout"]["phase"], "trial");
    device.runtime.set_health(&module("a"), Health::Healthy);
    device.commits(3).await;
}
