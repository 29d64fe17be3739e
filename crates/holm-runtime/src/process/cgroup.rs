//! Control groups: how a process module is held to its memory, processor and process limits.
//!
//! ```text
//!   version 1   MOUNT-OF-CONTROLLER/holm/HASH     one directory for each controller
//!   version 2   MOUNT/holm/HASH                   one directory for all
//! ```
//!
//! Groups stand below one directory at the top, as those of the Docker engine do with its own driver. Whether a limit can be
//! had is found out by trying, once, when the first module asks for it: where it cannot, the option is refused by name,
//! because nothing else on Linux limits a whole module (`RLIMIT_AS` counts address space of one process, `RLIMIT_NPROC`
//! every process of a user).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::process::record::ControlGroup;

/// The directory below a controller's mount in which the groups of modules stand.
pub(crate) const PARENT: &str = "holm";

/// The three controllers that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Controller {
    Memory,
    Cpu,
    Pids,
}

impl Controller {
    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
        }
    }
}

/// Where a controller's groups go, and in which version's language it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    parent: PathBuf,
    unified: bool,
}

/// What this device can limit.
#[derive(Debug, Default)]
pub(crate) struct ControlGroups {
    memory: OnceLock<Result<Place, String>>,
    cpu: OnceLock<Result<Place, String>>,
    pids: OnceLock<Result<Place, String>>,
}

/// Limits of one module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) nano_cpus: Option<u64>,
    pub(crate) processes: Option<u64>,
}

impl ControlGroups {
    /// Whether a controller can be used.
    ///
    /// # Errors
    /// The reason, to follow an option's name.
    pub(crate) fn check(&self, controller: Controller) -> Result<(), String> {
        self.place(controller).as_ref().map(|_| ()).map_err(Clone::clone)
    }

    /// The groups to make for a module called `name`.
    ///
    /// # Errors
    /// The reason why a limit cannot be had.
    pub(crate) fn plan(&self, name: &str, limits: Limits) -> Result<Vec<ControlGroup>, String> {
        let mut groups: Vec<ControlGroup> = Vec::new();
        let mut add = |place: &Place, writes: Vec<(&str, String)>| {
            let path = place.parent.join(name);
            let writes = writes.into_iter().map(|(file, value)| (file.to_owned(), value));
            match groups.iter_mut().find(|group| group.path == path) {
                Some(group) => group.writes.extend(writes),
                None => groups.push(ControlGroup {
                    path,
                    writes: writes.collect(),
                }),
            }
        };
        if let Some(bytes) = limits.memory_bytes {
            let place = self.place(Controller::Memory).as_ref().map_err(Clone::clone)?;
            let file = if place.unified {
                "memory.max"
            } else {
                "memory.limit_in_bytes"
            };
            add(place, vec![(file, bytes.to_string())]);
        }
        if let Some(nano_cpus) = limits.nano_cpus {
            let place = self.place(Controller::Cpu).as_ref().map_err(Clone::clone)?;
            let micros = quota_micros(nano_cpus);
            let writes = if place.unified {
                vec![("cpu.max", format!("{micros} {PERIOD_MICROS}"))]
            } else {
                vec![
                    ("cpu.cfs_period_us", PERIOD_MICROS.to_string()),
                    ("cpu.cfs_quota_us", micros.to_string()),
                ]
            };
            add(place, writes);
        }
        if let Some(processes) = limits.processes {
            let place = self.place(Controller::Pids).as_ref().map_err(Clone::clone)?;
            add(place, vec![("pids.max", processes.to_string())]);
        }
        Ok(groups)
    }

    fn place(&self, controller: Controller) -> &Result<Place, String> {
        let cell = match controller {
            Controller::Memory => &self.memory,
            Controller::Cpu => &self.cpu,
            Controller::Pids => &self.pids,
        };
        cell.get_or_init(|| find(controller))
    }
}

/// The period over which processor time is shared out, as the Docker engine sets it.
const PERIOD_MICROS: u64 = 100_000;

/// The processor time that a module may use in a period; the kernel refuses less than a millisecond.
fn quota_micros(nano_cpus: u64) -> u64 {
    let quota = u128::from(nano_cpus) * u128::from(PERIOD_MICROS) / 1_000_000_000;
    u64::try_from(quota).unwrap_or(u64::MAX).max(1000)
}

/// Makes a group and writes its limits.
pub(crate) fn create(group: &ControlGroup) -> io::Result<()> {
    // One that an earlier run left behind is used again: its limits are written anew.
    match fs::create_dir(&group.path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(named(&group.path, &error)),
        _ => {}
    }
    for (file, value) in &group.writes {
        let path = group.path.join(file);
        fs::write(&path, value).map_err(|error| named(&path, &error))?;
    }
    Ok(())
}

/// Puts the calling process into a group.
pub(crate) fn join(group: &ControlGroup) -> io::Result<()> {
    let path = group.path.join("cgroup.procs");
    fs::write(&path, "0").map_err(|error| named(&path, &error))
}

