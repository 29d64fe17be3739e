//! The device: its clock and its disk.

use std::path::Path;

use rustix::fs::statvfs;

use super::{Check, Group, Looking, Subject, Verdict};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "disk-space",
        group: Group::Configuration,
        about: "there is room for messages and state",
        look: disk_space,
    },
    Check {
        id: "data-directory",
        group: Group::Configuration,
        about: "nobody else can read what the edge keeps",
        look: data_directory,
    },
];

/// Below this the edge can't work for long.
const LEAST_BYTES: u64 = 64 << 20;
/// Below this part it should be looked after.
const LOW_PERCENT: u64 = 10;

fn disk_space(subject: &Subject) -> Looking<'_> {
    let verdict = subject
        .config()
        .map_or_else(|verdict| verdict, |config| space_of(&config.data));
    Box::pin(std::future::ready(verdict))
}

fn space_of(data: &Path) -> Verdict {
    // Before the first start only what it will be in is there.
    let Some(place) = data.ancestors().find(|path| path.exists()) else {
        return Verdict::Skipped(format!("`{}` is not there", data.display()));
    };
    match statvfs(place) {
        Ok(disk) => judge(
            disk.f_bavail.saturating_mul(disk.f_frsize),
            disk.f_blocks.saturating_mul(disk.f_frsize),
            data,
        ),
        Err(error) => Verdict::error(
            format!("the disk of `{}` can't be looked at: {error}", data.display()),
            "see that the disk is there and mounted",
        ),
    }
}

fn judge(free: u64, total: u64, data: &Path) -> Verdict {
    let text = format!(
        "{} MiB of {} MiB are free under `{}`",
        free >> 20,
        total >> 20,
        data.display()
    );
    let remedy = "make room, or set `storeAndForwardConfiguration.storeLimits.maxSizeBytes` in the deployment";
    if free < LEAST_BYTES {
        Verdict::error(text, remedy)
    } else if free < total / 100 * LOW_PERCENT {
        Verdict::warning(text, remedy)
    } else {
        Verdict::Fine(Some(text))
    }
}

fn data_directory(subject: &Subject) -> Looking<'_> {
    let verdict = subject
        .config()
        .map_or_else(|verdict| verdict, |config| mode_of(&config.data));
    Box::pin(std::future::ready(verdict))
}

fn mode_of(data: &Path) -> Verdict {
    use std::os::unix::fs::PermissionsExt as _;
    let open_to_others = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        (metadata.permissions().mode() & 0o066 != 0).then(|| path.display().to_string())
    };
    if !data.exists() {
        return Verdict::Skipped(format!("`{}` is made at the first start", data.display()));
    }
    let secrets = [
        "keys",
        "certificates/edge-ca.key.pem",
        "identities.json",
        "state.db",
        "queue/format",
    ];
    let open: Vec<_> = secrets
        .iter()
        .filter_map(|name| open_to_others(&data.join(name)))
        .collect();
    if open.is_empty() {
        return Verdict::Fine(None);
    }
    Verdict::error(
        format!("others may read or write {}", open.join(", ")),
        format!(
            "`chmod -R go-rwx {}`; change the device's key if others may have read it",
            open.join(" ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_judged_by_what_is_left() {
        let data = Path::new("/data");
        assert_eq!(judge(1 << 20, 1 << 40, data).word(), "error");
        assert_eq!(judge(5 << 30, 100 << 30, data).word(), "warning");
        assert_eq!(judge(50 << 30, 100 << 30, data).word(), "ok");
    }

    #[test]
    fn keys_that_others_can_read_are_told_with_their_path() {
        use std::os::unix::fs::PermissionsExt as _;
        let data = tempfile::tempdir().unwrap();
        let keys = data.path().join("keys");
        std::fs::create_dir(&keys).unwrap();
        std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(mode_of(data.path()), Verdict::Fine(None));

        std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o755)).unwrap();

        let Verdict::Error(finding) = mode_of(data.path()) else {
            panic!("it is told as in order");
        };
        assert!(
            finding.reason.contains("/keys") && finding.remedy.contains("chmod"),
            "{finding:?}"
        );
    }
}
