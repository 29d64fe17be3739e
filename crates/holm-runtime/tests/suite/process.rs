//! The process runtime against real processes: starting, stopping, output, and what a module may and may not have.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use crate::support::{Device, eventually, frames, id, read_logs, wait_for_status};
use futures_util::StreamExt;
use holm_runtime::{Health, LogsOptions, ModuleRuntime, Reachability, RuntimeError, RuntimeStatus, Tail};
use serde_json::json;

#[tokio::test]
async fn a_module_runs_with_its_environment_arguments_and_directory_and_nothing_of_the_edge() {
    let device = Device::new();
    device.script(
        "show",
        "echo \"$A $B [$HOME$CARGO$USER] $1 $(pwd)\"; readlink /proc/$$/fd/0; exit 3",
    );
    let mut spec = device.spec("show:latest", json!({"Cmd": ["arg"], "Env": ["B=options"]}));
    spec.env = [("A", "spec"), ("B", "spec")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();

    device.runtime.create(&spec).await.unwrap();
    device.runtime.start(&spec.id).await.unwrap();
    let state = wait_for_status(&device.runtime, &spec.id, RuntimeStatus::Failed).await;

    let work = device.module_directory().join("work");
    let lines = device.output(&spec.id).await;
    assert_eq!(lines[0], (1, format!("spec options [] arg {}\n", work.display())));
    assert_eq!(lines[1].1, "/dev/null\n");
    assert_eq!(state.exit_code, Some(3));
    assert!(state.started_at <= state.exited_at && state.started_at.is_some());
    assert_eq!(state.spec_digest, Some(spec.digest()));
    assert!(state.image_hash.unwrap().starts_with("sha256:"));
    assert_eq!(state.pid, None);
}

/// A check every few milliseconds.
fn check(test: &[&str], retries: u32) -> serde_json::Value {
    json!({"Healthcheck": {"Test": test, "Interval": 20_000_000, "Timeout": 200_000_000, "Retries": retries}})
}

#[tokio::test]
async fn a_health_check_is_run_as_the_module_itself_and_says_why_it_fails() {
    let device = Device::new();
    device.script("served", "touch well; echo ready; while :; do sleep 0.05; done");
    let mut options = check(&["CMD-SHELL", "echo \"$WHAT is not there\" >&2; test -e well"], 2);
    options["Env"] = json!(["WHAT=well"]);
    let id = device.start("served", options).await;

    let healthy = eventually("a check that passes", || async {
        let state = device.runtime.inspect(&id).await.unwrap();
        Some(state).filter(|state| state.health == Some(Health::Healthy))
    })
    .await;
    fs::remove_file(device.module_directory().join("work/well")).unwrap();
    let unhealthy = wait_for_status(&device.runtime, &id, RuntimeStatus::Unhealthy).await;
    fs::write(device.module_directory().join("work/well"), "").unwrap();
    wait_for_status(&device.runtime, &id, RuntimeStatus::Running).await;

    assert_eq!(healthy.status, RuntimeStatus::Running);
    let reason = unhealthy.description.unwrap();
    assert_eq!(reason, "its health check fails: exit code 1: well is not there");
    assert_eq!(unhealthy.pid, healthy.pid, "it runs on");
}

#[tokio::test]
async fn a_health_check_that_hangs_or_cannot_be_executed_fails_and_leaves_nothing_behind() {
    let device = Device::new();
    device.script("module", "echo ready; while :; do sleep 0.05; done");
    for (test, why) in [
        (&["CMD-SHELL", "sleep 987 & sleep 987"][..], "did not end within 0.2 s"),
        (&["CMD", "/nowhere/program"], "`/nowhere/program` cannot be executed"),
    ] {
        let id = device.start("module", check(test, 1)).await;

        let state = wait_for_status(&device.runtime, &id, RuntimeStatus::Unhealthy).await;
        device.runtime.stop(&id, None).await.unwrap();
        let stopped = device.runtime.inspect(&id).await.unwrap();

        let description = state.description.unwrap();
        assert!(description.contains(why), "{description}");
        assert_eq!(stopped.health, None);
        assert_eq!(device.runtime.processes(&id).await.unwrap(), Vec::<u32>::new());
        device.runtime.remove(&id).await.unwrap();
    }
}

#[tokio::test]
async fn ready_made_modules_are_run_by_the_program_itself() {
    let device = Device::new();

    let id = device.start("holm/sensor", json!({"Cmd": ["--fast"]})).await;
    let state = wait_for_status(&device.runtime, &id, RuntimeStatus::Stopped).await;

    assert_eq!(state.exit_code, Some(0));
    assert_eq!(device.output(&id).await, [(1, "ready-made sensor --fast\n".to_owned())]);
}

#[tokio::test]
async fn stop_asks_first_and_the_module_may_end_as_it_likes() {
    let device = Device::new();
    device.script(
        "polite",
        "trap 'echo bye; exit 7' INT; echo ready; while :; do sleep 0.05; done",
    );
    let id = device.start("polite", json!({"StopSignal": "SIGINT"})).await;
    device.wait_for_output(&id, "ready").await;

    device.runtime.stop(&id, Some(Duration::from_secs(30))).await.unwrap();

    let state = device.runtime.inspect(&id).await.unwrap();
    assert_eq!((state.status, state.exit_code), (RuntimeStatus::Failed, Some(7)));
    assert_eq!(device.output(&id).await.last().unwrap().1, "bye\n");
}

#[tokio::test]
async fn stop_ends_by_force_after_the_grace_all_that_the_module_started() {
    let device = Device::new();
    device.script(
        "stubborn",
        "trap '' TERM; setsid sleep 1000 & echo ready; while :; do sleep 0.05; done",
    );
    let id = device.start("stubborn", json!({})).await;
    device.wait_for_output(&id, "ready").await;
    let left = eventually("the module's child", || async {
        let pids = device.runtime.processes(&id).await.unwrap();
        pids.into_iter()
            .find(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("1000")))
    })
    .await;

    let begin = Instant::now();
    device
        .runtime
        .stop(&id, Some(Duration::from_millis(300)))
        .await
        .unwrap();

    assert!(begin.elapsed() >= Duration::from_millis(300));
    let state = device.runtime.inspect(&id).await.unwrap();
    assert_eq!((state.status, state.exit_code), (RuntimeStatus::Failed, Some(137)));
    assert!(!fs::exists(format!("/proc/{left}")).unwrap(), "process {left} is left");
    assert_eq!(device.runtime.processes(&id).await.unwrap(), Vec::<u32>::new());
}

