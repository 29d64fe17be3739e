//! In what an edge of a test is other than usual, and the disk of its own that it may have.

use std::path::{Path, PathBuf};

use crate::hub::DISK_MEBIBYTES;
use crate::power_disk::PowerDisk;
use crate::small_disk::SmallDisk;

/// In what an edge is other than usual.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Lines for `[holm]` of its configuration.
    pub holm: Vec<&'static str>,
    /// The socket of a container engine of the test's own.
    pub engine: Option<PathBuf>,
    /// A command that runs it: the edge's own command line is added.
    pub under: Vec<String>,
    /// Lines for `[provisioning]` of its configuration, instead of the device's connection string.
    pub provisioning: Option<String>,
    /// Variables.
    pub env: Vec<(&'static str, String)>,
    /// What its data is on.
    pub data: DataOn,
}

/// What the data of an edge is on.
#[derive(Clone, Copy, Debug, Default)]
pub enum DataOn {
    /// A directory of the machine.
    #[default]
    Directory,
    /// A small disk of its own.
    SmallDisk,
    /// A disk of its own whose power can be cut.
    PowerDisk,
}

/// What the data directory is on, where it is no directory of the machine.
#[derive(Debug)]
pub(super) enum Disk {
    Small(SmallDisk),
    Power(PowerDisk),
}

impl Disk {
    pub(super) fn mount(on: DataOn, data: &Path) -> Option<Self> {
        match on {
            DataOn::Directory => None,
            DataOn::SmallDisk => Some(Self::Small(SmallDisk::mount(data, DISK_MEBIBYTES))),
            DataOn::PowerDisk => Some(Self::Power(PowerDisk::mount(&data.with_extension("image"), data))),
        }
    }
}
