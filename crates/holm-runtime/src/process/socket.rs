//! Sockets at paths of any length: the address of a socket holds 107 bytes, so a longer path is reached through an open
//! directory.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The longest path that an address holds, in bytes (`sun_path` of unix(7), without its final zero).
const LONGEST_PATH: usize = 107;

/// Listens at a path.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    with_short(path, |short| UnixListener::bind(short))
}

/// Connects to a path.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    with_short(path, |short| UnixStream::connect(short))
}

fn with_short<T>(path: &Path, act: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().as_bytes().len() <= LONGEST_PATH {
        return act(path);
    }
    let directory = File::open(path.parent().unwrap_or_else(|| Path::new("/")))?;
    let mut short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    short.push(path.file_name().unwrap_or_else(|| OsStr::new("")));
    act(&short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_longer_than_an_address_is_reached() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();

        let listener = bind(&deep.join("s")).unwrap();
        let client = connect(&deep.join("s"));

        assert!(client.is_ok(), "{client:?}");
        assert!(listener.accept().is_ok());
    }
}
