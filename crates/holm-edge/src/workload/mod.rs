//! The workload API: what a module asks of its edge. The edge signs, encrypts and certifies for it; no key leaves the edge.
//!
//! ```text
//!   module --unix socket in its own directory--> who calls? --> Guard (keys, certificates)
//! ```
//!
//! - Each module has a *directory* of its own with its socket in it. The directory is what a container mounts: a mounted
//!   socket *file* would refuse for ever once the listener behind it was made anew.
//! - A socket serves its own module and nobody else's name; and the calling process must be one of the module's, as the
//!   kernel says.
//!
//! Source: `edge-agent.md` §3.1, §3.2.

mod caller;
mod guard;
mod handler;
mod sockets;

pub use guard::{Guard, GuardError, Guarding, Issued};
pub use sockets::{Sockets, module_directory};