#[tokio::test]
async fn every_operation_may_be_repeated() {
    let device = Device::new();
    device.script("run", "exec sleep 1000");
    let id = device.start("run", json!({})).await;
    let first = device.runtime.inspect(&id).await.unwrap();

    device.runtime.start(&id).await.unwrap();
    let again = device.runtime.inspect(&id).await.unwrap();
    device.runtime.stop(&id, Some(Duration::ZERO)).await.unwrap();
    device.runtime.stop(&id, None).await.unwrap();
    device.runtime.start(&id).await.unwrap();
    let restarted = device.runtime.inspect(&id).await.unwrap();
    device.runtime.remove(&id).await.unwrap();
    device.runtime.remove(&id).await.unwrap();

    assert_eq!(first, again);
    assert_ne!(first.pid, restarted.pid);
    assert_eq!(restarted.status, RuntimeStatus::Running);
    assert!(matches!(
        device.runtime.inspect(&id).await,
        Err(RuntimeError::NotFound(_))
    ));
    assert!(device.runtime.list().await.unwrap().is_empty());
    assert_eq!(fs::read_dir(device.root()).unwrap().count(), 0);
}

#[tokio::test]
async fn create_refuses_a_second_module_with_the_same_id() {
    let device = Device::new();
    device.script("run", "exec sleep 1000");
    let spec = device.spec("run", json!({}));
    device.runtime.create(&spec).await.unwrap();

    let second = device.runtime.create(&spec).await;

    assert!(matches!(second, Err(RuntimeError::AlreadyExists(_))), "{second:?}");
    let state = device.runtime.inspect(&spec.id).await.unwrap();
    assert_eq!(
        (state.status, state.started_at, state.exit_code),
        (RuntimeStatus::Stopped, None, None)
    );
}

