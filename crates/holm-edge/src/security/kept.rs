//! Authorities of the edge's own that are not in use: their files, certificate and key.
//!
//! ```text
//!   edge-ca.pem · edge-ca.key.pem                   in use
//!   edge-ca-next.pem · edge-ca-next.key.pem         announced
//!   edge-ca-kept-HASH.pem · ….key.pem               kept: at most MOST
//! ```
//!
//! Which authority is in use hangs on the time of day, and that may be wrong: a clock that is years ahead shows the end of an
//! authority that has hardly begun. So nothing is forgotten with a replacement. As soon as the clock shows a time at which a kept
//! authority is not over, that one is used again: whoever trusted it did not take part in the error. (A clock before any release
//! was never set, and shows nothing.) And all that are kept are in the trust bundle, so that a module which was started meanwhile
//! goes on when the clock is right.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use holm_identity::CertificateAuthority;
use holm_net::error_chain;

use super::{SecurityError, SecurityOptions};

/// Authorities that are kept. One a replacement, and one for each time that a clock is further ahead than ever before; the one
/// that ends first makes room, but for the one that was in use. With the usual 90 days they reach back for more than a year.
const MOST: usize = 6;
const PREFIX: &str = "edge-ca-kept-";
const KEY: &str = ".key.pem";
const CERTIFICATE: &str = ".pem";

/// The authorities that are kept, by their ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept(Vec<Arc<CertificateAuthority>>);

impl Kept {
    /// Reads them. One that is damaged, or half written when the power was cut, is told of and passed over.
    pub(super) fn open(options: &SecurityOptions) -> Result<Self, SecurityError> {
        let mut kept = Self::default();
        for path in keys(&directory(options)) {
            let Some(hash) = hash_of(&path) else { continue };
            match CertificateAuthority::load(&file(options, hash, CERTIFICATE), &path) {
                Ok(authority) => kept.put(Arc::new(authority)),
                Err(error) => {
                    let (path, error) = (path.display(), error_chain(&error));
                    tracing::warn!(%path, error, "an authority that was in use can't be read and is passed over");
                }
            }
        }
        Ok(kept)
    }

    /// Keeps one more; on disk when this returns. The one that ends first goes when there are too many, but never `dear`: a
    /// clock that is further ahead each time would cost the only one that the devices trust.
    pub(super) fn keep(
        &mut self,
        options: &SecurityOptions,
        authority: &Arc<CertificateAuthority>,
        dear: &CertificateAuthority,
    ) -> Result<(), SecurityError> {
        let hash = &authority.info().sha256;
        let stored = authority.store(&file(options, hash, CERTIFICATE), &file(options, hash, KEY));
        stored.map_err(SecurityError::Authority)?;
        self.put(Arc::clone(authority));
        while self.0.len() > MOST {
            let is_dear = |kept: &Arc<CertificateAuthority>| kept.info().sha256 == dear.info().sha256;
            let Some(first) = self.0.iter().position(|kept| !is_dear(kept)) else {
                break;
            };
            let first = self.0.remove(first);
            remove(options, &first.info().sha256);
        }
        Ok(())
    }

    fn put(&mut self, authority: Arc<CertificateAuthority>) {
        self.0.retain(|known| known.info().sha256 != authority.info().sha256);
        let end = authority.info().not_after;
        let place = self.0.partition_point(|known| known.info().not_after <= end);
        self.0.insert(place, authority);
    }

    /// By their ends.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<CertificateAuthority>> {
        self.0.iter()
    }
}

fn directory(options: &SecurityOptions) -> PathBuf {
    options.data.join("certificates")
}

fn file(options: &SecurityOptions, hash: &str, end: &str) -> PathBuf {
    // As much of the hash as tells a handful apart.
    let hash = hash.get(..16).unwrap_or(hash);
    directory(options).join(format!("{PREFIX}{hash}{end}"))
}

/// The files of keys in a directory.
fn keys(directory: &Path) -> Vec<PathBuf> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(directory = %directory.display(), %error, "earlier authorities of the edge can't be looked for");
            return Vec::new();
        }
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| hash_of(path).is_some()).collect()
}

fn hash_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.strip_prefix(PREFIX)?.strip_suffix(KEY)
}

fn remove(options: &SecurityOptions, hash: &str) {
    for end in [CERTIFICATE, KEY] {
        let path = file(options, hash, end);
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a file of an authority of long ago could not be removed");
        }
    }
}
