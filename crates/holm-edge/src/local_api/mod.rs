//! What the workload and the management API have in common: HTTP over unix sockets, versions, errors as
//! `{"message":"…"}`.
//!
//! Source: `edge-agent.md` §3.1.

pub mod answer;
pub mod call;
pub mod socket;

pub use answer::Failure;
pub use call::Call;
pub use socket::{Admission, Socket, SocketError};