#[tokio::test]
async fn options_that_cannot_be_honoured_are_refused_by_name_and_nothing_is_created() {
    let device = Device::new();
    device.script("run", "exit 0");
    let spec = device.spec("run", json!({"HostConfig": {"Privileged": true, "CapAdd": ["X"]}}));

    let error = device.runtime.create(&spec).await.unwrap_err().to_string();

    assert!(
        error.contains("`HostConfig.Privileged`") && error.contains("`HostConfig.CapAdd`"),
        "{error}"
    );
    assert_eq!(device.runtime.validate(&spec).unwrap_err().len(), 2);
    assert!(device.runtime.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_missing_image_names_the_places_where_it_was_looked_for() {
    let device = Device::new();

    let error = device
        .runtime
        .prepare(&device.spec("nowhere", json!({})))
        .await
        .unwrap_err()
        .to_string();

    assert!(
        error.contains("image `nowhere`") && error.contains("/modules/nowhere"),
        "{error}"
    );
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_is_a_failed_start_with_the_reason() {
    let device = Device::new();
    device.script("run", "exit 0");
    let rows = [
        (
            json!({"WorkingDir": "/no/such/place"}),
            "`/no/such/place` cannot be entered",
        ),
        (
            json!({"Entrypoint": ["/no/such/program"]}),
            "`/no/such/program` cannot be executed",
        ),
    ];

    for (options, reason) in rows {
        let spec = device.spec("run", options);
        device.runtime.create(&spec).await.unwrap();
        let error = device.runtime.start(&spec.id).await.unwrap_err().to_string();
        let state = device.runtime.inspect(&spec.id).await.unwrap();

        assert!(error.contains(reason), "{error}");
        assert_eq!((state.status, state.exit_code), (RuntimeStatus::Failed, Some(127)));
        assert!(state.description.unwrap().contains(reason));
        device.runtime.remove(&spec.id).await.unwrap();
    }
}

#[tokio::test]
async fn both_streams_are_kept_with_times_and_read_in_part() {
    let device = Device::new();
    device.script(
        "talk",
        "echo one; sleep 0.05; echo two >&2; sleep 0.05; echo three; printf rest",
    );
    let id = device.start("talk", json!({})).await;
    wait_for_status(&device.runtime, &id, RuntimeStatus::Stopped).await;
    let read = async |options: LogsOptions| read_logs(&device.runtime, &id, &options).await;

    let all = read(LogsOptions::default()).await;
    let tail = read(LogsOptions {
        tail: Tail::Lines(1),
        ..LogsOptions::default()
    })
    .await;
    let timed = read(LogsOptions {
        timestamps: true,
        ..LogsOptions::default()
    })
    .await;
    let third = holm_model::Timestamp::parse(timed[2].1.split(' ').next().unwrap()).unwrap();
    let since = read(LogsOptions {
        since: Some(third),
        ..LogsOptions::default()
    })
    .await;

    let expected = [(1, "one\n"), (2, "two\n"), (1, "three\n"), (1, "rest")].map(|(n, text)| (n, text.to_owned()));
    assert_eq!(all, expected);
    assert_eq!(tail, expected[2..]);
    assert_eq!(since, expected[2..]);
    assert!(timed[1].1.ends_with(" two\n") && timed[1].1.contains('T'), "{timed:?}");
}

#[tokio::test]
async fn following_goes_on_over_rotated_files_until_the_module_ends() {
    let device = Device::new();
    device.script("talk", "i=0; while [ $i -lt 3000 ]; do echo line-$i; i=$((i+1)); done");
    let options =
        json!({"HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"max-size": "64k", "max-file": "3"}}}});
    let id = device.start("talk", options).await;

    let follow = LogsOptions {
        follow: true,
        ..LogsOptions::default()
    };
    let mut stream = device.runtime.logs(&id, &follow).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk.unwrap());
    }

    let lines: Vec<String> = frames(&bytes).into_iter().map(|(_, text)| text).collect();
    let expected: Vec<String> = (0..3000).map(|number| format!("line-{number}\n")).collect();
    assert_eq!(lines, expected);
    for name in ["log", "log.1", "log.2"] {
        assert!(
            fs::metadata(device.module_directory().join(name)).unwrap().len() <= 64 * 1024,
            "{name}"
        );
    }
    assert!(!device.module_directory().join("log.3").exists());
}

#[tokio::test]
async fn a_module_runs_as_the_user_that_is_asked_for() {
    let device = Device::new();
    device.script(
        "who",
        "id -u; id -g; id -G; touch mine; kill -0 1 2>/dev/null && echo may-kill",
    );
    let id = device.start("who", json!({"User": "4242:4343"})).await;

    wait_for_status(&device.runtime, &id, RuntimeStatus::Failed).await;

    let lines: Vec<String> = device.output(&id).await.into_iter().map(|(_, text)| text).collect();
    assert_eq!(lines, ["4242\n", "4343\n", "4343\n"]);
    let mine = fs::metadata(device.module_directory().join("work/mine")).unwrap();
    assert_eq!((mine.uid(), mine.gid()), (4242, 4343));
    let record = fs::metadata(device.module_directory().join("plan.json")).unwrap();
    assert_eq!((record.uid(), record.mode() & 0o077), (0, 0));
}

#[tokio::test]
async fn a_module_over_its_memory_limit_is_ended_and_the_reason_told() {
    let device = Device::new();
    let options = json!({"Cmd": ["100000000"], "HostConfig": {"Memory": 20_000_000}});
    let spec = device.spec("holm/eater", options);
    if let Err(refused) = device.runtime.validate(&spec) {
        assert_eq!(refused[0].option, "HostConfig.Memory");
        assert!(
            std::env::var_os("CI").is_none(),
            "no memory control group here: {}",
            refused[0]
        );
        eprintln!("SKIPPED: {}", refused[0]);
        return;
    }

    device.runtime.create(&spec).await.unwrap();
    device.runtime.start(&spec.id).await.unwrap();
    let state = wait_for_status(&device.runtime, &spec.id, RuntimeStatus::Failed).await;

    assert_eq!(state.exit_code, Some(137));
    assert!(state.description.unwrap().contains("`HostConfig.Memory`"));
}

#[tokio::test]
async fn processes_and_processor_time_are_limited() {
    let device = Device::new();
    device.script(
        "limits",
        "cat /proc/self/cgroup; ulimit -n; cat /proc/self/oom_score_adj; for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; echo all",
    );
    let spec = device.spec(
        "limits",
        json!({"HostConfig": {"PidsLimit": 5, "NanoCpus": 500_000_000, "OomScoreAdj": 77,
            "Ulimits": [{"Name": "nofile", "Soft": 64, "Hard": 64}]}}),
    );
    if let Err(refused) = device.runtime.validate(&spec) {
        assert!(
            std::env::var_os("CI").is_none(),
            "no control groups here: {}",
            refused[0]
        );
        eprintln!("SKIPPED: {}", refused[0]);
        return;
    }

    device.runtime.create(&spec).await.unwrap();
    device.runtime.start(&spec.id).await.unwrap();
    wait_for_status(&device.runtime, &spec.id, RuntimeStatus::Failed).await;

    let lines: Vec<String> = device
        .output(&spec.id)
        .await
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    let text = lines.concat();
    assert!(text.contains("/holm/"), "{text}");
    assert!(text.contains("\n64\n77\n"), "{text}");
    assert!(
        !text.contains("all\n"),
        "nine processes were started under a limit of five: {text}"
    );
}

#[tokio::test]
async fn usage_and_reachability_are_those_of_the_module() {
    let device = Device::new();
    let id = device.start("holm/eater", json!({"Cmd": ["30000000"]})).await;
    device.wait_for_output(&id, "ate 30000000").await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();

    let stats = device.runtime.stats(&id).await.unwrap();
    let reach = device.runtime.probe_reachability(&id, "127.0.0.1", port).await.unwrap();

    assert!((30_000_000..60_000_000).contains(&stats.memory_bytes), "{stats:?}");
    assert_eq!(stats.docker_json["name"], "/m");
    assert_eq!(reach, Reachability::Reachable);
    assert!(matches!(
        device.runtime.stats(&id_of_nobody()).await,
        Err(RuntimeError::NotFound(_))
    ));
}

fn id_of_nobody() -> holm_model::ModuleId {
    id("nobody")
}
