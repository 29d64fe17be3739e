//! Bad links: cut every second, far, lossy, slow, half open, without names.
#![allow(clippy::print_stderr, reason = "a test tells what it measured")]

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use holm_e2e::hub::MQTT_PORT;
use holm_e2e::wire::mqtt::Packet;
use holm_e2e::{Link, Need, Setup, Way, Weather, need, patience};

use crate::scene::{self, DEVICE, Pair, Scene, assert_kept};

/// A keep-alive that a test can wait for.
const KEEP_ALIVE: &str = "keep_alive_sec = 3";

fn quick() -> Setup {
    Setup {
        holm: vec![KEEP_ALIVE],
        ..Setup::default()
    }
}

/// Makes all connections anew, so that the weather holds for them.
fn reconnect(scene: &Scene, weather: Weather) {
    scene.link.set_weather(weather);
    scene.link.cut();
    patience::wait("a link that is down", patience::long(), || {
        let link = scene.edge.status()["link"].clone();
        if link["connected"] == false {
            Ok(())
        } else {
            Err(link.to_string())
        }
    });
    scene.link.restore();
    scene.edge.wait_for_link();
}

#[test]
fn a_link_that_flaps_every_second_loses_nothing_disturbs_nobody_and_is_not_stormed() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let scene = Scene::start(Setup::default());
    let mut pair = Pair::open(&scene)?;
    let before = pair.latency(50)?;
    drop(pair);
    let mut sender = scene.sender();
    let attempts = scene.link.attempts();

    // The fault itself: a second up, a second down.
    let began = Instant::now();
    for _ in 0..6 {
        for is_up in [false, true] {
            if is_up {
                scene.link.restore();
            } else {
                scene.link.cut();
            }
            for _ in 0..10 {
                sender.send(10)?;
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
    let (tried, seconds) = (scene.link.attempts() - attempts, began.elapsed().as_secs());
    drop(sender.client);
    let mut pair = Pair::open(&scene)?;
    scene.link.cut();
    let during = pair.latency(50)?;
    scene.link.restore();

    eprintln!(
        "{tried} attempts in {seconds} s of flapping; {} messages; a local message took {before:?} before and {during:?} without the link",
        sender.acknowledged.len()
    );
    scene::assert_delivered(&scene.hub, &sender.acknowledged);
    assert_kept("a local message", before, during);
    // Four connections (the runtime's two, two modules), each after waits that double from 0.1 s; and the calls of the agent.
    assert!(tried <= 120, "{tried} attempts in {seconds} s");
    Ok(())
}

#[test]
fn a_link_of_600_ms_each_way_carries_a_window_of_messages_at_a_time() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let scene = Scene::start(Setup::default());
    let way = Duration::from_millis(600);
    let weather = Weather {
        delay: way,
        ..Weather::default()
    };
    reconnect(&scene, weather);
    let mut sender = scene.sender();

    let began = Instant::now();
    sender.send(400)?;
    scene.wait_until_drained();
    let took = began.elapsed();

    let alone = way * 2 * 400;
    eprintln!("400 messages in {took:?}; one at a time they take {alone:?}");
    scene.assert_delivered(&sender);
    assert!(took < alone / 4, "{took:?} of {alone:?}");
    Ok(())
}

#[test]
fn a_link_of_9600_bits_a_second_carries_messages_that_take_longer_than_the_keep_alive() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let scene = Scene::start(Setup {
        holm: vec!["keep_alive_sec = 10"],
        ..Setup::default()
    });
    let weather = Weather {
        rate: 1200,
        delay: Duration::from_millis(100),
        ..Weather::default()
    };
    reconnect(&scene, weather);
    let mut sender = scene.sender();
    let (attempts, began) = (scene.link.attempts_to(MQTT_PORT), Instant::now());

    // 20 s each, one behind the other, and pings behind both.
    sender.send_filled(2, 24_000)?;
    sender.send(5)?;
    scene.wait_until_drained();

    eprintln!("48 KB in {:?}", began.elapsed());
    // The test's own look at the log goes over the link, too.
    scene.link.set_weather(Weather::default());
    scene.assert_delivered(&sender);
    // The two modules may have had to connect first. Whoever takes a slow link for a dead one connects again and again.
    let tried = scene.link.attempts_to(MQTT_PORT) - attempts;
    assert!(tried <= 2, "{tried} connections were made");
    assert_eq!(scene.edge.status()["link"]["connected"], true);
    Ok(())
}

#[test]
fn a_link_that_loses_every_twentieth_packet_delivers_everything_in_order() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    if can_lose_packets() {
        run_in_a_network_of_its_own("link::packets_are_lost_in_a_network_of_its_own");
        return Ok(());
    }
    eprintln!("packets can't be lost here; instead their bytes come late, as TCP shows it");
    let scene = Scene::start(Setup::default());
    let weather = Weather {
        delay: Duration::from_millis(40),
        one_lost_in: 20,
        ..Weather::default()
    };
    reconnect(&scene, weather);
    send_and_drain(&scene)
}

