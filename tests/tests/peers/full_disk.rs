//! A full disk under a running hub or edge: nothing more is acknowledged, the rest goes on, and so does all of it once there
//! is space, without a restart.

use anyhow::Result;
use holm_e2e::wire::mqtt::{Client, Packet};
use holm_e2e::{Daemon, Device, Edge, Event, Hub, Need, edge, patience};
use serde_json::{Value, json};

const NEEDS: &[Need] = &[Need::LowPorts, Need::Mount];
/// More messages than the last pages of files can take when the disk is full.
const MANY: usize = 500;

/// Publishes a message of its own number. Returns whether it was acknowledged; if not, the connection is closed.
fn send(client: &mut Client, topic: &str, number: usize) -> Result<bool> {
    let id = client.publish(topic, 1, false, json!(number).to_string().as_bytes())?;
    Ok(client.receive(patience::short())? == Some(Packet::Puback(id)))
}

/// Publishes until a message is refused, and returns how many were acknowledged.
fn send_until_refused(client: &mut Client, topic: &str, first: usize) -> Result<usize> {
    for number in first..first + MANY {
        if !send(client, topic, number)? {
            return Ok(number - first);
        }
    }
    panic!("{MANY} messages were acknowledged at a full disk");
}

/// The numbers that the log holds, in its order.
fn numbers(seen: &[Event]) -> Vec<usize> {
    let numbers = seen.iter().filter_map(|event| event.body.as_u64());
    numbers.filter_map(|number| usize::try_from(number).ok()).collect()
}

/// Checks a log: all acknowledged messages once and in order, and of the others only what was sent.
#[track_caller]
fn assert_holds_once(seen: &[Event], acknowledged: &[usize]) {
    let mut kept = numbers(seen);
    kept.retain(|number| acknowledged.contains(number));
    assert_eq!(kept, acknowledged);
}

#[test]
fn a_hub_on_a_full_disk_acknowledges_nothing_and_goes_on_when_there_is_space() -> Result<()> {
    if !Need::all(NEEDS) {
        return Ok(());
    }
    let hub = Hub::start_on_small_disk();
    let device = hub.create_device("d1");
    let topic = "devices/d1/messages/events/";
    let mut client = hub.connected(&device);
    let mut acknowledged: Vec<usize> = (0..20).collect();
    for number in &acknowledged {
        assert!(send(&mut client, topic, *number)?);
    }
    assert_eq!(hub.daemon().health(), (200, "ok".to_owned()));

    hub.disk().fill();
    let more = send_until_refused(&mut client, topic, 20)?;
    acknowledged.extend(20..20 + more);
    assert!(
        !send(&mut hub.connected(&device), topic, 1000)?,
        "acknowledged at a full disk"
    );
    reads_are_answered_and_writes_name_the_disk(&hub)?;
    hub.disk().free();
    hub.daemon().wait_until_healthy();
    let mut client = hub.connected(&device);
    for number in 2000..2020 {
        assert!(send(&mut client, topic, number)?);
        acknowledged.push(number);
    }

    let _created = hub.create_device("d3");
    let desired = json!({"properties": {"desired": {"round": 3}}});
    hub.service().call("PATCH", "/twins/d1", Some(&desired));
    let mut monitor = hub.monitor();
    monitor.wait_for("the last acknowledged one", |event| event.body == 2019);
    assert_holds_once(monitor.seen(), &acknowledged);
    Ok(())
}

fn reads_are_answered_and_writes_name_the_disk(hub: &Hub) -> Result<()> {
    let mut monitor = hub.monitor();
    monitor.wait_for("what was acknowledged before", |event| event.body == 19);
    for path in ["/devices/d1", "/twins/d1", "/devices"] {
        hub.service().call("GET", path, None);
    }
    let writes = [
        ("PATCH", "/twins/d1", json!({"properties": {"desired": {"round": 2}}})),
        ("PUT", "/devices/d2", json!({"deviceId": "d2"})),
    ];
    for (method, path, body) in writes {
        let answer = hub.service().try_call(method, path, &[], Some(&body))?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(
            (answer.status, answer.header("iothub-errorcode")),
            (503, Some("ServiceUnavailable")),
            "{method} {path}: {text}"
        );
        assert!(text.contains("disk is full"), "{method} {path}: {text}");
    }
    assert_eq!(hub.service().try_call("GET", "/devices/d2", &[], None)?.status, 404);
    assert_eq!(
        hub.service().call("GET", "/twins/d1", None)["properties"]["desired"]["round"],
        Value::Null
    );
    let (status, reason) = hub.daemon().health();
    assert!(status == 503 && reason.contains("disk is full"), "{status} {reason}");
    Ok(())
}

#[test]
fn a_hub_killed_on_a_full_disk_starts_on_it_with_everything_acknowledged() -> Result<()> {
    if !Need::all(NEEDS) {
        return Ok(());
    }
    let mut hub = Hub::start_on_small_disk();
    let device = hub.create_device("d1");
    let topic = "devices/d1/messages/events/";
    let mut client = hub.connected(&device);
    for number in 0..20 {
        assert!(send(&mut client, topic, number)?);
    }

    hub.disk().fill();
    let more = send_until_refused(&mut client, topic, 20)?;
    hub.crash_and_restart();
    assert!(
        !send(&mut hub.connected(&device), topic, 1000)?,
        "acknowledged at a full disk"
    );
    reads_are_answered_and_writes_name_the_disk(&hub)?;
    hub.disk().free();
    hub.daemon().wait_until_healthy();

    let acknowledged: Vec<usize> = (0..20 + more).collect();
    assert!(send(&mut hub.connected(&device), topic, 2000)?);
    let mut monitor = hub.monitor();
    monitor.wait_for("the last acknowledged one", |event| event.body == 2000);
    assert_holds_once(monitor.seen(), &acknowledged);
    Ok(())
}