/// Whether the kernel ended a process of this group because of its memory limit.
pub(crate) fn was_out_of_memory(group: &ControlGroup) -> bool {
    ["memory.events", "memory.oom_control"].iter().any(|file| {
        let text = fs::read_to_string(group.path.join(file)).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.strip_prefix("oom_kill "))
            .any(|count| count.trim() != "0")
    })
}

/// Removes a group that has no process left. One that still has is left to the next run, which uses it again.
pub(crate) fn remove(group: &ControlGroup) -> io::Result<()> {
    fs::remove_dir(&group.path)
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn find(controller: Controller) -> Result<Place, String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let name = controller.name();
    let Some((mount, unified)) = mount_of(&mounts, name, |mount| {
        fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default()
    }) else {
        return Err(format!(
            "needs the `{name}` control group, which this device does not offer; enable it in the kernel or take the option away"
        ));
    };
    let parent = mount.join(PARENT);
    prepare(&mount, &parent, name, unified).map_err(|error| {
        format!("needs the `{name}` control group, which cannot be used here ({error}); run the edge as root or take the option away")
    })?;
    Ok(Place { parent, unified })
}

fn prepare(mount: &Path, parent: &Path, name: &str, unified: bool) -> io::Result<()> {
    match fs::create_dir(parent) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(named(parent, &error)),
        _ => {}
    }
    if unified {
        for directory in [mount, parent] {
            let path = directory.join("cgroup.subtree_control");
            fs::write(&path, format!("+{name}")).map_err(|error| named(&path, &error))?;
        }
    }
    let trial = parent.join(format!("trial-{name}-{}", std::process::id()));
    fs::create_dir(&trial).map_err(|error| named(&trial, &error))?;
    fs::remove_dir(&trial).map_err(|error| named(&trial, &error))
}

/// Where a controller is mounted, and whether it is the unified hierarchy: a line of mountinfo (proc(5)) is
/// `id parent major:minor root MOUNT options [more] - TYPE source SUPER-OPTIONS`.
fn mount_of(mounts: &str, name: &str, controllers: impl Fn(&Path) -> String) -> Option<(PathBuf, bool)> {
    let parsed = mounts.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mount = PathBuf::from(left.split(' ').nth(4)?);
        let mut right = right.split(' ');
        Some((mount, right.next()?.to_owned(), right.nth(1).unwrap_or("").to_owned()))
    });
    let found: Vec<_> = parsed.collect();
    let first = found
        .iter()
        .find(|(_, kind, options)| kind == "cgroup" && options.split(',').any(|option| option == name));
    if let Some((mount, _, _)) = first {
        return Some((mount.clone(), false));
    }
    let unified = found.iter().find(|(mount, kind, _)| {
        kind == "cgroup2"
            && controllers(mount)
                .split_whitespace()
                .any(|controller| controller == name)
    });
    unified.map(|(mount, _, _)| (mount.clone(), true))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                          31 25 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct\n\
                          32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn version_1_mount_is_found_by_its_controller() {
        let none = |_: &Path| String::new();

        assert_eq!(
            mount_of(HYBRID, "cpu", none),
            Some(("/sys/fs/cgroup/cpu".into(), false))
        );
        assert_eq!(mount_of(HYBRID, "pids", none), None);
    }

    #[test]
    fn version_2_mount_is_used_only_for_controllers_that_it_has() {
        let mounts = "40 25 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let controllers = |_: &Path| "cpu memory\n".to_owned();

        assert_eq!(
            mount_of(mounts, "memory", controllers),
            Some(("/sys/fs/cgroup".into(), true))
        );
        assert_eq!(mount_of(mounts, "pids", controllers), None);
    }

    #[test]
    fn limits_of_one_hierarchy_share_a_group() {
        let groups = ControlGroups::default();
        let unified = Ok(Place {
            parent: "/c/holm".into(),
            unified: true,
        });
        groups.memory.set(unified.clone()).unwrap();
        groups.cpu.set(unified.clone()).unwrap();
        groups.pids.set(unified).unwrap();
        let limits = Limits {
            memory_bytes: Some(1 << 20),
            nano_cpus: Some(1_500_000_000),
            processes: Some(9),
        };

        let plan = groups.plan("abc", limits).unwrap();

        let writes = [
            ("memory.max", "1048576"),
            ("cpu.max", "150000 100000"),
            ("pids.max", "9"),
        ];
        assert_eq!(
            plan,
            [ControlGroup {
                path: "/c/holm/abc".into(),
                writes: writes.map(|(file, value)| (file.into(), value.into())).to_vec(),
            }]
        );
    }

    #[test]
    fn a_tiny_share_is_raised_to_what_the_kernel_accepts() {
        assert_eq!(quota_micros(1), 1000);
        assert_eq!(quota_micros(500_000_000), 50_000);
    }
}
