//! What device this is.

use serde_json::{Value, json};

/// The answer of `GET /systeminfo`.
#[must_use]
pub fn info() -> Value {
    let uname = rustix::system::uname();
    let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let of_release = |name: &str| {
        let line = release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    let dmi = |name: &str| {
        let read = std::fs::read_to_string(format!("/sys/class/dmi/id/{name}"));
        read.ok()
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty())
    };
    let mut info = json!({
        "osType": "linux",
        "architecture": text(uname.machine()),
        "version": env!("CARGO_PKG_VERSION"),
        "server_version": env!("CARGO_PKG_VERSION"),
        "kernel_release": text(uname.release()),
        "kernel_version": text(uname.version()),
        "operating_system": of_release("ID"),
        "operating_system_version": of_release("VERSION_ID"),
        "operating_system_variant": of_release("VARIANT_ID"),
        "operating_system_build": of_release("BUILD_ID"),
        "cpus": std::thread::available_parallelism().map_or(1, usize::from),
        "total_memory": rustix::system::sysinfo().totalram,
        "virtualized": virtualized(),
        "product_name": dmi("product_name"),
        "system_vendor": dmi("sys_vendor"),
        "provisioning": { "type": "manual.device_connection_string", "dynamicReprovisioning": false, "alwaysReprovisionOnStartup": false },
    });
    // The published schema knows no `null`.
    if let Some(members) = info.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    info
}

/// Whether the kernel says that it runs on a virtual machine; the published words.
fn virtualized() -> &'static str {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut flags = flags.lines().filter(|line| line.starts_with("flags"));
    match flags.next() {
        Some(flags) if flags.split_whitespace().any(|flag| flag == "hypervisor") => "yes",
        Some(_) => "no",
        // Other processors do not say.
        None => "unknown",
    }
}
