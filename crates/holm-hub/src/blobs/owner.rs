//! Whose a directory of blobs is.
//!
//! ```text
//! {directory}/hub        32 hexadecimal digits that name the hub, made from the key of its store
//! ```
//!
//! A hub removes the files of its directory that its database does not name. In the directory of another hub those are all files,
//! so a hub opens none that says to be another's, and none that says nothing and may be one.

use std::io;
use std::path::Path;

use holm_identity::private_file;

/// The file that names the hub.
pub(super) const NAME: &str = "hub";
/// The most that is read of it.
const MAX_BYTES: u64 = 64;

/// Makes sure that a directory is of this hub. `may_be_new` says that no file is there that could be another's.
///
/// # Errors
/// That it is another hub's, or what the file system refused.
pub(super) fn claim(directory: &Path, owner: &str, may_be_new: bool) -> io::Result<()> {
    let file = directory.join(NAME);
    match private_file::read(&file, MAX_BYTES) {
        Ok(named) if named.as_slice() == owner.as_bytes() => Ok(()),
        Err(error) if error.is_not_found() && may_be_new => {
            private_file::write(&file, owner.as_bytes()).map_err(io::Error::other)
        }
        Err(error) if !error.is_not_found() => Err(io::Error::other(error)),
        _ => Err(io::Error::other(
            "files of another hub are there, and a hub removes what it does not know; give each hub a directory of its own",
        )),
    }
}
