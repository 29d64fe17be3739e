//! The last stage before a module's program: becomes what the program shall be, then executes it in its own place.
//!
//! The supervisor gives this stage a socket as standard input. It reports on it why the program could not be executed; that it
//! was executed shows as the socket's end, because the copy that is kept for reporting closes on exec.

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Gid, Pid, Resource, Rlimit, Signal, Uid};

use crate::process::record::{Directory, Plan, ResourceLimit, UserIds, read};
use crate::process::{cgroup, settings};

/// Executes the plan in this directory; returns only when that failed.
pub(crate) fn run(directory: &Directory, parent: u32) -> u8 {
    let report = io::stdin().as_fd().try_clone_to_owned();
    let reason = match execute(directory, parent, Purpose::Module) {
        Ok(never) => match never {},
        Err(reason) => reason,
    };
    if let Ok(report) = report {
        // When the supervisor is gone there is nobody left to tell.
        drop(fs::File::from(report).write_all(reason.as_bytes()));
    }
    127
}

/// Executes the health check of the plan; returns only when that failed, and says why as the check would have.
pub(crate) fn probe(directory: &Directory, parent: u32) -> u8 {
    let reason = match execute(directory, parent, Purpose::Check) {
        Ok(never) => match never {},
        Err(reason) => reason,
    };
    // When the supervisor is gone there is nobody left to tell.
    drop(io::stdout().write_all(reason.as_bytes()));
    127
}

/// What is executed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Module,
    Check,
}

fn execute(directory: &Directory, parent: u32, purpose: Purpose) -> Result<std::convert::Infallible, String> {
    let plan: Plan = match read(&directory.plan()) {
        Ok(Some(plan)) => plan,
        Ok(None) => return Err("its plan is gone".to_owned()),
        Err(error) => return Err(format!("its plan cannot be read: {error}")),
    };
    for group in &plan.groups {
        cgroup::join(group).map_err(|error| format!("it cannot join its control group: {error}"))?;
    }
    if let Some(score) = plan.oom_score_adjust {
        fs::write("/proc/self/oom_score_adj", score.to_string())
            .map_err(|error| format!("`HostConfig.OomScoreAdj` cannot be set to {score}: {error}"))?;
    }
    for limit in &plan.resource_limits {
        set_limit(limit).map_err(|error| format!("the limit `{}` cannot be set: {error}", limit.name))?;
    }
    let directory = &plan.working_dir;
    std::env::set_current_dir(directory).map_err(|error| {
        format!(
            "its working directory `{}` cannot be entered: {error}",
            directory.display()
        )
    })?;
    if let Some(user) = plan.user {
        become_user(user).map_err(|error| format!("it cannot become uid {} gid {}: {error}", user.uid, user.gid))?;
    }
    // Changing the user clears this, so it comes after. The module must not outlive the reader of its output.
    let kill = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    kill.map_err(|error| format!("it cannot be bound to its supervisor: {error}"))?;
    let has_parent = rustix::process::getppid().is_some_and(|now| Pid::as_raw(Some(now)).unsigned_abs() == parent);
    if !has_parent {
        return Err("its supervisor has gone".to_owned());
    }
    // The supervisor blocks the signals that it waits for, and a mask is inherited: a module with SIGTERM blocked would only
    // end by force.
    nix::sys::signal::SigSet::empty()
        .thread_set_mask()
        .map_err(|error| format!("its signals cannot be unblocked: {error}"))?;
    let (program, arguments) = match (purpose, &plan.health) {
        (Purpose::Module, _) => (&plan.program, &plan.arguments),
        (Purpose::Check, Some(check)) => (&check.program, &check.arguments),
        (Purpose::Check, None) => return Err("its plan has no health check".to_owned()),
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(&plan.env).stdin(Stdio::null());
    if purpose == Purpose::Check {
        // Both in one, in the order in which they are said.
        let output = io::stdout().as_fd().try_clone_to_owned();
        command.stderr(output.map_or_else(|_| Stdio::null(), Stdio::from));
    }
    let error = command.exec();
    Err(explain(program, plan.user, &error))
}

fn explain(program: &Path, user: Option<UserIds>, error: &io::Error) -> String {
    let shown = program.display();
    match (error.kind(), user) {
        (io::ErrorKind::NotFound, _) if program.exists() => {
            format!(
                "`{shown}` cannot be executed: the interpreter or loader that it names does not exist on this device"
            )
        }
        (io::ErrorKind::PermissionDenied, Some(user)) => {
            format!("`{shown}` cannot be executed by uid {}: {error}", user.uid)
        }
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            format!("`{shown}` is not a program for this processor, and has no `#!` line")
        }
        _ => format!("`{shown}` cannot be executed: {error}"),
    }
}

fn set_limit(limit: &ResourceLimit) -> io::Result<()> {
    let resource: Resource = settings::resource(&limit.name).ok_or_else(|| io::Error::other("it is not known"))?;
    let new = Rlimit {
        current: limit.soft,
        maximum: limit.hard,
    };
    Ok(rustix::process::setrlimit(resource, new)?)
}

/// This process has one thread, so changing that thread changes the process.
fn become_user(user: UserIds) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        rustix::thread::set_thread_groups(&[])?;
        let gid = Gid::from_raw(user.gid);
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        let uid = Uid::from_raw(user.uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    }
    let now = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if now == (user.uid, user.gid) {
        Ok(())
    } else {
        Err(io::Error::other("the edge does not run as root"))
    }
}
