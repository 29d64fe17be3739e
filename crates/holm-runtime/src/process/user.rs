//! Who `User` in the create options is, by `/etc/passwd` and `/etc/group` of the device.
//!
//! The two files are read as they are: a directory service behind them is not asked, since this must work in a static
//! binary. A number needs no entry.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::process::record::UserIds;

/// Resolves `user`, `user:group`, each a name or a number, as Docker does: without a group it is the user's own, and 0 for
/// a number without an entry.
///
/// # Errors
/// Who is not known, as a reason that follows the option's name.
pub(crate) fn resolve(text: &str) -> Result<UserIds, String> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let group = fs::read_to_string("/etc/group").unwrap_or_default();
    resolve_in(text, &passwd, &group)
}

fn resolve_in(text: &str, passwd: &str, group: &str) -> Result<UserIds, String> {
    let (user, group_name) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let entry = find(passwd, user);
    let uid = match (&entry, user.parse::<u32>()) {
        (Some(entry), _) => entry.id,
        (None, Ok(uid)) => uid,
        (None, Err(_)) => {
            return Err(format!(
                "names the user `{user}`, which /etc/passwd of this device does not have; add it or give a number"
            ));
        }
    };
    let gid = match group_name {
        None => entry.and_then(|entry| entry.group).unwrap_or(0),
        Some(name) => match (find(group, name), name.parse::<u32>()) {
            (Some(entry), _) => entry.id,
            (None, Ok(gid)) => gid,
            (None, Err(_)) => {
                return Err(format!(
                    "names the group `{name}`, which /etc/group of this device does not have; add it or give a number"
                ));
            }
        },
    };
    Ok(UserIds { uid, gid })
}

/// The outermost directory on the way into `place` that a user may not pass, by its mode.
pub(crate) fn barred_way(place: &Path, user: UserIds) -> Option<&Path> {
    if user.uid == 0 {
        return None;
    }
    let is_barred = |path: &&Path| {
        let Ok(metadata) = fs::metadata(path) else {
            return false;
        };
        let pass = if metadata.uid() == user.uid {
            0o100
        } else if metadata.gid() == user.gid {
            0o010
        } else {
            0o001
        };
        metadata.mode() & pass == 0
    };
    place.ancestors().filter(is_barred).last()
}

struct Entry {
    id: u32,
    group: Option<u32>,
}

/// Finds a line by name, or by number. Both files begin `name:password:number`; in passwd the group follows.
fn find(file: &str, name_or_number: &str) -> Option<Entry> {
    let matches = |by_name: bool| {
        file.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let wanted = if by_name { fields.first() } else { fields.get(2) };
            if wanted != Some(&name_or_number) {
                return None;
            }
            Some(Entry {
                id: fields.get(2)?.parse().ok()?,
                group: fields.get(3).and_then(|group| group.parse().ok()),
            })
        })
    };
    matches(true).or_else(|| matches(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\npump:x:500:600::/:/bin/false\n";
    const GROUP: &str = "root:x:0:\ngpio:x:997:pump\n";

    #[test]
    fn names_and_numbers_are_resolved_as_docker_does() {
        let rows = [
            ("pump", (500, 600)),
            ("500", (500, 600)),
            ("pump:gpio", (500, 997)),
            ("pump:5", (500, 5)),
            ("12345", (12345, 0)),
            ("12345:gpio", (12345, 997)),
            ("root:", (0, 0)),
        ];
        for (text, (uid, gid)) in rows {
            assert_eq!(resolve_in(text, PASSWD, GROUP), Ok(UserIds { uid, gid }), "{text}");
        }
    }

    #[test]
    fn the_outermost_directory_that_bars_a_user_is_found() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("data/modules");
        fs::create_dir_all(&inner).unwrap();
        let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let owner = fs::metadata(&inner).unwrap();
        let owner = UserIds {
            uid: owner.uid(),
            gid: owner.gid(),
        };
        let stranger = UserIds {
            uid: 64_000,
            gid: 64_000,
        };

        open(directory.path(), 0o700);
        open(&directory.path().join("data"), 0o700);
        assert_eq!(barred_way(&inner, owner), None);
        assert_eq!(barred_way(&inner, stranger), Some(directory.path()));
        open(directory.path(), 0o711);
        assert_eq!(
            barred_way(&inner, stranger),
            Some(directory.path().join("data").as_path())
        );
        open(&directory.path().join("data"), 0o711);
        assert_eq!(barred_way(&inner, stranger), None);
    }

    #[test]
    fn unknown_names_are_refused_by_name() {
        assert!(
            resolve_in("nobody-here", PASSWD, GROUP)
                .unwrap_err()
                .contains("`nobody-here`")
        );
        assert!(
            resolve_in("pump:no-group", PASSWD, GROUP)
                .unwrap_err()
                .contains("`no-group`")
        );
    }
}
