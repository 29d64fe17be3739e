//! The program that goes on when this one makes room: the same process, with what the program's file holds now.
//!
//! ```text
//!   install (rename over) ─> ask ─> check ─> sessions end ─> exec ───────────────> the new program, same process id
//!                                     │      (listening sockets stay open)    │          its standard input holds the sockets
//!                                     └─> refused: nothing changes            └─> can't be run: the old one, from memory
//! ```
//!
//! - Whoever started the edge notices nothing: the process id stays, so no service manager, container or script has to help.
//! - The new program is asked before, not after: it must start, and must read this configuration and this data.
//! - Clients that connect in between wait in the queues of the sockets. Their sessions end all the same: the keys of TLS are in
//!   the memory of the process that made them.
//! - Sockets travel as descriptors in a message on a socket pair whose other end is standard input: every other descriptor of
//!   this program closes by itself, and none can leak to a module.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use holm_net::ListeningSockets;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// Says that standard input holds sockets, and for which process: the variable would outlive its use otherwise.
const HANDED_ON: &str = "HOLM_HANDED_ON";
/// Descriptors in one message; the kernel takes 253.
const AT_ONCE: usize = 64;
/// How long the new program may take to look at configuration and data.
const PATIENCE: Duration = Duration::from_secs(60);

/// The file of this program, as it was called: what replaces it is found there. Links are not resolved, since a release may
/// be switched by changing one.
pub(super) fn own_file() -> anyhow::Result<PathBuf> {
    let resolved = std::env::current_exe().context("this program does not know its own file")?;
    // What the kernel says of a file that was replaced while the program ran.
    let replaced = resolved
        .to_str()
        .and_then(|path| path.strip_suffix(" (deleted)"))
        .map(PathBuf::from);
    let called = std::env::args_os().next().unwrap_or_default();
    let as_called = Path::new(&called);
    let found = if as_called.components().count() > 1 {
        std::path::absolute(as_called).ok()
    } else {
        on_path(&called)
    };
    let is_ours = |file: &PathBuf| replaced.is_some() || is_same(file, &resolved);
    let found = found.filter(|file| file.is_file() && is_ours(file));
    Ok(found.or(replaced).unwrap_or(resolved))
}

fn on_path(name: &OsStr) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut files = std::env::split_paths(&path).map(|directory| directory.join(name));
    files.find(|file| file.is_absolute() && file.is_file())
}

fn is_same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Has the program in a file look at configuration and data, and gives its name.
pub(super) async fn check(file: &Path, config: &Path) -> anyhow::Result<String> {
    let version = ask(file, &[OsStr::new("--version")]).await?;
    let config = [
        OsStr::new("edge"),
        "run".as_ref(),
        "--check".as_ref(),
        "--config".as_ref(),
        config.as_os_str(),
    ];
    ask(file, &config).await?;
    let name = version.trim().strip_prefix("holm ").unwrap_or_else(|| version.trim());
    Ok(name.split_once("; formats").map_or(name, |(name, _)| name).to_owned())
}

