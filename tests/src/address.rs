//! Loopback addresses. The ports of every SDK are fixed (8883, 443, 5671), so each hub and each edge of a test has an address
//! of its own: `127.A.B.C` from 127.64.0.1 on.
//!
//! Tests run side by side in many threads and processes. An address is taken by locking a file named after it; the lock ends
//! with the process, however that ends, so nothing has to be cleaned up.

use std::fs::{File, OpenOptions, TryLockError};
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Addresses to choose from. More than ports or memory would allow at once.
const COUNT: u32 = 20_000;
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 64, 0, 1);

/// A loopback address that belongs to this value until it is dropped.
#[derive(Debug)]
pub struct Address {
    ip: Ipv4Addr,
    _lock: File,
}

impl Address {
    /// Takes a free address.
    ///
    /// # Panics
    /// When all are taken, or the directory of locks can't be written.
    #[must_use]
    pub fn take() -> Self {
        let directory = directory();
        std::fs::create_dir_all(&directory).expect("the directory of locks can be made");
        // Processes begin in different places, so that they seldom meet.
        let start = std::process::id().wrapping_mul(7919) % COUNT;
        for step in 0..COUNT {
            let ip = Ipv4Addr::from_bits(FIRST.to_bits() + (start + step) % COUNT);
            let path = directory.join(ip.to_string());
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
            let file = file.unwrap_or_else(|error| panic!("`{}` can't be opened: {error}", path.display()));
            match file.try_lock() {
                Ok(()) => return Self { ip, _lock: file },
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => panic!("`{}` can't be locked: {error}", path.display()),
            }
        }
        panic!("all {COUNT} loopback addresses are taken");
    }

    /// The address.
    #[must_use]
    pub const fn ip(&self) -> Ipv4Addr {
        self.ip
    }
}

fn directory() -> PathBuf {
    std::env::temp_dir().join("holm-e2e-addresses")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takers_get_different_loopback_addresses() {
        let first = Address::take();
        let second = Address::take();

        assert_ne!(first.ip(), second.ip());
        assert!(first.ip().is_loopback() && second.ip().is_loopback());
    }
}
