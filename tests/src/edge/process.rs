//! The process of an edge: its configuration and its command line.

use std::ffi::OsString;
use std::fs::Permissions;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::setup::Setup;
use crate::daemon::{Daemon, Directory};
use crate::hub::{Device, Hub};
use crate::need;

/// An edge that has no turn leaves the engine alone: the address in the containers' network is one for all.
pub(super) const NO_ENGINE: &str = "
[moby_runtime]
uri = \"unix:///nonexistent/docker.sock\"
";

/// The configuration of an edge whose files are in a directory.
#[must_use]
pub fn configuration(hub: &Hub, device: &Device, ip: Ipv4Addr, hostname: &str, directory: &Path) -> String {
    let shown = directory.display();
    format!(
        r#"hostname = "{hostname}"
trust_bundle_cert = "file://{ca}"

[provisioning]
source = "manual"
connection_string = "{connection}"

[connect]
management_uri = "unix://{shown}/mgmt.sock"

[listen]
management_uri = "unix://{shown}/mgmt.sock"

[holm]
bind = "{ip}"
metrics_bind = "{ip}:9600"
data = "{shown}/edge"
module_paths = ["{shown}/modules"]
deployment_trial_sec = 2
{NO_ENGINE}"#,
        ca = hub.ca().display(),
        connection = device.connection_string,
    )
}

pub(super) fn spawn(directory: &Directory, setup: &Setup) -> Daemon {
    Daemon::start("edge", directory.path(), &mut run_command(directory, setup))
}

pub(super) fn own_program(directory: &Directory) -> PathBuf {
    directory.path().join("bin/holm")
}

pub(super) fn run_command(directory: &Directory, setup: &Setup) -> Command {
    let own = own_program(directory);
    let holm = if own.is_file() { own } else { need::holm() };
    let mut words = setup.under.iter().map(OsString::from).chain([holm.into_os_string()]);
    let mut command = Command::new(words.next().unwrap_or_default());
    command
        .args(words)
        .args(["edge", "run", "--config"])
        .arg(directory.path().join("edge.toml"))
        .envs(setup.env.iter().map(|(name, value)| (name, value)));
    command
}

/// A command as on a device that was started a moment ago: with an id of the boot and an uptime of its own.
pub(super) fn after_reboot(boots: u32, directory: &Path, command: &Command) -> Command {
    let id = directory.join("boot_id");
    std::fs::write(&id, format!("{boots:08x}-0000-4000-8000-000000000000\n"))
        .expect("a file of the test can be written");
    let uptime = std::fs::read_to_string("/proc/uptime").expect("a Linux system has /proc");
    let seconds = uptime.split('.').next().unwrap_or("0").to_owned();
    let mut inside = Command::new("unshare");
    inside
        .args(["--mount", "--time", &format!("--boottime=-{seconds}"), "sh", "-c"])
        .arg("mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"")
        .arg(id)
        .arg(command.get_program())
        .args(command.get_args());
    inside
}

pub(super) fn write(path: &Path, content: &str, mode: u32) {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).expect("a directory of the test can be made");
    }
    std::fs::write(path, content).expect("a file of the test can be written");
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("its mode can be set");
}
