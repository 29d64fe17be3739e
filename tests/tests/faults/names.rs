//! The name of the hub can't be resolved any more: the edge runs in a mount namespace with an `/etc/hosts` of its own.

use anyhow::Result;
use holm_e2e::daemon::Directory;
use holm_e2e::{Edge, Hub, Need, Setup, edge, patience};
use serde_json::json;

use crate::scene::{self, DEVICE, Sender};

#[test]
fn an_edge_whose_hub_has_no_name_any_more_works_on_and_finds_it_when_it_has_one_again() -> Result<()> {
    if !Need::all(&[Need::LowPorts, Need::Mount]) {
        return Ok(());
    }
    let (names, always) = (Names::new(), Names::new());
    let mut hub = Hub::start_named("hub.faults.test", always.command());
    for names in [&names, &always] {
        names.publish(&hub);
    }
    let device = hub.create_edge_device(DEVICE);
    let setup = Setup {
        under: names.command(),
        holm: vec!["keep_alive_sec = 3"],
        ..Setup::default()
    };
    let mut edge = Edge::start_with(&hub, &device, setup);
    scene::deploy(
        &hub,
        &device,
        &edge,
        &json!({"probe": scene::idle(), "sink": scene::idle()}),
    );
    let mut sender = Sender::new(edge.connected(&hub, &device, "probe"));

    // A module has a connection of its own to the hub: it stands when something has gone over it.
    sender.send(1)?;
    scene::assert_delivered(&hub, &sender.acknowledged);
    // Gone while connected: nothing changes until the connection ends.
    names.withdraw();
    sender.send(10)?;
    scene::assert_delivered(&hub, &sender.acknowledged);
    hub.crash_and_restart();
    wait_for_reason(&edge);
    sender.send(10)?;
    // Gone at the start, too.
    edge.crash();
    edge.restart();
    wait_for_reason(&edge);
    sender.client = edge.connected(&hub, &device, "probe");
    sender.send(10)?;
    names.publish(&hub);
    edge.wait_for_link();

    scene::assert_delivered(&hub, &sender.acknowledged);
    edge::wait_until_reported(&hub, &device, "a report", |report| {
        report["lastDesiredStatus"]["code"] == 200
    });
    Ok(())
}

/// Waits until the edge says that it can't reach the hub, by name.
#[track_caller]
fn wait_for_reason(edge: &Edge) {
    patience::wait("the reason in the status", patience::long(), || {
        let link = edge.status()["link"].clone();
        let reason = link["reason"].as_str().unwrap_or_default();
        if link["connected"] == false && reason.contains("hub.faults.test") {
            Ok(())
        } else {
            Err(link.to_string())
        }
    });
}

/// What a process of a mount namespace of its own finds as `/etc/hosts` and `/etc/resolv.conf`.
struct Names {
    directory: Directory,
}

impl Names {
    fn new() -> Self {
        let directory = Directory::new();
        // Nobody listens there: the answer is at once that there is none.
        std::fs::write(
            directory.path().join("resolv.conf"),
            "nameserver 127.63.255.253\noptions timeout:1 attempts:1\n",
        )
        .expect("a file of the test can be written");
        Self { directory }
    }

    fn publish(&self, hub: &Hub) {
        self.write(&format!("127.0.0.1 localhost\n{} {}\n", hub.ip(), hub.host()));
    }

    fn withdraw(&self) {
        self.write("127.0.0.1 localhost\n");
    }

    fn write(&self, text: &str) {
        std::fs::write(self.directory.path().join("hosts"), text).expect("a file of the test can be written");
    }

    fn command(&self) -> Vec<String> {
        let path = self.directory.path().display();
        let script = format!(
            "mount --bind {path}/hosts /etc/hosts && mount --bind {path}/resolv.conf /etc/resolv.conf && exec \"$@\""
        );
        ["unshare", "--mount", "sh", "-c", &script, "sh"]
            .map(str::to_owned)
            .to_vec()
    }
}