#[test]
fn a_hub_that_can_not_start_on_a_full_disk_names_it() {
    if !Need::all(NEEDS) {
        return;
    }
    let mut hub = Hub::start_on_small_disk();
    hub.stop();
    hub.disk().fill();

    let (code, error) = Daemon::start("second", hub.scratch(), &mut hub.run_command()).wait_until_ended();

    hub.disk().free();
    let database = hub.data().join("hub.db").display().to_string();
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("is full") && error.contains(&database), "{error}");
    hub.restart();
}

/// A deployment with a module that does not run, so that the test can speak for it.
fn deploy_idle_module(hub: &Hub, device: &Device) {
    let modules = json!({"probe": {
        "type": "process", "version": "1.0", "status": "stopped", "restartPolicy": "always",
        "settings": {"image": "holm/sensor", "createOptions": "{}"},
    }});
    let routes = json!({"up": "FROM /messages/modules/probe/outputs/* INTO $upstream"});
    edge::deploy(hub, device, &edge::manifest(&modules, &routes));
    patience::wait("routes in force", patience::long(), || {
        let twin = hub
            .service()
            .call("GET", &format!("/twins/{}/modules/$edgeHub", device.id), None);
        let status = twin["properties"]["reported"]["lastDesiredStatus"].clone();
        (status["code"] == 200).then_some(()).ok_or_else(|| status.to_string())
    });
}

#[test]
fn an_edge_on_a_full_disk_acknowledges_nothing_delivers_what_it_has_and_goes_on_when_there_is_space() -> Result<()> {
    if !Need::all(NEEDS) {
        return Ok(());
    }
    let (hub, link) = Hub::start_behind_link();
    let device = hub.create_edge_device("pump-7");
    let edge = Edge::start_on_small_disk(&hub, &device);
    deploy_idle_module(&hub, &device);
    let topic = "devices/pump-7/modules/probe/messages/events/%24.on=out";
    let mut client = edge.connected(&hub, &device, "probe");
    assert!(send(&mut client, topic, 0)?);
    hub.monitor()
        .wait_for("a message through the edge", |event| event.body == 0);
    // Cut in between, the link would make a repeat of it.
    patience::wait("the hub's acknowledgement", patience::short(), || {
        let waiting = edge.status()["upstream"]["depth"].clone();
        (waiting == 0).then_some(()).ok_or_else(|| waiting.to_string())
    });
    link.cut();
    let mut acknowledged: Vec<usize> = (0..20).collect();
    for number in &acknowledged[1..] {
        assert!(send(&mut client, topic, *number)?);
    }
    assert_eq!(edge.daemon().health(), (200, "ok".to_owned()));

    edge.disk().fill();
    let more = send_until_refused(&mut client, topic, 20)?;
    acknowledged.extend(20..20 + more);
    assert!(
        !send(&mut edge.connected(&hub, &device, "probe"), topic, 1000)?,
        "acknowledged at a full disk"
    );
    let (status, reason) = edge.daemon().health();
    link.restore();
    let mut monitor = hub.monitor();
    monitor.wait_for("what was stored, at a full disk", |event| {
        event.body == acknowledged.len() - 1
    });
    edge.disk().free();
    edge.daemon().wait_until_healthy();
    // It left while the disk was full, and nothing has changed since.
    patience::wait("a true report on the module", patience::short(), || {
        let twin = hub.service().call("GET", "/twins/pump-7/modules/$edgeHub", None);
        let status = twin["properties"]["reported"]["clients"]["pump-7/probe"]["status"].clone();
        (status == "Disconnected")
            .then_some(())
            .ok_or_else(|| status.to_string())
    });
    let mut client = edge.connected(&hub, &device, "probe");
    for number in 2000..2020 {
        assert!(send(&mut client, topic, number)?);
        acknowledged.push(number);
    }

    assert!(status == 503 && reason.contains("disk is full"), "{status} {reason}");
    monitor.wait_for("the last acknowledged one", |event| event.body == 2019);
    assert_holds_once(monitor.seen(), &acknowledged);
    Ok(())
}

#[test]
fn an_edge_killed_on_a_full_disk_starts_on_it_and_delivers_what_it_has() -> Result<()> {
    if !Need::all(NEEDS) {
        return Ok(());
    }
    let (hub, link) = Hub::start_behind_link();
    let device = hub.create_edge_device("pump-7");
    let mut edge = Edge::start_on_small_disk(&hub, &device);
    deploy_idle_module(&hub, &device);
    let topic = "devices/pump-7/modules/probe/messages/events/%24.on=out";
    let mut client = edge.connected(&hub, &device, "probe");
    link.cut();
    for number in 0..20 {
        assert!(send(&mut client, topic, number)?);
    }

    edge.disk().fill();
    let more = send_until_refused(&mut client, topic, 20)?;
    edge.crash();
    edge.restart();
    assert!(
        !send(&mut edge.connected(&hub, &device, "probe"), topic, 1000)?,
        "acknowledged at a full disk"
    );
    link.restore();

    let acknowledged: Vec<usize> = (0..20 + more).collect();
    let mut monitor = hub.monitor();
    monitor.wait_for("the last acknowledged one", |event| event.body == 19 + more);
    assert_holds_once(monitor.seen(), &acknowledged);
    Ok(())
}