async fn ask(file: &Path, arguments: &[&OsStr]) -> anyhow::Result<String> {
    let shown = file.display();
    let mut command = tokio::process::Command::new(file);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let done = tokio::time::timeout(PATIENCE, command.output()).await;
    let done = done.with_context(|| format!("`{shown}` does not answer within {} s", PATIENCE.as_secs()))?;
    let done = done.with_context(|| format!("`{shown}` can't be run"))?;
    if !done.status.success() {
        bail!("`{shown}` would not go on with this edge: {}", why(&done));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Why a program that was asked did not answer well: its own words, or how it ended where it has none.
fn why(done: &Output) -> String {
    let said = String::from_utf8_lossy(&done.stderr);
    let told = said.lines().rfind(|line| line.starts_with("holm: "));
    let told = told.unwrap_or_else(|| said.trim());
    if !told.is_empty() {
        return told.to_owned();
    }
    let how = match (done.status.code(), done.status.signal()) {
        (Some(code), _) => format!("with exit code {code}"),
        (None, Some(signal)) => format!("by signal {signal}"),
        (None, None) => "somehow".to_owned(),
    };
    format!("it ended {how} and wrote nothing that says why; is it the right file, for this machine?")
}

/// What the program before has handed on; nothing when this one was started anew.
pub(super) fn inherited() -> anyhow::Result<ListeningSockets> {
    let own = std::process::id().to_string();
    if std::env::var_os(HANDED_ON).as_deref() != Some(OsStr::new(&own)) {
        return Ok(ListeningSockets::default());
    }
    let sockets = receive(io::stdin().as_fd()).context("the sockets of the program before can't be had")?;
    let nothing = File::open("/dev/null").context("`/dev/null` can't be opened")?;
    rustix::stdio::dup2_stdin(nothing).context("the standard input can't be closed")?;
    tracing::info!(sockets = sockets.len(), "this process goes on with another program");
    Ok(ListeningSockets::inherited(sockets))
}

/// Becomes the program in a file, with the arguments of this one; if that can't be run, becomes this program again. Returns
/// only when neither can.
pub(super) fn go_on(file: &Path, sockets: &ListeningSockets) -> anyhow::Error {
    let sockets = sockets.hand_on();
    let failed = become_program(file, &sockets);
    tracing::error!(file = %file.display(), error = format!("{failed:#}"), "the new program can't be run; the old one goes on");
    // What this process was started from, whether or not its file is still there.
    become_program(Path::new("/proc/self/exe"), &sockets)
}

fn become_program(file: &Path, sockets: &[OwnedFd]) -> anyhow::Error {
    let input = match send(sockets) {
        Ok(input) => input,
        Err(error) => return anyhow::Error::new(error).context("the sockets can't be handed on"),
    };
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "holm".into());
    let mut command = Command::new(file);
    command.arg0(name).args(arguments).stdin(input);
    let error = command.env(HANDED_ON, std::process::id().to_string()).exec();
    anyhow::Error::new(error).context(format!("`{}` can't be run", file.display()))
}

/// Puts sockets into a new socket pair; gives the end to read them from.
fn send(sockets: &[OwnedFd]) -> io::Result<OwnedFd> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    for some in sockets.chunks(AT_ONCE) {
        let some: Vec<_> = some.iter().map(OwnedFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&some)) {
            return Err(io::Error::other("the descriptors do not fit into a message"));
        }
        sendmsg(&ours, &[IoSlice::new(b"sockets")], &mut control, SendFlags::DONTWAIT)?;
    }
    Ok(theirs)
}

fn receive(from: std::os::fd::BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut sockets = Vec::new();
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut word = [0; 16];
        let read = recvmsg(
            from,
            &mut [IoSliceMut::new(&mut word)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                sockets.extend(some);
            }
        }
        if read.bytes == 0 {
            return Ok(sockets);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};

    use super::*;

    #[tokio::test]
    async fn a_program_that_ends_without_a_word_is_told_with_how_it_ended() {
        let said = |script: &'static str| async move {
            let words = [OsStr::new("-c"), OsStr::new(script)];
            ask(Path::new("/bin/sh"), &words).await.unwrap_err().to_string()
        };

        assert!(said("exit 7").await.contains("exit code 7 and wrote nothing"));
        assert!(said("kill -9 $$").await.contains("signal 9 and wrote nothing"));
        assert!(said("echo 'holm: no' >&2; exit 1").await.ends_with(": holm: no"));
    }

    #[test]
    fn more_sockets_than_fit_into_one_message_arrive_in_order() {
        let listeners: Vec<_> = (0..AT_ONCE + 10)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let expected: Vec<SocketAddr> = listeners.iter().map(|it| it.local_addr().unwrap()).collect();
        let sockets: Vec<OwnedFd> = listeners.into_iter().map(OwnedFd::from).collect();

        let input = send(&sockets).unwrap();
        drop(sockets);
        let received = receive(input.as_fd()).unwrap();

        let received: Vec<_> = received.into_iter().map(TcpListener::from).collect();
        let addresses: Vec<_> = received.iter().map(|it| it.local_addr().unwrap()).collect();
        assert_eq!(addresses, expected);
    }
}