#[test]
#[ignore = "the one above runs it, in a network namespace"]
fn packets_are_lost_in_a_network_of_its_own() -> Result<()> {
    let scene = Scene::start(Setup::default());
    let hub = scene.hub.ip().to_string();
    for end in ["--source", "--destination"] {
        let rule = [
            "--append",
            "INPUT",
            end,
            &hub,
            "--match",
            "statistic",
            "--mode",
            "random",
        ];
        iptables(&[&rule[..], &["--probability", "0.05", "--jump", "DROP"]].concat());
    }

    send_and_drain(&scene)?;

    let counted = iptables(&["--list", "INPUT", "--verbose", "--exact", "--numeric"]);
    let counted = counted.lines().filter(|line| line.contains("DROP"));
    let dropped: Vec<u64> = counted
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .collect();
    eprintln!("packets lost on the way from the hub, and to it: {dropped:?}");
    assert!(
        dropped.len() == 2 && dropped.iter().all(|count| *count > 0),
        "{dropped:?}"
    );
    Ok(())
}

fn send_and_drain(scene: &Scene) -> Result<()> {
    let mut sender = scene.sender();
    for _ in 0..10 {
        sender.send_filled(30, 500)?;
        scene.wait_until_drained();
    }
    scene.assert_delivered(&sender);
    assert_eq!(scene.edge.status()["link"]["connected"], true);
    Ok(())
}

fn iptables(arguments: &[&str]) -> String {
    let program = need::find("iptables").unwrap_or_else(|| "iptables".into());
    let done = Command::new(program)
        .args(arguments)
        .output()
        .expect("iptables can be started");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Starts a shell line in a network namespace that has nothing but a loopback with packets of the usual size; `$@` follows.
fn in_a_network_of_its_own(line: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let script = format!("ip link set lo mtu 1500 up && {line}");
    let mut command = Command::new("unshare");
    command
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .args(["--net", "sh", "-c", &script, "sh"]);
    command
}

/// Whether this machine can lose packets where nobody else is touched.
fn can_lose_packets() -> bool {
    let rule = "iptables --append INPUT --match statistic --mode random --probability 0.05 --jump DROP";
    let done = in_a_network_of_its_own(rule).output();
    done.is_ok_and(|done| done.status.success())
}

/// Runs an ignored test of this program in a network of its own.
#[track_caller]
fn run_in_a_network_of_its_own(test: &str) {
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = in_a_network_of_its_own("exec \"$@\"");
    command.arg(program).args(["--exact", test, "--ignored", "--nocapture"]);
    let done = command.output().expect("unshare can be started");
    let text = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    let is_done = done.status.success() && text.contains("1 passed");
    eprintln!("{text}");
    assert!(is_done, "the test in a network of its own ended with {}", done.status);
}

#[test]
fn a_half_open_link_is_found_by_the_keep_alive_and_nothing_is_lost_with_it() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let scene = Scene::start(quick());
    let mut sender = scene.sender();
    sender.send(10)?;
    scene.wait_until_drained();

    for ways in [&[Way::Up, Way::Down][..], &[Way::Up], &[Way::Down]] {
        let attempts = scene.link.attempts_to(MQTT_PORT);
        scene.link.lose(ways);
        // These are on their way into nothing, and then come over the next connection.
        sender.send(50)?;
        scene.wait_until_drained();
        let tried = scene.link.attempts_to(MQTT_PORT) - attempts;
        eprintln!("{ways:?}: {tried} connections to come back");
        assert!((1..=8).contains(&tried), "{ways:?}: {tried} attempts");
    }

    scene.assert_delivered(&sender);
    Ok(())
}

#[test]
fn a_module_whose_connection_is_half_open_gets_what_it_missed_on_its_next_one() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let scene = Scene::start(Setup::default());
    let near = Link::open(scene.edge.ip(), &[MQTT_PORT]);
    let mut probe = scene.edge.connected(&scene.hub, &scene.device, "probe");
    // Known to the edge before it comes over the link.
    drop(scene.edge.connected(&scene.hub, &scene.device, "sink"));
    let mut old = scene.over(&near, "sink", 2)?;
    scene::listen(&mut old)?;

    near.lose(&[Way::Up, Way::Down]);
    let topic = format!("devices/{DEVICE}/modules/probe/messages/events/%24.on=local");
    for number in 0..5 {
        let id = probe.publish(&topic, 1, false, number.to_string().as_bytes())?;
        assert_eq!(probe.receive(patience::short())?, Some(Packet::Puback(id)));
    }
    // Its keep-alive is 2 s: the edge finds out by itself, though nothing tells it.
    patience::wait("the end of the dead connection", patience::long(), || {
        match scene.edge.status()["clientsConnected"].as_u64() {
            Some(1) => Ok(()),
            other => Err(format!("{other:?} clients")),
        }
    });
    // Its session goes on: it has not to subscribe again.
    let mut again = scene.over(&near, "sink", 60)?;

    for number in 0..5 {
        match again.receive(patience::short())? {
            Some(Packet::Publish { id, payload, .. }) => {
                assert_eq!(payload, number.to_string().as_bytes());
                again.acknowledge(id)?;
            }
            other => panic!("instead of message {number} came {other:?}"),
        }
    }
    Ok(())
}
